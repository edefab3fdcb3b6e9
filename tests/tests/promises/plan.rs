//! The plan: applied as a whole or not at all, kept as it is, and never at the cost of somebody else's object.

use anyhow::{Result, ensure};
use reef_tests::{
    audit::Request,
    cluster::condition,
    host::{Options, message},
    world::{Scene, scene},
};
use serde_json::{Value, json};

use crate::probe;

mod delete;
mod events;
mod fights;
mod keep;
mod kinds;
mod order;
mod patch;
mod planner;
mod reports;
mod revisions;
mod shared;
mod steady;
pub mod writer;

/// What Reef has written of a ConfigMap since the scene began, refused or not.
fn writes_of(scene: &Scene<'_>, name: &str) -> Result<Vec<Request>> {
    let mut all = scene.world.audit.all()?;
    all.retain(|request| {
        let object = &request.object_ref;
        let it = object.namespace == scene.namespace && object.resource == "configmaps" && object.name == name;
        it && request.is_write() && request.is_by_reef()
    });
    Ok(all)
}

fn lines(requests: &[Request]) -> String {
    requests.iter().map(Request::line).collect::<Vec<_>>().join("\n")
}

/// The second of two children has an impossible name: neither is written, what was there stays as it was, and object and
/// plugin say what is wrong until it is corrected.
///
/// Promises: W1, W11
/// Breaks it: writes before the whole plan was validated, or pruning after a failure.
#[test]
fn nothing_of_an_invalid_plan_is_applied_and_the_failure_names_object_field_and_fix() {
    scene("invalid-plan", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        probe::install(scene).await?;
        let _host = scene.host().await?;
        probe::ready(scene, "probe").await?;
        probe::set(scene, "fresh", json!({ "children": ["good", "Bad_Name"], "text": "one" })).await?;
        let failed = probe::says(scene, "fresh", "False", "InvalidPlan").await?;
        let said = probe::sentence(&failed);
        let expected = "write 2 (v1/ConfigMap `Bad_Name`): metadata.name is `Bad_Name`: use at most 253 of a-z, 0-9, `-` and `.`, \
                        beginning and ending with a letter or digit";
        ensure!(said == expected, "the condition says: {said}");
        let written = writes_of(scene, "good")?;
        ensure!(written.is_empty(), "of an invalid plan was written:\n{}", lines(&written));
        ensure!(cluster.get(probe::CONFIG, namespace, "good").await?.is_none());

        probe::set(scene, "grown", json!({ "children": ["kept"], "text": "one" })).await?;
        probe::reconciled(scene, "grown").await?;
        let kept = cluster.get(probe::CONFIG, namespace, "kept").await?;
        let mark = scene.world.audit.mark(cluster).await?;
        probe::set(scene, "grown", json!({ "children": ["next", "Bad_Name"], "text": "two" })).await?;
        probe::says(scene, "grown", "False", "InvalidPlan").await?;
        ensure!(cluster.get(probe::CONFIG, namespace, "kept").await? == kept, "`kept` was touched");
        let mut written = scene.world.audit.writes(mark, namespace)?;
        written.retain(|request| request.object_ref.resource == "configmaps");
        ensure!(written.is_empty(), "of an invalid plan was written:\n{}", lines(&written));

        let both = |object: Option<&Value>| object.is_some_and(|plugin| plugin["status"]["failing"]["count"] == 2);
        let plugin = cluster.wait(probe::PLUGIN, namespace, "probe", "names two failing objects", both).await?;
        let first = &plugin["status"]["failing"]["objects"][0];
        ensure!(
            *first == json!({ "kind": probe::PROBE, "name": "fresh", "reason": "InvalidPlan", "message": expected }),
            "the plugin says: {first}"
        );

        probe::set(scene, "grown", json!({ "children": ["next"], "text": "two" })).await?;
        probe::set(scene, "fresh", json!({ "children": ["good"], "text": "one" })).await?;
        probe::config_says(scene, "next", "text", "two").await?;
        probe::config_says(scene, "good", "text", "one").await?;
        probe::config_gone(scene, "kept").await?;
        let none = |object: Option<&Value>| object.is_some_and(|plugin| plugin["status"]["failing"].is_null());
        cluster.wait(probe::PLUGIN, namespace, "probe", "has no failing objects any more", none).await.map(drop)
    });
}

