//! The life of a plugin: what becomes of it when its resource, its component or its rights change.

use anyhow::{Context, Result, ensure};
use reef_tests::{
    cluster::condition,
    host::Options,
    world::{Scene, scene},
};
use serde_json::{Value, json};

use crate::{
    hello::{self, HELLO},
    probe::{self, PLUGIN},
};

const BINDING: &str = "rbac.authorization.k8s.io/v1/RoleBinding";

/// A host that looks again soon.
fn options(scene: &Scene<'_>) -> Options {
    Options { flags: vec!["--recheck-period=1s".into()], ..scene.options() }
}

/// Both would write the condition `Reconciled` of the same objects, each waking the other by it.
///
/// Promises: O1
/// Breaks it: two authors of one condition, which then write for ever.
#[test]
fn of_two_plugins_that_write_one_condition_the_younger_is_refused() {
    scene("one-condition", async |scene: &Scene<'_>| {
        scene.host().await?;
        hello::install(scene).await?;
        hello::plugin_says(scene, "hello", ("Ready", "True", "Ready")).await?;
        let spec = json!({ "source": { "file": "hello.wasm" }, "serviceAccountName": "hello", "fieldManager": "second" });
        hello::plugin(scene, "second", spec).await?;
        let said = hello::plugin_says(scene, "second", ("Resolved", "False", "ConditionTaken")).await?;
        hello::has(&said, &["plugin", "/hello already writes the condition `Reconciled` of", HELLO, "suspend one of the two"])?;
        hello::says(scene, "one").await?;
        scene.cluster().delete(PLUGIN, &scene.namespace, "hello").await?;
        hello::plugin_says(scene, "second", ("Ready", "True", "Ready")).await.map(drop)
    });
}

/// Promises: R4, O1
/// Breaks it: rights that are looked at once, or a guest that is given what only the shared copy may see.
#[test]
fn a_plugin_that_loses_its_rights_says_so_stops_and_goes_on_when_it_has_them_again() {
    scene("lost-rights", async |scene: &Scene<'_>| {
        scene.host_with(&options(scene)).await?;
        hello::install(scene).await?;
        hello::says(scene, "before").await?;
        let mut binding = scene.cluster().get(BINDING, &scene.namespace, "hello").await?.context("there is no binding")?;
        scene.cluster().delete(BINDING, &scene.namespace, "hello").await?;
        let said = hello::plugin_says(scene, "hello", ("Ready", "False", "MissingRights")).await?;
        hello::has(&said, &["ServiceAccount", "/hello may not do all", r#"resources: ["configmaps"]"#])?;
        hello::set(scene, "meanwhile").await?;
        let forbidden = |plugin: Option<&Value>| {
            plugin.is_some_and(|plugin| {
                let named = &plugin["status"]["failing"]["objects"][0];
                named["name"] == "greeting" && named["reason"] == "Forbidden"
            })
        };
        scene.cluster().wait(PLUGIN, &scene.namespace, "hello", "names the object that it may not see", forbidden).await?;
        let config = scene.cluster().get(probe::CONFIG, &scene.namespace, "greeting").await?;
        ensure!(config.is_some_and(|config| config["data"]["text"] == "before"), "it was written without the right");
        binding["metadata"] = json!({ "name": "hello" });
        scene.cluster().create(&scene.namespace, &binding).await?;
        probe::config_says(scene, "greeting", "text", "meanwhile").await?;
        hello::plugin_says(scene, "hello", ("Ready", "True", "Ready")).await.map(drop)
    });
}

/// Its rights are not looked at again within this test: what an object cannot say itself, its Plugin says.
///
/// Promises: O1, W11
/// Breaks it: a failure that is told nowhere because the object may not be written.
#[test]
fn why_an_object_can_no_longer_be_written_stands_on_its_plugin() {
    scene("speechless", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let seldom = Options { flags: vec!["--recheck-period=1h".into()], ..scene.options() };
        scene.host_with(&seldom).await?;
        hello::install(scene).await?;
        hello::says(scene, "before").await?;
        cluster.delete(BINDING, namespace, "hello").await?;
        let told = || async {
            let edited = hello::set(scene, &format!("{:?}", std::time::Instant::now())).await;
            let plugin = cluster.get(PLUGIN, namespace, "hello").await.ok().flatten().unwrap_or_default();
            let named = &plugin["status"]["failing"]["objects"][0];
            let says = |part: &str| named["message"].as_str().is_some_and(|message| message.contains(part));
            edited.is_ok() && named["name"] == "greeting" && named["reason"] == "Forbidden" && says("add to a Role")
        };
        probe::until("the Plugin says which rule is missing", told).await
    });
}

