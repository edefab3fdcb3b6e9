//! What a `Database` consists of, beside the volumes that its StatefulSet makes. All have its name.

use plugin_sdk::{digest, prelude::*};

use crate::{LABEL, database::Db};

pub const STATEFUL_SET: &str = "apps/v1/StatefulSet";
/// Of what the replicas are made, as a digest: the plugin's own, so that nobody's defaults are in it.
pub const REVISION: &str = "demo.reef.dev/revision";
/// Where a StatefulSet says how much room a replica gets when it is made.
pub const FIRST_SIZE: &str = "/spec/volumeClaimTemplates/0/spec/resources/requests/storage";
/// Volumes are called `data-NAME-0` and so on.
pub const VOLUME: &str = "data";
pub const PORT: u16 = 6379;

const CONFIG: &str = "\
dir /data
appendonly yes
# Who may connect is for a NetworkPolicy to say.
protected-mode no
";

/// The first replica is written to, the others follow it.
const START: &str = r#"case "$HOSTNAME" in
  *-0) exec valkey-server /etc/valkey/valkey.conf ;;
  *) exec valkey-server /etc/valkey/valkey.conf --replicaof "$FIRST" 6379 ;;
esac
"#;

pub fn config(db: &Db) -> Value {
    db.child("v1/ConfigMap", json!({ "metadata": { "labels": labels(db) }, "data": files() }))
}

fn files() -> Value {
    json!({ "valkey.conf": CONFIG, "start.sh": START })
}

/// Gives each replica a name of its own: `NAME-0.NAME`.
pub fn service(db: &Db) -> Value {
    db.child(
        "v1/Service",
        json!({
            "metadata": { "labels": labels(db) },
            "spec": { "clusterIP": "None", "selector": labels(db), "ports": [{ "name": "valkey", "port": PORT }] },
        }),
    )
}

pub fn first_replica(database: &str) -> String {
    format!("{database}-0.{database}")
}

/// Of what a replica is made; a change of anything in it goes replica by replica. Fit for the Pod Security level `restricted`.
pub fn template(db: &Db, image: &str) -> Result<Value> {
    let probe = json!({ "exec": { "command": ["valkey-cli", "ping"] }, "periodSeconds": 5 });
    Ok(json!({
        "metadata": { "labels": labels(db), "annotations": { "demo.reef.dev/config": digest(&files())? } },
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": security(),
            "containers": [{
                "name": "valkey",
                "image": format!("{image}:{}", db.spec.version),
                "command": ["sh", "/etc/valkey/start.sh"],
                "env": [{ "name": "FIRST", "value": first_replica(db.name()) }],
                "ports": [{ "name": "valkey", "containerPort": PORT }],
                "readinessProbe": probe,
                "resources": { "requests": { "cpu": "50m", "memory": "64Mi" } },
                "securityContext": confined(),
                "volumeMounts": [
                    { "name": VOLUME, "mountPath": "/data" },
                    { "name": "config", "mountPath": "/etc/valkey", "readOnly": true },
                ],
            }],
            "volumes": [{ "name": "config", "configMap": { "name": db.name() } }],
        },
    }))
}

/// The user of Valkey's image.
pub fn security() -> Value {
    json!({ "runAsNonRoot": true, "runAsUser": 999, "fsGroup": 999, "seccompProfile": { "type": "RuntimeDefault" } })
}

pub fn confined() -> Value {
    json!({ "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] } })
}

pub fn stateful_set(db: &Db, template: Value, revision: &str, partition: u32, first_size: &str) -> Value {
    let claim = json!({
        "metadata": { "name": VOLUME },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": first_size } } },
    });
    db.child(
        STATEFUL_SET,
        json!({
            "metadata": { "labels": labels(db), "annotations": { REVISION: revision } },
            "spec": {
                "replicas": db.spec.replicas,
                "serviceName": db.name(),
                "selector": { "matchLabels": labels(db) },
                // Else a replica that cannot start keeps its own replacement from being made.
                "podManagementPolicy": "Parallel",
                "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": partition } },
                "template": template,
                "volumeClaimTemplates": [claim],
            },
        }),
    )
}

fn labels(db: &Db) -> Value {
    json!({ LABEL: db.name() })
}
