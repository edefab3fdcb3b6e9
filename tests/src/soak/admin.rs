//! What an admin does: installs the plugin, and confirms what its sentence says is to be confirmed.

use std::fs;

use anyhow::Result;
use serde_json::{Value, json};

use super::Subject;
use crate::{
    cluster::{Cluster, condition},
    paths,
    random::Random,
    world::Scene,
};

pub const PLUGIN: &str = "reef.dev/v1alpha1/Plugin";

/// One namespace for each component, with what it needs to run.
pub async fn install<S: Subject>(scene: &Scene<'_>, end: &str, class: &str) -> Result<Vec<String>> {
    let (world, cluster) = (scene.world, scene.cluster());
    let dir = paths::checkout().join("plugins").join(S::EXAMPLE);
    world.apply_file("", &dir.join("crd.yaml")).await?;
    let mut namespaces = Vec::new();
    for component in S::COMPONENTS {
        let namespace = format!("{}-{component}{end}", scene.namespace);
        cluster.create_namespace(&namespace).await?;
        is_collected::<S>(cluster, &namespace).await?;
        world.apply_file(&namespace, &dir.join("rbac.yaml")).await?;
        let file = format!("{component}.wasm");
        scene.place(&file, &fs::read(paths::component(component)?)?)?;
        let plugin = json!({
            "apiVersion": "reef.dev/v1alpha1", "kind": "Plugin", "metadata": { "name": component },
            "spec": { "className": class, "source": { "file": file }, "serviceAccountName": S::EXAMPLE },
        });
        cluster.apply_object(&namespace, &plugin).await?;
        namespaces.push(namespace);
    }
    Ok(namespaces)
}

/// Waits until the garbage collector takes children of the kind: of a new kind it hears only twice a minute, and until then a
/// soak would be little more than waiting for what deleted objects left.
async fn is_collected<S: Subject>(cluster: &Cluster, namespace: &str) -> Result<()> {
    const CHILD: &str = "v1/ConfigMap";
    let spec = S::spec(&mut Random::new(0), "probe", 0, None);
    let owner = cluster.apply_object(namespace, &object::<S>("probe", &spec)).await?;
    let reference = json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": "probe", "uid": owner["metadata"]["uid"],
    });
    let child = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "probe", "ownerReferences": [reference] },
    });
    cluster.create(namespace, &child).await?;
    cluster.delete(S::KIND, namespace, "probe").await?;
    cluster.wait(CHILD, namespace, "probe", "is collected", |child| child.is_none()).await.map(drop)
}

pub fn object<S: Subject>(name: &str, spec: &Value) -> Value {
    let (api_version, kind) = S::KIND.rsplit_once('/').unwrap_or_default();
    json!({ "apiVersion": api_version, "kind": kind, "metadata": { "name": name }, "spec": spec })
}

/// A host that was away knows only that many objects lose children, not that their edits say so: it asks.
pub async fn confirm_losses(cluster: &Cluster, namespaces: &[String]) -> Result<()> {
    for namespace in namespaces {
        for plugin in cluster.list(PLUGIN, namespace).await? {
            let held = condition(Some(&plugin), "Pruned").filter(|pruned| pruned["reason"] == "MassLossHeld");
            let said = held.and_then(|pruned| pruned["message"].as_str()?.split("reef.dev/confirm-loss=").nth(1));
            let Some(revision) = said.and_then(|rest| rest.split('`').next()) else { continue };
            let name = plugin["metadata"]["name"].as_str().unwrap_or_default();
            let confirmed = json!({ "metadata": { "annotations": { "reef.dev/confirm-loss": revision } } });
            cluster.patch(PLUGIN, namespace, name, "", &confirmed).await?;
        }
    }
    Ok(())
}
