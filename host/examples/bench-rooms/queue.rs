//! Keys that no plugin runs for: what queue and dispatch cost when a reconcile costs nothing.
//!
//! It is the host's own loop, with its spans and metrics; a revision that is not in the catalog ends each run at once.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use reef::{
    dispatch::{DispatchOptions, Plugins, Shared, State, Work, dispatch},
    leader::{Leader, LeaderOptions},
    metrics::Metrics,
    names::{Cluster, Key, Kind, Memory, ObjectId, PluginId},
    plan::{Applier, Closed, Pass},
    queue::{Backoff, Queue},
    sandbox::{Sandbox, SandboxOptions},
    source::{oci::Oci, registries::Registries, store::Store},
    trust::Trust,
    watch::{Hub, HubOptions, Reason},
};
use tokio_util::sync::CancellationToken;

use crate::{Row, connect, memory};

#[derive(clap::Args)]
pub struct Args {
    /// Of the host's user: the loop runs only while it leads
    #[arg(long)]
    kubeconfig: PathBuf,
    #[arg(long)]
    lease_namespace: String,
    #[arg(long)]
    cache_dir: PathBuf,
    #[arg(long)]
    keys: usize,
}

/// Plugins that the keys are spread over, with as many runs at once as `spec.concurrency` allows.
const PLUGINS: usize = 8;
const CONCURRENCY: usize = 128;

pub async fn measure(args: &Args) -> anyhow::Result<Vec<Row>> {
    // Spans are made as in production; what would be logged goes nowhere.
    tracing_subscriber::fmt().with_env_filter("info").with_writer(std::io::sink).init();
    let shared = shared(args).await?;
    let mut leading = shared.leader.changed();
    leading.wait_for(Option::is_some).await?;
    let keys = keys(args.keys);
    let work = shared.work.clone();
    let before = memory()?.0;
    for key in &keys {
        work.wake(key.clone(), Reason::Initial);
    }
    let filled = memory()?.0;
    let (stop, began) = (CancellationToken::new(), Instant::now());
    let running = tokio::spawn(dispatch(shared.clone(), stop.clone()));
    while !is_empty(&work) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = began.elapsed();
    stop.cancel();
    running.await?;
    shared.leader.release().await;
    let count = keys.len() as f64;
    let [added, kept] = [filled - before, memory()?.0 - before].map(|bytes| bytes / count);
    let rate = count / took.as_secs_f64();
    Ok(vec![Row::new("reef", [("keys_per_s", rate), ("queued_key_bytes", added), ("drained_key_bytes", kept)])])
}

fn is_empty(work: &Work) -> bool {
    work.in_flight() == 0 && work.queue.lock().load().all(|load| load.waiting == 0 && load.running == 0)
}

/// Their names are there already, as they are in the store.
fn keys(count: usize) -> Vec<Key> {
    let kind = Kind::new("demo.reef.dev", "v1", "Hello");
    let plugins: Vec<_> = (0..PLUGINS).map(plugin).collect();
    let cluster = Cluster::local();
    let namespace: Arc<str> = "team-a".into();
    let object = |i: usize| ObjectId { kind: kind.clone(), namespace: namespace.clone(), name: format!("greeting-{i}").into() };
    (0..count).map(|i| Key { plugin: plugins[i % PLUGINS].clone(), cluster: cluster.clone(), object: object(i) }).collect()
}

fn plugin(i: usize) -> PluginId {
    PluginId::new("team-a", &format!("bench-{i}"))
}

async fn shared(args: &Args) -> anyhow::Result<Arc<Shared>> {
    let api = connect(&args.kubeconfig).await?;
    let metrics = Metrics::new()?;
    let work = Work::new(Queue::new(Backoff::default(), 1), metrics.clone());
    for i in 0..PLUGINS {
        work.queue.lock().open(plugin(i), CONCURRENCY);
    }
    let waker = work.clone();
    let hub = Hub::new(api.clone(), Arc::new(move |key, reason| waker.wake(key, reason)), HubOptions::default());
    let leader = Leader::run(api.clone(), LeaderOptions::new(&args.lease_namespace, &format!("bench-{}", std::process::id())))?;
    let gate = leader.clone();
    let applier =
        Applier::new(api.clone(), hub.clone(), Arc::new(move || gate.gate().map(|term| Pass(term.0)).map_err(|_| Closed)));
    let sandbox = Sandbox::new(SandboxOptions { cache_dir: args.cache_dir.clone(), ..SandboxOptions::default() })?;
    let oci = Oci {
        registries: Registries::load(None, Duration::from_secs(30))?,
        store: Store::open(&args.cache_dir.join("content"), Memory(1 << 20)),
    };
    let options = DispatchOptions {
        class_name: "bench".into(),
        plugin_dir: args.cache_dir.clone(),
        recheck: Duration::from_secs(30),
        max_in_flight: 128,
    };
    let (trust, plugins, state) = (Arc::new(Trust::in_everything()), Plugins::Cluster, State::default());
    Ok(Arc::new(Shared {
        options,
        api,
        hub,
        sandbox,
        oci,
        applier,
        leader,
        trust,
        metrics,
        work,
        plugins,
        listener: None,
        state,
    }))
}
