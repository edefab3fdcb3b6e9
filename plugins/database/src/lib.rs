//! Two kinds in one component. A `Database` is a Valkey of one or several replicas, whose version changes replica by replica; a
//! `Backup` dumps one every so often, with a Job for each run.

mod backup;
mod children;
mod database;
mod job;
mod storage;
mod walk;

use plugin_sdk::prelude::*;

use backup::{cleanup, reconcile as backup};
use database::reconcile as database;

/// On every object that is made for a Database; the value is its name.
const LABEL: &str = "demo.reef.dev/database";
const DATABASE: &str = "demo.reef.dev/v1/Database";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Settings {
    image: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { image: "docker.io/valkey/valkey".into() }
    }
}

plugin!(
    database, for: "demo.reef.dev/v1/Database",
        owns: ["apps/v1/StatefulSet", "v1/Service", "v1/ConfigMap"],
        reads: ["v1/PersistentVolumeClaim"],
        writes: ["v1/PersistentVolumeClaim"],
        crds: ["../crds/database.yaml", "../crds/backup.yaml"],
        settings_schema: "../settings.schema.json";
    backup, for: "demo.reef.dev/v1/Backup",
        reads: ["demo.reef.dev/v1/Database", "batch/v1/Job"],
        writes: ["batch/v1/Job"],
        cleanup: cleanup
);

#[cfg(test)]
mod tests;
