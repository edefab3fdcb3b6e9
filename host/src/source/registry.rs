//! One repository of a registry, as somebody: manifests, blobs and referrers by digest, and pushing them.
//!
//! Everything that comes is capped, has a deadline, and is what its digest says; whoever calls gets bytes or an error,
//! never something in between. Nothing is tried twice here, except after a 401 with the credentials that it asks for, and
//! with the next mirror. Credentials belong to a host and port and go to no other, redirects included.
//!
//! This is a protocol of our own hands on hyper rather than `oci-client`, whose answers to a request for a token are read
//! without limit, and which hides `Retry-After`: a tenant chooses the registry, so both matter.

mod auth;
mod error;
mod wire;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::body::Incoming;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use self::{auth::Operation, wire::Size};
use super::reference::{Reference, Version};
use crate::names::{Digest, Memory};

pub use auth::Credential;
pub use error::RegistryError;
pub use wire::Wire;

/// The largest manifest or index that is read; registries take no larger ones.
pub const MAX_MANIFEST: Memory = Memory(4 << 20);
/// What is read of an answer that is an error.
const MAX_SAID: Memory = Memory(8 << 10);
/// How often a blob may lead elsewhere.
const REDIRECTS: usize = 4;
/// Components that are read at once, over all plugins.
const DOWNLOADS: usize = 4;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What a manifest or an index says of something else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    /// `sha256:…`, or of an algorithm that is not read.
    pub digest: String,
    /// In bytes.
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
}

/// A manifest or an index, as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Of exactly these bytes.
    pub digest: Digest,
    pub media_type: String,
    pub bytes: Bytes,
}

/// Where a registry is found: itself, or one of its mirrors.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub wire: Wire,
    /// `https://registry.example:5000`, without a path.
    pub base: Uri,
    /// The repository's name there.
    pub repository: String,
    /// For this host alone.
    pub credential: Credential,
}

/// A repository, for one credential per endpoint. Clones share what was learnt of how to authenticate.
#[derive(Debug, Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Mirrors first, the registry itself last.
    places: Vec<Place>,
    downloads: wire::Downloads,
}

#[derive(Debug)]
struct Place {
    endpoint: Endpoint,
    /// What the last 401 was answered with, for pulling and for pushing.
    authorization: Mutex<[Option<HeaderValue>; 2]>,
}

/// What bounds the components that are read at once; one for the whole host.
#[derive(Debug, Clone)]
pub struct Downloads(wire::Downloads);

impl Default for Downloads {
    fn default() -> Self {
        Self(Arc::new(tokio::sync::Semaphore::new(DOWNLOADS)))
    }
}

struct Ask<'a> {
    method: Method,
    uri: Uri,
    accept: &'a str,
    content_type: Option<&'a str>,
    body: Bytes,
    operation: Operation,
}

impl Registry {
    /// `endpoints`: mirrors in the order in which they are asked, the registry itself last.
    pub fn new(endpoints: Vec<Endpoint>, downloads: &Downloads) -> Self {
        let place = |endpoint| Place { endpoint, authorization: Mutex::default() };
        Self { inner: Arc::new(Inner { places: endpoints.into_iter().map(place).collect(), downloads: downloads.0.clone() }) }
    }

