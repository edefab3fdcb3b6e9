//! The real `reef host`, as a process: started, asked, signalled and killed as a cluster would.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    cluster::hang_bound,
    control_plane::tail,
    paths,
    supervisor::{Exit, Process, Server, Supervisor},
};

/// How to start a host. The same options start it again after a crash.
#[derive(Debug, Clone)]
pub struct Options {
    pub kubeconfig: PathBuf,
    pub plugin_dir: PathBuf,
    pub cache_dir: PathBuf,
    pub lease_namespace: String,
    /// Which Plugins it serves; also the name of its log files.
    pub class: String,
    /// Further flags, as on the command line.
    pub flags: Vec<String>,
    pub env: Vec<(String, String)>,
}

pub struct Host {
    process: Process,
    log: PathBuf,
    admin: String,
}

impl Host {
    /// Returns when its admin server listens, which is before it is ready.
    pub async fn start(supervisor: &Arc<Supervisor>, options: &Options) -> Result<Self> {
        let log = free_log(supervisor.dir(), &options.class);
        let server = Server { program: paths::binary("reef")?, args: args(options), env: options.env.clone(), log: log.clone() };
        let process = supervisor.spawn(server)?;
        let mut host = Self { process, log, admin: String::new() };
        let line =
            host.wait_for_log("says where its admin server listens", |line| message(line) == "admin server listening").await?;
        host.admin = field(&line, "address").context("the line `admin server listening` has no field `address`")?.to_owned();
        Ok(host)
    }

    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Bytes of memory that the process has now.
    pub fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the process has no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    pub fn exit(&self) -> Option<Exit> {
        self.process.exit()
    }

    /// `kill -9`, and gone when this returns.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// SIGTERM, and how it ended.
    pub async fn terminate(&self) -> Result<Exit> {
        self.signal(Signal::TERM)?;
        self.ended().await
    }

    /// Waits for its end.
    pub async fn ended(&self) -> Result<Exit> {
        let process = self.process.clone();
        let exit = tokio::task::spawn_blocking(move || process.wait_exit(hang_bound())).await?;
        exit.with_context(|| format!("the host has not ended within {} s:\n{}", hang_bound().as_secs(), self.log_tail(60)))
    }

    /// Everything it has logged so far; a line that is not JSON (a panic) comes as a string.
    pub fn log(&self) -> Vec<Value> {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| Value::String(line.to_owned()))).collect()
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// Waits for a log line. `what` completes "waited in vain until the host …".
    pub async fn wait_for_log(&self, what: &str, matches: impl Fn(&Value) -> bool) -> Result<Value> {
        let end = Instant::now() + hang_bound();
        loop {
            let ended = self.exit();
            if let Some(line) = self.log().into_iter().find(&matches) {
                return Ok(line);
            }
            if let Some(exit) = ended {
                bail!("the host ended ({exit:?}) before it {what}:\n{}", self.log_tail(60));
            }
            if Instant::now() > end {
                bail!("waited {} s in vain until the host {what}:\n{}", hang_bound().as_secs(), self.log_tail(60));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until `/readyz` says so.
    pub async fn ready(&self) -> Result<()> {
        let end = Instant::now() + hang_bound();
        loop {
            let (code, text) = self.get("/readyz?verbose").await?;
            if code == 200 {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("the host is not ready after {} s: {text}\n{}", hang_bound().as_secs(), self.log_tail(60));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn metrics(&self) -> Result<Metrics> {
        let (code, text) = self.get("/metrics").await?;
        if code != 200 {
            bail!("/metrics answers {code}: {text}");
        }
        Ok(Metrics(text))
    }

    /// One request to the admin server: status code and body.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(&self.admin)
            .await
            .with_context(|| format!("cannot reach the host's admin server at {}:\n{}", self.admin, self.log_tail(60)))?;
        // HTTP/1.0: the answer ends with the connection, and is not chunked.
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.admin).as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8(answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the admin server's answer has no head")?;
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("the admin server's answer has no code")?;
        Ok((code, body.to_owned()))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Ended already, or its supervisor is ending everything.
        let _ = self.process.kill();
    }
}

fn args(options: &Options) -> Vec<String> {
    let path = |path: &Path| path.display().to_string();
    let mut args: Vec<String> = vec!["host".into()];
    for (flag, value) in [
        ("--kubeconfig", path(&options.kubeconfig)),
        ("--plugin-dir", path(&options.plugin_dir)),
        ("--cache-dir", path(&options.cache_dir)),
        ("--lease-namespace", options.lease_namespace.clone()),
        ("--class-name", options.class.clone()),
        ("--admin-address", "127.0.0.1:0".into()),
        ("--log-format", "json".into()),
    ] {
        args.extend([flag.to_owned(), value]);
    }
    args.extend(options.flags.iter().cloned());
    args
}

/// Each start logs into a file of its own.
fn free_log(dir: &Path, class: &str) -> PathBuf {
    let name = |n: u32| dir.join(format!("host-{class}-{n}.log"));
    (1..).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0))
}

/// A field of a log line, wherever the format puts it.
pub fn field<'a>(line: &'a Value, name: &str) -> Option<&'a str> {
    line["fields"][name].as_str().or_else(|| line[name].as_str())
}

/// The message of a log line, or the line itself if it is not JSON.
pub fn message(line: &Value) -> &str {
    field(line, "message").or_else(|| line.as_str()).unwrap_or_default()
}

/// Metrics in Prometheus' text format.
pub struct Metrics(pub String);

impl Metrics {
    /// The sum of all series of this name whose labels contain all of these.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let series = self.0.lines().filter_map(|line| line.rsplit_once(' '));
        series
            .filter(|(series, _)| series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label)))
            .filter_map(|(_, value)| value.parse::<f64>().ok())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_matching_series() {
        let metrics = Metrics("# HELP a b\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4\na{x=\"2\"} 5\nab 7\nb 0.5\n".into());
        assert_eq!(metrics.sum("a", &[]), 12.0);
        assert_eq!(metrics.sum("a", &[("x", "1")]), 7.0);
        assert_eq!(metrics.sum("b", &[]), 0.5);
        assert_eq!(metrics.sum("c", &[]), 0.0);
    }
}
