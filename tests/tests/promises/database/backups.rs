//! `Backup`: one Job for each run, whatever becomes of Jobs and hosts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reef_tests::world::{Scene, scene};
use serde_json::{Value, json};

use super::{BACKUP, PLUGIN, control, install, partition, says as database_says, serving, set};
use crate::{
    hello::{self, events, object_says, sentence},
    probe,
};

const JOB: &str = "batch/v1/Job";

async fn back_up(scene: &Scene<'_>, spec: Value) -> Result<Value> {
    let backup = json!({ "apiVersion": "demo.reef.dev/v1", "kind": "Backup", "metadata": { "name": "b" }, "spec": spec });
    scene.cluster().apply_object(&scene.namespace, &backup).await
}

async fn says(scene: &Scene<'_>, name: &str, status: &str, reason: &str) -> Result<Value> {
    object_says(scene, BACKUP, "b", (name, status, reason)).await
}

/// The names of the Jobs, in the order of their times.
async fn jobs(scene: &Scene<'_>) -> Result<Vec<String>> {
    let jobs = scene.cluster().list(JOB, &scene.namespace).await?;
    let mut names: Vec<_> = jobs.iter().filter_map(|job| Some(job["metadata"]["name"].as_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

async fn there_are(scene: &Scene<'_>, count: usize) -> Result<Vec<String>> {
    probe::until(&format!("there are {count} Jobs"), || async { jobs(scene).await.is_ok_and(|jobs| jobs.len() == count) })
        .await?;
    jobs(scene).await
}

/// For which time a Job was made, in seconds since the epoch.
async fn time(scene: &Scene<'_>, job: &str) -> Result<i64> {
    let job = scene.cluster().get(JOB, &scene.namespace, job).await?.context("no Job")?;
    let time: Time = serde_json::from_value(job["metadata"]["annotations"]["demo.reef.dev/time"].clone())?;
    Ok(time.0.as_second())
}

/// What a Job's controller says of one that has ended.
async fn ends(scene: &Scene<'_>, name: &str, with: &str) -> Result<()> {
    let (now, job) = ("2030-01-01T00:00:00Z", scene.cluster().get(JOB, &scene.namespace, name).await?.context("no Job")?);
    let since = &job["metadata"]["creationTimestamp"];
    let condition = |name: &str| json!({ "type": name, "status": "True", "reason": "Test", "message": "the pod has failed", "lastTransitionTime": since });
    let status = match with {
        "Complete" => json!({
            "startTime": since, "completionTime": now, "succeeded": 1,
            "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
        }),
        _ => json!({ "startTime": since, "failed": 1, "conditions": [condition("FailureTarget"), condition("Failed")] }),
    };
    scene.cluster().patch(JOB, &scene.namespace, name, "status", &json!({ "status": status })).await.map(drop)
}

/// The Job of a run is cleaned up, as `ttlSecondsAfterFinished` has it, while no host is there.
///
/// Promises: R2, W2, K1
/// Breaks it: a Backup that does not hear of its Database, or a host that makes again whatever is not there.
#[test]
fn a_backup_waits_for_its_database_and_a_job_that_was_cleaned_up_is_not_made_again() {
    scene("backup", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let host = scene.host().await?;
        install(scene).await?;
        back_up(scene, json!({ "database": "db", "every": "1h" })).await?;
        let waits = says(scene, "Reconciled", "Unknown", "Pending").await?;
        hello::has(&sentence(&waits, "Reconciled"), &["there is no Database `db` yet"])?;
        set(scene, "8", 1, "1Gi").await?;
        partition(scene, "8", 0).await?;
        database_says(scene, "Ready", "False", "NoReplicas").await?;
        let why = "the Database `db` is not ready: 0 of 1 replicas are ready";
        let told = |backup: Option<&Value>| backup.is_some_and(|backup| sentence(backup, "Reconciled") == why);
        cluster.wait(BACKUP, namespace, "b", "says why it waits", told).await?;
        ensure!(jobs(scene).await?.is_empty());
        ensure!(probe::reconciles(scene, &host, PLUGIN, Some("error")).await? == 0, "waiting is no error");

        control(scene, 1, 1, ("a", "a")).await?;
        let job = there_are(scene, 1).await?.remove(0);
        says(scene, "Running", "True", "JobRunning").await?;
        ends(scene, &job, "Complete").await?;
        let backup = says(scene, "Ready", "True", "BackupSucceeded").await?;
        ensure!(backup["status"]["lastSuccess"] == backup["status"]["lastRun"], "{backup:#}");
        let host = hello::restarted_and_steady(scene, &host, PLUGIN).await?;

        scene.kill(&host).await?;
        cluster.delete(JOB, namespace, &job).await?;
        cluster.wait(JOB, namespace, &job, "is gone", |job| job.is_none()).await?;
        let host = scene.host().await?;
        hello::settled(scene, &host, PLUGIN).await?;
        hello::restarted_and_steady(scene, &host, PLUGIN).await?;
        ensure!(jobs(scene).await?.is_empty(), "the run was made again");
        says(scene, "Ready", "True", "BackupSucceeded").await.map(drop)
    });
}

/// The host is down for several runs.
///
/// Promises: W11, K1
/// Breaks it: a failure that nobody hears of, a Job for each run that was missed, or Jobs that are never deleted.
#[test]
fn a_failed_job_is_told_and_of_the_runs_that_were_missed_only_one_is_made_good() {
    const EVERY: Duration = Duration::from_secs(2);
    scene("backup-missed", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let host = scene.host().await?;
        install(scene).await?;
        serving(scene, 1).await?;
        back_up(scene, json!({ "database": "db", "every": "2s", "keep": 1 })).await?;
        let first = there_are(scene, 1).await?.remove(0);
        scene.kill(&host).await?;
        let killed = Instant::now();
        ends(scene, &first, "Failed").await?;
        probe::until("several runs have been missed", || async { killed.elapsed() > 3 * EVERY }).await?;

        let host = scene.host().await?;
        let failed = says(scene, "Ready", "False", "BackupFailed").await?;
        hello::has(
            &sentence(&failed, "Ready"),
            &[&format!("the Job {first} has failed: the pod has failed; there is no good dump")],
        )?;
        let told = || async { events(scene, "b", "BackupFailed").await.is_ok_and(|events| events.len() == 1) };
        probe::until("the failure is told as an event", told).await?;
        let second = there_are(scene, 2).await?.remove(1);
        let missed = time(scene, &second).await? - time(scene, &first).await?;
        ensure!(
            missed >= 3 * EVERY.as_secs().cast_signed(),
            "a run of {missed} s after the first one is made good, and not the latest"
        );
        // While it is at work, no other one begins.
        let began = Instant::now();
        probe::until("the time of another run has passed", || async { began.elapsed() > 2 * EVERY }).await?;
        ensure!(jobs(scene).await? == [first.clone(), second.clone()], "{:?}", jobs(scene).await?);

        back_up(scene, json!({ "database": "db", "every": "1h", "keep": 1 })).await?;
        ends(scene, &second, "Complete").await?;
        says(scene, "Ready", "True", "BackupSucceeded").await?;
        ensure!(there_are(scene, 1).await? == [second.clone()], "the older one is to go");
        hello::restarted_and_steady(scene, &host, PLUGIN).await?;

        cluster.delete(BACKUP, namespace, "b").await?;
        cluster.wait(BACKUP, namespace, "b", "is gone", |backup| backup.is_none()).await?;
        ensure!(jobs(scene).await?.is_empty(), "the Backup went before its Jobs");
        Ok(())
    });
}

/// Promises: Q6
/// Breaks it: a timer that does not fire, or one that fires twice for one run.
#[test]
fn each_time_has_one_job_and_the_last_ones_are_kept() {
    scene("backup-every", async |scene: &Scene<'_>| {
        let _host = scene.host().await?;
        install(scene).await?;
        serving(scene, 1).await?;
        back_up(scene, json!({ "database": "db", "every": "1s", "keep": 2 })).await?;
        let mut seen: Vec<String> = Vec::new();
        while seen.len() < 5 {
            let new = || async { jobs(scene).await.is_ok_and(|jobs| jobs.iter().any(|job| !seen.contains(job))) };
            probe::until("there is another Job", new).await?;
            let fresh: Vec<_> = jobs(scene).await?.into_iter().filter(|job| !seen.contains(job)).collect();
            ensure!(fresh.len() == 1, "more than one Job at a time: {fresh:?}");
            ensure!(seen.last() < fresh.first(), "a run before the last one: {seen:?}, {fresh:?}");
            ends(scene, &fresh[0], "Complete").await?;
            seen.extend(fresh);
        }
        back_up(scene, json!({ "database": "db", "every": "1h", "keep": 2 })).await?;
        says(scene, "Ready", "True", "BackupSucceeded").await?;
        let mut last = jobs(scene).await?;
        if let Some(job) = last.pop().filter(|job| !seen.contains(job)) {
            ends(scene, &job, "Complete").await?;
        }
        there_are(scene, 2).await.map(drop)
    });
}