    /// The manifest or index of a tag or digest. With a digest, these are its bytes; with a tag, the digest of what the
    /// registry gave is said.
    pub async fn manifest(&self, version: &Version) -> Result<Manifest, RegistryError> {
        let mut last = None;
        for place in &self.inner.places {
            match place.manifest(version).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => last = Some(said(last, error)),
            }
        }
        Err(last.unwrap_or_else(nowhere))
    }

    /// Whether these credentials may see the manifest now, without reading it.
    pub async fn may_see(&self, digest: Digest) -> Result<(), RegistryError> {
        let mut last = None;
        for place in &self.inner.places {
            match place.head(digest).await {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(said(last, error)),
            }
        }
        Err(last.unwrap_or_else(nowhere))
    }

    /// The bytes of a digest, at most `cap` of them.
    pub async fn blob(&self, digest: Digest, cap: Memory) -> Result<Bytes, RegistryError> {
        let _permit = self.inner.downloads.acquire().await;
        let mut last = None;
        for place in &self.inner.places {
            match place.blob(digest, cap).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => last = Some(said(last, error)),
            }
        }
        Err(last.unwrap_or_else(nowhere))
    }

    /// What refers to a manifest (signatures, attestations): by the API, or by the tag that stands for it in a registry
    /// without. Empty if nothing does. Media and artifact types are as the registry tells them: believe only what you read.
    pub async fn referrers(&self, digest: Digest) -> Result<Vec<Descriptor>, RegistryError> {
        let place = self.origin()?;
        let uri = place.uri(&format!("referrers/{digest}"))?;
        let what = format!("the referrers of {digest}");
        let answer = place.ask(&what, Ask::get(uri, INDEX)).await?;
        let bytes = match answer.status() {
            StatusCode::OK => place.read(&what, answer, Size::Small(MAX_MANIFEST)).await?,
            status if status.is_client_error() && !matches!(status.as_u16(), 401 | 403 | 429) => {
                match place.manifest(&Version::Tag(digest.to_string().replace(':', "-"))).await {
                    Ok(manifest) => manifest.bytes,
                    Err(error) if error.status() == Some(404) => return Ok(Vec::new()),
                    Err(error) => return Err(error),
                }
            }
            _ => return Err(place.refused(&what, answer).await),
        };
        #[derive(Deserialize)]
        struct Index {
            manifests: Vec<Descriptor>,
        }
        serde_json::from_slice(&bytes).map(|index: Index| index.manifests).map_err(|e| place.malformed(&what, e.to_string()))
    }

    /// Puts a blob there, unless it is there.
    pub async fn push_blob(&self, bytes: Bytes) -> Result<Digest, RegistryError> {
        let place = self.origin()?;
        let digest = Digest::of(&bytes);
        let what = format!("the upload of {digest}");
        let head =
            Ask { method: Method::HEAD, operation: Operation::Push, ..Ask::get(place.uri(&format!("blobs/{digest}"))?, "*/*") };
        if place.ask(&what, head).await?.status().is_success() {
            return Ok(digest);
        }
        let begin = Ask { method: Method::POST, operation: Operation::Push, ..Ask::get(place.uri("blobs/uploads/")?, "*/*") };
        let answer = place.ask(&what, begin).await?;
        if answer.status() != StatusCode::ACCEPTED {
            return Err(place.refused(&what, answer).await);
        }
        let location = wire::location(&place.endpoint.base, answer.headers())
            .ok_or_else(|| place.malformed(&what, "it does not say where to upload to".into()))?;
        let separator = if location.query().is_some() { '&' } else { '?' };
        let uri = format!("{location}{separator}digest={digest}").parse();
        let uri = uri.map_err(|e: http::uri::InvalidUri| place.malformed(&what, e.to_string()))?;
        let put = Ask {
            method: Method::PUT,
            content_type: Some("application/octet-stream"),
            body: bytes,
            operation: Operation::Push,
            ..Ask::get(uri, "*/*")
        };
        place.accepted(&what, put).await.map(|()| digest)
    }

    pub async fn push_manifest(&self, version: &Version, media_type: &str, bytes: Bytes) -> Result<Digest, RegistryError> {
        let place = self.origin()?;
        let digest = Digest::of(&bytes);
        let what = format!("the upload of the manifest {version}");
        let put = Ask {
            method: Method::PUT,
            content_type: Some(media_type),
            body: bytes,
            operation: Operation::Push,
            ..Ask::get(place.uri(&format!("manifests/{version}"))?, "*/*")
        };
        place.accepted(&what, put).await.map(|()| digest)
    }

    fn origin(&self) -> Result<&Place, RegistryError> {
        self.inner.places.last().ok_or_else(nowhere)
    }
}

impl Place {
    fn host(&self) -> String {
        wire::host(&self.endpoint.base)
    }

    fn malformed(&self, what: &str, message: String) -> RegistryError {
        RegistryError::Malformed { host: self.host(), what: what.into(), message }
    }

