//! `Database`: its version, and the room that it has.

use anyhow::{Result, ensure};
use reef_tests::world::{Scene, scene};
use serde_json::{Value, json};

use super::{DATABASE, PLUGIN, SET, control, install, is_at, partition, says, serving, set};
use crate::{
    hello::{self, events, sentence},
    probe,
};

const CLAIM: &str = "v1/PersistentVolumeClaim";

/// The host is killed while the first of the replicas is on its way, and another one does not know more than the cluster does.
///
/// Promises: R2, W2, W11
/// Breaks it: a step before the one before it was seen to be done, a walk that a restart begins anew, or a status that is ahead
/// of what runs.
#[test]
fn a_version_goes_replica_by_replica_and_the_database_says_where_it_stands() {
    scene("database", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let host = scene.host().await?;
        install(scene).await?;
        set(scene, "8", 3, "1Gi").await?;
        says(scene, "Ready", "False", "NoReplicas").await?;
        let db = serving(scene, 3).await?;
        ensure!(db["status"]["version"] == "8" && db["status"]["readyReplicas"] == 3, "{db:#}");
        says(scene, "Ready", "True", "Serving").await?;

        set(scene, "9", 3, "1Gi").await?;
        partition(scene, "9", 3).await?;
        let db = says(scene, "Progressing", "True", "Updating").await?;
        ensure!(db["status"]["version"] == "8", "not all run it yet: {db:#}");
        control(scene, 3, 0, ("a", "b")).await?;
        partition(scene, "9", 2).await?;
        // It is seen, and nothing has been done yet.
        let runs = probe::reconciles(scene, &host, PLUGIN, None).await?;
        control(scene, 3, 0, ("a", "b")).await?;
        probe::reconciles_reach(scene, &host, PLUGIN, None, runs + 1).await?;
        control(scene, 2, 0, ("a", "b")).await?;
        let waits = says(scene, "Progressing", "True", "WaitingForReplicas").await?;
        hello::has(
            &sentence(&waits, "Progressing"),
            &["0 of 3 replicas are of version 9; the next one follows when all are ready"],
        )?;
        let there = cluster.get(SET, namespace, "db").await?.unwrap_or_default();
        ensure!(is_at(&there, "9", 2), "the next one before this one: {there:#}");
        scene.kill(&host).await?;
        control(scene, 2, 1, ("a", "b")).await?;
        let host = scene.host().await?;
        let seen = |db: Option<&Value>| db.is_some_and(|db| db["status"]["updatedReplicas"] == 1);
        cluster.wait(DATABASE, namespace, "db", "has one replica of the version", seen).await?;
        let there = cluster.get(SET, namespace, "db").await?.unwrap_or_default();
        ensure!(is_at(&there, "9", 2), "two at once: {there:#}");

        for updated in [1, 2] {
            control(scene, 3, updated, ("a", "b")).await?;
            partition(scene, "9", 2 - updated).await?;
        }
        let db = says(scene, "Progressing", "True", "Updating").await?;
        ensure!(db["status"]["version"] == "8", "{db:#}");
        control(scene, 3, 3, ("b", "b")).await?;
        let db = says(scene, "Progressing", "False", "Complete").await?;
        ensure!(db["status"]["version"] == "9", "{db:#}");
        let told = || async { events(scene, "db", "Updated").await.is_ok_and(|events| events.len() == 1) };
        probe::until("it is told that the version has changed", told).await?;
        ensure!(events(scene, "db", "Updating").await? == ["from version 8 to 9, replica by replica"]);
        hello::restarted_and_steady(scene, &host, PLUGIN).await.map(drop)
    });
}

