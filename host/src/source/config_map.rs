//! A component in a ConfigMap, read as the plugin's own ServiceAccount: for small ones, since a ConfigMap holds 1 MiB.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;

use crate::{
    identity::{Actor, Api, ApiError, Lane},
    names::{Account, Digest},
};

/// Asks for an object's metadata alone.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMapSource {
    pub account: Account,
    pub name: String,
    pub key: String,
}

/// One state of the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    uid: String,
    resource_version: String,
}

#[derive(Debug, Clone)]
pub struct Fetched {
    pub digest: Digest,
    pub bytes: Bytes,
    pub state: State,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigMapError {
    #[error(
        "spec.source.configMap: there is no ConfigMap {0}: create it with `kubectl create configmap {0} --from-file=plugin.wasm=FILE`"
    )]
    Missing(String),
    #[error(
        "spec.source.configMap: ServiceAccount {account} may not read ConfigMap {name}: add to its Role the rule {{apiGroups: [\"\"], \
         resources: [\"configmaps\"], resourceNames: [\"{name}\"], verbs: [\"get\"]}}"
    )]
    Forbidden { account: Account, name: String },
    #[error("spec.source.configMap: ConfigMap {name} has no key `{key}` under binaryData{}", others(keys))]
    NoKey { name: String, key: String, keys: Vec<String> },
    #[error(
        "spec.source.configMap: ConfigMap {name} has `{key}` under `data`, which holds text: put the component under `binaryData`, as \
         `kubectl create configmap --from-file` does"
    )]
    Text { name: String, key: String },
    #[error("spec.source.configMap: key `{key}` of ConfigMap {name} is no component: {why}")]
    NotAComponent { name: String, key: String, why: &'static str },
    #[error("spec.source.configMap: ConfigMap {name} cannot be read: {message}")]
    Unread { name: String, message: String },
}

fn others(keys: &[String]) -> String {
    if keys.is_empty() { ", which is empty".into() } else { format!("; it has `{}`", keys.join("`, `")) }
}

impl ConfigMapError {
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Forbidden { .. } => "MissingRights",
            Self::NotAComponent { .. } => "NotAComponent",
            _ => "SourceFailed",
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: String,
}

#[derive(Deserialize)]
struct Partial {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigMap {
    metadata: Metadata,
    #[serde(default)]
    data: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(default)]
    binary_data: BTreeMap<String, String>,
}

impl ConfigMapSource {
    /// Which state the object is in, or nothing while it cannot be said: one GET of its metadata.
    pub async fn state(&self, api: &Api) -> Option<State> {
        let body = self.get(api, METADATA).await.ok()?;
        let partial: Partial = serde_json::from_slice(&body).ok()?;
        Some(State::of(partial.metadata))
    }

    pub async fn fetch(&self, api: &Api) -> Result<Fetched, ConfigMapError> {
        let name = self.name.clone();
        let body = self.get(api, "application/json").await.map_err(|error| match error {
            error if error.is_not_found() => ConfigMapError::Missing(name.clone()),
            ApiError::Refused(_) if error.is_forbidden() => {
                ConfigMapError::Forbidden { account: self.account.clone(), name: name.clone() }
            }
            error => ConfigMapError::Unread { name: name.clone(), message: error.to_string() },
        })?;
        let unread = |message: String| ConfigMapError::Unread { name: name.clone(), message };
        let found: ConfigMap = serde_json::from_slice(&body).map_err(|e| unread(e.to_string()))?;
        let bytes = self.component(&found)?;
        Ok(Fetched { digest: Digest::of(&bytes), bytes, state: State::of(found.metadata) })
    }

    fn component(&self, found: &ConfigMap) -> Result<Bytes, ConfigMapError> {
        let (name, key) = (self.name.clone(), self.key.clone());
        let Some(text) = found.binary_data.get(&key) else {
            return Err(match found.data.contains_key(&key) {
                true => ConfigMapError::Text { name, key },
                false => ConfigMapError::NoKey { name, key, keys: found.binary_data.keys().take(10).cloned().collect() },
            });
        };
        let bytes = STANDARD.decode(text).map_err(|e| ConfigMapError::Unread { name: name.clone(), message: e.to_string() })?;
        match super::is_component(&bytes) {
            Ok(()) => Ok(bytes.into()),
            Err(why) => Err(ConfigMapError::NotAComponent { name, key, why }),
        }
    }

    async fn get(&self, api: &Api, accept: &str) -> Result<Bytes, ApiError> {
        let path = format!("/api/v1/namespaces/{}/configmaps/{}", self.account.namespace, self.name);
        let request = http::Request::get(path).header(http::header::ACCEPT, accept).body(Vec::new());
        let request = request.map_err(|e| ApiError::Misconfigured(e.to_string()))?;
        api.send(&Actor::Account(self.account.clone()), Lane::Requests, request).await
    }
}

impl State {
    fn of(metadata: Metadata) -> Self {
        Self { uid: metadata.uid, resource_version: metadata.resource_version }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn component(object: serde_json::Value) -> Result<Bytes, ConfigMapError> {
        let source = ConfigMapSource { account: Account::new("a", "hello"), name: "hello".into(), key: "plugin.wasm".into() };
        source.component(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_component_is_found_under_binary_data_and_nowhere_else() {
        let wasm = b"\0asm\x0d\0\x01\0rest";
        let good = json!({ "metadata": {}, "binaryData": { "plugin.wasm": STANDARD.encode(wasm) } });
        assert_eq!(component(good).unwrap(), &wasm[..]);
        for (object, part) in [
            (json!({ "metadata": {}, "data": { "plugin.wasm": "x" } }), "put the component under `binaryData`"),
            (json!({ "metadata": {}, "binaryData": { "a.wasm": "AAAA" } }), "it has `a.wasm`"),
            (json!({ "metadata": {} }), "which is empty"),
            (json!({ "metadata": {}, "binaryData": { "plugin.wasm": STANDARD.encode("text") } }), "it is not Wasm"),
        ] {
            let error = component(object).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
