//! Connections to an API server: HTTP/2, one set for the host and one for tenants, each with a lane per purpose.
//!
//! One HTTP/2 connection carries 100 streams, and with 100 watches on it every further request hangs. So leases, requests
//! and watches never share one, and streams are counted. A connection on which a request ran into its deadline gets no
//! further ones: it may be a black hole, and a new one costs a handshake. Who a request is made as is decided elsewhere.

use std::{
    error::Error,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kube::client::ConfigExt;
use parking_lot::Mutex;
use tower::{BoxError, Layer, Service, ServiceExt, util::BoxCloneSyncService};

use super::{ApiError, ApiOptions, Observe, Status, discovery::IMPOSSIBLE};
use crate::names::Account;

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
            // Spread early: they share a flow-control window and one task that encrypts.
            Self::Requests => 32,
            Self::Leases | Self::Watches => 80,
        }
    }
}

/// A request with the identity it is to be made with; no bearer means the host's own.
pub(super) struct Outgoing {
    pub(super) request: Request<Bytes>,
    pub(super) bearer: Option<HeaderValue>,
    pub(super) account: Option<Account>,
}

impl Outgoing {
    pub(super) fn of_host(request: Request<Vec<u8>>) -> Self {
        Self { request: request.map(Bytes::from), bearer: None, account: None }
    }
}

type Complete = BoxCloneSyncService<Request<Full<Bytes>>, Response<Request<Full<Bytes>>>, BoxError>;

pub(super) struct Transport {
    base: Base,
    host: Lanes,
    tenants: Lanes,
    /// Adds the host's own credentials to a request, refreshed when they expire.
    complete: Complete,
    user_agent: String,
    observe: Option<Observe>,
}

impl Transport {
    pub(super) fn new(config: &kube::Config, options: &ApiOptions) -> Result<Self, ApiError> {
        // Whoever is first decides; a provider that is there already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        if config.proxy_url.is_some() {
            let fix = "a proxy-url is not supported: take it out of the kubeconfig and reach the API server directly";
            return Err(ApiError::Misconfigured(fix.into()));
        }
        let mut tenants = config.clone();
        // Certificates beat tokens: on a connection that presents the host's, every tenant would be the host.
        tenants.auth_info = kube::config::AuthInfo::default();
        tenants.headers.clear();
        Ok(Self {
            base: Base::new(&config.cluster_url)?,
            host: Lanes::new(&Connector::new(config, options)?),
            tenants: Lanes::new(&Connector::new(&tenants, options)?),
            complete: complete(config)?,
            user_agent: options.user_agent.clone(),
            observe: options.observe.clone(),
        })
    }

    /// The body of a 2xx; anything else is an error.
    pub(super) async fn send(&self, lane: Lane, outgoing: Outgoing, deadline: Duration) -> Result<Bytes, ApiError> {
        let ticket = self.lanes(&outgoing).pool(lane).take();
        let exchange = async {
            let (parts, body) = self.exchange(&ticket, outgoing).await?.into_parts();
            let body = body.collect().await.map_err(|e| unreachable(&e))?.to_bytes();
            if parts.status.is_success() {
                return Ok(body);
            }
            Err(ApiError::Refused(Status::of_answer(parts.status.as_u16(), &parts.headers, &body)))
        };
        within(deadline, &ticket, exchange).await
    }

    /// The lines of a 2xx, as they come. The deadline is for the beginning of the answer.
    pub(super) async fn lines(&self, outgoing: Outgoing, deadline: Duration) -> Result<Lines, ApiError> {
        let ticket = self.lanes(&outgoing).pool(Lane::Watches).take();
        let exchange = async {
            let response = self.exchange(&ticket, outgoing).await?;
            if response.status().is_success() {
                return Ok(response.into_body());
            }
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|e| unreachable(&e))?.to_bytes();
            Err(ApiError::Refused(Status::of_answer(parts.status.as_u16(), &parts.headers, &body)))
        };
        let body = within(deadline, &ticket, exchange).await?;
        Ok(Lines { body, buffer: BytesMut::new(), searched: 0, ended: false, _ticket: ticket })
    }

    fn lanes(&self, outgoing: &Outgoing) -> &Lanes {
        if outgoing.bearer.is_some() { &self.tenants } else { &self.host }
    }

    async fn exchange(&self, ticket: &Ticket, outgoing: Outgoing) -> Result<Response<Incoming>, ApiError> {
        let request = self.dress(outgoing).await?;
        let method = request.method().clone();
        let answer = ticket.connection.client.request(request).await;
        if let Some(observe) = &self.observe {
            observe(&method, answer.as_ref().ok().map(|a| a.status().as_u16()));
        }
        answer.map_err(|e| unreachable(&e))
    }

    /// Address, User-Agent and credentials.
    async fn dress(&self, outgoing: Outgoing) -> Result<Request<Full<Bytes>>, ApiError> {
        let mut request = outgoing.request.map(Full::new);
        *request.uri_mut() = self.base.join(request.uri())?;
        let agent = match &outgoing.account {
            Some(account) => format!("{} plugin/{account}", self.user_agent),
            None => self.user_agent.clone(),
        };
        if let Ok(agent) = HeaderValue::try_from(agent) {
            request.headers_mut().insert(header::USER_AGENT, agent);
        }
        if let Some(bearer) = outgoing.bearer {
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
            return Ok(request);
        }
        let mut complete = self.complete.clone();
        let ready = complete.ready().await.map_err(|e| unreachable(&*e))?;
        let completed = ready.call(request).await;
        completed.map(Response::into_body).map_err(|e| ApiError::Unreachable(format!("no credentials for the host: {e}")))
    }
}

