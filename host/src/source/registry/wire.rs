//! HTTP to a registry: connections, deadlines, caps. It follows no redirect by itself and knows no credentials.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use super::RegistryError;
use crate::names::{Memory, Span};

/// How many times as long as a small answer a component may take.
const LARGE: u32 = 10;
/// Nobody is asked to wait longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Connections to the registries that trust the same authorities. Clones share them.
#[derive(Clone)]
pub struct Wire {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    deadline: Duration,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// What is read of an answer, and for how long at most.
#[derive(Debug, Clone, Copy)]
pub(super) enum Size {
    /// A manifest, a token, an error.
    Small(Memory),
    /// A component.
    Large(Memory),
}

impl Size {
    fn cap(self) -> Memory {
        match self {
            Self::Small(cap) | Self::Large(cap) => cap,
        }
    }
}

impl Wire {
    /// Trusts the system's authorities, and those of these PEM texts. `deadline`: of a small answer; a component may take
    /// ten times as long, but no pause in it longer than this.
    pub fn new(authorities: &[Vec<u8>], deadline: Duration) -> Result<Self, String> {
        // Whoever is first decides; a provider that is there already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut roots = RootCertStore::empty();
        // A host without any, as in an empty image, can still use a bundle or plain http.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for pem in authorities {
            let found: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(pem).collect();
            let found = found.map_err(|e| format!("it is not PEM: {e}"))?;
            if found.is_empty() {
                return Err("it holds no certificate: expected PEM, beginning with `-----BEGIN CERTIFICATE-----`".into());
            }
            for certificate in found {
                roots.add(certificate).map_err(|e| format!("a certificate in it cannot be used: {e}"))?;
            }
        }
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(deadline));
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().enable_http2().wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(2)
            .build(https);
        Ok(Self { client, deadline })
    }

    pub(super) async fn send(&self, what: &str, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, RegistryError> {
        let host = host(request.uri());
        match tokio::time::timeout(self.deadline, self.client.request(request)).await {
            Err(_) => Err(self.slow(host, what, self.deadline)),
            Ok(Err(error)) => Err(RegistryError::Unreachable { host, message: chain(&error) }),
            Ok(Ok(answer)) => Ok(answer),
        }
    }

    /// The whole body, unless it is too large or too slow.
    pub(super) async fn read(
        &self,
        host: &str,
        what: &str,
        answer: Response<Incoming>,
        size: Size,
    ) -> Result<Bytes, RegistryError> {
        let cap = size.cap();
        let too_large = || RegistryError::TooLarge { host: host.into(), what: what.into(), cap };
        let announced = answer.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > cap.0) {
            return Err(too_large());
        }
        let whole = match size {
            Size::Small(_) => self.deadline,
            Size::Large(_) => self.deadline * LARGE,
        };
        let body = async {
            let (mut body, mut bytes) = (answer.into_body(), BytesMut::new());
            loop {
                let frame = match tokio::time::timeout(self.deadline, body.frame()).await {
                    Err(_) => return Err(self.slow(host.into(), what, self.deadline)),
                    Ok(None) => return Ok(bytes.freeze()),
                    Ok(Some(frame)) => frame.map_err(|error| RegistryError::Unreachable {
                        host: host.into(),
                        message: format!("{what} broke off: {}", chain(&error)),
                    })?,
                };
                let Ok(data) = frame.into_data() else { continue };
                if (bytes.len() + data.len()) as u64 > cap.0 {
                    return Err(too_large());
                }
                bytes.extend_from_slice(&data);
            }
        };
        tokio::time::timeout(whole, body).await.unwrap_or_else(|_| Err(self.slow(host.into(), what, whole)))
    }

    fn slow(&self, host: String, what: &str, after: Duration) -> RegistryError {
        RegistryError::Slow { host, what: what.into(), after: Span(after) }
    }
}

/// The scheme, host and port, which decide who gets to see credentials.
pub(super) fn origin(uri: &Uri) -> (String, String, u16) {
    let scheme = uri.scheme_str().unwrap_or("https").to_owned();
    let port = uri.port_u16().unwrap_or(if scheme == "http" { 80 } else { 443 });
    (scheme, uri.host().unwrap_or_default().to_ascii_lowercase(), port)
}

/// Host and port, for people.
pub(super) fn host(uri: &Uri) -> String {
    uri.authority().map(|authority| authority.as_str().rsplit('@').next().unwrap_or_default().to_owned()).unwrap_or_default()
}

/// Where an answer leads: an absolute `http` or `https` address without user and password, or a path of the same host.
pub(super) fn location(base: &Uri, headers: &HeaderMap) -> Option<Uri> {
    let text = headers.get(header::LOCATION)?.to_str().ok()?;
    let uri: Uri = match text.strip_prefix('/') {
        Some(rest) if !rest.starts_with('/') => format!("{}://{}{text}", base.scheme_str()?, base.authority()?).parse().ok()?,
        Some(_) => return None,
        None => text.parse().ok()?,
    };
    let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    (plain && matches!(uri.scheme_str(), Some("http" | "https"))).then_some(uri)
}

/// In seconds; a date is taken for a minute, since clocks differ.
pub(super) fn retry_after(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let patient = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
    let value = headers.get(header::RETRY_AFTER).filter(|_| patient)?.to_str().ok()?;
    Some(value.trim().parse().map_or(Duration::from_secs(60), Duration::from_secs).min(LONGEST_WAIT))
}

/// hyper's errors say what happened only in their sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    if text.contains("InvalidContentType") {
        text += ": it speaks http without TLS, it seems; if that is meant, say `--plain-http`, or `plainHttp: true` in a host's registries file";
    }
    text
}

/// Shared, so that many plugins that start at once do not hold many components in memory at once.
pub(super) type Downloads = Arc<tokio::sync::Semaphore>;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn a_location_is_a_path_of_this_host_or_an_address_without_password() {
        let base: Uri = "https://registry.example/v2/a".parse().unwrap();
        let at = |text: &str| location(&base, &headers(header::LOCATION, text)).map(|uri| uri.to_string());
        assert_eq!(at("/v2/x?y=1").as_deref(), Some("https://registry.example/v2/x?y=1"));
        assert_eq!(at("http://other.example:1/z").as_deref(), Some("http://other.example:1/z"));
        for wrong in ["//other.example/z", "ftp://x/y", "https://user:pw@x/y", "relative"] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_registry_may_ask_for_patience_but_not_for_ever() {
        let after = |status, text| retry_after(status, &headers(header::RETRY_AFTER, text)).map(|d| d.as_secs());
        assert_eq!(after(StatusCode::TOO_MANY_REQUESTS, "7"), Some(7));
        assert_eq!(after(StatusCode::SERVICE_UNAVAILABLE, "99999999"), Some(3600));
        assert_eq!(after(StatusCode::TOO_MANY_REQUESTS, "Wed, 21 Oct 2026 07:28:00 GMT"), Some(60));
        assert_eq!(after(StatusCode::NOT_FOUND, "7"), None);
    }

    #[test]
    fn the_origin_is_scheme_host_and_port() {
        let of = |text: &str| origin(&text.parse().unwrap());
        assert_eq!(of("https://A.example/x"), of("https://a.example:443/y"));
        assert_ne!(of("http://a.example/x"), of("https://a.example/x"));
        assert_ne!(of("https://a.example:444/x"), of("https://a.example/x"));
    }

    #[test]
    fn a_bundle_without_certificates_is_refused_in_a_sentence() {
        let error = Wire::new(&[b"nothing".to_vec()], Duration::from_secs(1)).unwrap_err();
        assert!(error.contains("holds no certificate"), "{error}");
    }
}