/// Promises: W3
/// Breaks it: pruning by a plan that is partial, or none by one that is complete.
#[test]
fn a_child_that_left_a_complete_plan_is_deleted_and_one_that_left_a_partial_plan_is_not() {
    scene("prune", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        probe::install(scene).await?;
        let _host = scene.host().await?;
        probe::ready(scene, "probe").await?;
        probe::set(scene, "neighbour", json!({ "children": ["not-mine"] })).await?;
        probe::set(scene, "o", json!({ "children": ["a", "b"] })).await?;
        probe::reconciled(scene, "neighbour").await?;
        probe::reconciled(scene, "o").await?;
        let a = cluster.get(probe::CONFIG, namespace, "a").await?;

        probe::set(scene, "o", json!({ "children": ["a", "c"], "pending": "the database" })).await?;
        let waiting = probe::says(scene, "o", "Unknown", "Pending").await?;
        ensure!(probe::sentence(&waiting).contains("the database"), "{waiting}");
        ensure!(cluster.get(probe::CONFIG, namespace, "c").await?.is_some(), "a partial plan is applied");
        ensure!(cluster.get(probe::CONFIG, namespace, "b").await?.is_some(), "a partial plan deleted `b`");

        probe::set(scene, "o", json!({ "children": ["a", "c"] })).await?;
        probe::reconciled(scene, "o").await?;
        ensure!(cluster.get(probe::CONFIG, namespace, "b").await?.is_none(), "a complete plan left `b`");
        ensure!(cluster.get(probe::CONFIG, namespace, "a").await? == a, "`a` was in every plan and has changed");
        ensure!(cluster.get(probe::CONFIG, namespace, "not-mine").await?.is_some(), "another object's child was deleted");
        let deleted: Vec<Request> = scene
            .world
            .audit
            .all()?
            .into_iter()
            .filter(|r| r.verb == "delete" && r.is_by_reef() && r.object_ref.namespace == namespace)
            .collect();
        let names: Vec<&str> = deleted.iter().map(|r| &*r.object_ref.name).collect();
        ensure!(names == ["b"], "deleted were {names:?}");
        Ok(())
    });
}

/// Three Deployments whose amounts the API server stores otherwise than they are planned, and three ConfigMaps: a host that
/// is killed and started again, and a standby that takes over from one that is stopped, each reconcile all of them and write
/// nothing.
///
/// Promises: W2
/// Breaks it: comparing values that the API server normalizes, a status that carries the time, or a hash that a restart changes.
#[test]
fn a_steady_state_is_not_written_again_after_a_restart_nor_after_a_handover() {
    scene("steady", async |scene: &Scene<'_>| {
        const OBJECTS: u64 = 6;
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        probe::install(scene).await?;
        let lease = ["--lease-duration=3s", "--lease-renew-deadline=2s", "--lease-retry-period=500ms"];
        let options = Options { flags: lease.map(str::to_owned).to_vec(), ..scene.options() };
        let host = scene.host_with(&options).await?;
        probe::ready(scene, "probe").await?;
        for i in 0..3 {
            probe::set(scene, &format!("big-{i}"), json!({ "mode": "quantity" })).await?;
            probe::set(scene, &format!("small-{i}"), json!({ "children": [format!("small-{i}")], "text": "steady" })).await?;
        }
        for i in 0..3 {
            probe::reconciled(scene, &format!("big-{i}")).await?;
            probe::reconciled(scene, &format!("small-{i}")).await?;
        }
        let big = cluster.get("apps/v1/Deployment", namespace, "big-0").await?.unwrap_or_default();
        let amounts = &big["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"];
        ensure!(*amounts == json!({ "cpu": "1", "memory": "1Gi" }), "the API server stores what was planned as {amounts}");

        host.kill()?;
        let mark = scene.world.audit.mark(cluster).await?;
        let second = scene.host_with(&options).await?;
        probe::reconciles_reach(scene, &second, "probe", Some("success"), OBJECTS).await?;
        let standby = scene.host_with(&options).await?;
        second.terminate().await?;
        probe::reconciles_reach(scene, &standby, "probe", Some("success"), OBJECTS).await?;
        let _ = scene.world.audit.mark(cluster).await?;
        let written = scene.world.audit.writes(mark, namespace)?;
        ensure!(written.is_empty(), "in a steady state was written:\n{}", lines(&written));

        probe::set(scene, "small-0", json!({ "children": ["small-0"], "text": "moved" })).await?;
        probe::config_says(scene, "small-0", "text", "moved").await.map(drop)
    });
}

