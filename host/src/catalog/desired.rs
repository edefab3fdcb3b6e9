//! What a `Plugin` resource asks for, validated. Pure.

use std::sync::Arc;

use kube::ResourceExt as _;

use super::crd::{self, Plugin};
use crate::names::{Account, Digest, Memory, PluginId, Span};

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

#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    pub plugin: PluginId,
    pub uid: Arc<str>,
    pub created: Arc<str>,
    pub generation: i64,
    pub class: String,
    pub file: String,
    pub pin: Option<Digest>,
    pub account: Account,
    pub field_manager: Option<Arc<str>>,
    pub settings: Arc<str>,
    pub limits: Limits,
    pub concurrency: usize,
    pub suspend: bool,
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
            file: file(&spec.source)?,
            pin: spec.digest.as_deref().map(str::parse).transpose().map_err(invalid("spec.digest"))?,
            account: Account::new(&namespace, account),
            field_manager: spec.field_manager.as_deref().map(Into::into),
            settings: settings.into(),
            limits: limits(&spec.limits)?,
            concurrency: usize::try_from(spec.concurrency.clamp(1, 128)).unwrap_or(1),
            suspend: spec.suspend,
            plugin: PluginId::new(&namespace, &name),
        })
    }
}

fn file(source: &crd::Source) -> Result<String, Refused> {
    let others: Vec<&str> = source.others.keys().map(String::as_str).collect();
    let refuse = |message| Err(Refused { reason: "InvalidSource", message });
    match (&source.file, others.as_slice()) {
        (Some(file), []) => Ok(file.clone()),
        (Some(_), others) => {
            refuse(format!("spec.source names several sources, `file` and `{}`: keep exactly one", others.join("`, `")))
        }
        (None, []) => refuse("spec.source is empty: name the component's file, as in `file: hello.wasm`".into()),
        (None, others) => {
            refuse(format!("spec.source.{}: this host does not offer that source; it offers `file`", others.join(", ")))
        }
    }
}

fn limits(limits: &crd::Limits) -> Result<Limits, Refused> {
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
        assert_eq!((desired.concurrency, desired.class.as_str(), &*desired.settings), (4, "reef", "{}"));
    }

    #[test]
    fn two_sources_none_and_an_unknown_one_each_get_a_sentence() {
        for (source, part) in [
            (json!({ "file": "a.wasm", "oci": {} }), "`file` and `oci`: keep exactly one"),
            (json!({}), "name the component's file"),
            (json!({ "oci": {} }), "it offers `file`"),
        ] {
            let error = desired(json!({ "source": source })).unwrap_err();
            assert!(error.message.contains(part), "{error}");
        }
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
