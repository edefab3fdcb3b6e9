//! One write after the other, and what may stand in the way of one.

use anyhow::{Result, ensure};
use reef_tests::world::{Scene, scene};
use serde_json::{Value, json};

use super::{
    lines, planner,
    planner::{config, with},
    writes_of,
};
use crate::probe::{self, CONFIG};

fn own(name: &str, text: &str) -> Value {
    config("own", name, json!({ "data": { "text": text } }))
}

async fn hold(scene: &Scene<'_>, kind: &str, name: &str, held: bool) -> Result<()> {
    let finalizers = if held { json!(["test.reef.dev/hold"]) } else { Value::Null };
    let patch = json!({ "metadata": { "finalizers": finalizers } });
    scene.cluster().patch(kind, &scene.namespace, name, "", &patch).await.map(drop)
}

/// The API server refuses the second of three writes: the first is there, the third is not, nothing is pruned, and the status
/// says what was refused and why. When the cause is gone, all three are there, and what left the plan is not.
///
/// Promises: W3, W11
/// Breaks it: going on after a failure, another order than the author's, or pruning after a failure.
#[test]
fn writes_are_made_in_order_and_the_first_failure_ends_them() {
    scene("order", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let _host = planner::start(scene).await?;
        let two = |text: &str| with(own("two", text), json!({ "object": { "immutable": true } }));
        probe::set(scene, "o", json!({ "plan": [own("one", "a"), two("a"), own("four", "a")] })).await?;
        probe::reconciled(scene, "o").await?;
        let fourth = cluster.get(CONFIG, namespace, "four").await?;
        probe::set(scene, "o", json!({ "plan": [own("one", "b"), two("b"), own("three", "b")] })).await?;
        let failed = probe::says(scene, "o", "False", "Refused").await?;
        let said = probe::sentence(&failed);
        let expected = format!("cannot patch v1/ConfigMap {namespace}/two: ");
        ensure!(said.starts_with(&expected) && said.contains("immutable"), "the condition says: {said}");
        probe::config_says(scene, "one", "text", "b").await?;
        ensure!(writes_of(scene, "three")?.is_empty(), "what comes behind a failure was written");
        ensure!(cluster.get(CONFIG, namespace, "four").await? == fourth, "a plan that failed has pruned");
        cluster.delete(CONFIG, namespace, "two").await?;
        for name in ["two", "three"] {
            probe::config_says(scene, name, "text", "b").await?;
        }
        probe::reconciled(scene, "o").await?;
        probe::config_gone(scene, "four").await
    });
}

/// Somebody deletes a child that a finalizer holds: that is said, and it is made anew when it is gone.
///
/// Promises: W11
/// Breaks it: writing into an object that is on its way out, or not noticing when it is gone.
#[test]
fn a_child_that_hangs_in_its_deletion_is_waited_for_and_made_anew() {
    scene("stuck", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let _host = planner::start(scene).await?;
        probe::set(scene, "o", json!({ "plan": [own("stuck", "a"), own("behind", "a")] })).await?;
        probe::reconciled(scene, "o").await?;
        let before = cluster.get(CONFIG, namespace, "stuck").await?.unwrap_or_default();
        hold(scene, CONFIG, "stuck", true).await?;
        cluster.delete(CONFIG, namespace, "stuck").await?;
        let said = format!("v1/ConfigMap {namespace}/stuck is being deleted: it is made again when it is gone");
        planner::sentence_is(scene, "o", ("Unknown", "Waiting"), &said).await?;
        probe::set(scene, "o", json!({ "plan": [own("stuck", "b"), own("behind", "b")] })).await?;
        planner::sentence_is(scene, "o", ("Unknown", "Waiting"), &said).await?;
        let written = writes_of(scene, "stuck")?;
        ensure!(written.len() == 1, "only its creation was due, there are:\n{}", lines(&written));
        hold(scene, CONFIG, "stuck", false).await?;
        let anew = probe::config_says(scene, "stuck", "text", "b").await?;
        ensure!(anew["metadata"]["uid"] != before["metadata"]["uid"], "it is still the one that was deleted");
        probe::config_says(scene, "behind", "text", "b").await?;
        probe::reconciled(scene, "o").await.map(drop)
    });
}

