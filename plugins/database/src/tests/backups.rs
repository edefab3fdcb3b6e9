//! `Backup`: one Job for each run, and what is said of it.

use std::time::Duration;

use plugin_sdk::{Fake, Planned, prelude::*};

use crate::backup::{Backup, Status, cleanup, reconcile};

crd_test!("../../crds/backup.yaml", "../../sample.yaml", spec: Backup, status: Status);

/// When the Backup was made; see `Context::fake()`.
const MADE: u64 = 1_700_000_000;
const HOUR: u64 = 3600;
const JOB: &str = "batch/v1/Job";

struct World {
    cluster: Fake,
    /// After the Backup was made.
    seconds: u64,
    status: Value,
    keep: u32,
}

fn database(ready: &str) -> Value {
    json!({
        "apiVersion": "demo.reef.dev/v1", "kind": "Database", "metadata": { "name": "db", "namespace": "n" },
        "spec": { "version": "8" },
        "status": { "conditions": [{ "type": "Ready", "status": ready, "reason": "R", "message": "1 of 3 replicas are ready" }] },
    })
}

impl World {
    fn new() -> Self {
        Self { cluster: Context::fake().with_object(database("True")), seconds: 0, status: json!({}), keep: 2 }
    }

    fn backup(&self) -> String {
        json!({
            "apiVersion": "demo.reef.dev/v1", "kind": "Backup", "status": self.status,
            "metadata": { "name": "b", "namespace": "n", "creationTimestamp": "2023-11-14T22:13:20Z" },
            "spec": { "database": "db", "every": "1h", "keep": self.keep },
        })
        .to_string()
    }

    fn run(&mut self) -> Planned {
        let cluster = std::mem::take(&mut self.cluster).with_now(Duration::from_secs(MADE + self.seconds));
        let plan = cluster.run(reconcile, &self.backup()).unwrap();
        self.cluster = cluster.with_applied(&plan);
        self.status = plan.status.clone().unwrap();
        plan
    }

    /// The Jobs that are there.
    fn jobs(&self) -> Vec<Value> {
        let jobs = self.cluster.context("n").unwrap().list(JOB, "").unwrap();
        jobs.iter().map(|job| json!(job)).collect()
    }

