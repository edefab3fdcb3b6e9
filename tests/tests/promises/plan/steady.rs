//! What a plan says is so: not written twice when it is, and taken away when it is not said any more.

use anyhow::ensure;
use reef_tests::{
    webhook::Webhook,
    world::{Scene, scene},
};
use serde_json::{Value, json};

use super::{lines, writer};
use crate::probe;

/// Adds a label, and replaces what the plan says under `text`.
fn meddle(object: &Value) -> Value {
    let mut patch = vec![];
    if object["metadata"]["labels"].is_null() {
        patch.push(json!({ "op": "add", "path": "/metadata/labels", "value": {} }));
    }
    patch.push(json!({ "op": "add", "path": "/metadata/labels/meddled", "value": "true" }));
    if !object["data"]["text"].is_null() {
        patch.push(json!({ "op": "replace", "path": "/data/text", "value": "bWVkZGxlZA==" }));
    }
    patch.into()
}

/// Secrets planned with `stringData`, a ConfigMap, a shared LimitRange whose amounts are stored otherwise; and in the way of
/// all of them a webhook that adds a field and replaces a value. Some are changed once, one is not; after a restart every object
/// is reconciled, and nothing is written, and yet drift is seen.
///
/// Promises: W2
/// Breaks it: applying `stringData`, comparing values, or taking what a webhook adds for drift.
#[test]
fn a_webhook_that_changes_what_is_written_and_string_data_do_not_disturb_the_steady_state() {
    scene("webhook", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        writer::install(scene).await?;
        let host = scene.host().await?;
        probe::ready(scene, "writer").await?;
        let webhook = Webhook::start(scene, &["configmaps", "secrets", "limitranges"], meddle).await?;
        let meddled = |object: Option<&Value>| object.is_some_and(|o| o["metadata"]["labels"]["meddled"] == "true");
        // A new webhook is called a moment after it is registered.
        let probed = async || {
            let tried = cluster.apply_object(namespace, &probe::config("tried", json!({}))).await;
            tried.is_ok_and(|object| meddled(Some(&object)))
        };
        probe::until("the API server calls the webhook", probed).await?;
        for round in ["first", "second"] {
            for mode in ["secret", "own", "range", "apply"] {
                let spec = json!({ "mode": mode, "target": format!("of-{mode}"), "fields": { "text": round, "round": round } });
                probe::set(scene, mode, spec).await?;
                probe::reconciled(scene, mode).await?;
            }
        }
        // One that is as it was created, of which the API server keeps book differently.
        probe::set(
            scene,
            "created",
            json!({ "mode": "secret", "target": "of-created", "fields": { "text": "first", "round": "first" } }),
        )
        .await?;
        probe::reconciled(scene, "created").await?;
        let secret = cluster.get("v1/Secret", namespace, "of-secret").await?.unwrap_or_default();
        ensure!(meddled(Some(&secret)) && secret["data"]["text"] == "bWVkZGxlZA==", "the webhook was not in the way: {secret}");
        ensure!(secret["data"]["round"] == "c2Vjb25k", "{secret}");

        scene.kill(&host).await?;
        let mark = scene.world.audit.mark(cluster).await?;
        let second = scene.host().await?;
        probe::reconciles_reach(scene, &second, "writer", Some("success"), 5).await?;
        let _ = scene.world.audit.mark(cluster).await?;
        let written = scene.world.audit.writes(mark, namespace)?;
        webhook.remove(scene).await?;
        ensure!(written.is_empty(), "in a steady state was written:\n{}", lines(&written));

        // Steady is not blind: what `stringData` has become is still looked after.
        for (name, planned) in [("of-secret", "c2Vjb25k"), ("of-created", "Zmlyc3Q=")] {
            cluster.patch("v1/Secret", namespace, name, "", &json!({ "data": { "round": "eA==" } })).await?;
            let repaired = |object: Option<&Value>| object.is_some_and(|o| o["data"]["round"] == planned);
            cluster.wait("v1/Secret", namespace, name, "is repaired", repaired).await?;
        }
        Ok(())
    });
}

/// A child as it was created, one that was changed since, and a shared object: each loses a field from its plan while no host
/// runs, and has lost it after the next start. What somebody else added stays.
///
/// Promises: W6
/// Breaks it: leaving the entry of the create in `managedFields`, where it keeps dropped fields alive.
#[test]
fn a_field_that_was_dropped_while_the_host_was_down_is_gone_afterwards() {
    scene("dropped", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        writer::install(scene).await?;
        let host = scene.host().await?;
        probe::ready(scene, "writer").await?;
        let set = async |owner: &str, fields: Value| {
            let mode = if owner == "shared" { "apply" } else { "own" };
            probe::set(scene, owner, json!({ "mode": mode, "target": format!("of-{owner}"), "fields": fields })).await
        };
        for owner in ["created", "changed", "shared"] {
            set(owner, json!({ "a": "1", "b": "1" })).await?;
            probe::reconciled(scene, owner).await?;
        }
        set("changed", json!({ "a": "2", "b": "2" })).await?;
        probe::reconciled(scene, "changed").await?;
        scene.kill(&host).await?;
        for owner in ["created", "changed", "shared"] {
            let theirs = json!({ "data": { "theirs": "1" } });
            cluster.patch(probe::CONFIG, namespace, &format!("of-{owner}"), "", &theirs).await?;
            set(owner, json!({ "a": "3" })).await?;
        }
        let _second = scene.host().await?;
        for owner in ["created", "changed", "shared"] {
            probe::reconciled(scene, owner).await?;
            let child = cluster.get(probe::CONFIG, namespace, &format!("of-{owner}")).await?.unwrap_or_default();
            ensure!(child["data"] == json!({ "a": "3", "theirs": "1" }), "of `{owner}` there is {}", child["data"]);
        }
        Ok(())
    });
}
