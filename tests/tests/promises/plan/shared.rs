//! What a plugin writes beside others: shared objects, and objects that are only to exist.

use anyhow::{Result, ensure};
use reef_tests::world::{Scene, scene};
use serde_json::{Value, json};

use super::{lines, writer, writes_of};
use crate::probe;

async fn data(scene: &Scene<'_>, name: &str) -> Result<Value> {
    Ok(scene.cluster().get(probe::CONFIG, &scene.namespace, name).await?.map(|object| object["data"].clone()).unwrap_or_default())
}

/// Somebody else's field with another value is named with its manager, and nothing is written; fields that nobody has are
/// applied beside theirs, also by another owner; only `force` takes over; and what was applied stays when its owner goes.
///
/// Promises: W5
/// Breaks it: applying to a shared object by force without being asked to.
#[test]
fn a_field_of_another_manager_on_a_shared_object_is_a_conflict_that_names_field_and_manager() {
    scene("shared", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        writer::install(scene).await?;
        let _host = scene.host().await?;
        probe::ready(scene, "writer").await?;
        let theirs = probe::config("shared", json!({ "text": "theirs" }));
        let before = cluster.apply_object(namespace, &theirs).await?;

        let apply = |fields: Value| json!({ "mode": "apply", "target": "shared", "fields": fields });
        probe::set(scene, "o", apply(json!({ "text": "ours", "more": "ours" }))).await?;
        let failed = probe::says(scene, "o", "False", "Conflict").await?;
        let expected = format!(
            "of v1/ConfigMap {namespace}/shared, which is shared, `.data.text` belongs to field manager `kubectl`: leave that to \
             them, have them give it up, or say `.force()` to take it over"
        );
        ensure!(probe::sentence(&failed) == expected, "the condition says: {}", probe::sentence(&failed));
        ensure!(cluster.get(probe::CONFIG, namespace, "shared").await?.as_ref() == Some(&before), "it was touched");

        probe::set(scene, "o", apply(json!({ "more": "ours" }))).await?;
        probe::reconciled(scene, "o").await?;
        probe::set(scene, "p", apply(json!({ "third": "of p" }))).await?;
        probe::reconciled(scene, "p").await?;
        let all = json!({ "text": "theirs", "more": "ours", "third": "of p" });
        ensure!(data(scene, "shared").await? == all, "there is {}", data(scene, "shared").await?);
        // Somebody takes the field away: it is told, and repaired once they let go of it.
        cluster.patch(probe::CONFIG, namespace, "shared", "", &json!({ "data": { "more": "by hand" } })).await?;
        let failed = probe::says(scene, "o", "False", "Conflict").await?;
        ensure!(probe::sentence(&failed).contains("`kubectl-edit`"), "the condition says: {}", probe::sentence(&failed));
        cluster.patch(probe::CONFIG, namespace, "shared", "", &json!({ "data": { "more": null } })).await?;
        probe::config_says(scene, "shared", "more", "ours").await?;
        probe::reconciled(scene, "o").await?;

        probe::set(scene, "o", json!({ "mode": "force", "target": "shared", "fields": { "text": "taken" } })).await?;
        probe::reconciled(scene, "o").await?;
        let all = json!({ "text": "taken", "third": "of p" });
        ensure!(data(scene, "shared").await? == all, "there is {}", data(scene, "shared").await?);
        let now = cluster.get(probe::CONFIG, namespace, "shared").await?.unwrap_or_default();
        ensure!(now["metadata"]["ownerReferences"].is_null(), "a shared object has no owner: {now}");
        cluster.delete(probe::PROBE, namespace, "o").await?;
        probe::set(scene, "p", json!({ "mode": "none" })).await?;
        probe::reconciled(scene, "p").await?;
        ensure!(data(scene, "shared").await? == all, "what was applied stays; there is {}", data(scene, "shared").await?);
        let deleted = writes_of(scene, "shared")?.into_iter().filter(|write| write.verb == "delete").count();
        ensure!(deleted == 0, "a shared object was deleted {deleted} times");
        Ok(())
    });
}

/// Promises: S7, W1
/// Breaks it: writing kinds that the manifest does not name.
#[test]
fn a_kind_that_the_manifest_does_not_write_is_refused_with_the_line_to_add() {
    scene("unlisted-write", async |scene: &Scene<'_>| {
        writer::install(scene).await?;
        let _host = scene.host().await?;
        probe::ready(scene, "writer").await?;
        probe::set(scene, "o", json!({ "mode": "unlisted-apply", "target": "service" })).await?;
        let failed = probe::says(scene, "o", "False", "InvalidPlan").await?;
        let expected = "write 1 (v1/Service `service`): its manifest does not write v1/Service: add `writes: [\"v1/Service\"]` to \
                        its `plugin!` line";
        ensure!(probe::sentence(&failed) == expected, "the condition says: {}", probe::sentence(&failed));
        Ok(())
    });
}

/// What is only to exist is created once: what is there already, and what somebody changes, stays as it is; what is deleted
/// comes back. When the plan no longer has it, it goes, unless it is kept.
///
/// Promises: W4
/// Breaks it: applying what was only to be created, or pruning what is to be kept.
#[test]
fn what_is_only_to_exist_is_created_and_never_changed() {
    scene("create", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        writer::install(scene).await?;
        let _host = scene.host().await?;
        probe::ready(scene, "writer").await?;
        let theirs = cluster.create(namespace, &probe::config("theirs", json!({ "text": "theirs" }))).await?;
        let create = |mode: &str, target: &str| json!({ "mode": mode, "target": target, "fields": { "text": "made" } });
        for (owner, mode, target) in
            [("a", "create", "theirs"), ("b", "create-keep", "theirs"), ("o", "create", "owned"), ("k", "create-keep", "kept")]
        {
            probe::set(scene, owner, create(mode, target)).await?;
            probe::reconciled(scene, owner).await?;
        }
        ensure!(cluster.get(probe::CONFIG, namespace, "theirs").await?.as_ref() == Some(&theirs), "a foreign object was touched");
        for name in ["owned", "kept"] {
            ensure!(data(scene, name).await? == json!({ "text": "made" }), "`{name}` has {}", data(scene, name).await?);
            cluster.patch(probe::CONFIG, namespace, name, "", &json!({ "data": { "text": "by hand" } })).await?;
        }
        for (owner, mode, target) in [("o", "create", "owned"), ("k", "create-keep", "kept")] {
            probe::set(scene, owner, json!({ "mode": mode, "target": target, "fields": { "text": "another" } })).await?;
            probe::reconciled(scene, owner).await?;
            ensure!(data(scene, target).await? == json!({ "text": "by hand" }), "`{target}` was changed");
            cluster.delete(probe::CONFIG, namespace, target).await?;
            probe::config_says(scene, target, "text", "another").await?;
            probe::set(scene, owner, json!({ "mode": "none" })).await?;
            probe::reconciled(scene, owner).await?;
        }
        probe::config_gone(scene, "owned").await?;
        ensure!(data(scene, "kept").await? == json!({ "text": "another" }), "what is to be kept was deleted or changed");
        let tried = writes_of(scene, "kept")?;
        ensure!(tried.len() == 2, "of `kept` two creates were due, there are:\n{}", lines(&tried));
        Ok(())
    });
}
