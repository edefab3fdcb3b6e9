//! How a change goes from replica to replica, the last one first, never two at once; and where it stands.
//!
//! A StatefulSet changes the replicas from its `partition` on. The walk lowers it by one each time that everything is ready and
//! what it stands for has been done. It has no memory: where it is can be read from the StatefulSet.

use plugin_sdk::prelude::*;

use crate::{
    children::REVISION,
    database::{Db, Status},
};

pub struct Walk {
    /// What the StatefulSet is to have.
    pub partition: u32,
    wanted: u32,
    ready: u32,
    updated: u32,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// The StatefulSet has just been planned for the first time.
    New,
    /// This run sets out to change what the replicas are made of.
    Begins,
    /// Some replicas are of the present version, some are not, or nobody has said so yet.
    Updating,
    /// All are of the present version, but they are not as many as wanted, or not all ready.
    Scaling,
    Complete,
}

impl Walk {
    /// `live` is the StatefulSet as it was when this run began, `revision` of what its replicas are to be made.
    pub fn of(live: Option<&Object>, revision: &str, wanted: u32) -> Self {
        let Some(live) = live else { return Self { partition: 0, wanted, ready: 0, updated: 0, stage: Stage::New } };
        let number = |pointer: &str| live.at(pointer).as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        let text = |pointer: &str| live.at(pointer).as_str().unwrap_or_default();
        let (ready, updated) = (number("/status/readyReplicas"), number("/status/updatedReplicas"));
        let partition = number("/spec/updateStrategy/rollingUpdate/partition").min(wanted);
        let unfinished = text("/status/currentRevision") != text("/status/updateRevision");
        let as_many = |replicas: u32| live.is_observed() && number("/status/replicas") == replicas && ready == replicas;
        if live.annotation(REVISION) != Some(revision) {
            let partition = match () {
                // Nobody serves, so there is nobody to spare.
                () if ready == 0 => 0,
                // The last change has got stuck in the replica it came to, and only another change can help that one.
                () if unfinished && !as_many(number("/spec/replicas")) => partition,
                () => wanted,
            };
            return Self { partition, wanted, ready, updated: 0, stage: Stage::Begins };
        }
        let all = as_many(wanted) && number("/spec/replicas") == wanted;
        let walking = partition > 0 || unfinished;
        let stage = match () {
            () if all && partition == 0 && updated == wanted => Stage::Complete,
            () if walking => Stage::Updating,
            () => Stage::Scaling,
        };
        let settled = all && updated >= wanted - partition;
        Self { partition: partition.saturating_sub(u32::from(settled)), wanted, ready, updated, stage }
    }

    pub fn report(self, plan: Plan, db: &Db) -> Plan {
        let Self { wanted, ready, updated, stage, .. } = self;
        let before = db.status().unwrap_or_default();
        let version = if stage == Stage::Complete { Some(db.spec.version.clone()) } else { before.version.clone() };
        let changed = before.version.as_ref().filter(|before| **before != db.spec.version);
        let event = match (stage, changed) {
            (Stage::Begins, Some(from)) => {
                Some(Event::normal("Updating", format!("from version {from} to {}, replica by replica", db.spec.version)))
            }
            (Stage::Complete, Some(from)) => Some(Event::normal(
                "Updated",
                format!("all {wanted} replicas have gone from version {from} to {}", db.spec.version),
            )),
            _ => None,
        };
        let plan = plan
            .status(Status { version, storage: db.spec.storage.clone(), ready_replicas: ready, updated_replicas: updated })
            .condition(self.readiness())
            .condition(self.progress(&db.spec.version));
        event.into_iter().fold(plan, Plan::event)
    }

    fn readiness(&self) -> Condition {
        let Self { wanted, ready, .. } = self;
        let count = format!("{ready} of {wanted} replicas are ready");
        match () {
            () if ready == wanted => Condition::yes("Ready", "Serving", count),
            () if *ready == 0 => Condition::no("Ready", "NoReplicas", count),
            () => Condition::no("Ready", "SomeReplicas", count),
        }
    }

    fn progress(&self, version: &str) -> Condition {
        let Self { wanted, ready, updated, stage, .. } = self;
        match stage {
            Stage::Complete => {
                Condition::no("Progressing", "Complete", format!("all {wanted} replicas run version {version} and are ready"))
            }
            Stage::New | Stage::Scaling => {
                Condition::yes("Progressing", "Scaling", format!("{ready} of {wanted} replicas are ready"))
            }
            Stage::Begins | Stage::Updating if ready == wanted => Condition::yes(
                "Progressing",
                "Updating",
                format!("{updated} of {wanted} replicas are of version {version} and the present settings"),
            ),
            Stage::Begins | Stage::Updating => Condition::yes(
                "Progressing",
                "WaitingForReplicas",
                format!("{updated} of {wanted} replicas are of version {version}; the next one follows when all are ready"),
            ),
        }
    }
}
