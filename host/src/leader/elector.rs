//! The loop that acquires, renews and gives back the lease. Only it opens the gate.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use http::{Method, Request};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    jiff::Timestamp,
};
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Gate, LeaderOptions, now,
    record::{Observed, Step, decide, held, released},
};
use crate::{
    identity::{Actor, Api, ApiError, Lane, Lines, Resource},
    names::Kind,
};

pub(super) struct Elector {
    api: Api,
    options: LeaderOptions,
    gate: Arc<Gate>,
    leases: Resource,
    seen: Observed,
    /// Whether `seen` may be acted upon without reading the lease again.
    current: bool,
    /// A watch of the lease while somebody else holds it: a lease that is given back is taken at once.
    lines: Option<Lines>,
    /// The last thing that went wrong, so that it is logged once.
    trouble: Option<String>,
    /// Who was said to lead instead.
    holder: Option<String>,
}

/// What to do until the next step.
enum Rest {
    Sleep(Duration),
    /// Until the lease changes, but not longer.
    Watch(Instant),
}

impl Elector {
    pub(super) fn new(api: Api, options: LeaderOptions, gate: Arc<Gate>) -> Self {
        let kind = Kind::new("coordination.k8s.io", "v1", "Lease");
        let leases = Resource { kind, plural: "leases".into(), namespaced: true, status: false, subresources: Vec::new() };
        let seen = Observed { lease: None, at: Instant::now() };
        Self { api, options, gate, leases, seen, current: false, lines: None, trouble: None, holder: None }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let gate = self.gate.clone();
            let rest = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = closing(&gate) => self.lost(),
                rest = self.step() => rest,
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = closing(&gate) => drop(self.lost()),
                () = self.rest(rest) => {}
            }
        }
        self.release().await;
    }

    /// The gate closed by itself: the renewals did not come through.
    fn lost(&mut self) -> Rest {
        self.gate.close();
        self.current = false;
        tracing::warn!(lease = %self.lease(), trouble = self.trouble, "leadership lost: the lease was not renewed in time");
        Rest::Sleep(Duration::ZERO)
    }

    async fn step(&mut self) -> Rest {
        let from_memory = self.current;
        match self.try_step().await {
            Ok(rest) => {
                self.trouble = None;
                rest
            }
            Err(error) => {
                let raced = error.is_conflict() || error.is_already_exists();
                // Read first, at once where somebody was faster, later where something is wrong.
                let rest = if raced && from_memory { Duration::ZERO } else { self.jittered() };
                self.current = false;
                if !raced {
                    self.complain(&error);
                }
                Rest::Sleep(rest)
            }
        }
    }

    async fn try_step(&mut self) -> Result<Rest, ApiError> {
        if !self.current {
            self.read().await?;
        }
        let Observed { at, .. } = self.seen;
        match decide(self.seen.spec(), at, Instant::now(), &self.options.identity, self.options.lease) {
            Step::Wait { until } => {
                if self.gate.pass().is_ok() {
                    tracing::warn!(lease = %self.lease(), "leadership lost: somebody else holds the lease");
                }
                self.gate.close();
                Ok(Rest::Watch(until))
            }
            Step::Create | Step::Take | Step::Renew => self.hold().await,
        }
    }

    async fn read(&mut self) -> Result<(), ApiError> {
        // A watch from before could tell older things than what is read now.
        self.lines = None;
        let lease = match self.exchange(Method::GET, None).await {
            Ok(lease) => Some(lease),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        if lease.is_none() {
            // It was taken away from us: what happened meanwhile is unknown.
            self.gate.close();
        }
        self.see(lease);
        Ok(())
    }

    /// Writes that we hold it. The gate counts from before the request was sent.
    async fn hold(&mut self) -> Result<Rest, ApiError> {
        let sent = now();
        let spec = held(self.seen.spec(), &self.options, Timestamp::now());
        let lease = self.write(spec).await?;
        self.see(Some(lease));
        self.lines = None;
        let led = self.gate.pass().map(|(term, _)| term);
        self.gate.open(sent.saturating_add(u64::try_from(self.options.renew.as_nanos()).unwrap_or(0)));
        if let Ok((term, _)) = self.gate.pass()
            && led != Ok(term)
        {
            tracing::info!(lease = %self.lease(), identity = %self.options.identity, term = term.0, "leading");
        }
        Ok(Rest::Sleep(self.options.retry))
    }

    async fn write(&self, spec: LeaseSpec) -> Result<Lease, ApiError> {
        let mut lease = self.seen.lease.clone().unwrap_or_default();
        lease.metadata.name = Some(self.options.name.to_string());
        lease.metadata.namespace = Some(self.options.namespace.to_string());
        lease.spec = Some(spec);
        // With its uid and resourceVersion: it succeeds only over exactly what was read.
        let method = if self.seen.lease.is_some() { Method::PUT } else { Method::POST };
        self.exchange(method, Some(&lease)).await
    }

    async fn exchange(&self, method: Method, lease: Option<&Lease>) -> Result<Lease, ApiError> {
        let name = (method != Method::POST).then_some(&*self.options.name);
        let path = self.leases.path(&self.options.namespace, name, None);
        let body = match lease {
            Some(lease) => {
                serde_json::to_vec(lease).map_err(|e| ApiError::Undecodable(format!("a lease does not encode: {e}")))?
            }
            None => Vec::new(),
        };
        let request = request(method, &path, body)?;
        // Half of it, so that one connection that went dead leaves time for another one.
        let answer = self.api.send_within(&Actor::Host, Lane::Leases, request, self.options.renew / 2).await?;
        serde_json::from_slice(&answer).map_err(|e| ApiError::Undecodable(format!("the lease {path} does not decode: {e}")))
    }

    fn see(&mut self, lease: Option<Lease>) {
        self.seen.see(lease);
        self.current = true;
    }

    async fn rest(&mut self, rest: Rest) {
        match rest {
            Rest::Sleep(time) => tokio::time::sleep(time).await,
            Rest::Watch(until) => {
                self.stand_by();
                if let Ok(Err(error)) = tokio::time::timeout_at(until, self.next_change()).await {
                    self.complain(&error);
                    self.lines = None;
                    self.current = false;
                    tokio::time::sleep(self.jittered()).await;
                }
            }
        }
    }

    /// Waits until the lease is another one than was seen.
    async fn next_change(&mut self) -> Result<(), ApiError> {
        if self.lines.is_none() {
            let version = self.seen.lease.as_ref().and_then(|l| l.metadata.resource_version.as_deref()).unwrap_or_default();
            let collection = self.leases.path(&self.options.namespace, None, None);
            let name = &self.options.name;
            let path = format!("{collection}?watch=1&fieldSelector=metadata.name%3D{name}&resourceVersion={version}");
            self.lines = Some(self.api.lines(&Actor::Host, request(Method::GET, &path, Vec::new())?).await?);
        }
        let ended = || ApiError::Unreachable("the watch of the lease ended".into());
        let line = self.lines.as_mut().ok_or_else(ended)?.next().await.ok_or_else(ended)??;
        match event(&line)? {
            Seen::Lease(lease) => self.see(Some(*lease)),
            Seen::Gone => self.see(None),
            Seen::Unclear => return Err(ended()),
        }
        Ok(())
    }

    /// Gives it back if it is ours.
    async fn release(mut self) {
        self.gate.close();
        self.lines = None;
        // A renewal may have been cut off in the middle: what was seen may be old.
        if let Err(error) = self.read().await {
            return self.complain(&error);
        }
        let Some(spec) = self.seen.spec().filter(|s| s.holder_identity.as_deref() == Some(&self.options.identity)) else {
            return;
        };
        match self.write(released(spec, Timestamp::now())).await {
            Ok(_) => tracing::info!(lease = %self.lease(), "leadership given back"),
            Err(error) => self.complain(&error),
        }
    }

    /// Told once per holder.
    fn stand_by(&mut self) {
        let holder = self.seen.spec().and_then(|spec| spec.holder_identity.clone()).filter(|holder| !holder.is_empty());
        if holder != self.holder
            && let Some(holder) = &holder
        {
            tracing::info!(lease = %self.lease(), %holder, "standing by: somebody else leads");
        }
        self.holder = holder;
    }

    fn complain(&mut self, error: &ApiError) {
        let text = error.to_string();
        if self.trouble.as_ref() != Some(&text) {
            tracing::warn!(lease = %self.lease(), error = %text, "the lease is out of reach");
            self.trouble = Some(text);
        }
    }

    /// The retry period and up to a fifth more.
    fn jittered(&self) -> Duration {
        let random = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
        self.options.retry.mul_f64(1.0 + random / 5.0)
    }

    fn lease(&self) -> String {
        format!("{}/{}", self.options.namespace, self.options.name)
    }
}

