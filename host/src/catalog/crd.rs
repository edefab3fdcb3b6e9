//! The `Plugin` resource. `crds/` holds its YAML, generated from here by `reef crds`.

#![expect(clippy::duplicated_attributes, reason = "each column of kube's derive has a type")]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::names::Kind;

/// The kind of the host's own resource.
pub fn kind() -> Kind {
    Kind::new("reef.dev", "v1alpha1", "Plugin")
}

/// A plugin: which component reconciles objects of this namespace, and as whom.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "reef.dev",
    version = "v1alpha1",
    kind = "Plugin",
    namespaced,
    status = "PluginStatus",
    derive = "PartialEq",
    category = "reef",
    doc = "A plugin: which WebAssembly component reconciles objects of this namespace, and as whom.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Kinds", type_ = "string", json_path = ".status.kinds"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.revision"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "has(self.fieldManager) == has(oldSelf.fieldManager) && (!has(self.fieldManager) || self.fieldManager == oldSelf.fieldManager)"
).message("fieldManager is immutable: it marks every child; delete the Plugin and create another one"))]
pub struct PluginSpec {
    /// Which host serves this plugin; several hosts can share a cluster.
    #[serde(default = "default_class")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub class_name: String,
    /// Where the component comes from: exactly one field.
    pub source: Source,
    /// Pins the component: any other bytes are not loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^sha256:[a-f0-9]{64}$"))]
    pub digest: Option<String>,
    /// The ServiceAccount of this namespace as which everything is read and written. Default: the plugin's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub service_account_name: Option<String>,
    /// Field manager and mark of everything that the plugin writes. Default: the name in the component's manifest. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub field_manager: Option<String>,
    /// Whether plans are carried out. Default Apply. In Shadow they are made and compared with what is there; nothing is written,
    /// and the host's log tells what would be.
    #[serde(default)]
    pub mode: Mode,
    /// Free-form, given to the plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    pub settings: Option<Value>,
    /// What one reconcile may use.
    #[serde(default)]
    pub limits: Limits,
    /// How many objects are reconciled at once. Default 4.
    #[serde(default = "default_concurrency")]
    #[schemars(range(min = 1, max = 128))]
    pub concurrency: i32,
    /// Stops reconciling; nothing is deleted.
    #[serde(default)]
    pub suspend: bool,
    /// What becomes of objects that wait for a cleanup which nobody can run.
    #[serde(default)]
    pub cleanup: Cleanup,
}

/// Whether plans are carried out.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Apply,
    Shadow,
}

/// Where the component comes from.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oci: Option<OciSource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapSource>,
    /// Whatever else stands there: a source that this host does not offer gets a sentence, not silence.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

/// An artifact in a registry.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OciSource {
    /// Its name, as in `registry.example/team/hello:1.2.0` or `registry.example/team/hello@sha256:…`.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,
    /// Always: every change of this resource resolves the tag anew. IfNotPresent: only another image does. Never: the registry
    /// is never asked; only what this plugin has run before is loaded. Default: Always for the tag `latest` or none, else
    /// IfNotPresent.
    // A `null` in the enum, as of an Option, is more than kubectl's own validation takes.
    #[schemars(with = "PullPolicy")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,
    /// Secrets of this namespace, of type kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg, read as the plugin's
    /// ServiceAccount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub pull_secrets: Vec<SecretName>,
    /// How often the tag is resolved anew, at least 5s. Default: never; what it meant is pinned until the resource changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[1-9][0-9]*(ms|s|m|h)$"))]
    pub poll: Option<String>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct SecretName {
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
}

/// A ConfigMap of the plugin's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct ConfigMapSource {
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The key under binaryData. Default `plugin.wasm`.
    #[serde(default = "default_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

fn default_key() -> String {
    "plugin.wasm".into()
}

