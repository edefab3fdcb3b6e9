//! Every object of a cluster by name, to see what somebody has left behind.

use std::collections::BTreeSet;

use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;

use crate::cluster::Cluster;

/// What comes and goes by itself, and what a node has of its own.
const PASSING: [&str; 5] = ["events", "leases", "componentstatuses", "ipaddresses", "csinodes"];
/// What Kubernetes puts into each namespace, and at the start into its own ones, in its own time.
const KUBERNETES: [&str; 3] = [" kube-", "/kube-root-ca.crt", " default/default"];

/// `apps/v1/deployments reef-system/reef`
pub struct Objects(BTreeSet<String>);

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    preferred_version: Version,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    group_version: String,
}

#[derive(Deserialize)]
struct Resources {
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    #[serde(default)]
    verbs: Vec<String>,
}

impl Objects {
    pub async fn of(cluster: &Cluster) -> Result<Self> {
        let get = |path: String| http::Request::get(path).body(Vec::new());
        let groups: Groups = cluster.client().request(get("/apis".into())?).await?;
        let groups = groups.groups.into_iter().map(|group| group.preferred_version.group_version);
        let mut objects = BTreeSet::new();
        for api in std::iter::once("v1".to_owned()).chain(groups) {
            let root = if api.contains('/') { format!("/apis/{api}") } else { format!("/api/{api}") };
            // A group that has just gone is listed for a moment.
            let Ok(served) = cluster.client().request::<Resources>(get(root.clone())?).await else { continue };
            let listed = |resource: &Resource| resource.verbs.iter().any(|verb| verb == "list");
            let listed = served.resources.iter().filter(|resource| listed(resource) && !PASSING.contains(&&*resource.name));
            for Resource { name, .. } in listed {
                let Ok(list) = cluster.client().request::<Value>(get(format!("{root}/{name}"))?).await else { continue };
                let lines = list["items"].as_array().into_iter().flatten().map(|object| line(&api, name, object));
                objects.extend(lines.filter(|line| !KUBERNETES.iter().any(|part| line.contains(part))));
            }
        }
        Ok(Self(objects))
    }

    pub fn more_than(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

fn line(api: &str, resource: &str, object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    format!("{api}/{resource} {}/{}", text("namespace"), text("name"))
}
