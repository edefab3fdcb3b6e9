//! The examples beside each other in one namespace, where it is all one what each of them is for; and what becomes of objects
//! that wait for a cleanup when their plugin, their account or their namespace goes.

use anyhow::{Context, Result, ensure};
use reef_tests::{
    control_plane::{HOST_USER, Setup},
    host::{Host, Options},
    paths,
    world::{Scene, scene, scene_apart},
};
use serde_json::{Value, json};

use crate::{
    faults::{Stage, behind_proxy},
    hello::{self, object_says, plugin_says},
    probe::{self, CONFIG, PLUGIN},
};

const WEBSITE: &str = "demo.reef.dev/v1/Website";
const HISTORY: &str = "demo.reef.dev/v1/ConfigHistory";
const DATABASE: &str = "demo.reef.dev/v1/Database";
const BACKUP: &str = "demo.reef.dev/v1/Backup";
const DEPLOYMENT: &str = "apps/v1/Deployment";
const SET: &str = "apps/v1/StatefulSet";
const SERVICE: &str = "v1/Service";
const INGRESS: &str = "networking.k8s.io/v1/Ingress";
const NAMESPACE: &str = "v1/Namespace";
const ACCOUNT: &str = "v1/ServiceAccount";
const CRD: &str = "apiextensions.k8s.io/v1/CustomResourceDefinition";
const PLUGINS: [&str; 3] = ["website", "config-history", "database"];
const HELD: [(&str, &str, &str); 2] = [(HISTORY, "history", "config-history"), (BACKUP, "nightly", "database")];

/// Installs them all from their own manifests, as an admin would.
async fn install(scene: &Scene<'_>) -> Result<()> {
    hello::install_example(scene, "website", &[("crd.yaml", WEBSITE)]).await?;
    hello::install_example(scene, "config-history", &[("crd.yaml", HISTORY)]).await?;
    hello::install_example(scene, "database", &[("crds/database.yaml", DATABASE), ("crds/backup.yaml", BACKUP)]).await
}

async fn set(scene: &Scene<'_>, kind: &str, name: &str, spec: Value) -> Result<Value> {
    let (api_version, kind) = kind.rsplit_once('/').context("no kind")?;
    let object = json!({ "apiVersion": api_version, "kind": kind, "metadata": { "name": name }, "spec": spec });
    scene.cluster().apply_object(&scene.namespace, &object).await
}

/// An object of each kind, as far as it gets without a kubelet.
async fn populate(scene: &Scene<'_>) -> Result<()> {
    let mut source = probe::config("settings", json!({ "text": "one" }));
    source["metadata"]["labels"] = json!({ "app": "web" });
    scene.cluster().apply_object(&scene.namespace, &source).await?;
    set(scene, WEBSITE, "site", json!({ "html": "<p>one", "exposed": true, "hostName": "site.example.com" })).await?;
    set(scene, HISTORY, "history", json!({ "selector": "app=web", "retain": false })).await?;
    set(scene, DATABASE, "db", json!({ "version": "8", "replicas": 1, "storage": "1Gi" })).await?;
    set(scene, BACKUP, "nightly", json!({ "database": "db", "every": "24h" })).await?;
    object_says(scene, WEBSITE, "site", ("Reconciled", "True", "Reconciled")).await?;
    object_says(scene, HISTORY, "history", ("UpToDate", "True", "Kept")).await?;
    scene.cluster().wait(SET, &scene.namespace, "db", "is there", |set| set.is_some()).await?;
    for (kind, name, plugin) in HELD {
        let held = |object: Option<&Value>| object.is_some_and(|object| is_held(object, plugin));
        scene.cluster().wait(kind, &scene.namespace, name, "is held for its cleanup", held).await?;
    }
    Ok(())
}

fn is_held(object: &Value, plugin: &str) -> bool {
    let finalizer = format!("reef.dev/{plugin}");
    object["metadata"]["finalizers"].as_array().is_some_and(|all| all.iter().any(|one| *one == finalizer))
}

async fn gone(scene: &Scene<'_>, kind: &str, name: &str) -> Result<()> {
    scene.cluster().wait(kind, &scene.namespace, name, "is gone", |object| object.is_none()).await.map(drop)
}

