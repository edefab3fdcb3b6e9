//! The I/O of one watch: list page by page, follow line by line, and try again, for as long as somebody looks.
//!
//! It runs as one of the subscribers. When that one is refused or leaves, the next takes over where it was. What pages
//! and events mean is decided in `replica`. A streaming list (`sendInitialEvents`) would take the place of `list`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use http::Request;
use tokio::{
    sync::watch::Receiver,
    time::{Instant, timeout},
};

use super::{
    HubOptions, Shared,
    protocol::{Event, Page},
    registry::Watch,
    replica::Broken,
};
use crate::identity::{Actor, ApiError, Lane, Resource};

/// A watch that lived this long was well, and its end is no failure.
const WELL: Duration = Duration::from_secs(5);

/// Why a session is over.
#[derive(Debug)]
enum End {
    /// The server closed the stream, as it was asked to after a while.
    Closed,
    /// The store has to be read anew; nothing is wrong.
    Again(String),
    /// The lender may not.
    Refused(String),
    /// There is no such kind, or not for this scope.
    Missing(String),
    /// The server cannot be reached.
    Away(String),
    Failed(String),
}

impl From<ApiError> for End {
    fn from(error: ApiError) -> Self {
        let message = error.to_string();
        match error {
            error if error.is_forbidden() => Self::Refused(message),
            error if error.is_gone() => Self::Again(message),
            error if error.is_not_found() => Self::Missing(message),
            ApiError::UnknownKind(_) => Self::Missing(message),
            ApiError::Unreachable(_) => Self::Away(message),
            _ => Self::Failed(message),
        }
    }
}

impl From<Broken> for End {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::StartOver(_) => Self::Again(broken.to_string()),
            Broken::Ended { .. } | Broken::Stale { .. } => Self::Failed(broken.to_string()),
        }
    }
}

/// Runs until it is aborted, when the last subscriber has left.
pub async fn follow(shared: Arc<Shared>, watch: Arc<Watch>) {
    let mut tries = Tries::new(&shared.options);
    loop {
        let mut lenders = watch.lenders.subscribe();
        let lender = tries.choose(&lenders.borrow_and_update());
        let Some(lender) = lender else {
            // The last one has left: it ends in a moment.
            wait(&mut lenders, shared.options.backoff.1).await;
            continue;
        };
        let mut session = Session { shared: &shared, watch: &watch, lender: &lender, established: None, unpaged: tries.unpaged };
        let end = tokio::select! {
            end = session.run() => Some(end),
            _ = lenders.wait_for(|lenders| !lenders.contains(&lender)) => None,
        };
        tries.learn(&session);
        if let Some(end) = end {
            tries.after(&watch, &lender, end, &mut lenders).await;
        }
    }
}

/// Waits, but not past a new subscriber, who may be allowed what others are not.
async fn wait(lenders: &mut Receiver<Vec<Actor>>, time: Duration) {
    let _ = timeout(time, lenders.changed()).await;
}

/// What earlier sessions have taught.
struct Tries {
    backoff: Backoff,
    /// Whether the last session got somewhere, so that its end is no failure.
    well: bool,
    /// Lenders that were refused since the last success.
    refused: Vec<Actor>,
    /// Failures in a row, times at which the server was away not counted.
    failed: u32,
    /// Reads the list in one piece: in pages it took longer than the server keeps them.
    unpaged: bool,
}

impl Tries {
    fn new(options: &HubOptions) -> Self {
        Self { backoff: Backoff::new(options), well: false, refused: Vec::new(), failed: 0, unpaged: false }
    }

    /// One that was not refused; if all were, the first again, for rights change.
    fn choose(&mut self, lenders: &[Actor]) -> Option<Actor> {
        let other = lenders.iter().find(|lender| !self.refused.contains(lender));
        if other.is_none() {
            self.refused.clear();
        }
        other.or(lenders.first()).cloned()
    }

    fn learn(&mut self, session: &Session<'_>) {
        self.well = session.was_well();
        self.unpaged = session.unpaged && !self.well;
        if self.well {
            self.backoff.reset();
            self.refused.clear();
            self.failed = 0;
        }
    }

