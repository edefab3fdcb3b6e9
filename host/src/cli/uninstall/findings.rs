//! What an uninstallation would take away, what it would leave, and what would hang.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{anyhow, bail};
use serde_json::Value;

use super::plugin_object;
use crate::{
    catalog::crd::Plugin,
    cli::{
        cluster::{Cluster, called, text_at},
        made, output,
        plugins::{self, Told},
    },
    identity::{ApiError, Resource},
    names::Kind,
    plan,
};

/// So many objects are named.
const NAMED: usize = 5;
/// Of these kinds an installation makes objects in the namespace, in the order in which they go.
const MADE: [&str; 4] =
    ["rbac.authorization.k8s.io/v1/RoleBinding", "rbac.authorization.k8s.io/v1/Role", "v1/ServiceAccount", "v1/ConfigMap"];
/// The same where kinds have no namespace.
const MADE_IN_CLUSTER: [&str; 2] =
    ["rbac.authorization.k8s.io/v1/ClusterRoleBinding", "rbac.authorization.k8s.io/v1/ClusterRole"];
const CRD: &str = "apiextensions.k8s.io/v1/CustomResourceDefinition";

#[derive(Debug, Default)]
pub struct Findings {
    pub plugin: Option<Value>,
    /// What was made for it beside CRDs.
    pub made: Vec<Value>,
    /// CRDs that are to go as well.
    pub crds: Vec<Value>,
    /// The kinds that it reconciles.
    pub kinds: Vec<Kind>,
    /// What people should know first.
    notes: Vec<String>,
}

impl Findings {
    pub async fn gather(cluster: &Cluster, name: &str, plugin: Option<&Plugin>, with_crds: bool) -> anyhow::Result<Self> {
        let mut found = Self { plugin: plugin.map(plugin_object).transpose()?, ..Self::default() };
        found.made = made(cluster, name, &mut found.notes).await?;
        let Some(plugin) = plugin else {
            if with_crds {
                found.notes.push(
                    "which CRDs it brought is not known any more: `kubectl get crds -l app.kubernetes.io/managed-by=reef-cli`"
                        .into(),
                );
            }
            return Ok(found);
        };
        let told = Told::of(plugin);
        found.kinds = told.kinds.iter().filter_map(|kind| kind.parse().ok()).collect();
        let others = Others::look(cluster, plugin, with_crds).await?;
        if with_crds {
            found.crds = crds(cluster, plugin, &others, &mut found.notes).await?;
        }
        let finalizer = told.field_manager.as_deref().map(plan::finalizer);
        for kind in found.kinds.clone() {
            let goes = found.crds.iter().any(|crd| defines(crd, &kind));
            found.objects_of(cluster, &kind, finalizer.as_deref(), goes).await?;
        }
        found.notes.extend(others.serve(&cluster.namespace, &found.kinds));
        if told.ready != "True" && plugin.metadata.finalizers.as_ref().is_some_and(|all| !all.is_empty()) {
            let after = &plugin.spec.cleanup.orphan_after;
            found.notes.push(format!(
                "it is not ready ({}: {}): what waits for its cleanup may hang until {after} after the deletion, and is then let go",
                told.reason, told.message
            ));
        }
        Ok(found)
    }

    pub fn is_empty(&self) -> bool {
        self.plugin.is_none() && self.made.is_empty()
    }

    pub fn all(&self) -> impl Iterator<Item = &Value> {
        self.plugin.iter().chain(&self.made).chain(&self.crds)
    }

    pub fn said(&self) -> String {
        let mut text = format!("{}\n", output::bold("is deleted"));
        self.all().for_each(|object| text += &format!("  {}\n", called(object)));
        if !self.notes.is_empty() {
            text += &format!("\n{}\n", output::bold("to be known"));
            self.notes.iter().for_each(|note| text += &format!("  {note}\n"));
        }
        text
    }