/// Promises: L2, L3, L4
/// Breaks it: a component that cannot run, or may not, in the place of one that does.
#[test]
fn the_last_good_component_runs_on_while_the_new_one_cannot_or_may_not() {
    scene("last-good", async |scene: &Scene<'_>| {
        scene.host_with(&options(scene)).await?;
        hello::install(scene).await?;
        probe::install(scene).await?;
        hello::says(scene, "one").await?;
        let cases: [(Vec<u8>, &str, &[&str]); 3] = [
            (b"\0asm".to_vec(), "two", &["runs on; the new one does not: Refused"]),
            // Another kind, of which the account knows nothing.
            (hello::component("probe")?, "three", &["runs on; the new one does not: MissingRights", "test.reef.dev"]),
            (Vec::new(), "four", &["runs on; the new one does not: SourceFailed", "is empty"]),
        ];
        for (bytes, text, parts) in cases {
            scene.place("hello.wasm", &bytes)?;
            let said = hello::plugin_says(scene, "hello", ("Ready", "True", "LastGood"));
            let said = loop_until(said, parts, scene).await?;
            hello::has(&said, parts)?;
            hello::says(scene, text).await?;
        }
        scene.place("hello.wasm", &hello::component("hello-v2")?)?;
        probe::config_says(scene, "greeting", "text", "FOUR").await?;
        hello::plugin_says(scene, "hello", ("Ready", "True", "Ready")).await.map(drop)
    });
}

/// The first sentence may still be the one before.
async fn loop_until(first: impl Future<Output = Result<String>>, parts: &[&str], scene: &Scene<'_>) -> Result<String> {
    first.await?;
    let all = |plugin: Option<&Value>| {
        let message = condition(plugin, "Ready").and_then(|c| c["message"].as_str());
        message.is_some_and(|message| parts.iter().all(|part| message.contains(part)))
    };
    let plugin = scene.cluster().wait(PLUGIN, &scene.namespace, "hello", &format!("says {parts:?}"), all).await?;
    Ok(condition(Some(&plugin), "Ready").and_then(|c| c["message"].as_str()).unwrap_or_default().to_owned())
}

/// The cache of compiled code is empty, so that a resource goes while its component is still being compiled.
///
/// Promises: O1
/// Breaks it: what belongs to a resource that is gone started, ended or spoken of in the place of its successor.
#[test]
fn a_plugin_that_is_deleted_and_created_again_at_once_runs_as_the_last_one_says() {
    scene("again-and-again", async |scene: &Scene<'_>| {
        let host = scene.host_with(&Options { cache_dir: scene.dir().join("cache"), ..scene.options() }).await?;
        hello::install(scene).await?;
        scene.place("shouted.wasm", &hello::component("hello-v2")?)?;
        for round in 0..6 {
            scene.cluster().delete(PLUGIN, &scene.namespace, "hello").await?;
            let file = if round % 2 == 0 { "hello.wasm" } else { "shouted.wasm" };
            hello::plugin(scene, "hello", json!({ "source": { "file": file } })).await?;
        }
        hello::plugin_says(scene, "hello", ("Ready", "True", "Ready")).await?;
        let plugin = scene.cluster().get(PLUGIN, &scene.namespace, "hello").await?.context("the Plugin is gone")?;
        ensure!(plugin["status"]["component"] == "hello 0.2.0", "{}", plugin["status"]);
        hello::set(scene, "quiet").await?;
        probe::config_says(scene, "greeting", "text", "QUIET").await?;
        scene.cluster().delete(PLUGIN, &scene.namespace, "hello").await?;
        probe::until("nothing of it runs any more", || async {
            host.metrics().await.is_ok_and(|metrics| metrics.sum("reef_cache_objects", &[("namespace", &scene.namespace)]) == 0.0)
        })
        .await
    });
}

/// Promises: O1, O2
/// Breaks it: a plugin that runs on under another class, or whose status goes on saying that it does.
#[test]
fn a_plugin_that_is_given_to_another_class_is_let_go_and_says_so() {
    scene("another-class", async |scene: &Scene<'_>| {
        scene.host().await?;
        hello::install(scene).await?;
        hello::says(scene, "mine").await?;
        let class = |class: &str| json!({ "spec": { "className": class } });
        scene.cluster().patch(PLUGIN, &scene.namespace, "hello", "", &class("nobodys")).await?;
        let said = hello::plugin_says(scene, "hello", ("Ready", "Unknown", "OtherClass")).await?;
        hello::has(&said, &["this host has stopped it", "spec.className is `nobodys`"])?;
        hello::set(scene, "nobodys").await?;
        scene.cluster().patch(PLUGIN, &scene.namespace, "hello", "", &class(&scene.namespace)).await?;
        probe::config_says(scene, "greeting", "text", "nobodys").await?;
        hello::plugin_says(scene, "hello", ("Ready", "True", "Ready")).await?;
        // And all of it was told as events.
        let events = scene.cluster().list("events.k8s.io/v1/Event", &scene.namespace).await?;
        let mut told: Vec<(String, &Value)> = events
            .iter()
            .filter(|event| event["regarding"]["kind"] == "Plugin")
            .map(|event| (event["eventTime"].to_string(), &event["reason"]))
            .collect();
        told.sort_by(|a, b| a.0.cmp(&b.0));
        let told: Vec<&Value> = told.into_iter().map(|(_, reason)| reason).collect();
        ensure!(told == ["Ready", "OtherClass", "Ready"], "events: {told:?}");
        Ok(())
    });
}
