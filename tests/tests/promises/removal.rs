//! The end: of a namespace with everything in it, and of a plugin with everything that it made.

use anyhow::ensure;
use reef_tests::{
    control_plane::Setup,
    world::{Scene, scene, scene_apart},
};
use serde_json::{Value, json};

use crate::{
    hello::{self, HELLO},
    probe::{self, CONFIG, PLUGIN},
};

const NAMESPACE: &str = "v1/Namespace";
const CRD: &str = "apiextensions.k8s.io/v1/CustomResourceDefinition";

/// The objects and children of a plugin, its account, its rights and its Plugin all go at once, in any order, while a host runs:
/// the namespace is gone in the end, and the host has let go of all of it and serves its neighbours.
///
/// Promises: K2
/// Breaks it: children made again in a namespace that goes, or a host that holds what it watched there.
#[test]
fn a_namespace_with_live_objects_can_be_deleted() {
    scene("doomed", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let host = scene.host().await?;
        hello::install(scene).await?;
        probe::install(scene).await?;
        hello::says(scene, "one").await?;
        probe::ready(scene, "probe").await?;
        for i in 0..20 {
            let name = format!("p-{i}");
            probe::set(scene, &name, json!({ "children": [format!("{name}-a"), format!("{name}-b")], "text": "live" })).await?;
        }
        for i in 0..20 {
            probe::reconciled(scene, &format!("p-{i}")).await?;
        }
        cluster.delete(NAMESPACE, "", namespace).await?;
        cluster.wait(NAMESPACE, "", namespace, "is gone", |object| object.is_none()).await?;
        probe::until("nothing of it is in the store any more", || async {
            host.metrics().await.is_ok_and(|metrics| metrics.sum("reef_cache_objects", &[("namespace", namespace)]) == 0.0)
        })
        .await?;
        ensure!(host.exit().is_none(), "the host has ended");
        host.ready().await
    });
}

/// First the Plugin goes and then its kind, as `kubectl delete -f` does: its objects and all that it made are gone, nothing
/// carries its mark, and the host watches nothing for it. Installed again, it works.
///
/// Promises: K3
/// Breaks it: finalizers that nobody takes off, children without an owner reference, or watches that nobody needs.
#[test]
fn a_plugin_that_is_uninstalled_leaves_nothing() {
    scene_apart("uninstalled", Setup::default(), async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let host = scene.host().await?;
        hello::install(scene).await?;
        // Children go by Kubernetes' garbage collector, which takes half a minute to learn a kind that is new.
        hello::says(scene, "first").await?;
        cluster.delete(HELLO, namespace, "greeting").await?;
        probe::config_gone(scene, "greeting").await?;
        hello::says(scene, "one").await?;
        cluster.delete(PLUGIN, namespace, "hello").await?;
        cluster.wait(PLUGIN, namespace, "hello", "is gone", |object| object.is_none()).await?;
        cluster.delete(CRD, "", "hellos.demo.reef.dev").await?;
        cluster.wait(CRD, "", "hellos.demo.reef.dev", "is gone", |object| object.is_none()).await?;
        probe::config_gone(scene, "greeting").await?;
        let configs = cluster.list(CONFIG, namespace).await?;
        let marked: Vec<&Value> = configs.iter().filter(|o| !o["metadata"]["labels"]["reef.dev/plugin"].is_null()).collect();
        ensure!(marked.is_empty(), "of the plugin is left: {marked:?}");
        probe::until("nothing of it is watched", || async {
            host.metrics().await.is_ok_and(|metrics| metrics.sum("reef_cache_objects", &[("namespace", namespace)]) == 0.0)
        })
        .await?;
        hello::install(scene).await?;
        let served = || async { cluster.list(HELLO, namespace).await.is_ok() };
        probe::until("the API server serves Hellos again", served).await?;
        hello::says(scene, "again").await
    });
}