    /// What becomes of the objects of a kind.
    async fn objects_of(&mut self, cluster: &Cluster, kind: &Kind, finalizer: Option<&str>, goes: bool) -> anyhow::Result<()> {
        let Some(resource) = served(cluster, kind).await? else { return Ok(()) };
        let namespace = if goes { "" } else { cluster.namespace.as_str() };
        let objects = match cluster.list(&resource, namespace, "").await {
            Ok(objects) => objects,
            Err(error) if error.is_forbidden() => {
                self.notes.push(format!("you may not list {}, so what is left of them is not told", resource.plural));
                return Ok(());
            }
            Err(error) => return Err(anyhow!("{kind}: {error}")),
        };
        if objects.is_empty() {
            return Ok(());
        }
        let (count, names) = (objects.len(), named(&objects));
        self.notes.push(if goes {
            format!("{count} objects of {kind} are lost with their CRD, in all namespaces, and their children with them: {names}")
        } else {
            format!("{count} objects of {kind} stay, and their children: nobody reconciles them any more: {names}")
        });
        let is_held = |object: &&Value| {
            let all = object.pointer("/metadata/finalizers").and_then(Value::as_array);
            all.is_some_and(|all| all.iter().any(|one| one.as_str() == finalizer))
        };
        let held = objects.iter().filter(is_held).count();
        if held > 0 {
            let fate = if goes {
                "each is cleaned up first"
            } else {
                "what is being deleted is cleaned up first, the others are let go as they are"
            };
            self.notes
                .push(format!("{held} of them are held for a cleanup (finalizer `{}`): {fate}", finalizer.unwrap_or_default()));
        }
        Ok(())
    }
}

fn named(objects: &[Value]) -> String {
    let name = |object: &Value| format!("{}/{}", text_at(object, "/metadata/namespace"), text_at(object, "/metadata/name"));
    let mut names: Vec<String> = objects.iter().take(NAMED).map(name).collect();
    if objects.len() > NAMED {
        names.push(format!("and {} more", objects.len() - NAMED));
    }
    names.join(", ")
}

