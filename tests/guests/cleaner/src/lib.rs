//! Keeps a ConfigMap for each `Probe`, and holds the object until the ConfigMap that `spec.read` names is gone.

use plugin_sdk::prelude::*;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Spec {
    read: String,
}

fn reconcile(probe: Object<Spec>, _cx: &Context) -> Result<Plan> {
    let name = format!("{}-cleaner", probe.name());
    Ok(Plan::new().own(probe.child("v1/ConfigMap", json!({ "metadata": { "name": name } }))))
}

fn cleanup(probe: Object<Spec>, cx: &Context) -> Result<Plan> {
    if !probe.spec.read.is_empty() && cx.get("v1/ConfigMap", probe.namespace(), &probe.spec.read)?.is_some() {
        return Ok(Plan::new().pending(format!("waiting for ConfigMap `{}` to go", probe.spec.read)));
    }
    Ok(Plan::done())
}

plugin!(reconcile, for: "test.reef.dev/v1/Probe", owns: ["v1/ConfigMap"], cleanup: cleanup, condition: "Cleaned");