/// Lets the host take finalizers off what nobody can clean up, as the plugins' own manifests have it. Here the host is a user.
async fn may_let_go(scene: &Scene<'_>, plugins: &[&str]) -> Result<()> {
    for plugin in plugins {
        scene.world.apply_file("", &paths::checkout().join("plugins").join(plugin).join("orphans.yaml")).await?;
        let binding = format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{ name: {}-{plugin} }}\n\
             roleRef: {{ kind: ClusterRole, name: reef-orphans-{plugin}, apiGroup: rbac.authorization.k8s.io }}\n\
             subjects: [{{ kind: User, name: {HOST_USER}, apiGroup: rbac.authorization.k8s.io }}]\n",
            scene.namespace
        );
        scene.cluster().apply("", &binding).await?;
    }
    Ok(())
}

/// What was granted for one test.
async fn may_no_longer(scene: &Scene<'_>, plugins: &[&str]) -> Result<()> {
    for plugin in plugins {
        let name = format!("{}-{plugin}", scene.namespace);
        scene.cluster().delete("rbac.authorization.k8s.io/v1/ClusterRoleBinding", "", &name).await?;
    }
    Ok(())
}

async fn orphan_after(scene: &Scene<'_>, plugin: &str, time: &str) -> Result<()> {
    let patch = json!({ "spec": { "cleanup": { "orphanAfter": time } } });
    scene.cluster().patch(PLUGIN, &scene.namespace, plugin, "", &patch).await.map(drop)
}

async fn watches_nothing(scene: &Scene<'_>, host: &Host) -> Result<()> {
    probe::until("nothing of it is in the store any more", || async {
        host.metrics().await.is_ok_and(|metrics| metrics.sum("reef_cache_objects", &[("namespace", &scene.namespace)]) == 0.0)
    })
    .await
}

/// Accounts, rights, plugins and objects go in whatever order Kubernetes takes them. What can be cleaned up is, and of the rest
/// the host lets go two seconds after (`orphanAfter`), as itself.
///
/// Promises: K2
/// Breaks it: a Plugin that goes before its objects, or a finalizer that waits for an account that will never come back.
#[test]
fn a_namespace_with_live_objects_of_every_example_can_be_deleted() {
    scene("doomed-examples", async |scene: &Scene<'_>| {
        let options = Options { flags: vec!["--recheck-period=1s".into()], ..scene.options() };
        let host = scene.host_with(&options).await?;
        install(scene).await?;
        may_let_go(scene, &["config-history", "database"]).await?;
        for plugin in PLUGINS {
            orphan_after(scene, plugin, "2s").await?;
        }
        populate(scene).await?;
        scene.cluster().delete(NAMESPACE, "", &scene.namespace).await?;
        scene.cluster().wait(NAMESPACE, "", &scene.namespace, "is gone", |object| object.is_none()).await?;
        watches_nothing(scene, &host).await?;
        ensure!(host.exit().is_none(), "the host has ended");
        may_no_longer(scene, &["config-history", "database"]).await?;
        host.ready().await
    });
}

/// Promises: K2, O1
/// Breaks it: an object that hangs without a word of why and what to do, or one that the host lets go of although its
/// account could clean up.
#[test]
fn objects_whose_account_is_gone_wait_with_a_sentence_until_the_host_may_let_them_go() {
    // What is granted here must not be granted beside it, by another test.
    scene_apart("no-account-left", Setup::default(), async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let options = Options { flags: vec!["--recheck-period=1s".into()], ..scene.options() };
        let _host = scene.host_with(&options).await?;
        install(scene).await?;
        orphan_after(scene, "config-history", "1s").await?;
        populate(scene).await?;
        cluster.delete(ACCOUNT, namespace, "config-history").await?;
        plugin_says(scene, "config-history", ("Authorized", "False", "NoServiceAccount")).await?;
        cluster.delete(HISTORY, namespace, "history").await?;
        let parts = ["confighistories", r#"verbs: ["list", "patch"]"#, "finalizer `reef.dev/config-history`", HOST_USER];
        let told = || async {
            let said = plugin_says(scene, "config-history", ("Authorized", "False", "NoServiceAccount")).await;
            said.is_ok_and(|said| parts.iter().all(|part| said.contains(part)))
        };
        probe::until("the Plugin says which right is missing", told).await?;
        let history = cluster.get(HISTORY, namespace, "history").await?.context("it was let go by nobody knows whom")?;
        ensure!(is_held(&history, "config-history"), "{history:#}");
        may_let_go(scene, &["config-history"]).await?;
        gone(scene, HISTORY, "history").await
    });
}

