//! An object as its own child.

use plugin_sdk::prelude::*;

fn reconcile(_: Object<Value>, _: &Context) -> Result<Plan> {
    Ok(Plan::new())
}

plugin!(reconcile, for: "demo.reef.dev/v1/Hello", owns: ["demo.reef.dev/v1/Hello"]);

fn main() {}