    fn names(&self) -> Vec<String> {
        self.jobs().iter().map(|job| job["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The last Job ends like this.
    fn ends(&mut self, condition: &str) {
        let mut job = self.jobs().pop().unwrap();
        let condition = json!({ "type": condition, "status": "True", "message": "the pod has failed" });
        job["status"] = json!({ "conditions": [condition] });
        self.cluster = std::mem::take(&mut self.cluster).with_object(job);
    }

    /// Somebody, such as the controller for `ttlSecondsAfterFinished`, deletes all Jobs.
    fn cleaned_up(&mut self) {
        let plan = self.cluster.run(cleanup, &self.backup()).unwrap();
        self.cluster = std::mem::take(&mut self.cluster).with_applied(&plan);
        assert!(self.jobs().is_empty());
    }
}

#[test]
fn the_first_run_is_at_once_and_once() {
    let mut world = World::new();
    let plan = world.run();
    assert_eq!(plan.created(), ["batch/v1/Job b-20231114221320"]);
    let job = plan.written("create", JOB, "b-20231114221320");
    assert_eq!(job.pointer("/spec/template/spec/containers/0/image").unwrap(), "docker.io/valkey/valkey:8");
    assert_eq!((&plan.writes[0].options, plan.after), (&json!({ "keep": true }), Some(Duration::from_secs(HOUR))));
    assert_eq!((plan.condition("Running"), plan.message("Ready")), (Some("True"), "no run has ended yet"));
    let again = world.run();
    assert!(again.writes.is_empty());
    assert_eq!((again.status, again.conditions, again.after), (plan.status, plan.conditions, plan.after), "steady");
}

#[test]
fn while_the_database_is_not_ready_it_is_waited_for_and_that_is_no_error() {
    let mut world = World { cluster: Context::fake(), ..World::new() };
    let plan = world.run();
    assert_eq!((plan.pending.as_deref(), plan.writes.len()), (Some("there is no Database `db` yet"), 0));
    assert_eq!(world.cluster.reads(), ["batch/v1/Job n?demo.reef.dev/backup=b", "demo.reef.dev/v1/Database n/db"]);
    world.cluster = world.cluster.with_object(database("False"));
    let says = "the Database `db` is not ready: 1 of 3 replicas are ready";
    assert_eq!(world.run().pending.as_deref(), Some(says));
    world.cluster = world.cluster.with_object(database("True"));
    assert_eq!(world.run().created().len(), 1);
}

#[test]
fn a_success_is_told_once_and_stays() {
    let mut world = World::new();
    world.run();
    world.ends("Complete");
    let plan = world.run();
    assert_eq!((plan.condition("Ready"), plan.condition("Running"), plan.events.len()), (Some("True"), Some("False"), 1));
    assert_eq!(plan.status.as_ref().unwrap()["lastSuccess"], "2023-11-14T22:13:20Z");
    let again = world.run();
    assert_eq!((again.status, again.conditions, again.events.len()), (plan.status, plan.conditions, 0));
}

#[test]
fn a_failed_job_is_a_condition_and_an_event_until_one_succeeds() {
    let mut world = World::new();
    world.run();
    world.ends("Failed");
    let plan = world.run();
    assert_eq!(plan.message("Ready"), "the Job b-20231114221320 has failed: the pod has failed; there is no good dump");
    assert_eq!((plan.events[0].severity, &*plan.events[0].reason), ("Warning", "BackupFailed"));
    assert_eq!(plan.status.unwrap()["lastFailure"], "2023-11-14T22:13:20Z");
    assert!(world.run().events.is_empty());
    world.seconds = HOUR;
    let next = world.run();
    assert_eq!((next.created().len(), next.condition("Ready")), (1, Some("False")), "the failure is not forgotten");
    world.ends("Complete");
    let plan = world.run();
    assert_eq!((plan.condition("Ready"), &plan.status.unwrap()["lastFailure"]), (Some("True"), &json!("2023-11-14T22:13:20Z")));
}

#[test]
fn a_job_that_was_cleaned_up_is_not_made_again() {
    let mut world = World::new();
    world.run();
    world.ends("Complete");
    let before = world.run();
    world.cleaned_up();
    world.seconds = HOUR - 1;
    let plan = world.run();
    assert!(plan.writes.is_empty());
    assert_eq!((plan.status, plan.conditions), (before.status, before.conditions));
    world.seconds = HOUR;
    assert_eq!(world.run().created(), ["batch/v1/Job b-20231114231320"]);
}

#[test]
fn a_job_that_went_before_it_was_seen_to_end_is_not_made_again_and_said_to_be_lost() {
    let mut world = World::new();
    world.run();
    world.cleaned_up();
    let plan = world.run();
    assert!(plan.writes.is_empty());
    assert_eq!((plan.condition("Ready"), plan.condition("Running")), (Some("Unknown"), Some("False")));
}

#[test]
fn a_status_that_was_lost_is_read_from_the_jobs() {
    let mut world = World::new();
    world.run();
    world.ends("Complete");
    let status = world.run().status;
    world.status = json!({});
    let plan = world.run();
    assert_eq!((plan.status, plan.writes.len()), (status, 0));
}

#[test]
fn of_the_runs_that_were_missed_only_the_latest_is_made_good() {
    let mut world = World::new();
    world.run();
    world.ends("Complete");
    world.seconds = 5 * HOUR + 600;
    let plan = world.run();
    assert_eq!(
        (plan.created(), plan.after),
        (vec!["batch/v1/Job b-20231115031320".into()], Some(Duration::from_secs(HOUR - 600)))
    );
    world.ends("Complete");
    assert!(world.run().created().is_empty());
}

#[test]
fn a_run_that_takes_longer_than_its_time_is_waited_for() {
    let mut world = World::new();
    world.run();
    world.seconds = 3 * HOUR;
    let plan = world.run();
    assert!(plan.writes.is_empty() && plan.pending.is_none());
    world.ends("Complete");
    assert_eq!(world.run().created(), ["batch/v1/Job b-20231115011320"]);
}

#[test]
fn the_last_jobs_are_kept_and_older_ones_deleted() {
    let mut world = World::new();
    for hour in 0..4 {
        world.seconds = hour * HOUR;
        world.run();
        world.ends("Complete");
    }
    assert_eq!(world.run().deleted().len(), 1);
    assert_eq!(world.names(), ["b-20231115001320", "b-20231115011320"]);
    world.keep = 1;
    world.run();
    assert_eq!(world.names(), ["b-20231115011320"]);
    assert!(world.run().writes.is_empty());
}

#[test]
fn what_only_looks_like_one_of_its_jobs_is_left_alone() {
    let job = |name: &str| {
        let annotations = json!({ "demo.reef.dev/time": "2023-11-14T20:13:20Z" });
        json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name, "namespace": "n",
            "labels": { "demo.reef.dev/backup": "b" }, "annotations": annotations } })
    };
    let mut world = World::new();
    world.cluster = world.cluster.with_object(job("somebody-elses"));
    world.run();
    assert!(world.cluster.run(cleanup, &world.backup()).unwrap().deleted().iter().all(|job| !job.contains("somebody")));
}

#[test]
fn another_rhythm_makes_no_run_twice() {
    let mut world = World::new();
    world.run();
    world.ends("Complete");
    world.seconds = HOUR + 5;
    world.run();
    world.ends("Complete");
    let daily = world.backup().replace("1h", "24h");
    assert!(world.cluster.run(reconcile, &daily).unwrap().created().is_empty());
}

#[test]
fn runs_closer_than_their_names_are_refused() {
    let error = World::new().cluster.run(reconcile, &World::new().backup().replace("1h", "500ms")).unwrap_err();
    assert_eq!(error.to_string(), "spec.every is 500ms: runs are at least 1s apart");
}

#[test]
fn the_dump_goes_where_the_backup_says() {
    let volume = |backup: &str| {
        let plan = World::new().cluster.run(reconcile, backup).unwrap();
        plan.writes[0].object.pointer("/spec/template/spec/volumes/0").unwrap().clone()
    };
    let backup = World::new().backup();
    assert_eq!(volume(&backup)["emptyDir"], json!({}));
    let claimed = volume(&backup.replace("\"keep\":2", "\"keep\":2,\"claim\":\"dumps\""));
    assert_eq!(claimed["persistentVolumeClaim"]["claimName"], "dumps");
}