    fn uri(&self, rest: &str) -> Result<Uri, RegistryError> {
        let base = self.endpoint.base.to_string();
        let text = format!("{}/v2/{}/{rest}", base.trim_end_matches('/'), self.endpoint.repository);
        text.parse().map_err(|e| RegistryError::Misconfigured(format!("`{text}` is not an address: {e}")))
    }

    async fn read(&self, what: &str, answer: Response<Incoming>, size: Size) -> Result<Bytes, RegistryError> {
        self.endpoint.wire.read(&self.host(), what, answer, size).await
    }

    async fn refused(&self, what: &str, answer: Response<Incoming>) -> RegistryError {
        refused(&self.endpoint.wire, &self.host(), what, answer).await
    }

    async fn accepted(&self, what: &str, ask: Ask<'_>) -> Result<(), RegistryError> {
        let answer = self.ask(what, ask).await?;
        if answer.status() == StatusCode::CREATED { Ok(()) } else { Err(self.refused(what, answer).await) }
    }

    async fn manifest(&self, version: &Version) -> Result<Manifest, RegistryError> {
        let what = format!("the manifest {version}");
        let accept = [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(", ");
        let answer = self.ask(&what, Ask::get(self.uri(&format!("manifests/{version}"))?, &accept)).await?;
        if answer.status() != StatusCode::OK {
            return Err(self.refused(&what, answer).await);
        }
        let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (announced, content_type) = (text("docker-content-digest"), text("content-type"));
        let bytes = self.read(&what, answer, Size::Small(MAX_MANIFEST)).await?;
        let digest = Digest::of(&bytes);
        let wanted = match version {
            Version::Digest(wanted) => Some(*wanted),
            // A registry that contradicts itself is not believed; another algorithm says nothing.
            Version::Tag(_) => announced.and_then(|text| text.parse().ok()),
        };
        self.is(&what, wanted.unwrap_or(digest), digest)?;
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Typed {
            media_type: Option<String>,
        }
        let typed: Typed = serde_json::from_slice(&bytes).map_err(|e| self.malformed(&what, e.to_string()))?;
        let media_type = typed.media_type.or(content_type).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        Ok(Manifest { digest, media_type, bytes })
    }

    async fn head(&self, digest: Digest) -> Result<(), RegistryError> {
        let what = format!("the manifest {digest}");
        let accept = [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(", ");
        let head = Ask { method: Method::HEAD, ..Ask::get(self.uri(&format!("manifests/{digest}"))?, &accept) };
        let answer = self.ask(&what, head).await?;
        if answer.status() == StatusCode::OK { Ok(()) } else { Err(self.refused(&what, answer).await) }
    }

    async fn blob(&self, digest: Digest, cap: Memory) -> Result<Bytes, RegistryError> {
        let what = format!("the blob {digest}");
        let mut uri = self.uri(&format!("blobs/{digest}"))?;
        for _ in 0..=REDIRECTS {
            let answer = self.ask(&what, Ask::get(uri.clone(), "*/*")).await?;
            if answer.status() == StatusCode::OK {
                let bytes = self.read(&what, answer, Size::Large(cap)).await?;
                self.is(&what, digest, Digest::of(&bytes))?;
                return Ok(bytes);
            }
            if !answer.status().is_redirection() {
                return Err(self.refused(&what, answer).await);
            }
            let next = wire::location(&uri, answer.headers())
                .ok_or_else(|| self.malformed(&what, "it redirects to nowhere that can be followed".into()))?;
            if uri.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(self.redirected(&what, &next, "it is plain http, and the registry is not"));
            }
            uri = next;
        }
        Err(self.redirected(&what, &uri, "it is one of too many redirects"))
    }

    fn redirected(&self, what: &str, to: &Uri, why: &'static str) -> RegistryError {
        RegistryError::Redirected { host: self.host(), what: what.into(), to: wire::host(to), why }
    }

    fn is(&self, what: &str, wanted: Digest, found: Digest) -> Result<(), RegistryError> {
        if wanted == found {
            return Ok(());
        }
        Err(RegistryError::WrongDigest { host: self.host(), what: what.into(), wanted, found })
    }

    /// Asks, and once more with the credentials that a 401 asks for. Only this host and port ever sees them.
    async fn ask(&self, what: &str, ask: Ask<'_>) -> Result<Response<Incoming>, RegistryError> {
        let ours = wire::origin(&ask.uri) == wire::origin(&self.endpoint.base);
        let slot = usize::from(ask.operation == Operation::Push);
        let known = self.authorization.lock().get(slot).cloned().flatten();
        let first = self.endpoint.wire.send(what, ask.request(known.filter(|_| ours))?).await?;
        if first.status() != StatusCode::UNAUTHORIZED || !ours {
            return Ok(first);
        }
        let scope = (&*self.endpoint.repository, ask.operation);
        let Endpoint { wire, base, credential, .. } = &self.endpoint;
        let Some(answer) = auth::answer(wire, base, first.headers(), credential, scope).await? else { return Ok(first) };
        drop(first);
        let second = self.endpoint.wire.send(what, ask.request(Some(answer.clone()))?).await?;
        if second.status() != StatusCode::UNAUTHORIZED
            && let Some(known) = self.authorization.lock().get_mut(slot)
        {
            *known = Some(answer);
        }
        Ok(second)
    }
}

impl<'a> Ask<'a> {
    fn get(uri: Uri, accept: &'a str) -> Self {
        Self { method: Method::GET, uri, accept, content_type: None, body: Bytes::new(), operation: Operation::Pull }
    }

