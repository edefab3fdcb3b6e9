//! The token service that a registry with tokens sends its clients to: a password in, a signed token out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, anyhow};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::AbortHandle};

use super::{PASSWORD, USER};
use crate::certificates::Authority;

pub const ISSUER: &str = "reef-test-tokens";
pub const SERVICE: &str = "reef-test-registry";

pub struct Tokens {
    address: String,
    given: Arc<AtomicUsize>,
    server: AbortHandle,
}

struct Signer {
    key: EcdsaKeyPair,
    certificate: String,
    given: Arc<AtomicUsize>,
}

impl Tokens {
    /// The registry trusts certificates of this authority.
    pub async fn start(authority: &Authority) -> Result<Self> {
        let identity = authority.server()?;
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_der(), &SystemRandom::new());
        let certificate = STANDARD.encode(CertificateDer::from_pem_slice(identity.certificate.as_bytes())?);
        let given = Arc::new(AtomicUsize::new(0));
        let key = key.map_err(|error| anyhow!("the token service's key: {error}"))?;
        let signer = Arc::new(Signer { key, certificate, given: given.clone() });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let server = tokio::spawn(serve(listener, signer)).abort_handle();
        Ok(Self { address, given, server })
    }

    pub fn realm(&self) -> String {
        format!("http://{}/token", self.address)
    }

    pub fn given(&self) -> usize {
        self.given.load(Ordering::Relaxed)
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, signer: Arc<Signer>) {
    while let Ok((stream, _)) = listener.accept().await {
        let signer = signer.clone();
        let service = service_fn(move |request| {
            let answer = signer.answer(&request);
            async move { answer }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

impl Signer {
    /// Who brings the password gets what is asked for; everybody else gets nothing.
    fn answer(&self, request: &Request<Incoming>) -> Result<Response<Full<Bytes>>> {
        let wanted = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
        let brought = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if brought != Some(&wanted) {
            let said = json!({ "errors": [{ "code": "UNAUTHORIZED", "message": "the password is wrong" }] });
            return Ok(Response::builder().status(401).body(Full::from(said.to_string()))?);
        }
        let query = request.uri().query().unwrap_or_default().replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
        let scopes = query.split('&').filter_map(|field| field.strip_prefix("scope="));
        let token = self.token(scopes.filter_map(access).collect())?;
        self.given.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(Full::from(json!({ "token": token, "expires_in": 300 }).to_string())))
    }

    fn token(&self, access: Vec<Value>) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [self.certificate] });
        let claims = json!({
            "iss": ISSUER, "aud": SERVICE, "sub": USER, "jti": now.to_string(),
            "nbf": now - 10, "iat": now - 10, "exp": now + 300, "access": access,
        });
        let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|e| anyhow!("cannot sign: {e}"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// `repository:team/hello:pull,push`
fn access(scope: &str) -> Option<Value> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    Some(json!({ "type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>() }))
}
