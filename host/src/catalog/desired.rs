//! What a `Plugin` resource asks for, validated. Pure.

use std::{fmt, sync::Arc, time::Duration};

use kube::ResourceExt as _;

use super::crd::{self, Plugin};
use crate::{
    names::{Account, Digest, Memory, PluginId, Span},
    source::{
        config_map::ConfigMapSource,
        oci::{OciSource, PullPolicy},
        reference::{Reference, Version},
    },
};

/// The shortest period in which a tag is resolved anew.
const SHORTEST_POLL: Duration = Duration::from_secs(5);

/// The most memory that a reconcile may be given: the size of a slot of the sandbox's pool.
pub const MAX_MEMORY: Memory = Memory(64 << 20);

/// A sentence for the person who wrote the resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// CamelCase, for the condition.
    pub reason: &'static str,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub memory: Memory,
    pub cpu: Span,
    pub deadline: Span,
}

/// `spec.source`, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Relative to the plugin directory.
    File(String),
    Oci(OciSource),
    ConfigMap(ConfigMapSource),
}

/// As in `ConfigMap hello`, for people.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => f.write_str(file),
            Self::Oci(oci) => oci.image.fmt(f),
            Self::ConfigMap(map) => write!(f, "ConfigMap {}", map.name),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    pub plugin: PluginId,
    pub uid: Arc<str>,
    pub created: Arc<str>,
    pub generation: i64,
    pub class: String,
    pub source: Source,
    pub pin: Option<Digest>,
    pub account: Account,
    pub field_manager: Option<Arc<str>>,
    pub settings: Arc<str>,
    pub limits: Limits,
    pub concurrency: usize,
    pub mode: crd::Mode,
    pub suspend: bool,
    pub orphan_after: Span,
}

impl Desired {
    pub fn of(plugin: &Plugin) -> Result<Self, Refused> {
        let namespace = plugin.namespace().unwrap_or_default();
        let name = plugin.name_any();
        let spec = &plugin.spec;
        let account = spec.service_account_name.as_deref().unwrap_or(&name);
        let settings = spec.settings.as_ref().map_or_else(|| "{}".into(), ToString::to_string);
        Ok(Self {
            uid: plugin.uid().unwrap_or_default().into(),
            created: plugin.creation_timestamp().map(|t| t.0.to_string()).unwrap_or_default().into(),
            generation: plugin.metadata.generation.unwrap_or_default(),
            class: spec.class_name.clone(),
            source: source(&spec.source, &Account::new(&namespace, account))?,
            pin: spec.digest.as_deref().map(str::parse).transpose().map_err(invalid("spec.digest"))?,
            account: Account::new(&namespace, account),
            field_manager: spec.field_manager.as_deref().map(Into::into),
            settings: settings.into(),
            limits: limits(&spec.limits)?,
            concurrency: usize::try_from(spec.concurrency.clamp(1, 128)).unwrap_or(1),
            mode: spec.mode,
            suspend: spec.suspend,
            orphan_after: spec.cleanup.orphan_after.parse().map_err(invalid("spec.cleanup.orphanAfter"))?,
            plugin: PluginId::new(&namespace, &name),
        })
    }
}

fn source(source: &crd::Source, account: &Account) -> Result<Source, Refused> {
    let refuse = |message| Err(Refused { reason: "InvalidSource", message });
    let others = source.others.keys().map(String::as_str);
    let mut named: Vec<&str> = others.collect();
    let known = [("file", source.file.is_some()), ("oci", source.oci.is_some()), ("configMap", source.config_map.is_some())];
    named.splice(0..0, known.into_iter().filter_map(|(name, is_there)| is_there.then_some(name)));
    match (&*named, source) {
        ([], _) => refuse("spec.source is empty: name a `file`, `oci` or `configMap`, as in `file: hello.wasm`".into()),
        ([_], crd::Source { file: Some(file), .. }) => Ok(Source::File(file.clone())),
        ([_], crd::Source { oci: Some(oci), .. }) => oci_source(oci).map(Source::Oci),
        ([_], crd::Source { config_map: Some(map), .. }) => {
            Ok(Source::ConfigMap(ConfigMapSource { account: account.clone(), name: map.name.clone(), key: map.key.clone() }))
        }
        ([other], _) => {
            refuse(format!("spec.source.{other}: this host does not offer that source; it offers `file`, `oci` and `configMap`"))
        }
        (several, _) => refuse(format!("spec.source names several sources, `{}`: keep exactly one", several.join("` and `"))),
    }
}

