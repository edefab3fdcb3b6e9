//! What is wrong with one kind or one object stays there: forbidden, not installed, too deep, too large.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reef_tests::{
    cluster::condition,
    host::{Options, field, message},
    world::{Scene, scene},
};
use serde_json::{Value, json};

use crate::{hello, probe, reader};

/// One reader may not list what it reads: it says so by its kind and account, the metric shows that one scope, the log names
/// it. Another reader of the same plugin follows another kind all the while.
///
/// Promises: C7
/// Breaks it: one failure for all scopes of a plugin.
#[test]
fn a_forbidden_kind_stops_only_itself_and_is_named() {
    scene("forbidden", async |scene: &Scene<'_>| {
        reader::install(scene).await?;
        reader::may(scene, "Secrets", "\"\"", "secrets", "create").await?;
        reader::may(scene, "ServiceAccounts", "\"\"", "serviceaccounts", "create").await?;
        let host = scene.host().await?;
        probe::set(scene, "fine", json!({ "kind": probe::CONFIG, "name": "source" })).await?;
        probe::set(scene, "refused", json!({ "kind": "v1/ServiceAccount" })).await?;
        let failed = probe::says(scene, "refused", "False", "Forbidden").await?;
        hello::has(&probe::sentence(&failed), &["serviceaccounts is forbidden", &format!("{}:reader", scene.namespace)])?;
        let namespace = &*scene.namespace;
        for value in ["one", "two"] {
            scene.cluster().apply_object(namespace, &probe::config("source", json!({ "value": value }))).await?;
            reader::has_found(scene, "fine", &[&format!("source={value}")]).await?;
        }
        let metrics = host.metrics().await?;
        for (kind, synced) in [("v1/ServiceAccount", 0.0), (probe::CONFIG, 1.0), (probe::PROBE, 1.0)] {
            let shown = metrics.sum("reef_cache_synced", &[("kind", kind), ("namespace", namespace)]);
            ensure!(shown == synced, "reef_cache_synced of {kind} is {shown}");
        }
        let named = |line: &Value| message(line).starts_with("not watched") && field(line, "kind") == Some("v1/ServiceAccount");
        let others = |line: &Value| message(line).starts_with("not watched") && !named(line);
        ensure!(host.log().iter().any(named), "the log does not name the kind");
        ensure!(!host.log().iter().any(others), "another kind is not watched either");
        Ok(())
    });
}

/// A kind that a reader lists is not there, comes, goes with its object, comes back, is served in another version only, and
/// in the first one again. While it is away, the API server is asked for it every two seconds at most, however many read it.
///
/// Promises: C8
/// Breaks it: a wait that does not grow, or discovery that is believed for ever.
#[test]
fn a_kind_that_is_not_installed_is_waited_for_without_a_storm() {
    const GROUP: &str = "gone.reef.dev";
    const CRD: &str = "apiextensions.k8s.io/v1/CustomResourceDefinition";
    scene("comes-and-goes", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let object = json!({ "apiVersion": "gone.reef.dev/v1", "kind": "Gone", "metadata": { "name": "x" } });
        reader::install(scene).await?;
        let _host = scene.host().await?;
        let spec = |n: usize| json!({ "kind": "gone.reef.dev/v1/Gone", "tolerant": true, "round": n });
        for n in 0..10 {
            probe::set(scene, &format!("r{n}"), spec(0)).await?;
        }
        for n in 0..10 {
            reader::was_refused(scene, &format!("r{n}"), "serves no kind gone.reef.dev/v1/Gone").await?;
        }
        // The waits grow up to ten seconds; how many requests there are in a given time is what this is about.
        tokio::time::sleep(Duration::from_secs(8)).await;
        let begin = scene.world.audit.mark(cluster).await?;
        tokio::time::sleep(Duration::from_secs(12)).await;
        let asked = scene.world.audit.since(begin)?;
        let asked = asked.iter().filter(|r| r.is_by_reef() && r.uri.contains(GROUP)).count();
        ensure!((1..=12).contains(&asked), "{asked} requests in 12 s for a kind that is not there");

        for (round, versions) in [(1, ["v1", "v2"]), (2, ["v1", "v2"])] {
            cluster.apply_object("", &reader::definition(GROUP, "Gone", &versions, "v1")).await?;
            reader::has_found(scene, "r0", &[]).await?;
            cluster.create(namespace, &object).await?;
            reader::has_found(scene, "r0", &["x"]).await?;
            if round == 1 {
                cluster.delete(CRD, "", "gones.gone.reef.dev").await?;
                cluster.wait(CRD, "", "gones.gone.reef.dev", "is gone", |crd| crd.is_none()).await?;
            } else {
                cluster.apply_object("", &reader::definition(GROUP, "Gone", &versions, "v2")).await?;
            }
            let refused = || async {
                let touched = probe::set(scene, "r0", spec(Instant::now().elapsed().subsec_nanos() as usize)).await;
                let reader = cluster.get(probe::PROBE, namespace, "r0").await.ok().flatten().unwrap_or_default();
                touched.is_ok() && reader["status"]["error"].as_str().is_some_and(|e| !e.is_empty())
            };
            probe::until("the reader says that the kind is gone", refused).await?;
        }
        cluster.apply_object("", &reader::definition(GROUP, "Gone", &["v1", "v2"], "v1")).await?;
        reader::has_found(scene, "r0", &["x"]).await?;
        cluster.delete(CRD, "", "gones.gone.reef.dev").await
    });
}

