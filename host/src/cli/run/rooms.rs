//! The rooms of a host, for one Plugin that is given to them.

use std::{io::IsTerminal as _, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::told;
use crate::{
    cli::{
        cluster::Cluster,
        host::{gate, waker},
    },
    dispatch::{self, DispatchOptions, Given, Plugins, Shared, State, Work},
    identity::{Accounts, ApiOptions},
    leader::Leader,
    metrics::Metrics,
    plan::Applier,
    queue::{Backoff, Queue},
    sandbox::{Sandbox, SandboxOptions},
    source::{MAX_COMPONENT, oci::Oci, registries::Registries, store::Store},
    trust::Trust,
    watch::{Hub, HubOptions},
};

/// Reconciles at once.
const IN_FLIGHT: u32 = 16;
/// How often rights are looked at again: somebody is waiting.
const RECHECK: Duration = Duration::from_secs(2);
/// How long reconciles in flight may take in the end.
const DRAIN: Duration = Duration::from_secs(10);

pub fn start_logging(filter: EnvFilter) -> anyhow::Result<()> {
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let layer = layer.with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    Ok(tracing_subscriber::registry().with(filter).with(layer).try_init()?)
}

pub fn work() -> anyhow::Result<(Arc<Work>, Metrics)> {
    let metrics = Metrics::new()?;
    Ok((Work::new(Queue::new(Backoff::default(), getrandom::u64().unwrap_or(1)), metrics.clone()), metrics))
}

pub fn api_options(accounts: Accounts, work: &Arc<Work>) -> ApiOptions {
    let work = work.clone();
    ApiOptions {
        user_agent: concat!("reef-run/", env!("CARGO_PKG_VERSION")).into(),
        recheck: RECHECK,
        observe_failure: Some(Arc::new(move |plugin, error| work.pushed_back(plugin, error))),
        accounts,
        ..ApiOptions::default()
    }
}

/// What runs.
pub struct Rooms {
    work: Arc<Work>,
    stop: CancellationToken,
    dispatch: JoinHandle<()>,
    /// Compiled code, for as long as this runs.
    _cache: TempDir,
}

impl Rooms {
    /// `plugin_dir`: where the file is that the Plugin names.
    pub async fn open(
        cluster: &Cluster,
        given: &Given,
        plugin_dir: &Path,
        (work, metrics): (Arc<Work>, Metrics),
    ) -> anyhow::Result<Self> {
        let cache = tempfile::tempdir().context("cannot make a directory for compiled code")?;
        let sandbox = Sandbox::new(SandboxOptions {
            cache_dir: cache.path().join("compiled"),
            in_flight: IN_FLIGHT,
            reef_binary: std::env::current_exe().context("cannot find this program, which compiles components")?,
            ..SandboxOptions::default()
        })?;
        // The component is a file; these stay unused.
        let oci =
            Oci { registries: Registries::load(None, DRAIN)?, store: Store::open(&cache.path().join("content"), MAX_COMPONENT) };
        let api = cluster.api.clone();
        let hub = Hub::new(api.clone(), waker(&work), HubOptions::default());
        let leader = Leader::alone();
        let shared = Shared {
            options: DispatchOptions {
                class_name: "reef".into(),
                plugin_dir: plugin_dir.to_owned(),
                recheck: RECHECK,
                max_in_flight: IN_FLIGHT as usize,
            },
            applier: Applier::new(api.clone(), hub.clone(), gate(&leader)),
            api,
            hub,
            sandbox,
            oci,
            leader,
            trust: Arc::new(Trust::in_everything()),
            metrics,
            work: work.clone(),
            plugins: Plugins::Given(given.clone()),
            listener: Some(told::listener()),
            state: State::default(),
        };
        let stop = CancellationToken::new();
        let dispatch = tokio::spawn(dispatch::dispatch(Arc::new(shared), stop.clone()));
        Ok(Self { work, stop, dispatch, _cache: cache })
    }

    /// No new reconciles; those in flight end.
    pub async fn close(self) {
        self.stop.cancel();
        if tokio::time::timeout(DRAIN, self.dispatch).await.is_err() || !dispatch::drained(&self.work, DRAIN).await {
            eprintln!("some reconciles did not end in time; they are cut off");
        }
    }
}
