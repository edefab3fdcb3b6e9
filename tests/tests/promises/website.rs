//! The plugin `website`: four children of one object, some of them only now and then, and a status that is read back.
//!
//! There is no kubelet: the tests say of the pods that they are ready.

mod revisions;

use anyhow::{Context, Result, ensure};
use reef_tests::{
    cluster::{condition, hang_bound},
    control_plane::Setup,
    world::{Scene, scene, scene_apart},
};
use serde_json::{Value, json};

use crate::{
    hello,
    probe::{self, CONFIG},
};

const WEBSITE: &str = "demo.reef.dev/v1/Website";
const DEPLOYMENT: &str = "apps/v1/Deployment";
const SERVICE: &str = "v1/Service";
const INGRESS: &str = "networking.k8s.io/v1/Ingress";
const POD: &str = "v1/Pod";
const QUOTA: &str = "v1/ResourceQuota";
const CHILDREN: [&str; 4] = [CONFIG, DEPLOYMENT, SERVICE, INGRESS];

/// Installs the plugin from its own manifests, as an admin would.
async fn install(scene: &Scene<'_>, settings: Option<Value>) -> Result<()> {
    hello::install_example(scene, "website", &[("crd.yaml", WEBSITE)]).await?;
    configure(scene, settings).await
}

async fn configure(scene: &Scene<'_>, settings: Option<Value>) -> Result<()> {
    let mut spec = json!({ "source": { "file": "website.wasm" } });
    if let Some(settings) = settings {
        spec["settings"] = settings;
    }
    hello::plugin(scene, "website", spec).await
}

/// Creates the Website `web`, or replaces the whole of its spec.
async fn set(scene: &Scene<'_>, spec: Value) -> Result<Value> {
    let site = json!({ "apiVersion": "demo.reef.dev/v1", "kind": "Website", "metadata": { "name": "web" }, "spec": spec });
    scene.cluster().apply_object(&scene.namespace, &site).await
}

async fn child(scene: &Scene<'_>, kind: &str) -> Result<Option<Value>> {
    scene.cluster().get(kind, &scene.namespace, "web").await
}