/// A service that answers each request with itself, completed with the host's credentials: kube refreshes tokens from
/// files and exec plugins behind a tower layer, and this is how to have only that.
fn complete(config: &kube::Config) -> Result<Complete, ApiError> {
    let unusable = |e: kube::Error| ApiError::Misconfigured(format!("the host's credentials cannot be used: {e}"));
    let echo = tower::service_fn(|request| async move { Ok::<_, BoxError>(Response::new(request)) });
    let headers = config.extra_headers_layer().map_err(unusable)?.layer(echo);
    Ok(match config.auth_layer().map_err(unusable)? {
        Some(auth) => BoxCloneSyncService::new(auth.layer(headers)),
        None => BoxCloneSyncService::new(headers),
    })
}

async fn within<T>(deadline: Duration, ticket: &Ticket, work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    match tokio::time::timeout(deadline, work).await {
        Ok(answer) => answer,
        Err(_) => {
            ticket.pool.retire(&ticket.connection);
            Err(ApiError::Unreachable(format!("no answer within {}", crate::names::Span(deadline))))
        }
    }
}

/// An error and what caused it, in one line.
fn unreachable(error: &(dyn Error + 'static)) -> ApiError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    ApiError::Unreachable(text)
}

/// Where the API server is.
struct Base {
    scheme: http::uri::Scheme,
    authority: http::uri::Authority,
    prefix: String,
}

impl Base {
    fn new(url: &Uri) -> Result<Self, ApiError> {
        let parts = url.clone().into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(ApiError::Misconfigured(format!("`{url}` is no URL of an API server: write https://host:port")));
        };
        Ok(Self { scheme, authority, prefix: url.path().trim_end_matches('/').to_string() })
    }

    /// Refuses what the API server would take for another path than it looks like: it decodes before it splits.
    fn join(&self, uri: &Uri) -> Result<Uri, ApiError> {
        let path = uri.path();
        let tricky = path.split('/').skip(1).any(|part| matches!(part, "" | "." | ".."))
            || path.to_ascii_lowercase().contains("%2f")
            || path.to_ascii_lowercase().contains("%2e");
        if tricky || path.starts_with(IMPOSSIBLE) || !path.starts_with('/') {
            return Err(ApiError::Refused(Status {
                code: 400,
                reason: "BadRequest".into(),
                message: format!("`{path}` names no object: a name is neither empty, `.` nor `..`, and has no `/` or `%`"),
                retry_after: None,
                causes: Vec::new(),
            }));
        }
        let target = uri.path_and_query().map_or(path, |p| p.as_str());
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{target}", self.prefix))
            .build()
            .map_err(|e| ApiError::Misconfigured(format!("`{target}` is not a path that can be asked for: {e}")))
    }
}

