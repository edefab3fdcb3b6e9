//! One reconcile: object bytes from the store, one call in the sandbox, the plan carried out, a verdict for the queue.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{
    Reconciled, Shared,
    live::Live,
    losses,
    reads::{Answers, HubReads, access},
};
use crate::{
    capability::Grant,
    catalog::{Running, crd},
    contract::{FailureKind, Plan, Report, Request, manifest::Reconciles},
    metrics::Metrics,
    names::{Account, Key},
    plan::{self, Applied, Author, Class, Owner, Pass, Seen, Trouble, Written},
    queue::{Job, Ran, Verdict},
    sandbox::{Call, Ended, Limits},
    watch::Entry,
};

/// How soon a run that could not take place is repeated.
const AGAIN: Duration = Duration::from_millis(250);

/// Everything that one run needs and that does not change while it lasts.
struct Run<'a> {
    shared: &'a Arc<Shared>,
    job: &'a Job,
    running: Arc<Running<Live>>,
    live: Arc<Live>,
    entry: &'a Reconciles,
}

/// Runs a key that was handed out.
pub(super) async fn run(shared: &Arc<Shared>, job: &Job) -> Ran {
    let key = &job.key;
    let seed = shared.seed();
    let span = tracing::info_span!(
        "reconcile",
        plugin = %key.plugin,
        kind = %key.object.kind,
        namespace = %key.object.namespace,
        object = %key.object.name,
        reconcile_id = %format_args!("{seed:016x}"),
    );
    let started = Instant::now();
    let plugin = key.plugin.to_string();
    shared
        .metrics
        .queue_seconds
        .with_label_values(&[&plugin])
        .observe((started - Instant::from_std(job.ready_since)).as_secs_f64());
    let Done { verdict, writes, wrote } = reconcile(shared, job, seed).instrument(span.clone()).await;
    count(&shared.metrics, &plugin, verdict, writes, started.elapsed());
    let took = started.elapsed().as_millis();
    tracing::debug!(parent: &span, verdict = label(verdict), writes, milliseconds = took as u64, "reconciled");
    Ran { verdict, wrote }
}

/// How a run ended.
struct Done {
    verdict: Verdict,
    writes: u32,
    /// If there were writes: a hash of the plan, or of why there is none.
    wrote: Option<u64>,
}

impl From<Verdict> for Done {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, writes: 0, wrote: None }
    }
}

fn count(metrics: &Metrics, plugin: &str, verdict: Verdict, writes: u32, took: Duration) {
    metrics.reconciles.with_label_values(&[plugin, label(verdict)]).inc();
    metrics.reconcile_seconds.with_label_values(&[plugin]).observe(took.as_secs_f64());
    metrics.writes.with_label_values(&[plugin]).inc_by(writes.into());
    match verdict {
        Verdict::Retry(_) => {
            metrics.reconcile_errors.with_label_values(&[plugin]).inc();
            metrics.queue_retries.with_label_values(&[plugin]).inc();
        }
        Verdict::Terminal => metrics.terminal_errors.with_label_values(&[plugin]).inc(),
        Verdict::Done | Verdict::After(_) | Verdict::Wait(_) | Verdict::Repeat(_) => {}
    }
}

/// As controller-runtime labels its results.
fn label(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Done => "success",
        Verdict::After(_) | Verdict::Wait(_) | Verdict::Repeat(_) => "requeue_after",
        Verdict::Retry(_) => "error",
        Verdict::Terminal => "terminal_error",
    }
}

async fn reconcile(shared: &Arc<Shared>, job: &Job, seed: u64) -> Done {
    let key = &job.key;
    let Some(running) = shared.state.catalog.get(&key.plugin) else { return Verdict::Done.into() };
    let running_manifest = running.clone();
    let Some(entry) = running_manifest.revision.manifest.entry(&key.object.kind) else { return Verdict::Done.into() };
    // The term is asked for before the object is read: a plan never outlives the term that its object was read in.
    let Ok(term) = shared.leader.gate() else { return Verdict::Repeat(AGAIN).into() };
    let live = running.loaded.clone();
    if !live.is_announced() {
        return Verdict::Repeat(AGAIN).into();
    }
    let scope = live.scope(&key.object.kind);
    let object = match shared.hub.get(&scope, &key.object.namespace, &key.object.name) {
        Err(_) => return Verdict::Repeat(AGAIN).into(),
        Ok(None) => return gone(shared, job, &live),
        Ok(Some(object)) => object,
    };
    let Ok(resource) = shared.api.resource(&key.object.kind).await else { return Verdict::Repeat(AGAIN).into() };
    // The copy is shared: that it is there says nothing about who may see it.
    let access = access(&resource, "get", "", &key.object.namespace, Some(&key.object.name));
    match shared.api.can(&running.revision.account, &access).await {
        Ok(true) => {}
        Ok(false) => return not_allowed(shared, job, &running.revision.account),
        Err(error) if error.is_forbidden() => return not_allowed(shared, job, &running.revision.account),
        Err(_) => return Verdict::Repeat(AGAIN).into(),
    }
    let owner = Owner { key: key.clone(), entry: object, resource, scope, pass: Pass(term.0) };
    Run { shared, job, running, live, entry }.go(owner, seed).await
}

