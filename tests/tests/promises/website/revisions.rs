//! Revisions of the plugin `website`: one whose manifest says too little, and one that owns fewer kinds.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use reef_tests::{
    cluster::condition,
    host::Options,
    paths,
    world::{Scene, scene},
};
use serde_json::{Value, json};

use super::{CHILDREN, CONFIG, DEPLOYMENT, INGRESS, SERVICE, WEBSITE, bring_up, child, children, install, says, set};
use crate::{
    hello,
    probe::{self, PLUGIN},
};

/// The component as it is, with a manifest that does not own Ingresses.
fn without_ingresses(scene: &Scene<'_>) -> Result<Vec<u8>> {
    let (manifest, component) = (scene.dir().join("manifest.json"), scene.dir().join("without-ingresses.wasm"));
    let owns = [CONFIG, DEPLOYMENT, SERVICE];
    let said = json!({ "name": "website", "version": "0.8.0", "reconciles": [{ "for": WEBSITE, "owns": owns }] });
    fs::write(&manifest, said.to_string())?;
    let mut embed = Command::new(paths::binary("reef")?);
    embed.arg("embed").arg(paths::component("website")?).arg("--manifest").arg(&manifest).arg("--replace");
    let done = embed.arg("-o").arg(&component).output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(fs::read(&component)?)
}

/// The fourth of four children is of a kind that the manifest does not own, so there is none of them; with the right manifest,
/// there are all.
///
/// Promises: W1
/// Breaks it: children that are written until one is reached that may not be, or a sentence without object, field and fix.
#[test]
fn of_a_site_with_one_child_that_is_not_allowed_none_is_made_until_the_manifest_owns_its_kind() {
    scene("website-undeclared", async |scene: &Scene<'_>| {
        let _host = scene.host().await?;
        install(scene, None).await?;
        scene.place("website.wasm", &without_ingresses(scene)?)?;
        let manifest = |plugin: Option<&Value>| plugin.is_some_and(|plugin| plugin["status"]["component"] == "website 0.8.0");
        scene.cluster().wait(PLUGIN, &scene.namespace, "website", "runs the component with the other manifest", manifest).await?;
        set(scene, json!({ "html": "<p>one", "exposed": true, "hostName": "web.example" })).await?;
        let refused = says(scene, "Reconciled", "False", "InvalidPlan").await?;
        let sentence = hello::sentence(&refused, "Reconciled");
        hello::has(
            &sentence,
            &["write 4 (networking.k8s.io/v1/Ingress `web`)", r#"add `owns: ["networking.k8s.io/v1/Ingress"]`"#],
        )?;
        ensure!(children(scene).await?.is_empty(), "of an invalid plan there are {:?}", children(scene).await?);

        scene.place("website.wasm", &hello::component("website")?)?;
        says(scene, "Reconciled", "True", "Reconciled").await?;
        ensure!(children(scene).await? == CHILDREN, "there are only {:?}", children(scene).await?);
        Ok(())
    });
}

/// The component is replaced, while no host runs, by one that owns nothing but the page.
///
/// Promises: W9
/// Breaks it: children that stay for ever because nobody owns their kind any more.
#[test]
fn a_site_loses_the_children_whose_kinds_a_new_revision_no_longer_owns() {
    scene("website-former", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let host = scene.host().await?;
        install(scene, None).await?;
        set(scene, json!({ "html": "<p>one", "exposed": true, "hostName": "web.example" })).await?;
        bring_up(scene).await?;
        let page = child(scene, CONFIG).await?.context("there is no page")?;
        scene.kill(&host).await?;
        scene.place("website.wasm", &hello::component("bare-website")?)?;
        let host = scene.host().await?;
        for kind in [DEPLOYMENT, SERVICE, INGRESS] {
            cluster.wait(kind, namespace, "web", "is gone", |object| object.is_none()).await?;
        }
        says(scene, "Ready", "False", "PageOnly").await?;
        let kept = child(scene, CONFIG).await?.context("the page is gone")?;
        ensure!(kept["metadata"]["uid"] == page["metadata"]["uid"], "the page was made anew");
        let forgotten = |plugin: Option<&Value>| plugin.is_some_and(|plugin| plugin["status"]["ownedKinds"] == json!([CONFIG]));
        cluster.wait(PLUGIN, namespace, "website", "names the kinds of a former revision no more", forgotten).await?;
        hello::restarted_and_steady(scene, &host, "website").await.map(drop)
    });
}

/// Fourteen sites lose their pods and their Service by a new revision; each stays until it is confirmed.
///
/// Promises: W10
/// Breaks it: sites that are taken off the net because somebody has put the wrong component in its place.
#[test]
fn a_revision_that_takes_the_services_of_many_sites_is_held_until_it_is_confirmed() {
    const SITES: usize = 14;
    scene("website-mass-loss", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let options = Options { flags: vec!["--recheck-period=1s".into()], ..scene.options() };
        let _host = scene.host_with(&options).await?;
        install(scene, None).await?;
        let names: Vec<String> = (0..SITES).map(|n| format!("site-{n}")).collect();
        for name in &names {
            let site = json!({ "apiVersion": "demo.reef.dev/v1", "kind": "Website", "metadata": { "name": name },
                "spec": { "html": "<p>one", "exposed": true } });
            cluster.apply_object(namespace, &site).await?;
        }
        for name in &names {
            hello::object_says(scene, WEBSITE, name, ("Reconciled", "True", "Reconciled")).await?;
        }
        let counts = async || {
            anyhow::Ok((cluster.list(DEPLOYMENT, namespace).await?.len(), cluster.list(SERVICE, namespace).await?.len()))
        };
        scene.place("website.wasm", &hello::component("bare-website")?)?;
        for name in &names {
            hello::object_says(scene, WEBSITE, name, ("Reconciled", "Unknown", "PruneHeld")).await?;
        }
        let held = |plugin: Option<&Value>| {
            let said = condition(plugin, "Pruned").and_then(|c| c["message"].as_str());
            said.is_some_and(|said| said.starts_with("14 of 14 objects would"))
        };
        let plugin = cluster.wait(PLUGIN, namespace, "website", "says how many objects lose children", held).await?;
        ensure!(counts().await? == (SITES, SITES), "of {SITES} sites there are {:?} Deployments and Services", counts().await?);
        let said = hello::sentence(&plugin, "Pruned");
        let confirm = said.split("reef.dev/confirm-loss=").nth(1).and_then(|rest| rest.split('`').next());
        let confirm = confirm.with_context(|| format!("the sentence does not say how to confirm: {said}"))?;
        let annotation = json!({ "metadata": { "annotations": { "reef.dev/confirm-loss": confirm } } });
        cluster.patch(PLUGIN, namespace, "website", "", &annotation).await?;
        for name in &names {
            hello::object_says(scene, WEBSITE, name, ("Reconciled", "True", "Reconciled")).await?;
        }
        let gone = || async { counts().await.is_ok_and(|counts| counts == (0, 0)) };
        probe::until("what was confirmed is gone", gone).await
    });
}
