//! Plans and reads that the host must refuse, each with a sentence.

use plugin_sdk::prelude::*;

use crate::Probe;

pub fn plan(mode: &str, probe: &Probe, cx: &Context) -> Result<Plan> {
    let config = |metadata: Value| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata });
    let child = match mode {
        "unnamed" => config(json!({})),
        "other-namespace" => config(json!({ "name": "stray", "namespace": probe.spec.namespace })),
        "owner-references" => config(json!({ "name": "claimed", "ownerReferences": [] })),
        "unlisted-kind" => probe.child("v1/Service", json!({ "spec": { "ports": [{ "port": 80 }] } })),
        "own-kind" => probe.child("test.reef.dev/v1/Probe", json!({ "metadata": { "name": "self" } })),
        "twice" => {
            let twin = config(json!({ "name": "twin" }));
            return Ok(Plan::new().own(&twin).own(&twin));
        }
        "unlisted-read" => {
            let service = cx.get("v1/Service", probe.namespace(), &probe.spec.read)?;
            return Ok(Plan::new().status(json!({ "found": service.is_some() })));
        }
        "other-namespace-read" => {
            let config = cx.get("v1/ConfigMap", &probe.spec.namespace, &probe.spec.read)?;
            return Ok(Plan::new().status(json!({ "found": config.is_some() })));
        }
        _ => return Err(Error::terminal(format!("spec.mode is `{mode}`: the probe knows no such mode"))),
    };
    Ok(Plan::new().own(child))
}
