//! The plugin `database`: a change that goes step by step, and Jobs that are made once each.
//!
//! There are neither a StatefulSet's nor a Job's controller: the tests say what those would.

mod backups;
mod walk;

use anyhow::{Context, Result};
use reef_tests::world::Scene;
use serde_json::{Value, json};

use crate::hello::{self, object_says};

const DATABASE: &str = "demo.reef.dev/v1/Database";
const BACKUP: &str = "demo.reef.dev/v1/Backup";
const SET: &str = "apps/v1/StatefulSet";
const PLUGIN: &str = "database";

async fn install(scene: &Scene<'_>) -> Result<()> {
    hello::install_example(scene, PLUGIN, &[("crds/database.yaml", DATABASE), ("crds/backup.yaml", BACKUP)]).await
}

/// Creates the Database `db`, or replaces the whole of its spec.
async fn set(scene: &Scene<'_>, version: &str, replicas: u32, storage: &str) -> Result<Value> {
    let spec = json!({ "version": version, "replicas": replicas, "storage": storage });
    let db = json!({ "apiVersion": "demo.reef.dev/v1", "kind": "Database", "metadata": { "name": "db" }, "spec": spec });
    scene.cluster().apply_object(&scene.namespace, &db).await
}

/// Waits until the StatefulSet is for this version, and has this partition.
async fn partition(scene: &Scene<'_>, version: &str, partition: u32) -> Result<Value> {
    let there = |set: Option<&Value>| set.is_some_and(|set| is_at(set, version, partition));
    scene.cluster().wait(SET, &scene.namespace, "db", &format!("is for {version} from {partition} on"), there).await
}

fn is_at(set: &Value, version: &str, partition: u32) -> bool {
    let image = set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
    image.ends_with(&format!(":{version}")) && set["spec"]["updateStrategy"]["rollingUpdate"]["partition"] == partition
}

/// What the StatefulSet's controller says of the spec as it is now.
async fn control(scene: &Scene<'_>, ready: u32, updated: u32, revisions: (&str, &str)) -> Result<()> {
    let set = scene.cluster().get(SET, &scene.namespace, "db").await?.context("there is no StatefulSet")?;
    let status = json!({
        "observedGeneration": set["metadata"]["generation"], "replicas": set["spec"]["replicas"],
        "readyReplicas": ready, "availableReplicas": ready, "updatedReplicas": updated,
        "currentRevision": revisions.0, "updateRevision": revisions.1,
    });
    scene.cluster().patch(SET, &scene.namespace, "db", "status", &json!({ "status": status })).await.map(drop)
}

async fn says(scene: &Scene<'_>, name: &str, status: &str, reason: &str) -> Result<Value> {
    object_says(scene, DATABASE, "db", (name, status, reason)).await
}

/// A Database of which all replicas run version 8.
async fn serving(scene: &Scene<'_>, replicas: u32) -> Result<Value> {
    set(scene, "8", replicas, "1Gi").await?;
    partition(scene, "8", 0).await?;
    control(scene, replicas, replicas, ("a", "a")).await?;
    says(scene, "Progressing", "False", "Complete").await
}
