//! How kinds are served, as far as it can be told without an API server: what Kubernetes itself serves, what CRDs say, and
//! for all else a guess. Pure.

use std::collections::HashMap;

use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;

use crate::names::Kind;

const KUBERNETES: &str = include_str!("kinds.txt");

/// How one kind is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    pub plural: String,
    pub namespaced: bool,
    /// Whether it has a status subresource.
    pub status: bool,
    /// Not a guess.
    pub known: bool,
}

/// By group and kind, which is what RBAC goes by.
#[derive(Debug, Clone)]
pub struct Kinds(HashMap<(String, String), Served>);

impl Kinds {
    /// What Kubernetes serves, and what is served with these CustomResourceDefinitions. Other objects among them are ignored.
    pub fn with_crds(crds: &[Value]) -> Self {
        let kubernetes = KUBERNETES.lines().filter(|line| !line.starts_with('#')).filter_map(of_line);
        Self(kubernetes.chain(crds.iter().filter_map(of_crd)).collect())
    }

    /// A kind that nobody has told of is taken for a namespaced one with a status.
    pub fn of(&self, kind: &Kind) -> Served {
        let key = (kind.group.to_string(), kind.kind.to_string());
        let guess = || Served { plural: plural(kind), namespaced: true, status: true, known: false };
        self.0.get(&key).cloned().unwrap_or_else(guess)
    }
}

/// What a kind is mostly called in the plural.
pub fn plural(kind: &Kind) -> String {
    ApiResource::from_gvk(&GroupVersionKind::gvk(&kind.group, &kind.version, &kind.kind)).plural
}

fn of_line(line: &str) -> Option<((String, String), Served)> {
    let mut words = line.split(' ');
    let (group, kind) = words.next()?.split_once('/')?;
    let (plural, scope) = (words.next()?.to_owned(), words.next()?);
    let served = Served { plural, namespaced: scope == "Namespaced", status: words.next().is_some(), known: true };
    Some(((group.to_owned(), kind.to_owned()), served))
}

fn of_crd(crd: &Value) -> Option<((String, String), Served)> {
    let text = |pointer: &str| crd.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    if text("/kind")? != "CustomResourceDefinition" {
        return None;
    }
    let versions = crd.pointer("/spec/versions").and_then(Value::as_array);
    let has_status = |version: &Value| version.pointer("/subresources/status").is_some_and(|status| !status.is_null());
    let served = Served {
        plural: text("/spec/names/plural")?,
        namespaced: text("/spec/scope")? == "Namespaced",
        status: versions.is_some_and(|versions| versions.iter().any(has_status)),
        known: true,
    };
    Some(((text("/spec/group")?, text("/spec/names/kind")?), served))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn served(plural: &str, namespaced: bool, status: bool, known: bool) -> Served {
        Served { plural: plural.into(), namespaced, status, known }
    }

    #[test]
    fn kubernetes_crds_and_guesses() {
        let crd = json!({"kind": "CustomResourceDefinition", "spec": {"group": "a.dev", "scope": "Cluster",
            "names": {"kind": "Mouse", "plural": "mice"}, "versions": [{"name": "v1", "subresources": {"status": {}}}]}});
        let kinds = Kinds::with_crds(&[crd, json!({"kind": "ConfigMap"}), json!("text")]);
        for (kind, expected) in [
            ("v1/ConfigMap", served("configmaps", true, false, true)),
            ("v1/Namespace", served("namespaces", false, true, true)),
            ("networking.k8s.io/v1/Ingress", served("ingresses", true, true, true)),
            ("a.dev/v2/Mouse", served("mice", false, true, true)),
            ("b.dev/v1/Policy", served("policies", true, true, false)),
        ] {
            assert_eq!(kinds.of(&kind.parse().unwrap()), expected, "{kind}");
        }
    }

    #[test]
    fn every_line_of_the_table_is_understood() {
        let lines: Vec<&str> = KUBERNETES.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(lines.len() > 60 && lines.iter().all(|line| of_line(line).is_some()));
        let words = |line: &&&str| {
            matches!(line.split(' ').collect::<Vec<_>>()[2..], ["Namespaced" | "Cluster"] | ["Namespaced" | "Cluster", "status"])
        };
        assert_eq!(lines.iter().filter(words).count(), lines.len());
    }
}
