//! What a run reads: as new as its own writes, and a reason to run again.

mod lists;

use std::time::{Duration, Instant};

use anyhow::ensure;
use reef_tests::{
    cluster::condition,
    host::Options,
    world::{Scene, scene},
};
use serde_json::{Value, json};

use crate::probe;

/// Within this, nothing but an event wakes an object that waits: its timer fires after 30 s.
const BEFORE_THE_TIMER: Duration = Duration::from_secs(25);

/// Ten objects count up to 30 in a child, each run one step beyond what it reads there, each right after the one before.
/// A run that did not see the last write would make the same step again, and one that its own write wakes would be one
/// too many; so the number of runs says it.
///
/// Promises: R1
/// Breaks it: a cache that only the watch fills, or an own write that wakes its author.
#[test]
fn the_next_run_sees_what_a_run_wrote() {
    scene("own-writes", async |scene: &Scene<'_>| {
        const OBJECTS: u64 = 10;
        const STEPS: u64 = 30;
        probe::install(scene).await?;
        let host = scene.host().await?;
        probe::ready(scene, "probe").await?;
        for object in 0..OBJECTS {
            probe::set(scene, &format!("o{object}"), json!({ "mode": "chain", "size": STEPS })).await?;
        }
        for object in 0..OBJECTS {
            probe::config_says(scene, &format!("o{object}-chain"), "step", &STEPS.to_string()).await?;
        }
        let due = OBJECTS * (STEPS + 1);
        probe::reconciles_reach(scene, &host, "probe", None, due).await?;
        // Whatever was woken for nothing would run before an object that is new.
        probe::set(scene, "last", json!({})).await?;
        probe::reconciles_reach(scene, &host, "probe", None, due + 1).await?;
        let runs = probe::reconciles(scene, &host, "probe", None).await?;
        ensure!(runs == due + 1, "{runs} runs where {} are due", due + 1);
        Ok(())
    });
}

/// The object that is read comes, changes, goes and comes again, and each of these wakes its reader; 20 changes of a
/// neighbour that nobody read wake nobody.
///
/// Promises: R2, R3
/// Breaks it: a read that leaves no dependency where it found nothing, or dependencies by kind.
#[test]
fn what_was_read_wakes_when_it_comes_changes_and_goes_and_nothing_else_does() {
    scene("what-was-read", async |scene: &Scene<'_>| {
        probe::install(scene).await?;
        let host = scene.host().await?;
        probe::ready(scene, "probe").await?;
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let began = Instant::now();
        probe::set(scene, "reader", json!({ "mode": "read", "read": "source" })).await?;
        let waiting = probe::says(scene, "reader", "Unknown", "Waiting").await?;
        ensure!(probe::sentence(&waiting) == "there is no ConfigMap `source` yet", "{waiting}");

        cluster.create(namespace, &probe::config("source", json!({ "value": "one" }))).await?;
        probe::config_says(scene, "reader-copy", "value", "one").await?;
        ensure!(began.elapsed() < BEFORE_THE_TIMER, "that may have been the timer, after {:?}", began.elapsed());
        probe::reconciled(scene, "reader").await?;
        probe::reconciles_reach(scene, &host, "probe", None, 2).await?;

        cluster.create(namespace, &probe::config("neighbour", json!({ "value": "0" }))).await?;
        for value in 1..=20 {
            let patch = json!({ "data": { "value": value.to_string() } });
            cluster.patch(probe::CONFIG, namespace, "neighbour", "", &patch).await?;
        }
        cluster.patch(probe::CONFIG, namespace, "source", "", &json!({ "data": { "value": "two" } })).await?;
        probe::config_says(scene, "reader-copy", "value", "two").await?;
        probe::reconciles_reach(scene, &host, "probe", None, 3).await?;
        let runs = probe::reconciles(scene, &host, "probe", None).await?;
        ensure!(runs == 3, "{runs} runs: one found nothing, one the first value, one the second");

        let began = Instant::now();
        cluster.delete(probe::CONFIG, namespace, "source").await?;
        probe::says(scene, "reader", "Unknown", "Waiting").await?;
        let copy = probe::config_says(scene, "reader-copy", "value", "two").await?;
        cluster.create(namespace, &probe::config("source", json!({ "value": "three" }))).await?;
        let renewed = probe::config_says(scene, "reader-copy", "value", "three").await?;
        ensure!(began.elapsed() < BEFORE_THE_TIMER, "that may have been the timer, after {:?}", began.elapsed());
        ensure!(renewed["metadata"]["uid"] == copy["metadata"]["uid"], "the copy was deleted while its source was away");
        Ok(())
    });
}