    async fn after(&mut self, watch: &Watch, lender: &Actor, end: End, lenders: &mut Receiver<Vec<Actor>>) {
        match end {
            End::Closed if self.well => return,
            End::Refused(message) => {
                self.refused.push(lender.clone());
                if lenders.borrow().iter().any(|lender| !self.refused.contains(lender)) {
                    tracing::debug!(kind = %watch.scope.kind, namespace = %watch.scope.namespace, ?lender, error = message, "refused; another account takes over");
                    return;
                }
                report(watch, &message);
                watch.withdraw(message, true);
            }
            End::Missing(message) => {
                report(watch, &message);
                watch.withdraw(message, false);
            }
            End::Again(message) => {
                tracing::info!(kind = %watch.scope.kind, namespace = %watch.scope.namespace, reason = message, "reading anew");
                self.failed += 1;
                watch.start_over();
            }
            End::Away(message) => late(watch, message),
            End::Closed => self.failed(watch, "the API server closed the watch at once".into()),
            End::Failed(message) => self.failed(watch, message),
        }
        wait(lenders, self.backoff.next()).await;
    }

    /// Resuming where it was is right after a cut, but a server that fails again and again may need a fresh start.
    fn failed(&mut self, watch: &Watch, message: String) {
        self.failed += 1;
        if self.failed.is_multiple_of(3) {
            watch.start_over();
        }
        late(watch, message);
    }
}

fn late(watch: &Watch, message: String) {
    report(watch, &message);
    watch.is_late(message);
}

/// Once for each new message: a server that is away for long says the same again and again.
fn report(watch: &Watch, message: &str) {
    let (kind, namespace) = (&watch.scope.kind, &watch.scope.namespace);
    if watch.last_error().as_deref() == Some(message) {
        tracing::debug!(%kind, %namespace, error = message, "still not watched");
    } else {
        tracing::warn!(%kind, %namespace, error = message, "not watched; trying again");
    }
}

/// One go at listing and following as one lender.
struct Session<'a> {
    shared: &'a Shared,
    watch: &'a Watch,
    lender: &'a Actor,
    /// Since when and from which version on it follows.
    established: Option<(Instant, u64)>,
    unpaged: bool,
}

