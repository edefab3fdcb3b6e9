//! A cluster that runs pods: a control plane with scheduler, kubelet, kube-proxy, containerd and runc, and a registry beside them.
//!
//! All of it lives in network, mount and process namespaces of its own (`room`), in one directory and in one cgroup (`cgroups`), so
//! that it ends at once and leaves nothing behind. What it needs of the machine is said by `needs`, what it runs with by `files`.
//! One node, no DNS for pods, no enforcement of network policies.

mod cgroups;
mod files;
mod needs;
mod room;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

pub use cgroups::sweep;
pub use files::NAME;
pub use needs::check;
pub use room::hold;

use crate::{
    cluster::{self, Cluster, condition},
    control_plane::{ControlPlane, Network, Setup, tail},
    paths,
    registry::{Door, Registry},
    supervisor::{Process, Server, Supervisor},
    tools::{self, Progress, Tool, Tools},
};

/// Ten times what a start takes on a small machine.
const HANG_BOUND: Duration = Duration::from_secs(120);

/// In the node's registry: what holds a pod's namespaces, and what serves a page.
const PAUSE_IMAGE: &str = "pod:pause";
const WEB_IMAGE: &str = "pod:web";

pub struct Node {
    pub plane: ControlPlane,
    pub registry: Registry,
    pub network: Network,
    pub took: Duration,
}

/// The programs of a node, beside those of the control plane.
struct Programs {
    plane: Tools,
    scheduler: Tool,
    kubelet: Tool,
    proxy: Tool,
    containerd: Tool,
    shim: Tool,
    /// The directory of the plugins that make a pod's network.
    cni: PathBuf,
    pod: Tool,
    runc: PathBuf,
}

impl Node {
    /// Starts everything in `dir`, which must not exist and goes away with the node. Returns when the node is ready for pods.
    pub async fn start(dir: &Path, progress: Progress<'_>) -> Result<Self> {
        let runc = check()?;
        needs::place(dir)?;
        let programs = Programs::locate(runc, progress)?;
        let start = Instant::now();
        let supervisor = Supervisor::start(dir)?;
        let network = room::open(&supervisor)?;
        cgroups::make(&supervisor, network)?;
        let setup = Setup { network: Some(network), ..Setup::default() };
        let plane = ControlPlane::start_under(&supervisor, &programs.plane, setup).await?;
        let registry = Registry::start_at(&supervisor, &dir.join("registry-data"), Door::Plain, network.node()).await?;
        push_pod_images(dir, &programs, &registry)?;
        files::write(&plane, network, &programs, &registry)?;
        let runtime = run(&supervisor, &programs.containerd, files::containerd_flags(dir))?;
        listens(&runtime, &files::socket(dir)).await?;
        let servers = [
            runtime,
            run(&supervisor, &programs.scheduler, files::scheduler_flags(dir))?,
            run(&supervisor, &programs.kubelet, files::kubelet_flags(dir, network))?,
            run(&supervisor, &programs.proxy, files::proxy_flags(dir))?,
        ];
        ready(&plane, &servers).await?;
        Ok(Self { plane, registry, network, took: start.elapsed() })
    }

    /// An image that serves `/usr/share/nginx/html`, as the plugin website asks of its image.
    pub fn web_image(&self) -> String {
        self.registry.image(WEB_IMAGE)
    }
}

impl Programs {
    fn locate(runc: PathBuf, progress: Progress) -> Result<Self> {
        let one = |wanted| tools::locate_one(wanted, progress);
        let [bridge, local, loopback] = [one(tools::CNI_BRIDGE)?, one(tools::CNI_HOST_LOCAL)?, one(tools::CNI_LOOPBACK)?];
        let cni = bridge.path.parent().filter(|dir| local.path.starts_with(dir) && loopback.path.starts_with(dir));
        Ok(Self {
            plane: tools::locate(progress)?,
            scheduler: one(tools::KUBE_SCHEDULER)?,
            kubelet: one(tools::KUBELET)?,
            proxy: one(tools::KUBE_PROXY)?,
            containerd: one(tools::CONTAINERD)?,
            shim: one(tools::CONTAINERD_SHIM)?,
            cni: cni.context("the CNI plugins are not in one directory")?.to_path_buf(),
            pod: one(tools::POD)?,
            runc,
        })
    }
}

fn run(supervisor: &Arc<Supervisor>, tool: &Tool, args: Vec<String>) -> Result<Process> {
    let log = supervisor.dir().join(format!("{}.log", tool.name));
    supervisor.spawn(Server { program: tool.path.clone(), args, env: Vec::new(), log })
}

/// Both are the same program, which does the one thing or the other.
fn push_pod_images(dir: &Path, programs: &Programs, registry: &Registry) -> Result<()> {
    for (image, word) in [(PAUSE_IMAGE, "pause"), (WEB_IMAGE, "web")] {
        let layout = dir.join(format!("image-{word}"));
        let mut command = Command::new(paths::checkout().join("deploy/image/layout"));
        let output = command.arg(&layout).arg(&programs.pod.path).args(["--cmd", word]).output();
        let output = output.with_context(|| format!("cannot run {command:?}"))?;
        if !output.status.success() {
            bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let layout = layout.to_str().context("a path that is not text")?;
        registry.crane(&["push", layout, &registry.image(image)])?;
    }
    Ok(())
}

/// The kubelet does not wait for its container runtime.
async fn listens(runtime: &Process, socket: &Path) -> Result<()> {
    let end = Instant::now() + HANG_BOUND;
    while tokio::net::UnixStream::connect(socket).await.is_err() {
        if runtime.exit().is_some() || Instant::now() > end {
            bail!("containerd does not work:\n{}", tail(&socket.with_file_name("containerd.log"), 30));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn ready(plane: &ControlPlane, servers: &[Process]) -> Result<()> {
    let cluster = Cluster::connect(&plane.admin_kubeconfig()).await?;
    let end = Instant::now() + HANG_BOUND.max(cluster::hang_bound());
    loop {
        let node = cluster.get("v1/Node", "", NAME).await?;
        if condition(node.as_ref(), "Ready").is_some_and(|ready| ready["status"] == "True") {
            return Ok(());
        }
        if servers.iter().any(|server| server.exit().is_some()) || Instant::now() > end {
            let said = ["containerd", "kubelet", "kube-scheduler", "kube-proxy"];
            let logs = said.map(|name| tail(&plane.dir().join(format!("{name}.log")), 20)).join("\n");
            bail!("the node does not become ready:\n{logs}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
