//! What people get to see of a plan, and of a failure.

use anyhow::ensure;
use reef_tests::{
    cluster::condition,
    world::{Scene, scene},
};
use serde_json::{Value, json};

use crate::probe::{self, CONFIG};

fn ready(probe: &Value) -> Option<(&Value, &Value)> {
    condition(Some(probe), "Ready").map(|ready| (&ready["status"], &ready["reason"]))
}

/// A failure brings a condition or a status along: what it does not speak of stays as it was, its children too, and a plan that
/// follows goes on from there. Beside both stands why it failed, in the host's condition, of the generation that failed.
///
/// Promises: W3, W11
/// Breaks it: a failure that prunes, that wipes what it does not speak of, or whose report is lost.
#[test]
fn a_failure_carries_status_and_conditions_and_leaves_everything_else() {
    scene("reports", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        probe::install(scene).await?;
        let _host = scene.host().await?;
        probe::ready(scene, "probe").await?;
        probe::set(scene, "o", json!({ "mode": "ready", "text": "one", "children": ["child"] })).await?;
        let first = probe::reconciled(scene, "o").await?;
        ensure!(ready(&first) == Some((&json!("True"), &json!("AsAsked"))), "{first}");
        let child = cluster.get(CONFIG, namespace, "child").await?;

        probe::set(scene, "o", json!({ "mode": "terminal", "text": "the disk is full" })).await?;
        let ended = probe::says(scene, "o", "False", "AskedToEnd").await?;
        ensure!(probe::sentence(&ended) == "the disk is full" && ended["status"]["text"] == "the disk is full", "{ended}");
        ensure!(ready(&ended) == ready(&first), "a condition that was not spoken of has changed: {ended}");
        probe::set(scene, "o", json!({ "mode": "wait", "text": "the tide is out" })).await?;
        let waits = probe::says(scene, "o", "Unknown", "AskedToWait").await?;
        ensure!(ready(&waits) == Some((&json!("False"), &json!("NotYet"))), "{waits}");
        ensure!(waits["status"]["text"] == "the disk is full", "a status that was not spoken of has changed: {waits}");
        ensure!(cluster.get(CONFIG, namespace, "child").await? == child, "a failure has touched the child");

        probe::set(scene, "o", json!({ "text": "two", "children": ["child"] })).await?;
        probe::config_says(scene, "child", "text", "two").await?;
        let last = probe::reconciled(scene, "o").await?;
        ensure!(last["status"]["text"] == "two" && ready(&last) == ready(&waits), "{last}");
        Ok(())
    });
}
