//! The operators that are measured, as processes: the real host with the plugin hello, and its peers.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::json;

use super::{Rounds, Scale, record::Row, rooms, say, stage::Stage};
use crate::{
    host::{Host, Options},
    paths,
    supervisor::{Process, Server},
    world::World,
};

/// Objects that a tuned operator reconciles at once.
const TUNED: u32 = 32;
/// To end after SIGTERM; then it is killed.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    KubeRs,
    ControllerRuntime,
}

/// An operator with its settings: as it comes, or tuned for speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    Reef { tuned: bool },
    Peer { peer: Peer, tuned: bool },
}

impl Peer {
    /// Where `make bench` has put it; none if it was not built.
    pub fn program(self) -> Result<Option<PathBuf>> {
        let path = paths::target()?.join("peers").join(match self {
            Self::KubeRs => "release/peer-kube-rs",
            Self::ControllerRuntime => "peer-controller-runtime",
        });
        Ok(path.is_file().then_some(path))
    }

    fn name(self) -> &'static str {
        match self {
            Self::KubeRs => "kube-rs",
            Self::ControllerRuntime => "controller-runtime",
        }
    }
}

/// The floor and every contender, round by round. A round has an API server of its own, and who begins changes.
pub async fn in_turns(
    scale: Scale,
    floor: impl AsyncFn(&World) -> Result<Row>,
    one: impl AsyncFn(&World, Contender) -> Result<Row>,
) -> Result<Rounds> {
    let contenders = all()?;
    let mut rounds = Vec::new();
    for round in 0..scale.rounds {
        let world = World::start(&say).await?;
        let mut rows = vec![floor(&world).await.context("floor")?];
        for i in 0..contenders.len() {
            let Some(contender) = contenders.get((i + round) % contenders.len()) else { continue };
            rows.push(one(&world, *contender).await.with_context(|| contender.name())?);
            say(&format!("round {} of {}: {}", round + 1, scale.rounds, contender.name()));
        }
        rounds.push(rows);
    }
    Ok(rounds)
}

/// All that can take part, and a word about those that cannot.
pub fn all() -> Result<Vec<Contender>> {
    let mut all = vec![Contender::Reef { tuned: false }, Contender::Reef { tuned: true }];
    for peer in [Peer::KubeRs, Peer::ControllerRuntime] {
        if peer.program()?.is_some() {
            all.extend([Contender::Peer { peer, tuned: false }, Contender::Peer { peer, tuned: true }]);
        } else {
            say(&format!("the peer {} is not built and does not take part: run `make peers`", peer.name()));
        }
    }
    Ok(all)
}

impl Contender {
    pub fn name(self) -> String {
        let (name, tuned) = match self {
            Self::Reef { tuned } => ("reef", tuned),
            Self::Peer { peer, tuned } => (peer.name(), tuned),
        };
        if tuned { format!("{name}, {TUNED} at once") } else { name.to_owned() }
    }

    /// Also a name of a namespace.
    pub fn label(self) -> String {
        self.name().replace(", ", "-").replace(' ', "-")
    }

    /// What has to be there before the operator starts, and stays when it starts again.
    pub async fn prepare(self, stage: &Stage<'_>) -> Result<()> {
        let Self::Reef { tuned } = self else { return Ok(()) };
        stage.scene.place("hello.wasm", &std::fs::read(paths::component("hello")?)?)?;
        let mut spec = json!({
            "className": stage.namespace, "serviceAccountName": "hello", "source": { "file": "hello.wasm" },
        });
        if tuned {
            spec["concurrency"] = json!(TUNED);
        }
        let plugin =
            json!({ "apiVersion": "reef.dev/v1alpha1", "kind": "Plugin", "metadata": { "name": "hello" }, "spec": spec });
        stage.scene.cluster().apply_object(&stage.namespace, &plugin).await.map(drop)
    }

    /// Returns when the process runs, which is before it does anything.
    pub async fn start(self, stage: &Stage<'_>) -> Result<Operator> {
        let supervisor = stage.scene.world.plane.supervisor();
        match self {
            Self::Reef { .. } => {
                let options = Options { cache_dir: rooms::cache_dir()?, ..stage.scene.options() };
                Ok(Operator::Host(Arc::new(Host::start(supervisor, &options).await?)))
            }
            Self::Peer { peer, tuned } => {
                let program = peer.program()?.context("a peer that is not built")?;
                let log = free_log(stage.scene.dir());
                let mut args = vec!["--kubeconfig".into(), stage.kubeconfig.display().to_string()];
                args.extend(["--namespace".into(), stage.namespace.clone()]);
                if tuned {
                    args.extend(["--workers".into(), TUNED.to_string()]);
                }
                let process = supervisor.spawn(Server { program, args, env: Vec::new(), log: log.clone() })?;
                Ok(Operator::Peer(process, log))
            }
        }
    }
}

/// Each start logs into a file of its own.
fn free_log(dir: &Path) -> PathBuf {
    let name = |n: u32| dir.join(format!("peer-{n}.log"));
    (1..).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0))
}

/// An operator that runs.
pub enum Operator {
    Host(Arc<Host>),
    Peer(Process, PathBuf),
}

impl Operator {
    /// How many reconciles have ended since it started.
    pub async fn reconciles(&self) -> Result<f64> {
        match self {
            Self::Host(host) => Ok(host.metrics().await?.sum("controller_runtime_reconcile_total", &[])),
            Self::Peer(_, log) => {
                let text = std::fs::read_to_string(log).unwrap_or_default();
                let said = text.lines().rev().find_map(|line| line.strip_prefix("reconciles ")?.parse().ok());
                Ok(said.unwrap_or(0.0))
            }
        }
    }

    /// Processor time so far, in seconds, and resident memory, in MiB.
    pub fn usage(&self) -> Result<(f64, f64)> {
        let pid = self.pid();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("the operator has ended:\n{}", self.log_tail()))?;
        // Behind the name, which may contain anything: state is field 3, utime and stime are 14 and 15.
        let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
        let ticks: f64 = after.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        let pages: f64 = std::fs::read_to_string(format!("/proc/{pid}/statm"))?
            .split(' ')
            .nth(1)
            .and_then(|field| field.parse().ok())
            .context("no memory in /proc")?;
        Ok((ticks / TICKS_PER_SECOND, pages * rustix::param::page_size() as f64 / 1024.0 / 1024.0))
    }

    /// SIGTERM, and gone when this returns.
    pub async fn stop(&self) -> Result<()> {
        match self {
            Self::Host(host) => host.terminate().await.map(drop),
            Self::Peer(process, _) => {
                process.signal(Signal::TERM)?;
                let waiting = process.clone();
                let exit = tokio::task::spawn_blocking(move || waiting.wait_exit(PATIENCE)).await?;
                ensure!(exit.is_some(), "it does not end:\n{}", self.log_tail());
                Ok(())
            }
        }
    }

    pub fn log_tail(&self) -> String {
        match self {
            Self::Host(host) => host.log_tail(40),
            Self::Peer(_, log) => crate::control_plane::tail(log, 40),
        }
    }

    fn pid(&self) -> i32 {
        match self {
            Self::Host(host) => host.pid(),
            Self::Peer(process, _) => process.pid(),
        }
    }
}

/// Linux shows processor time to everybody in hundredths of a second, whatever its clock is.
const TICKS_PER_SECOND: f64 = 100.0;

impl Drop for Operator {
    fn drop(&mut self) {
        if let Self::Peer(process, _) = self {
            // Ended already, or its supervisor is ending everything.
            let _ = process.kill();
        }
    }
}
