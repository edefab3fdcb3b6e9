//! How often, and how soon: what can be seen of the queue from the API server's side. Only lower bounds are times; what is
//! above them is order and count.

use anyhow::{Context, ensure};
use serde_json::json;

use super::{Stage, behind_proxy, greeted, hello};
use crate::{hello as hellos, probe};

/// When each attempt to create a ConfigMap was made.
fn attempts(stage: &Stage<'_>, what: &str) -> Vec<f64> {
    stage.proxy.lines().into_iter().filter(|line| line.what.starts_with(what)).map(|line| line.at).collect()
}

fn gaps(times: &[f64]) -> Vec<f64> {
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// Five refusals, then success; then the child goes, and the next create is refused once: its repetition comes sooner than
/// after a sixth refusal.
///
/// Promises: Q5
/// Breaks it: a backoff that does not double, or that a success does not reset.
#[test]
fn refused_writes_are_repeated_ever_later_and_a_success_starts_afresh() {
    behind_proxy("backoff", &[], async |stage: &Stage<'_>| {
        let scene = stage.scene;
        hellos::install(scene).await?;
        stage.start().await?;
        let what = format!("create configmaps in {} named a", scene.namespace);
        stage.proxy.script((1..=5).map(|n| format!("create configmaps named a #{n}: answer 503 before")))?;
        hello(scene, "a", "one").await?;
        greeted(scene, "a", "one").await?;
        let times = attempts(stage, &what);
        ensure!(times.len() == 6, "{} attempts: {times:?}", times.len());
        for (n, gap) in gaps(&times).into_iter().enumerate() {
            // A fifth less than the base of 200 ms, and twice as much each time.
            let least = 0.16 * f64::from(1 << n);
            ensure!(gap >= least, "attempt {} came {gap:.3} s after the one before, and not {least:.2} s", n + 2);
        }
        stage.proxy.script(["create configmaps named a #1: answer 503 before"])?;
        scene.cluster().delete(probe::CONFIG, &scene.namespace, "a").await?;
        greeted(scene, "a", "one").await?;
        let again = attempts(stage, &what);
        let [.., failed, repeated] = again[..] else { anyhow::bail!("{again:?}") };
        ensure!(again.len() == 8, "{} attempts: {again:?}", again.len());
        ensure!(repeated - failed < 0.16 * 32.0, "after a success the next retry took {:.3} s", repeated - failed);
        Ok(())
    });
}

/// Twenty edits arrive while a run is out and fails: they cost one more run, and count as no failure.
///
/// Promises: Q5
/// Breaks it: counting events as failures.
#[test]
fn events_in_between_do_not_inflate_the_backoff() {
    behind_proxy("backoff-events", &["--request-timeout=5s"], async |stage: &Stage<'_>| {
        let scene = stage.scene;
        hellos::install(scene).await?;
        stage.start().await?;
        let what = format!("create configmaps in {} named a", scene.namespace);
        stage.proxy.script(["create configmaps named a #1: stall before", "create configmaps named a #2: answer 503 before"])?;
        hello(scene, "a", "edit 0").await?;
        probe::until("the first create hangs", || async { stage.proxy.count("stall before") == 1 }).await?;
        for edit in 1..=20 {
            hello(scene, "a", &format!("edit {edit}")).await?;
        }
        greeted(scene, "a", "edit 20").await?;
        let times = attempts(stage, &what);
        ensure!(times.len() == 3, "{} attempts: {times:?}", times.len());
        // Twenty failures would be the cap of two minutes, a fifth less.
        ensure!(times[2] - times[1] < 96.0, "{times:?}");
        Ok(())
    });
}

/// Promises: Q6
/// Breaks it: a timer that survives the event that came before it.
#[test]
fn an_event_beats_a_timer_and_the_timer_does_not_fire_a_second_time() {
    behind_proxy("timer", &[], async |stage: &Stage<'_>| {
        const AFTER: f64 = 4.0;
        let scene = stage.scene;
        probe::install(scene).await?;
        stage.start().await?;
        probe::ready(scene, "probe").await?;
        let what = format!("patch probes/status in {} named a", scene.namespace);
        // Each run says when it was, so that each run writes.
        let spec = |text: &str| json!({ "mode": "after", "size": (AFTER * 1000.0) as u64, "text": text });
        probe::set(scene, "a", spec("one")).await?;
        probe::until("it has run", || async { attempts(stage, &what).len() == 1 }).await?;
        probe::set(scene, "a", spec("two")).await?;
        probe::until("it has run four times", || async { attempts(stage, &what).len() >= 4 }).await?;
        let times = attempts(stage, &what);
        let gaps = gaps(times.get(..4).context("four runs")?);
        ensure!(gaps[0] < AFTER, "the edit waited for the timer: {gaps:?}");
        // The API server rounds nothing here; a run's own time is between the two.
        ensure!(gaps[1] > 0.9 * AFTER && gaps[2] > 0.9 * AFTER, "a timer fired that an event had replaced: {gaps:?}");
        Ok(())
    });
}
