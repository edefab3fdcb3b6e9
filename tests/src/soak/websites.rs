//! Websites: four children each, two of them only now and then, and a status that follows that of the Deployment.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{Others, Subject, rollouts};
use crate::{cluster::condition, random::Random, world::Scene};

const PAGE: &str = "v1/ConfigMap";
const DEPLOYMENT: &str = "apps/v1/Deployment";
const SERVICE: &str = "v1/Service";
const INGRESS: &str = "networking.k8s.io/v1/Ingress";

/// On a control plane that does not look after Deployments.
pub struct Websites;

impl Subject for Websites {
    const KIND: &'static str = "demo.reef.dev/v1/Website";
    const EXAMPLE: &'static str = "website";
    const COMPONENTS: &'static [&'static str] = &["website"];
    const CHILDREN: &'static [&'static str] = &[PAGE, DEPLOYMENT, SERVICE, INGRESS];
    // So that not too many sites lose children while a host is away: that would be held, see `admin`.
    const PAUSE: Duration = Duration::from_millis(60);

    /// Another page, or another number of replicas, or exposed otherwise: one at a time.
    fn spec(random: &mut Random, name: &str, edit: u64, before: Option<&Value>) -> Value {
        let mut spec = before.cloned().unwrap_or_else(|| json!({ "html": format!("<p>{edit}"), "replicas": 1 }));
        match random.below(4) {
            0 => spec["html"] = format!("<p>{edit}").into(),
            1 => spec["replicas"] = random.below(4).into(),
            _ => {
                // Without a Service, with one, with an Ingress too: another of the three.
                let now = u64::from(spec["exposed"] == true) + u64::from(spec["hostName"].is_string());
                let next = (now + 1 + random.below(2)) % 3;
                spec["exposed"] = (next > 0).into();
                spec["hostName"] = format!("{name}.example.com").into();
                if let Some(spec) = spec.as_object_mut().filter(|_| next < 2) {
                    spec.remove("hostName");
                }
            }
        }
        spec
    }

    fn drift(child: &str) -> Value {
        match child {
            PAGE => json!({ "data": { "index.html": "by hand" } }),
            DEPLOYMENT => json!({ "spec": { "replicas": 7 } }),
            SERVICE => json!({ "spec": { "selector": { "demo.reef.dev/website": "by-hand" } } }),
            _ => json!({ "spec": { "rules": [{ "host": "by-hand.example.com" }] } }),
        }
    }

    fn children(spec: &Value) -> Vec<&'static str> {
        children(spec)
    }

    fn is_done(site: &Value, children: &BTreeMap<&str, Value>, spec: &Value) -> bool {
        let says = |condition_type: &str, status: &str| {
            condition(Some(site), condition_type)
                .is_some_and(|c| c["status"] == status && c["observedGeneration"] == site["metadata"]["generation"])
        };
        let at = |kind: &str, pointer: &str| children.get(kind).and_then(|child| child.pointer(pointer));
        says("Ready", "True")
            && says("Progressing", "False")
            && site["status"]["readyReplicas"] == spec["replicas"]
            && at(PAGE, "/data/index.html") == spec.get("html")
            && at(DEPLOYMENT, "/spec/replicas") == spec.get("replicas")
            && at(INGRESS, "/spec/rules/0/host") == spec.get("hostName")
    }

    fn others(scene: &Scene<'_>, namespaces: &[String]) -> Option<Others> {
        Some(rollouts::begin(&scene.world.cluster, namespaces))
    }
}

fn children(spec: &Value) -> Vec<&'static str> {
    let mut children = vec![PAGE, DEPLOYMENT];
    children.extend((spec["exposed"] == true).then_some(SERVICE));
    children.extend(spec["hostName"].is_string().then_some(INGRESS));
    children
}
