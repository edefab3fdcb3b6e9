//! Reconciles kinds that have no status, or no conditions that can be merged: each gets a Secret with what it says.
//! A ConfigMap is looked at if it has a `data.mode`.

use plugin_sdk::prelude::*;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Spec {
    mode: String,
}

fn of_config(config: Object<Value>, _cx: &Context) -> Result<Plan> {
    match config.at("/data/mode").as_str() {
        Some(mode) => plan(mode, &config),
        None => Ok(Plan::new()),
    }
}

fn of_object(object: Object<Spec>, _cx: &Context) -> Result<Plan> {
    plan(&object.spec.mode, &object)
}

fn plan<T, S>(mode: &str, object: &Object<T, S>) -> Result<Plan> {
    let name = format!("of-{}", object.name());
    let copy = object.child("v1/Secret", json!({ "metadata": { "name": name }, "stringData": { "mode": mode } }));
    let plan = Plan::new().own(copy);
    match mode {
        "status" => Ok(plan.status(json!({ "mode": mode }))),
        "condition" => Ok(plan.condition(Condition::yes("Ready", "AsAsked", "as asked"))),
        "fail" => Err(Error::terminal("it fails as asked").reason("AsAsked")),
        _ => Ok(plan),
    }
}

plugin!(
    of_config, for: "v1/ConfigMap", owns: ["v1/Secret"];
    of_object, for: "test.reef.dev/v1/Plain", owns: ["v1/Secret"];
    of_object, for: "test.reef.dev/v1/Atomic", owns: ["v1/Secret"];
);
