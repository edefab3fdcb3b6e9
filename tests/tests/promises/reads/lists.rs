//! Reads by selector, and reads that got no answer.

use anyhow::ensure;
use reef_tests::{
    host::Options,
    world::{Scene, scene},
};
use serde_json::{Value, json};

use crate::{probe, reader};

fn labelled(name: &str, app: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "labels": { "app": app } },
        "data": { "value": value, "other": "0" },
    })
}

/// Two readers list `app=web` and keep `data.value`; nothing but their reads can wake them. An object begins to match, by
/// birth and by its label, changes, ceases to match, by its label and by death; and 20 times changes in what nobody kept, 20
/// times in a neighbour that does not match, and in all of these nobody runs.
///
/// Promises: R2, R3
/// Breaks it: a list whose membership is no dependency, or dependencies by kind.
#[test]
fn what_begins_or_ceases_to_match_a_list_wakes_and_what_was_not_kept_does_not() {
    scene("lists", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        reader::install(scene).await?;
        let host = scene.host().await?;
        probe::ready(scene, "reader").await?;
        let spec = json!({ "kind": probe::CONFIG, "selector": "app in (web)", "fields": ["/data/value"] });
        let mut runs = 0;
        let mut step = async |found: &[&str]| {
            runs += 2;
            reader::has_found(scene, "one", found).await?;
            reader::has_found(scene, "two", found).await?;
            probe::reconciles_reach(scene, &host, "reader", None, runs).await?;
            let ended = probe::reconciles(scene, &host, "reader", None).await?;
            ensure!(ended == runs, "{ended} runs, {runs} are due");
            anyhow::Ok(())
        };
        probe::set(scene, "one", spec.clone()).await?;
        probe::set(scene, "two", spec).await?;
        step(&[]).await?;
        cluster.create(namespace, &labelled("b", "web", "1")).await?;
        step(&["b=1"]).await?;
        cluster.create(namespace, &labelled("neighbour", "db", "1")).await?;
        for n in 0..20 {
            let change = json!({ "data": { "other": n.to_string(), "value": n.to_string() } });
            cluster.patch(probe::CONFIG, namespace, "neighbour", "", &change).await?;
            cluster.patch(probe::CONFIG, namespace, "b", "", &json!({ "data": { "other": n.to_string() } })).await?;
        }
        cluster.patch(probe::CONFIG, namespace, "b", "", &json!({ "data": { "value": "2" } })).await?;
        step(&["b=2"]).await?;
        let label = |app: &str| json!({ "metadata": { "labels": { "app": app } } });
        cluster.patch(probe::CONFIG, namespace, "neighbour", "", &label("web")).await?;
        step(&["b=2", "neighbour=19"]).await?;
        cluster.patch(probe::CONFIG, namespace, "b", "", &label("db")).await?;
        step(&["neighbour=19"]).await?;
        cluster.delete(probe::CONFIG, namespace, "neighbour").await?;
        step(&[]).await
    });
}

/// Each of three readers takes the refusal as it comes: its plan is complete, and nothing but the read itself can wake it. One may
/// neither list nor get, one may list and watch but not get, and one reads a kind that nobody has installed. Then the rights are
/// granted and the kind is installed. The period after which rights are asked for anew is 1 s here instead of 30 s.
///
/// Promises: R2
/// Breaks it: a refused read that is no dependency.
#[test]
fn what_was_refused_or_unknown_is_read_as_soon_as_it_may_be() {
    scene("refused", async |scene: &Scene<'_>| {
        reader::install(scene).await?;
        reader::may(scene, "ServiceAccounts", "\"\"", "serviceaccounts", "list, watch").await?;
        reader::may(scene, "Secrets", "\"\"", "secrets", "create").await?;
        let options = Options { flags: vec!["--recheck-period=1s".into()], ..scene.options() };
        let _host = scene.host_with(&options).await?;
        let get = json!({ "kind": "v1/ServiceAccount", "name": "default", "tolerant": true });
        probe::set(scene, "half", get).await?;
        probe::set(scene, "none", reader::list("v1/Secret", "")).await?;
        probe::set(scene, "unknown", reader::list("late.reef.dev/v1/Late", "")).await?;
        let namespace = &*scene.namespace;
        let sentence = format!(
            "ServiceAccount {namespace}/reader may not get serviceaccounts in namespace {namespace}: add the rule to its Role"
        );
        reader::was_refused(scene, "half", &sentence).await?;
        reader::was_refused(scene, "none", "secrets is forbidden").await?;
        reader::was_refused(scene, "unknown", "serves no kind late.reef.dev/v1/Late").await?;

        reader::may(scene, "ServiceAccounts", "\"\"", "serviceaccounts", "get, list, watch").await?;
        reader::has_found(scene, "half", &["default"]).await?;
        reader::may(scene, "Secrets", "\"\"", "secrets", "get, list, watch").await?;
        reader::has_found(scene, "none", &[]).await?;
        scene.cluster().apply_object("", &reader::definition("late.reef.dev", "Late", &["v1"], "v1")).await?;
        reader::has_found(scene, "unknown", &[]).await?;
        let late = json!({ "apiVersion": "late.reef.dev/v1", "kind": "Late", "metadata": { "name": "x" } });
        scene.cluster().create(namespace, &late).await?;
        reader::has_found(scene, "unknown", &["x"]).await.map(drop)
    });
}

/// Each of five objects lists 1,200 ConfigMaps, of which the host has no copy before the first of them asks. It is restarted
/// three times, and whatever the readers have found is all of it.
///
/// Promises: R5
/// Breaks it: answers from a cache that is being filled.
#[test]
fn a_list_from_a_cache_that_is_being_filled_never_looks_short() {
    const OBJECTS: usize = 1200;
    scene("filling", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        reader::install(scene).await?;
        let names: Vec<usize> = (0..OBJECTS).collect();
        for some in names.chunks(OBJECTS / 10) {
            let create = async |n: &usize| {
                let mut object = labelled(&format!("c{n}"), "web", "x");
                object["data"]["padding"] = "x".repeat(2000).into();
                cluster.create(namespace, &object).await
            };
            futures::future::try_join_all(some.iter().map(create)).await?;
        }
        let spec = json!({ "kind": probe::CONFIG, "selector": "app=web", "fields": ["/metadata/labels"] });
        for n in 0..5 {
            probe::set(scene, &format!("reader-{n}"), spec.clone()).await?;
        }
        for _ in 0..3 {
            let host = scene.host().await?;
            host.wait_for_log("has answered all five", |_| reader::counts(&host).len() >= 5).await?;
            let counts = reader::counts(&host);
            ensure!(counts.iter().all(|count| *count == OBJECTS.to_string()), "lists of {counts:?} objects");
            scene.kill(&host).await?;
        }
        Ok(())
    });
}
