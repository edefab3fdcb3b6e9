//! One go at reading and following a scope as one lender, until something ends it.
//!
//! What is there is streamed by the watch itself where the server does that, and read page by page where it does not. Never
//! more than one event or page of it is in memory beside the store.

use std::{convert::Infallible, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use http::Request;
use tokio::time::{Instant, timeout};

use super::backoff::spread;
use crate::{
    identity::{Actor, ApiError, Lane, Resource},
    watch::{
        Shared,
        protocol::{Event, Page},
        registry::{Stop, Watch},
        replica::Broken,
    },
};

/// A watch that lived this long was well, and its end is no failure.
const WELL: Duration = Duration::from_secs(5);

/// Why a session is over.
#[derive(Debug)]
pub enum End {
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
    /// The server has too much to do, and says when to come back.
    Busy(String, Duration),
    /// The server does not stream what is there.
    Unstreamed(String),
    /// The store has no room for it.
    Full {
        bytes: usize,
        message: String,
    },
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
            ApiError::Refused(status) if status.retry_after.is_some() => {
                Self::Busy(message, status.retry_after.unwrap_or_default())
            }
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

impl From<Stop> for End {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Broken(broken) => broken.into(),
            Stop::Full { bytes, message } => Self::Full { bytes, message },
        }
    }
}

/// What one session teaches the next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lessons {
    /// Reads page by page: a streaming list did not come to its end.
    pub paged: bool,
    /// Reads the list in one piece: in pages it took longer than the server keeps them.
    pub unpaged: bool,
    /// When the store is read anew although nothing is wrong with it.
    pub relist: Option<Instant>,
}

pub struct Session<'a> {
    pub shared: &'a Shared,
    pub watch: &'a Watch,
    pub lender: &'a Actor,
    pub lessons: Lessons,
    /// Since when and from which version on it follows.
    pub established: Option<(Instant, u64)>,
}

