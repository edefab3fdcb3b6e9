//! Connections to an API server: HTTP/2, some for each purpose, their streams counted.
//!
//! One connection carries 100 streams, and with 100 watches on it every further request hangs. So leases, requests and
//! watches never share one. It knows nothing of what goes over them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::client::ConfigExt;
use parking_lot::Mutex;
use tower::{BoxError, ServiceExt, util::BoxCloneSyncService};

use super::{ApiError, ApiOptions};

/// How much of an answer may wait unread in its stream. A connection takes as much from all its streams together, so that
/// one watch that is not read holds up no other.
const WINDOW: u32 = 1 << 20;

/// One connection, whatever is at its other end.
pub type Service = BoxCloneSyncService<Request<Full<Bytes>>, Response<Body>, BoxError>;
pub type Body = BoxBody<Bytes, BoxError>;
/// Opens a connection that is meant for so many requests at once. Must not block: it may be opened with the first request.
pub type Open = Arc<dyn Fn(usize) -> Service + Send + Sync>;

/// What a request is for; each lane has connections of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    Leases,
    Requests,
    Watches,
}

impl Lane {
    /// How many streams a connection of this lane takes before another one is opened.
    fn full(self) -> usize {
        match self {
            // Spread early: they share one task that encrypts.
            Self::Requests => 32,
            Self::Leases | Self::Watches => 80,
        }
    }
}

/// How to open connections to the API server of a configuration: over TLS, or in plain text if its URL says so.
pub(super) fn opener(config: &kube::Config, options: &ApiOptions) -> Result<Open, ApiError> {
    let unusable = |e: String| ApiError::Misconfigured(format!("the TLS part of the configuration cannot be used: {e}"));
    let tls = config.rustls_client_config().map_err(|e| unusable(e.to_string()))?;
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(config.connect_timeout.map_or(options.deadline, |c| c.min(options.deadline))));
    let mut builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = name.clone().try_into().map_err(|e| unusable(format!("tls-server-name `{name}`: {e}")))?;
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let (https, ping) = (builder.enable_http2().wrap_connector(http), options.ping);
    Ok(Arc::new(move |streams| http2(https.clone(), ping, streams)))
}

/// Keeps one HTTP/2 connection, and opens it again when it is lost.
fn http2(https: HttpsConnector<HttpConnector>, ping: Duration, streams: usize) -> Service {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(None)
        .http2_only(true)
        .http2_initial_stream_window_size(WINDOW)
        .http2_initial_connection_window_size(WINDOW * u32::try_from(streams).unwrap_or(1))
        .http2_keep_alive_interval(ping)
        .http2_keep_alive_timeout(ping)
        .http2_keep_alive_while_idle(true)
        .build(https);
    let answered = |answer: Response<hyper::body::Incoming>| answer.map(|body| body.map_err(BoxError::from).boxed());
    BoxCloneSyncService::new(client.map_response(answered).map_err(BoxError::from))
}

struct Connection {
    service: Service,
    streams: AtomicUsize,
}

pub(super) struct Lanes {
    leases: Arc<Pool>,
    requests: Arc<Pool>,
    watches: Arc<Pool>,
}

impl Lanes {
    pub(super) fn new(opener: &Open) -> Self {
        let pool = |lane: Lane| Arc::new(Pool { opener: opener.clone(), full: lane.full(), open: Mutex::default() });
        Self { leases: pool(Lane::Leases), requests: pool(Lane::Requests), watches: pool(Lane::Watches) }
    }

    pub(super) fn pool(&self, lane: Lane) -> &Arc<Pool> {
        match lane {
            Lane::Leases => &self.leases,
            Lane::Requests => &self.requests,
            Lane::Watches => &self.watches,
        }
    }
}

pub(super) struct Pool {
    opener: Open,
    full: usize,
    open: Mutex<Vec<Arc<Connection>>>,
}

impl Pool {
    /// A place on a connection that is not full.
    pub(super) fn take(self: &Arc<Self>) -> Ticket {
        let mut open = self.open.lock();
        let free = open.iter().find(|c| c.streams.load(Ordering::Relaxed) < self.full).cloned();
        let connection = free.unwrap_or_else(|| {
            let connection = Arc::new(Connection { service: (self.opener)(self.full), streams: AtomicUsize::new(0) });
            open.push(connection.clone());
            connection
        });
        connection.streams.fetch_add(1, Ordering::Relaxed);
        Ticket { pool: self.clone(), connection }
    }

    fn retire(&self, connection: &Arc<Connection>) {
        self.open.lock().retain(|c| !Arc::ptr_eq(c, connection));
    }

    fn give_back(&self, connection: &Arc<Connection>) {
        let mut open = self.open.lock();
        let left = connection.streams.fetch_sub(1, Ordering::Relaxed) - 1;
        if left == 0 && open.len() > 1 {
            open.retain(|c| !Arc::ptr_eq(c, connection));
        }
    }
}

/// One stream on a connection, for as long as it lives.
pub(super) struct Ticket {
    pool: Arc<Pool>,
    connection: Arc<Connection>,
}

impl Ticket {
    pub(super) async fn request(&self, request: Request<Full<Bytes>>) -> Result<Response<Body>, BoxError> {
        self.connection.service.clone().oneshot(request).await
    }

    /// Nothing new goes over this connection; what is on it may end.
    pub(super) fn retire(&self) {
        self.pool.retire(&self.connection);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pool.give_back(&self.connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_are_counted_and_spread() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let lanes = Lanes::new(&opener(&config, &ApiOptions::default()).unwrap());
        let mut tickets: Vec<Ticket> = (0..200).map(|_| lanes.watches.take()).collect();
        assert_eq!(lanes.watches.open.lock().len(), 3);
        let most = lanes.watches.open.lock().iter().map(|c| c.streams.load(Ordering::Relaxed)).max();
        assert_eq!(most, Some(80));
        let hole = tickets[0].connection.clone();
        lanes.watches.retire(&hole);
        assert!(!Arc::ptr_eq(&lanes.watches.take().connection, &hole));
        tickets.clear();
        assert_eq!(lanes.watches.open.lock().len(), 1);
    }
}
