//! What an object says of a plan, word for word: `get`, then `list`, then `plan`, then `pending` or `done`.

use std::collections::BTreeMap;

use plugin_sdk::prelude::*;

#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Told {
    /// Kind and name of what is read first.
    get: Vec<(String, String)>,
    /// Kind and label selector of what is listed, of which all is deleted.
    list: Vec<(String, String)>,
    plan: Vec<Write>,
    status: Option<Value>,
    events: Vec<String>,
    pending: Option<String>,
    done: bool,
}

#[derive(Deserialize)]
struct Write {
    verb: String,
    object: Value,
    #[serde(default)]
    keep: bool,
    /// `read`: the one of what was read by this name.
    if_version: Option<String>,
    subresource: Option<String>,
    propagation: Option<String>,
}

pub fn plan(told: &Told, namespace: &str, cx: &Context) -> Result<Plan> {
    let mut versions = BTreeMap::new();
    for (kind, name) in &told.get {
        if let Some(read) = cx.get(kind, namespace, name)? {
            versions.insert(name.as_str(), read.metadata.resource_version);
        }
    }
    let mut plan = if told.done { Plan::done() } else { Plan::new() };
    for (kind, selector) in &told.list {
        plan = plan.delete_all(cx.list_fields(kind, selector, &["/metadata/labels"])?);
    }
    for write in &told.plan {
        plan = add(plan, write, &versions);
    }
    if let Some(status) = &told.status {
        plan = plan.status(status);
    }
    for event in &told.events {
        plan = plan.event(Event::normal("AsTold", event.as_str()));
    }
    Ok(match &told.pending {
        Some(pending) => plan.pending(pending),
        None => plan,
    })
}

fn add(plan: Plan, write: &Write, versions: &BTreeMap<&str, String>) -> Plan {
    let object = &write.object;
    let mut plan = match write.verb.as_str() {
        "own" => plan.own(object),
        "apply" => plan.apply(object),
        "create" => plan.create(object),
        "patch" => plan.patch(object),
        _ => plan.delete(object),
    };
    if write.keep {
        plan = plan.keep();
    }
    if let Some(version) = &write.if_version {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let version = if version == "read" { versions.get(name).cloned().unwrap_or_default() } else { version.clone() };
        plan = plan.if_version(version);
    }
    if let Some(subresource) = &write.subresource {
        plan = plan.subresource(subresource);
    }
    match write.propagation.as_deref() {
        None => plan,
        Some("Orphan") => plan.propagation(Propagation::Orphan),
        Some("Foreground") => plan.propagation(Propagation::Foreground),
        Some(_) => plan.propagation(Propagation::Background),
    }
}
