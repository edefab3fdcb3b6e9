//! Some fields of what is somebody else's: merge patches, and subresources.

use anyhow::{Result, ensure};
use reef_tests::{
    audit::Request,
    world::{Scene, scene},
};
use serde_json::{Value, json};

use super::{
    lines, planner,
    planner::{config, get, with},
    writer, writes_of,
};
use crate::probe::{self, CONFIG};

const DEPLOYMENT: &str = "apps/v1/Deployment";

/// An object that is not there is waited for; when it comes, it gets what the patch says and keeps the rest; then nothing is
/// written until somebody changes what the patch says.
///
/// Promises: W2, W5
/// Breaks it: making what is only to be patched, patching what says so already, or drift that nobody sees.
#[test]
fn a_patch_waits_for_its_object_changes_what_it_says_and_then_nothing() {
    scene("patch", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let _host = planner::start(scene).await?;
        let more = json!({ "metadata": { "labels": { "tier": "web", "old": null } }, "data": { "text": "ours", "gone": null } });
        let spec = json!({ "plan": [config("patch", "theirs", more)] });
        probe::set(scene, "o", spec.clone()).await?;
        let expected = format!("v1/ConfigMap {namespace}/theirs is not there: it is written when somebody has made it");
        planner::sentence_is(scene, "o", ("Unknown", "Waiting"), &expected).await?;
        let mut theirs = probe::config("theirs", json!({ "text": "theirs", "gone": "theirs", "more": "theirs" }));
        theirs["metadata"]["labels"] = json!({ "old": "1", "other": "1" });
        cluster.create(namespace, &theirs).await?;
        probe::config_says(scene, "theirs", "text", "ours").await?;
        probe::reconciled(scene, "o").await?;
        let now = cluster.get(CONFIG, namespace, "theirs").await?.unwrap_or_default();
        ensure!(now["data"] == json!({ "text": "ours", "more": "theirs" }), "{now}");
        ensure!(now["metadata"]["labels"] == json!({ "tier": "web", "other": "1" }), "{now}");
        ensure!(now["metadata"]["annotations"].is_null() && now["metadata"]["ownerReferences"].is_null(), "{now}");
        let managers = now["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let manager = format!("reef:planner:probe/{namespace}/o");
        ensure!(managers.iter().any(|entry| entry["manager"] == *manager), "nobody is called {manager}: {managers:?}");
        planner::stays(scene, "o", spec.clone()).await?;

        cluster.patch(CONFIG, namespace, "theirs", "", &json!({ "data": { "text": "by hand", "more": "by hand" } })).await?;
        let now = probe::config_says(scene, "theirs", "text", "ours").await?;
        ensure!(now["data"]["more"] == "by hand", "{now}");
        let written = writes_of(scene, "theirs")?;
        ensure!(written.len() == 2, "two patches were due, there are:\n{}", lines(&written));

        let versioned = |version: &str, text: &str| {
            let write = with(config("patch", "theirs", json!({ "data": { "text": text } })), json!({ "if_version": version }));
            json!({ "get": get(&["theirs"]), "plan": [write] })
        };
        probe::set(scene, "o", versioned("1", "late")).await?;
        let said = probe::says(scene, "o", "Unknown", "Outdated").await?;
        ensure!(probe::sentence(&said).contains("`if-version` asks for 1"), "{said}");
        probe::set(scene, "o", versioned("read", "in time")).await?;
        probe::config_says(scene, "theirs", "text", "in time").await?;
        probe::reconciled(scene, "o").await?;
        planner::stays(scene, "o", versioned("read", "in time")).await
    });
}

/// Promises: W1, W4
/// Breaks it: a patch that lets a plugin take somebody's hold off an object, or its own host's marks.
#[test]
fn a_patch_of_what_holds_an_object_or_of_the_hosts_own_words_is_refused() {
    scene("patch-refused", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let _host = planner::start(scene).await?;
        let mut theirs = probe::config("theirs", json!({}));
        theirs["metadata"]["finalizers"] = json!(["test.reef.dev/hold"]);
        let before = cluster.create(namespace, &theirs).await?;
        let cases = [
            (
                json!({ "metadata": { "finalizers": null } }),
                "metadata.finalizers is set: of metadata a patch changes labels and annotations, leave it out",
            ),
            (
                json!({ "metadata": { "labels": null } }),
                "metadata.labels is null, which takes away everybody's: name each that is to go",
            ),
            (
                json!({ "metadata": { "annotations": { "reef.dev/adopt": "planner" } } }),
                "metadata.annotations has `reef.dev/adopt`: what starts with `reef.dev/` is the host's, choose another",
            ),
        ];
        for (more, said) in cases {
            probe::set(scene, "o", json!({ "plan": [config("patch", "theirs", more)] })).await?;
            let expected = format!("write 1 (v1/ConfigMap `theirs`): {said}");
            planner::sentence_is(scene, "o", ("False", "InvalidPlan"), &expected).await?;
        }
        ensure!(cluster.get(CONFIG, namespace, "theirs").await?.as_ref() == Some(&before), "it was touched");
        cluster.patch(CONFIG, namespace, "theirs", "", &json!({ "metadata": { "finalizers": null } })).await.map(drop)
    });
}

