//! Into a namespace and out of it again: `install`, `list`, `status`, `uninstall`.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use reef_tests::{
    control_plane::Setup,
    world::{Scene, scene, scene_apart},
};
use serde_json::{Value, json};

use super::{Said, done, everything, failed, install, json_of, reef, reef_as, visitor, words};
use crate::{
    hello,
    probe::{self, CONFIG, PLUGIN},
};

const HISTORY: &str = "demo.reef.dev/v1/ConfigHistory";

/// A plugin that holds its objects by a finalizer, and makes objects that have no owner: installed from its component alone, it
/// serves; before it is uninstalled, somebody is asked, or has to say yes; and then it, its kind, the objects of that, and what it
/// made of them are gone.
///
/// Promises: K3
/// Breaks it: an object that install makes and uninstall does not know, or an account that goes before the last cleanup.
#[test]
fn what_is_installed_from_a_component_serves_and_uninstalled_leaves_nothing() {
    scene_apart("installed", Setup::default(), async |scene: &Scene<'_>| {
        scene.host().await?;
        let mut source = probe::config("page", json!({ "text": "one" }));
        source["metadata"]["labels"] = json!({ "app": "web" });
        scene.cluster().apply_object(&scene.namespace, &source).await?;
        let before = everything(scene).await?;

        let said = done(scene, &words(&install(scene, "config-history", &[])?))?;
        hello::has(&said, &["CustomResourceDefinition confighistories.demo.reef.dev", "created", "config-history True: "])?;
        let sample = std::fs::read_to_string(reef_tests::paths::checkout().join("plugins/config-history/sample.yaml"))?;
        scene.apply(&sample).await?;
        hello::object_says(scene, HISTORY, "web", ("UpToDate", "True", "Kept")).await?;

        let n = &["-n", &*scene.namespace][..];
        let look = done(scene, &[&["uninstall", "config-history", "--crds", "--dry-run"], n].concat())?;
        hello::has(
            &look,
            &["Plugin ", "CustomResourceDefinition", "1 objects of", "are lost", "finalizer `reef.dev/config-history`"],
        )?;
        failed(&reef(scene, &[&["uninstall", "config-history"], n].concat())?, &["this is no terminal", "--yes"])?;
        ensure!(scene.cluster().get(PLUGIN, &scene.namespace, "config-history").await?.is_some(), "it went without a yes");

        let said = done(scene, &[&["uninstall", "config-history", "--crds", "--yes"], n].concat())?;
        hello::has(&said, &["uninstalled config-history from namespace"])?;
        let after = everything(scene).await?;
        let left: BTreeSet<_> = after.symmetric_difference(&before).collect();
        ensure!(left.is_empty(), "left behind, or taken along: {left:?}");
        failed(&reef(scene, &[&["uninstall", "config-history", "--yes"], n].concat())?, &["there is no Plugin config-history"])
    });
}

/// Which version of which object there is.
async fn versions(scene: &Scene<'_>) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for kind in
        ["v1/ServiceAccount", "rbac.authorization.k8s.io/v1/Role", "rbac.authorization.k8s.io/v1/RoleBinding", PLUGIN, CONFIG]
    {
        for object in scene.cluster().list(kind, &scene.namespace).await? {
            let metadata = &object["metadata"];
            let version = if kind == PLUGIN { &metadata["generation"] } else { &metadata["resourceVersion"] };
            all.push(format!("{kind} {} {version}", metadata["name"]));
        }
    }
    Ok(all)
}

/// Installed twice, nothing changes; on a control plane of its own, because the CRD belongs to all namespaces, and other tests
/// apply it too. What somebody else has set or made is neither overwritten nor taken over, and where the rights
/// are missing nothing is begun.
///
/// Promises: O1
/// Breaks it: an apply with force, an object adopted by its name, or a Role made before the Plugin is known to be refused.
#[test]
fn an_installation_repeats_itself_without_a_change_and_takes_nothing_from_anybody() {
    scene_apart("installed-twice", Setup::default(), async |scene: &Scene<'_>| {
        scene.host().await?;
        let line = install(scene, "hello", &[])?;
        done(scene, &words(&line))?;
        hello::says(scene, "one").await?;
        let before = versions(scene).await?;
        let said = done(scene, &words(&line))?;
        let results: Vec<&str> = said.lines().take(7).filter_map(|line| line.split_whitespace().last()).collect();
        ensure!(results == ["unchanged"; 7], "{said}");
        ensure!(versions(scene).await? == before, "{before:?}");

        let dry = done(scene, &words(&install(scene, "hello", &["--name", "second", "--dry-run", "-o", "json"])?))?;
        let dry = json_of(&dry)?;
        let results: Vec<&Value> = dry["objects"].as_array().context("no objects")?.iter().map(|o| &o["result"]).collect();
        ensure!(results.iter().filter(|result| **result == "created").count() == 6, "{dry}");
        ensure!(versions(scene).await? == before, "a dry run has changed something");

        let edit = json!({ "spec": { "source": { "file": "another.wasm" } } });
        scene.cluster().patch(PLUGIN, &scene.namespace, "hello", "", &edit).await?;
        let conflict = reef(scene, &words(&line))?;
        failed(&conflict, &["`.spec.source.file` belongs to field manager `kubectl-edit`", "nothing is taken away"])?;

        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "third" } });
        scene.cluster().apply_object(&scene.namespace, &account).await?;
        let before = versions(scene).await?;
        let foreign = reef(scene, &words(&install(scene, "hello", &["--name", "third"])?))?;
        failed(&foreign, &["ServiceAccount", "third is there already", "by somebody else", "--no-rbac"])?;
        let visitor = visitor(scene).await?;
        let refused: Said = reef_as(&visitor, &words(&install(scene, "hello", &["--name", "fourth"])?))?;
        failed(&refused, &["forbidden"])?;
        let mut elsewhere = install(scene, "hello", &["--name", "fifth"])?;
        elsewhere.iter_mut().filter(|word| **word == scene.namespace).take(1).for_each(|word| *word = "nowhere".into());
        failed(&reef(scene, &words(&elsewhere))?, &["there is no namespace nowhere", "kubectl create namespace nowhere"])?;
        let after: Vec<String> = versions(scene).await?.into_iter().filter(|one| !one.contains("visitor")).collect();
        ensure!(after == before, "something was begun: {after:?}");
        Ok(())
    });
}

