//! Connections: TLS with the proxy's own certificate, HTTP/2, and for each a connection of its own to the API server.
//!
//! Whoever shows a client certificate here is who the proxy is there, and whoever shows none goes on without: a token on a
//! connection with a certificate stays as worthless as without the proxy.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context as Poller, Poll},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Uri, server::conn::http2, service::service_fn};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{Shared, exchange};
use crate::certificates::Identity;

/// What the proxy is made of, all as PEM.
pub struct Credentials {
    /// Who signed the API server and the host's user.
    pub authority: String,
    pub server: Identity,
    /// The host's own user.
    pub user: Identity,
}

pub struct Wire {
    acceptor: TlsAcceptor,
    named: HttpsConnector<HttpConnector>,
    nameless: HttpsConnector<HttpConnector>,
}

pub type Upstream = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

impl Wire {
    pub fn new(credentials: &Credentials) -> Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&credentials.authority)? {
            roots.add(certificate)?;
        }
        let roots = Arc::new(roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let verifier = verifier.allow_unauthenticated().build()?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(&credentials.server.certificate)?, key(&credentials.server.key)?)?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            named: connector(&provider, &roots, Some(&credentials.user))?,
            nameless: connector(&provider, &roots, None)?,
        })
    }

    fn upstream(&self, named: bool) -> Upstream {
        let connector = if named { &self.named } else { &self.nameless };
        Client::builder(TokioExecutor::new()).timer(TokioTimer::new()).http2_only(true).build(connector.clone())
    }
}

fn connector(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    user: Option<&Identity>,
) -> Result<HttpsConnector<HttpConnector>> {
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots.clone());
    let config = match user {
        Some(user) => config.with_client_auth_cert(certificates(&user.certificate)?, key(&user.key)?)?,
        None => config.with_no_client_auth(),
    };
    Ok(HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http2().build())
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().context("this is no PEM certificate")
}

fn key(pem: &str) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).context("this is no PEM key")
}

/// One connection of the host.
pub struct Connection {
    pub upstream: Upstream,
    pub base: Uri,
    cut: Notify,
    hole: Arc<AtomicBool>,
}

impl Connection {
    /// Closes it, with all that is on it.
    pub fn cut(&self) {
        self.cut.notify_one();
    }

    /// From now on nothing is read from it and nothing written.
    pub fn swallow(&self) {
        self.hole.store(true, Ordering::Relaxed);
    }
}

/// Serves until it is aborted, and then all connections end.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(stream, shared.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// How it ends is the host's business: it has been told by its own end of the connection.
async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let hole = Arc::new(AtomicBool::new(false));
    let stream = Leaky { stream, hole: hole.clone() };
    let Ok(stream) = shared.wire.acceptor.accept(stream).await else { return };
    let named = stream.get_ref().1.peer_certificates().is_some();
    let connection =
        Arc::new(Connection { upstream: shared.wire.upstream(named), base: shared.base.clone(), cut: Notify::new(), hole });
    shared.opened(&connection);
    let service = service_fn(|request| exchange::handle(shared.clone(), connection.clone(), request));
    let serving = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        // As many as the API server takes.
        .max_concurrent_streams(100)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = serving => {}
        () = connection.cut.notified() => {}
    }
}

/// A connection into which a hole can be made: then it neither reads nor writes, and stays open.
struct Leaky {
    stream: TcpStream,
    hole: Arc<AtomicBool>,
}

impl Leaky {
    /// Nobody wakes a task for a hole: it ends with the proxy, or when it is cut.
    fn open(&mut self) -> Option<Pin<&mut TcpStream>> {
        (!self.hole.load(Ordering::Relaxed)).then(|| Pin::new(&mut self.stream))
    }
}

impl AsyncRead for Leaky {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Poller<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.open().map_or(Poll::Pending, |stream| stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Leaky {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Poller<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.open().map_or(Poll::Pending, |stream| stream.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        self.open().map_or(Poll::Pending, |stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
