//! Somebody who changes a child back whenever it is repaired.

use anyhow::ensure;
use reef_tests::{
    cluster::condition,
    world::{Scene, scene},
};
use serde_json::{Value, json};

use super::writes_of;
use crate::probe;

/// An editor puts its text back as soon as it is repaired: it is named on the object and on the plugin with the field, other
/// children go on being written, and the child is repaired only now and then; when the editor stops, all is well again.
///
/// Promises: W5, W11
/// Breaks it: repairing as fast as somebody can edit, or a condition that does not say who it is.
#[test]
fn who_keeps_fighting_over_a_child_is_named_and_the_fight_slowed_down() {
    scene("fight", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        probe::install(scene).await?;
        let _host = scene.host().await?;
        probe::ready(scene, "probe").await?;
        probe::set(scene, "o", json!({ "children": ["contested", "other"], "text": "ours" })).await?;
        probe::reconciled(scene, "o").await?;
        let contested = async || {
            let owner = cluster.get(probe::PROBE, namespace, "o").await?;
            anyhow::Ok(condition(owner.as_ref(), "Reconciled").is_some_and(|c| c["reason"] == "Contested"))
        };
        let edit = json!({ "data": { "text": "theirs" } });
        let mut edits = 0;
        while !contested().await? {
            ensure!(edits < 100, "{edits} edits were repaired without a word");
            cluster.patch(probe::CONFIG, namespace, "contested", "", &edit).await?;
            edits += 1;
            let settled = async || {
                let child = cluster.get(probe::CONFIG, namespace, "contested").await;
                let repaired = child.is_ok_and(|child| child.is_some_and(|child| child["data"]["text"] == "ours"));
                repaired || contested().await.unwrap_or(false)
            };
            probe::until("the edit is repaired, or told", settled).await?;
        }
        let owner = probe::says(scene, "o", "False", "Contested").await?;
        let expected = format!(
            "field manager `kubectl-edit` keeps changing `.data.text` of v1/ConfigMap {namespace}/contested, so it is repaired ever \
             more slowly: have them stop, or leave it out of the plan"
        );
        ensure!(probe::sentence(&owner) == expected, "the condition says: {}", probe::sentence(&owner));
        let named =
            |plugin: Option<&Value>| plugin.is_some_and(|p| p["status"]["failing"]["objects"][0]["reason"] == "Contested");
        cluster.wait(probe::PLUGIN, namespace, "probe", "names the object", named).await?;

        // The editor goes on; the rest of the plan is carried out meanwhile.
        cluster.patch(probe::CONFIG, namespace, "contested", "", &edit).await?;
        cluster.delete(probe::CONFIG, namespace, "other").await?;
        probe::config_says(scene, "other", "text", "ours").await?;
        let repairs = writes_of(scene, "contested")?.iter().filter(|write| write.verb == "patch").count();
        // The first repair of what was created turns the entry of its manager first.
        ensure!(repairs <= 7, "{repairs} repairs after {edits} edits");
        let child = cluster.get(probe::CONFIG, namespace, "contested").await?.unwrap_or_default();
        ensure!(child["data"]["text"] == "theirs", "it was repaired at once: {child}");
        // Nobody edits any more: the next repair is the last.
        probe::config_says(scene, "contested", "text", "ours").await?;
        probe::reconciled(scene, "o").await.map(drop)
    });
}
