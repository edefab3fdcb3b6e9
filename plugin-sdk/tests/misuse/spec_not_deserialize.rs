//! A spec that cannot be decoded.

use plugin_sdk::prelude::*;

struct Hello {}

fn reconcile(_: Object<Hello>, _: &Context) -> Result<Plan> {
    Ok(Plan::new())
}

plugin!(reconcile, for: "demo.reef.dev/v1/Hello");

fn main() {}
