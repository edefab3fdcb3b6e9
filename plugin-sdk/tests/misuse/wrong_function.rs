//! A function that is none to reconcile with.

use plugin_sdk::prelude::*;

fn reconcile(_: Object<Value>) -> Result<Plan> {
    Ok(Plan::new())
}

plugin!(reconcile, for: "demo.reef.dev/v1/Hello");

fn main() {}
