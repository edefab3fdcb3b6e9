//! The API server as its admin sees it: apply YAML, read, change, delete, wait for a condition.

use std::{
    collections::HashMap,
    path::Path,
    sync::{LazyLock, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use kube::{Client, Config, config::Kubeconfig};
use serde::Deserialize;
use serde_json::Value;

/// A client for the user of a kubeconfig file.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(file, &Default::default()).await?;
    Ok(Client::try_from(config)?)
}

#[derive(Clone, Debug)]
struct Resource {
    plural: String,
    namespaced: bool,
}

#[derive(Deserialize)]
struct ResourceList {
    resources: Vec<ResourceEntry>,
}

#[derive(Deserialize)]
struct ResourceEntry {
    name: String,
    kind: String,
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}

/// Kinds are written as plugins write them: `v1/ConfigMap`, `apps/v1/Deployment`.
pub struct Cluster {
    client: Client,
    resources: Mutex<HashMap<String, Resource>>,
}

impl Cluster {
    pub async fn connect(kubeconfig: &Path) -> Result<Self> {
        Ok(Self { client: client(kubeconfig).await?, resources: Mutex::default() })
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// `kubectl apply --server-side --force-conflicts` for every document; `namespace` where a document names none.
    pub async fn apply(&self, namespace: &str, yaml: &str) -> Result<Vec<Value>> {
        let mut applied = Vec::new();
        for document in serde_norway::Deserializer::from_str(yaml) {
            let object = Value::deserialize(document).context("this is not YAML")?;
            if !object.is_null() {
                applied.push(self.apply_object(namespace, &object).await?);
            }
        }
        Ok(applied)
    }

    /// Also waits until a new CustomResourceDefinition is served.
    pub async fn apply_object(&self, namespace: &str, object: &Value) -> Result<Value> {
        let id = Identity::of(object)?;
        let path = self.path(&id.kind, id.namespace.as_deref().unwrap_or(namespace), Some(&id.name)).await?;
        let request = http::Request::patch(format!("{path}?fieldManager=kubectl&force=true"))
            .header("content-type", "application/apply-patch+yaml")
            .body(serde_json::to_vec(object)?)?;
        let applied = self.client.request(request).await.with_context(|| format!("cannot apply {} {}", id.kind, id.name))?;
        if id.kind == "apiextensions.k8s.io/v1/CustomResourceDefinition" {
            let established = |crd: Option<&Value>| condition(crd, "Established").is_some_and(|c| c["status"] == "True");
            return self.wait(&id.kind, "", &id.name, "is established", established).await;
        }
        Ok(applied)
    }

    pub async fn create(&self, namespace: &str, object: &Value) -> Result<Value> {
        let id = Identity::of(object)?;
        let path = self.path(&id.kind, id.namespace.as_deref().unwrap_or(namespace), None).await?;
        let request = http::Request::post(path).header("content-type", "application/json").body(serde_json::to_vec(object)?)?;
        self.client.request(request).await.with_context(|| format!("cannot create {} {}", id.kind, id.name))
    }

    pub async fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
        let path = self.path(kind, namespace, Some(name)).await?;
        match self.client.request(http::Request::get(path).body(Vec::new())?).await {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot get {kind} {namespace}/{name}")),
        }
    }

    pub async fn list(&self, kind: &str, namespace: &str) -> Result<Vec<Value>> {
        let path = self.path(kind, namespace, None).await?;
        let mut list: Value = self.client.request(http::Request::get(path).body(Vec::new())?).await?;
        Ok(serde_json::from_value(list["items"].take())?)
    }

    /// A JSON merge patch, as `kubectl patch --type=merge` sends it; `subresource` may be empty.
    pub async fn patch(&self, kind: &str, namespace: &str, name: &str, subresource: &str, patch: &Value) -> Result<Value> {
        let mut path = self.path(kind, namespace, Some(name)).await?;
        if !subresource.is_empty() {
            path = format!("{path}/{subresource}");
        }
        let request = http::Request::patch(format!("{path}?fieldManager=kubectl-edit"))
            .header("content-type", "application/merge-patch+json")
            .body(serde_json::to_vec(patch)?)?;
        self.client.request(request).await.with_context(|| format!("cannot patch {kind} {namespace}/{name}"))
    }

    /// Deletes, in the background as kubectl does; it is fine if there is nothing.
    pub async fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        let path = self.path(kind, namespace, Some(name)).await?;
        let options = serde_json::json!({ "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background" });
        let request =
            http::Request::delete(path).header("content-type", "application/json").body(serde_json::to_vec(&options)?)?;
        match self.client.request::<Value>(request).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot delete {kind} {namespace}/{name}")),
        }
    }

    /// Polls one object until `done` holds; `None` says that it does not exist. `what` completes "waited in vain until it …".
    pub async fn wait(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        what: &str,
        done: impl Fn(Option<&Value>) -> bool,
    ) -> Result<Value> {
        let end = Instant::now() + hang_bound();
        loop {
            let object = self.get(kind, namespace, name).await?;
            if done(object.as_ref()) {
                return Ok(object.unwrap_or_default());
            }
            if Instant::now() > end {
                let object = object.map_or("nothing".into(), |o| serde_norway::to_string(&o).unwrap_or_default());
                bail!("waited {} s in vain until {kind} {namespace}/{name} {what}; there is:\n{object}", hang_bound().as_secs());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Makes a namespace and waits until its default ServiceAccount is there, as a cluster's user would find it.
    pub async fn create_namespace(&self, name: &str) -> Result<()> {
        let object = serde_json::json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        self.create("", &object).await?;
        self.wait("v1/ServiceAccount", name, "default", "exists", |account| account.is_some()).await.map(drop)
    }

    /// `/apis/apps/v1/namespaces/x/deployments/y`
    pub async fn path(&self, kind: &str, namespace: &str, name: Option<&str>) -> Result<String> {
        let (api_version, _) = kind.rsplit_once('/').with_context(|| format!("`{kind}` should look like apps/v1/Deployment"))?;
        let resource = self.resource(kind).await?;
        let mut path = root(api_version);
        if resource.namespaced && !namespace.is_empty() {
            path += &format!("/namespaces/{namespace}");
        }
        path += &format!("/{}", resource.plural);
        Ok(name.map_or(path.clone(), |name| format!("{path}/{name}")))
    }

    async fn resource(&self, kind: &str) -> Result<Resource> {
        let known = |this: &Self| this.resources.lock().ok().and_then(|known| known.get(kind).cloned());
        if let Some(resource) = known(self) {
            return Ok(resource);
        }
        let (api_version, _) = kind.rsplit_once('/').unwrap_or(("v1", kind));
        self.discover(api_version).await?;
        known(self).with_context(|| format!("the API server does not serve {kind}"))
    }

    async fn discover(&self, api_version: &str) -> Result<()> {
        let request = http::Request::get(root(api_version)).body(Vec::new())?;
        let list: ResourceList =
            self.client.request(request).await.with_context(|| format!("the API server does not serve {api_version}"))?;
        if let Ok(mut known) = self.resources.lock() {
            for entry in list.resources.into_iter().filter(|entry| !entry.name.contains('/')) {
                let resource = Resource { plural: entry.name, namespaced: entry.namespaced };
                known.insert(format!("{api_version}/{}", entry.kind), resource);
            }
        }
        Ok(())
    }

    /// Everything that can be listed in a namespace, for those who look for what went wrong.
    pub async fn dump(&self, namespace: &str, api_versions: &[&str]) -> String {
        let mut text = String::new();
        for api_version in api_versions {
            let Ok(request) = http::Request::get(root(api_version)).body(Vec::new()) else { continue };
            let Ok(list) = self.client.request::<ResourceList>(request).await else { continue };
            let wanted =
                |entry: &ResourceEntry| entry.namespaced && !entry.name.contains('/') && entry.verbs.iter().any(|v| v == "list");
            for entry in list.resources.into_iter().filter(wanted) {
                for object in self.list(&format!("{api_version}/{}", entry.kind), namespace).await.unwrap_or_default() {
                    text += &describe(&format!("{api_version}/{}", entry.kind), object);
                }
            }
        }
        text
    }
}

fn describe(kind: &str, mut object: Value) -> String {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    format!(
        "--- {kind} {}\n{}\n",
        object["metadata"]["name"].as_str().unwrap_or("?"),
        serde_norway::to_string(&object).unwrap_or_default()
    )
}

/// The condition of a type, if the object has it.
pub fn condition<'a>(object: Option<&'a Value>, name: &str) -> Option<&'a Value> {
    object?["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == name)
}

/// Hang bound of every wait: far above anything that is promised. `REEF_HANG_BOUND` says how many seconds, for runs whose waits
/// are expected to be in vain.
pub fn hang_bound() -> Duration {
    static BOUND: LazyLock<Duration> = LazyLock::new(|| {
        let said = std::env::var("REEF_HANG_BOUND").ok().and_then(|seconds| seconds.parse().ok());
        Duration::from_secs(said.unwrap_or(60))
    });
    *BOUND
}

const POLL: Duration = Duration::from_millis(20);

struct Identity {
    kind: String,
    namespace: Option<String>,
    name: String,
}

impl Identity {
    fn of(object: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let metadata = &object["metadata"];
        let api_version = text(&object["apiVersion"]).context("the object has no apiVersion")?;
        let kind = text(&object["kind"]).context("the object has no kind")?;
        let name =
            text(&metadata["name"]).or_else(|| text(&metadata["generateName"])).context("the object has no metadata.name")?;
        Ok(Self { kind: format!("{api_version}/{kind}"), namespace: text(&metadata["namespace"]), name })
    }
}

fn root(api_version: &str) -> String {
    if api_version.contains('/') { format!("/apis/{api_version}") } else { format!("/api/{api_version}") }
}
