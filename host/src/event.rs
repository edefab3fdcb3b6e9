//! The body of an `events.k8s.io/v1` Event. Pure: who tells what as whom, and when it is no news, is for its users to know.

use serde_json::{Value, json};

use crate::{
    clock,
    names::{Kind, ObjectId},
};

/// The API server takes no longer ones, in bytes.
const MAX_NOTE: usize = 1024;

/// The object that it is about.
#[derive(Debug, Clone, Copy)]
pub struct Regarding<'a> {
    pub id: &'a ObjectId,
    pub uid: &'a str,
    pub resource_version: &'a str,
}

/// What is told of it.
#[derive(Debug, Clone, Copy)]
pub struct Telling<'a> {
    /// `Normal` or `Warning`.
    pub severity: &'a str,
    pub reason: &'a str,
    /// Cut to 1,024 bytes.
    pub note: &'a str,
    pub action: &'a str,
    /// Who tells it, as in `reef.dev/hello`.
    pub controller: &'a str,
}

pub fn kind() -> Kind {
    Kind::new("events.k8s.io", "v1", "Event")
}

/// A new event: what it is called, and its JSON. That of a cluster-scoped object stands in the namespace `default`.
pub fn event(about: Regarding<'_>, told: Telling<'_>) -> (ObjectId, Value) {
    let kind = &about.id.kind;
    let namespace = if about.id.namespace.is_empty() { "default" } else { &about.id.namespace };
    let id = ObjectId::new(self::kind(), namespace, &name(&about.id.name, getrandom::u64().unwrap_or_default()));
    let mut regarding = json!({
        "apiVersion": kind.api_version(), "kind": &*kind.kind, "name": &*about.id.name,
        "uid": about.uid, "resourceVersion": about.resource_version,
    });
    if let (false, Some(fields)) = (about.id.namespace.is_empty(), regarding.as_object_mut()) {
        fields.insert("namespace".into(), (&*about.id.namespace).into());
    }
    let body = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": { "name": &*id.name, "namespace": namespace },
        "eventTime": clock::micros(), "type": told.severity, "reason": told.reason,
        "note": told.note.get(..told.note.floor_char_boundary(MAX_NOTE)), "action": told.action,
        "reportingController": told.controller, "reportingInstance": told.controller, "regarding": regarding,
    });
    (id, body)
}

/// `web.17a5c0ffee…`, within what a name may have.
fn name(about: &str, random: u64) -> String {
    let about: String = about.chars().take(200).collect();
    format!(
        "{}.{random:016x}",
        about.replace(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '-'), "-")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_fits_into_what_the_api_server_takes() {
        let told = Telling {
            severity: "Normal",
            reason: "Scaled",
            note: &"é".repeat(2000),
            action: "Reconcile",
            controller: "reef.dev/a",
        };
        let about = |namespace: &str| ObjectId::new("demo.reef.dev/v1/Hello".parse().unwrap(), namespace, &"x".repeat(253));
        let (_, object) = event(Regarding { id: &about("team-a"), uid: "u", resource_version: "1" }, told);
        assert!(object["note"].as_str().unwrap().len() <= 1024);
        assert!(object["metadata"]["name"].as_str().unwrap().len() <= 253);
        assert_eq!(object["regarding"]["namespace"], "team-a");
        let (id, object) = event(Regarding { id: &about(""), uid: "u", resource_version: "1" }, told);
        assert!(&*id.namespace == "default" && object["regarding"]["namespace"].is_null());
        assert_eq!(name("system:node", 1), "system-node.0000000000000001");
    }
}