/// A Probe that is nested 9,000 levels deep, as whoever may create one can: first it comes with an event, and after a restart
/// with the list. The host keeps it like any other; a plugin that decodes all of it cannot, and that object alone fails and is
/// named, while its neighbour follows its edits.
///
/// Promises: C6
/// Breaks it: objects that are decoded with a limit of depth where the list is taken apart.
#[test]
fn an_object_that_is_too_deep_to_decode_fails_alone_and_is_named() {
    const LEVELS: usize = 9000;
    scene("too-deep", async |scene: &Scene<'_>| {
        let namespace = &*scene.namespace;
        reader::install(scene).await?;
        let mut host = scene.host().await?;
        probe::ready(scene, "reader").await?;
        let deep = format!("{}1{}", r#"{"a":"#.repeat(LEVELS), "}".repeat(LEVELS));
        let object = format!(
            r#"{{"apiVersion":"test.reef.dev/v1","kind":"Probe","metadata":{{"name":"deep"}},"spec":{{"kind":"v1/ConfigMap","anything":{deep}}}}}"#
        );
        let path = scene.cluster().path(probe::PROBE, namespace, None).await?;
        let request = http::Request::post(path).header("content-type", "application/json").body(object.into_bytes())?;
        scene.cluster().client().request_text(request).await.context("the API server takes it")?;
        for round in ["two", "three"] {
            let source = probe::config("source", json!({ "value": round }));
            scene.cluster().apply_object(namespace, &source).await?;
            probe::set(scene, "fine", json!({ "kind": probe::CONFIG, "name": "source", "round": round })).await?;
            reader::has_found(scene, "fine", &[&format!("source={round}")]).await?;
            let named = |plugin: Option<&Value>| {
                let failing = plugin.map(|plugin| plugin["status"]["failing"].clone()).unwrap_or_default();
                failing["count"] == 1 && failing["objects"][0]["name"] == "deep"
            };
            let plugin = scene.cluster().wait(probe::PLUGIN, namespace, "reader", "names the object", named).await?;
            hello::has(plugin["status"]["failing"]["objects"][0]["message"].as_str().unwrap_or_default(), &["recursion limit"])?;
            let metrics = host.metrics().await?;
            let failing = [("controller", &*format!("{namespace}/reader"))];
            ensure!(metrics.sum("reef_plugin_failing_objects", &failing) == 1.0);
            let kept = metrics.sum("reef_cache_objects", &[("kind", probe::PROBE), ("namespace", namespace)]);
            ensure!(kept == 2.0, "{kept} of 2 objects are kept");
            scene.kill(&host).await?;
            host = scene.host().await?;
        }
        Ok(())
    });
}

/// The store may hold 3 MiB. One plugin lists Secrets of 2 MB; then comes one that owns ConfigMaps, of which there are 2 MB
/// as well: it says what does not fit and which flag says so, the first one and the host go on. Then the first one leaves.
///
/// Promises: C9
/// Breaks it: a budget that nobody enforces, or that is never looked at again.
#[test]
fn a_scope_that_does_not_fit_is_refused_with_a_condition_until_there_is_room() {
    scene("budget", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        for n in 0..20 {
            let data = json!({ "data": "eHh4".repeat(25_000) });
            let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": format!("s{n}") }, "data": data });
            cluster.create(namespace, &secret).await?;
            cluster.create(namespace, &probe::config(&format!("c{n}"), json!({ "data": "x".repeat(100_000) }))).await?;
        }
        reader::install(scene).await?;
        let options = Options { flags: vec!["--cache-budget=3Mi".into()], ..scene.options() };
        let host = scene.host_with(&options).await?;
        probe::ready(scene, "reader").await?;
        let spec = |n: u32| json!({ "kind": "v1/Secret", "fields": ["/kind"], "round": n });
        probe::set(scene, "reads", spec(1)).await?;
        probe::reconciled(scene, "reads").await?;

        probe::install_as(scene, "cleaner").await?;
        let said = hello::plugin_says(scene, "cleaner", ("Ready", "False", "CacheFull")).await?;
        hello::has(&said, &["v1/ConfigMap", &format!("namespace {namespace}"), "bytes", "--cache-budget 3Mi"])?;
        let kept = async |kind: &str| -> Result<f64> {
            Ok(host.metrics().await?.sum("reef_cache_bytes", &[("kind", kind), ("namespace", namespace)]))
        };
        ensure!(kept("v1/ConfigMap").await? == 0.0 && kept("v1/Secret").await? > 2e6, "the wrong one was refused");
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "zz" } });
        cluster.create(namespace, &secret).await?;
        let found =
            |o: Option<&Value>| o.is_some_and(|o| o["status"]["found"].as_array().is_some_and(|f| f.contains(&json!("zz"))));
        cluster.wait(probe::PROBE, namespace, "reads", "has found the new Secret", found).await?;
        ensure!(host.exit().is_none(), "the host has ended");

        cluster.delete(probe::PLUGIN, namespace, "reader").await?;
        probe::ready(scene, "cleaner").await?;
        probe::set(scene, "works", json!({})).await?;
        let cleaned = |o: Option<&Value>| condition(o, "Cleaned").is_some_and(|c| c["status"] == "True");
        cluster.wait(probe::PROBE, namespace, "works", "is reconciled by the one that had no room", cleaned).await?;
        ensure!(kept("v1/ConfigMap").await? > 2e6);
        Ok(())
    });
}
