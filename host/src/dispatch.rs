//! The loop: from a key that has something to do to its verdict. Takes batches from the queue while this host leads and
//! runs them, each key in a task of its own.
//!
//! Beside it, a steward per `Plugin` resource (`stewards`) brings revisions to run. It knows queue, catalog, watch,
//! sandbox and plan, and is the only room that does.

mod failing;
mod given;
mod leaving;
mod live;
mod losses;
mod origin;
mod reads;
mod refused;
mod rights;
mod run;
mod signatures;
mod steward;
mod stewards;
mod trusted;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

pub use self::given::{Given, Plugins};
use self::{failing::Failures, live::Live, refused::Refused};
use crate::{
    catalog::{Catalog, crd::Failing},
    identity::{Api, ApiError},
    leader::Leader,
    metrics::Metrics,
    names::{Key, PluginId},
    plan::{Applier, Outcome, Written},
    queue::{Job, Priority, Pushback, Queue, Ran, Slowed, Verdict},
    sandbox::Sandbox,
    source::oci::Oci,
    trust::Trust,
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
    pub oci: Oci,
    pub applier: Applier,
    pub leader: Leader,
    pub trust: Arc<Trust>,
    pub metrics: Metrics,
    pub work: Arc<Work>,
    pub plugins: Plugins,
    /// Told of every reconcile, beside log and metrics.
    pub listener: Option<Listener>,
    pub state: State,
}

/// Must not block.
pub type Listener = Arc<dyn Fn(&Reconciled) + Send + Sync>;

/// How a reconcile went.
pub struct Reconciled {
    pub key: Key,
    pub outcome: Outcome,
    /// What was written, or in shadow mode would have been.
    pub written: Vec<Written>,
}

/// What the loop and the stewards know; empty at the start.
pub struct State {
    catalog: Catalog<Live>,
    failures: Failures,
    refused: Arc<Refused>,
    seeds: AtomicU64,
    /// Changes of `Plugin` resources that no steward has looked at yet.
    unsettled: Arc<AtomicUsize>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            catalog: Catalog::default(),
            failures: Failures::default(),
            refused: Arc::default(),
            seeds: AtomicU64::new(getrandom::u64().unwrap_or(1)),
            unsettled: Arc::default(),
        }
    }
}

/// The queue and the bell that says that something was put into it.
pub struct Work {
    pub queue: Mutex<Queue>,
    metrics: Metrics,
    bell: Notify,
    in_flight: AtomicUsize,
    /// Plugins that were slowed down, and whose stewards were not told yet.
    slowed_news: Mutex<Vec<PluginId>>,
}

impl Work {
    pub fn new(queue: Queue, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(queue),
            metrics,
            bell: Notify::new(),
            in_flight: AtomicUsize::new(0),
            slowed_news: Mutex::default(),
        })
    }

    /// What the hub calls.
    pub fn wake(&self, key: Key, reason: Reason) {
        let priority = match reason {
            Reason::Changed => Priority::Edit,
            Reason::Child | Reason::Dependency => Priority::Dependency,
            Reason::Initial | Reason::Relist => Priority::Background,
        };
        self.metrics.queue_adds.with_label_values(&[&key.plugin.to_string()]).inc();
        self.queue.lock().add(key, priority, now());
        self.bell.notify_one();
    }

    /// A request for a plugin found an API server that has too much to do, or none.
    pub fn pushed_back(&self, plugin: &PluginId, error: &ApiError) {
        let Some(retry_after) = error.pushback() else { return };
        self.metrics.pushbacks.with_label_values(&[&plugin.to_string()]).inc();
        let pushback = Pushback { retry_after, said: error.to_string().into() };
        if self.queue.lock().pushed_back(plugin, pushback, now()) {
            self.slowed_news.lock().push(plugin.clone());
            tracing::warn!(%plugin, %error, "slowed down: the API server turns its requests away");
        }
        self.bell.notify_one();
    }

    /// How far a plugin is slowed down because of that.
    pub fn slowed(&self, plugin: &PluginId) -> Option<Slowed> {
        self.queue.lock().slowed(plugin, now())
    }

    /// Reconciles that run now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }
}

impl Shared {
    /// Another one for each reconcile; it doubles as the reconcile's id in the log.
    fn seed(&self) -> u64 {
        self.state.seeds.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }

    /// Plugins whose scopes may not be known yet.
    pub fn unsettled(&self) -> usize {
        self.state.unsettled.load(Ordering::Acquire)
    }

    /// Which objects of a plugin fail, and which are slowed down.
    fn failing(&self, plugin: &PluginId) -> Option<Failing> {
        let braked = self.work.queue.lock().braked(plugin, now());
        failing::with_braked(self.state.failures.of(plugin), &braked)
    }
}

/// A change of a `Plugin` that no steward has looked at yet, until dropped.
struct Unsettled(Arc<AtomicUsize>);

impl Unsettled {
    fn new(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::AcqRel);
        Self(counter.clone())
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Gives the key back to the queue, also when its task panicked: a key must never stay taken.
struct Taken {
    shared: Arc<Shared>,
    job: Job,
    ran: Ran,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let work = &self.shared.work;
        let news = work.queue.lock().done(&self.job.key, self.ran, now());
        if news {
            self.shared.state.failures.nudge(&self.job.key.plugin);
        }
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
        for plugin in shared.work.slowed_news.lock().drain(..) {
            shared.state.failures.nudge(&plugin);
        }
        if leading.borrow_and_update().is_some() {
            hand_out(&shared);
        }
        let (timer, recovered) = {
            let mut queue = shared.work.queue.lock();
            (queue.next_timer(now()), queue.recovered())
        };
        recovered.iter().for_each(|plugin| shared.state.failures.nudge(plugin));
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

/// The runtime's clock, which tests may stop.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

async fn sleep_until(timer: Option<std::time::Instant>) {
    match timer {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn hand_out(shared: &Arc<Shared>) {
    loop {
        let room = shared.options.max_in_flight.saturating_sub(shared.work.in_flight());
        let Some(jobs) = shared.work.queue.lock().pop(now(), room) else { break };
        for job in jobs {
            shared.work.in_flight.fetch_add(1, Ordering::AcqRel);
            let mut taken = Taken { shared: shared.clone(), job, ran: Verdict::Retry(None).into() };
            tokio::spawn(async move {
                taken.ran = run::run(&taken.shared, &taken.job).await;
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
    let (queue, now) = (shared.work.queue.lock(), now());
    for load in queue.load() {
        let plugin = load.plugin.to_string();
        metrics.queue_depth.with_label_values(&[&plugin]).set(gauge(load.waiting));
        metrics.active_workers.with_label_values(&[&plugin]).set(gauge(load.running));
        metrics.max_concurrent.with_label_values(&[&plugin]).set(gauge(load.concurrency));
        metrics.slowed.with_label_values(&[&plugin]).set(queue.slowed(load.plugin, now).is_some().into());
        metrics.braked.with_label_values(&[&plugin]).set(gauge(queue.braked(load.plugin, now).len()));
        let failing = shared.state.failures.of(load.plugin).map_or(0, |failing| failing.count);
        metrics.failing.with_label_values(&[&plugin]).set(failing.into());
    }
    drop(queue);
    if let Some((file, complaint)) = shared.trust.state() {
        let file = file.display().to_string();
        metrics.trust_policy.with_label_values(&[&file]).set(complaint.is_none().into());
    }
    if let Some((file, current)) = shared.oci.registries.state() {
        metrics.registries_file.with_label_values(&[&file.display().to_string()]).set(current.into());
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
