//! `reef host`: puts the rooms together and runs them until SIGTERM.

use std::{
    io::IsTerminal as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::cluster;
use crate::{
    admin::{self, Admin, Check},
    catalog::crd,
    config::{HostConfig, LogFormat},
    dispatch::{self, DispatchOptions, Plugins, Shared, State, Work},
    identity::{Api, ApiError, ApiOptions},
    leader::{Leader, LeaderOptions},
    metrics::Metrics,
    plan::{Applier, Closed, Gate, Pass},
    queue::{Backoff, Queue},
    sandbox::{Sandbox, SandboxOptions},
    source::{oci::Oci, registries::Registries, store::Store},
    trust::Trust,
    watch::{Hub, HubOptions},
};

/// How long the first connection to the API server is tried before the host gives up.
const FIRST_CONNECTION: Duration = Duration::from_secs(60);

pub fn run(config: HostConfig) -> anyhow::Result<()> {
    start_logging(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(host(config))
}

fn start_logging(config: &HostConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log).with_context(|| format!("--log: `{}` is not a filter", config.log))?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    match config.log_format {
        LogFormat::Text => registry.with(layer.with_target(false)).try_init()?,
        LogFormat::Json => registry.with(layer.json().flatten_event(true).with_span_list(false)).try_init()?,
    }
    Ok(())
}

async fn host(config: HostConfig) -> anyhow::Result<()> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), class = config.class_name, "reef host starts");
    let stop = CancellationToken::new();
    let trust = Arc::new(trust(&config)?);
    if !config.plugin_dir.is_dir() {
        tracing::warn!(plugin_dir = %config.plugin_dir.display(), "--plugin-dir is no directory (yet): no component is found there");
    }
    let listener = TcpListener::bind(config.admin_address)
        .await
        .with_context(|| format!("--admin-address: cannot listen on {}", config.admin_address))?;
    let address = listener.local_addr()?;
    let metrics = Metrics::new()?;
    metrics.build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    let oci = Oci {
        registries: Registries::load(config.registries_file.as_deref(), config.registry_timeout.0)?,
        store: Store::open(&config.cache_dir.join("content"), config.content_cache_budget),
    };
    let _registries = AbortOnDropHandle::new(tokio::spawn(oci.registries.clone().follow()));
    let sandbox = Sandbox::new(sandbox_options(&config)?)?;
    let work = Work::new(Queue::new(Backoff::default(), getrandom::u64().unwrap_or(1)), metrics.clone());
    let api = connect(&config, &metrics, &work).await?;
    let hub = Hub::new(api.clone(), waker(&work), hub_options(&config));
    let leader = Leader::run(api.clone(), leader_options(&config))?;
    let applier = Applier::new(api.clone(), hub.clone(), gate(&leader));
    let options = DispatchOptions {
        class_name: config.class_name.clone(),
        plugin_dir: config.plugin_dir.clone(),
        recheck: config.recheck_period.0,
        max_in_flight: config.max_in_flight as usize,
    };
    let state = State::default();
    let (plugins, work_) = (Plugins::Cluster, work.clone());
    let shared = Shared {
        options,
        api,
        hub,
        sandbox,
        oci,
        applier,
        leader: leader.clone(),
        trust,
        metrics,
        work: work_,
        plugins,
        listener: None,
        state,
    };
    let shared = Arc::new(shared);
    let admin = tokio::spawn(admin::serve(listener, pages(&shared, &config), stop.clone()));
    tracing::info!(%address, "admin server listening");
    let following = tokio::spawn({
        let (trust, stop) = (shared.trust.clone(), stop.clone());
        async move { trust.follow(stop).await }
    });
    let loop_ = tokio::spawn(dispatch::dispatch(shared, stop.clone()));
    wait_for_signal().await?;
    tracing::info!(in_flight = work.in_flight(), "stopping: no new reconciles, waiting for those in flight");
    stop.cancel();
    if tokio::time::timeout(config.drain_timeout.0, loop_).await.is_err() {
        tracing::warn!("the loop did not end in time");
    }
    if !dispatch::drained(&work, config.drain_timeout.0).await {
        tracing::warn!(in_flight = work.in_flight(), "some reconciles did not end in time; they are cut off");
    }
    leader.release().await;
    following.await?;
    admin.await??;
    tracing::info!("stopped");
    Ok(())
}

