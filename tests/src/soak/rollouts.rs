//! Says of Deployments how they stand, as the controllers of a cluster and its kubelets would: there is no pod.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::Others;
use crate::cluster::Cluster;

const DEPLOYMENT: &str = "apps/v1/Deployment";
/// Each Deployment takes one step in it.
const STEP: Duration = Duration::from_millis(200);

/// In these namespaces, until what is returned is dropped.
pub fn begin(cluster: &Arc<Cluster>, namespaces: &[String]) -> Others {
    let (cluster, namespaces) = (cluster.clone(), namespaces.to_vec());
    let task = tokio::spawn(async move {
        loop {
            for namespace in &namespaces {
                // Whoever asks an API server now and then gets no answer, and asks again.
                for deployment in cluster.list(DEPLOYMENT, namespace).await.unwrap_or_default() {
                    if let Some(status) = step(&deployment) {
                        let metadata = &deployment["metadata"];
                        // Only of what was seen: another one of this name, or another spec, is another matter.
                        let patch = json!({ "metadata": { "resourceVersion": metadata["resourceVersion"] }, "status": status });
                        let name = metadata["name"].as_str().unwrap_or_default();
                        let _ = cluster.patch(DEPLOYMENT, namespace, name, "status", &patch).await;
                    }
                }
            }
            tokio::time::sleep(STEP).await;
        }
    });
    Others(task.abort_handle())
}

/// The status after the next step of a rollout; none after the last. First the old pods serve and a new one
/// is there, then the new ones serve and the old ones are gone.
fn step(deployment: &Value) -> Option<Value> {
    let (generation, status) = (&deployment["metadata"]["generation"], &deployment["status"]);
    let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
    if status["observedGeneration"] != *generation {
        let serving = status["readyReplicas"].as_u64().unwrap_or(0);
        return Some(said(generation, serving + 1, 1, serving, ("ReplicaSetUpdated", "ReplicaSet is progressing.")));
    }
    let complete =
        said(generation, wanted, wanted, wanted, ("NewReplicaSetAvailable", "ReplicaSet has successfully progressed."));
    // What is zero is left out.
    let count = |status: &Value, field: &str| status[field].as_u64().unwrap_or(0);
    let is_complete =
        ["replicas", "updatedReplicas", "readyReplicas"].iter().all(|field| count(status, field) == count(&complete, field));
    (!is_complete || status["conditions"] != complete["conditions"]).then_some(complete)
}

fn said(generation: &Value, replicas: u64, updated: u64, ready: u64, progressing: (&str, &str)) -> Value {
    // Times differ from run to run, and nobody here reads them.
    let at = "2026-01-01T00:00:00Z";
    let condition = |condition_type: &str, status: bool, reason: &str, message: &str| {
        let status = if status { "True" } else { "False" };
        json!({
            "type": condition_type, "status": status, "reason": reason, "message": message,
            "lastUpdateTime": at, "lastTransitionTime": at,
        })
    };
    let available = ready > 0 || replicas == 0;
    let (reason, message) = if available {
        ("MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    json!({
        "observedGeneration": generation,
        "replicas": replicas, "updatedReplicas": updated, "readyReplicas": ready, "availableReplicas": ready,
        "conditions": [
            condition("Available", available, reason, message),
            condition("Progressing", true, progressing.0, progressing.1),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_two_steps_and_a_new_generation_begins_another() {
        let mut deployment = json!({ "metadata": { "generation": 1 }, "spec": { "replicas": 2 } });
        let states = |deployment: &mut Value| {
            let mut states = Vec::new();
            while let Some(status) = step(deployment) {
                states.push(["replicas", "updatedReplicas", "readyReplicas"].map(|field| status[field].as_u64().unwrap()));
                deployment["status"] = status;
            }
            states
        };
        assert_eq!(states(&mut deployment), [[1, 1, 0], [2, 2, 2]]);
        deployment["metadata"]["generation"] = 2.into();
        deployment["spec"]["replicas"] = 0.into();
        assert_eq!(states(&mut deployment), [[3, 1, 2], [0, 0, 0]]);
        assert_eq!(deployment["status"]["observedGeneration"], 2);
    }
}
