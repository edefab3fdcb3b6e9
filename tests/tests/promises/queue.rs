//! The queue: what runs, how often, and what waits.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::jiff::Timestamp;
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

/// A run of 25 seconds is edited 1,000 times, while another object of the plugin runs beside it: so there is room for a
/// second run of the key, and none is made before the first has ended; and then it is one, which sees the last edit.
///
/// Promises: Q1, Q2
/// Breaks it: a queue that hands out a key that is out already, or keeps an entry per event.
#[test]
fn a_key_never_runs_twice_at_once_and_what_happens_meanwhile_costs_one_more_run() {
    scene("one-at-a-time", async |scene: &Scene<'_>| {
        probe::install(scene).await?;
        let patient = json!({ "spec": { "limits": { "deadline": "60s" } } });
        scene.cluster().patch(probe::PLUGIN, &scene.namespace, "probe", "", &patient).await?;
        let host = scene.host().await?;
        probe::ready(scene, "probe").await?;
        let spec = |text: &str| json!({ "mode": "slow", "size": 25_000, "text": text, "children": ["last-word"] });
        probe::set(scene, "edited", spec("edit 0")).await?;
        probe::set(scene, "beside", json!({ "mode": "slow", "size": 25_000 })).await?;
        host.wait_for_log("begins with `edited`", |_| runs(&host, "edited") == ["begins"]).await?;
        host.wait_for_log("begins with `beside`", |_| runs(&host, "beside") == ["begins"]).await?;
        let edit = async |edit: u32| {
            let patch = json!({ "spec": { "text": format!("edit {edit}") } });
            scene.cluster().patch(probe::PROBE, &scene.namespace, "edited", "", &patch).await
        };
        stream::iter(1..1000).map(&edit).buffer_unordered(8).try_collect::<Vec<_>>().await?;
        let last = json!({ "spec": { "text": "edit 1000", "size": 0 } });
        scene.cluster().patch(probe::PROBE, &scene.namespace, "edited", "", &last).await?;
        ensure!(runs(&host, "edited") == ["begins"], "1,000 edits took longer than the run that they were to fall into");
        ensure!(runs(&host, "beside") == ["begins"], "the plugin's other object has not run beside it");
        probe::reconciled(scene, "edited").await?;
        let seen = probe::config_says(scene, "last-word", "text", "edit 1000").await?;
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

/// How many reconciles of the plugin wait for their turn.
async fn waiting(scene: &Scene<'_>, host: &Host) -> Result<u64> {
    let name = format!("{}/probe", scene.namespace);
    Ok(host.metrics().await?.sum("workqueue_depth", &[("name", &name)]) as u64)
}

/// 2,000 objects are there when the host starts, each of whose runs takes 20 ms. Objects that are made then, one after the
/// other, are reconciled long before the last of them, and the last of them is reconciled although new ones keep coming.
///
/// Promises: Q3, Q4
/// Breaks it: one lane for all keys; or lanes of which the first always comes first.
#[test]
fn new_objects_run_before_a_backlog_and_the_backlog_still_finishes() {
    const BACKLOG: u64 = 2000;
    scene("backlog", async |scene: &Scene<'_>| {
        probe::install(scene).await?;
        let make = |n: u64| async move {
            let object = json!({ "apiVersion": "test.reef.dev/v1", "kind": "Probe", "metadata": { "name": format!("old-{n}") },
                "spec": { "mode": "slow", "size": 20 } });
            scene.cluster().create(&scene.namespace, &object).await
        };
        stream::iter(0..BACKLOG).map(make).buffer_unordered(8).try_collect::<Vec<_>>().await?;
        let host = scene.host().await?;
        let backlog = async || waiting(scene, &host).await.is_ok_and(|waiting| waiting > BACKLOG / 2);
        probe::until("most of the backlog waits", backlog).await?;
        for new in 0..5 {
            probe::set(scene, &format!("new-{new}"), json!({})).await?;
            probe::reconciled(scene, &format!("new-{new}")).await?;
        }
        let left = waiting(scene, &host).await?;
        ensure!(left > BACKLOG / 10, "only {left} of the backlog were left when the new objects were reconciled");
        let (mut new, end) = (5, Instant::now() + Duration::from_secs(120));
        while probe::reconciles(scene, &host, "probe", Some("success")).await? < BACKLOG + new {
            ensure!(Instant::now() < end, "{} of the backlog still wait", waiting(scene, &host).await?);
            probe::set(scene, &format!("new-{new}"), json!({})).await?;
            new += 1;
        }
        for old in [0, BACKLOG / 2, BACKLOG - 1] {
            probe::reconciled(scene, &format!("old-{old}")).await?;
        }
        Ok(())
    });
}

/// Seconds between the runs that failed, from the host's log.
fn gaps(host: &Host) -> Vec<f64> {
    let failed = |line: &Value| (field(line, "reason") == Some("AskedToRetry")).then(|| seconds(line["timestamp"].as_str()?))?;
    let at: Vec<f64> = host.log().iter().filter_map(failed).collect();
    at.windows(2).map(|two| two[1] - two[0]).collect()
}

/// Of the day.
fn seconds(timestamp: &str) -> Option<f64> {
    let mut parts = timestamp.split_once('T')?.1.trim_end_matches('Z').split(':').map(|part| part.parse::<f64>().ok());
    Some(parts.next()?? * 3600.0 + parts.next()?? * 60.0 + parts.next()??)
}

/// An object fails five times; then it is edited three times, which fails at once each time, and the next retry comes as late
/// as it would have without. Then it succeeds, and fails anew.
///
/// Promises: Q5
/// Breaks it: a backoff without memory, one that counts what events cause, or one that a success does not reset.
#[test]
fn backoff_doubles_and_events_do_not_inflate_it_and_success_resets_it() {
    scene("backoff", async |scene: &Scene<'_>| {
        probe::install(scene).await?;
        let host = scene.host().await?;
        probe::ready(scene, "probe").await?;
        let failing = |text: &str| json!({ "mode": "retry", "text": text });
        // A busy machine may add to a gap; what edits or failures wrongly add is far more.
        let is_about = |gap: f64, expected: f64| gap >= expected * 0.8 - 0.02 && gap <= expected * 1.2 + 2.0;
        probe::set(scene, "a", failing("not yet")).await?;
        probe::until("it has failed five times", async || gaps(&host).len() >= 4).await?;
        for (gap, expected) in gaps(&host).into_iter().zip([0.2, 0.4, 0.8, 1.6]) {
            ensure!(is_about(gap, expected), "{gap} s between two tries, not about {expected} s");
        }
        for edit in 0..3 {
            probe::set(scene, "a", failing(&format!("edit {edit}"))).await?;
            probe::until("its edit has failed", async || has_failed_with(&host, &format!("edit {edit}"))).await?;
        }
        let before = gaps(&host).len();
        probe::until("it has failed once more by itself", async || gaps(&host).len() > before).await?;
        let gap = gaps(&host)[before];
        ensure!(is_about(gap, 3.2), "after five failures and three edits the next try came after {gap} s, not about 3.2 s");
        probe::set(scene, "a", json!({ "text": "well" })).await?;
        probe::reconciled(scene, "a").await?;
        let before = gaps(&host).len();
        probe::set(scene, "a", failing("again")).await?;
        probe::until("it has failed twice again", async || gaps(&host).len() >= before + 2).await?;
        let gap = gaps(&host)[before + 1];
        ensure!(is_about(gap, 0.2), "after a success the first retry came after {gap} s");
        Ok(())
    });
}

