//! The queue: what runs, how often, and what waits.

use anyhow::{Result, ensure};
use reef_tests::{
    host::{Host, field, message},
    world::{Scene, scene},
};
use serde_json::{Value, json};

use crate::probe;

/// `begins` and `ends` of the object's runs, in the order of the log.
fn runs(host: &Host, object: &str) -> Vec<String> {
    let of = |line: &Value| field(line, "object").is_some_and(|named| named.ends_with(&format!("/{object}")));
    let lines = host.log().into_iter().filter(of);
    lines.map(|line| message(&line).to_owned()).filter(|said| said == "begins" || said == "ends").collect()
}

async fn ended(host: &Host, object: &str) -> Result<()> {
    let done = || async { runs(host, object).iter().any(|said| said == "ends") };
    probe::until(&format!("a run of {object} has ended"), done).await
}

/// A run of five seconds is edited 50 times, while another object of the plugin runs beside it: so there is room for a
/// second run of the key, and none is made before the first has ended; and then it is one, which sees the last edit.
///
/// Promises: Q1, Q2
/// Breaks it: a queue that hands out a key that is out already, or keeps an entry per event.
#[test]
fn a_key_never_runs_twice_at_once_and_what_happens_meanwhile_costs_one_more_run() {
    scene("one-at-a-time", async |scene: &Scene<'_>| {
        probe::install(scene).await?;
        let host = scene.host().await?;
        probe::ready(scene, "probe").await?;
        let spec = |text: &str| json!({ "mode": "slow", "size": 5000, "text": text, "children": ["last-word"] });
        probe::set(scene, "edited", spec("edit 0")).await?;
        probe::set(scene, "beside", json!({ "mode": "slow", "size": 5000 })).await?;
        host.wait_for_log("begins with `edited`", |_| runs(&host, "edited") == ["begins"]).await?;
        host.wait_for_log("begins with `beside`", |_| runs(&host, "beside") == ["begins"]).await?;
        for edit in 1..=50 {
            let text = format!("edit {edit}");
            let patch = json!({ "spec": { "text": text } });
            scene.cluster().patch(probe::PROBE, &scene.namespace, "edited", "", &patch).await?;
        }
        ensure!(runs(&host, "edited") == ["begins"], "50 edits took longer than the run that they were to fall into");
        ensure!(runs(&host, "beside") == ["begins"], "the plugin's other object has not run beside it");
        probe::reconciled(scene, "edited").await?;
        let seen = probe::config_says(scene, "last-word", "text", "edit 50").await?;
        ensure!(seen["metadata"]["labels"]["reef.dev/plugin"] == "probe", "{seen}");
        // A third run that waits would come before that of an object that is new.
        probe::set(scene, "after", json!({ "mode": "slow" })).await?;
        ended(&host, "after").await?;
        let found = runs(&host, "edited");
        ensure!(found == ["begins", "ends", "begins", "ends"], "runs of `edited`: {found:?}");
        probe::reconciles_reach(scene, &host, "probe", None, 4).await?;
        let all = probe::reconciles(scene, &host, "probe", None).await?;
        ensure!(all == 4, "{all} reconciles: 2 of `edited`, 1 of `beside`, 1 of `after` are due");
        Ok(())
    });
}

/// Beside it, an object that fails for now is tried again and again, and 20 others are reconciled on each of three
/// edits; the one that failed for good has run once, and does so once more after its own edit.
///
/// Promises: Q7
/// Breaks it: a terminal failure that is backed off like any other, or woken by its own status.
#[test]
fn a_terminal_failure_waits_for_a_change() {
    scene("terminal", async |scene: &Scene<'_>| {
        probe::install(scene).await?;
        let host = scene.host().await?;
        probe::ready(scene, "probe").await?;
        probe::set(scene, "for-good", json!({ "mode": "terminal", "text": "there is no such colour" })).await?;
        let failed = probe::says(scene, "for-good", "False", "AskedToEnd").await?;
        ensure!(probe::sentence(&failed) == "there is no such colour", "{failed}");
        probe::set(scene, "for-now", json!({ "mode": "retry", "text": "not yet" })).await?;
        for round in 0..3 {
            for other in 0..20 {
                probe::set(scene, &format!("other-{other}"), json!({ "text": format!("round {round}") })).await?;
            }
            for other in 0..20 {
                probe::reconciled(scene, &format!("other-{other}")).await?;
            }
        }
        probe::reconciles_reach(scene, &host, "probe", Some("error"), 4).await?;
        probe::reconciles_reach(scene, &host, "probe", Some("success"), 60).await?;
        let terminal = probe::reconciles(scene, &host, "probe", Some("terminal_error")).await?;
        ensure!(terminal == 1, "an object that failed for good has run {terminal} times without a change");
        probe::set(scene, "for-good", json!({ "mode": "terminal", "text": "nor this one" })).await?;
        let failed = probe::says(scene, "for-good", "False", "AskedToEnd").await?;
        ensure!(probe::sentence(&failed) == "nor this one", "{failed}");
        probe::reconciles_reach(scene, &host, "probe", Some("terminal_error"), 2).await?;
        let terminal = probe::reconciles(scene, &host, "probe", Some("terminal_error")).await?;
        ensure!(terminal == 2, "one edit cost {} runs", terminal - 1);
        probe::set(scene, "for-good", json!({ "text": "green" })).await?;
        probe::reconciled(scene, "for-good").await.map(drop)
    });
}