/// Promises: W4
/// Breaks it: adopting by name, or pruning by the mark alone or by the owner reference alone.
#[test]
fn a_foreign_object_is_neither_overwritten_nor_pruned_and_is_adopted_only_when_asked() {
    scene("foreign", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        probe::install(scene).await?;
        let _host = scene.host().await?;
        probe::ready(scene, "probe").await?;
        let theirs = |name| probe::config(name, json!({ "text": "theirs", "more": "theirs" }));
        let first = cluster.create(namespace, &theirs("one")).await?;
        cluster.create(namespace, &theirs("two")).await?;
        let mut marked = theirs("marked");
        marked["metadata"]["labels"] = json!({ "reef.dev/plugin": "probe" });
        let marked = cluster.create(namespace, &marked).await?;

        let owner = probe::set(scene, "o", json!({ "children": ["own", "one"], "text": "ours" })).await?;
        let failed = probe::says(scene, "o", "False", "Conflict").await?;
        let expected = format!(
            "v1/ConfigMap {namespace}/one exists already and is not a child of this object: name the child differently, delete \
             that object, or let the plugin take it over with `kubectl annotate configmap one -n {namespace} reef.dev/adopt=probe`"
        );
        ensure!(probe::sentence(&failed) == expected, "the condition says: {}", probe::sentence(&failed));
        let mut claimed = theirs("claimed");
        let reference =
            json!({ "apiVersion": "test.reef.dev/v1", "kind": "Probe", "name": "o", "uid": owner["metadata"]["uid"] });
        claimed["metadata"]["ownerReferences"] = json!([reference]);
        let claimed = cluster.create(namespace, &claimed).await?;

        // It leaves the plan again, and a complete plan prunes: but not what is not ours.
        probe::set(scene, "o", json!({ "children": ["own"], "text": "ours" })).await?;
        probe::reconciled(scene, "o").await?;
        for (name, before) in [("one", &first), ("marked", &marked), ("claimed", &claimed)] {
            let now = cluster.get(probe::CONFIG, namespace, name).await?;
            ensure!(now.as_ref() == Some(before), "`{name}` was touched; there is {now:?}");
        }
        for (name, times) in [("one", 0), ("marked", 0), ("claimed", 0), ("own", 1)] {
            let tried = writes_of(scene, name)?;
            ensure!(tried.len() == times, "of `{name}` {times} writes were due, there are:\n{}", lines(&tried));
        }

        probe::set(scene, "o", json!({ "children": ["own", "one", "two"], "text": "ours" })).await?;
        probe::says(scene, "o", "False", "Conflict").await?;
        cluster.delete(probe::CONFIG, namespace, "one").await?;
        let again = probe::config_says(scene, "one", "text", "ours").await?;
        ensure!(again["metadata"]["uid"] != first["metadata"]["uid"]);
        probe::says(scene, "o", "False", "Conflict").await?;
        let adopt = json!({ "metadata": { "annotations": { "reef.dev/adopt": "probe" } } });
        cluster.patch(probe::CONFIG, namespace, "two", "", &adopt).await?;
        let adopted = probe::config_says(scene, "two", "text", "ours").await?;
        ensure!(adopted["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"], "{adopted}");
        ensure!(adopted["data"]["more"] == "theirs", "{adopted}");
        probe::reconciled(scene, "o").await.map(drop)
    });
}

/// A child as the host created it, and one that it has changed since, which the API server keeps book of differently: each
/// is edited, loses its mark, and is deleted by hand; each comes back as planned. What somebody adds stays.
///
/// Promises: W5
/// Breaks it: taking the hash in the annotation for proof that the object is as it was applied.
#[test]
fn drift_of_an_own_child_is_repaired() {
    scene("drift", async |scene: &Scene<'_>| {
        probe::install(scene).await?;
        let host = scene.host().await?;
        probe::ready(scene, "probe").await?;
        for name in ["edited", "added", "unmarked", "deleted"] {
            probe::set(scene, name, json!({ "children": [name], "text": "as created" })).await?;
            probe::reconciled(scene, name).await?;
        }
        drifts(scene, "as created").await?;
        for name in ["edited", "added", "unmarked", "deleted"] {
            probe::set(scene, name, json!({ "children": [name], "text": "as changed" })).await?;
            probe::config_says(scene, name, "text", "as changed").await?;
            probe::reconciled(scene, name).await?;
        }
        drifts(scene, "as changed").await?;
        let failed = probe::reconciles(scene, &host, "probe", Some("error")).await?;
        ensure!(failed == 0, "{failed} reconciles failed");
        Ok(())
    });
}

