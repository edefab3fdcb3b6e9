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
use http::Request;
use http_body_util::Full;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, ResponseFuture, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::client::ConfigExt;
use parking_lot::Mutex;

use super::{ApiError, ApiOptions};

/// How much of an answer may wait unread in its stream. A connection takes as much from all its streams together, so that
/// one watch that is not read holds up no other.
const WINDOW: u32 = 1 << 20;

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

/// How to open a connection.
#[derive(Clone)]
pub(super) struct Connector {
    https: HttpsConnector<HttpConnector>,
    ping: Duration,
    /// How many streams it is meant for.
    streams: usize,
}

impl Connector {
    pub(super) fn new(config: &kube::Config, options: &ApiOptions) -> Result<Self, ApiError> {
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
        Ok(Self { https: builder.enable_http2().wrap_connector(http), ping: options.ping, streams: 1 })
    }

    fn open(&self) -> Connection {
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(None)
            .http2_only(true)
            .http2_initial_stream_window_size(WINDOW)
            .http2_initial_connection_window_size(WINDOW * u32::try_from(self.streams).unwrap_or(1))
            .http2_keep_alive_interval(self.ping)
            .http2_keep_alive_timeout(self.ping)
            .http2_keep_alive_while_idle(true)
            .build(self.https.clone());
        Connection { client, streams: AtomicUsize::new(0) }
    }
}

struct Connection {
    /// Keeps one HTTP/2 connection, and opens it again when it is lost.
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    streams: AtomicUsize,
}

pub(super) struct Lanes {
    leases: Arc<Pool>,
    requests: Arc<Pool>,
    watches: Arc<Pool>,
}

impl Lanes {
    pub(super) fn new(connector: &Connector) -> Self {
        let pool = |lane: Lane| {
            let connector = Connector { streams: lane.full(), ..connector.clone() };
            Arc::new(Pool { connector, open: Mutex::default() })
        };
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
    connector: Connector,
    open: Mutex<Vec<Arc<Connection>>>,
}

impl Pool {
    /// A place on a connection that is not full.
    pub(super) fn take(self: &Arc<Self>) -> Ticket {
        let mut open = self.open.lock();
        let free = open.iter().find(|c| c.streams.load(Ordering::Relaxed) < self.connector.streams).cloned();
        let connection = free.unwrap_or_else(|| {
            let connection = Arc::new(self.connector.open());
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
    pub(super) fn request(&self, request: Request<Full<Bytes>>) -> ResponseFuture {
        self.connection.client.request(request)
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
        let lanes = Lanes::new(&Connector::new(&config, &ApiOptions::default()).unwrap());
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
