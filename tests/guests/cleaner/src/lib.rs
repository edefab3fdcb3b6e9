//! Keeps a ConfigMap for each `Probe`, and holds the object until the ConfigMap that `spec.read` names is gone; or plans in its
//! cleanup what `spec.cleanup` says, word for word.

use plugin_sdk::prelude::*;

#[path = "../../planner/src/told.rs"]
mod told;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Spec {
    read: String,
    cleanup: Option<told::Told>,
}

fn reconcile(probe: Object<Spec>, _cx: &Context) -> Result<Plan> {
    let name = format!("{}-cleaner", probe.name());
    Ok(Plan::new().own(probe.child("v1/ConfigMap", json!({ "metadata": { "name": name } }))))
}

fn cleanup(probe: Object<Spec>, cx: &Context) -> Result<Plan> {
    if let Some(told) = &probe.spec.cleanup {
        return told::plan(told, probe.namespace(), cx);
    }
    if !probe.spec.read.is_empty() && cx.get("v1/ConfigMap", probe.namespace(), &probe.spec.read)?.is_some() {
        return Ok(Plan::new().pending(format!("waiting for ConfigMap `{}` to go", probe.spec.read)));
    }
    Ok(Plan::done())
}

plugin!(reconcile, for: "test.reef.dev/v1/Probe", owns: ["v1/ConfigMap"], cleanup: cleanup, condition: "Cleaned");
