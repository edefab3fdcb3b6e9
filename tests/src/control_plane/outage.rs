//! The API server away for a while, and what happens to its data meanwhile: things that nobody is told.

use std::{sync::PoisonError, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{ControlPlane, HANG_BOUND, base64, run, serves};
use crate::supervisor::Process;

impl ControlPlane {
    pub(super) fn apiserver(&self) -> Process {
        self.apiserver.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every watch is cut, and no request is answered.
    pub fn stop_api(&self) -> Result<()> {
        self.apiserver().kill()
    }

    /// On the same port, with the same certificates, and with further flags. Returns when it serves.
    pub async fn start_api_again(&self, extra: &[&str]) -> Result<()> {
        let mut flags = self.apiserver_flags.clone();
        flags.extend(extra.iter().map(|flag| (*flag).to_owned()));
        let end = Instant::now() + HANG_BOUND;
        while Instant::now() < end {
            let again = run(&self.supervisor, &self.tools.kube_apiserver, flags.clone())?;
            *self.apiserver.lock().unwrap_or_else(PoisonError::into_inner) = again.clone();
            if serves(self.dir(), &self.etcd, &again).await? {
                return Ok(());
            }
        }
        bail!("kube-apiserver does not start again")
    }

    /// Takes objects out of the API server's data as if they had never been, by their keys' prefix
    /// (`/registry/configmaps/NAMESPACE/x`), and says how many. Only while it is stopped.
    pub async fn lose(&self, prefix: &str) -> Result<u64> {
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let end = String::from_utf8(end)?;
        let answer = self.etcd("deleterange", &json!({ "key": base64(prefix), "range_end": base64(&end) })).await?;
        Ok(answer["deleted"].as_str().and_then(|count| count.parse().ok()).unwrap_or_default())
    }

    /// Forgets all history, so that no watch can be resumed where it was.
    pub async fn compact(&self) -> Result<()> {
        let now = self.etcd("range", &json!({ "key": base64("/") })).await?;
        let revision = now["header"]["revision"].as_str().context("etcd's answer has no revision")?;
        self.etcd("compaction", &json!({ "revision": revision, "physical": true })).await.map(drop)
    }

    /// One call of etcd's own API, as JSON.
    async fn etcd(&self, call: &str, body: &Value) -> Result<Value> {
        let body = body.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.etcd_port)).await?;
        let head = format!(
            "POST /v3/kv/{call} HTTP/1.0\r\nHost: etcd\r\nContent-Type: application/json\r\nContent-Length: {}",
            body.len()
        );
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("etcd's answer has no head")?;
        ensure!(head.lines().next().is_some_and(|line| line.contains(" 200 ")), "etcd answers {head}\n{body}");
        Ok(serde_json::from_str(body)?)
    }
}
