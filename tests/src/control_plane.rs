//! One throw-away control plane: etcd, kube-apiserver and controller-manager on free loopback ports, with real certificates,
//! RBAC and an audit log. It ends with this process.
//!
//! Three users have client certificates, as kind's have: the admin (`system:masters`), the controller-manager, and the host's own
//! user `reef-host`, who has no right but what `deploy/` gives.

mod flags;
mod network;
mod outage;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::json;

pub use flags::Setup;
pub use network::Network;

use crate::{
    certificates::{Authority, Identity, TokenKey},
    supervisor::{Process, Server, Supervisor},
    tools::{Tool, Tools},
};

/// The name that the host's client certificate carries.
pub const HOST_USER: &str = "reef-host";

/// Ten times what a start takes on a small machine.
const HANG_BOUND: Duration = Duration::from_secs(120);

/// How many times other ports are tried when somebody else took one in between.
const ATTEMPTS: usize = 5;

pub struct ControlPlane {
    supervisor: Arc<Supervisor>,
    authority: Authority,
    network: Option<Network>,
    api: u16,
    etcd: Process,
    /// Where etcd serves.
    etcd_port: u16,
    /// Another one after an outage.
    apiserver: Mutex<Process>,
    /// How it is started.
    apiserver_flags: Vec<String>,
    manager: Process,
    tools: Tools,
    pub took: Duration,
}

impl ControlPlane {
    /// Starts everything in `dir`, which must not exist and goes away with the control plane. Returns when it serves.
    pub async fn start(tools: &Tools, dir: &Path) -> Result<Self> {
        Self::start_with(tools, dir, Setup::default()).await
    }

    /// The same, with some things otherwise.
    pub async fn start_with(tools: &Tools, dir: &Path, setup: Setup) -> Result<Self> {
        Self::start_under(&Supervisor::start(dir)?, tools, setup).await
    }

    /// The same, under a supervisor that is there, and where that starts its servers.
    pub async fn start_under(supervisor: &Arc<Supervisor>, tools: &Tools, setup: Setup) -> Result<Self> {
        let start = Instant::now();
        let (supervisor, dir) = (supervisor.clone(), supervisor.dir());
        let authority = Authority::new()?;
        write_files(&authority, dir, setup.network)?;
        let started = start_api(&supervisor, tools, &authority, setup).await?;
        let (api, etcd_port) = (started.api, started.etcd_port);
        let manager = run(&supervisor, &tools.kube_controller_manager, flags::controller_manager(dir, setup))?;
        let plane = Self {
            supervisor: supervisor.clone(),
            authority,
            network: setup.network,
            api,
            etcd: started.etcd,
            etcd_port,
            apiserver: Mutex::new(started.apiserver),
            apiserver_flags: started.flags,
            manager,
            tools: tools.clone(),
            took: Duration::ZERO,
        };
        plane.wait_for_default_account().await?;
        Ok(Self { took: start.elapsed(), ..plane })
    }

    pub fn supervisor(&self) -> &Arc<Supervisor> {
        &self.supervisor
    }

    pub fn dir(&self) -> &Path {
        self.supervisor.dir()
    }

