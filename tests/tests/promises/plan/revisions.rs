//! What a new revision takes away: kinds that it no longer owns, and children of many objects at once.

use anyhow::{Context, Result, ensure};
use reef_tests::{
    cluster::condition,
    host::Options,
    world::{Scene, scene},
};
use serde_json::{Value, json};

use super::writer;
use crate::{
    faults::{Stage, behind_proxy},
    probe,
};

const DEPLOYMENT: &str = "apps/v1/Deployment";

/// A Plugin `probe` whose field manager does not depend on its component: first the guest `probe`, later `writer`.
async fn install(scene: &Scene<'_>) -> Result<()> {
    probe::stage(scene, "probe").await?;
    writer::may(scene, "probe", "further", writer::FURTHER).await?;
    probe::place(scene, "probe", "probe")?;
    let spec = json!({ "className": scene.namespace, "source": { "file": "probe.wasm" }, "fieldManager": "turncoat" });
    let plugin = json!({ "apiVersion": "reef.dev/v1alpha1", "kind": "Plugin", "metadata": { "name": "probe" }, "spec": spec });
    scene.cluster().apply_object(&scene.namespace, &plugin).await.map(drop)
}

fn quickly(scene: &Scene<'_>) -> Options {
    Options { flags: vec!["--recheck-period=1s".into()], ..scene.options() }
}

async fn owned_kinds(scene: &Scene<'_>, expected: Value) -> Result<Value> {
    let what = format!("owns {expected}");
    let says = |plugin: Option<&Value>| plugin.is_some_and(|plugin| plugin["status"]["ownedKinds"] == expected);
    scene.cluster().wait(probe::PLUGIN, &scene.namespace, "probe", &what, says).await
}

/// Waits until the Plugin says why children are kept, and returns the sentence.
async fn kept(scene: &Scene<'_>, reason: &str) -> Result<String> {
    let says =
        |plugin: Option<&Value>| condition(plugin, "Pruned").is_some_and(|c| c["status"] == "False" && c["reason"] == reason);
    let plugin = scene.cluster().wait(probe::PLUGIN, &scene.namespace, "probe", &format!("says {reason}"), says).await?;
    Ok(condition(Some(&plugin), "Pruned").and_then(|c| c["message"].as_str()).unwrap_or_default().to_owned())
}

async fn nothing_kept(scene: &Scene<'_>) -> Result<Value> {
    let silent = |plugin: Option<&Value>| plugin.is_some() && condition(plugin, "Pruned").is_none();
    scene.cluster().wait(probe::PLUGIN, &scene.namespace, "probe", "says nothing of children that are kept", silent).await
}

/// The component is replaced while no host runs by one that does not own Deployments, and the account may not delete them any
/// more either: the Plugin says which rule is missing and goes on naming the kind. With the right, what can go goes; what
/// somebody else's finalizer holds is waited for, and the kind is named until it is gone.
///
/// Promises: W9
/// Breaks it: looking for children only of the kinds that the present revision owns.
#[test]
fn kinds_that_a_former_revision_owned_are_pruned_until_nothing_of_them_is_left() {
    scene("former-kinds", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        install(scene).await?;
        let host = scene.host_with(&quickly(scene)).await?;
        probe::ready(scene, "probe").await?;
        for name in ["free", "held"] {
            probe::set(scene, name, json!({ "mode": "quantity" })).await?;
            probe::reconciled(scene, name).await?;
        }
        owned_kinds(scene, json!([DEPLOYMENT, "v1/ConfigMap"])).await?;
        scene.kill(&host).await?;
        let finalizers = |list: Value| json!({ "metadata": { "finalizers": list } });
        cluster.patch(DEPLOYMENT, namespace, "held", "", &finalizers(json!(["test.reef.dev/hold"]))).await?;
        let probes = "{ apiGroups: [test.reef.dev], resources: [probes, probes/status], verbs: [get, list, watch, patch] }, \
                      { apiGroups: [events.k8s.io], resources: [events], verbs: [create, patch] }, \
                      { apiGroups: [\"\"], resources: [configmaps], verbs: [get, list, watch, create, patch, delete] }";
        let deployments = |verbs: &str| format!("[{probes}, {{ apiGroups: [apps], resources: [deployments], verbs: {verbs} }}]");
        writer::may(scene, "probe", "probe", &deployments("[get, list, watch]")).await?;
        probe::place(scene, "probe", "writer")?;

        let host = scene.host_with(&quickly(scene)).await?;
        let said = kept(scene, "MissingRights").await?;
        let rule = "add to its Role the rule {apiGroups: [\"apps\"], resources: [\"deployments\"], verbs: [\"delete\"]}";
        ensure!(said.contains(rule) && said.contains(DEPLOYMENT), "the condition says: {said}");
        owned_kinds(scene, json!([DEPLOYMENT, "v1/ConfigMap", "v1/Secret"])).await?;
        ensure!(cluster.get(DEPLOYMENT, namespace, "free").await?.is_some());

        writer::may(scene, "probe", "probe", &deployments("[get, list, watch, delete]")).await?;
        cluster.wait(DEPLOYMENT, namespace, "free", "is gone", |object| object.is_none()).await?;
        nothing_kept(scene).await?;
        let going = |object: Option<&Value>| object.is_some_and(|o| !o["metadata"]["deletionTimestamp"].is_null());
        cluster.wait(DEPLOYMENT, namespace, "held", "is being deleted", going).await?;
        // Once more from the beginning: what is left is known from the status alone.
        scene.kill(&host).await?;
        let _third = scene.host_with(&quickly(scene)).await?;
        probe::ready(scene, "probe").await?;
        owned_kinds(scene, json!([DEPLOYMENT, "v1/ConfigMap", "v1/Secret"])).await?;
        cluster.patch(DEPLOYMENT, namespace, "held", "", &finalizers(json!([]))).await?;
        owned_kinds(scene, json!(["v1/ConfigMap", "v1/Secret"])).await.map(drop)
    });
}