/// Requests of the plugin's account about a subresource of the Deployment `web`.
fn requests(scene: &Scene<'_>, subresource: &str) -> Result<Vec<Request>> {
    let mut all = scene.world.audit.all()?;
    all.retain(|request| {
        let object = &request.object_ref;
        object.namespace == scene.namespace && object.name == "web" && object.subresource == subresource && request.is_by_reef()
    });
    Ok(all)
}

/// A Deployment of somebody else's: its scale is patched and its status applied, each alone and each just once; what the kind
/// does not have is refused by name; and what the account may not do is told with the rule to add.
///
/// Promises: W1, W2, W5
/// Breaks it: writing the object in place of its subresource, or writing it in every run.
#[test]
fn subresources_are_written_alone_and_only_when_they_differ() {
    scene("subresources", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let _host = planner::start(scene).await?;
        let labels = json!({ "app": "web" });
        let pod = json!({ "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "web", "image": "web" }] } });
        let web = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
            "spec": { "paused": true, "replicas": 0, "selector": { "matchLabels": labels }, "template": pod } });
        cluster.create(namespace, &web).await?;
        let plan = |verb: &str, subresource: Option<&str>, more: Value| {
            let mut object = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" } });
            more.as_object().into_iter().flatten().for_each(|(key, value)| object[key] = value.clone());
            json!({ "plan": [{ "verb": verb, "object": object, "subresource": subresource }] })
        };
        probe::set(scene, "o", plan("patch", Some("binding"), json!({ "spec": { "x": 1 } }))).await?;
        let expected =
            "write 1 (apps/v1/Deployment `web`): option `subresource` is `binding`, and apps/v1/Deployment has scale, status";
        planner::sentence_is(scene, "o", ("False", "InvalidPlan"), expected).await?;
        probe::set(scene, "o", plan("patch", None, json!({ "status": { "replicas": 3 } }))).await?;
        let said = probe::says(scene, "o", "False", "InvalidPlan").await?;
        ensure!(probe::sentence(&said).contains("write it alone with `subresource`"), "{said}");

        let scale = plan("patch", Some("scale"), json!({ "spec": { "replicas": 3 } }));
        probe::set(scene, "o", scale.clone()).await?;
        let said = probe::says(scene, "o", "False", "Forbidden").await?;
        let rule = "may not get deployments/scale in namespace";
        ensure!(probe::sentence(&said).contains(rule), "the condition says: {}", probe::sentence(&said));
        let rules = "[{ apiGroups: [apps], resources: [deployments/scale, deployments/status], verbs: [get, patch] }]";
        writer::may(scene, "planner", "parts", rules).await?;
        let scaled = |object: Option<&Value>| object.is_some_and(|object| object["spec"]["replicas"] == 3);
        cluster.wait(DEPLOYMENT, namespace, "web", "is scaled", scaled).await?;
        probe::reconciled(scene, "o").await?;
        planner::stays(scene, "o", scale).await?;
        cluster.patch(DEPLOYMENT, namespace, "web", "", &json!({ "spec": { "replicas": 1 } })).await?;
        cluster.wait(DEPLOYMENT, namespace, "web", "is scaled again", scaled).await?;
        let patches = requests(scene, "scale")?.into_iter().filter(Request::is_write).collect::<Vec<_>>();
        ensure!(patches.len() == 2, "two patches of the scale were due, there are:\n{}", lines(&patches));

        let vouched = |status: &str| json!({ "type": "Vouched", "status": status, "reason": "AsTold", "message": "as told" });
        let status = plan("apply", Some("status"), json!({ "status": { "conditions": [vouched("True")] } }));
        let says = |status: &'static str| {
            move |object: Option<&Value>| reef_tests::cluster::condition(object, "Vouched").is_some_and(|c| c["status"] == status)
        };
        probe::set(scene, "p", status.clone()).await?;
        let web = cluster.wait(DEPLOYMENT, namespace, "web", "is vouched for", says("True")).await?;
        ensure!(web["spec"]["replicas"] == 3 && web["metadata"]["annotations"]["reef.dev/applied"].is_null(), "{web}");
        probe::reconciled(scene, "p").await?;
        planner::stays(scene, "p", status).await?;
        probe::set(scene, "p", plan("apply", Some("status"), json!({ "status": { "conditions": [vouched("False")] } }))).await?;
        cluster.wait(DEPLOYMENT, namespace, "web", "is not vouched for", says("False")).await?;
        let applies = requests(scene, "status")?.into_iter().filter(Request::is_write).collect::<Vec<_>>();
        ensure!(applies.len() == 2, "two applies of the status were due, there are:\n{}", lines(&applies));
        Ok(())
    });
}
