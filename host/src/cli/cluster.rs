//! The cluster that a command talks to, and the few requests that commands make there, as the user of the kubeconfig.
//!
//! Which cluster, and which namespace, is chosen as kubectl chooses it. Nothing is tried twice, and nothing is forced: what
//! somebody else has is told with field and manager. It knows no plugin.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueHint};
use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    identity::{Actor, Api, ApiError, ApiOptions, Lane, Resource},
    names::{Kind, label},
};

/// Who applies what commands apply.
pub const MANAGER: &str = "reef-cli";
/// Objects of one page.
const PAGE: usize = 500;

#[derive(Debug, Clone, Args)]
pub struct ClusterArgs {
    /// Kubeconfig file. Default: $KUBECONFIG, or ~/.kube/config.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig. Default: its current context.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace. Default: the context's, or `default`.
    #[arg(short, long, value_name = "NAME", value_parser = label)]
    pub namespace: Option<String>,
}

impl ClusterArgs {
    pub async fn connect(&self) -> anyhow::Result<Cluster> {
        let options = ApiOptions { user_agent: concat!("reef-cli/", env!("CARGO_PKG_VERSION")).into(), ..ApiOptions::default() };
        self.connect_with(options).await
    }

    pub async fn connect_with(&self, options: ApiOptions) -> anyhow::Result<Cluster> {
        let config = config(self.kubeconfig.as_deref(), self.context.as_deref()).await?;
        let server = config.cluster_url.to_string();
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let api = Api::connect(config, options).await.map_err(|error| anyhow!("{}: {error}", server.trim_end_matches('/')))?;
        Ok(Cluster { api, namespace })
    }
}

/// Ctrl-C ends a command that has begun to change something with a sentence about that.
pub async fn or_interrupted<T>(work: impl Future<Output = anyhow::Result<T>>, sentence: &str) -> anyhow::Result<T> {
    tokio::select! {
        done = work => done,
        Ok(()) = tokio::signal::ctrl_c() => Err(anyhow!("interrupted: {sentence}")),
    }
}

/// The configuration of a kubeconfig file, of those that kubectl would take, or of the pod.
///
/// Proxies of the environment are for registries and the like; the API server is reached directly.
pub async fn config(kubeconfig: Option<&Path>, context: Option<&str>) -> anyhow::Result<kube::Config> {
    let mut config = configured(kubeconfig, context).await?;
    let variables = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    let from_environment = |proxy: &http::Uri| {
        let is_it =
            |variable: &str| std::env::var(variable).is_ok_and(|value| value.parse().is_ok_and(|uri: http::Uri| uri == *proxy));
        variables.into_iter().any(is_it)
    };
    if config.proxy_url.as_ref().is_some_and(from_environment) {
        config.proxy_url = None;
    }
    Ok(config)
}

async fn configured(kubeconfig: Option<&Path>, context: Option<&str>) -> anyhow::Result<kube::Config> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let config = match (kubeconfig, context) {
        (Some(path), _) => {
            let at = |error| anyhow!("--kubeconfig: {}: {}", path.display(), first_line(&error));
            let file = Kubeconfig::read_from(path).map_err(at)?;
            kube::Config::from_custom_kubeconfig(file, &options).await.map_err(at)?
        }
        (None, Some(_)) => kube::Config::from_kubeconfig(&options).await.map_err(|error| anyhow!("{}", first_line(&error)))?,
        (None, None) => {
            let fix = "no cluster is configured: give --kubeconfig, or set KUBECONFIG";
            kube::Config::infer().await.map_err(|error| anyhow!("{fix} ({})", first_line(&error)))?
        }
    };
    Ok(config)
}

/// One sentence: the parser's own goes on with a drawing of the place.
fn first_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// A connection to it.
pub struct Cluster {
    pub api: Api,
    /// The one that was asked for.
    pub namespace: String,
}

/// Whether a request is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meant {
    /// The API server says what it would do, and does nothing.
    DryRun,
    Really,
}

impl Cluster {
    pub async fn resource(&self, kind: &Kind) -> Result<std::sync::Arc<Resource>, ApiError> {
        self.api.resource(kind).await
    }

