//! Carries out a plan: validates it as a whole, completes it, compares it with what is there, writes what differs in the
//! author's order, prunes, and says on the object how it went.
//!
//! The only room that writes tenants' objects. Every request is made as the plugin's account, every write asks the gate
//! first, and nothing is written in a steady state. The way of a plan: `validate` and `report` judge it, `complete` adds
//! what the host adds, `diff` and `cover` say what has to happen, `children`, `prune`, `finalizer`, `status` and `event`
//! do it through `writer`, the one door. It knows names, the hub and how to reach an API server; never Wasm.

mod brake;
mod children;
mod complete;
mod cover;
mod delete;
mod diff;
mod event;
mod failure;
mod fight;
mod finalizer;
mod gate;
mod json;
mod outcome;
mod patch;
mod prune;
mod report;
mod schema;
mod shadow;
mod shared;
mod status;
mod takeover;
mod validate;
mod verb;
mod writer;

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{
    contract::{FailureKind, Plan, Read, Report, manifest::Reconciles},
    identity::{Api, Resource},
    names::{Account, Key, Kind, PluginId},
    watch::{Entry, Hub, Scope},
};
pub use brake::{Brake, Held};
pub use complete::{ADOPT, APPLIED, MARK, OWNER};
pub use delete::Seen;
pub use failure::Class;
use failure::{Failed, unlearnt};
pub use finalizer::finalizer;
pub use gate::{Closed, Gate, Pass};
use report::{Place, Reported};
use schema::Conditions;
use shadow::or_shadowed;
pub use shadow::{Difference, Mode, Written};
pub use validate::Invalid;
use writer::Writer;

/// The object that is reconciled.
#[derive(Debug, Clone)]
pub struct Owner {
    pub key: Key,
    /// As it was read.
    pub entry: Arc<Entry>,
    pub resource: Arc<Resource>,
    /// Where the hub keeps it.
    pub scope: Scope,
    /// The term in which it was read.
    pub pass: Pass,
}

/// The plugin as one of its kinds' author.
#[derive(Debug, Clone)]
pub struct Author {
    pub plugin: PluginId,
    pub account: Account,
    /// `spec.fieldManager`: the value of the mark; in the API, the manager is `reef:<field_manager>`.
    pub field_manager: Arc<str>,
    pub entry: Reconciles,
    /// Where children are, by the kinds that this revision owns.
    pub owned: Vec<Scope>,
    /// Where children of kinds are that only a former revision owned.
    pub former: Vec<Scope>,
    /// Where the further kinds are that it writes.
    pub written: Vec<Scope>,
    /// Where the objects are that the plugin reconciles.
    pub objects: Vec<Scope>,
    pub mode: Mode,
}

/// Why there is no plan, from a plugin or from its sandbox.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// CamelCase, as in `CPULimitExceeded`.
    pub reason: String,
    pub message: String,
    pub kind: FailureKind,
    pub after: Option<Duration>,
    pub report: Report,
}

/// How it went.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// Requests that were sent to write something, accepted or not. Zero in a steady state.
    pub writes: u32,
    /// What was written, or in shadow mode would have been, in this order.
    pub written: Vec<Written>,
    /// What the outcome depends on beside what the plugin read: to be added to its reads.
    pub reads: Vec<Read>,
    /// The object does not say why it failed, because that could not be written.
    pub untold: bool,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Done {
        after: Option<Duration>,
        /// The plan was partial.
        pending: bool,
    },
    Failed {
        class: Class,
        reason: String,
        message: String,
        /// Not before so long; for `Terminal`, again after so long although nothing changed.
        after: Option<Duration>,
    },
}

/// Shared by all reconciles of a host.
pub struct Applier {
    api: Api,
    hub: Hub,
    gate: Gate,
    schemas: schema::Schemas,
    told: event::Told,
    fights: fight::Fights,
}

impl Applier {
    pub fn new(api: Api, hub: Hub, gate: Gate) -> Self {
        let (schemas, told, fights) = <_>::default();
        Self { api, hub, gate, schemas, told, fights }
    }

    /// Makes true what a plan says. If a read of the run did not get its answer, nothing is pruned.
    pub async fn apply(&self, author: &Author, owner: &Owner, plan: &Plan, seen: &Seen, brake: &Brake) -> Applied {
        let mut run = Run::new(self, author, owner, seen);
        let outcome = match run.carry_out(plan, brake).await {
            Ok(outcome) => outcome,
            Err(failed) => run.fail(failed, &Reported::default()).await,
        };
        run.applied(outcome)
    }

