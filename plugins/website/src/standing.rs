//! How a site is doing, as its Deployment tells it.

use plugin_sdk::prelude::*;

use crate::{Status, children::ESSENTIALS};

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    /// No pod serves a page yet.
    Pending,
    /// On its way to what the spec says.
    Progressing,
    /// As many pods as wanted serve this page, and no others are there.
    Ready,
    /// The cluster does not give what is needed.
    Waiting,
}

pub struct Standing {
    wanted: u32,
    ready: u32,
    phase: Phase,
    /// Why it does not go on: reason and message.
    stuck: Option<(&'static str, String)>,
}

impl Standing {
    /// `live` is what was there of `planned` when this run began: after an edit its status still praises the page before.
    pub fn of(live: Option<&Object>, planned: &Value, wanted: u32) -> Self {
        let Some(live) = live else { return Self { wanted, ready: 0, phase: Phase::Pending, stuck: None } };
        let replicas = |field: &str| live.at(&format!("/status/{field}")).as_u64().unwrap_or(0);
        let current = ESSENTIALS.iter().all(|part| planned.pointer(part) == Some(live.at(part))) && live.is_observed();
        let all = ["replicas", "updatedReplicas", "readyReplicas"].iter().all(|field| replicas(field) == u64::from(wanted));
        let ready = u32::try_from(replicas("readyReplicas")).unwrap_or(u32::MAX);
        let stuck = if current { stuck(live) } else { None };
        let phase = match () {
            () if stuck.is_some() => Phase::Waiting,
            () if current && all => Phase::Ready,
            () if ready == 0 => Phase::Pending,
            () => Phase::Progressing,
        };
        Self { wanted, ready, phase, stuck }
    }

    /// A site that does not get what it needs keeps all that it has: the plan is partial until it does.
    pub fn report(self, plan: Plan) -> Plan {
        let Self { wanted, ready, phase, stuck } = self;
        let count = format!("{ready} of {wanted} replicas are ready");
        let plan = plan.status(Status { ready_replicas: ready, phase });
        match stuck {
            Some((reason, message)) => plan
                .condition(Condition::no("Ready", reason, count))
                .condition(Condition::no("Progressing", reason, &message))
                .pending(message),
            None if phase == Phase::Ready => plan.condition(Condition::yes("Ready", "Serving", count)).condition(Condition::no(
                "Progressing",
                "Complete",
                "all replicas serve this page",
            )),
            None => plan.condition(Condition::no("Ready", "RollingOut", &count)).condition(Condition::yes(
                "Progressing",
                "RollingOut",
                count,
            )),
        }
    }
}

/// What keeps a Deployment from making its pods.
fn stuck(live: &Object) -> Option<(&'static str, String)> {
    if let Some(failure) = live.condition("ReplicaFailure").filter(Condition::is_true) {
        // What stands before names a pod that never came to be, another one each time.
        let message = failure.message.as_str();
        let cause = message.split_once("is forbidden: ").map_or(message, |(_, cause)| cause);
        let reason = if cause.contains("exceeded quota") { "QuotaExceeded" } else { "ReplicaFailure" };
        return Some((reason, format!("the Deployment cannot make its pods: {cause}")));
    }
    let progress = live.condition("Progressing")?;
    let stalled = progress.status == "False" && progress.reason == "ProgressDeadlineExceeded";
    stalled.then(|| ("Stalled", format!("the Deployment has given up waiting for its pods: {}", progress.message)))
}
