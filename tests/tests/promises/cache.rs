//! The hub: one watch and one copy for all, and everybody gets the event.

mod outage;
mod scopes;

use anyhow::{Result, ensure};
use reef_tests::{
    audit::Request,
    cluster::condition,
    host::Metrics,
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
            // What is there comes with the watch itself.
            for (verb, count) in [("list", 0), ("watch", 1)] {
                let lines: Vec<String> = mine.iter().filter(|r| r.verb == verb).map(|r| r.line()).collect();
                ensure!(lines.len() == count, "{} requests to {verb} {resource}:\n{}", lines.len(), lines.join("\n"));
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

/// The one plugin of a namespace goes: its three watches end, and nothing of its objects is kept. It comes back, and reads
/// everything anew.
///
/// Promises: C2
/// Breaks it: a subscription that somebody forgets to drop.
#[test]
fn when_the_last_plugin_leaves_the_watch_closes_and_the_copy_goes() {
    scene("last-one", async |scene: &Scene<'_>| {
        probe::install(scene).await?;
        let host = scene.host().await?;
        probe::ready(scene, "probe").await?;
        probe::set(scene, "a", json!({ "text": "one", "children": ["a"] })).await?;
        probe::reconciled(scene, "a").await?;
        let namespace = format!("namespace=\"{}\"", scene.namespace);
        let kept = async || -> Result<Vec<String>> {
            let Metrics(text) = host.metrics().await?;
            let of = |line: &&str| line.starts_with("reef_cache_bytes") && line.contains(&namespace);
            Ok(text.lines().filter(of).map(str::to_owned).collect())
        };
        ensure!(kept().await?.len() == 3, "{:?}", kept().await?);
        ensure!(ended_watches(scene)?.is_empty(), "{:?}", ended_watches(scene)?);

        scene.cluster().delete(probe::PLUGIN, &scene.namespace, "probe").await?;
        probe::until("nothing is kept", || async { kept().await.is_ok_and(|series| series.is_empty()) }).await?;
        let over = || async { ended_watches(scene).is_ok_and(|ended| ended == ["configmaps", "deployments", "probes"]) };
        probe::until("the API server has seen the end of all three watches", over).await?;

        probe::set(scene, "a", json!({ "text": "two", "children": ["a"] })).await?;
        probe::install(scene).await?;
        probe::config_says(scene, "a", "text", "two").await.map(drop)
    });
}

/// 1,500 ConfigMaps of 20 KB are read and make the process larger; when their last reader has left, it is nearly as small as
/// before.
///
/// Promises: C2
/// Breaks it: a copy that somebody keeps, or an allocator that keeps its pages.
#[test]
fn when_the_last_plugin_leaves_the_memory_of_the_process_returns() {
    const OBJECTS: u64 = 1500;
    scene("memory", async |scene: &Scene<'_>| {
        for some in (0..OBJECTS).collect::<Vec<_>>().chunks(50) {
            let config = |n: &u64| probe::config(&format!("c{n}"), json!({ "data": "x".repeat(20_000) }));
            let create = async |n: &u64| scene.cluster().create(&scene.namespace, &config(n)).await;
            futures::future::try_join_all(some.iter().map(create)).await?;
        }
        let host = scene.host().await?;
        let begin = host.resident()?;
        probe::install(scene).await?;
        probe::ready(scene, "probe").await?;
        probe::set(scene, "first", json!({})).await?;
        probe::reconciled(scene, "first").await?;
        let full = host.resident()?;
        ensure!(full > begin + 25_000_000, "30 MB of objects cost {begin} → {full} bytes");
        scene.cluster().delete(probe::PLUGIN, &scene.namespace, "probe").await?;
        let small =
            || async { host.metrics().await.is_ok() && host.resident().is_ok_and(|now| now < begin + (full - begin) / 2) };
        probe::until(&format!("half of what was needed is given back ({begin} → {full} bytes)"), small).await?;
        println!("resident: {begin} bytes, with 30 MB of objects {full}, without them again {}", host.resident()?);
        Ok(())
    });
}

/// The resources of the plugins' watches in this namespace that are over, sorted.
fn ended_watches(scene: &Scene<'_>) -> Result<Vec<String>> {
    let log = std::fs::read_to_string(scene.world.plane.audit_log())?;
    // The last line may be half written.
    let requests = log.lines().filter_map(|line| serde_json::from_str::<Request>(line).ok());
    let ended = requests.filter(|r| r.verb == "watch" && r.stage == "ResponseComplete" && r.is_by_reef());
    let mut here: Vec<String> =
        ended.filter(|r| r.object_ref.namespace == scene.namespace).map(|r| r.object_ref.resource).collect();
    here.sort();
    Ok(here)
}