/// Promises: R2, W11
/// Breaks it: a walk that goes on over a replica that does not start, or one that no other version gets out of there.
#[test]
fn a_version_that_does_not_start_harms_one_replica_and_is_left_by_another() {
    scene("database-broken", async |scene: &Scene<'_>| {
        let _host = scene.host().await?;
        install(scene).await?;
        serving(scene, 3).await?;
        set(scene, "broken", 3, "1Gi").await?;
        partition(scene, "broken", 3).await?;
        control(scene, 3, 0, ("a", "b")).await?;
        partition(scene, "broken", 2).await?;
        control(scene, 2, 1, ("a", "b")).await?;
        says(scene, "Ready", "False", "SomeReplicas").await?;
        let waits = says(scene, "Progressing", "True", "WaitingForReplicas").await?;
        ensure!(waits["status"]["updatedReplicas"] == 1, "{waits:#}");

        set(scene, "8", 3, "1Gi").await?;
        partition(scene, "8", 2).await?;
        control(scene, 3, 3, ("a", "a")).await?;
        partition(scene, "8", 1).await?;
        control(scene, 3, 3, ("a", "a")).await?;
        partition(scene, "8", 0).await?;
        control(scene, 3, 3, ("a", "a")).await?;
        says(scene, "Progressing", "False", "Complete").await?;
        says(scene, "Ready", "True", "Serving").await.map(drop)
    });
}

/// The volumes of a StatefulSet, as its controller makes them and a provisioner gives them room.
async fn volumes(scene: &Scene<'_>, names: &[&str]) -> Result<()> {
    let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": namespace },
        "provisioner": "example.com/none", "allowVolumeExpansion": true,
    });
    cluster.apply_object("", &class).await?;
    for name in names {
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": name, "labels": { "demo.reef.dev/database": "db" } },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": namespace, "volumeName": format!("{namespace}-{name}"),
                "resources": { "requests": { "storage": "1Gi" } },
            },
        });
        cluster.apply_object(namespace, &claim).await?;
        let bound = json!({ "status": { "phase": "Bound", "capacity": { "storage": "1Gi" } } });
        cluster.patch(CLAIM, namespace, name, "status", &bound).await?;
    }
    Ok(())
}

/// Promises: W11, Q7
/// Breaks it: volumes that are asked to shrink, a StatefulSet that is told what it cannot be told, or a bad spec that is tried
/// again and again.
#[test]
fn storage_grows_volume_by_volume_and_a_smaller_one_is_refused_with_a_sentence() {
    scene("database-room", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let host = scene.host().await?;
        install(scene).await?;
        serving(scene, 2).await?;
        volumes(scene, &["data-db-0", "data-db-1", "data-db-2"]).await?;
        set(scene, "8", 2, "2Gi").await?;
        let has = |size: &'static str| {
            move |claim: Option<&Value>| claim.is_some_and(|c| c["spec"]["resources"]["requests"]["storage"] == size)
        };
        for name in ["data-db-0", "data-db-1"] {
            cluster.wait(CLAIM, namespace, name, "is asked to be larger", has("2Gi")).await?;
        }
        let db = says(scene, "Reconciled", "True", "Reconciled").await?;
        ensure!(db["status"]["storage"] == "2Gi", "{db:#}");
        cluster.wait(CLAIM, namespace, "data-db-2", "is as it was: no replica uses it", has("1Gi")).await?;
        let there = cluster.get(SET, namespace, "db").await?.unwrap_or_default();
        let first = "/spec/volumeClaimTemplates/0/spec/resources/requests/storage";
        ensure!(there.pointer(first) == Some(&json!("1Gi")), "{there:#}");

        let before = probe::reconciles(scene, &host, PLUGIN, Some("terminal_error")).await?;
        set(scene, "8", 2, "1536Mi").await?;
        let refused = says(scene, "Reconciled", "False", "StorageShrunk").await?;
        let says_why = "spec.storage is 1536Mi, and the replicas have 2Gi: volumes can only grow, so write at least 2Gi";
        hello::has(&sentence(&refused, "Reconciled"), &[says_why])?;
        says(scene, "Progressing", "False", "StorageShrunk").await?;
        // The status is there a moment before the count.
        probe::reconciles_reach(scene, &host, PLUGIN, Some("terminal_error"), before + 1).await?;
        ensure!(probe::reconciles(scene, &host, PLUGIN, Some("terminal_error")).await? == before + 1);

        set(scene, "8", 2, "3Gi").await?;
        cluster.wait(CLAIM, namespace, "data-db-1", "is asked to be larger", has("3Gi")).await?;
        says(scene, "Progressing", "False", "Complete").await?;
        hello::restarted_and_steady(scene, &host, PLUGIN).await.map(drop)
    });
}
