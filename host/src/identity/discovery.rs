//! Which kinds an API server serves, and under which paths.
//!
//! One answer per group and version, believed for a minute, and asked for again on a miss, at most once a second: a
//! CustomResourceDefinition may have come in between.

use std::{collections::HashMap, fmt::Write as _, sync::Arc, time::Duration};

use http::Method;
use serde::Deserialize;
use tokio::time::Instant;

use super::{ApiError, Inner, answers::Answers, decode, json_request};
use crate::names::Kind;

const BELIEVED: Duration = Duration::from_secs(60);
const MISS: Duration = Duration::from_secs(1);

/// Where [`Resource::path`] leads for names that no object can have. It is never sent.
pub(super) const IMPOSSIBLE: &str = "/no-such-name/";

/// How a kind is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    pub kind: Kind,
    pub plural: Arc<str>,
    pub namespaced: bool,
    /// Whether it has a status subresource.
    pub status: bool,
    /// Its subresources that can be patched, `status` included.
    pub subresources: Vec<Subresource>,
}

/// A part of an object that is written on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subresource {
    /// As in `scale`.
    pub name: Arc<str>,
    /// What it is written as: mostly the object's own kind, but `autoscaling/v1/Scale` for `scale`.
    pub kind: Kind,
}

impl Resource {
    /// `/apis/apps/v1/namespaces/x/deployments/y/status`; without a name the collection, of all namespaces if
    /// `namespace` is empty. Names that no object can have lead nowhere: such a path is refused when it is sent.
    /// (Escaping is no way out: the API server takes `a%2Fstatus` for the subresource `status` of `a`.)
    pub fn path(&self, namespace: &str, name: Option<&str>, subresource: Option<&str>) -> String {
        self.checked_path(namespace, name, subresource).unwrap_or_else(|bad| format!("{IMPOSSIBLE}{}", escape(bad)))
    }

    fn checked_path<'a>(
        &self,
        namespace: &'a str,
        name: Option<&'a str>,
        subresource: Option<&'a str>,
    ) -> Result<String, &'a str> {
        let namespace = if self.namespaced { namespace } else { "" };
        let prefix = if self.kind.group.is_empty() { "/api" } else { "/apis" };
        let mut path = format!("{prefix}/{}", self.kind.api_version());
        if !namespace.is_empty() {
            let dns = namespace.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            let namespace = if dns { namespace } else { return Err(namespace) };
            let _ = write!(path, "/namespaces/{namespace}");
        }
        let _ = write!(path, "/{}", self.plural);
        for part in name.into_iter().chain(subresource) {
            if !possible(part) || (self.namespaced && namespace.is_empty()) {
                return Err(part);
            }
            path.push('/');
            path.push_str(&escape(part));
        }
        Ok(path)
    }
}

