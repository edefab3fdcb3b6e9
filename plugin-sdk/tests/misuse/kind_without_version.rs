//! A kind without its version.

use plugin_sdk::prelude::*;

fn reconcile(_: Object<Value>, _: &Context) -> Result<Plan> {
    Ok(Plan::new())
}

plugin!(reconcile, for: "demo.reef.dev/Hello");

fn main() {}