fn oci_source(oci: &crd::OciSource) -> Result<OciSource, Refused> {
    let image: Reference = oci.image.parse().map_err(invalid("spec.source.oci"))?;
    let poll: Option<Span> = oci.poll.as_deref().map(str::parse).transpose().map_err(invalid("spec.source.oci.poll"))?;
    if let Some(poll) = poll.filter(|poll| poll.0 < SHORTEST_POLL) {
        let message = format!("spec.source.oci.poll: {poll} is too short: use at least {}", Span(SHORTEST_POLL));
        return Err(Refused { reason: "InvalidSpec", message });
    }
    let policy = match oci.pull_policy {
        Some(crd::PullPolicy::Always) => PullPolicy::Always,
        Some(crd::PullPolicy::IfNotPresent) => PullPolicy::IfNotPresent,
        Some(crd::PullPolicy::Never) => PullPolicy::Never,
        None if image.version() == Version::Tag("latest".into()) => PullPolicy::Always,
        None => PullPolicy::IfNotPresent,
    };
    let secrets = oci.pull_secrets.iter().map(|secret| secret.name.clone()).collect();
    let poll = poll.filter(|_| policy != PullPolicy::Never).map(|poll| poll.0);
    Ok(OciSource { image, policy, secrets, poll })
}

/// `spec.limits`, validated.
pub fn limits(limits: &crd::Limits) -> Result<Limits, Refused> {
    let memory: Memory = limits.memory.parse().map_err(invalid("spec.limits.memory"))?;
    if memory > MAX_MEMORY || memory < Memory(1 << 20) {
        let message = format!("spec.limits.memory: `{}` is out of range: use 1Mi to {MAX_MEMORY}", limits.memory);
        return Err(Refused { reason: "InvalidSpec", message });
    }
    let cpu: Span = limits.cpu.parse().map_err(invalid("spec.limits.cpu"))?;
    let deadline: Span = limits.deadline.parse().map_err(invalid("spec.limits.deadline"))?;
    let longest = Span(std::time::Duration::from_secs(600));
    if cpu > deadline || deadline > longest {
        let message = format!("spec.limits: cpu ({cpu}) may be at most deadline ({deadline}), and deadline at most {longest}");
        return Err(Refused { reason: "InvalidSpec", message });
    }
    Ok(Limits { memory, cpu, deadline })
}

fn invalid<E: std::fmt::Display>(field: &'static str) -> impl Fn(E) -> Refused {
    move |error| Refused { reason: "InvalidSpec", message: format!("{field}: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn desired(spec: serde_json::Value) -> Result<Desired, Refused> {
        let plugin = json!({ "apiVersion": "reef.dev/v1alpha1", "kind": "Plugin",
            "metadata": { "name": "hello", "namespace": "a" }, "spec": spec });
        Desired::of(&serde_json::from_value(plugin).unwrap())
    }

    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        let desired = desired(json!({ "source": { "file": "hello.wasm" } })).unwrap();
        assert_eq!(desired.account, Account::new("a", "hello"));
        assert_eq!(desired.limits.memory.to_string(), "32Mi");
        assert_eq!(desired.limits.cpu.to_string(), "500ms");
        assert_eq!(desired.limits.deadline.to_string(), "10s");
        assert_eq!(desired.orphan_after.to_string(), "5m");
        assert_eq!((desired.concurrency, desired.class.as_str(), &*desired.settings), (4, "reef", "{}"));
    }

    #[test]
    fn two_sources_none_and_an_unknown_one_each_get_a_sentence() {
        for (source, part) in [
            (json!({ "file": "a.wasm", "oci": { "image": "a.example/x" } }), "`file` and `oci`: keep exactly one"),
            (json!({ "file": "a.wasm", "git": {} }), "`file` and `git`: keep exactly one"),
            (json!({}), "name a `file`, `oci` or `configMap`"),
            (json!({ "git": {} }), "spec.source.git: this host does not offer that source; it offers `file`"),
            (json!({ "oci": { "image": "a.example/X" } }), "spec.source.oci: image `a.example/X` is not valid"),
            (
                json!({ "oci": { "image": "a.example/x", "poll": "1s" } }),
                "spec.source.oci.poll: 1s is too short: use at least 5s",
            ),
        ] {
            let error = desired(json!({ "source": source })).unwrap_err();
            assert!(error.message.contains(part), "{error}");
        }
    }

    #[test]
    fn the_pull_policy_is_always_for_latest_and_if_not_present_for_all_else() {
        for (image, policy) in [
            ("a.example/x", PullPolicy::Always),
            ("a.example/x:latest", PullPolicy::Always),
            ("a.example/x:1", PullPolicy::IfNotPresent),
            ("a.example/x@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", PullPolicy::IfNotPresent),
        ] {
            let found = desired(json!({ "source": { "oci": { "image": image } } })).unwrap();
            assert!(matches!(found.source, Source::Oci(oci) if oci.policy == policy), "{image}");
        }
        let map = desired(json!({ "source": { "configMap": { "name": "x" } } })).unwrap();
        assert!(matches!(map.source, Source::ConfigMap(map) if map.key == "plugin.wasm"));
    }

    #[test]
    fn limits_out_of_range_name_field_value_and_range() {
        for (limits, part) in [
            (json!({ "memory": "1Gi" }), "spec.limits.memory: `1Gi`"),
            (json!({ "cpu": "20s" }), "cpu (20s) may be at most deadline (10s)"),
            (json!({ "deadline": "x" }), "spec.limits.deadline"),
        ] {
            let error = desired(json!({ "source": { "file": "a.wasm" }, "limits": limits })).unwrap_err();
            assert!(error.message.contains(part), "{error}");
        }
    }
}