fn sandbox_options(config: &HostConfig) -> anyhow::Result<SandboxOptions> {
    Ok(SandboxOptions {
        cache_dir: config.cache_dir.clone(),
        in_flight: config.max_in_flight,
        reef_binary: std::env::current_exe().context("cannot find the host's own program, which compiles components")?,
        ..SandboxOptions::default()
    })
}

/// A host that was told to trust some does not start without knowing whom.
fn trust(config: &HostConfig) -> anyhow::Result<Trust> {
    match &config.trust_policy {
        Some(path) => Trust::by(path, &config.cache_dir).context("--trust-policy"),
        None => Ok(Trust::in_everything()),
    }
}

fn hub_options(config: &HostConfig) -> HubOptions {
    HubOptions {
        idle: config.watch_idle_timeout.0,
        relist: config.relist_period.0,
        budget: config.cache_budget,
        ..HubOptions::default()
    }
}

fn leader_options(config: &HostConfig) -> LeaderOptions {
    LeaderOptions {
        lease: config.lease_duration.0,
        renew: config.lease_renew_deadline.0,
        retry: config.lease_retry_period.0,
        ..LeaderOptions::new(&config.lease_namespace, &config.lease_name())
    }
}

pub(super) fn waker(work: &Arc<Work>) -> crate::watch::Waker {
    let work = work.clone();
    Arc::new(move |key, reason| work.wake(key, reason))
}

pub(super) fn gate(leader: &Leader) -> Gate {
    let leader = leader.clone();
    Arc::new(move || leader.gate().map(|term| Pass(term.0)).map_err(|_| Closed))
}

/// A pod often starts before its network: an API server that does not answer is asked again for a while.
async fn connect(config: &HostConfig, metrics: &Metrics, work: &Arc<Work>) -> anyhow::Result<Api> {
    let kube = cluster::config(config.kubeconfig.as_deref(), config.context.as_deref()).await?;
    let server = kube.cluster_url.host().unwrap_or_default().to_owned();
    let options = ApiOptions {
        deadline: config.request_timeout.0,
        recheck: config.recheck_period.0,
        observe: Some(Arc::new(metrics.request_observer(&server))),
        observe_failure: Some(Arc::new({
            let work = work.clone();
            move |plugin, error| work.pushed_back(plugin, error)
        })),
        ..ApiOptions::default()
    };
    let began = tokio::time::Instant::now();
    loop {
        match Api::connect(kube.clone(), options.clone()).await {
            Ok(api) => return Ok(api),
            Err(error @ ApiError::Misconfigured(_)) => return Err(error.into()),
            Err(error) if began.elapsed() > FIRST_CONNECTION => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "the API server is not there yet"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn pages(shared: &Arc<Shared>, config: &HostConfig) -> Admin {
    let (ready, gauges, lease) = (shared.clone(), shared.clone(), config.lease_name());
    let started = AtomicBool::new(false);
    Admin {
        live: Arc::new(|| vec![("ping".to_owned(), Ok(()))]),
        ready: Arc::new(move || readiness(&ready, &started)),
        metrics: shared.metrics.clone(),
        refresh: Arc::new(move |metrics| dispatch::measure(&gauges, metrics, &lease)),
    }
}

/// Ready is who has read all `Plugin` resources, has looked at each that was there, and has every cache that is wanted
/// and can be had. Plugins that come later do not make it unready: one tenant must not do that to all others.
fn readiness(shared: &Shared, started: &AtomicBool) -> Vec<Check> {
    // Before the scopes: whoever is looked at has joined them by then.
    let unsettled = shared.unsettled();
    let plugins = crd::kind();
    let mut checks: Vec<Check> = Vec::new();
    let mut listed = Err("the host has not begun to read them".to_owned());
    for scope in shared.hub.scopes() {
        let (kind, namespace) = (&scope.scope.kind, &scope.scope.namespace);
        let result = match scope.last_error {
            _ if scope.synced => Ok(()),
            // A missing right of one tenant is told by the plugin's status.
            Some(_) if *kind != plugins => Ok(()),
            error => Err(error.unwrap_or_else(|| "is being read".to_owned())),
        };
        if *kind == plugins {
            listed = result;
        } else {
            checks.push((format!("cache of {kind} in namespace {namespace}"), result));
        }
    }
    if listed.is_ok() && unsettled == 0 {
        started.store(true, Ordering::Release);
    }
    if listed.is_ok() && !started.load(Ordering::Acquire) {
        listed = Err(format!("{unsettled} are looked at for the first time"));
    }
    checks.insert(0, ("plugins".to_owned(), listed));
    checks
}

async fn wait_for_signal() -> anyhow::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}
