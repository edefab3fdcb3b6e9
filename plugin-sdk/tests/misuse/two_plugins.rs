//! Two `plugin!` in one crate.

use plugin_sdk::prelude::*;

fn reconcile(_: Object<Value>, _: &Context) -> Result<Plan> {
    Ok(Plan::new())
}

plugin!(reconcile, for: "demo.reef.dev/v1/Hello");
plugin!(reconcile, for: "demo.reef.dev/v1/Goodbye");

fn main() {}