/// Tells whoever listens; what would have been written is for the log as well.
fn tell(shared: &Shared, key: &Key, applied: &Applied) {
    for written in applied.written.iter().filter(|written| written.difference.is_some()) {
        let Written { verb, object, subresource, difference } = written;
        let (before, after) = difference.as_ref().map_or((None, None), |d| (Some(&d.before), Some(&d.after)));
        tracing::info!(verb, %object, subresource, before = before.map(tracing::field::display), after = after.map(tracing::field::display), "not written in shadow mode");
    }
    if let Some(listener) = &shared.listener {
        listener(&Reconciled { key: key.clone(), outcome: applied.outcome.clone(), written: applied.written.clone() });
    }
}

/// Nothing is left to reconcile; children go by garbage collection.
fn gone(shared: &Arc<Shared>, job: &Job, live: &Live) -> Done {
    live.brake.forget(&job.key.object);
    shared.hub.forget(&job.key);
    shared.state.refused.forget(&job.key);
    shared.state.failures.clear(&job.key);
    Verdict::Done.into()
}

/// The account lost the right to see the object: nothing of it reaches the plugin.
fn not_allowed(shared: &Shared, job: &Job, account: &Account) -> Done {
    let message = format!("ServiceAccount {account} may not get this object: add the rule to its Role");
    shared.state.failures.put(&job.key, "Forbidden", &message);
    if let Some(listener) = &shared.listener {
        let outcome = plan::Outcome::Failed { class: Class::Wait, reason: "Forbidden".into(), message, after: None };
        listener(&Reconciled { key: job.key.clone(), outcome, written: Vec::new() });
    }
    Verdict::Wait(shared.options.recheck).into()
}

