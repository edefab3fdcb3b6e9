//! What the host says of a plugin, on the `Plugin` resource: conditions, digest, kinds, what fails.
//!
//! Written as the host itself, only where it differs from what is there.

mod event;

use http::Request;
use serde_json::json;

use crate::{
    catalog::{
        Revision,
        crd::{Failing, Plugin, PluginCondition, PluginStatus},
    },
    identity::{Actor, Api, ApiError, Lane, Resource},
    names::Kind,
};

pub use crate::contract::Truth;

/// The host's field manager on its own resources.
const MANAGER: &str = "reef-host";
/// In the order in which a plugin passes them.
const CONDITIONS: [&str; 4] = ["Resolved", "Compiled", "Authorized", "Ready"];
/// Is there only while children that are left over cannot be deleted.
const PRUNED: &str = "Pruned";
/// The API server refuses longer ones.
const LONGEST_MESSAGE: usize = 4096;

/// A status in the making: begins with what the resource says now.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    status: PluginStatus,
    /// The conditions that were put since.
    fresh: Vec<&'static str>,
}

impl Said {
    pub fn of(plugin: &Plugin) -> Self {
        let mut status = plugin.status.clone().unwrap_or_default();
        status.observed_generation = plugin.metadata.generation;
        status.failing = None;
        Self { status, fresh: Vec::new() }
    }

    /// The resource is another host's from now on.
    pub fn let_go(plugin: &Plugin) -> Self {
        let mut said = Self::of(plugin);
        let class = &plugin.spec.class_name;
        let message =
            format!("this host has stopped it: spec.className is `{class}` now, and the host of that class says how it is");
        said.put("Ready", Truth::Unknown, "OtherClass", &message);
        said
    }

    /// Sets a condition; the time of its last transition stays unless its status changes.
    pub fn put(&mut self, name: &'static str, truth: Truth, reason: &str, message: &str) {
        let end = message.floor_char_boundary(LONGEST_MESSAGE);
        let before = self.status.conditions.iter().position(|c| c.type_ == name).map(|i| self.status.conditions.remove(i));
        let last_transition_time = match before {
            Some(before) if before.status == truth.as_str() => before.last_transition_time,
            _ => now(),
        };
        self.status.conditions.push(PluginCondition {
            type_: name.into(),
            status: truth.as_str().into(),
            observed_generation: self.status.observed_generation,
            last_transition_time,
            reason: reason.into(),
            message: message.get(..end).unwrap_or_default().into(),
        });
        self.fresh.push(name);
    }

    /// `former`: kinds of children that only former revisions owned.
    pub fn runs(&mut self, revision: &Revision, former: &[Kind]) {
        let entries = &revision.manifest.reconciles;
        let owned = entries.iter().flat_map(|entry| &entry.owns).chain(former);
        let mut owned: Vec<String> = owned.map(ToString::to_string).collect();
        owned.sort();
        owned.dedup();
        self.status.digest = Some(revision.digest.to_string());
        self.status.revision = Some(revision.digest.short());
        self.status.component = Some(format!("{} {}", revision.manifest.name, revision.manifest.version));
        self.status.field_manager = Some(revision.field_manager.to_string());
        self.status.kinds = entries.iter().map(|entry| entry.kind.to_string()).collect();
        self.status.owned_kinds = owned;
    }

    /// Reason and message, if children that are left over are kept.
    pub fn pruned(&mut self, kept: Option<(&str, String)>) {
        match kept {
            Some((reason, message)) => self.put(PRUNED, Truth::False, reason, &message),
            None => self.status.conditions.retain(|c| c.type_ != PRUNED),
        }
    }

    pub fn failing(&mut self, failing: Option<Failing>) {
        self.status.failing = failing;
    }

    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|c| c.status == "True" && c.reason == "Ready")
    }

    /// Lets `Ready` stand, if the resource says that it is true of this generation and digest: a predecessor of this
    /// process has read what this one is about to read.
    pub fn stays_ready(&mut self, plugin: &Plugin) -> bool {
        let generation = self.status.observed_generation;
        let found = plugin.status.as_ref().is_some_and(|found| found.digest == self.status.digest);
        let stays = found && self.is_ready() && self.condition("Ready").is_some_and(|c| c.observed_generation == generation);
        if stays {
            self.fresh.push("Ready");
        }
        stays
    }

    /// Reason and message of the first condition, before `Ready`, that is not true.
    pub fn trouble(&self) -> Option<(String, String)> {
        let not_true = |name: &&str| self.condition(name).filter(|c| c.status != "True");
        CONDITIONS.iter().filter(|name| **name != "Ready").find_map(not_true).map(|c| (c.reason.clone(), c.message.clone()))
    }

    pub fn first_trouble(&self) -> String {
        self.trouble().map_or_else(|| "Starting".into(), |(reason, _)| reason)
    }

    fn condition(&self, name: &str) -> Option<&PluginCondition> {
        self.status.conditions.iter().find(|c| c.type_ == name)
    }

    /// What was not reached this time is not known; a stale truth would be a lie.
    fn finished(mut self) -> PluginStatus {
        for name in CONDITIONS {
            if !self.fresh.contains(&name) {
                self.put(name, Truth::Unknown, "NotReached", "an earlier condition is not true");
            }
        }
        let rank = |c: &PluginCondition| CONDITIONS.iter().position(|name| *name == c.type_).unwrap_or(CONDITIONS.len());
        self.status.conditions.sort_by_key(rank);
        self.status
    }
}

/// Writes the status if it says something new.
pub async fn write(api: &Api, plugin: &Plugin, said: Said) -> Result<(), ApiError> {
    let status = said.finished();
    if plugin.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let (namespace, name) = (plugin.metadata.namespace.as_deref().unwrap_or_default(), plugin.metadata.name.as_deref());
    let kind = Kind::new("reef.dev", "v1alpha1", "Plugin");
    let resource = Resource { kind, plural: "plugins".into(), namespaced: true, status: true };
    let turned = event::of(plugin, &status);
    let body = json!({
        "apiVersion": "reef.dev/v1alpha1",
        "kind": "Plugin",
        // Another one of the same name is not spoken of.
        "metadata": { "name": name, "namespace": namespace, "uid": plugin.metadata.uid },
        "status": status,
    });
    let uri = format!("{}?fieldManager={MANAGER}&force=true", resource.path(namespace, name, Some("status")));
    let request = Request::patch(uri).header("content-type", "application/apply-patch+yaml").body(body.to_string().into_bytes());
    let request = request.map_err(|e| ApiError::Misconfigured(e.to_string()))?;
    api.send(&Actor::Host, Lane::Requests, request).await?;
    if let Some(turned) = turned {
        event::tell(api, namespace, &turned).await;
    }
    Ok(())
}

/// RFC 3339, in whole seconds, as Kubernetes writes times.
fn now() -> String {
    let now = std::time::SystemTime::now();
    let seconds = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| k8s_openapi::jiff::Timestamp::from_second(seconds).ok())
        .map(|timestamp| timestamp.to_string())
        .unwrap_or_default()
}
