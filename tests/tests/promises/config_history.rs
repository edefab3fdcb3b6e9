//! The plugin `config-history`: objects that are listed, created once, deleted by name, and no children of anybody.

mod reads;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use reef_tests::world::{Scene, scene};
use serde_json::{Value, json};

use crate::{
    hello::{self, events, object_says, sentence},
    probe::{self, CONFIG},
};

const HISTORY: &str = "demo.reef.dev/v1/ConfigHistory";
const LABEL: &str = "demo.reef.dev/config-history";

async fn install(scene: &Scene<'_>) -> Result<()> {
    hello::install_example(scene, "config-history", &[("crd.yaml", HISTORY)]).await
}

async fn set(scene: &Scene<'_>, name: &str, spec: Value) -> Result<Value> {
    let history =
        json!({ "apiVersion": "demo.reef.dev/v1", "kind": "ConfigHistory", "metadata": { "name": name }, "spec": spec });
    scene.cluster().apply_object(&scene.namespace, &history).await
}

async fn edit(scene: &Scene<'_>, name: &str, text: &str) -> Result<Value> {
    let mut source = probe::config(name, json!({ "text": text }));
    source["metadata"]["labels"] = json!({ "app": "web" });
    scene.cluster().apply_object(&scene.namespace, &source).await
}

/// What the copies of a history say, in the order in which they were taken.
async fn texts(scene: &Scene<'_>, history: &str) -> Result<Vec<String>> {
    let copies = scene.cluster().list(CONFIG, &scene.namespace).await?;
    let ours = copies.iter().filter(|copy| copy["metadata"]["labels"][LABEL] == history);
    let numbered = ours.map(|copy| {
        let number = copy["metadata"]["annotations"]["demo.reef.dev/version"].as_str().and_then(|n| n.parse::<u64>().ok());
        (number, copy["data"]["text"].as_str().unwrap_or_default().to_owned())
    });
    Ok(numbered.collect::<BTreeMap<_, _>>().into_values().collect())
}

async fn has(scene: &Scene<'_>, history: &str, wanted: &[&str]) -> Result<()> {
    let there = || async { texts(scene, history).await.is_ok_and(|texts| texts == wanted) };
    probe::until(&format!("{history} has kept {wanted:?}"), there).await
}

/// Waits until so many versions have been told; an event comes after the status.
async fn told(scene: &Scene<'_>, history: &str, versions: usize) -> Result<()> {
    let all = || async { events(scene, history, "VersionKept").await.is_ok_and(|events| events.len() == versions) };
    probe::until(&format!("{history} has told of {versions} versions"), all).await
}

async fn kept(scene: &Scene<'_>, history: &str) -> Result<Value> {
    object_says(scene, HISTORY, history, ("UpToDate", "True", "Kept")).await
}

/// The second edit is made while no host is there; the third brings back what has been there before.
///
/// Promises: R2, W2
/// Breaks it: a ConfigMap that changes and wakes nobody, a copy that is not deleted or made again in each run, or a status that
/// changes with the time.
#[test]
fn the_last_versions_of_a_config_map_are_kept_with_an_event_each_and_then_nothing_is_written() {
    scene("history", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let host = scene.host().await?;
        install(scene).await?;
        set(scene, "h", json!({ "selector": "app=web", "keep": 2 })).await?;
        let nothing = object_says(scene, HISTORY, "h", ("UpToDate", "False", "NothingSelected")).await?;
        hello::has(&sentence(&nothing, "UpToDate"), &["no ConfigMap matches `app=web`"])?;

        edit(scene, "web", "one").await?;
        has(scene, "h", &["one"]).await?;
        // Whoever is killed before it has told of something does not tell of it any more.
        told(scene, "h", 1).await?;
        scene.kill(&host).await?;
        edit(scene, "web", "two").await?;
        let host = scene.host().await?;
        has(scene, "h", &["one", "two"]).await?;
        edit(scene, "web", "three").await?;
        has(scene, "h", &["two", "three"]).await?;
        told(scene, "h", 3).await?;
        let two = |history: Option<&Value>| history.is_some_and(|h| h["status"]["versions"] == 2 && h["status"]["sources"] == 1);
        cluster.wait(HISTORY, namespace, "h", "has two versions of one source", two).await?;
        kept(scene, "h").await?;
        let host = hello::restarted_and_steady(scene, &host, "config-history").await?;

        edit(scene, "web", "two").await?;
        has(scene, "h", &["three", "two"]).await?;
        edit(scene, "web", "four").await?;
        has(scene, "h", &["two", "four"]).await?;
        kept(scene, "h").await?;
        hello::restarted_and_steady(scene, &host, "config-history").await.map(drop)
    });
}

/// Promises: Q6
/// Breaks it: a timer that is not set, or forgotten, or a version for each edit.
#[test]
fn edits_in_quick_succession_are_one_version_when_their_time_has_come() {
    scene("history-every", async |scene: &Scene<'_>| {
        let _host = scene.host().await?;
        install(scene).await?;
        edit(scene, "web", "one").await?;
        set(scene, "h", json!({ "selector": "app=web", "every": "5s" })).await?;
        has(scene, "h", &["one"]).await?;
        edit(scene, "web", "two").await?;
        let waits = object_says(scene, HISTORY, "h", ("UpToDate", "False", "Waiting")).await?;
        hello::has(&sentence(&waits, "UpToDate"), &["changed ConfigMaps wait until 20"])?;
        edit(scene, "web", "three").await?;
        has(scene, "h", &["one", "three"]).await?;
        kept(scene, "h").await?;
        told(scene, "h", 2).await
    });
}

