//! `Plugin` resources as commands see them: found, and told to people and programs. It writes nothing.

use anyhow::{Context as _, anyhow, bail};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::cluster::{Cluster, text_at};
use crate::{
    catalog::crd::{FailingObject, Plugin, PluginCondition},
    clock,
    identity::ApiError,
    names::Digest,
    status,
};

/// What is told of one.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    pub namespace: String,
    pub name: String,
    /// `True`, `False`, or `Unknown`: also where the status speaks of an older generation.
    pub ready: String,
    pub reason: String,
    pub message: String,
    /// Name and version in the manifest of what runs.
    pub component: Option<String>,
    pub digest: Option<String>,
    /// As in `file hello.wasm`.
    pub source: String,
    pub class: String,
    pub account: String,
    pub field_manager: Option<String>,
    pub kinds: Vec<String>,
    pub owned_kinds: Vec<String>,
    pub conditions: Vec<PluginCondition>,
    /// How many objects fail.
    pub failing: i32,
    /// Up to ten of them.
    pub failing_objects: Vec<FailingObject>,
    /// RFC 3339.
    pub created: String,
    /// It is being deleted.
    pub deleting: bool,
}

impl Told {
    pub fn of(plugin: &Plugin) -> Self {
        let (metadata, spec) = (&plugin.metadata, &plugin.spec);
        let name = metadata.name.clone().unwrap_or_default();
        let status = plugin.status.clone().unwrap_or_default();
        let ready = ready(plugin);
        let failing = status.failing.unwrap_or_default();
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            ready: ready.map_or_else(|| "Unknown".into(), |c| c.status.clone()),
            reason: ready.map_or_else(|| "NotSeen".into(), |c| c.reason.clone()),
            message: ready.map_or_else(|| not_seen(plugin), |c| c.message.clone()),
            component: status.component,
            digest: status.digest,
            source: source(plugin),
            class: spec.class_name.clone(),
            account: spec.service_account_name.clone().unwrap_or_else(|| name.clone()),
            field_manager: status.field_manager.or_else(|| spec.field_manager.clone()),
            kinds: status.kinds,
            owned_kinds: status.owned_kinds,
            conditions: status.conditions,
            failing: failing.count,
            failing_objects: failing.objects,
            created: metadata.creation_timestamp.as_ref().map(|t| t.0.to_string()).unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            name,
        }
    }

    pub fn age(&self) -> String {
        self.created.parse().map_or_else(|_| "?".into(), age)
    }
}

pub fn age(since: Timestamp) -> String {
    super::output::age(clock::elapsed(since))
}

/// `Ready`, if it speaks of the present generation.
fn ready(plugin: &Plugin) -> Option<&PluginCondition> {
    let ready = plugin.status.as_ref()?.conditions.iter().find(|c| c.type_ == "Ready")?;
    (ready.observed_generation == plugin.metadata.generation).then_some(ready)
}

fn not_seen(plugin: &Plugin) -> String {
    format!("no host of class `{}` has looked at it yet: does one run?", plugin.spec.class_name)
}

fn source(plugin: &Plugin) -> String {
    let source = serde_json::to_value(&plugin.spec.source).unwrap_or_default();
    let Some((kind, place)) = source.as_object().and_then(|fields| fields.iter().next()) else { return "none".into() };
    let named = ["/image", "/name"].iter().map(|pointer| text_at(place, pointer)).find(|text| !text.is_empty());
    format!("{kind} {}", named.or(place.as_str()).unwrap_or_default())
}

/// How near a Plugin is to what its resource asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It runs as its resource wants it.
    Ready,
    /// Not yet, or not at all: reason and message.
    NotYet(String),
}

