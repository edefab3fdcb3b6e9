//! An option that stands twice.

use plugin_sdk::prelude::*;

fn reconcile(_: Object<Value>, _: &Context) -> Result<Plan> {
    Ok(Plan::new())
}

plugin!(reconcile, for: "demo.reef.dev/v1/Hello", owns: ["v1/ConfigMap"], owns: ["v1/Secret"]);

fn main() {}
