//! A real registry, the reference one of the distribution project: plain, with TLS and passwords, or with tokens.
//!
//! It belongs to a control plane's supervisor, so that it never outlives a test; its content stays when it is stopped and
//! started again.

mod tokens;

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::{
    certificates::Authority,
    cluster::hang_bound,
    control_plane::{free_port, tail},
    paths,
    supervisor::{Process, Server, Supervisor},
    tools::{self, CRANE, REGISTRY},
};

pub use tokens::Tokens;

/// Who may do everything in a registry that asks.
pub const USER: &str = "jane";
pub const PASSWORD: &str = "hunter2";
/// bcrypt of the password.
const HTPASSWD: &str = "jane:$2b$05$NfwThTkk6gf1Cb6v/kze1.4qB7GruVm8Qa5Go9M9S6KKhk610W3Mu\n";
/// How often another port is tried when somebody else took one in between.
const ATTEMPTS: usize = 5;

/// How a registry is reached, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// http, for everybody.
    Plain,
    /// TLS of an authority of its own, and a password.
    Password,
    /// http, and a token that a service gives for a password.
    Token,
}

pub struct Registry {
    supervisor: Arc<Supervisor>,
    dir: PathBuf,
    door: Door,
    address: Ipv4Addr,
    port: u16,
    process: Mutex<Process>,
    tokens: Option<Tokens>,
}

impl Registry {
    /// In a directory that does not exist yet. Returns when it serves.
    pub async fn start(supervisor: &Arc<Supervisor>, dir: &Path, door: Door) -> Result<Self> {
        Self::start_at(supervisor, dir, door, Ipv4Addr::LOCALHOST).await
    }

    /// The same, elsewhere than on loopback.
    pub async fn start_at(supervisor: &Arc<Supervisor>, dir: &Path, door: Door, address: Ipv4Addr) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let authority = Authority::new()?;
        fs::write(dir.join("ca.pem"), &authority.pem)?;
        authority.server()?.write(dir, "server")?;
        fs::write(dir.join("htpasswd"), HTPASSWD)?;
        let tokens = match door {
            Door::Token => Some(Tokens::start(&authority).await?),
            _ => None,
        };
        for _ in 0..ATTEMPTS {
            let port = free_port()?;
            write_config(dir, door, &format!("{address}:{port}"), tokens.as_ref())?;
            let process = spawn(supervisor, dir)?;
            if serves(&process, (address, port), dir).await? {
                let (supervisor, dir, process) = (supervisor.clone(), dir.to_owned(), Mutex::new(process));
                return Ok(Self { supervisor, dir, door, address, port, process, tokens });
            }
        }
        bail!("the registry did not start {ATTEMPTS} times:\n{}", tail(&dir.join("registry.log"), 30))
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// `127.0.0.1:PORT/NAME`
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// Its entry in the host's registries file.
    pub fn entry(&self) -> Value {
        match self.door {
            Door::Password => json!({ "host": self.host(), "caFile": self.dir.join("ca.pem") }),
            Door::Plain | Door::Token => json!({ "host": self.host(), "plainHttp": true }),
        }
    }

    /// The `data` of a pull secret that opens it.
    pub fn docker_config(&self, password: &str) -> Value {
        json!({ "auths": { self.host(): { "username": USER, "password": password } } })
    }

    /// Tokens that were given so far.
    pub fn tokens_given(&self) -> usize {
        self.tokens.as_ref().map_or(0, Tokens::given)
    }

    /// Gone when this returns; what was pushed stays.
    pub fn stop(&self) -> Result<()> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).kill()
    }

    pub async fn start_again(&self) -> Result<()> {
        let process = spawn(&self.supervisor, &self.dir)?;
        ensure!(serves(&process, (self.address, self.port), &self.dir).await?, "the registry's port was taken while it was away");
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = process;
        Ok(())
    }

    /// `reef push FILE IMAGE`, with what this door needs; what it prints for programs.
    pub fn push(&self, file: &Path, name: &str, more: &[&str]) -> Result<Value> {
        let image = self.image(name);
        let mut args = vec!["push", path(file)?, &image, "-o", "json"];
        args.extend(more);
        let text = self.reef(&args)?;
        serde_json::from_str(&text).with_context(|| format!("`reef push -o json` prints `{text}`"))
    }

    /// A command of `reef` that talks to this registry.
    pub fn reef(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(paths::binary("reef")?);
        command.args(args).env("DOCKER_CONFIG", self.client_config()?);
        match self.door {
            Door::Password => command.arg("--ca-file").arg(self.dir.join("ca.pem")),
            Door::Plain | Door::Token => command.arg("--plain-http"),
        };
        output(command)
    }

    /// A command of `crane` that talks to this registry.
    pub fn crane(&self, args: &[&str]) -> Result<String> {
        let crane = tools::locate_one(CRANE, &|line| eprintln!("{line}"))?;
        let mut command = Command::new(crane.path);
        command.args(args).arg("--insecure").env("DOCKER_CONFIG", self.client_config()?);
        command.env("SSL_CERT_FILE", self.dir.join("ca.pem"));
        output(command)
    }

    /// A directory with a docker config that opens it.
    fn client_config(&self) -> Result<PathBuf> {
        let dir = self.dir.join("client");
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("config.json"), self.docker_config(PASSWORD).to_string())?;
        Ok(dir)
    }
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not text")
}

fn output(mut command: Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {said}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

fn write_config(dir: &Path, door: Door, address: &str, tokens: Option<&Tokens>) -> Result<()> {
    let at = |name: &str| dir.join(name).display().to_string();
    let mut config = json!({
        "version": "0.1",
        "log": { "level": "warn", "accesslog": { "disabled": true } },
        "storage": { "filesystem": { "rootdirectory": at("content") }, "delete": { "enabled": true } },
        "http": { "addr": address },
    });
    if door == Door::Password {
        config["http"]["tls"] = json!({ "certificate": at("server.crt"), "key": at("server.key") });
        config["auth"] = json!({ "htpasswd": { "realm": "reef-test", "path": at("htpasswd") } });
    }
    if let Some(tokens) = tokens {
        config["auth"] = json!({ "token": {
            "realm": tokens.realm(),
            "service": tokens::SERVICE,
            "issuer": tokens::ISSUER,
            "rootcertbundle": at("ca.pem"),
            "signingalgorithms": ["ES256"],
        } });
    }
    fs::write(dir.join("config.yml"), serde_norway::to_string(&config)?)?;
    Ok(())
}

fn spawn(supervisor: &Arc<Supervisor>, dir: &Path) -> Result<Process> {
    let tool = tools::locate_one(REGISTRY, &|line| eprintln!("{line}"))?;
    supervisor.spawn(Server {
        program: tool.path,
        args: vec!["serve".into(), path(&dir.join("config.yml"))?.into()],
        env: vec![("OTEL_TRACES_EXPORTER".into(), "none".into())],
        log: dir.join("registry.log"),
    })
}

/// False: its port was taken.
async fn serves(process: &Process, at: (Ipv4Addr, u16), dir: &Path) -> Result<bool> {
    let end = Instant::now() + hang_bound();
    while Instant::now() < end {
        if process.exit().is_some() {
            let said = tail(&dir.join("registry.log"), 30);
            ensure!(said.contains("address already in use"), "the registry ended while starting:\n{said}");
            return Ok(false);
        }
        if TcpStream::connect(at).await.is_ok() {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("the registry did not serve after {} s:\n{}", hang_bound().as_secs(), tail(&dir.join("registry.log"), 30))
}