impl Run<'_> {
    async fn go(&self, owner: Owner, seed: u64) -> Done {
        let held = owner.entry.has_finalizer(&plan::finalizer(&self.running.revision.field_manager));
        let author = self.author();
        let leaving = self.live.is_leaving() && !owner.entry.deleting;
        if leaving || owner.entry.deleting && !(self.entry.cleanup && held) {
            return if held {
                self.settle(self.shared.applier.release(&author, &owner).await, || 0)
            } else {
                gone(self.shared, self.job, &self.live)
            };
        }
        let (outcome, objects) = self.call(&owner.entry, seed).await;
        self.measure(&outcome);
        self.shared.hub.set_reads(&self.job.key, &outcome.reads, &outcome.lists);
        let applier = &self.shared.applier;
        match outcome.result {
            Ok(plan) => {
                let seen = Seen { objects, failed: outcome.read_failed };
                let applied = applier.apply(&author, &owner, &plan, &seen, &self.live.brake).await;
                self.settle(applied, || fingerprint(&Plan { after: None, ..plan }))
            }
            Err(Ended::NotSynced(kind)) => {
                tracing::debug!(%kind, "the cache of a kind that it reads is not complete yet");
                Verdict::Repeat(AGAIN).into()
            }
            Err(ended) => {
                let trouble = trouble(ended);
                let output = fingerprint(&trouble);
                self.settle(applier.report_failure(&author, &owner, trouble).await, || output)
            }
        }
    }

    async fn call(&self, object: &Arc<Entry>, seed: u64) -> (crate::sandbox::Outcome, Answers) {
        let (revision, key) = (&self.running.revision, &self.job.key);
        let request = Request {
            key: key.object.clone(),
            object: String::from_utf8_lossy(&object.bytes).into_owned(),
            settings: revision.settings.to_string(),
            now: now_millis(),
            seed,
            attempt: self.job.failures,
        };
        let reads = Arc::new(HubReads {
            api: self.shared.api.clone(),
            hub: self.shared.hub.clone(),
            live: self.live.clone(),
            account: revision.account.clone(),
            key: key.clone(),
            refused: self.shared.state.refused.clone(),
            seen: Mutex::default(),
        });
        self.shared.state.refused.forget(key);
        let grant = self.grant().await;
        let limits = &revision.limits;
        let limits = Limits { memory: limits.memory, cpu: limits.cpu, deadline: limits.deadline };
        let call = Call { plugin: key.plugin.clone(), grant: Arc::new(grant), reads: reads.clone(), limits };
        let outcome = self.shared.sandbox.reconcile(&self.live.loaded, request, call).await;
        let seen = std::mem::take(&mut *reads.seen.lock());
        (outcome, seen)
    }

    async fn grant(&self) -> Grant {
        let (mut cluster_scoped, mut unknown) = (Vec::new(), Vec::new());
        for kind in [&self.entry.kind].into_iter().chain(&self.entry.owns).chain(&self.entry.reads) {
            match self.shared.api.resource(kind).await {
                Ok(resource) if resource.namespaced => {}
                Ok(_) => cluster_scoped.push(kind.clone()),
                Err(_) => unknown.push(kind.clone()),
            }
        }
        Grant { plugin: self.job.key.plugin.clone(), entry: self.entry.clone(), cluster_scoped, unknown }
    }

    fn measure(&self, outcome: &crate::sandbox::Outcome) {
        let (metrics, plugin) = (&self.shared.metrics, self.job.key.plugin.to_string());
        metrics.sandbox_seconds.with_label_values(&[&plugin]).observe(outcome.usage.wall.as_secs_f64());
        metrics.sandbox_cpu.with_label_values(&[&plugin]).add(outcome.usage.cpu.as_secs_f64());
        if let Err(Ended::Trapped { reason, .. }) = &outcome.result {
            metrics.ended.with_label_values(&[plugin.as_str(), reason]).inc();
            if *reason == "Panicked" {
                metrics.panics.with_label_values(&[&plugin]).inc();
            }
        }
    }

    fn author(&self) -> Author {
        let revision = &self.running.revision;
        Author {
            plugin: revision.plugin.clone(),
            account: revision.account.clone(),
            field_manager: revision.field_manager.clone(),
            entry: self.entry.clone(),
            owned: self.live.scopes(&self.entry.owns),
            former: self.live.scopes(&self.live.former()),
            written: self.live.scopes(&self.entry.writes),
            objects: self.live.scopes(revision.manifest.reconciles.iter().map(|entry| &entry.kind)),
            mode: match revision.mode {
                crd::Mode::Apply => plan::Mode::Apply,
                crd::Mode::Shadow => plan::Mode::Shadow,
            },
        }
    }

    /// From how it went to what the queue does, with what people are told on the way.
    fn settle(&self, applied: Applied, output: impl FnOnce() -> u64) -> Done {
        let (shared, key) = (self.shared, &self.job.key);
        if self.live.is_leaving() {
            shared.state.failures.nudge(&key.plugin);
        }
        for read in &applied.reads {
            shared.hub.add_read(key, read);
        }
        losses::wake(shared, &self.live);
        tell(shared, key, &applied);
        if self.live.brake.is_news() || (applied.writes > 0 && !self.live.former().is_empty()) {
            shared.state.failures.nudge(&key.plugin);
        }
        let verdict = match applied.outcome {
            plan::Outcome::Done { after, .. } => {
                shared.state.failures.clear(key);
                after.map_or(Verdict::Done, Verdict::After)
            }
            plan::Outcome::Failed { class, reason, message, after } => {
                let verdict = verdict(class, after);
                if applied.untold || matches!(class, Class::Retry | Class::Terminal) {
                    shared.state.failures.put(key, &reason, &message);
                    tracing::warn!(reason, error = message, "reconcile failed");
                } else {
                    tracing::debug!(reason, error = message, "reconcile did not finish");
                }
                verdict
            }
        };
        Done { verdict, writes: applied.writes, wrote: (applied.writes > 0).then(output) }
    }
}

fn verdict(class: Class, after: Option<Duration>) -> Verdict {
    match class {
        Class::Retry => Verdict::Retry(after),
        Class::Wait => Verdict::Wait(after.unwrap_or(Duration::from_secs(30))),
        Class::Terminal => after.map_or(Verdict::Terminal, Verdict::Wait),
        Class::NotSynced | Class::NotLeading => Verdict::Repeat(AGAIN),
        Class::OwnerGone | Class::Shadowed => Verdict::Done,
    }
}

/// Equal for equal values.
fn fingerprint(said: &impl std::fmt::Debug) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{said:?}").hash(&mut hasher);
    hasher.finish()
}

fn trouble(ended: Ended) -> Trouble {
    match ended {
        Ended::Failure(failure) => Trouble {
            reason: failure.reason,
            message: failure.message,
            kind: failure.kind,
            after: failure.after,
            report: failure.report,
        },
        Ended::Trapped { reason, message } => {
            Trouble { reason: reason.into(), message, kind: FailureKind::Retry, after: None, report: Report::default() }
        }
        Ended::NotSynced(kind) => Trouble {
            reason: "NotSynced".into(),
            message: format!("the cache of {kind} is not complete yet"),
            kind: FailureKind::Wait,
            after: Some(AGAIN),
            report: Report::default(),
        },
    }
}

fn now_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