impl Session<'_> {
    /// Whether it got somewhere: it lived for a while, or brought something new.
    pub fn was_well(&self) -> bool {
        self.established.is_some_and(|(since, version)| since.elapsed() >= WELL || self.watch.version() > version)
    }

    pub async fn run(&mut self) -> End {
        match self.go().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn go(&mut self) -> Result<Infallible, End> {
        let scope = &self.watch.scope;
        let resource = self.shared.api.resource(&scope.kind).await?;
        if !resource.namespaced && !scope.namespace.is_empty() {
            let kind = &scope.kind;
            return Err(End::Missing(format!("{kind} is cluster-scoped: it cannot be watched in namespace {}", scope.namespace)));
        }
        if self.lessons.relist.is_some_and(|due| due <= Instant::now()) {
            self.watch.start_over();
        }
        if !self.watch.must_list() {
            return self.follow(&resource, None).await;
        }
        if self.shared.streams.load(Ordering::Relaxed) && !self.lessons.paged {
            return self.stream(&resource).await;
        }
        self.list(&resource).await?;
        self.follow(&resource, None).await
    }

    /// What is there, and then what happens, in one answer.
    async fn stream(&mut self, resource: &Resource) -> Result<Infallible, End> {
        let query = [("sendInitialEvents", "true"), ("resourceVersionMatch", "NotOlderThan")];
        self.watch.begin_list();
        let refused = match self.follow(resource, Some(&query)).await {
            Err(End::Unstreamed(message)) => message,
            end => return end,
        };
        // 1.33 and later all know it, but it may be switched off; and a proxy may not.
        if self.shared.streams.swap(false, Ordering::Relaxed) {
            tracing::info!(reason = refused, "the API server streams no lists; they are read page by page from now on");
        }
        self.list(resource).await?;
        self.follow(resource, None).await
    }

    async fn list(&mut self, resource: &Resource) -> Result<(), End> {
        while let Err(missing) = self.list_once(resource).await? {
            self.doubt(missing);
        }
        self.is_read();
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

    fn doubt(&self, missing: usize) {
        let (kind, namespace) = (&self.watch.scope.kind, &self.watch.scope.namespace);
        tracing::warn!(%kind, %namespace, missing, "a list lacks more than a fifth of what was there; asking once more");
    }

    fn is_read(&mut self) {
        self.lessons.relist = Instant::now().checked_add(spread(self.shared.options.relist));
    }

    async fn get_page(&mut self, resource: &Resource, next: Option<&str>) -> Result<Bytes, End> {
        let limit = self.shared.options.page.to_string();
        let mut query = Vec::new();
        if !self.lessons.unpaged {
            query.push(("limit", &*limit));
        }
        query.extend(next.map(|token| ("continue", token)));
        let request = self.request(resource, &query)?;
        let answer = self.shared.api.send(self.lender, Lane::Requests, request).await;
        self.lessons.unpaged |= next.is_some() && answer.as_ref().is_err_and(ApiError::is_gone);
        Ok(answer?)
    }

    /// A watch: from where the store is, or with what is there first.
    async fn follow(&mut self, resource: &Resource, list: Option<&[(&str, &str)]>) -> Result<Infallible, End> {
        let options = &self.shared.options;
        let seconds = spread(options.watch_timeout).as_secs().max(1).to_string();
        let version = self.watch.version().to_string();
        let mut query = vec![("watch", "true"), ("allowWatchBookmarks", "true"), ("timeoutSeconds", &*seconds)];
        match list {
            Some(list) => query.extend(list),
            None => query.push(("resourceVersion", &*version)),
        }
        let request = self.request(resource, &query)?;
        let mut listing = list.is_some();
        let mut lines = match self.shared.api.lines(self.lender, request).await {
            Err(error) if listing && error.is_invalid() => return Err(End::Unstreamed(error.to_string())),
            lines => lines?,
        };
        self.established = Some((Instant::now(), self.watch.version()));
        if !listing {
            self.watch.is_well();
        }
        // Whatever ends it before all was shown, pages may do better.
        self.lessons.paged |= listing;
        loop {
            let relist = self.lessons.relist.filter(|_| !listing);
            let line = tokio::select! {
                line = timeout(options.idle, lines.next()) => line,
                () = due(relist) => return Err(End::Again("the regular check is due".into())),
            };
            let line = line.map_err(|_| End::Failed(format!("nothing came for {:?}, not even a bookmark", options.idle)))?;
            let event = self.parse(&line.ok_or(End::Closed)?.map_err(cut)?)?;
            if let Event::Listed(version) = event {
                if std::mem::take(&mut listing) {
                    self.end_list(version)?;
                }
            } else {
                self.shared.registry.event(self.watch, event)?;
            }
            if !listing && self.watch.must_list() {
                return Err(End::Again("an event came out of order".into()));
            }
        }
    }

    /// All that was there has been streamed. Where that is doubtful, pages must say the same.
    fn end_list(&mut self, version: u64) -> Result<(), End> {
        self.shared.registry.list_at(self.watch, version)?;
        if let Err(missing) = self.shared.registry.finish_list(self.watch) {
            self.doubt(missing);
            self.lessons.paged = true;
            return Err(End::Again("mass vanishing is confirmed first".into()));
        }
        self.lessons.paged = false;
        self.is_read();
        self.watch.is_well();
        Ok(())
    }

    fn parse(&self, line: &[u8]) -> Result<Event, End> {
        let event = Event::parse(line, &self.watch.scope.kind).map_err(End::Failed)?;
        if let Event::Quarantined(q) = &event {
            self.name_quarantined(&q.namespace, &q.name, &q.why);
        }
        Ok(event)
    }

    fn name_quarantined(&self, object_namespace: &str, name: &str, why: &str) {
        let (kind, namespace) = (&self.watch.scope.kind, &self.watch.scope.namespace);
        tracing::error!(%kind, %namespace, object_namespace, name, why, "an object does not decode and is left out");
    }

    fn request(&self, resource: &Resource, query: &[(&str, &str)]) -> Result<Request<Vec<u8>>, End> {
        let scope = &self.watch.scope;
        let only = scope.name().map(|name| format!("metadata.name={name}"));
        let query = query.iter().copied().chain(only.as_deref().map(|only| ("fieldSelector", only)));
        let pairs: Vec<String> = query.map(|(name, value)| format!("{name}={}", escape(value))).collect();
        let uri = format!("{}?{}", resource.path(&scope.namespace, None, None), pairs.join("&"));
        Request::get(&uri).body(Vec::new()).map_err(|e| End::Failed(format!("`{uri}` is not a path that can be asked for: {e}")))
    }
}

/// A server that has answered and then breaks off is not away: if it does so again and again, a list may still come through.
fn cut(error: ApiError) -> End {
    match error {
        ApiError::Unreachable(message) => End::Failed(message),
        error => error.into(),
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Percent-encodes what may not stand in a query.
fn escape(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    value.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_a_query() {
        assert_eq!(escape("a b/c=é&~"), "a%20b%2Fc%3D%C3%A9%26~");
    }
}
