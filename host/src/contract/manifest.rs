//! The manifest: what a component says of itself, read before a guest instruction runs.
//!
//! Its JSON schema is `wit/manifest.schema.json`. Unknown fields are refused, so that a typo never means "no".

use serde::{Deserialize, Serialize};

use crate::names::{self, Kind};

/// The custom section that carries the manifest as JSON text. A CRD that belongs to the plugin stands in sections
/// named `reef.crd` (YAML, one or more documents each); the JSON schema of `spec.settings` in `reef.settings`.
pub const SECTION: &str = "reef.manifest";
pub const CRD_SECTION: &str = "reef.crd";
pub const SETTINGS_SECTION: &str = "reef.settings";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// The plugin's own name, a DNS label: the default of `spec.fieldManager`.
    pub name: String,
    /// Semantic version of the plugin.
    pub version: String,
    /// The kinds that it reconciles, one function each.
    pub reconciles: Vec<Reconciles>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reconciles {
    /// The kind of the objects that it reconciles.
    #[serde(rename = "for")]
    pub kind: Kind,
    /// Kinds of children: read, written, and pruned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owns: Vec<Kind>,
    /// Further kinds that it may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<Kind>,
    /// Further kinds that it may write (`apply`, `patch`, `delete`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<Kind>,
    /// Whether it wants to be called before an object goes: the host then keeps a finalizer on it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cleanup: bool,
    /// The name of the host's condition on these objects, when `Reconciled` is taken.
    #[serde(default = "reconciled", skip_serializing_if = "is_reconciled")]
    pub condition: String,
}

fn reconciled() -> String {
    "Reconciled".into()
}

fn is_reconciled(name: &str) -> bool {
    name == "Reconciled"
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its manifest is not valid: {0}")]
pub struct Invalid(pub String);

impl Manifest {
    /// Parses and validates the JSON text of the section.
    pub fn parse(json: &[u8]) -> Result<Self, Invalid> {
        let manifest: Self = serde_json::from_slice(json).map_err(|e| Invalid(e.to_string()))?;
        manifest.validate()?;
        Ok(manifest)
    }

    fn validate(&self) -> Result<(), Invalid> {
        if names::label(&self.name).is_err() {
            return Err(Invalid(format!("name `{}`: use at most 63 of a-z, 0-9 and `-`, as in `my-plugin`", self.name)));
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
        if self.version.is_empty() || self.version.len() > 64 || !self.version.chars().all(is_part) {
            let shown: String = self.version.chars().take(64).collect();
            return Err(Invalid(format!("version {shown:?}: write a semantic version of at most 64 characters, as in `1.2.0`")));
        }
        if self.reconciles.is_empty() {
            return Err(Invalid("reconciles is empty: name at least one kind with `for`".into()));
        }
        for (i, entry) in self.reconciles.iter().enumerate() {
            if self.reconciles.iter().take(i).any(|other| other.kind.same_group_kind(&entry.kind)) {
                return Err(Invalid(format!("{} stands twice under reconciles: give each kind one function", entry.kind)));
            }
            if entry.owns.iter().any(|owned| owned.same_group_kind(&entry.kind)) {
                return Err(Invalid(format!("{} owns its own kind: an object cannot be its own child", entry.kind)));
            }
        }
        Ok(())
    }

    /// The entry that serves `kind`.
    pub fn entry(&self, kind: &Kind) -> Option<&Reconciles> {
        self.reconciles.iter().find(|entry| entry.kind == *kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_in_the_manifest_is_refused_with_its_name() {
        let error = Manifest::parse(br#"{"name":"a","version":"1.0.0","reconciles":[{"for":"v1/Pod","own":[]}]}"#).unwrap_err();
        assert!(error.to_string().contains("`own`"), "{error}");
    }

    #[test]
    fn a_manifest_needs_a_kind_and_serves_each_once() {
        assert!(Manifest::parse(br#"{"name":"a","version":"1.0.0","reconciles":[]}"#).is_err());
        let twice = br#"{"name":"a","version":"1.0.0","reconciles":[{"for":"v1/Pod"},{"for":"v1/Pod"}]}"#;
        assert!(Manifest::parse(twice).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn the_published_schema_has_the_same_words() {
        let schema: serde_json::Value = serde_json::from_str(include_str!("../../../wit/manifest.schema.json")).unwrap();
        let words = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let example = schema["examples"].as_array().unwrap().iter().find(|e| e["name"] == "shop").unwrap();
        let all = serde_json::to_value(Manifest::parse(example.to_string().as_bytes()).unwrap()).unwrap();
        assert_eq!(words(&schema["properties"]), words(&all));
        assert_eq!(words(&schema["$defs"]["reconciles"]["properties"]), words(&all["reconciles"][0]));
        for example in schema["examples"].as_array().unwrap() {
            Manifest::parse(example.to_string().as_bytes()).unwrap();
        }
    }
}