impl Session<'_> {
    /// Whether it lasted or brought something.
    fn was_well(&self) -> bool {
        self.established.is_some_and(|(since, version)| since.elapsed() >= WELL || self.watch.version() > version)
    }

    async fn run(&mut self) -> End {
        match self.list_and_follow().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn list_and_follow(&mut self) -> Result<std::convert::Infallible, End> {
        let scope = &self.watch.scope;
        let resource = self.shared.api.resource(&scope.kind).await?;
        if !resource.namespaced && !scope.namespace.is_empty() {
            let kind = &scope.kind;
            return Err(End::Missing(format!("{kind} is cluster-scoped: it cannot be watched in namespace {}", scope.namespace)));
        }
        if self.watch.must_list() {
            self.list(&resource).await?;
        }
        self.events(&resource).await
    }

    async fn list(&mut self, resource: &Resource) -> Result<(), End> {
        while let Err(missing) = self.list_once(resource).await? {
            let (kind, namespace) = (&self.watch.scope.kind, &self.watch.scope.namespace);
            tracing::warn!(%kind, %namespace, missing, "a list lacks more than a fifth of what was there; asking once more");
        }
        Ok(())
    }

    async fn list_once(&mut self, resource: &Resource) -> Result<Result<(), usize>, End> {
        self.watch.begin_list();
        let mut next = None;
        loop {
            let body = self.get_page(resource, next.as_deref()).await?;
            let page = Page::parse(&body, &self.watch.scope.kind).map_err(End::Failed)?;
            drop(body);
            page.quarantined.iter().for_each(|q| self.name_quarantined(&q.namespace, &q.name, &q.why));
            next = page.next.clone();
            self.shared.registry.page(self.watch, page)?;
            if next.is_none() {
                return Ok(self.shared.registry.finish_list(self.watch));
            }
        }
    }

    async fn get_page(&mut self, resource: &Resource, next: Option<&str>) -> Result<Bytes, End> {
        let mut query = Vec::new();
        if !self.unpaged {
            query.push(("limit", self.shared.options.page.to_string()));
        }
        query.extend(next.map(|token| ("continue", token.to_owned())));
        let request = self.request(resource, query)?;
        let answer = self.shared.api.send(self.lender, Lane::Requests, request).await;
        self.unpaged |= next.is_some() && answer.as_ref().is_err_and(ApiError::is_gone);
        Ok(answer?)
    }

    async fn events(&mut self, resource: &Resource) -> Result<std::convert::Infallible, End> {
        let options = &self.shared.options;
        let opened = Instant::now();
        let seconds = spread(options.watch_timeout).as_secs().max(1);
        let query = vec![
            ("watch", "true".to_owned()),
            ("allowWatchBookmarks", "true".to_owned()),
            ("resourceVersion", self.watch.version().to_string()),
            ("timeoutSeconds", seconds.to_string()),
        ];
        let mut lines = self.shared.api.lines(self.lender, self.request(resource, query)?).await?;
        self.established = Some((Instant::now(), self.watch.version()));
        self.watch.is_well();
        loop {
            let line = timeout(options.idle, lines.next()).await;
            let line = line.map_err(|_| End::Failed(format!("nothing came for {:?}, not even a bookmark", options.idle)))?;
            self.event(&line.ok_or(End::Closed)??)?;
            if self.watch.must_list() {
                return Err(End::Again("an event came out of order".into()));
            }
            if opened.elapsed() >= options.relist {
                return Err(End::Again("the regular check is due".into()));
            }
        }
    }

    fn event(&self, line: &[u8]) -> Result<(), End> {
        let event = Event::parse(line, &self.watch.scope.kind).map_err(End::Failed)?;
        if let Event::Quarantined(q) = &event {
            self.name_quarantined(&q.namespace, &q.name, &q.why);
        }
        Ok(self.shared.registry.event(self.watch, event)?)
    }

    fn name_quarantined(&self, object_namespace: &str, name: &str, why: &str) {
        let (kind, namespace) = (&self.watch.scope.kind, &self.watch.scope.namespace);
        tracing::error!(%kind, %namespace, object_namespace, name, why, "an object does not decode and is left out");
    }

    fn request(&self, resource: &Resource, query: Vec<(&str, String)>) -> Result<Request<Vec<u8>>, End> {
        let scope = &self.watch.scope;
        let mut query = query;
        query.extend(scope.only.iter().map(|(_, name)| ("fieldSelector", format!("metadata.name={name}"))));
        let pairs: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
        let uri = format!("{}?{}", resource.path(&scope.namespace, None, None), pairs.join("&"));
        Request::get(&uri).body(Vec::new()).map_err(|e| End::Failed(format!("`{uri}` is not a path that can be asked for: {e}")))
    }
}

/// Percent-encodes what may not stand in a query.
fn escape(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    value.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    fn new(options: &HubOptions) -> Self {
        let (first, most) = options.backoff;
        Self { first, most, next: first }
    }

    /// Half to all of a time that doubles, so that many watches that failed together come back one by one.
    fn next(&mut self) -> Duration {
        let time = self.next;
        self.next = (time * 2).min(self.most);
        spread(time / 2)
    }

    fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A random time from this to twice this.
fn spread(time: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    time + time.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_are_spread() {
        let options = HubOptions { backoff: (Duration::from_millis(100), Duration::from_millis(400)), ..HubOptions::default() };
        let mut backoff = Backoff::new(&options);
        for expected in [100, 200, 400, 400] {
            let time = backoff.next().as_millis();
            assert!((expected / 2..=expected).contains(&time), "{time} is not within {expected}");
        }
        backoff.reset();
        assert!(backoff.next().as_millis() <= 100);
    }

    #[test]
    fn a_lender_that_was_refused_is_asked_again_when_there_is_no_other() {
        let lender = |name| Actor::Account(crate::names::Account::new("a", name));
        let (one, two) = (lender("one"), lender("two"));
        let mut tries = Tries::new(&HubOptions::default());
        assert_eq!(tries.choose(&[one.clone(), two.clone()]), Some(one.clone()));
        tries.refused.push(one.clone());
        assert_eq!(tries.choose(&[one.clone(), two.clone()]), Some(two));
        assert_eq!(tries.choose(std::slice::from_ref(&one)), Some(one));
        assert_eq!(tries.choose(&[]), None);
    }

    #[test]
    fn tokens_survive_a_query() {
        assert_eq!(escape("a b/c=é&~"), "a%20b%2Fc%3D%C3%A9%26~");
    }
}
