//! Events of a plugin about its objects.

use anyhow::{Result, ensure};
use reef_tests::world::{Scene, scene};
use serde_json::{Value, json};

use super::planner;
use crate::probe;

async fn told(scene: &Scene<'_>) -> Result<Vec<Value>> {
    let mut events = scene.cluster().list("events.k8s.io/v1/Event", &scene.namespace).await?;
    events.retain(|event| event["reason"] == "AsTold");
    Ok(events)
}

/// Forty different events in two plans, and then the first twenty once more: of one object a burst is told, each once, by the
/// plugin's account.
///
/// Promises: W11, I1
/// Breaks it: events without end, or the same one by every run.
#[test]
fn events_are_told_once_by_the_plugins_account_and_not_without_end() {
    scene("events", async |scene: &Scene<'_>| {
        let _host = planner::start(scene).await?;
        let events = |from: usize| (from..from + 20).map(|n| format!("number {n}")).collect::<Vec<_>>();
        for from in [0, 20] {
            probe::set(scene, "o", json!({ "events": events(from) })).await?;
            let due = [20, 25][from / 20];
            probe::until(&format!("there are {due} events"), async || told(scene).await.is_ok_and(|all| all.len() == due))
                .await?;
        }
        planner::stays(scene, "o", json!({ "events": events(0) })).await?;
        let all = told(scene).await?;
        ensure!(all.len() == 25 && all.iter().all(|event| event["regarding"]["name"] == "o"), "there are {all:?}");
        ensure!(all.iter().all(|event| event["reportingController"] == "reef.dev/planner"), "told by {all:?}");
        let audit = scene.world.audit.all()?;
        let mut creations = audit.iter().filter(|request| {
            let object = &request.object_ref;
            object.namespace == scene.namespace && object.resource == "events" && object.name.starts_with("o.")
        });
        let account = format!("system:serviceaccount:{}:planner", scene.namespace);
        ensure!(creations.all(|request| request.user.username == account), "an event was written by another account");
        Ok(())
    });
}