/// Of the four kinds, those of which there is one.
async fn children(scene: &Scene<'_>) -> Result<Vec<&'static str>> {
    let mut there = Vec::new();
    for kind in CHILDREN {
        if child(scene, kind).await?.is_some() {
            there.push(kind);
        }
    }
    Ok(there)
}

/// Waits until the site says so of its present generation.
async fn says(scene: &Scene<'_>, name: &str, status: &str, reason: &str) -> Result<Value> {
    hello::object_says(scene, WEBSITE, "web", (name, status, reason)).await
}

/// Plays kubelet until the site says that it is ready.
async fn bring_up(scene: &Scene<'_>) -> Result<Value> {
    let end = std::time::Instant::now() + hang_bound();
    loop {
        for pod in scene.cluster().list(POD, &scene.namespace).await? {
            if condition(Some(&pod), "Ready").is_none_or(|ready| ready["status"] != "True") {
                let ready = json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
                let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                // Of a rollout that goes on, some are gone by now.
                let _ = scene.cluster().patch(POD, &scene.namespace, name, "status", &ready).await;
            }
        }
        let site = scene.cluster().get(WEBSITE, &scene.namespace, "web").await?.context("there is no Website")?;
        let generation = &site["metadata"]["generation"];
        if condition(Some(&site), "Ready").is_some_and(|c| c["status"] == "True" && c["observedGeneration"] == *generation) {
            return Ok(site);
        }
        ensure!(std::time::Instant::now() < end, "the site does not become ready:\n{site:#}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Lets the namespace have so many of something; nobody counts here but the API server, and it has counted `used`.
/// Returns when it does refuse, or allow, one more.
async fn quota(scene: &Scene<'_>, resource: &str, hard: u32, used: u32, one: &Value) -> Result<()> {
    let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
    let object = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "small" },
        "spec": { "hard": { resource: hard.to_string() } },
    });
    cluster.apply_object(namespace, &object).await?;
    let status = json!({ "status": { "hard": { resource: hard.to_string() }, "used": { resource: used.to_string() } } });
    cluster.patch(QUOTA, namespace, "small", "status", &status).await?;
    let kind = format!("{}/{}", one["apiVersion"].as_str().unwrap_or_default(), one["kind"].as_str().unwrap_or_default());
    let path = cluster.path(&kind, namespace, None).await?;
    let refused = || async {
        let body = serde_json::to_vec(one).unwrap_or_default();
        let request = http::Request::post(format!("{path}?dryRun=All")).header("content-type", "application/json").body(body);
        match cluster.client().request::<Value>(request.unwrap_or_default()).await {
            Err(kube::Error::Api(status)) => status.message.contains("exceeded quota") == (used >= hard),
            other => other.is_ok() == (used < hard),
        }
    };
    probe::until("the quota is in force", refused).await
}

/// Promises: W3, W11
/// Breaks it: a child that stays although the object no longer asks for it, or a status that does not follow the Deployment.
#[test]
fn a_website_has_what_it_asks_for_and_says_what_its_deployment_says() {
    scene("website", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let _host = scene.host().await?;
        install(scene, None).await?;
        set(scene, json!({ "html": "<p>one", "replicas": 2 })).await?;
        let site = says(scene, "Ready", "False", "RollingOut").await?;
        ensure!(site["status"]["phase"] == "Pending", "{site:#}");
        ensure!(children(scene).await? == [CONFIG, DEPLOYMENT]);

        let site = bring_up(scene).await?;
        ensure!(site["status"]["readyReplicas"] == 2 && site["status"]["phase"] == "Ready", "{site:#}");
        says(scene, "Progressing", "False", "Complete").await?;
        says(scene, "Reconciled", "True", "Reconciled").await?;

        set(scene, json!({ "html": "<p>one", "replicas": 3, "exposed": true, "hostName": "web.example.com" })).await?;
        says(scene, "Progressing", "True", "RollingOut").await?;
        ensure!(children(scene).await? == CHILDREN);
        let ingress = child(scene, INGRESS).await?.unwrap_or_default();
        ensure!(ingress["spec"]["rules"][0]["host"] == "web.example.com", "{ingress:#}");
        ensure!(bring_up(scene).await?["status"]["readyReplicas"] == 3);

        set(scene, json!({ "html": "<p>one", "replicas": 3, "exposed": true })).await?;
        says(scene, "Reconciled", "True", "Reconciled").await?;
        ensure!(children(scene).await? == [CONFIG, DEPLOYMENT, SERVICE]);
        set(scene, json!({ "html": "<p>one", "replicas": 1 })).await?;
        says(scene, "Reconciled", "True", "Reconciled").await?;
        ensure!(children(scene).await? == [CONFIG, DEPLOYMENT]);
        ensure!(bring_up(scene).await?["status"]["readyReplicas"] == 1);

        // Somebody scales by hand: an own child is repaired.
        cluster.patch(DEPLOYMENT, namespace, "web", "", &json!({ "spec": { "replicas": 5 } })).await?;
        let repaired = |object: Option<&Value>| object.is_some_and(|object| object["spec"]["replicas"] == 1);
        cluster.wait(DEPLOYMENT, namespace, "web", "has one replica again", repaired).await?;

        set(scene, json!({ "html": "<p>one", "exposed": true, "hostName": "web.example.com" })).await?;
        says(scene, "Reconciled", "True", "Reconciled").await?;
        cluster.delete(WEBSITE, namespace, "web").await?;
        for kind in CHILDREN {
            cluster.wait(kind, namespace, "web", "is gone", |object| object.is_none()).await?;
        }
        Ok(())
    });
}

/// Promises: R2
/// Breaks it: pods that go on with the page before, or a site that calls itself ready by what was said of the page before.
#[test]
fn an_edited_page_rolls_the_pods_and_the_site_is_ready_only_with_the_new_ones() {
    scene("website-rolls", async |scene: &Scene<'_>| {
        let _host = scene.host().await?;
        install(scene, None).await?;
        set(scene, json!({ "html": "<p>one" })).await?;
        bring_up(scene).await?;
        let before = child(scene, DEPLOYMENT).await?.unwrap_or_default();

        set(scene, json!({ "html": "<p>one", "exposed": true })).await?;
        says(scene, "Ready", "True", "Serving").await?;
        let same = child(scene, DEPLOYMENT).await?.unwrap_or_default();
        ensure!(same["metadata"]["generation"] == before["metadata"]["generation"], "a Service restarted the pods");

        set(scene, json!({ "html": "<p>two", "exposed": true })).await?;
        says(scene, "Ready", "False", "RollingOut").await?;
        let page = child(scene, CONFIG).await?.unwrap_or_default();
        ensure!(page["data"]["index.html"] == "<p>two", "{page:#}");
        let after = child(scene, DEPLOYMENT).await?.unwrap_or_default();
        ensure!(after["spec"]["template"] != before["spec"]["template"], "the pods still serve the page before");
        bring_up(scene).await?;
        let sets = scene.cluster().list("apps/v1/ReplicaSet", &scene.namespace).await?;
        let running: Vec<_> = sets.iter().filter(|set| set["spec"]["replicas"] == 1).collect();
        ensure!(sets.len() == 2 && running.len() == 1, "one rollout makes one more ReplicaSet: {sets:#?}");
        Ok(())
    });
}