/// By the log, which is what the gaps are counted in: the status is written before.
fn has_failed_with(host: &Host, message: &str) -> bool {
    host.log().iter().any(|line| field(line, "reason") == Some("AskedToRetry") && field(line, "error") == Some(message))
}

/// An object that asks to run again after three seconds is edited after one: the run that the edit makes is at once, and the
/// timer that was set before it is void.
///
/// Promises: Q6
/// Breaks it: an event that waits for the timer; a timer that outlives it.
#[test]
fn an_event_beats_a_timer_and_the_timer_does_not_fire_a_second_time() {
    const PERIOD: u64 = 3000;
    scene("timer", async |scene: &Scene<'_>| {
        probe::install(scene).await?;
        scene.host().await?;
        probe::ready(scene, "probe").await?;
        probe::set(scene, "a", json!({ "mode": "after", "size": PERIOD })).await?;
        let first = ran_after(scene, 0).await?;
        tokio::time::sleep(Duration::from_millis(PERIOD / 3)).await;
        probe::set(scene, "a", json!({ "mode": "after", "size": PERIOD, "text": "edited" })).await?;
        let edited = ran_after(scene, first).await?;
        ensure!(edited - first < PERIOD, "the edit waited for the timer: {} ms", edited - first);
        let next = ran_after(scene, edited).await?;
        ensure!(next - edited >= PERIOD, "a timer fired {} ms after the edit: the one from before", next - edited);
        let last = ran_after(scene, next).await?;
        ensure!(last - next >= PERIOD, "two timers: {} ms between two runs", last - next);
        Ok(())
    });
}

/// Waits for a run of `a` after this one; both in milliseconds.
async fn ran_after(scene: &Scene<'_>, before: u64) -> Result<u64> {
    let now = |object: Option<&Value>| object.and_then(|object| object["status"]["now"].as_u64());
    let later = |object: Option<&Value>| now(object).is_some_and(|now| now > before);
    let object = scene.cluster().wait(probe::PROBE, &scene.namespace, "a", "has run again", later).await?;
    now(Some(&object)).context("it says when it ran")
}

