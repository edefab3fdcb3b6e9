//! Deletions that a plan asks for, in a reconcile and in a cleanup.

use anyhow::{Result, ensure};
use reef_tests::{
    cluster::condition,
    world::{Scene, scene},
};
use serde_json::{Value, json};

use super::{
    lines, planner,
    planner::{config, get, with},
    writes_of,
};
use crate::probe::{self, CONFIG};

async fn make(scene: &Scene<'_>, name: &str, metadata: Value) -> Result<Value> {
    let mut object = probe::config(name, json!({ "text": "theirs" }));
    object["metadata"] = metadata;
    object["metadata"]["name"] = name.into();
    scene.cluster().create(&scene.namespace, &object).await
}

/// A foreign object: without having been read it stays, and the failure says read it first; with the version of another day it
/// stays, and that is told; read, it goes. A list goes as a whole, and nothing beside it. What finalizers hold is deleted once
/// and not again; when it comes back, the plan still says that it is to be gone.
///
/// Promises: W1, W2, W4
/// Breaks it: deleting by name whatever is there, or what is being deleted again and again.
#[test]
fn only_what_the_call_has_read_is_deleted_and_just_once() {
    scene("delete", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let _host = planner::start(scene).await?;
        let version = make(scene, "one", json!({})).await?["metadata"]["resourceVersion"].clone();
        for (name, held) in [("red", json!([])), ("ruby", json!([])), ("held", json!(["test.reef.dev/hold"]))] {
            make(scene, name, json!({ "labels": { "color": if name == "held" { "none" } else { "red" } }, "finalizers": held }))
                .await?;
        }
        make(scene, "blue", json!({ "labels": { "color": "blue" } })).await?;

        let delete = || config("delete", "one", json!({}));
        probe::set(scene, "o", json!({ "plan": [delete()] })).await?;
        let expected = "write 1 (v1/ConfigMap `one`): this call has not read it, and only what was read can be deleted: `get` it, \
                        or `list` it, and pass on what that returned";
        planner::sentence_is(scene, "o", ("False", "InvalidPlan"), expected).await?;
        probe::set(scene, "o", json!({ "get": get(&["one"]), "plan": [with(delete(), json!({ "if_version": "1" }))] })).await?;
        let said = format!(
            "v1/ConfigMap {namespace}/one has resourceVersion {}, and `if-version` asks for 1: read it in this call, \
                            and ask for what that returned",
            version.as_str().unwrap_or_default()
        );
        planner::sentence_is(scene, "o", ("Unknown", "Outdated"), &said).await?;
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "one" } });
        probe::set(scene, "o", json!({ "plan": [{ "verb": "delete", "object": secret }] })).await?;
        let expected = "write 1 (v1/Secret `one`): its manifest does not write v1/Secret: add `writes: [\"v1/Secret\"]` to its \
                        `plugin!` line";
        planner::sentence_is(scene, "o", ("False", "InvalidPlan"), expected).await?;
        let tried = writes_of(scene, "one")?;
        ensure!(tried.is_empty(), "without having been read, or in another version, was deleted:\n{}", lines(&tried));
        let spec = json!({ "get": get(&["one", "held"]), "list": [[CONFIG, "color=red"]],
            "plan": [with(delete(), json!({ "if_version": "read" })), config("delete", "held", json!({}))] });
        // What is gone has no version any more.
        probe::set(scene, "o", spec).await?;
        for name in ["one", "red", "ruby"] {
            probe::config_gone(scene, name).await?;
        }
        let spec = json!({ "get": get(&["one", "held"]), "list": [[CONFIG, "color=red"]],
            "plan": [delete(), config("delete", "held", json!({}))] });
        probe::set(scene, "o", spec.clone()).await?;
        probe::reconciled(scene, "o").await?;
        ensure!(cluster.get(CONFIG, namespace, "blue").await?.is_some(), "more was deleted than was in the list");
        let held = cluster.get(CONFIG, namespace, "held").await?.unwrap_or_default();
        ensure!(!held["metadata"]["deletionTimestamp"].is_null(), "`held` is not being deleted: {held}");
        planner::stays(scene, "o", spec).await?;
        for name in ["one", "red", "ruby", "held"] {
            let tried = writes_of(scene, name)?;
            ensure!(tried.len() == 1, "of `{name}` one deletion was due, there are:\n{}", lines(&tried));
        }

        cluster.patch(CONFIG, namespace, "held", "", &json!({ "metadata": { "finalizers": null } })).await?;
        probe::config_gone(scene, "held").await?;
        make(scene, "held", json!({})).await?;
        probe::config_gone(scene, "held").await
    });
}

