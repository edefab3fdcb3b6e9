//! A function that answers no plan.

use plugin_sdk::prelude::*;

fn reconcile(_: Object<Value>, _: &Context) -> Plan {
    Plan::new()
}

plugin!(reconcile, for: "demo.reef.dev/v1/Hello");

fn main() {}
