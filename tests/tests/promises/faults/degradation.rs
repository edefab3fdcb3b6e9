//! An API server that has too much to do, or is ill: plugins slow down, lose nothing, say so, and come back.

use anyhow::{Context, Result, ensure};
use reef_tests::{cluster::condition, host::Host, world::Scene};
use serde_json::Value;

use super::{Stage, behind_proxy, greeted, hello};
use crate::{
    hello::{self as hellos, plugin_says},
    probe,
};

const OBJECTS: usize = 20;

/// Whether the host counts a plugin among those that are slowed down.
async fn slowed(scene: &Scene<'_>, host: &Host, plugin: &str) -> Result<bool> {
    let controller = format!("{}/{plugin}", scene.namespace);
    Ok(host.metrics().await?.sum("reef_plugin_slowed", &[("controller", &controller)]) > 0.0)
}

/// When each ConfigMap was asked for since the last script.
fn attempts(stage: &Stage<'_>) -> Vec<f64> {
    let what = format!("create configmaps in {}", stage.scene.namespace);
    stage.proxy.lines().into_iter().filter(|line| line.what.starts_with(&what)).map(|line| line.at).collect()
}

/// The most attempts within so many seconds.
fn most_within(attempts: &[f64], seconds: f64) -> usize {
    let from = |i: usize| attempts[i..].iter().take_while(|at| **at - attempts[i] < seconds).count();
    (0..attempts.len()).map(from).max().unwrap_or(0)
}

/// One plugin's creates are turned away: with a time to wait, without one, with an error, and by no answer at all. The plugin
/// says so, asks rarely, loses none of its objects, and is itself again afterwards; a neighbour does not notice.
///
/// Promises: O3, S3
/// Breaks it: backing off for each object alone; or a plugin that says it is ready as if nothing were.
#[test]
fn a_plugin_whose_requests_are_turned_away_slows_down_and_says_so_until_they_are_heard() {
    behind_proxy("turned-away", &["--request-timeout=2s"], async |stage: &Stage<'_>| {
        let scene = stage.scene;
        hellos::install(scene).await?;
        probe::install(scene).await?;
        let host = stage.start().await?;
        probe::ready(scene, "hello").await?;
        probe::ready(scene, "probe").await?;
        let cases = [
            ("asked", "answer 429 before retry 1", 0.9),
            ("busy", "answer 429 before", 0.45),
            ("ill", "answer 503 before", 0.45),
            ("silent", "stall before", 0.45),
        ];
        for (case, fault, pause) in cases {
            stage.proxy.script([format!("create configmaps in {}: {fault}", scene.namespace)])?;
            let since = attempts(stage).len();
            let name = |i: usize| format!("{case}-{i}");
            for i in 0..OBJECTS {
                hello(scene, &name(i), case).await?;
            }
            plugin_says(scene, "hello", ("Ready", "True", "Throttled")).await.with_context(|| format!("in the case `{case}`"))?;
            ensure!(slowed(scene, &host, "hello").await?, "`{case}`: no metric says it");
            for round in 0..3 {
                probe::set(scene, "neighbour", serde_json::json!({ "text": format!("{case} {round}") })).await?;
                probe::reconciled(scene, "neighbour").await?;
            }
            ensure!(!slowed(scene, &host, "probe").await?, "`{case}`: the neighbour was slowed down too");
            probe::until("it has been turned away several times", || async { attempts(stage).len() >= since + 6 }).await?;
            let asked = attempts(stage).split_off(since);
            let most = most_within(&asked, pause);
            // Four run at once; when they were turned away there is a pause, after which half as many are let through.
            ensure!(most <= 6, "`{case}`: {most} requests within {pause} s: {asked:?}");
            stage.proxy.script([""; 0])?;
            for i in 0..OBJECTS {
                greeted(scene, &name(i), case).await?;
            }
            plugin_says(scene, "hello", ("Ready", "True", "Ready")).await?;
            probe::until("no metric says it any more", || async {
                slowed(scene, &host, "hello").await.is_ok_and(|slowed| !slowed)
            })
            .await?;
        }
        Ok(())
    });
}

/// Promises: O3
/// Breaks it: an `Authorized` that could not be asked for and hides why.
#[test]
fn rights_that_cannot_be_asked_for_do_not_hide_that_a_plugin_runs() {
    behind_proxy("unasked", &["--recheck-period=1s"], async |stage: &Stage<'_>| {
        let scene = stage.scene;
        hellos::install(scene).await?;
        stage.start().await?;
        probe::ready(scene, "hello").await?;
        stage.proxy.script([
            "create selfsubjectrulesreviews: answer 429 before",
            "create selfsubjectaccessreviews: answer 429 before",
        ])?;
        hello(scene, "a", "one").await?;
        let unasked = |plugin: Option<&Value>| condition(plugin, "Authorized").is_some_and(|c| c["status"] == "Unknown");
        let plugin = scene.cluster().wait(probe::PLUGIN, &scene.namespace, "hello", "could not ask for rights", unasked).await?;
        let ready = condition(Some(&plugin), "Ready").context("no `Ready`")?;
        ensure!(ready["status"] == "True", "{ready}");
        stage.proxy.script([""; 0])?;
        greeted(scene, "a", "one").await?;
        plugin_says(scene, "hello", ("Ready", "True", "Ready")).await.map(drop)
    });
}
