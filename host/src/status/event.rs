//! An event on the `Plugin` when it begins or ceases to be ready, or is not for another reason than before.
//!
//! Best effort: the condition says the same. In steady state there is none.

use http::Request;
use serde_json::Value;

use super::MANAGER;
use crate::{
    catalog::crd::{self, Plugin, PluginCondition, PluginStatus},
    event::{self, Regarding, Telling},
    identity::{Actor, Api, Lane},
    names::ObjectId,
};

/// The event for what this status says anew.
pub(super) fn of(plugin: &Plugin, status: &PluginStatus) -> Option<Value> {
    let before = plugin.status.as_ref().and_then(ready);
    let now = ready(status)?;
    let same = before.is_some_and(|before| (&before.status, &before.reason) == (&now.status, &now.reason));
    // On the way, not there: what comes of it is told.
    if same || now.reason == "Syncing" || now.reason == "Starting" {
        return None;
    }
    let metadata = &plugin.metadata;
    let id = ObjectId::new(crd::kind(), metadata.namespace.as_deref()?, metadata.name.as_deref()?);
    let regarding = Regarding {
        id: &id,
        uid: metadata.uid.as_deref().unwrap_or_default(),
        resource_version: metadata.resource_version.as_deref().unwrap_or_default(),
    };
    let is_fine = matches!(now.reason.as_str(), "Ready" | "Suspended" | "OtherClass");
    let telling = Telling {
        severity: if is_fine { "Normal" } else { "Warning" },
        reason: &now.reason,
        note: &now.message,
        action: "Load",
        controller: "reef.dev/host",
    };
    Some(event::event(regarding, telling).1)
}

fn ready(status: &PluginStatus) -> Option<&PluginCondition> {
    status.conditions.iter().find(|condition| condition.type_ == "Ready")
}

pub(super) async fn tell(api: &Api, namespace: &str, event: &Value) {
    let uri = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events?fieldManager={MANAGER}");
    let request = Request::post(uri).header("content-type", "application/json").body(event.to_string().into_bytes());
    let Ok(request) = request else { return };
    if let Err(error) = api.send(&Actor::Host, Lane::Requests, request).await {
        tracing::debug!(%namespace, %error, "an event about a plugin could not be written");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::Said, *};
    use crate::status::Truth;

    fn said(before: Option<PluginStatus>, truth: Truth, reason: &str) -> (Option<Value>, PluginStatus) {
        let plugin = json!({ "apiVersion": "reef.dev/v1alpha1", "kind": "Plugin",
            "metadata": { "name": "hello", "namespace": "a", "uid": "u" }, "spec": { "source": { "file": "a.wasm" } } });
        let mut plugin: Plugin = serde_json::from_value(plugin).unwrap();
        plugin.status = before;
        let mut said = Said::of(&plugin);
        said.put("Ready", truth, reason, &"é".repeat(1000));
        let status = said.finished();
        (of(&plugin, &status), status)
    }

    #[test]
    fn only_a_turn_is_told_and_not_what_is_on_the_way() {
        let (event, syncing) = said(None, Truth::False, "Syncing");
        assert!(event.is_none());
        let (event, ready) = said(Some(syncing), Truth::True, "Ready");
        assert_eq!(event.unwrap()["type"], "Normal");
        let (event, ready) = said(Some(ready), Truth::True, "Ready");
        assert!(event.is_none());
        let (event, _) = said(Some(ready), Truth::True, "LastGood");
        let event = event.unwrap();
        assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("LastGood")));
        assert!(event["note"].as_str().unwrap().len() <= 1024);
    }
}