/// What somebody else controls is not taken, even if the plugin may take it over: that is said, and it is taken as soon as the
/// other one lets go.
///
/// Promises: W4, W11
/// Breaks it: a second controller, or an apply that the API server refuses again and again.
#[test]
fn a_child_with_another_controller_is_a_conflict_until_that_one_lets_go() {
    scene("controlled", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let _host = planner::start(scene).await?;
        let other = cluster.create(namespace, &probe::config("other", json!({}))).await?;
        let mut child = probe::config("child", json!({ "text": "theirs" }));
        child["metadata"]["annotations"] = json!({ "reef.dev/adopt": "planner" });
        child["metadata"]["ownerReferences"] = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "other",
            "uid": other["metadata"]["uid"], "controller": true }]);
        let before = cluster.create(namespace, &child).await?;
        probe::set(scene, "o", json!({ "plan": [own("child", "ours")] })).await?;
        let said = format!(
            "v1/ConfigMap {namespace}/child is controlled by v1/ConfigMap `other`, and an object has one controller: name the child \
             differently, or have that one let go of it"
        );
        planner::sentence_is(scene, "o", ("False", "Conflict"), &said).await?;
        ensure!(cluster.get(CONFIG, namespace, "child").await?.as_ref() == Some(&before), "it was touched");
        cluster.patch(CONFIG, namespace, "child", "", &json!({ "metadata": { "ownerReferences": null } })).await?;
        let ours = probe::config_says(scene, "child", "text", "ours").await?;
        ensure!(ours["metadata"]["ownerReferences"].as_array().is_some_and(|all| all.len() == 1), "{ours}");
        probe::reconciled(scene, "o").await.map(drop)
    });
}

/// An owner goes and another one of its name comes while a finalizer still holds the former one's child: that child is not
/// adopted, and the new owner gets one of its own when it is gone.
///
/// Promises: W4, W8
/// Breaks it: knowing children by their owner's name.
#[test]
fn the_child_of_an_earlier_owner_of_the_same_name_is_not_adopted() {
    scene("heir", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let _host = planner::start(scene).await?;
        let first = probe::set(scene, "o", json!({ "plan": [own("child", "first")] })).await?;
        probe::reconciled(scene, "o").await?;
        hold(scene, CONFIG, "child", true).await?;
        cluster.delete(probe::PROBE, namespace, "o").await?;
        cluster.wait(probe::PROBE, namespace, "o", "is gone", |object| object.is_none()).await?;
        let second = probe::set(scene, "o", json!({ "plan": [own("child", "second")] })).await?;
        probe::says(scene, "o", "Unknown", "Waiting").await?;
        let going = |object: Option<&Value>| object.is_some_and(|object| !object["metadata"]["deletionTimestamp"].is_null());
        let child = cluster.wait(CONFIG, namespace, "child", "goes", going).await?;
        let owners: Vec<&Value> =
            child["metadata"]["ownerReferences"].as_array().into_iter().flatten().map(|o| &o["uid"]).collect();
        ensure!(owners == [&first["metadata"]["uid"]] && child["data"]["text"] == "first", "it was adopted: {child}");
        hold(scene, CONFIG, "child", false).await?;
        let child = probe::config_says(scene, "child", "text", "second").await?;
        let owners: Vec<&Value> =
            child["metadata"]["ownerReferences"].as_array().into_iter().flatten().map(|o| &o["uid"]).collect();
        ensure!(owners == [&second["metadata"]["uid"]], "{child}");
        probe::reconciled(scene, "o").await.map(drop)
    });
}

/// While somebody's finalizer holds an object that was deleted, nothing is made or repaired for it, whatever its spec says.
///
/// Promises: W8
/// Breaks it: making children for an owner that is on its way out.
#[test]
fn nothing_is_written_for_an_owner_that_is_being_deleted() {
    scene("leaving", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let _host = planner::start(scene).await?;
        probe::set(scene, "o", json!({ "plan": [own("child", "a")] })).await?;
        probe::reconciled(scene, "o").await?;
        hold(scene, probe::PROBE, "o", true).await?;
        cluster.delete(probe::PROBE, namespace, "o").await?;
        let mark = scene.world.audit.mark(cluster).await?;
        let spec = json!({ "spec": { "plan": [own("child", "b"), own("late", "b")] } });
        cluster.patch(probe::PROBE, namespace, "o", "", &spec).await?;
        cluster.delete(CONFIG, namespace, "child").await?;
        probe::config_gone(scene, "child").await?;
        // Objects that come later are done when these are.
        for name in ["p", "q"] {
            probe::set(scene, name, json!({ "plan": [own(&format!("of-{name}"), "a")] })).await?;
            probe::reconciled(scene, name).await?;
        }
        let mut written = scene.world.audit.writes(mark, namespace)?;
        written.retain(|request| request.is_by_reef() && matches!(&*request.object_ref.name, "o" | "child" | "late"));
        ensure!(written.is_empty(), "for an owner that goes was written:\n{}", lines(&written));
        hold(scene, probe::PROBE, "o", false).await?;
        cluster.wait(probe::PROBE, namespace, "o", "is gone", |object| object.is_none()).await.map(drop)
    });
}