/// The selector matches whatever has not a certain label, so all copies too, were they not told apart.
///
/// Promises: W2, R3
/// Breaks it: copies that are taken for sources, or wake the history that has made them.
#[test]
fn copies_are_no_sources_and_wake_nobody() {
    scene("history-all", async |scene: &Scene<'_>| {
        let host = scene.host().await?;
        install(scene).await?;
        edit(scene, "web", "one").await?;
        let wanted = scene.cluster().list(CONFIG, &scene.namespace).await?.len();
        for name in ["h", "i"] {
            set(scene, name, json!({ "selector": "!legacy" })).await?;
        }
        for name in ["h", "i"] {
            let history = kept(scene, name).await?;
            ensure!(history["status"]["sources"] == wanted && history["status"]["versions"] == wanted, "{history:#}");
        }
        let before = probe::reconciles(scene, &host, "config-history", None).await?;
        edit(scene, "web", "two").await?;
        for name in ["h", "i"] {
            let grown = |history: Option<&Value>| history.is_some_and(|history| history["status"]["versions"] == wanted + 1);
            scene.cluster().wait(HISTORY, &scene.namespace, name, "has one version more", grown).await?;
        }
        let runs = probe::reconciles(scene, &host, "config-history", None).await? - before;
        ensure!(runs <= 4, "one edit of what two histories select made {runs} runs");
        ensure!(scene.cluster().list(CONFIG, &scene.namespace).await?.len() == 3 * wanted + 2);
        hello::restarted_and_steady(scene, &host, "config-history").await.map(drop)
    });
}

/// Promises: W4
/// Breaks it: a cleanup that deletes what is not its own, or lets the history go before its copies.
#[test]
fn a_deleted_history_leaves_its_copies_or_takes_them_along_as_it_says() {
    scene("history-gone", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let host = scene.host().await?;
        install(scene).await?;
        edit(scene, "web", "one").await?;
        set(scene, "retains", json!({ "selector": "app=web" })).await?;
        set(scene, "drops", json!({ "selector": "app=web", "retain": false })).await?;
        for name in ["retains", "drops"] {
            has(scene, name, &["one"]).await?;
            kept(scene, name).await?;
            told(scene, name, 1).await?;
        }
        for name in ["retains", "drops"] {
            cluster.delete(HISTORY, namespace, name).await?;
            cluster.wait(HISTORY, namespace, name, "is gone", |object| object.is_none()).await?;
        }
        ensure!(texts(scene, "drops").await?.is_empty(), "the history went before its copies");
        ensure!(texts(scene, "retains").await? == ["one"] && cluster.get(CONFIG, namespace, "web").await?.is_some());

        // A history of that name goes on with them.
        set(scene, "retains", json!({ "selector": "app=web", "keep": 1 })).await?;
        kept(scene, "retains").await?;
        ensure!(events(scene, "retains", "VersionKept").await?.len() == 1);
        edit(scene, "web", "two").await?;
        has(scene, "retains", &["two"]).await?;
        kept(scene, "retains").await?;
        hello::restarted_and_steady(scene, &host, "config-history").await.map(drop)
    });
}

/// Promises: W4, W11
/// Breaks it: a foreign ConfigMap that is taken for a copy, or deleted as one.
#[test]
fn a_copy_whose_name_somebody_else_has_is_told_and_made_when_it_is_free() {
    scene("history-name", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let _host = scene.host().await?;
        install(scene).await?;
        edit(scene, "web", "one").await?;
        set(scene, "h", json!({ "selector": "app=web" })).await?;
        has(scene, "h", &["one"]).await?;
        let copies = cluster.list(CONFIG, namespace).await?;
        let copy = copies.iter().find(|copy| copy["metadata"]["labels"][LABEL] == "h").cloned().unwrap_or_default();
        let name = copy["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        // Without its label it is nobody's copy.
        cluster.patch(CONFIG, namespace, &name, "", &json!({ "metadata": { "labels": { LABEL: null } } })).await?;
        let taken = object_says(scene, HISTORY, "h", ("UpToDate", "False", "NameTaken")).await?;
        hello::has(&sentence(&taken, "UpToDate"), &[&format!("there is a ConfigMap {name}, and it is no copy of this history")])?;
        cluster.delete(CONFIG, namespace, &name).await?;
        has(scene, "h", &["one"]).await?;
        kept(scene, "h").await.map(drop)
    });
}

/// Promises: W11
/// Breaks it: a history that says that all is kept while its selector selects nothing because it is none.
#[test]
fn a_selector_that_is_none_is_told_as_it_was_written_until_it_is_one() {
    scene("history-selector", async |scene: &Scene<'_>| {
        scene.host().await?;
        install(scene).await?;
        edit(scene, "web", "one").await?;
        set(scene, "h", json!({ "selector": "app=web" })).await?;
        kept(scene, "h").await?;
        set(scene, "h", json!({ "selector": "app in (" })).await?;
        let wrong = object_says(scene, HISTORY, "h", ("UpToDate", "False", "CannotRead")).await?;
        hello::has(&sentence(&wrong, "UpToDate"), &["`app in (` is no part of a label selector"])?;
        object_says(scene, HISTORY, "h", ("Reconciled", "False", "ReadFailed")).await?;
        ensure!(texts(scene, "h").await? == ["one"], "what was kept is lost");
        set(scene, "h", json!({ "selector": "app in (web)" })).await?;
        kept(scene, "h").await.map(drop)
    });
}