    fn request(&self, authorization: Option<HeaderValue>) -> Result<Request<Full<Bytes>>, RegistryError> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(self.uri.clone())
            .header(header::ACCEPT, self.accept)
            .header(header::USER_AGENT, concat!("reef/", env!("CARGO_PKG_VERSION")));
        if let Some(content_type) = self.content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        request.body(Full::new(self.body.clone())).map_err(|e| RegistryError::Misconfigured(format!("{}: {e}", self.uri)))
    }
}

/// What an answer says that is no success. Words of a stranger: one short line.
async fn refused(wire: &Wire, host: &str, what: &str, answer: Response<Incoming>) -> RegistryError {
    let (status, headers) = (answer.status(), answer.headers().clone());
    if status.is_redirection() {
        let to = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
        let to = to.map(|uri: Uri| wire::host(&uri)).unwrap_or_default();
        let why = "what a tag means, and who may see it, is the registry's own to say";
        return RegistryError::Redirected { host: host.into(), what: what.into(), to, why };
    }
    let body = wire.read(host, what, answer, Size::Small(MAX_SAID)).await.unwrap_or_default();
    let retry_after = wire::retry_after(status, &headers);
    RegistryError::Refused { host: host.into(), what: what.into(), status: status.as_u16(), said: words(&body), retry_after }
}

/// The first code and message of the protocol's error, if it is one.
fn words(body: &[u8]) -> String {
    let Ok(found) = serde_json::from_slice::<serde_json::Value>(body) else { return String::new() };
    let text = |pointer: &str| found.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let said = format!("{} {}", text("/errors/0/code"), text("/errors/0/message"));
    said.trim().chars().filter(|c| !c.is_control()).take(160).collect()
}

/// The registry itself comes last, and says it best; what it says first of mirrors is kept for the log.
fn said(before: Option<RegistryError>, error: RegistryError) -> RegistryError {
    if let Some(before) = before {
        tracing::debug!(error = %before, "a mirror does not have it");
    }
    error
}

fn nowhere() -> RegistryError {
    RegistryError::Misconfigured("the registry has no address".into())
}

/// The endpoint of a registry without mirrors.
pub fn endpoint(wire: Wire, scheme: &str, reference: &Reference, credential: Credential) -> Result<Endpoint, RegistryError> {
    let base = format!("{scheme}://{}", reference.host());
    let base = base.parse().map_err(|e| RegistryError::Misconfigured(format!("`{base}` is not an address: {e}")))?;
    Ok(Endpoint { wire, base, repository: reference.repository.clone(), credential })
}
