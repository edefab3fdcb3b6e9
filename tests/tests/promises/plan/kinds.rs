//! Kinds that have no place for what is usually said of an object.

use anyhow::{Result, ensure};
use reef_tests::{
    cluster::condition,
    paths,
    world::{Scene, scene},
};
use serde_json::{Value, json};

use super::{lines, writer};
use crate::probe;

const SECRET: &str = "v1/Secret";

async fn install(scene: &Scene<'_>) -> Result<()> {
    scene.world.apply_file("", &paths::checkout().join("tests/guests/plain-crds.yaml")).await?;
    let rules = "[{ apiGroups: [\"\"], resources: [secrets], verbs: [get, list, watch, create, patch, delete] }, \
                 { apiGroups: [test.reef.dev], resources: [plains, atomics], verbs: [get, list, watch] }, \
                 { apiGroups: [test.reef.dev], resources: [atomics/status], verbs: [get, patch] }]";
    writer::may(scene, "plain", "further", rules).await?;
    probe::install_as(scene, "plain").await
}

fn object(kind: &str, name: &str, mode: &str) -> Value {
    match kind {
        "ConfigMap" => probe::config(name, json!({ "mode": mode })),
        kind => json!({ "apiVersion": "test.reef.dev/v1", "kind": kind, "metadata": { "name": name }, "spec": { "mode": mode } }),
    }
}

/// The reason for which the Plugin names an object.
async fn failing(scene: &Scene<'_>, name: &str, reason: &str) -> Result<String> {
    let find = |plugin: Option<&Value>| {
        let objects = plugin?["status"]["failing"]["objects"].as_array()?.clone();
        objects.into_iter().find(|object| object["name"] == name && object["reason"] == reason)
    };
    let what = format!("names {name} with {reason}");
    let plugin = scene.cluster().wait(probe::PLUGIN, &scene.namespace, "plain", &what, |p| find(p).is_some()).await?;
    Ok(find(Some(&plugin)).and_then(|object| object["message"].as_str().map(str::to_owned)).unwrap_or_default())
}

/// Waits for an event about an object, and returns its note.
async fn event(scene: &Scene<'_>, name: &str, reason: &str) -> Result<String> {
    let find = async || {
        let events = scene.cluster().list("events.k8s.io/v1/Event", &scene.namespace).await.unwrap_or_default();
        events.into_iter().find(|event| event["regarding"]["name"] == name && event["reason"] == reason)
    };
    probe::until(&format!("there is an event {reason} about {name}"), async || find().await.is_some()).await?;
    Ok(find().await.and_then(|event| event["note"].as_str().map(str::to_owned)).unwrap_or_default())
}

/// A ConfigMap, and an object of a CustomResourceDefinition without a status subresource, have children like any other; their
/// own text is never written; a plan with a status or a condition is invalid; and why one fails stands on the Plugin and in an
/// event. A restart writes nothing.
///
/// Promises: W1, W2, W11
/// Breaks it: writing a status where there is none, or telling a failure only on the object.
#[test]
fn kinds_without_a_status_are_reconciled_and_their_failures_told_on_the_plugin_and_by_events() {
    scene("statusless", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        install(scene).await?;
        let host = scene.host().await?;
        probe::ready(scene, "plain").await?;
        for (kind, full) in [("ConfigMap", probe::CONFIG), ("Plain", "test.reef.dev/v1/Plain")] {
            let name = |mode: &str| format!("{}-{mode}", kind.to_lowercase());
            let good = cluster.create(namespace, &object(kind, &name("good"), "good")).await?;
            let made = |object: Option<&Value>| object.is_some_and(|object| object["data"]["mode"] == "Z29vZA==");
            cluster.wait(SECRET, namespace, &format!("of-{}", name("good")), "is made", made).await?;
            for (mode, reason, part) in [
                ("status", "InvalidPlan", "has no status subresource: leave it out"),
                ("condition", "InvalidPlan", "has no conditions in its status: leave it out"),
                ("fail", "AsAsked", "it fails as asked"),
            ] {
                cluster.create(namespace, &object(kind, &name(mode), mode)).await?;
                let said = failing(scene, &name(mode), reason).await?;
                ensure!(said.contains(part), "the Plugin says: {said}");
                let said = event(scene, &name(mode), reason).await?;
                ensure!(said.contains(part), "the event says: {said}");
                let child = cluster.get(SECRET, namespace, &format!("of-{}", name(mode))).await?;
                ensure!(child.is_none(), "of a plan that is not valid was written: {child:?}");
                cluster.delete(full, namespace, &name(mode)).await?;
            }
            let now = cluster.get(full, namespace, &name("good")).await?;
            ensure!(now.as_ref() == Some(&good), "its own object was written: {now:?}");
        }
        let none = |object: Option<&Value>| object.is_some_and(|plugin| plugin["status"]["failing"].is_null());
        cluster.wait(probe::PLUGIN, namespace, "plain", "has no failing objects any more", none).await?;
        scene.kill(&host).await?;
        let mark = scene.world.audit.mark(cluster).await?;
        let second = scene.host().await?;
        // Also the one that every namespace has.
        probe::reconciles_reach(scene, &second, "plain", Some("success"), 3).await?;
        let _ = scene.world.audit.mark(cluster).await?;
        let written = scene.world.audit.writes(mark, namespace)?;
        ensure!(written.is_empty(), "in a steady state was written:\n{}", lines(&written));
        Ok(())
    });
}

/// Where conditions are a plain list, which whoever writes it replaces, those of others stay, and ours follows the outcome; no
/// status field that nobody plans comes to exist.
///
/// Promises: W11
/// Breaks it: writing only our own conditions into a list that is replaced as a whole.
#[test]
fn conditions_in_a_plain_list_are_written_beside_those_of_others() {
    scene("atomic", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let kind = "test.reef.dev/v1/Atomic";
        install(scene).await?;
        let _host = scene.host().await?;
        probe::ready(scene, "plain").await?;
        let says = async |status: &str, reason: &str| {
            let said =
                |o: Option<&Value>| condition(o, "Reconciled").is_some_and(|c| c["status"] == status && c["reason"] == reason);
            cluster.wait(kind, namespace, "a", &format!("says {reason}"), said).await
        };
        cluster.apply_object(namespace, &object("Atomic", "a", "good")).await?;
        let good = says("True", "Reconciled").await?;
        let fields: Vec<&String> = good["status"].as_object().into_iter().flatten().map(|(name, _)| name).collect();
        ensure!(fields == ["conditions"], "the status has {fields:?}");
        let mut list = good["status"]["conditions"].as_array().cloned().unwrap_or_default();
        list.push(json!({ "type": "Theirs", "status": "False", "reason": "Theirs" }));
        cluster.patch(kind, namespace, "a", "status", &json!({ "status": { "conditions": list } })).await?;
        cluster.apply_object(namespace, &object("Atomic", "a", "fail")).await?;
        let failed = says("False", "AsAsked").await?;
        ensure!(condition(Some(&failed), "Theirs").is_some_and(|c| c["status"] == "False"), "theirs is gone: {failed}");
        cluster.apply_object(namespace, &object("Atomic", "a", "condition")).await?;
        let ready = says("True", "Reconciled").await?;
        let names = ready["status"]["conditions"].as_array().into_iter().flatten().filter_map(|c| c["type"].as_str());
        let mut names: Vec<&str> = names.collect();
        names.sort_unstable();
        ensure!(names == ["Ready", "Reconciled", "Theirs"], "there are {names:?}");
        Ok(())
    });
}
