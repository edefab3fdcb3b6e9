//! What no operator can beat: a bare client that knows what to write and makes the same two writes for each object.

use anyhow::{Context, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::Client;
use serde_json::{Value, json};

use super::stage::Stage;
use crate::cluster;

/// Requests at once, each on a connection of its own.
const CONNECTIONS: usize = 8;
const API_VERSION: &str = "demo.reef.dev/v1";

/// As the account that the operators use.
pub struct Floor {
    client: Client,
    namespace: String,
}

impl Floor {
    pub async fn new(stage: &Stage<'_>) -> Result<Self> {
        Ok(Self { client: cluster::client(&stage.kubeconfig).await?, namespace: stage.namespace.clone() })
    }

    /// Both writes for each of these, as fast as they are answered.
    pub async fn drain(&self, hellos: &[Value]) -> Result<()> {
        let writing = stream::iter(hellos).map(|hello| self.write(hello)).buffer_unordered(CONNECTIONS);
        writing.try_collect().await
    }

    /// The child as the host creates it, and the status as everybody applies it.
    pub async fn write(&self, hello: &Value) -> Result<()> {
        let (metadata, text) = (&hello["metadata"], &hello["spec"]["text"]);
        let name = metadata["name"].as_str().context("a Hello without a name")?;
        let owner = json!({
            "apiVersion": API_VERSION, "kind": "Hello", "name": name, "uid": metadata["uid"],
            "controller": true,
        });
        let config = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": name, "namespace": self.namespace, "ownerReferences": [owner] },
            "data": { "text": text },
        });
        let path = format!("/api/v1/namespaces/{}/configmaps?fieldManager=hello", self.namespace);
        let create = http::Request::post(path).header("content-type", "application/json");
        self.client.request::<Value>(create.body(serde_json::to_vec(&config)?)?).await.context("the child")?;
        let ready = json!({
            "type": "Ready", "status": "True", "observedGeneration": metadata["generation"], "reason": "Written",
            "lastTransitionTime": metadata["creationTimestamp"], "message": "the text is in the ConfigMap of the same name",
        });
        let status = json!({
            "apiVersion": API_VERSION, "kind": "Hello", "metadata": { "name": name },
            "status": { "text": text, "conditions": [ready] },
        });
        let path =
            format!("/apis/{API_VERSION}/namespaces/{}/hellos/{name}/status?fieldManager=hello&force=true", self.namespace);
        let apply = http::Request::patch(path).header("content-type", "application/apply-patch+yaml");
        self.client.request::<Value>(apply.body(serde_json::to_vec(&status)?)?).await.context("the status")?;
        Ok(())
    }
}
