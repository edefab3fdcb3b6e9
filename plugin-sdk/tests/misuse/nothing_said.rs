//! A `plugin!` that says nothing.

use plugin_sdk::prelude::*;

fn reconcile(_: Object<Value>, _: &Context) -> Result<Plan> {
    Ok(Plan::new())
}

plugin!();

fn main() {}