/// A component that cannot run is told with every condition, and the exit code says so.
///
/// Promises: O1
/// Breaks it: an install that ends well while nothing runs.
#[test]
fn an_installation_that_does_not_become_ready_says_why() {
    scene("not-ready", async |scene: &Scene<'_>| {
        scene.host().await?;
        let mut line = install(scene, "hello", &["--timeout", "2s"])?;
        line.iter_mut().filter(|word| *word == "hello.wasm").for_each(|word| *word = "nothing.wasm".into());
        let said = reef(scene, &words(&line))?;
        failed(&said, &["everything is applied, but Plugin", "SourceFailed", "reef status hello", "reef uninstall hello"])?;
        hello::has(&said.err, &["Resolved: False SourceFailed: ", "Ready: False"])
    });
}

/// Promises: O1
/// Breaks it: a list that says something else than the resources, or a status that leaves out what fails and why.
#[test]
fn list_and_status_say_how_each_plugin_is_to_people_and_to_programs() {
    scene("looked-at", async |scene: &Scene<'_>| {
        scene.host().await?;
        probe::install(scene).await?;
        probe::ready(scene, "probe").await?;
        probe::set(scene, "broken", json!({ "mode": "terminal", "text": "the disk is full" })).await?;
        let failing = |plugin: Option<&Value>| plugin.is_some_and(|plugin| plugin["status"]["failing"]["count"] == 1);
        scene.cluster().wait(PLUGIN, &scene.namespace, "probe", "says what fails", failing).await?;
        let n = &["-n", &*scene.namespace][..];
        let list = done(scene, &[&["list"], n].concat())?;
        let row: Vec<&str> = list.lines().nth(1).context("no row")?.split_whitespace().collect();
        ensure!(
            list.starts_with("NAME") && row.first() == Some(&"probe") && row.get(1..4) == Some(&["True", "Ready", "1"]),
            "{list}"
        );
        ensure!(done(scene, &["list", "-A"])?.lines().any(|line| line.starts_with(&*scene.namespace) && line.contains("probe")));
        let list = json_of(&done(scene, &[&["list", "-o", "json"], n].concat())?)?;
        ensure!(list["kind"] == "List" && list["items"][0]["kind"] == "Plugin", "{list}");

        let status = done(scene, &[&["status", "probe"], n].concat())?;
        hello::has(&status, &["Authorized", "broken", "AskedToEnd", "the disk is full", "EVENT", "test.reef.dev/v1/Probe"])?;
        let told: Value = serde_norway::from_str(&done(scene, &[&["status", "probe", "-o", "yaml"], n].concat())?)?;
        ensure!(told["ready"] == "True" && told["failingObjects"][0]["name"] == "broken", "{told}");
        ensure!(told["account"] == "probe" && told["kinds"][0] == probe::PROBE && !told["events"].is_null(), "{told}");
        failed(&reef(scene, &[&["status", "nobody"], n].concat())?, &["there is no Plugin nobody", "reef list -A"])?;

        let kubeconfig = scene.world.plane.admin_kubeconfig().display().to_string();
        let watch = super::run::Running::start(scene, &["status", "probe", "--watch", "--kubeconfig", &kubeconfig])?;
        watch.says("probe True: Ready").await?;
        scene.cluster().patch(PLUGIN, &scene.namespace, "probe", "", &json!({ "spec": { "suspend": true } })).await?;
        watch.says("probe False: Suspended").await?;
        ensure!(watch.interrupt().await?.code == Some(0), "{}", watch.log());
        Ok(())
    });
}
