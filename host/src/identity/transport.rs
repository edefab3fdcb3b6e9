//! Requests on their way to an API server: address, User-Agent, credentials, deadline.
//!
//! A connection on which a request ran into its deadline gets no further ones: it may be a black hole, and a new one costs a
//! handshake. Who a request is made as is decided elsewhere.

mod lines;
mod pool;

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full};
use kube::client::ConfigExt;
use tower::{BoxError, Layer, Service, ServiceExt, util::BoxCloneSyncService};

pub use lines::Lines;
pub use pool::{Body, Lane, Open, Service as Connection};
use pool::{Lanes, Ticket};

use super::{ApiError, ApiOptions, Observe, Status, discovery::IMPOSSIBLE};
use crate::names::Span;

/// A request with the identity it is to be made with; no bearer means the host's own.
pub(super) struct Outgoing {
    pub(super) request: Request<Bytes>,
    pub(super) bearer: Option<HeaderValue>,
    /// What the User-Agent says beside the host's own name.
    pub(super) agent: Option<String>,
}

impl Outgoing {
    pub(super) fn of_host(request: Request<Vec<u8>>) -> Self {
        Self { request: request.map(Bytes::from), bearer: None, agent: None }
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
            host: Lanes::new(&pool::opener(config, options)?),
            tenants: Lanes::new(&pool::opener(&tenants, options)?),
            complete: complete(config)?,
            user_agent: options.user_agent.clone(),
            observe: options.observe.clone(),
        })
    }

    /// Over connections that somebody else opens, which carry the host's identity, or none.
    pub(super) fn over(host: &Open, tenants: &Open, options: &ApiOptions) -> Result<Self, ApiError> {
        let echo = tower::service_fn(|request| async move { Ok::<_, BoxError>(Response::new(request)) });
        Ok(Self {
            base: Base::new(&Uri::from_static("http://api"))?,
            host: Lanes::new(host),
            tenants: Lanes::new(tenants),
            complete: BoxCloneSyncService::new(echo),
            user_agent: options.user_agent.clone(),
            observe: options.observe.clone(),
        })
    }

    /// The body of a 2xx; anything else is an error.
    pub(super) async fn send(&self, lane: Lane, outgoing: Outgoing, deadline: Duration) -> Result<Bytes, ApiError> {
        let ticket = self.lanes(&outgoing).pool(lane).take();
        let exchange = async {
            let (parts, body) = self.exchange(&ticket, outgoing).await?.into_parts();
            let body = body.collect().await.map_err(|e| unreachable(&*e))?.to_bytes();
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
            let body = body.collect().await.map_err(|e| unreachable(&*e))?.to_bytes();
            Err(ApiError::Refused(Status::of_answer(parts.status.as_u16(), &parts.headers, &body)))
        };
        let body = within(deadline, &ticket, exchange).await?;
        Ok(Lines::new(body, ticket))
    }

    fn lanes(&self, outgoing: &Outgoing) -> &Lanes {
        if outgoing.bearer.is_some() { &self.tenants } else { &self.host }
    }

    async fn exchange(&self, ticket: &Ticket, outgoing: Outgoing) -> Result<Response<Body>, ApiError> {
        let request = self.dress(outgoing).await?;
        let method = request.method().clone();
        let answer = ticket.request(request).await;
        if let Some(observe) = &self.observe {
            observe(&method, answer.as_ref().ok().map(|a| a.status().as_u16()));
        }
        answer.map_err(|e| unreachable(&*e))
    }

    /// Address, User-Agent and credentials.
    async fn dress(&self, outgoing: Outgoing) -> Result<Request<Full<Bytes>>, ApiError> {
        let mut request = outgoing.request.map(Full::new);
        *request.uri_mut() = self.base.join(request.uri())?;
        let agent = match &outgoing.agent {
            Some(agent) => format!("{} {agent}", self.user_agent),
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
            ticket.retire();
            Err(ApiError::Unreachable(format!("no answer within {}", Span(deadline))))
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
}
