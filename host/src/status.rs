//! What the host says of a plugin, on the `Plugin` resource: conditions, digest, kinds, what fails.
//!
//! Written as the host itself, only where it differs from what is there.

mod event;

use http::Request;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use crate::{
    catalog::{
        Revision,
        crd::{self, Failing, Pinned, Plugin, PluginCondition, PluginStatus},
    },
    clock,
    identity::{Actor, Api, ApiError, Lane, Resource},
    names::Kind,
};

pub use crate::contract::Truth;

/// The host's field manager on its own resources.
pub const MANAGER: &str = "reef-host";
/// In the order in which a plugin passes them.
const CONDITIONS: [&str; 5] = ["Resolved", "Verified", "Compiled", "Authorized", "Ready"];
/// Is there only while children that are left over cannot be deleted.
const PRUNED: &str = "Pruned";
/// The API server refuses longer ones.
const LONGEST_MESSAGE: usize = 4096;

/// Where a component came from.
pub enum CameFrom {
    /// `registry/repository@sha256:…`, and what that was resolved from.
    Image(String, Pinned),
    /// No registry.
    Elsewhere,
    Unknown,
}

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
            _ => clock::seconds(),
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

    /// Where the component that runs came from. What is not known stays as it was said of the same component.
    pub fn came_from(&mut self, plugin: &Plugin, from: CameFrom) {
        let before = plugin.status.as_ref().and_then(|status| status.digest.as_ref());
        let same = before == self.status.digest.as_ref();
        match from {
            CameFrom::Image(image, pinned) => (self.status.image, self.status.pinned) = (Some(image), Some(pinned)),
            CameFrom::Unknown if same => {}
            CameFrom::Elsewhere | CameFrom::Unknown => (self.status.image, self.status.pinned) = (None, None),
        }
    }

    /// Reason and message, if children that are left over are kept.
    pub fn pruned(&mut self, kept: Option<(&str, String)>) {
        match kept {
            Some((reason, message)) => self.put(PRUNED, Truth::False, reason, &message),
            None => self.status.conditions.retain(|c| c.type_ != PRUNED),
        }
    }

    /// Whether this condition was put this time.
    pub fn has_said(&self, name: &str) -> bool {
        self.fresh.contains(&name)
    }

    pub fn failing(&mut self, failing: Option<Failing>) {
        self.status.failing = failing;
    }

    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|c| c.status == "True" && c.reason == "Ready")
    }

    /// Whether the resource says that this revision is ready, throttled or not, in the present generation.
    pub fn was_ready(&self, plugin: &Plugin) -> bool {
        let generation = self.status.observed_generation;
        let found = plugin.status.as_ref().is_some_and(|found| found.digest == self.status.digest);
        found && self.condition("Ready").is_some_and(|c| c.status == "True" && c.observed_generation == generation)
    }

    /// Lets `Ready` stand, if the resource says that it is true of this generation and digest: a predecessor of this
    /// process has read what this one is about to read.
    pub fn stays_ready(&mut self, plugin: &Plugin) -> bool {
        let stays = self.was_ready(plugin) && self.is_ready();
        if stays {
            self.fresh.push("Ready");
        }
        stays
    }

    /// Reason and message of the first condition, before `Ready`, that is not true.
    pub fn trouble(&self) -> Option<(String, String)> {
        self.first_untrue().map(|c| (c.reason.clone(), c.message.clone()))
    }

    pub fn first_trouble(&self) -> String {
        self.trouble().map_or_else(|| "Starting".into(), |(reason, _)| reason)
    }

    /// Whether all that is wrong is that the account's rights could not be asked for just now.
    pub fn is_unasked(&self) -> bool {
        self.first_untrue().is_some_and(|c| c.type_ == "Authorized" && c.status == Truth::Unknown.as_str())
    }

    /// Says more in a condition that was put.
    pub fn add(&mut self, name: &str, sentence: &str) {
        if let Some(condition) = self.status.conditions.iter_mut().find(|c| c.type_ == name) {
            condition.message = format!("{}; {sentence}", condition.message);
        }
    }

    /// Since when the account is not there, or not lent to the host, if that is so.
    pub fn has_no_account_since(&self) -> Option<Timestamp> {
        let gone = self.condition("Authorized").filter(|c| ["NoServiceAccount", "NotLent"].contains(&&*c.reason))?;
        gone.last_transition_time.parse().ok()
    }

    fn first_untrue(&self) -> Option<&PluginCondition> {
        let untrue = |name: &&str| self.condition(name).filter(|c| c.status != "True");
        CONDITIONS.iter().filter(|name| **name != "Ready").find_map(untrue)
    }

    fn condition(&self, name: &str) -> Option<&PluginCondition> {
        self.status.conditions.iter().find(|c| c.type_ == name)
    }

    /// What was not reached this time is not known; a stale truth would be a lie.
    pub fn finished(mut self) -> PluginStatus {
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

/// How the API server serves the host's own resource.
pub fn resource() -> Resource {
    Resource { kind: crd::kind(), plural: "plugins".into(), namespaced: true, status: true, subresources: Vec::new() }
}

/// Writes the status if it says something new.
pub async fn write(api: &Api, plugin: &Plugin, said: Said) -> Result<(), ApiError> {
    let status = said.finished();
    if plugin.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let (namespace, name) = (plugin.metadata.namespace.as_deref().unwrap_or_default(), plugin.metadata.name.as_deref());
    let resource = resource();
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
