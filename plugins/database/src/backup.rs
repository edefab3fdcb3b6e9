//! The kind `Backup`: which run is due, what became of those before, which Jobs are too many.
//!
//! Runs are counted from when the Backup was made, so each has a time of its own, and a Job that is named after it. For which
//! time the last Job was made stands in the status, so that a Job that somebody has cleaned up is not made again.

use std::time::Duration;

use plugin_sdk::prelude::*;

use crate::{
    DATABASE,
    job::{self, Job, Outcome},
};

#[derive(Deserialize)]
pub struct Backup {
    pub database: String,
    pub every: Interval,
    #[serde(default = "three")]
    pub keep: usize,
    pub claim: Option<String>,
}

fn three() -> usize {
    3
}

#[derive(Clone, Default, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Timestamp>,
}

pub type Bk = Object<Backup, Status>;

/// A report has at most 20 events; more at once are news only to a Backup that has lost its status.
const MOST_EVENTS: usize = 10;

pub fn reconcile(backup: Bk, cx: &Context) -> Result<Plan> {
    let Interval(every) = backup.spec.every;
    ensure!(every >= Duration::from_secs(1), "spec.every is {}: runs are at least 1s apart", backup.spec.every);
    let jobs = job::list(&backup, cx)?;
    let before = backup.status().unwrap_or_default();
    let mut status = before.clone();
    let last = |outcome: &str| jobs.iter().filter(|job| job.outcome.word() == outcome).map(|job| job.time).max();
    status.last_run = status.last_run.max(jobs.iter().map(|job| job.time).max());
    status.last_success = status.last_success.max(last("Succeeded"));
    status.last_failure = status.last_failure.max(last("Failed"));

    let (mut plan, mut made) = (Plan::new(), false);
    let time = slot(backup.created(), every, cx);
    let due = status.last_run.is_none_or(|last| time > last) && !jobs.iter().any(|job| job.outcome == Outcome::Running);
    if due {
        match ready(&backup, cx)? {
            Ok(version) => {
                plan = plan.create(job::job(&backup, time, &version, cx)?).keep();
                status.last_run = Some(time);
                made = true;
            }
            Err(waits) => plan = plan.pending(waits),
        }
    }
    if !due || made {
        plan = plan.after(cx.until(time + backup.spec.every));
    }
    let finished = jobs.iter().rev().filter(|job| job.outcome != Outcome::Running);
    plan = plan.delete_all(finished.skip(backup.spec.keep).map(|job| &job.read));
    plan = news(&jobs, &before).into_iter().fold(plan, Plan::event);
    let running = made || jobs.last().is_some_and(|job| job.outcome == Outcome::Running);
    plan = plan.condition(readiness(&backup, &status, &jobs, running));
    plan = plan.condition(match status.last_run.filter(|_| running) {
        Some(time) => Condition::yes("Running", "JobRunning", format!("the Job {} is at work", job::name(&backup, time))),
        None => Condition::no("Running", "Idle", "no Job is at work"),
    });
    Ok(plan.status(status))
}

pub fn cleanup(backup: Bk, cx: &Context) -> Result<Plan> {
    Ok(Plan::done().delete_all(job::list(&backup, cx)?.iter().map(|job| &job.read)))
}

/// The latest time of a run that is not in the future. Those before it are not made good.
fn slot(first: Option<Timestamp>, every: Duration, cx: &Context) -> Timestamp {
    let first = first.unwrap_or(Timestamp(std::time::UNIX_EPOCH));
    let since = cx.now().duration_since(first.0).unwrap_or_default();
    let past = since.as_nanos().checked_rem(every.as_nanos()).and_then(|rest| u64::try_from(rest).ok()).unwrap_or(0);
    first + Interval(since.saturating_sub(Duration::from_nanos(past)))
}

/// The version of the Database, if it can be dumped, or what is waited for.
fn ready(backup: &Bk, cx: &Context) -> Result<std::result::Result<String, String>> {
    let name = &backup.spec.database;
    let fields = ["/spec/version", "/status/conditions"];
    let Some(database) = cx.get_fields(DATABASE, backup.namespace(), name, &fields)? else {
        return Ok(Err(format!("there is no Database `{name}` yet")));
    };
    Ok(match database.condition("Ready") {
        Some(ready) if ready.is_true() => Ok(database.at("/spec/version").as_str().unwrap_or_default().to_owned()),
        Some(ready) => Err(format!("the Database `{name}` is not ready: {}", ready.message)),
        None => Err(format!("the Database `{name}` is not ready: it says nothing of itself yet")),
    })
}

/// What has ended since the last report.
fn news(jobs: &[Job], before: &Status) -> Vec<Event> {
    let event = |job: &Job| match &job.outcome {
        Outcome::Succeeded if Some(job.time) > before.last_success => {
            Some(Event::normal("BackupSucceeded", format!("the Job {} has made its dump", job.read.name())))
        }
        Outcome::Failed(why) if Some(job.time) > before.last_failure => {
            Some(Event::warning("BackupFailed", format!("the Job {} has failed: {why}", job.read.name())))
        }
        _ => None,
    };
    jobs.iter().rev().filter_map(event).take(MOST_EVENTS).collect()
}

/// Whether the last run that has ended made a good dump.
fn readiness(backup: &Bk, status: &Status, jobs: &[Job], running: bool) -> Condition {
    let Status { last_run, last_success, last_failure } = *status;
    // A run that neither goes on nor has ended as far as anybody knows.
    let lost = last_run.filter(|last| !running && Some(*last) > last_success.max(last_failure));
    if let Some(lost) = lost {
        let message = format!("the Job {} has gone before it was seen to end", job::name(backup, lost));
        return Condition::unknown("Ready", "JobLost", message);
    }
    match (last_success, last_failure) {
        (None, None) => Condition::no("Ready", "NoBackupYet", "no run has ended yet"),
        (success, Some(failure)) if success < Some(failure) => {
            let why = jobs.iter().find(|job| job.time == failure).and_then(|job| job.outcome.why());
            let name = job::name(backup, failure);
            let before =
                success.map_or_else(|| "there is no good dump".into(), |success| format!("the last good dump is of {success}"));
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            Condition::no("Ready", "BackupFailed", format!("the Job {name} has failed{why}; {before}"))
        }
        (success, _) => {
            let of = success.map(|success| success.to_string()).unwrap_or_default();
            Condition::yes("Ready", "BackupSucceeded", format!("the last dump is of {of}"))
        }
    }
}
