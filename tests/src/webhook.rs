//! A mutating webhook in the test's own process: HTTPS with an authority of its own, for one namespace.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::ByteString;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use crate::{certificates::Authority, world::Scene};

/// From the object that is written to the operations of a JSON patch.
pub type Mutate = fn(&Value) -> Value;

/// Runs until dropped; [`Webhook::remove`] takes its registration away.
pub struct Webhook {
    name: String,
    server: JoinHandle<()>,
}

const KIND: &str = "admissionregistration.k8s.io/v1/MutatingWebhookConfiguration";

impl Webhook {
    /// Puts it in the way of every write of these resources (as in `configmaps`) in the scene's namespace.
    pub async fn start(scene: &Scene<'_>, resources: &[&str], mutate: Mutate) -> Result<Self> {
        let authority = Authority::new()?;
        let identity = authority.server()?;
        let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_no_client_auth().with_single_cert(chain, key)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), mutate));
        let name = format!("{}.test.reef.dev", scene.namespace);
        scene.cluster().apply_object("", &registration(&name, &scene.namespace, resources, address, &authority.pem)).await?;
        Ok(Self { name, server })
    }

    pub async fn remove(self, scene: &Scene<'_>) -> Result<()> {
        scene.cluster().delete(KIND, "", &self.name).await
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn registration(name: &str, namespace: &str, resources: &[&str], address: SocketAddr, authority: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": { "name": name },
        "webhooks": [{
            "name": name,
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "clientConfig": { "url": format!("https://{address}/"), "caBundle": ByteString(authority.as_bytes().to_vec()) },
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } },
            "rules": [{ "apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": resources }],
        }],
    })
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, mutate: Mutate) {
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // A client that goes away in the middle is its own business.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| async move { Ok::<_, Infallible>(answer(request, mutate).await) });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, mutate: Mutate) -> Response<Full<Bytes>> {
    let (code, body) = match review(request, mutate).await {
        Ok(review) => (200, review.to_string()),
        Err(error) => (500, format!("{error:#}")),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    response
}

async fn review(request: Request<Incoming>, mutate: Mutate) -> Result<Value> {
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body).context("this is no AdmissionReview")?;
    let patch = mutate(&review["request"]["object"]).to_string().into_bytes();
    Ok(json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": { "uid": review["request"]["uid"], "allowed": true, "patchType": "JSONPatch", "patch": ByteString(patch) },
    }))
}
