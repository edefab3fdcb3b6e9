//! One kind where a list belongs.

use plugin_sdk::prelude::*;

fn reconcile(_: Object<Value>, _: &Context) -> Result<Plan> {
    Ok(Plan::new())
}

plugin!(reconcile, for: "demo.reef.dev/v1/Hello", owns: "v1/ConfigMap");

fn main() {}
