//! The hub: one watch and one copy for all, and everybody gets the event.

use anyhow::{Result, ensure};
use reef_tests::{
    audit::Request,
    cluster::condition,
    world::{Scene, scene},
};
use serde_json::{Value, json};

use crate::probe;

/// `probe` and `cleaner` reconcile the same kind and own the same kind, each as its own ServiceAccount. In the end the one
/// as whom the watch runs leaves, and the other goes on getting events.
///
/// Promises: C1
/// Breaks it: a watch per plugin or per account, or a change that is told to the first subscriber only.
#[test]
fn two_plugins_on_one_kind_share_one_watch_and_one_copy_and_both_get_the_event() {
    scene("two-on-one", async |scene: &Scene<'_>| {
        let begin = scene.world.audit.mark(scene.cluster()).await?;
        probe::install_as(scene, "probe").await?;
        probe::install_as(scene, "cleaner").await?;
        let host = scene.host().await?;
        probe::ready(scene, "probe").await?;
        probe::ready(scene, "cleaner").await?;
        for name in ["a", "b", "c"] {
            probe::set(scene, name, json!({ "text": "one" })).await?;
        }
        for edit in ["two", "three"] {
            probe::set(scene, "b", json!({ "text": edit })).await?;
            both_have_seen(scene, "b").await?;
        }
        both_have_seen(scene, "a").await?;
        both_have_seen(scene, "c").await?;
        for (resource, objects) in [("probes", 3), ("configmaps", 4)] {
            let requests = scene.world.audit.since(begin)?;
            let here = requests.iter().filter(|r| r.is_by_reef() && r.object_ref.namespace == scene.namespace);
            let mine: Vec<_> = here.filter(|r| r.object_ref.resource == resource).collect();
            for verb in ["list", "watch"] {
                let lines: Vec<String> = mine.iter().filter(|r| r.verb == verb).map(|r| r.line()).collect();
                ensure!(lines.len() == 1, "{} requests to {verb} {resource}:\n{}", lines.len(), lines.join("\n"));
            }
            let kind = if resource == "probes" { probe::PROBE } else { probe::CONFIG };
            let labels = [("kind", kind), ("namespace", &*scene.namespace)];
            let kept = host.metrics().await?.sum("reef_cache_objects", &labels);
            ensure!(kept == f64::from(objects), "{kept} {resource} are kept; the API server has {objects}");
        }
        let watcher =
            |r: &&Request| r.verb == "watch" && r.object_ref.resource == "probes" && r.object_ref.namespace == scene.namespace;
        let requests = scene.world.audit.since(begin)?;
        let account = requests.iter().find(watcher).map(|r| r.user.username.clone()).unwrap_or_default();
        let (leaves, stays) = if account.ends_with(":probe") { ("probe", "Cleaned") } else { ("cleaner", "Reconciled") };
        scene.cluster().delete(probe::PLUGIN, &scene.namespace, leaves).await?;
        let edited = probe::set(scene, "b", json!({ "text": "four" })).await?;
        let seen = |object: Option<&Value>| {
            condition(object, stays).is_some_and(|c| c["observedGeneration"] == edited["metadata"]["generation"])
        };
        let what = "was seen by the plugin that is left";
        scene.cluster().wait(probe::PROBE, &scene.namespace, "b", what, seen).await.map(drop)
    });
}

/// Both conditions speak of the present generation.
async fn both_have_seen(scene: &Scene<'_>, name: &str) -> Result<()> {
    let seen = |object: Option<&Value>| {
        let generation = object.map(|object| &object["metadata"]["generation"]);
        let said =
            |name| condition(object, name).is_some_and(|c| c["status"] == "True" && Some(&c["observedGeneration"]) == generation);
        said("Reconciled") && said("Cleaned")
    };
    let what = "carries the conditions of both plugins for its generation";
    scene.cluster().wait(probe::PROBE, &scene.namespace, name, what, seen).await.map(drop)
}