/// The component is replaced while no host runs by one that does not own Deployments, and those are read long after everything
/// else: the child goes all the same, as soon as it is known.
///
/// Promises: W9
/// Breaks it: taking a cache that is being filled for one in which nothing is.
#[test]
fn a_child_of_a_former_kind_that_is_read_late_is_pruned_too() {
    behind_proxy("former-late", &["--recheck-period=1s"], async |stage: &Stage<'_>| {
        let scene = stage.scene;
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        install(scene).await?;
        stage.start().await?;
        probe::ready(scene, "probe").await?;
        probe::set(scene, "late", json!({ "mode": "quantity" })).await?;
        probe::reconciled(scene, "late").await?;
        scene.kill(&stage.host()).await?;
        probe::place(scene, "probe", "writer")?;
        stage.proxy.script(["list deployments: delay 2000ms", "watch deployments: delay 2000ms"])?;
        stage.start().await?;
        cluster.wait(DEPLOYMENT, namespace, "late", "is gone", |object| object.is_none()).await?;
        owned_kinds(scene, json!(["v1/ConfigMap", "v1/Secret"])).await?;
        probe::reconciled(scene, "late").await.map(drop)
    });
}

/// Fifteen objects have a child each, and a new component plans none: all children stay, Plugin and objects say so, also after
/// a restart, until somebody confirms it as the sentence says.
///
/// Promises: W10
/// Breaks it: pruning before it is known how many objects lose children.
#[test]
fn a_revision_that_takes_children_from_many_objects_is_held_until_it_is_confirmed() {
    scene("mass-loss", async |scene: &Scene<'_>| {
        const OBJECTS: usize = 15;
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        install(scene).await?;
        let host = scene.host_with(&quickly(scene)).await?;
        probe::ready(scene, "probe").await?;
        for i in 0..OBJECTS {
            probe::set(scene, &format!("o-{i}"), json!({ "children": [format!("of-{i}")] })).await?;
        }
        for i in 0..OBJECTS {
            probe::reconciled(scene, &format!("o-{i}")).await?;
        }
        let children = async || {
            let all = cluster.list(probe::CONFIG, namespace).await?;
            let ours = |object: &&Value| object["metadata"]["labels"]["reef.dev/plugin"] == "turncoat";
            anyhow::Ok(all.iter().filter(ours).count())
        };
        probe::place(scene, "probe", "writer")?;
        for i in 0..OBJECTS {
            let held = probe::says(scene, &format!("o-{i}"), "Unknown", "PruneHeld").await?;
            ensure!(probe::sentence(&held).contains(&format!("condition `Pruned` of Plugin {namespace}/probe")), "{held}");
        }
        ensure!(children().await? == OBJECTS, "{} of {OBJECTS} children are left", children().await?);

        scene.kill(&host).await?;
        let _second = scene.host_with(&quickly(scene)).await?;
        probe::ready(scene, "probe").await?;
        let all_known = |plugin: Option<&Value>| {
            condition(plugin, "Pruned")
                .and_then(|c| c["message"].as_str())
                .is_some_and(|said| said.starts_with("15 of 15 objects would"))
        };
        cluster.wait(probe::PLUGIN, namespace, "probe", "counts all objects", all_known).await?;
        let said = kept(scene, "MassLossHeld").await?;
        ensure!(children().await? == OBJECTS, "{} of {OBJECTS} children are left", children().await?);

        let confirm = said.split("reef.dev/confirm-loss=").nth(1).and_then(|rest| rest.split('`').next());
        let confirm = confirm.with_context(|| format!("the sentence does not say how to confirm: {said}"))?;
        let annotate = |value: &str| json!({ "metadata": { "annotations": { "reef.dev/confirm-loss": value } } });
        cluster.patch(probe::PLUGIN, namespace, "probe", "", &annotate("another")).await?;
        let changed = probe::set(scene, "o-0", json!({ "text": "again" })).await?;
        probe::says(scene, "o-0", "Unknown", "PruneHeld").await?;
        ensure!(children().await? == OBJECTS, "another revision's confirmation let it go on: {changed}");
        cluster.patch(probe::PLUGIN, namespace, "probe", "", &annotate(confirm)).await?;
        for i in 0..OBJECTS {
            probe::reconciled(scene, &format!("o-{i}")).await?;
        }
        ensure!(children().await? == 0, "{} children are left", children().await?);
        nothing_kept(scene).await.map(drop)
    });
}