/// Whether the present generation is ready; if a digest is given, only with that one.
pub fn standing(plugin: &Plugin, wanted: Option<&Digest>) -> Standing {
    let told = Told::of(plugin);
    let runs = told.digest.as_deref();
    let not_yet = |text: String| Standing::NotYet(text);
    match (told.ready.as_str(), told.reason.as_str()) {
        ("True", "LastGood") => not_yet(told.message),
        ("True", _) => match (wanted, runs) {
            (Some(wanted), Some(runs)) if wanted.to_string() != runs => {
                not_yet(format!("{} runs; waiting for {}", short(runs), wanted.short()))
            }
            _ => Standing::Ready,
        },
        (_, reason) => {
            // The first condition that is not true says more than `Ready` does.
            let earlier = told.conditions.iter().find(|c| c.type_ != "Ready" && c.status == "False");
            not_yet(earlier.map_or_else(|| format!("{reason}: {}", told.message), |c| format!("{}: {}", c.reason, c.message)))
        }
    }
}

pub fn short(digest: &str) -> String {
    digest.chars().take(19).collect()
}

pub fn parse(object: Value) -> anyhow::Result<Plugin> {
    serde_json::from_value(object).context("a Plugin does not decode: is this `reef` older than the CRD?")
}

/// The Plugin of a name, if there is one.
pub async fn find(cluster: &Cluster, name: &str) -> anyhow::Result<Option<Plugin>> {
    let found = cluster.get(&status::resource(), &cluster.namespace, name).await;
    match found {
        // A server that serves no Plugins answers 404 as well.
        Ok(None) => {
            served(cluster).await?;
            Ok(None)
        }
        Ok(Some(object)) => parse(object).map(Some),
        Err(error) => Err(anyhow!("Plugin {}/{name}: {error}", cluster.namespace)),
    }
}

pub async fn must_find(cluster: &Cluster, name: &str) -> anyhow::Result<Plugin> {
    match find(cluster, name).await? {
        Some(plugin) => Ok(plugin),
        None => bail!("there is no Plugin {name} in namespace {}: `reef list -A` shows all", cluster.namespace),
    }
}

/// All of a namespace; of all namespaces, if that is empty.
pub async fn all(cluster: &Cluster, namespace: &str) -> anyhow::Result<Vec<Value>> {
    match cluster.list(&status::resource(), namespace, "").await {
        Ok(objects) => Ok(objects),
        Err(error) if error.is_not_found() => {
            served(cluster).await?;
            Err(error.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// That the API server knows Plugins.
pub async fn served(cluster: &Cluster) -> anyhow::Result<()> {
    match cluster.resource(&status::resource().kind).await {
        Err(ApiError::UnknownKind(kind)) => {
            bail!("this cluster serves no {kind}: install it with `reef crds | kubectl apply -f -`, and a host beside it")
        }
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plugin(generation: i64, ready: (&str, &str), digest: &str) -> Plugin {
        let condition = |kind: &str, (status, reason): (&str, &str)| {
            json!({ "type": kind, "status": status, "reason": reason, "message": format!("m{kind}"),
                "observedGeneration": generation, "lastTransitionTime": "" })
        };
        serde_json::from_value(json!({ "apiVersion": "reef.dev/v1alpha1", "kind": "Plugin",
            "metadata": { "name": "a", "namespace": "b", "generation": 2 },
            "spec": { "source": { "file": "a.wasm" } },
            "status": { "digest": digest, "conditions": [condition("Resolved", ("False", "SourceFailed")), condition("Ready", ready)] } }))
        .unwrap()
    }

    #[test]
    fn ready_is_what_runs_as_the_present_generation_wants_it() {
        let digest = Digest::of(b"a");
        let ready = plugin(2, ("True", "Ready"), &digest.to_string());
        assert_eq!(standing(&ready, Some(&digest)), Standing::Ready);
        assert_eq!(standing(&ready, None), Standing::Ready);
        let said = |plugin: &Plugin, wanted: Option<&Digest>| match standing(plugin, wanted) {
            Standing::NotYet(said) => said,
            Standing::Ready => "ready".into(),
        };
        assert!(said(&ready, Some(&Digest::of(b"b"))).contains("runs; waiting for sha256:"));
        assert_eq!(said(&plugin(2, ("True", "LastGood"), "x"), None), "mReady");
        assert_eq!(said(&plugin(2, ("False", "SourceFailed"), "x"), None), "SourceFailed: mResolved");
        assert!(Told::of(&plugin(1, ("True", "Ready"), "x")).message.contains("no host of class `reef`"));
        assert_eq!(Told::of(&ready).source, "file a.wasm");
    }
}