/// The host keeps a copy of the object all along, since the account may still list and watch: it does not give it out. The
/// period after which rights are asked for anew is 1 s here instead of 30 s.
///
/// Promises: R4
/// Breaks it: serving whatever the shared copy has.
#[test]
fn what_the_account_may_no_longer_read_is_not_served_until_it_may_again() {
    scene("right-taken", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        probe::install(scene).await?;
        let options = Options { flags: vec!["--recheck-period=1s".into()], ..scene.options() };
        let _host = scene.host_with(&options).await?;
        probe::ready(scene, "probe").await?;
        cluster.create(namespace, &probe::config("source", json!({ "value": "public" }))).await?;
        probe::set(scene, "reader", json!({ "mode": "read", "read": "source" })).await?;
        probe::config_says(scene, "reader-copy", "value", "public").await?;

        let role = |verbs: &str| {
            let rule = |group: &str, resources: &str, verbs: &str| {
                format!("{{ apiGroups: [{group}], resources: [{resources}], verbs: [{verbs}] }}")
            };
            let others = [
                rule("test.reef.dev", "probes, probes/status", "get, list, watch, patch"),
                rule("apps", "deployments", "get, list, watch, create, patch, delete"),
                rule("events.k8s.io", "events", "create, patch"),
                rule("\"\"", "configmaps", verbs),
            ];
            let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: { name: probe }";
            format!("{role}\nrules: [{}]\n", others.join(", "))
        };
        scene.apply(&role("list, watch, create, patch, delete")).await?;
        let value = |value: &str| json!({ "data": { "value": value } });
        let refused = || async {
            let touched = cluster
                .patch(
                    probe::CONFIG,
                    namespace,
                    "source",
                    "",
                    &json!({ "metadata": { "annotations": {
                "touched": format!("{:?}", Instant::now()) } } }),
                )
                .await;
            let reader = cluster.get(probe::PROBE, namespace, "reader").await;
            let said =
                |object: &Option<Value>| condition(object.as_ref(), "Reconciled").is_some_and(|c| c["reason"] == "Forbidden");
            touched.is_ok() && reader.is_ok_and(|object| said(&object))
        };
        probe::until("the reader says that it is refused", refused).await?;
        let failed = probe::says(scene, "reader", "False", "Forbidden").await?;
        let expected =
            format!("ServiceAccount {namespace}/probe may not get configmaps in namespace {namespace}: add the rule to its Role");
        ensure!(probe::sentence(&failed) == expected, "the condition says: {}", probe::sentence(&failed));

        cluster.patch(probe::CONFIG, namespace, "source", "", &value("secret")).await?;
        probe::set(scene, "second", json!({ "mode": "read", "read": "source" })).await?;
        probe::says(scene, "second", "False", "Forbidden").await?;
        probe::set(scene, "plain", json!({ "text": "runs on" })).await?;
        probe::reconciled(scene, "plain").await?;
        ensure!(cluster.get(probe::CONFIG, namespace, "second-copy").await?.is_none());
        probe::config_says(scene, "reader-copy", "value", "public").await?;

        scene.apply(&role("get, list, watch, create, patch, delete")).await?;
        probe::config_says(scene, "reader-copy", "value", "secret").await?;
        probe::config_says(scene, "second-copy", "value", "secret").await.map(drop)
    });
}
