//! What the demo sees: the admin's own watches, each change with the moment at which it arrived.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::{Context, Result, anyhow, bail};
use futures::{TryStreamExt, pin_mut};
use kube::core::WatchEvent;
use serde_json::Value;
use tokio::{sync::watch, task::JoinSet};

use crate::cluster::{Cluster, hang_bound};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

/// One line of a watch.
#[derive(Debug)]
pub struct Seen {
    pub at: Instant,
    pub kind: &'static str,
    pub change: Change,
    pub object: Value,
}

impl Seen {
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    pub fn uid(&self) -> &str {
        self.object["metadata"]["uid"].as_str().unwrap_or_default()
    }

    /// Whether it is about this object.
    pub fn is(&self, kind: &str, name: &str) -> bool {
        self.kind == kind && self.name() == name
    }

    /// The object exists, and its text is this one, wherever its kind has it.
    pub fn says(&self, text: &str) -> bool {
        let field = if self.kind == super::CONFIG { &self.object["data"]["text"] } else { &self.object["spec"]["text"] };
        self.change != Change::Deleted && field == text
    }
}

type Log = Arc<Mutex<Vec<Arc<Seen>>>>;

/// Everything seen so far, in order of arrival.
pub struct Sight {
    log: Log,
    news: watch::Receiver<usize>,
    watches: JoinSet<String>,
}

impl Sight {
    /// Returns when every watch stands.
    pub async fn begin(cluster: &Cluster, watched: &[(&'static str, &str)]) -> Result<Self> {
        let (log, (tell, news)) = (Log::default(), watch::channel(0));
        let mut watches = JoinSet::new();
        for (kind, namespace) in watched {
            let uri = format!("{}?watch=true", cluster.path(kind, namespace, None).await?);
            let request = http::Request::get(uri).body(Vec::new())?;
            let stream =
                cluster.client().request_events::<Value>(request).await.with_context(|| format!("cannot watch {kind}"))?;
            let (log, tell, kind) = (log.clone(), tell.clone(), *kind);
            watches.spawn(async move {
                pin_mut!(stream);
                loop {
                    match stream.try_next().await {
                        Ok(Some(event)) => note(&log, &tell, kind, event),
                        Ok(None) => return format!("the demo's watch of {kind} has ended"),
                        Err(error) => return format!("the demo's watch of {kind} broke: {error}"),
                    }
                }
            });
        }
        Ok(Self { log, news, watches })
    }

    /// Now: what comes later is after the mark.
    pub fn mark(&self) -> usize {
        lock(&self.log).len()
    }

    pub fn since(&self, mark: usize) -> Vec<Arc<Seen>> {
        lock(&self.log).get(mark..).unwrap_or_default().to_vec()
    }

    /// The last that was seen of an object, unless it has gone.
    pub fn now(&self, kind: &str, name: &str) -> Option<Arc<Seen>> {
        let last = lock(&self.log).iter().rev().find(|seen| seen.is(kind, name)).cloned();
        last.filter(|seen| seen.change != Change::Deleted)
    }

    /// The first change after the mark that is wanted. `what` completes "expected …".
    pub async fn first(&mut self, mark: usize, what: &str, wanted: impl Fn(&Seen) -> bool) -> Result<Arc<Seen>> {
        self.until(what, |sight| sight.since(mark).into_iter().find(|seen| wanted(seen))).await.map_err(|error| {
            let seen: Vec<_> = self.since(mark).iter().rev().take(8).rev().map(|seen| line(seen)).collect();
            anyhow!("{error:#}; the last changes seen:\n{}", seen.join("\n"))
        })
    }

    /// Asks after every change, until there is an answer.
    pub async fn until<T>(&mut self, what: &str, ask: impl Fn(&Self) -> Option<T>) -> Result<T> {
        let end = tokio::time::Instant::now() + hang_bound();
        loop {
            self.news.borrow_and_update();
            if let Some(answer) = ask(self) {
                return Ok(answer);
            }
            tokio::select! {
                changed = self.news.changed() => changed.context("all watches have ended")?,
                Some(ended) = self.watches.join_next() => bail!("expected {what}, but {}", ended?),
                () = tokio::time::sleep_until(end) => bail!("expected {what}, in vain for {} s", hang_bound().as_secs()),
            }
        }
    }
}

fn note(log: &Log, tell: &watch::Sender<usize>, kind: &'static str, event: WatchEvent<Value>) {
    let (change, object) = match event {
        WatchEvent::Added(object) => (Change::Added, object),
        WatchEvent::Modified(object) => (Change::Modified, object),
        WatchEvent::Deleted(object) => (Change::Deleted, object),
        WatchEvent::Bookmark(_) | WatchEvent::Error(_) => return,
    };
    let mut log = lock(log);
    log.push(Arc::new(Seen { at: Instant::now(), kind, change, object }));
    tell.send_replace(log.len());
}

/// One change, for those who look for what went wrong.
fn line(seen: &Seen) -> String {
    let parts = ["spec", "data", "status"].map(|part| match &seen.object[part] {
        Value::Null => String::new(),
        value => format!(" {part} {value}"),
    });
    format!("  {:?} {} {}{}", seen.change, seen.kind, seen.name(), parts.concat())
}

fn lock(log: &Log) -> std::sync::MutexGuard<'_, Vec<Arc<Seen>>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}