    pub async fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Option<Value>, ApiError> {
        match self.send(Method::GET, &resource.path(namespace, Some(name), None), "application/json", None).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All of them, page by page; in all namespaces if `namespace` is empty. `query` is what stands in the URL, as in
    /// `labelSelector=a%3Db`.
    pub async fn list(&self, resource: &Resource, namespace: &str, query: &str) -> Result<Vec<Value>, ApiError> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            metadata: Next,
            #[serde(default)]
            items: Vec<Value>,
        }
        #[derive(Deserialize, Default)]
        struct Next {
            #[serde(default, rename = "continue")]
            token: String,
        }
        let (mut all, mut next) = (Vec::new(), String::new());
        loop {
            let uri = format!("{}?limit={PAGE}&continue={next}&{query}", resource.path(namespace, None, None));
            let page = self.send(Method::GET, &uri, "application/json", None).await?;
            let page: Page = serde_json::from_value(page).map_err(|e| ApiError::Undecodable(format!("{uri}: {e}")))?;
            all.extend(page.items.into_iter().map(|item| named(item, &resource.kind)));
            next = page.metadata.token;
            if next.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Server-side apply of what the object says, without force.
    pub async fn apply(&self, resource: &Resource, object: &Value, meant: Meant) -> Result<Value, ApiError> {
        let (namespace, name) = (text_at(object, "/metadata/namespace"), text_at(object, "/metadata/name"));
        let dry = if meant == Meant::DryRun { "&dryRun=All" } else { "" };
        let path = resource.path(namespace, Some(name), None);
        let uri = format!("{path}?fieldManager={MANAGER}&fieldValidation=Strict{dry}");
        self.send(Method::PATCH, &uri, "application/apply-patch+yaml", Some(object)).await
    }

    /// Deletes this very object, if it is still there; what depends on it goes in the background.
    pub async fn delete(&self, resource: &Resource, object: &Value, meant: Meant) -> Result<(), ApiError> {
        let (namespace, name) = (text_at(object, "/metadata/namespace"), text_at(object, "/metadata/name"));
        // In the body: where there is one, the API server does not look at the query.
        let dry: &[&str] = if meant == Meant::DryRun { &["All"] } else { &[] };
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background", "dryRun": dry,
            "preconditions": { "uid": text_at(object, "/metadata/uid") },
        });
        let uri = resource.path(namespace, Some(name), None);
        match self.send(Method::DELETE, &uri, "application/json", Some(&options)).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn send(&self, method: Method, uri: &str, content: &str, body: Option<&Value>) -> Result<Value, ApiError> {
        let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let request = Request::builder().method(method).uri(uri).header(http::header::CONTENT_TYPE, content).body(body);
        let request = request.map_err(|e| ApiError::Misconfigured(format!("`{uri}` cannot be asked for: {e}")))?;
        let answer = self.api.send(&Actor::Host, Lane::Requests, request).await?;
        serde_json::from_slice(&answer).map_err(|e| ApiError::Undecodable(format!("the answer to {uri} does not decode: {e}")))
    }
}

/// Items of a list do not say what they are.
fn named(mut item: Value, kind: &Kind) -> Value {
    if let Some(fields) = item.as_object_mut() {
        fields.insert("apiVersion".into(), kind.api_version().into());
        fields.insert("kind".into(), (&*kind.kind).into());
    }
    item
}

/// The kind of an object.
pub fn kind_of(object: &Value) -> Kind {
    Kind::from_api_version(text_at(object, "/apiVersion"), text_at(object, "/kind"))
}

/// What people call an object: `ConfigMap team-a/x`.
pub fn called(object: &Value) -> String {
    let (namespace, name) = (text_at(object, "/metadata/namespace"), text_at(object, "/metadata/name"));
    let place = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
    format!("{} {place}{name}", text_at(object, "/kind"))
}

/// Empty if there is no text.
pub fn text_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Fields of others, and what to do; or else what the API server says. `way_out` completes a sentence.
pub fn told(object: &Value, error: &ApiError, way_out: &str) -> anyhow::Error {
    let what = called(object);
    if let ApiError::Refused(status) = error
        && error.is_conflict()
        && !status.causes.is_empty()
    {
        let clash = |(field, said): &(String, String)| match said.split('"').nth(1) {
            Some(manager) => format!("`{field}` belongs to field manager `{manager}`"),
            None => format!("`{field}`: {said}"),
        };
        let clashes: Vec<String> = status.causes.iter().take(3).map(clash).collect();
        let more = status.causes.len().saturating_sub(3);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        return anyhow!(
            "{what}: {}{more}, with another value, and nothing is taken away from anybody: {way_out}",
            clashes.join(", ")
        );
    }
    anyhow!("{what}: {error}")
}

/// A runtime for a command that waits for answers rather than computes.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Status;

    #[test]
    fn a_conflict_names_fields_and_managers() {
        let cause = |n: u32| (format!(".spec.f{n}"), format!("conflict with \"kubectl\" using v1: .spec.f{n}"));
        let status = |causes| Status { code: 409, reason: "Conflict".into(), message: "m".into(), retry_after: None, causes };
        let object = json!({ "kind": "Role", "metadata": { "name": "a", "namespace": "b" } });
        let said = told(&object, &ApiError::Refused(status((0..5).map(cause).collect())), "use another name").to_string();
        assert!(said.starts_with("Role b/a: `.spec.f0` belongs to field manager `kubectl`, `.spec.f1`"), "{said}");
        assert!(
            said.ends_with("and 2 more, with another value, and nothing is taken away from anybody: use another name"),
            "{said}"
        );
        assert_eq!(told(&object, &ApiError::Refused(status(Vec::new())), "").to_string(), "Role b/a: m (409 Conflict)");
    }

    #[test]
    fn what_a_list_leaves_out_is_filled_in() {
        let item = named(json!({ "metadata": { "name": "a" } }), &"apps/v1/Deployment".parse().unwrap());
        assert_eq!((kind_of(&item).to_string(), called(&item)), ("apps/v1/Deployment".into(), "Deployment a".into()));
    }
}