    /// Says on the object why there is no plan for it; nothing else is written.
    pub async fn report_failure(&self, author: &Author, owner: &Owner, trouble: Trouble) -> Applied {
        let seen = Seen::default();
        let mut run = Run::new(self, author, owner, &seen);
        let outcome = run.trouble(trouble).await;
        run.applied(outcome)
    }

    /// Takes the finalizer off an object whose plugin, in its present revision, has nothing to clean up. Does nothing
    /// if there is none.
    pub async fn release(&self, author: &Author, owner: &Owner) -> Applied {
        let seen = Seen::default();
        let mut run = Run::new(self, author, owner, &seen);
        let outcome = match run.release().await {
            Ok(()) => Outcome::Done { after: None, pending: false },
            Err(failed) => run.fail(failed, &Reported::default()).await,
        };
        run.applied(outcome)
    }
}

/// What can be told of a plan without an API server: why it is invalid, or what it is still waiting for. `status`: the kind has
/// such a subresource.
pub fn judge(plan: &Plan, entry: &Reconciles, cleanup: bool, status: bool) -> Result<Option<String>, Invalid> {
    let pending = outcome::pending(plan, cleanup)?;
    validate::drafts(&plan.writes, entry)?;
    judge_report(&plan.report, entry, status)?;
    Ok(pending)
}

/// The same of what a plan or a failure has to say.
pub fn judge_report(report: &Report, entry: &Reconciles, status: bool) -> Result<(), Invalid> {
    let place = Place { kind: &entry.kind, status, conditions: None, host_condition: &entry.condition };
    report::check(report, place).map(drop)
}

/// One plan on its way.
struct Run<'a> {
    applier: &'a Applier,
    author: &'a Author,
    owner: &'a Owner,
    seen: &'a Seen,
    writer: Writer<'a>,
    /// The owner as it is known now.
    current: Arc<Entry>,
    reads: Vec<Read>,
    /// Who keeps changing what is ours; it does not end the run.
    contested: Option<Failed>,
    /// The API server has said that the owner is still there.
    owner_seen: bool,
    untold: bool,
}

impl<'a> Run<'a> {
    fn new(applier: &'a Applier, author: &'a Author, owner: &'a Owner, seen: &'a Seen) -> Self {
        let writer = Writer::new(applier, author, &owner.key, owner.pass);
        let current = owner.entry.clone();
        Self {
            applier,
            author,
            owner,
            seen,
            writer,
            current,
            reads: Vec::new(),
            contested: None,
            owner_seen: false,
            untold: false,
        }
    }

    fn applied(self, outcome: Outcome) -> Applied {
        Applied { writes: self.writer.writes, written: self.writer.written, reads: self.reads, untold: self.untold, outcome }
    }

    async fn carry_out(&mut self, plan: &Plan, brake: &Brake) -> Result<Outcome, Failed> {
        self.catch_up()?;
        if self.is_left_alone() {
            return Ok(Outcome::Done { after: None, pending: false });
        }
        let cleanup = self.current.deleting;
        let pending = outcome::pending(plan, cleanup).map_err(Failed::from)?;
        let wanted = self.validated(plan).await?;
        let reported = self.reported(&plan.report).await?;
        if self.author.entry.cleanup && !cleanup && !self.is_held() {
            or_shadowed(self.hold().await)?;
        }
        for wanted in &wanted {
            or_shadowed(self.make(wanted).await)?;
        }
        if pending.is_none() && !cleanup && !self.seen.failed {
            let losses = self.losses(&wanted)?;
            if let Some(held) = self.prune(&losses, brake).await? {
                let after = held.after;
                self.told(held, &reported).await?;
                return Ok(Outcome::Done { after, pending: true });
            }
        }
        if plan.done {
            self.events(&reported.events).await;
            or_shadowed(self.let_go().await)?;
        } else if let Some(contested) = self.contested.take() {
            return Ok(self.fail(contested, &reported).await);
        } else {
            self.succeed(&reported, pending.as_deref()).await?;
        }
        Ok(Outcome::Done { after: plan.after, pending: pending.is_some() })
    }