impl JsonSchema for Source {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Source".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let described = |mut schema: Schema, text: &str| {
            schema.insert("description".into(), text.into());
            schema
        };
        let oci = described(OciSource::json_schema(generator), "An artifact in a registry.");
        let config_map = described(
            ConfigMapSource::json_schema(generator),
            "A ConfigMap of the plugin's namespace, read as its ServiceAccount. It is looked at every few seconds.",
        );
        json_schema!({
            "type": "object",
            "description": "Where the component comes from: exactly one field. Fields that this version does not know are kept, and the host says so.",
            "x-kubernetes-preserve-unknown-fields": true,
            "properties": {
                "file": {
                    "type": "string",
                    "description": "A file below the host's plugin directory, as in `hello.wasm`. Replace it by rename: the new component is then swapped in.",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$"
                },
                "oci": oci,
                "configMap": config_map
            }
        })
    }
}

/// What one reconcile may use.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Linear memory, at most 64Mi. Default 32Mi.
    #[serde(default = "default_memory")]
    #[schemars(regex(pattern = "^[1-9][0-9]*(k|M|G|Ki|Mi|Gi)?$"))]
    pub memory: String,
    /// Computing time, as a duration. Default 500ms.
    #[serde(default = "default_cpu")]
    #[schemars(regex(pattern = "^[1-9][0-9]*(ms|s|m)$"))]
    pub cpu: String,
    /// Time from start to end, waiting included; writes are not counted. Default 10s.
    #[serde(default = "default_deadline")]
    #[schemars(regex(pattern = "^[1-9][0-9]*(ms|s|m)$"))]
    pub deadline: String,
}

/// What becomes of objects that wait for a cleanup which nobody can run.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Cleanup {
    /// How long after the plugin, its namespace or its ServiceAccount began to go the host takes the plugin's finalizer off
    /// objects that are left, without a cleanup, if it was given the right to patch them. Default 5m.
    #[serde(default = "default_orphan_after")]
    #[schemars(regex(pattern = "^[1-9][0-9]*(ms|s|m|h)$"))]
    pub orphan_after: String,
}

impl Default for Cleanup {
    fn default() -> Self {
        Self { orphan_after: default_orphan_after() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: default_memory(), cpu: default_cpu(), deadline: default_deadline() }
    }
}

fn default_class() -> String {
    "reef".into()
}

fn default_concurrency() -> i32 {
    4
}

fn default_memory() -> String {
    "32Mi".into()
}

fn default_cpu() -> String {
    "500ms".into()
}

fn default_orphan_after() -> String {
    "5m".into()
}

fn default_deadline() -> String {
    "10s".into()
}

fn free_form(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "description": "Free-form, given to the plugin.",
        "x-kubernetes-preserve-unknown-fields": true
    })
}

/// What the host says of the plugin.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PluginStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Resolved, Compiled, Authorized and Ready.
    #[serde(default)]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<PluginCondition>,
    /// Of the component that runs now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The artifact that it came from, if that was one: `registry/repository@sha256:…`, the digest of its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What `image` was resolved from, which is not done again until that changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Pinned>,
    /// The beginning of the digest, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Name and version from the component's manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// The field manager and mark in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_manager: Option<String>,
    /// The kinds that it reconciles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// The kinds of its children, former ones included until nothing of them is left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owned_kinds: Vec<String>,
    /// Objects whose last reconcile failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<Failing>,
}

/// What was resolved, and when.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct Pinned {
    /// `spec.source.oci.image` as it was.
    pub from: String,
    /// The `metadata.generation` as it was.
    pub generation: i64,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct Failing {
    pub count: i32,
    /// Up to ten of them.
    pub objects: Vec<FailingObject>,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct FailingObject {
    pub kind: String,
    pub name: String,
    pub reason: String,
    pub message: String,
}

/// A condition as in every Kubernetes API.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PluginCondition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    pub last_transition_time: String,
    pub reason: String,
    pub message: String,
}

fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let items = PluginCondition::json_schema(generator);
    json_schema!({
        "type": "array",
        "description": "Resolved, Verified, Compiled, Authorized and Ready.",
        "items": items,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"]
    })
}
