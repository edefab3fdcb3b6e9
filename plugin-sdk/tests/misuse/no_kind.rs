//! Nobody says which kind it reconciles.

use plugin_sdk::prelude::*;

fn reconcile(_: Object<Value>, _: &Context) -> Result<Plan> {
    Ok(Plan::new())
}

plugin!(reconcile, owns: ["v1/ConfigMap"]);

fn main() {}