/// The Plugin is deleted while its objects live, and while no host is there to see it. A new host lets go of them, one after
/// the other, and then of the Plugin; nothing is cleaned up of what stays. Installed again, it goes on.
///
/// Promises: K3
/// Breaks it: a Plugin that goes before its objects, whose finalizer nobody takes off any more.
#[test]
fn a_plugin_that_is_deleted_lets_go_of_its_objects_before_it_goes() {
    scene("let-go", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let host = scene.host().await?;
        install(scene).await?;
        populate(scene).await?;
        let copies = async || -> Result<usize> {
            let configs = cluster.list(CONFIG, namespace).await?;
            Ok(configs.iter().filter(|config| config["metadata"]["labels"]["demo.reef.dev/config-history"] == "history").count())
        };
        ensure!(copies().await? == 1, "no version was kept");
        scene.kill(&host).await?;
        for plugin in PLUGINS {
            cluster.delete(PLUGIN, namespace, plugin).await?;
        }
        for (kind, name, plugin) in HELD {
            let waits = cluster.get(PLUGIN, namespace, plugin).await?.is_some();
            let object = cluster.get(kind, namespace, name).await?.unwrap_or_default();
            ensure!(waits && is_held(&object, plugin), "{plugin} went before its objects: {object:#}");
        }
        scene.host().await?;
        for (kind, name, plugin) in HELD {
            gone(scene, PLUGIN, plugin).await?;
            let object = cluster.get(kind, namespace, name).await?.context("it went with its Plugin")?;
            ensure!(!is_held(&object, plugin) && object["metadata"]["deletionTimestamp"].is_null(), "{object:#}");
        }
        ensure!(copies().await? == 1, "the cleanup of an object that stays was run");
        install(scene).await?;
        populate(scene).await?;
        cluster.delete(HISTORY, namespace, "history").await?;
        gone(scene, HISTORY, "history").await?;
        ensure!(copies().await? == 0, "it went without its cleanup");
        Ok(())
    });
}

/// The kinds go first, and with them, cleaned up, their objects; then the Plugins. (Children go by Kubernetes' garbage
/// collector, which takes half a minute to learn a kind that is new.)
///
/// Promises: K3
/// Breaks it: children without an owner reference, copies that nobody deletes, or watches that nobody needs.
#[test]
fn examples_that_are_uninstalled_leave_nothing() {
    scene_apart("no-examples", Setup::default(), async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let host = scene.host().await?;
        install(scene).await?;
        populate(scene).await?;
        for (kind, name, child) in [(WEBSITE, "site", DEPLOYMENT), (DATABASE, "db", SET)] {
            cluster.delete(kind, namespace, name).await?;
            gone(scene, child, name).await?;
        }
        populate(scene).await?;
        for kind in ["backups", "databases", "confighistories", "websites"] {
            let name = format!("{kind}.demo.reef.dev");
            cluster.delete(CRD, "", &name).await?;
            cluster.wait(CRD, "", &name, "is gone", |object| object.is_none()).await?;
        }
        for plugin in PLUGINS {
            cluster.delete(PLUGIN, namespace, plugin).await?;
            gone(scene, PLUGIN, plugin).await?;
        }
        for kind in [CONFIG, DEPLOYMENT, SERVICE, INGRESS, SET] {
            let left = || async {
                let objects = cluster.list(kind, namespace).await.unwrap_or_default();
                objects.iter().all(|object| object["metadata"]["labels"]["reef.dev/plugin"].is_null())
            };
            probe::until(&format!("no {kind} of theirs is left"), left).await?;
        }
        watches_nothing(scene, &host).await
    });
}