/// Promises: W4
/// Breaks it: children that go with a parent which was to go alone.
#[test]
fn children_of_what_is_deleted_stay_when_the_plan_says_so() {
    scene("orphans", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let _host = planner::start(scene).await?;
        for (parent, child) in [("leaves", "left"), ("takes", "taken")] {
            let uid = make(scene, parent, json!({})).await?["metadata"]["uid"].clone();
            let owner = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": parent, "uid": uid });
            make(scene, child, json!({ "ownerReferences": [owner] })).await?;
        }
        let plan = [
            with(config("delete", "leaves", json!({})), json!({ "propagation": "Orphan" })),
            with(config("delete", "takes", json!({})), json!({ "propagation": "Foreground" })),
        ];
        probe::set(scene, "o", json!({ "get": get(&["leaves", "takes"]), "plan": plan })).await?;
        for name in ["leaves", "takes", "taken"] {
            probe::config_gone(scene, name).await?;
        }
        probe::reconciled(scene, "o").await?;
        let left = cluster.get(CONFIG, namespace, "left").await?.unwrap_or_default();
        ensure!(
            left["metadata"]["name"] == "left" && left["metadata"]["ownerReferences"].is_null(),
            "of the child is left: {left}"
        );
        Ok(())
    });
}

/// A cleanup that is neither done nor pending is refused with a sentence; one that waits prunes nothing; one that is done has
/// deleted what it said, also what no owner reference takes along.
///
/// Promises: W1, W3, K1
/// Breaks it: a cleanup that prunes, or that ends without having said that it is done.
#[test]
fn a_cleanup_deletes_what_it_says_prunes_nothing_and_ends_when_it_says_so() {
    scene("cleanup-verbs", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        probe::install_as(scene, "cleaner").await?;
        let _host = scene.host().await?;
        probe::ready(scene, "cleaner").await?;
        make(scene, "kept", json!({})).await?;
        probe::set(scene, "o", json!({ "cleanup": {} })).await?;
        let cleaned = |reason: &'static str| {
            move |object: Option<&Value>| condition(object, "Cleaned").is_some_and(|c| c["reason"] == reason)
        };
        cluster.wait(probe::PROBE, namespace, "o", "is reconciled", cleaned("Reconciled")).await?;
        cluster.delete(probe::PROBE, namespace, "o").await?;
        let probe =
            cluster.wait(probe::PROBE, namespace, "o", "says that its cleanup is invalid", cleaned("InvalidPlan")).await?;
        let said = condition(Some(&probe), "Cleaned").map(|c| c["message"].clone()).unwrap_or_default();
        let expected =
            "the cleanup is neither done nor pending: return `Plan::done()`, or say with `pending(..)` what it waits for";
        ensure!(said == expected, "the condition says: {said}");

        let spec = |cleanup: Value| json!({ "spec": { "cleanup": cleanup } });
        cluster.patch(probe::PROBE, namespace, "o", "", &spec(json!({ "pending": "the tide" }))).await?;
        cluster.wait(probe::PROBE, namespace, "o", "waits", cleaned("Pending")).await?;
        ensure!(cluster.get(CONFIG, namespace, "o-cleaner").await?.is_some(), "a cleanup has pruned");
        let cleanup =
            json!({ "pending": null, "get": get(&["kept"]), "plan": [config("delete", "kept", json!({}))], "done": true });
        cluster.patch(probe::PROBE, namespace, "o", "", &spec(cleanup)).await?;
        cluster.wait(probe::PROBE, namespace, "o", "is gone", |object| object.is_none()).await?;
        ensure!(cluster.get(CONFIG, namespace, "kept").await?.is_none(), "what the cleanup was to delete is there");
        probe::config_gone(scene, "o-cleaner").await
    });
}
