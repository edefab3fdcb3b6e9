//! The loop: from a key that has something to do to its verdict. Takes batches from the queue while this host leads and
//! runs them, each key in a task of its own.
//!
//! Beside it, a steward per `Plugin` resource (`stewards`) brings revisions to run. It knows queue, catalog, watch,
//! sandbox and plan, and is the only room that does.

mod failing;
mod live;
mod reads;
mod refused;
mod rights;
mod run;
mod steward;
mod stewards;

pub use stewards::plugin_kind;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use self::{failing::Failures, live::Live, refused::Refused};
use crate::{
    catalog::Catalog,
    identity::Api,
    leader::Leader,
    metrics::Metrics,
    names::Key,
    plan::Applier,
    queue::{Job, Priority, Queue, Verdict},
    sandbox::Sandbox,
    watch::{Hub, Reason},
};

/// How the loop and the stewards go about it.
#[derive(Debug, Clone)]
pub struct DispatchOptions {
    pub class_name: String,
    pub plugin_dir: PathBuf,
    /// How often what is missing is looked for again.
    pub recheck: Duration,
    pub max_in_flight: usize,
}

/// What all reconciles and stewards share.
pub struct Shared {
    pub options: DispatchOptions,
    pub api: Api,
    pub hub: Hub,
    pub sandbox: Arc<Sandbox>,
    pub applier: Applier,
    pub leader: Leader,
    pub metrics: Metrics,
    pub work: Arc<Work>,
    catalog: Catalog<Live>,
    failures: Failures,
    refused: Arc<Refused>,
    /// Counts up when the failures of any plugin changed.
    news: watch::Sender<u64>,
    seeds: AtomicU64,
    /// Changes of `Plugin` resources that no steward has looked at yet.
    unsettled: AtomicUsize,
}

/// The queue and the bell that says that something was put into it.
pub struct Work {
    pub queue: Mutex<Queue>,
    metrics: Metrics,
    bell: Notify,
    in_flight: AtomicUsize,
}

impl Work {
    pub fn new(queue: Queue, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { queue: Mutex::new(queue), metrics, bell: Notify::new(), in_flight: AtomicUsize::new(0) })
    }

    /// What the hub calls.
    pub fn wake(&self, key: Key, reason: Reason) {
        let priority = match reason {
            Reason::Changed | Reason::Child | Reason::Dependency => Priority::Event,
            Reason::Initial | Reason::Relist => Priority::Background,
        };
        self.metrics.queue_adds.with_label_values(&[&key.plugin.to_string()]).inc();
        self.queue.lock().add(key, priority, Instant::now());
        self.bell.notify_one();
    }

    /// Reconciles that run now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }
}

/// The parts that `Shared` is made of.
pub struct Parts {
    pub options: DispatchOptions,
    pub api: Api,
    pub hub: Hub,
    pub sandbox: Arc<Sandbox>,
    pub applier: Applier,
    pub leader: Leader,
    pub metrics: Metrics,
    pub work: Arc<Work>,
}

impl Shared {
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { options, api, hub, sandbox, applier, leader, metrics, work } = parts;
        Arc::new(Self {
            options,
            api,
            hub,
            sandbox,
            applier,
            leader,
            metrics,
            work,
            catalog: Catalog::default(),
            failures: Failures::default(),
            refused: Arc::default(),
            news: watch::Sender::new(0),
            seeds: AtomicU64::new(getrandom::u64().unwrap_or(1)),
            unsettled: AtomicUsize::new(0),
        })
    }

    /// Another one for each reconcile; it doubles as the reconcile's id in the log.
    fn seed(&self) -> u64 {
        self.seeds.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }

    /// Plugins whose scopes may not be known yet.
    pub fn unsettled(&self) -> usize {
        self.unsettled.load(Ordering::Acquire)
    }

    fn unsettle(self: &Arc<Self>) -> Unsettled {
        self.unsettled.fetch_add(1, Ordering::AcqRel);
        Unsettled(self.clone())
    }

    fn succeeded(&self, key: &Key) {
        if self.failures.clear(key) {
            self.news.send_modify(|n| *n += 1);
        }
    }

    fn failed(&self, key: &Key, reason: &str, message: &str) {
        if self.failures.put(key, reason, message) {
            self.news.send_modify(|n| *n += 1);
        }
    }
}

