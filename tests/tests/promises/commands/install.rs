//! Into a namespace and out of it again: `install`, `list`, `status`, `uninstall`.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use reef_tests::{
    control_plane::Setup,
    world::{Scene, scene, scene_apart},
};
use serde_json::{Value, json};

use super::run::Running;
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

/// hello with a manifest that says something else.
fn saying(scene: &Scene<'_>, name: &str, entry: &Value) -> Result<String> {
    let (manifest, component) = (scene.dir().join(format!("{name}.json")), scene.dir().join(format!("{name}.wasm")));
    std::fs::write(&manifest, json!({ "name": name, "version": "1.0.0", "reconciles": [entry] }).to_string())?;
    let hello = reef_tests::paths::component("hello")?;
    let paths = [&hello, &manifest, &component].map(|path| path.display().to_string());
    let embed = ["embed", &paths[0], "--manifest", &paths[1], "--replace", "-o", &paths[2]];
    let done = std::process::Command::new(reef_tests::paths::binary("reef")?).args(embed).output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(paths[2].clone())
}

/// Rights in the whole cluster only if somebody says so, and none for what no host would run; no other plugin in the place of one.
///
/// Promises: O1, I3
/// Breaks it: a component that gets from whoever installs it what its manifest asks for; objects that are left to nobody.
#[test]
fn an_installation_gives_no_more_than_it_was_told_to_and_replaces_no_other_plugin() {
    scene("asked-for", async |scene: &Scene<'_>| {
        let at = ["-n", &*scene.namespace, "--class", &scene.namespace, "--timeout", "0s"];
        let install = |component: &str, more: &[&str]| reef(scene, &[&["install", component], &at[..], more].concat());
        let owner =
            saying(scene, "owner", &json!({ "for": "v1/ConfigMap", "owns": ["rbac.authorization.k8s.io/v1/ClusterRole"] }))?;
        failed(&install(&owner, &["--cluster-rights"])?, &["ClusterRole have no namespace", "take it out of the manifest"])?;
        let reader = saying(scene, "reader", &json!({ "for": "v1/ConfigMap", "reads": ["v1/Node"] }))?;
        let asked = ["rights in the whole cluster: get,list,watch on nodes", "--cluster-rights", "nothing was changed"];
        failed(&install(&reader, &[])?, &asked)?;
        for name in ["owner", "reader"] {
            let account = scene.cluster().get("v1/ServiceAccount", &scene.namespace, name).await?;
            ensure!(account.is_none(), "something was made all the same: {account:?}");
        }
        let look = install(&reader, &["--dry-run"])?;
        ensure!(look.code == Some(0), "{}", look.err);
        hello::has(&look.err, &["get,list,watch on nodes", "create on serviceaccounts/token"])?;
        let said = install(&reader, &["--cluster-rights"])?;
        ensure!(said.code == Some(0), "{}{}", said.out, said.err);

        let host = scene.host().await?;
        let mut line = super::install(scene, "hello", &["--name", "one"])?;
        done(scene, &words(&line))?;
        line[1] = saying(scene, "another", &json!({ "for": hello::HELLO }))?;
        failed(&reef(scene, &words(&line))?, &["is there already and runs `hello ", "this is `another`", "--name", "uninstall"])?;
        done(scene, &["uninstall", "reader", "--yes", "-n", &scene.namespace])?;
        host.terminate().await.map(drop)
    });
}

/// Promises: O1
/// Breaks it: a command that ends in silence when it is half done.
#[test]
fn an_installation_that_is_interrupted_says_how_to_go_on() {
    scene("interrupted", async |scene: &Scene<'_>| {
        let mut line = super::install(scene, "hello", &[])?;
        // The namespace is added to what runs in the background.
        line.drain(2..4);
        line.extend(["--kubeconfig".to_owned(), scene.world.plane.admin_kubeconfig().display().to_string()]);
        let installing = Running::start(scene, &words(&line))?;
        installing.says("waiting: Plugin ").await?;
        installing.interrupt().await?;
        hello::has(&installing.log(), &["interrupted: ", "install again", "reef uninstall hello -n "])?;
        // Nobody serves it, so nothing holds it.
        done(scene, &["uninstall", "hello", "--yes", "-n", &scene.namespace]).map(drop)
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
