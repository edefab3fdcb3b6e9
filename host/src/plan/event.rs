//! Events about an object, written as the plugin's account.
//!
//! Best effort: an event that cannot be written fails nothing. The same event about the same object is not told again
//! for a while, so that a plugin that says it in every plan writes nothing in steady state.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Run, clock, json::insert, writer::Target};
use crate::{
    contract::Event,
    identity::Resource,
    names::{Kind, ObjectId},
    watch::Entry,
};

const QUIET: Duration = Duration::from_secs(600);
const REMEMBERED: usize = 20_000;
const MAX_NOTE: usize = 1024;

/// What was told lately.
#[derive(Default)]
pub(super) struct Told {
    when: Mutex<HashMap<u64, Instant>>,
}

impl Told {
    /// Whether this is news; from now on it is not.
    fn is_news(&self, uid: &str, event: &Event, now: Instant) -> bool {
        let mut hasher = DefaultHasher::new();
        (uid, &event.severity, &event.reason, &event.message).hash(&mut hasher);
        let mut when = self.when.lock();
        if when.len() >= REMEMBERED {
            when.retain(|_, told| now.duration_since(*told) < QUIET);
        }
        if when.len() >= REMEMBERED {
            when.clear();
        }
        let told = when.insert(hasher.finish(), now);
        told.is_none_or(|told| now.duration_since(told) >= QUIET)
    }
}

impl Run<'_> {
    pub(super) async fn events(&mut self, events: &[Event]) {
        for event in events {
            if self.applier.told.is_news(&self.current.uid, event, Instant::now()) {
                self.event(event).await;
            }
        }
    }

    async fn event(&mut self, event: &Event) {
        let about = self.current.clone();
        let namespace = if about.id.namespace.is_empty() { "default" } else { &about.id.namespace };
        let kind = Kind::new("events.k8s.io", "v1", "Event");
        let name = name(&about.id.name, getrandom::u64().unwrap_or(about.resource_version));
        let id = ObjectId::new(kind.clone(), namespace, &name);
        let resource = Resource { kind, plural: Arc::from("events"), namespaced: true, status: false };
        let object = object(&about, event, &id, &self.author.field_manager, &clock::micros());
        if let Err(refusal) = self.writer.note(Target::new(&resource, &id), &object).await {
            let failed = super::failure::Failed::from(refusal);
            tracing::warn!(object = %about.id, reason = event.reason, why = failed.message, "an event could not be written");
        }
    }
}

/// `web.17a5c0ffee…`, within what a name may have.
fn name(about: &str, random: u64) -> String {
    let about: String = about.chars().take(200).collect();
    format!(
        "{}.{random:016x}",
        about.replace(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '-'), "-")
    )
}

fn object(about: &Entry, event: &Event, id: &ObjectId, field_manager: &str, now: &str) -> Value {
    let mut note = event.message.clone();
    note.truncate(note.floor_char_boundary(MAX_NOTE));
    let mut regarding = json!({
        "apiVersion": about.id.kind.api_version(), "kind": &*about.id.kind.kind, "name": &*about.id.name,
        "uid": &*about.uid, "resourceVersion": about.resource_version.to_string(),
    });
    if !about.id.namespace.is_empty() {
        insert(&mut regarding, "namespace", &about.id.namespace);
    }
    let controller = format!("reef.dev/{field_manager}");
    json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": { "name": &*id.name, "namespace": &*id.namespace },
        "eventTime": now, "type": event.severity, "reason": event.reason, "note": note, "action": "Reconcile",
        "reportingController": controller, "reportingInstance": controller, "regarding": regarding,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::tests::owner, *};

    fn event(message: &str) -> Event {
        Event { severity: "Normal".into(), reason: "Scaled".into(), message: message.into() }
    }

    #[test]
    fn the_same_event_is_told_once_in_a_while() {
        let (told, now) = (Told::default(), Instant::now());
        assert!(told.is_news("u1", &event("a"), now));
        assert!(!told.is_news("u1", &event("a"), now + Duration::from_secs(60)));
        assert!(told.is_news("u1", &event("b"), now));
        assert!(told.is_news("u2", &event("a"), now));
        assert!(told.is_news("u1", &event("b"), now + QUIET));
    }

    #[test]
    fn an_event_fits_into_what_the_api_server_takes() {
        let id = ObjectId::new("events.k8s.io/v1/Event".parse().unwrap(), "team-a", &name(&"x".repeat(253), 7));
        let object = object(&owner().entry, &event(&"é".repeat(2000)), &id, "hello", "2026-01-01T00:00:00.000000Z");
        assert!(object["note"].as_str().unwrap().len() <= 1024);
        assert!(object["metadata"]["name"].as_str().unwrap().len() <= 253);
        assert_eq!(object["regarding"]["namespace"], "team-a");
        assert_eq!(name("system:node", 1), "system-node.0000000000000001");
    }
}