    /// `https://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        url(self.network, self.api)
    }

    /// Who signs everybody's certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Writes `NAME.kubeconfig` for one more user.
    pub fn write_kubeconfig(&self, name: &str, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let text = kubeconfig(&self.authority.pem, &self.url(), name, &self.authority.client(user, group)?)?;
        let path = self.dir().join(format!("{name}.kubeconfig"));
        fs::write(&path, text)?;
        Ok(path)
    }

    /// For a user who may do everything.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.dir().join("admin.kubeconfig")
    }

    /// For the host's own user.
    pub fn host_kubeconfig(&self) -> PathBuf {
        self.dir().join("host.kubeconfig")
    }

    pub fn audit_log(&self) -> PathBuf {
        self.dir().join("audit.log")
    }

    /// etcd, kube-apiserver and controller-manager.
    pub fn processes(&self) -> Vec<Process> {
        vec![self.etcd.clone(), self.apiserver(), self.manager.clone()]
    }

    /// The controller-manager is at work when a namespace gets its default ServiceAccount.
    async fn wait_for_default_account(&self) -> Result<()> {
        let client = crate::cluster::client(&self.admin_kubeconfig()).await?;
        let end = Instant::now() + HANG_BOUND;
        let path = "/api/v1/namespaces/default/serviceaccounts/default";
        loop {
            let request = http::Request::get(path).body(Vec::new())?;
            if client.request::<serde_json::Value>(request).await.is_ok() {
                return Ok(());
            }
            self.check_alive(end)?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn check_alive(&self, end: Instant) -> Result<()> {
        let ended = self.processes().iter().any(|process| process.exit().is_some());
        if ended || Instant::now() > end {
            bail!("the control plane does not work:\n{}", tails(self.dir()));
        }
        Ok(())
    }
}

struct Started {
    api: u16,
    etcd: Process,
    etcd_port: u16,
    apiserver: Process,
    flags: Vec<String>,
}

/// Another process may take a port between our choosing it and the server's binding it; then both servers get new ones.
async fn start_api(supervisor: &Arc<Supervisor>, tools: &Tools, authority: &Authority, setup: Setup) -> Result<Started> {
    let dir = supervisor.dir();
    for _ in 0..ATTEMPTS {
        let (client, peer, api) = (free_port()?, free_port()?, free_port()?);
        let _ = fs::remove_dir_all(dir.join("etcd"));
        let etcd = run(supervisor, &tools.etcd, flags::etcd(dir, client, peer))?;
        let flags = flags::apiserver(dir, client, api, setup);
        let apiserver = run(supervisor, &tools.kube_apiserver, flags.clone())?;
        write_kubeconfigs(authority, dir, &url(setup.network, api))?;
        if serves(dir, &etcd, &apiserver).await? {
            return Ok(Started { api, etcd, etcd_port: client, apiserver, flags });
        }
        etcd.kill()?;
        apiserver.kill()?;
    }
    bail!("kube-apiserver did not start {ATTEMPTS} times:\n{}", tails(dir))
}

/// Polls `/readyz`; false if a server has ended because its port was taken.
async fn serves(dir: &Path, etcd: &Process, apiserver: &Process) -> Result<bool> {
    let client = crate::cluster::client(&dir.join("admin.kubeconfig")).await?;
    let end = Instant::now() + HANG_BOUND;
    while Instant::now() < end {
        let ready = client.request_text(http::Request::get("/readyz").body(Vec::new())?).await;
        if ready.is_ok_and(|text| text == "ok") {
            return Ok(true);
        }
        if etcd.exit().is_some() || apiserver.exit().is_some() {
            if tails(dir).contains("address already in use") {
                return Ok(false);
            }
            bail!("the control plane ended while starting:\n{}", tails(dir));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("kube-apiserver was not ready after {} s:\n{}", HANG_BOUND.as_secs(), tails(dir))
}

fn run(supervisor: &Arc<Supervisor>, tool: &Tool, args: Vec<String>) -> Result<Process> {
    let log = supervisor.dir().join(format!("{}.log", tool.name));
    supervisor.spawn(Server { program: tool.path.clone(), args, env: Vec::new(), log })
}

/// A port below the range from which outgoing connections take theirs, so that only another server can be in the way.
pub fn free_port() -> Result<u16> {
    let mut seed = [0; 8];
    for _ in 0..200 {
        fs::File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, &mut seed))?;
        let offset = u16::try_from(u64::from_le_bytes(seed) % 22_000)?;
        if TcpListener::bind(("127.0.0.1", 10_000 + offset)).is_ok() {
            return Ok(10_000 + offset);
        }
    }
    bail!("no free port between 10000 and 32000 on 127.0.0.1")
}

fn url(network: Option<Network>, port: u16) -> String {
    format!("https://{}:{port}", network.map_or(Ipv4Addr::LOCALHOST, |network| network.node()))
}

fn write_files(authority: &Authority, dir: &Path, network: Option<Network>) -> Result<()> {
    fs::write(dir.join("ca.crt"), &authority.pem)?;
    let names = network.map_or(Vec::new(), |network| vec![network.node().to_string(), network.api().to_string()]);
    authority.server_also(&names)?.write(dir, "apiserver")?;
    let tokens = TokenKey::new()?;
    fs::write(dir.join("tokens.key"), tokens.private)?;
    fs::write(dir.join("tokens.pub"), tokens.public)?;
    fs::write(dir.join("audit-policy.yaml"), flags::AUDIT_POLICY)?;
    fs::create_dir_all(dir.join("run"))?;
    for (name, user, group) in [
        ("admin", "reef-test-admin", Some("system:masters")),
        ("host", HOST_USER, None),
        ("controller-manager", "system:kube-controller-manager", None),
    ] {
        authority.client(user, group)?.write(dir, name)?;
    }
    Ok(())
}

fn write_kubeconfigs(authority: &Authority, dir: &Path, url: &str) -> Result<()> {
    for name in ["admin", "host", "controller-manager"] {
        let read = |end: &str| fs::read_to_string(dir.join(format!("{name}.{end}")));
        let identity = Identity { certificate: read("crt")?, key: read("key")? };
        let text = kubeconfig(&authority.pem, url, name, &identity)?;
        fs::write(dir.join(format!("{name}.kubeconfig")), text)?;
    }
    Ok(())
}

/// Self-contained: the certificates are in it.
pub(crate) fn kubeconfig(authority: &str, server: &str, user: &str, identity: &Identity) -> Result<String> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "reef", "cluster": { "server": server, "certificate-authority-data": base64(authority) } }],
        "users": [{ "name": user, "user": {
            "client-certificate-data": base64(&identity.certificate),
            "client-key-data": base64(&identity.key),
        } }],
        "contexts": [{ "name": "reef", "context": { "cluster": "reef", "user": user } }],
        "current-context": "reef",
    });
    Ok(serde_norway::to_string(&config)?)
}

/// Kubernetes' own type for bytes is base64 in JSON.
fn base64(text: &str) -> serde_json::Value {
    json!(k8s_openapi::ByteString(text.as_bytes().to_vec()))
}

/// The last lines of every server's log.
pub fn tails(dir: &Path) -> String {
    ["etcd", "kube-apiserver", "kube-controller-manager"].map(|name| tail(&dir.join(format!("{name}.log")), 15)).join("\n")
}

/// The last lines of one file, under its name.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let text = text.map_or_else(|error| error.to_string(), |bytes| String::from_utf8_lossy(&bytes).into_owned());
    let all: Vec<&str> = text.lines().collect();
    let last = all.get(all.len().saturating_sub(lines)..).unwrap_or_default();
    format!("--- {} (last {} of {} lines)\n{}", path.display(), last.len(), all.len(), last.join("\n"))
}