    async fn release(&mut self) -> Result<(), Failed> {
        self.catch_up()?;
        if self.is_held() { or_shadowed(self.let_go().await) } else { Ok(()) }
    }

    /// Takes over what the hub knows of the owner by now. A plan that was made for another object, or for one that was
    /// not on its way out yet, is dropped.
    fn catch_up(&mut self) -> Result<(), Failed> {
        let read = &self.owner.entry;
        let found = self.applier.hub.get(&self.owner.scope, &read.id.namespace, &read.id.name);
        match found.map_err(|e| Failed::not_synced(e.to_string()))? {
            Some(now) if now.uid == read.uid && now.deleting && !read.deleting => {
                Err(Failed::superseded(format!("{} is being deleted", read.id)))
            }
            Some(now) if now.uid == read.uid => {
                self.current = now;
                Ok(())
            }
            _ => Err(Failed::owner_gone()),
        }
    }

    /// What is on its way out and not held by us is none of our business any more.
    fn is_left_alone(&self) -> bool {
        self.current.deleting && !self.is_held()
    }

    async fn validated(&self, plan: &Plan) -> Result<Vec<complete::Wanted>, Failed> {
        let drafts = validate::drafts(&plan.writes, &self.author.entry)?;
        let mut resources = HashMap::new();
        for draft in &drafts {
            if !resources.contains_key(&draft.kind) {
                resources.insert(draft.kind.clone(), self.resource(&draft.kind).await?);
            }
        }
        Ok(validate::wanted(drafts, self.owner, self.seen, &self.author.field_manager, &resources)?)
    }

    async fn reported(&self, report: &Report) -> Result<Reported, Failed> {
        let conditions = if report.conditions.is_empty() { None } else { Some(self.conditions().await?) };
        let place = Place::new(&self.owner.resource, conditions.as_deref(), &self.author.entry.condition);
        Ok(report::check(report, place)?)
    }

    async fn resource(&self, kind: &Kind) -> Result<Arc<Resource>, Failed> {
        self.applier.api.resource(kind).await.map_err(|error| unlearnt(&error))
    }

    /// What the schema of the owner says of conditions.
    async fn conditions(&self) -> Result<Arc<Conditions>, Failed> {
        if !self.owner.resource.status {
            return Ok(Arc::new(Conditions::Absent));
        }
        let kind = &self.owner.entry.id.kind;
        match self.applier.schemas.conditions(&self.applier.api, kind).await {
            Ok(Some(conditions)) => Ok(conditions),
            Ok(None) => Err(Failed::superseded(format!("the API server does not describe {kind} yet"))),
            Err(error) => Err(unlearnt(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{contract::Write, names::Cluster};

    /// A `Hello` named `a` in `team-a`, with uid `u1`.
    pub fn owner() -> Owner {
        let object = json!({"apiVersion": "demo.reef.dev/v1", "kind": "Hello",
            "metadata": {"name": "a", "namespace": "team-a", "uid": "u1", "resourceVersion": "5", "generation": 1}});
        let entry = Arc::new(Entry::parse(object.to_string().as_bytes(), None).unwrap());
        let resource = Arc::new(failure::tests::resource("demo.reef.dev/v1/Hello", "hellos"));
        let scope = Scope::new(Cluster::local(), entry.id.kind.clone(), "team-a");
        let key = Key { plugin: PluginId::new("team-a", "hello"), cluster: Cluster::local(), object: entry.id.clone() };
        Owner { key, entry, resource, scope, pass: Pass(1) }
    }

    /// What the manifest says of a kind that owns these.
    pub fn owning(owns: &[Kind]) -> Reconciles {
        serde_json::from_value(json!({"for": "demo.reef.dev/v1/Hello", "owns": owns})).unwrap()
    }

    /// A `ConfigMap` of this name, as a child of [`owner`].
    pub fn child(name: &str) -> complete::Wanted {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"x": "1"}});
        let write = Write { verb: "own".into(), object: object.to_string(), options: String::new() };
        let draft = validate::drafts(&[write], &owning(&["v1/ConfigMap".parse().unwrap()])).unwrap().remove(0);
        complete::complete(
            draft,
            Arc::new(failure::tests::resource("v1/ConfigMap", "configmaps")),
            None,
            "team-a",
            &owner(),
            "hello",
        )
    }
}
