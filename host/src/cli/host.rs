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
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::{
    admin::{self, Admin, Check},
    config::{HostConfig, LogFormat},
    dispatch::{self, DispatchOptions, Shared, State, Work},
    identity::{Api, ApiError, ApiOptions},
    leader::{Leader, LeaderOptions},
    metrics::Metrics,
    plan::{Applier, Closed, Gate, Pass},
    queue::{Backoff, Queue},
    sandbox::{Sandbox, SandboxOptions},
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
    if !config.plugin_dir.is_dir() {
        tracing::warn!(plugin_dir = %config.plugin_dir.display(), "--plugin-dir is no directory (yet): no component is found there");
    }
    let listener = TcpListener::bind(config.admin_address)
        .await
        .with_context(|| format!("--admin-address: cannot listen on {}", config.admin_address))?;
    let address = listener.local_addr()?;
    let metrics = Metrics::new()?;
    metrics.build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
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
    let shared = Shared { options, api, hub, sandbox, applier, leader: leader.clone(), metrics, work: work.clone(), state };
    let shared = Arc::new(shared);
    let admin = tokio::spawn(admin::serve(listener, pages(&shared, &config), stop.clone()));
    tracing::info!(%address, "admin server listening");
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

fn waker(work: &Arc<Work>) -> crate::watch::Waker {
    let work = work.clone();
    Arc::new(move |key, reason| work.wake(key, reason))
}

fn gate(leader: &Leader) -> Gate {
    let leader = leader.clone();
    Arc::new(move || leader.gate().map(|term| Pass(term.0)).map_err(|_| Closed))
}

/// A pod often starts before its network: an API server that does not answer is asked again for a while.
async fn connect(config: &HostConfig, metrics: &Metrics, work: &Arc<Work>) -> anyhow::Result<Api> {
    let kube = kube_config(config).await?;
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

async fn kube_config(config: &HostConfig) -> anyhow::Result<kube::Config> {
    let options = KubeConfigOptions { context: config.context.clone(), ..KubeConfigOptions::default() };
    match (&config.kubeconfig, &config.context) {
        (Some(path), _) => {
            let file = Kubeconfig::read_from(path).map_err(|error| unreadable(path, &error))?;
            Ok(kube::Config::from_custom_kubeconfig(file, &options).await?)
        }
        (None, Some(_)) => Ok(kube::Config::from_kubeconfig(&options).await?),
        (None, None) => Ok(kube::Config::infer().await?),
    }
}

/// One sentence: the parser's own goes on with a drawing of the place.
fn unreadable(path: &std::path::Path, error: &kube::config::KubeconfigError) -> anyhow::Error {
    let text = error.to_string();
    anyhow::anyhow!("--kubeconfig: {}: {}", path.display(), text.lines().next().unwrap_or_default())
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
    let plugins = dispatch::plugin_kind();
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