/// Whether an object could have this name; the API server has no laxer rule for any kind.
fn possible(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '%']) && name.len() <= 253
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':') {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

type Served = Arc<HashMap<Arc<str>, Arc<Resource>>>;

pub(super) struct Kinds(Answers<String, Served>);

impl Default for Kinds {
    fn default() -> Self {
        Self(Answers::new(1000))
    }
}

impl Kinds {
    pub(super) async fn resource(&self, api: &Inner, kind: &Kind) -> Result<Arc<Resource>, ApiError> {
        let api_version = kind.api_version();
        if let Some(found) = self.served(api, &api_version).await?.get(&kind.kind) {
            return Ok(found.clone());
        }
        self.0.doubt(&api_version, |_, asked| asked.elapsed() >= MISS);
        let served = self.served(api, &api_version).await?;
        served.get(&kind.kind).cloned().ok_or_else(|| ApiError::UnknownKind(kind.clone()))
    }

    async fn served(&self, api: &Inner, api_version: &str) -> Result<Served, ApiError> {
        let ask = |last: Option<Served>| async move {
            match fetch(api, api_version).await {
                Ok(served) => Ok((Arc::new(served), Instant::now() + BELIEVED)),
                Err(ApiError::Refused(status)) if status.code == 404 => Ok((Served::default(), Instant::now() + BELIEVED)),
                // A server that is away for a moment takes no kinds with it.
                Err(error) => last.filter(|l| !l.is_empty()).map(|last| (last, Instant::now() + MISS)).ok_or(error),
            }
        };
        self.0.get(&api_version.to_string(), ask).await
    }
}

#[derive(Deserialize)]
struct ResourceList {
    #[serde(default)]
    resources: Vec<WireResource>,
}

#[derive(Deserialize)]
struct WireResource {
    name: String,
    kind: String,
    #[serde(default)]
    namespaced: bool,
    /// Of a subresource, where they are not those of the list.
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    verbs: Vec<String>,
}

async fn fetch(api: &Inner, api_version: &str) -> Result<HashMap<Arc<str>, Arc<Resource>>, ApiError> {
    let prefix = if api_version.contains('/') { "/apis" } else { "/api" };
    let path = format!("{prefix}/{api_version}");
    let request = json_request(Method::GET, &path, &serde_json::Value::Null)?;
    let answer = api.send_as_host(request).await?;
    Ok(index(api_version, decode(&path, &answer)?))
}

fn index(api_version: &str, list: ResourceList) -> HashMap<Arc<str>, Arc<Resource>> {
    let mut served = HashMap::new();
    for main in list.resources.iter().filter(|r| !r.name.contains('/')) {
        let kind = Kind::from_api_version(api_version, &main.kind);
        let status_name = format!("{}/status", main.name);
        let resource = Resource {
            plural: main.name.as_str().into(),
            namespaced: main.namespaced,
            status: list.resources.iter().any(|r| r.name == status_name),
            subresources: subresources(api_version, &main.name, &list),
            kind: kind.clone(),
        };
        served.entry(kind.kind).or_insert_with(|| Arc::new(resource));
    }
    served
}

fn subresources(api_version: &str, of: &str, list: &ResourceList) -> Vec<Subresource> {
    let part = |part: &WireResource| {
        let name = part.name.strip_prefix(of)?.strip_prefix('/')?;
        let kind = match (&*part.group, &*part.version) {
            (_, "") => Kind::from_api_version(api_version, &part.kind),
            (group, version) => Kind::new(group, version, &part.kind),
        };
        part.verbs.iter().any(|verb| verb == "patch").then(|| Subresource { name: name.into(), kind })
    };
    list.resources.iter().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(kind: &str, plural: &str, namespaced: bool) -> Resource {
        Resource { kind: kind.parse().unwrap(), plural: plural.into(), namespaced, status: true, subresources: Vec::new() }
    }

    #[test]
    fn paths_are_those_of_the_api_server() {
        let deployments = resource("apps/v1/Deployment", "deployments", true);
        assert_eq!(deployments.path("x", Some("y"), Some("status")), "/apis/apps/v1/namespaces/x/deployments/y/status");
        assert_eq!(deployments.path("", None, None), "/apis/apps/v1/deployments");
        let nodes = resource("v1/Node", "nodes", false);
        assert_eq!(nodes.path("ignored", Some("n"), None), "/api/v1/nodes/n");
        let roles = resource("rbac.authorization.k8s.io/v1/ClusterRole", "clusterroles", false);
        assert!(roles.path("", Some("system:a b"), None).ends_with("/clusterroles/system:a%20b"));
    }

    #[test]
    fn a_name_that_no_object_can_have_leads_nowhere() {
        let secrets = resource("v1/Secret", "secrets", true);
        for name in ["", ".", "..", "a/b", "../../x", "a%2Fstatus", "/"] {
            let path = secrets.path("x", Some(name), None);
            assert!(path.starts_with(IMPOSSIBLE), "{name}: {path}");
        }
        for namespace in ["..", "x/secrets", "x%2F", "X", "x?y"] {
            assert!(secrets.path(namespace, Some("a"), None).starts_with(IMPOSSIBLE), "{namespace}");
        }
        assert!(secrets.path("", Some("a"), None).starts_with(IMPOSSIBLE), "one object needs its namespace");
        assert!(!secrets.path("x", Some("a?watch=1"), None).contains('?'));
    }

    #[test]
    fn a_status_subresource_is_recognised() {
        let list = r#"{"resources":[{"name":"pods","kind":"Pod","namespaced":true},{"name":"pods/status","kind":"Pod"},
            {"name":"pods/binding","kind":"Binding"},{"name":"configmaps","kind":"ConfigMap","namespaced":true}]}"#;
        let served = index("v1", serde_json::from_str(list).unwrap());
        assert!(served["Pod"].status && served["Pod"].namespaced);
        assert!(!served["ConfigMap"].status);
        assert!(!served.contains_key("Binding"));
    }

    #[test]
    fn subresources_are_those_that_can_be_patched_with_the_kind_that_they_are_written_as() {
        let list = r#"{"resources":[{"name":"deployments","kind":"Deployment","namespaced":true,"verbs":["get","patch"]},
            {"name":"deployments/scale","kind":"Scale","group":"autoscaling","version":"v1","verbs":["get","patch","update"]},
            {"name":"deployments/status","kind":"Deployment","verbs":["get","patch","update"]},
            {"name":"deployments/rollback","kind":"DeploymentRollback","verbs":["create"]}]}"#;
        let served = index("apps/v1", serde_json::from_str(list).unwrap());
        let found: Vec<_> = served["Deployment"].subresources.iter().map(|s| (&*s.name, s.kind.to_string())).collect();
        assert_eq!(found, [("scale", "autoscaling/v1/Scale".into()), ("status", "apps/v1/Deployment".into())]);
    }
}
