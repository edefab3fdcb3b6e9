//! Two functions for one kind, in two versions.

use plugin_sdk::prelude::*;

fn reconcile(_: Object<Value>, _: &Context) -> Result<Plan> {
    Ok(Plan::new())
}

plugin!(reconcile, for: "demo.reef.dev/v1/Hello"; reconcile, for: "demo.reef.dev/v2/Hello");

fn main() {}