/// Ends when an open gate has closed; never while nobody leads.
async fn closing(gate: &Gate) {
    if gate.changed.borrow().is_none() {
        return std::future::pending().await;
    }
    while let Ok((_, remaining)) = gate.pass() {
        tokio::time::sleep(remaining).await;
    }
}

fn request(method: Method, path: &str, body: Vec<u8>) -> Result<Request<Vec<u8>>, ApiError> {
    let request = Request::builder().method(method).uri(path).header(http::header::CONTENT_TYPE, "application/json");
    request.body(body).map_err(|e| ApiError::Misconfigured(format!("`{path}` is not the path of a lease: {e}")))
}

enum Seen {
    Lease(Box<Lease>),
    Gone,
    /// The watch has nothing more to say: read again.
    Unclear,
}

fn event(line: &[u8]) -> Result<Seen, ApiError> {
    #[derive(Deserialize)]
    struct Event {
        r#type: String,
        object: Box<serde_json::value::RawValue>,
    }
    let undecodable = |e: serde_json::Error| ApiError::Undecodable(format!("an event of the lease does not decode: {e}"));
    let event: Event = serde_json::from_slice(line).map_err(undecodable)?;
    Ok(match event.r#type.as_str() {
        "ADDED" | "MODIFIED" => Seen::Lease(serde_json::from_str(event.object.get()).map_err(undecodable)?),
        "DELETED" => Seen::Gone,
        _ => Seen::Unclear,
    })
}
