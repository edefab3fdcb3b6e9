//! Writes what a `Probe` says, by every verb that there is: `spec.mode` into `spec.target` with `spec.fields`. Beside it, this
//! is another revision of the guest `probe`: it owns other kinds, and has no children of its own accord.

use std::collections::BTreeMap;

use plugin_sdk::prelude::*;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Spec {
    mode: String,
    /// The name of what is written.
    target: String,
    /// What it says.
    fields: BTreeMap<String, String>,
}

fn reconcile(probe: Object<Spec>, _cx: &Context) -> Result<Plan> {
    let Spec { mode, target, fields } = &probe.spec;
    let object = |kind: &str, extra: Value| {
        let mut object = probe.child(kind, extra);
        object["metadata"]["name"] = target.as_str().into();
        object
    };
    let config = || object("v1/ConfigMap", json!({ "data": fields }));
    let plan = Plan::new();
    Ok(match mode.as_str() {
        "own" => plan.own(config()),
        "secret" => plan.own(object("v1/Secret", json!({ "stringData": fields }))),
        "apply" => plan.apply(config()),
        "force" => plan.apply(config()).force(),
        "create" => plan.create(config()),
        "create-keep" => plan.create(config()).keep(),
        // An API server stores none of these amounts as they are written here.
        "range" => {
            let limit = json!({ "type": "Container", "max": { "cpu": "1000m", "memory": "1024Mi" } });
            plan.apply(object("v1/LimitRange", json!({ "spec": { "limits": [limit] } })))
        }
        "unlisted-apply" => plan.apply(object("v1/Service", json!({ "spec": { "ports": [{ "port": 80 }] } }))),
        // Whatever the guest `probe` does there.
        _ => plan,
    })
}

plugin!(reconcile, for: "test.reef.dev/v1/Probe", owns: ["v1/ConfigMap", "v1/Secret"], writes: ["v1/LimitRange"]);
