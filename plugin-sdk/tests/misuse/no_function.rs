//! The function is missing.

use plugin_sdk::prelude::*;

fn reconcile(_: Object<Value>, _: &Context) -> Result<Plan> {
    Ok(Plan::new())
}

plugin!(for: "demo.reef.dev/v1/Hello");

fn main() {}