/// The spec asks for a Service that the quota refuses, and no longer for the Ingress: neither is done until both can be.
///
/// Promises: W3, W11
/// Breaks it: pruning by a plan that could not be carried out, or a quota that is taken for a fault of the object.
#[test]
fn while_a_quota_refuses_a_child_nothing_is_pruned_and_the_site_says_what_it_waits_for() {
    scene("website-quota", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let _host = scene.host().await?;
        install(scene, None).await?;
        set(scene, json!({ "html": "<p>one", "exposed": true, "hostName": "web.example.com" })).await?;
        says(scene, "Reconciled", "True", "Reconciled").await?;
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "probe" }, "spec": { "ports": [{ "port": 1 }] },
        });
        quota(scene, "services", 1, 1, &service).await?;
        cluster.delete(SERVICE, namespace, "web").await?;
        set(scene, json!({ "html": "<p>two", "exposed": true })).await?;
        let waiting = says(scene, "Reconciled", "False", "QuotaExceeded").await?;
        let said = hello::sentence(&waiting, "Reconciled");
        hello::has(&said, &["v1/Service", "/web", "exceeded quota: small", "services=1"])?;
        ensure!(children(scene).await? == [CONFIG, DEPLOYMENT, INGRESS], "pruned while the plan could not be carried out");

        quota(scene, "services", 5, 1, &service).await?;
        says(scene, "Reconciled", "True", "Reconciled").await?;
        ensure!(children(scene).await? == [CONFIG, DEPLOYMENT, SERVICE]);
        Ok(())
    });
}

/// Promises: W3, W11
/// Breaks it: a plugin that hears nothing of pods that never came to be, or prunes while the site is not what it should be.
#[test]
fn while_a_quota_refuses_the_pods_the_site_waits_and_keeps_what_it_has() {
    scene("website-pods", async |scene: &Scene<'_>| {
        let _host = scene.host().await?;
        install(scene, None).await?;
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "probe" },
            "spec": { "containers": [{ "name": "a", "image": "a" }] },
        });
        quota(scene, "pods", 0, 0, &pod).await?;
        set(scene, json!({ "html": "<p>one", "exposed": true })).await?;
        let waiting = says(scene, "Ready", "False", "QuotaExceeded").await?;
        ensure!(waiting["status"]["phase"] == "Waiting", "{waiting:#}");
        says(scene, "Reconciled", "Unknown", "Pending").await?;
        set(scene, json!({ "html": "<p>one" })).await?;
        let waiting = says(scene, "Reconciled", "Unknown", "Pending").await?;
        hello::has(
            &hello::sentence(&waiting, "Reconciled"),
            &["the Deployment cannot make its pods: exceeded quota: small", "pods=1"],
        )?;
        ensure!(children(scene).await? == [CONFIG, DEPLOYMENT, SERVICE], "pruned while it waits");

        quota(scene, "pods", 5, 0, &pod).await?;
        bring_up(scene).await?;
        says(scene, "Reconciled", "True", "Reconciled").await?;
        ensure!(children(scene).await? == [CONFIG, DEPLOYMENT]);
        Ok(())
    });
}

/// What the schema cannot say the plugin says, and what it can the API server refuses at once.
///
/// Promises: W11, Q7
/// Breaks it: a bad spec that is tried again and again, or that takes the children away.
#[test]
fn a_page_that_fits_into_no_config_map_is_terminal_and_changes_nothing() {
    scene("website-bad", async |scene: &Scene<'_>| {
        let host = scene.host().await?;
        install(scene, None).await?;
        set(scene, json!({ "html": "<p>one" })).await?;
        says(scene, "Reconciled", "True", "Reconciled").await?;
        let refused = set(scene, json!({ "html": "<p>one", "hostName": "web.example.com" })).await.err();
        let refused = format!("{:#}", refused.context("a host name without a Service was accepted")?);
        hello::has(&refused, &["spec.hostName needs a Service to lead to: set spec.exposed to true"])?;

        let before = (child(scene, CONFIG).await?, child(scene, DEPLOYMENT).await?.map(|d| d["spec"].clone()));
        set(scene, json!({ "html": "€".repeat(400_000) })).await?;
        says(scene, "Ready", "False", "PageTooLarge").await?;
        let site = says(scene, "Reconciled", "False", "PageTooLarge").await?;
        hello::has(&hello::sentence(&site, "Reconciled"), &["spec.html has 1200000 bytes: a page has at most 1032192"])?;
        let after = (child(scene, CONFIG).await?, child(scene, DEPLOYMENT).await?.map(|d| d["spec"].clone()));
        ensure!(before == after, "the children were touched");
        let terminal = probe::reconciles(scene, &host, "website", Some("terminal_error")).await?;
        ensure!(terminal == 1, "it was tried {terminal} times");

        set(scene, json!({ "html": "<p>two" })).await?;
        says(scene, "Reconciled", "True", "Reconciled").await?;
        probe::config_says(scene, "web", "index.html", "<p>two").await.map(drop)
    });
}