/// How to open a connection.
#[derive(Clone)]
struct Connector {
    https: HttpsConnector<HttpConnector>,
    ping: Duration,
}

impl Connector {
    fn new(config: &kube::Config, options: &ApiOptions) -> Result<Self, ApiError> {
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
        Ok(Self { https: builder.enable_http2().wrap_connector(http), ping: options.ping })
    }

    fn open(&self) -> Connection {
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(None)
            .http2_only(true)
            .http2_adaptive_window(true)
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

struct Lanes {
    leases: Arc<Pool>,
    requests: Arc<Pool>,
    watches: Arc<Pool>,
}

impl Lanes {
    fn new(connector: &Connector) -> Self {
        let pool = |lane: Lane| Arc::new(Pool { connector: connector.clone(), full: lane.full(), open: Mutex::default() });
        Self { leases: pool(Lane::Leases), requests: pool(Lane::Requests), watches: pool(Lane::Watches) }
    }

    fn pool(&self, lane: Lane) -> &Arc<Pool> {
        match lane {
            Lane::Leases => &self.leases,
            Lane::Requests => &self.requests,
            Lane::Watches => &self.watches,
        }
    }
}

struct Pool {
    connector: Connector,
    full: usize,
    open: Mutex<Vec<Arc<Connection>>>,
}

impl Pool {
    /// A place on a connection that is not full.
    fn take(self: &Arc<Self>) -> Ticket {
        let mut open = self.open.lock();
        let free = open.iter().find(|c| c.streams.load(Ordering::Relaxed) < self.full).cloned();
        let connection = free.unwrap_or_else(|| {
            let connection = Arc::new(self.connector.open());
            open.push(connection.clone());
            connection
        });
        connection.streams.fetch_add(1, Ordering::Relaxed);
        Ticket { pool: self.clone(), connection }
    }

    /// Nothing new goes over this connection; what is on it may end.
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
struct Ticket {
    pool: Arc<Pool>,
    connection: Arc<Connection>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pool.give_back(&self.connection);
    }
}

/// The lines of an answer, without their ends; empty ones are left out. Dropping it ends the request.
pub struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// How much of the buffer is known to have no end of line.
    searched: usize,
    ended: bool,
    _ticket: Ticket,
}

impl Lines {
    fn next_line(&mut self) -> Option<Bytes> {
        loop {
            let rest = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(at) = memchr::memchr(b'\n', rest) else {
                self.searched = self.buffer.len();
                return None;
            };
            let mut line = self.buffer.split_to(self.searched + at + 1);
            self.searched = 0;
            line.truncate(line.trim_ascii_end().len());
            if !line.is_empty() {
                return Some(line.freeze());
            }
        }
    }
}

impl Stream for Lines {
    type Item = Result<Bytes, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(line) = self.next_line() {
                return Poll::Ready(Some(Ok(line)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    self.ended = true;
                    self.buffer.clear();
                    self.searched = 0;
                    return Poll::Ready(Some(Err(unreachable(&error))));
                }
                None => {
                    self.ended = true;
                    if !self.buffer.trim_ascii().is_empty() {
                        return Poll::Ready(Some(Err(ApiError::Unreachable("the answer ended within a line".into()))));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Base {
        Base::new(&"https://example.com:6443/k8s/clusters/x/".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_path_stays_below_the_servers_url() {
        let joined = base().join(&"/api/v1/pods?watch=1".parse().unwrap()).unwrap();
        assert_eq!(joined, "https://example.com:6443/k8s/clusters/x/api/v1/pods?watch=1");
        let joined = base().join(&"https://evil.example/api".parse().unwrap()).unwrap();
        assert_eq!(joined.host(), Some("example.com"));
    }

    #[test]
    fn a_path_that_the_server_would_read_differently_is_not_sent() {
        for path in ["/api/v1/../x", "/api//v1", "/api/v1/a%2Fstatus", "/api/%2e%2e/x", "/no-such-name/x"] {
            assert!(base().join(&path.parse().unwrap()).unwrap_err().is_invalid(), "{path}");
        }
    }

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