/// A change of a `Plugin` that no steward has looked at yet, until dropped.
struct Unsettled(Arc<Shared>);

impl Drop for Unsettled {
    fn drop(&mut self) {
        self.0.unsettled.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Gives the key back to the queue, also when its task panicked: a key must never stay taken.
struct Taken {
    shared: Arc<Shared>,
    job: Job,
    verdict: Verdict,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let work = &self.shared.work;
        work.queue.lock().done(&self.job.key, self.verdict, Instant::now());
        work.in_flight.fetch_sub(1, Ordering::AcqRel);
        work.bell.notify_one();
    }
}

/// Runs until `stop`: keys while this host leads, and stewards for all plugins of the class.
pub async fn dispatch(shared: Arc<Shared>, stop: CancellationToken) {
    let stewards = tokio::spawn(stewards::run(shared.clone(), stop.clone()));
    let _refused = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(refused::run(shared.clone())));
    let mut leading = shared.leader.changed();
    while !stop.is_cancelled() {
        if leading.borrow_and_update().is_some() {
            hand_out(&shared);
        }
        let timer = shared.work.queue.lock().next_timer();
        tokio::select! {
            () = stop.cancelled() => break,
            () = shared.work.bell.notified() => {}
            changed = leading.changed() => if changed.is_err() { break },
            () = sleep_until(timer) => {}
        }
    }
    // They end by themselves; a panic in there was logged by its hook.
    let _ = stewards.await;
}

async fn sleep_until(timer: Option<Instant>) {
    match timer {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn hand_out(shared: &Arc<Shared>) {
    while shared.work.in_flight() < shared.options.max_in_flight {
        let Some(jobs) = shared.work.queue.lock().pop(Instant::now()) else { break };
        for job in jobs {
            shared.work.in_flight.fetch_add(1, Ordering::AcqRel);
            let mut taken = Taken { shared: shared.clone(), job, verdict: Verdict::Retry(None) };
            tokio::spawn(async move {
                taken.verdict = run::run(&taken.shared, &taken.job).await;
                drop(taken);
            });
        }
    }
}

/// Waits until nothing runs any more. False: something still ran after `timeout`.
pub async fn drained(work: &Work, timeout: Duration) -> bool {
    let empty = async {
        while work.in_flight() > 0 {
            work.bell.notified().await;
        }
    };
    tokio::time::timeout(timeout, empty).await.is_ok()
}

/// Fills the gauges that are looked up when somebody asks.
pub fn measure(shared: &Shared, metrics: &Metrics, lease: &str) {
    metrics.leading.with_label_values(&[lease]).set(shared.leader.gate().is_ok().into());
    let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    for load in shared.work.queue.lock().load() {
        let plugin = load.plugin.to_string();
        metrics.queue_depth.with_label_values(&[&plugin]).set(gauge(load.waiting));
        metrics.active_workers.with_label_values(&[&plugin]).set(gauge(load.running));
        metrics.max_concurrent.with_label_values(&[&plugin]).set(gauge(load.concurrency));
        let failing = shared.failures.of(load.plugin).map_or(0, |failing| failing.count);
        metrics.failing.with_label_values(&[&plugin]).set(failing.into());
    }
    // What nobody looks at any more has no series.
    for gauges in [&metrics.scope_objects, &metrics.scope_bytes, &metrics.quarantined, &metrics.scope_synced] {
        gauges.reset();
    }
    for scope in shared.hub.scopes() {
        let labels = [&*scope.scope.kind.to_string(), &*scope.scope.namespace];
        metrics.scope_objects.with_label_values(&labels).set(gauge(scope.objects));
        metrics.scope_bytes.with_label_values(&labels).set(gauge(scope.bytes));
        metrics.quarantined.with_label_values(&labels).set(gauge(scope.quarantined));
        metrics.scope_synced.with_label_values(&labels).set(scope.synced.into());
    }
}