/// Each child of a Website is created without the host learning of it, each in another way.
///
/// Promises: W7
/// Breaks it: taking what exists already for a stranger's without looking.
#[test]
fn the_children_of_a_website_whose_creates_were_not_answered_are_recognised() {
    behind_proxy("lost-children", &["--request-timeout=2s"], async |stage: &Stage<'_>| {
        let scene = stage.scene;
        hello::install_example(scene, "website", &[("crd.yaml", WEBSITE)]).await?;
        stage.start().await?;
        plugin_says(scene, "website", ("Ready", "True", "Ready")).await?;
        let faults = ["reset after", "cut after", "stall after", "answer 503 after"];
        let rules = ["configmaps", "deployments", "services", "ingresses"].into_iter().zip(faults);
        stage.proxy.script(rules.map(|(resource, fault)| format!("create {resource} named site #1: {fault}")))?;
        let site = json!({ "html": "<p>one", "exposed": true, "hostName": "site.example.com" });
        let owner = set(scene, WEBSITE, "site", site).await?;
        object_says(scene, WEBSITE, "site", ("Reconciled", "True", "Reconciled")).await?;
        ensure!(faults.iter().all(|fault| stage.proxy.count(fault) == 1), "{:?}", stage.proxy.faults());
        for kind in [CONFIG, DEPLOYMENT, SERVICE, INGRESS] {
            let child = scene.cluster().get(kind, &scene.namespace, "site").await?.context("no child")?;
            let owners = child["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len);
            ensure!(owners == 1 && child["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"], "{child:#}");
        }
        stage.a_round_writes_nothing("website", 1).await
    });
}

/// A Database is deleted without its children and made anew under its name: the StatefulSet with its data is not taken over
/// until somebody says so, and then all of it is the new one's.
///
/// Promises: W4, W8
/// Breaks it: ownership by name.
#[test]
fn a_database_that_is_made_anew_takes_over_what_is_there_only_when_asked() {
    scene("made-anew", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        scene.host().await?;
        install(scene).await?;
        populate(scene).await?;
        let path = cluster.path(DATABASE, namespace, Some("db")).await?;
        let options = json!({ "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Orphan" });
        let request =
            http::Request::delete(path).header("content-type", "application/json").body(serde_json::to_vec(&options)?)?;
        cluster.client().request::<Value>(request).await?;
        gone(scene, DATABASE, "db").await?;
        let before = cluster.get(SET, namespace, "db").await?.context("it went with its Database")?;
        let anew = set(scene, DATABASE, "db", json!({ "version": "9", "replicas": 2, "storage": "1Gi" })).await?;
        object_says(scene, DATABASE, "db", ("Reconciled", "False", "Conflict")).await?;
        let now = cluster.get(SET, namespace, "db").await?.context("it is gone")?;
        ensure!(now["spec"] == before["spec"], "it was taken over unasked: {now:#}");
        let adopt = json!({ "metadata": { "annotations": { "reef.dev/adopt": "database" } } });
        for kind in [CONFIG, SERVICE, SET] {
            cluster.patch(kind, namespace, "db", "", &adopt).await?;
        }
        let ours = |set: Option<&Value>| {
            set.is_some_and(|set| {
                set["metadata"]["uid"] == before["metadata"]["uid"]
                    && set["metadata"]["ownerReferences"][0]["uid"] == anew["metadata"]["uid"]
                    && set["spec"]["replicas"] == 2
            })
        };
        cluster.wait(SET, namespace, "db", "is the new Database's", ours).await.map(drop)
    });
}

/// The number of a port is the key by which an apply finds it: changed by hand, it is a second port of the same name, which no
/// Service may have.
///
/// Promises: W5
/// Breaks it: an apply that is refused for ever, because of what somebody has made of the child.
#[test]
fn a_service_whose_port_somebody_has_renumbered_is_as_planned_again() {
    scene("renumbered", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        scene.host().await?;
        install(scene).await?;
        populate(scene).await?;
        let service = cluster.get(SERVICE, namespace, "site").await?.context("no Service")?;
        let planned = service["spec"]["ports"].clone();
        let mut ports = planned.clone();
        ports[0]["port"] = json!(81);
        cluster.patch(SERVICE, namespace, "site", "", &json!({ "spec": { "ports": ports } })).await?;
        let repaired = |service: Option<&Value>| service.is_some_and(|service| service["spec"]["ports"] == planned);
        cluster.wait(SERVICE, namespace, "site", "has the planned port alone", repaired).await?;
        object_says(scene, WEBSITE, "site", ("Reconciled", "True", "Reconciled")).await.map(drop)
    });
}