/// Waits until the Plugin's status names an object with this reason.
async fn named(scene: &Scene<'_>, object: &str, reason: &str) -> Result<Value> {
    let names = |plugin: Option<&Value>| {
        let objects = plugin.and_then(|plugin| plugin["status"]["failing"]["objects"].as_array());
        objects.is_some_and(|objects| objects.iter().any(|named| named["name"] == object && named["reason"] == reason))
    };
    let what = format!("names {object} with reason {reason}");
    scene.cluster().wait(probe::PLUGIN, &scene.namespace, "probe", &what, names).await
}

/// One object changes its mind in every run, one has something new to say in every run, and what a third one writes is
/// undone by somebody else. All three are named and slowed down; a fourth one notices nothing.
///
/// Promises: Q10
/// Breaks it: a queue without a brake.
#[test]
fn a_plugin_that_wakes_itself_or_flips_its_output_is_slowed_down_and_named() {
    scene("brake", async |scene: &Scene<'_>| {
        probe::install(scene).await?;
        let host = scene.host().await?;
        probe::ready(scene, "probe").await?;
        probe::set(scene, "flips", json!({ "mode": "flip" })).await?;
        probe::set(scene, "wakes-itself", json!({ "mode": "after", "size": 0 })).await?;
        probe::set(scene, "fights", json!({ "text": "mine", "children": ["disputed"] })).await?;
        let fight = async {
            loop {
                probe::config_says(scene, "disputed", "text", "mine").await?;
                let theirs = json!({ "data": { "text": "theirs" } });
                scene.cluster().patch(probe::CONFIG, &scene.namespace, "disputed", "", &theirs).await?;
            }
        };
        let watch = async {
            for (object, reason) in [("flips", "Fighting"), ("fights", "Contested"), ("wakes-itself", "RunsHot")] {
                named(scene, object, reason).await?;
            }
            let controller = format!("{}/probe", scene.namespace);
            let braked = async || {
                let metrics = host.metrics().await;
                metrics.is_ok_and(|m| m.sum("reef_plugin_braked_objects", &[("controller", &controller)]) >= 2.0)
            };
            probe::until("the two that need nobody else for it are braked", braked).await?;
            let before = probe::reconciles(scene, &host, "probe", None).await?;
            let slowed = Instant::now();
            for calm in 0..5 {
                let began = Instant::now();
                probe::set(scene, &format!("calm-{calm}"), json!({})).await?;
                probe::reconciled(scene, &format!("calm-{calm}")).await?;
                ensure!(began.elapsed() < Duration::from_secs(10), "a neighbour was held up: {:?}", began.elapsed());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let runs = probe::reconciles(scene, &host, "probe", None).await? - before - 5;
            // Each runs every four seconds at most by now, and once more for what was on its way.
            let most = 3 * (slowed.elapsed().as_secs() / 4 + 2);
            ensure!(runs <= most, "{runs} runs of three objects that are slowed down, not {most} within {:?}", slowed.elapsed());
            Ok(())
        };
        tokio::select! {
            fought = fight => fought,
            watched = watch => watched,
        }
    });
}

/// 60 objects ask to run again in ten seconds. A host that starts reconciles all of them at once; most of their timers then
/// fire over a third of the period at least. (Unspread they fire within a tenth of it. A machine that stands still for
/// seconds makes the timers that fell due fire together, so nothing is said of any one moment.)
///
/// Promises: Q9
/// Breaks it: timers that count from the run alone, so that what ran together after a restart runs together for ever.
#[test]
fn timers_are_spread_out_after_a_restart() {
    const OBJECTS: usize = 60;
    const PERIOD: i64 = 10_000;
    scene("timers", async |scene: &Scene<'_>| {
        probe::install(scene).await?;
        for i in 0..OBJECTS {
            probe::set(scene, &format!("p-{i}"), json!({ "mode": "after", "size": PERIOD })).await?;
        }
        let mark = scene.world.audit.mark(scene.cluster()).await?;
        scene.host().await?;
        // Each run says when it was, so that each run writes.
        let second = || -> Result<Vec<i64>> {
            let mut runs: BTreeMap<String, Vec<i64>> = BTreeMap::new();
            for write in scene.world.audit.writes(mark, &scene.namespace)? {
                if write.object_ref.resource == "probes" && write.object_ref.subresource == "status" {
                    let at = write.stage_timestamp.parse::<Timestamp>()?.as_millisecond();
                    runs.entry(write.object_ref.name.clone()).or_default().push(at);
                }
            }
            Ok(runs.values().filter_map(|runs| runs.get(1)).copied().collect())
        };
        let most_ran_twice = || async { second().is_ok_and(|second| second.len() >= OBJECTS * 3 / 4) };
        probe::until("most objects have run twice", most_ran_twice).await?;
        let mut second = second()?;
        second.sort_unstable();
        let (early, late) = (second[second.len() / 10], second[second.len() * 9 / 10]);
        ensure!(late - early >= PERIOD / 3, "of {OBJECTS} timers most fired within {} ms: {second:?}", late - early);
        Ok(())
    });
}