async fn drifts(scene: &Scene<'_>, planned: &str) -> Result<()> {
    let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
    let patch = async |name: &str, patch: Value| cluster.patch(probe::CONFIG, namespace, name, "", &patch).await;
    let edited = patch("edited", json!({ "data": { "text": "by hand" } })).await?;
    ensure!(edited["data"]["text"] == "by hand", "{edited}");
    let repaired = probe::config_says(scene, "edited", "text", planned).await?;
    ensure!(repaired["metadata"]["uid"] == edited["metadata"]["uid"], "it was deleted and made again");

    patch("added", json!({ "data": { "theirs": "by hand", "text": "by hand" } })).await?;
    let repaired = probe::config_says(scene, "added", "text", planned).await?;
    ensure!(repaired["data"]["theirs"] == "by hand", "what somebody added is gone: {repaired}");

    patch("unmarked", json!({ "metadata": { "labels": { "reef.dev/plugin": null } } })).await?;
    let marked = |object: Option<&Value>| object.is_some_and(|o| o["metadata"]["labels"]["reef.dev/plugin"] == "probe");
    cluster.wait(probe::CONFIG, namespace, "unmarked", "is marked again", marked).await?;

    let before = cluster.get(probe::CONFIG, namespace, "deleted").await?.unwrap_or_default();
    cluster.delete(probe::CONFIG, namespace, "deleted").await?;
    let another = |object: Option<&Value>| object.is_some_and(|o| o["metadata"]["uid"] != before["metadata"]["uid"]);
    let back = cluster.wait(probe::CONFIG, namespace, "deleted", "is back", another).await?;
    ensure!(back["data"] == json!({ "text": planned }), "{back}");
    ensure!(condition(cluster.get(probe::PROBE, namespace, "deleted").await?.as_ref(), "Reconciled").is_some());
    Ok(())
}

/// While the plugin thinks about two objects, both are deleted, and one is made anew under the same name: the plans for the
/// former ones are dropped, and the present one gets its own.
///
/// Promises: W8
/// Breaks it: looking at the owner's name and not at its uid.
#[test]
fn a_plan_for_a_vanished_or_recreated_owner_is_dropped() {
    scene("recreated", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        probe::install(scene).await?;
        let host = scene.host().await?;
        probe::ready(scene, "probe").await?;
        let said = |word: &str| host.log().iter().filter(|line| message(line) == word).count();
        for name in ["vanished", "recreated"] {
            let spec = json!({ "mode": "slow", "size": 4000, "children": [format!("of-the-{name}")] });
            probe::set(scene, name, spec).await?;
        }
        host.wait_for_log("begins with both", |_| said("begins") == 2).await?;
        cluster.delete(probe::PROBE, namespace, "vanished").await?;
        cluster.delete(probe::PROBE, namespace, "recreated").await?;
        let present = probe::set(scene, "recreated", json!({ "children": ["of-the-present"] })).await?;
        ensure!(said("ends") == 0, "a run ended before its object was deleted");
        probe::reconciled(scene, "recreated").await?;
        probe::reconciles_reach(scene, &host, "probe", None, 3).await?;
        ensure!(said("ends") == 2, "the runs of the former objects have not ended yet");
        for (name, times) in [("of-the-vanished", 0), ("of-the-recreated", 0), ("of-the-present", 1)] {
            let written = writes_of(scene, name)?;
            ensure!(written.len() == times, "of `{name}` {times} writes were due, there are:\n{}", lines(&written));
            ensure!(cluster.get(probe::CONFIG, namespace, name).await?.is_some() == (times > 0));
        }
        let child = cluster.get(probe::CONFIG, namespace, "of-the-present").await?.unwrap_or_default();
        ensure!(child["metadata"]["ownerReferences"][0]["uid"] == present["metadata"]["uid"], "{child}");
        Ok(())
    });
}
