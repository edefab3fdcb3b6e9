//! Leadership: who writes, and when nobody may.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reef_tests::{
    audit::{Mark, Request},
    control_plane::HOST_USER,
    host::{Host, Options},
    world::{HOST_NAMESPACE, Scene, scene},
};
use serde_json::{Value, json};

use crate::{
    hello,
    probe::{self, CONFIG, until},
};

const LEASE: &str = "coordination.k8s.io/v1/Lease";

fn lease_name(scene: &Scene<'_>) -> String {
    format!("reef-{}", scene.namespace)
}

async fn lease(scene: &Scene<'_>) -> Result<Value> {
    let lease = scene.cluster().get(LEASE, HOST_NAMESPACE, &lease_name(scene)).await?;
    Ok(lease.context("there is no lease")?["spec"].clone())
}

/// Somebody edits the Lease.
async fn give_lease_to(scene: &Scene<'_>, holder: &str) -> Result<()> {
    let patch = json!({ "spec": { "holderIdentity": holder, "leaseDurationSeconds": 3600 } });
    scene.cluster().patch(LEASE, HOST_NAMESPACE, &lease_name(scene), "", &patch).await.map(drop)
}

async fn leads(host: &Host) -> Result<bool> {
    Ok(host.metrics().await?.sum("leader_election_master_status", &[]) > 0.5)
}

/// Changes of the scene's Lease by hosts that went through.
fn renewals(scene: &Scene<'_>, since: Mark) -> Result<Vec<Request>> {
    let mut requests = scene.world.audit.since(since)?;
    requests.retain(|request| {
        let object = &request.object_ref;
        let ours = object.resource == "leases" && object.name == lease_name(scene) && request.user.username == HOST_USER;
        ours && request.verb == "update" && request.response_status.code == 200
    });
    Ok(requests)
}

async fn events_seen(scene: &Scene<'_>, host: &Host) -> Result<f64> {
    let queue = format!("{}/hello", scene.namespace);
    Ok(host.metrics().await?.sum("workqueue_adds_total", &[("name", &queue)]))
}

/// The lease is taken by hand. What happens meanwhile is seen and waits; a host of another class, which leads, shows that
/// there was time enough to write.
///
/// Promises: E2
/// Breaks it: a host that exits, that writes on, that never leads again, or that forgets what happened meanwhile.
#[test]
fn a_host_that_lost_its_lease_lives_writes_nothing_and_leads_again() {
    scene("lost-lease", async |scene: &Scene<'_>| {
        let host = scene.host().await?;
        hello::install(scene).await?;
        hello::says(scene, "before").await?;
        let neighbour = format!("{}-b", scene.namespace);
        scene.host_with(&Options { class: neighbour.clone(), ..scene.options() }).await?;
        probe::install(scene).await?;
        hello::plugin(scene, "probe", json!({ "className": neighbour, "source": { "file": "probe.wasm" } })).await?;
        probe::ready(scene, "probe").await?;
        let before = lease(scene).await?;

        give_lease_to(scene, "a-thief").await?;
        until("the host knows that it does not lead", || async { leads(&host).await.is_ok_and(|leads| !leads) }).await?;
        let lost = scene.world.audit.mark(scene.cluster()).await?;
        let seen = events_seen(scene, &host).await?;
        hello::set(scene, "meanwhile").await?;
        scene.cluster().delete(CONFIG, &scene.namespace, "greeting").await?;
        let sees = || async { events_seen(scene, &host).await.is_ok_and(|now| now >= seen + 2.0) };
        until("the host has seen both changes", sees).await?;
        probe::set(scene, "busy", json!({ "mode": "slow", "size": 1000, "children": ["busy"] })).await?;
        probe::reconciled(scene, "busy").await?;
        ensure!(lease(scene).await?["holderIdentity"] == "a-thief", "the host took the lease back before it expired");

        give_lease_to(scene, "").await?;
        probe::config_says(scene, "greeting", "text", "meanwhile").await?;
        scene.world.audit.mark(scene.cluster()).await?;
        let renewals = renewals(scene, lost)?;
        let again = renewals.first().context("the host has not taken the lease again")?;
        let account = format!("system:serviceaccount:{}:hello", scene.namespace);
        let writes: Vec<Request> = scene.world.audit.writes(lost, &scene.namespace)?;
        let early = writes.iter().find(|w| w.user.username == account && w.request_received_timestamp < again.stage_timestamp);
        ensure!(early.is_none(), "written without the lease: {}", early.map(Request::line).unwrap_or_default());
        ensure!(writes.iter().any(|write| write.user.username == account), "nothing was written with the lease");
        ensure!(host.exit().is_none(), "the process has ended");
        let after = lease(scene).await?;
        ensure!(after["holderIdentity"] == before["holderIdentity"], "another process leads: {before} {after}");
        ensure!(after["leaseTransitions"].as_i64() > before["leaseTransitions"].as_i64(), "the same term: {before} {after}");
        Ok(())
    });
}