/// The settings lose the Ingress' class, the spec its Service and Ingress, and somebody deletes the page, while nobody is there
/// to see it.
///
/// Promises: W2, W6
/// Breaks it: a host that knows only what it wrote itself, or one that writes all anew when it starts.
#[test]
fn what_changed_while_the_host_was_down_is_made_good_and_then_nothing_is_written() {
    scene("website-down", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let host = scene.host().await?;
        install(scene, Some(json!({ "ingressClassName": "blue" }))).await?;
        set(scene, json!({ "html": "<p>one", "exposed": true, "hostName": "web.example.com" })).await?;
        bring_up(scene).await?;
        let class = |object: Option<&Value>| object.is_some_and(|object| object["spec"]["ingressClassName"] == "blue");
        cluster.wait(INGRESS, namespace, "web", "has its class", class).await?;
        scene.kill(&host).await?;
        configure(scene, None).await?;
        let host = scene.host().await?;
        let none = |object: Option<&Value>| object.is_some_and(|object| object["spec"]["ingressClassName"].is_null());
        cluster.wait(INGRESS, namespace, "web", "has no class any more", none).await?;
        scene.kill(&host).await?;

        cluster.delete(CONFIG, namespace, "web").await?;
        set(scene, json!({ "html": "<p>one" })).await?;
        let host = scene.host().await?;
        says(scene, "Ready", "True", "Serving").await?;
        ensure!(children(scene).await? == [CONFIG, DEPLOYMENT]);
        scene.kill(&host).await?;

        let mark = scene.world.audit.mark(cluster).await?;
        let host = scene.host().await?;
        probe::reconciles_reach(scene, &host, "website", Some("success"), 1).await?;
        let mut written = scene.world.audit.writes(mark, namespace)?;
        written.retain(|request| request.object_ref.resource != "plugins" && request.object_ref.resource != "events");
        let lines: Vec<_> = written.iter().map(|request| request.line()).collect();
        ensure!(lines.is_empty(), "a steady state was written:\n{}", lines.join("\n"));
        Ok(())
    });
}

/// With the admission plugin that asks for the right to block an owner's deletion: the host's references do not block, so an
/// account needs no such right. That the plugin is on is seen by a reference that does.
///
/// Promises: W2, W3
/// Breaks it: owner references with `blockOwnerDeletion`.
#[test]
fn an_api_server_that_guards_owner_references_lets_a_site_have_its_children() {
    scene_apart(
        "owner-guard",
        Setup { apiserver: &["--enable-admission-plugins=OwnerReferencesPermissionEnforcement"], ..Setup::default() },
        async |scene: &Scene<'_>| {
            let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
            let host = scene.host().await?;
            install(scene, None).await?;
            set(scene, json!({ "html": "<p>one", "exposed": true, "hostName": "web.example.com" })).await?;
            let site = says(scene, "Reconciled", "True", "Reconciled").await?;
            ensure!(children(scene).await? == CHILDREN);

            let owner = json!({ "apiVersion": "demo.reef.dev/v1", "kind": "Website", "name": "web", "uid": site["metadata"]["uid"],
            "blockOwnerDeletion": true });
            let mut blocking = probe::config("blocking", json!({}));
            blocking["metadata"]["ownerReferences"] = json!([owner]);
            let request = http::Request::post(cluster.path(CONFIG, namespace, None).await?)
                .header("content-type", "application/json")
                .header("impersonate-user", format!("system:serviceaccount:{namespace}:website"))
                .body(serde_json::to_vec(&blocking)?)?;
            match cluster.client().request::<Value>(request).await {
                Err(kube::Error::Api(status)) => hello::has(&status.message, &["blockOwnerDeletion"])?,
                other => anyhow::bail!("the admission plugin is not on: {other:?}"),
            }

            scene.kill(&host).await?;
            let mark = scene.world.audit.mark(cluster).await?;
            let second = scene.host().await?;
            probe::reconciles_reach(scene, &second, "website", Some("success"), 1).await?;
            let _ = scene.world.audit.mark(cluster).await?;
            let written = scene.world.audit.writes(mark, namespace)?;
            let lines: Vec<String> = written.iter().map(|write| write.line()).collect();
            ensure!(lines.is_empty(), "in a steady state was written:\n{}", lines.join("\n"));
            set(scene, json!({ "html": "<p>one" })).await?;
            let gone = |object: Option<&Value>| object.is_none();
            for kind in [SERVICE, INGRESS] {
                cluster.wait(kind, namespace, "web", "is gone", gone).await?;
            }
            ensure!(children(scene).await? == [CONFIG, DEPLOYMENT]);
            Ok(())
        },
    );
}