async fn served(cluster: &Cluster, kind: &Kind) -> anyhow::Result<Option<std::sync::Arc<Resource>>> {
    match cluster.resource(kind).await {
        Ok(resource) => Ok(Some(resource)),
        Err(ApiError::UnknownKind(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether there is an object of this kind in the namespace that nobody deletes.
pub async fn lives_on(cluster: &Cluster, kind: &Kind) -> anyhow::Result<bool> {
    let Some(resource) = served(cluster, kind).await? else { return Ok(false) };
    match cluster.list(&resource, &cluster.namespace, "").await {
        Ok(objects) => Ok(objects.iter().any(|object| text_at(object, "/metadata/deletionTimestamp").is_empty())),
        Err(error) if error.is_not_found() || error.is_forbidden() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What was made for this Plugin, found by its labels.
async fn made(cluster: &Cluster, name: &str, notes: &mut Vec<String>) -> anyhow::Result<Vec<Value>> {
    let mut all = Vec::new();
    for kind in MADE.iter().chain(&MADE_IN_CLUSTER) {
        let kind: Kind = kind.parse()?;
        let resource = cluster.resource(&kind).await?;
        let namespace = if resource.namespaced { cluster.namespace.as_str() } else { "" };
        match cluster.list(&resource, namespace, &made::selector(name)).await {
            Ok(objects) => all.extend(objects.into_iter().filter(|object| made::is_for(object, &cluster.namespace, name))),
            // Who may not see them has not made any.
            Err(error) if error.is_forbidden() && !resource.namespaced => {
                notes.push(format!("{} are not looked for: you may not list them", resource.plural));
            }
            Err(error) => return Err(anyhow!("{kind}: {error}")),
        }
    }
    Ok(all)
}

/// The CRDs of its component that an install made and that nobody else uses.
async fn crds(cluster: &Cluster, plugin: &Plugin, others: &Others, notes: &mut Vec<String>) -> anyhow::Result<Vec<Value>> {
    let resource = cluster.resource(&CRD.parse()?).await?;
    let mut all = Vec::new();
    for name in brought(plugin) {
        let crd = cluster.get(&resource, "", &name).await.map_err(|error| anyhow!("CRD {name}: {error}"))?;
        let Some(crd) = crd else { continue };
        match others.user_of(&crd) {
            Some(user) => notes.push(format!("CRD {name} stays: Plugin {user} uses it")),
            None if !made::is_ours(&crd) => notes.push(format!("CRD {name} stays: `reef install` has not made it")),
            None => all.push(crd),
        }
    }
    Ok(all)
}

/// The names of the CRDs that came with it.
fn brought(plugin: &Plugin) -> BTreeSet<String> {
    let annotation = plugin.metadata.annotations.as_ref().and_then(|all| all.get(made::CRDS));
    let names = annotation.map_or("", String::as_str).split(',');
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn defines(crd: &Value, kind: &Kind) -> bool {
    text_at(crd, "/spec/group") == &*kind.group && text_at(crd, "/spec/names/kind") == &*kind.kind
}

/// All other Plugins that can be seen.
struct Others(BTreeMap<String, (Vec<Kind>, BTreeSet<String>)>);

impl Others {
    /// Before a CRD is deleted, all of the cluster have to be seen.
    async fn look(cluster: &Cluster, plugin: &Plugin, with_crds: bool) -> anyhow::Result<Self> {
        let found = match plugins::all(cluster, "").await {
            Ok(found) => found,
            Err(error) if with_crds => bail!(
                "--crds: whether Plugins of other namespaces use the CRDs cannot be seen ({error}): have an admin delete them"
            ),
            Err(_) => plugins::all(cluster, &cluster.namespace).await?,
        };
        let mut others = BTreeMap::new();
        for object in found {
            let other = plugins::parse(object)?;
            if other.metadata.uid != plugin.metadata.uid {
                let told = Told::of(&other);
                let kinds = told.kinds.iter().filter_map(|kind| kind.parse().ok()).collect();
                others.insert(format!("{}/{}", told.namespace, told.name), (kinds, brought(&other)));
            }
        }
        Ok(Self(others))
    }

    /// Who serves what the CRD defines, or has brought it too.
    fn user_of(&self, crd: &Value) -> Option<&str> {
        let name = text_at(crd, "/metadata/name");
        let uses =
            |kinds: &[Kind], brought: &BTreeSet<String>| brought.contains(name) || kinds.iter().any(|kind| defines(crd, kind));
        self.0.iter().find(|(_, (kinds, brought))| uses(kinds, brought)).map(|(other, _)| other.as_str())
    }

    /// Who reconciles the same objects.
    fn serve(&self, namespace: &str, kinds: &[Kind]) -> Vec<String> {
        let shared = |theirs: &[Kind]| theirs.iter().find(|kind| kinds.iter().any(|mine| mine.same_group_kind(kind))).cloned();
        let said = |(other, (theirs, _)): (&String, &(Vec<Kind>, BTreeSet<String>))| {
            shared(theirs).map(|kind| format!("Plugin {other} serves {kind} as well, and goes on"))
        };
        let beside = |(other, _): &(&String, &(Vec<Kind>, BTreeSet<String>))| other.split('/').next() == Some(namespace);
        self.0.iter().filter(beside).filter_map(said).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_crd_is_used_by_who_serves_its_kind_or_has_brought_it() {
        let crd = json!({ "metadata": { "name": "boxes.a.dev" }, "spec": { "group": "a.dev", "names": { "kind": "Box" } } });
        let kind: Kind = "a.dev/v2/Box".parse().unwrap();
        let others = |kinds: &[Kind], brought: &[&str]| {
            Others(BTreeMap::from([(
                "b/x".to_owned(),
                (kinds.to_vec(), brought.iter().map(|name| (*name).to_owned()).collect()),
            )]))
        };
        assert_eq!(others(&[], &[]).user_of(&crd), None);
        assert_eq!(others(std::slice::from_ref(&kind), &[]).user_of(&crd), Some("b/x"));
        assert_eq!(others(&[], &["boxes.a.dev"]).user_of(&crd), Some("b/x"));
        let v1 = "a.dev/v1/Box".parse().unwrap();
        assert_eq!(others(&[kind], &[]).serve("b", &[v1]), ["Plugin b/x serves a.dev/v2/Box as well, and goes on"]);
    }

    #[test]
    fn many_objects_are_not_all_named() {
        let objects: Vec<Value> = (0..7).map(|n| json!({ "metadata": { "name": n.to_string(), "namespace": "a" } })).collect();
        assert_eq!(named(&objects), "a/0, a/1, a/2, a/3, a/4, and 2 more");
    }
}