/// Three reconciles run when the signal comes: they are carried through, written, and then the lease is given back.
///
/// Promises: E3
/// Breaks it: a reconcile that is cut off, a lease that is given back too early, or kept.
#[test]
fn sigterm_lets_reconciles_end_and_gives_the_lease_back_after_the_last_write() {
    scene("drain", async |scene: &Scene<'_>| {
        let host = scene.host().await?;
        probe::install(scene).await?;
        probe::ready(scene, "probe").await?;
        let objects = ["a", "b", "c"];
        for name in objects {
            probe::set(scene, name, json!({ "mode": "slow", "size": 2000, "text": "late", "children": [name] })).await?;
        }
        let begun =
            || async { host.log().iter().filter(|line| reef_tests::host::message(line) == "begins").count() == objects.len() };
        until("all three run", begun).await?;
        let signalled = scene.world.audit.mark(scene.cluster()).await?;
        ensure!(scene.cluster().list(CONFIG, &scene.namespace).await?.len() == 1, "they have ended before the signal");

        let exit = host.terminate().await?;
        ensure!(exit.code == Some(0), "{exit:?}");
        for name in objects {
            probe::config_says(scene, name, "text", "late").await?;
            probe::reconciled(scene, name).await?;
        }
        ensure!(lease(scene).await?["holderIdentity"] == "", "the lease is held: {}", lease(scene).await?);
        scene.world.audit.mark(scene.cluster()).await?;
        let writes = scene.world.audit.writes(signalled, &scene.namespace)?;
        let children = writes.iter().filter(|write| write.object_ref.resource == "configmaps").count();
        ensure!(children == objects.len(), "{children} children were written after the signal");
        let released = renewals(scene, signalled)?.pop().context("the lease was not given back")?;
        let last = writes.iter().map(|write| &*write.stage_timestamp).max().unwrap_or_default();
        ensure!(last < &*released.request_received_timestamp, "last write {last}, release {}", released.line());
        Ok(())
    });
}

/// Promises: E4
/// Breaks it: a standby that waits until the lease expires, although its holder gave it back.
#[test]
fn a_standby_leads_as_soon_as_the_leader_is_stopped() {
    scene("handover", async |scene: &Scene<'_>| {
        let first = scene.host().await?;
        hello::install(scene).await?;
        hello::says(scene, "by the first").await?;
        let second = scene.host().await?;
        ensure!(leads(&first).await? && !leads(&second).await?, "the second host leads beside the first");
        let expires = lease(scene).await?["leaseDurationSeconds"].as_u64().context("the lease has no duration")?;
        ensure!(expires >= 15, "the lease lasts {expires} s: too short to tell waiting from not waiting");
        first.terminate().await?;
        let stopped = Instant::now();
        until("the second host leads", || async { leads(&second).await.is_ok_and(|leads| leads) }).await?;
        let took = stopped.elapsed();
        ensure!(took < Duration::from_secs(expires / 3), "{took:?} until somebody led again");
        hello::says(scene, "by the second").await
    });
}
