//! The test bed from the command line: `up DIR`, `down DIR`, `tools`; the other commands are its own.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use reef_tests::{
    control_plane::ControlPlane,
    node::{self, Node},
    paths,
    registry::{Door, Registry},
    supervisor::warden,
    tools,
};
use serde_json::json;

/// In the directory: where the registry listens, and what a host has to know of it.
const REGISTRY: &str = "registry";
const REGISTRIES: &str = "registries.yaml";

/// A throw-away Kubernetes control plane.
#[derive(Parser)]
enum Args {
    /// Find or build the programs of others that the tests run, and say which were taken
    Tools {
        /// Only those of the control plane
        #[arg(long)]
        control_plane: bool,
        /// And those of a node that runs pods, without those that sign components
        #[arg(long, conflicts_with = "control_plane")]
        node: bool,
    },
    /// Start a control plane and a registry in the background, in a directory that does not exist yet
    Up {
        dir: PathBuf,
        /// With a node that runs pods; needs root
        #[arg(long)]
        node: bool,
    },
    /// End the control plane of a directory and remove it
    Down { dir: PathBuf },
    #[command(hide = true)]
    Hold {
        dir: PathBuf,
        #[arg(long)]
        node: bool,
    },
    #[command(hide = true)]
    Room { dir: PathBuf, node: Ipv4Addr, machine: Ipv4Addr },
    #[command(hide = true)]
    Sweep { cgroup: String },
    #[command(hide = true)]
    Supervise { dir: PathBuf },
    #[command(hide = true)]
    Leash {
        program: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reef-testbed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    match args {
        Args::Tools { control_plane: true, .. } => print_tools(&[]),
        Args::Tools { node: true, .. } => {
            // Said before minutes are spent on building.
            node::check()?;
            print_tools(&[[tools::REGISTRY, tools::CRANE, tools::HELM].as_slice(), &tools::NODE].concat())
        }
        Args::Tools { .. } => print_tools(&[tools::REGISTRY, tools::CRANE, tools::COSIGN_V2, tools::COSIGN_V3, tools::HELM]),
        Args::Up { dir, node } => up(&dir, node),
        Args::Down { dir } => down(&dir),
        Args::Hold { dir, node: false } => hold(&dir),
        Args::Hold { dir, node: true } => hold_node(&dir),
        Args::Room { dir, node, machine } => node::hold(&dir, node, machine),
        Args::Sweep { cgroup } => node::sweep(&cgroup),
        Args::Supervise { dir } => warden::supervise(&dir),
        Args::Leash { program, args } => warden::leash(&program, &args),
    }
}

fn say(line: &str) {
    eprintln!("{line}");
}

/// Those of the control plane, and these.
fn print_tools(further: &[tools::Wanted]) -> Result<()> {
    let tools = tools::locate(&say)?;
    let mut found = vec![tools.etcd, tools.kube_apiserver, tools.kube_controller_manager, tools.kubectl];
    for wanted in further {
        found.push(tools::locate_one(*wanted, &say)?);
    }
    for tool in found {
        println!("{} {} {} ({})", tool.name, tool.version, tool.path.display(), tool.origin);
    }
    Ok(())
}

/// Leaves a process behind that holds the control plane until `down`.
fn up(dir: &Path, node: bool) -> Result<()> {
    let tools = tools::locate(&say)?;
    let dir = std::path::absolute(dir)?;
    let log = fs::File::create(holder_file(&dir, "log"))?;
    let mut holder = Command::new(paths::binary("reef-testbed")?)
        .arg("hold")
        .arg(&dir)
        .args(node.then_some("--node"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()?;
    fs::write(holder_file(&dir, "pid"), holder.id().to_string())?;
    let end = Instant::now() + Duration::from_secs(if node { 360 } else { 120 });
    while !dir.join("ready").exists() {
        if holder.try_wait()?.is_some() || Instant::now() > end {
            bail!("the control plane did not start: {}", fs::read_to_string(holder_file(&dir, "log")).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("admin: export KUBECONFIG={}", dir.join("admin.kubeconfig").display());
    println!("host's user: {}", dir.join("host.kubeconfig").display());
    println!("kubectl: {}", tools.kubectl.path.display());
    println!("registry: {}", fs::read_to_string(dir.join(REGISTRY))?);
    println!("registries file: {}", dir.join(REGISTRIES).display());
    Ok(())
}

fn hold(dir: &Path) -> Result<()> {
    let tools = tools::locate(&say)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let plane = runtime.block_on(ControlPlane::start(&tools, dir))?;
    let registry = runtime.block_on(Registry::start(plane.supervisor(), &dir.join("registry-data"), Door::Plain))?;
    stay(dir, &registry, plane.took)
}

fn hold_node(dir: &Path) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let node = runtime.block_on(Node::start(dir, &say))?;
    stay(dir, &node.registry, node.took)
}

fn stay(dir: &Path, registry: &Registry, took: Duration) -> Result<()> {
    fs::write(dir.join(REGISTRIES), json!({ "registries": [registry.entry()] }).to_string())?;
    fs::write(dir.join(REGISTRY), registry.host())?;
    fs::write(dir.join("ready"), format!("{} ms\n", took.as_millis()))?;
    loop {
        std::thread::park();
    }
}

fn down(dir: &Path) -> Result<()> {
    let dir = std::path::absolute(dir)?;
    let pid =
        fs::read_to_string(holder_file(&dir, "pid")).with_context(|| format!("nothing was started in {}", dir.display()))?;
    let pid = rustix::process::Pid::from_raw(pid.trim().parse()?).context("not a process id")?;
    // The supervisor sees the closed pipe, and ends the rest.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    let end = Instant::now() + Duration::from_secs(30);
    while dir.exists() {
        if Instant::now() > end {
            bail!("{} is still there", dir.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::remove_file(holder_file(&dir, "pid"))?;
    Ok(fs::remove_file(holder_file(&dir, "log"))?)
}

/// Beside the directory, because that one belongs to the supervisor.
fn holder_file(dir: &Path, end: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    PathBuf::from(name)
}
