//! A registry that does what a test says: it keeps artifacts, and misbehaves in one way at a time.
//!
//! It remembers every request, and whether credentials came with it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Result;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{net::TcpListener, task::AbortHandle};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What it does instead of what it should. Manifests and blobs are spoken of separately.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Misbehaviour {
    #[default]
    None,
    /// Other bytes than the digest says.
    WrongBlob,
    /// Another manifest than the digest in the header says.
    WrongManifest,
    /// Half of it, then the connection closes.
    TruncatedBlob,
    /// It never ends.
    EndlessBlob,
    EndlessManifest,
    /// A byte, then nothing.
    SlowBlob,
    /// The head of the answer never comes.
    SilentManifest,
    /// More than anybody writes.
    OversizeManifest,
    /// An answer with this code to everything, with `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// The token service that it names gives an endless answer.
    EndlessToken,
    /// To this host and port.
    RedirectManifest(String),
    RedirectBlob(String),
    /// To itself, for ever.
    RedirectLoop,
    /// What it says is not JSON.
    Garbage,
}

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub has_credentials: bool,
    pub at: std::time::Instant,
}

#[derive(Default)]
struct State {
    misbehaviour: Misbehaviour,
    /// By tag or digest: media type and bytes.
    manifests: HashMap<String, (String, Bytes)>,
    blobs: HashMap<String, Bytes>,
    /// `user:password` that everything asks for.
    password: Option<String>,
    asked: Vec<Asked>,
}

pub struct Scripted {
    address: String,
    state: Arc<Mutex<State>>,
    server: AbortHandle,
}

type Body = BoxBody<Bytes, std::io::Error>;

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

impl Scripted {
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let state = Arc::new(Mutex::new(State::default()));
        let server = tokio::spawn(serve(listener, state.clone(), address.clone())).abort_handle();
        Ok(Self { address, state, server })
    }

    pub fn host(&self) -> &str {
        &self.address
    }

    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Its entry in the host's registries file.
    pub fn entry(&self) -> Value {
        json!({ "host": self.address, "plainHttp": true })
    }

    pub fn misbehaves(&self, misbehaviour: Misbehaviour) {
        self.state().misbehaviour = misbehaviour;
    }

    /// Everything asks for this password from now on.
    pub fn asks_for(&self, user: &str, password: &str) {
        self.state().password = Some(format!("{user}:{password}"));
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    pub fn forget(&self) {
        self.state().asked.clear();
    }

    /// A component in the usual layout, under a tag. Its manifest's digest.
    pub fn put_component(&self, tag: &str, bytes: &[u8]) -> String {
        self.put_layers(tag, &[("application/wasm", bytes)])
    }

    /// An artifact with these layers.
    pub fn put_layers(&self, tag: &str, layers: &[(&str, &[u8])]) -> String {
        let config = b"{}";
        let of = |(media_type, bytes): &(&str, &[u8])| {
            self.put_blob(bytes);
            json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
        };
        let layers: Vec<Value> = layers.iter().map(of).collect();
        let config = of(&("application/vnd.wasm.config.v0+json", config));
        self.put_manifest(
            tag,
            MANIFEST,
            &json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers }),
        )
    }

    /// An index with these entries: digest, os, architecture.
    pub fn put_index(&self, tag: &str, entries: &[(&str, &str, &str, &str)]) -> String {
        let entry = |(media_type, digest, os, architecture): &(&str, &str, &str, &str)| {
            json!({ "mediaType": media_type, "digest": digest, "size": 2,
                    "platform": { "os": os, "architecture": architecture } })
        };
        let manifests: Vec<Value> = entries.iter().map(entry).collect();
        self.put_manifest(tag, INDEX, &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }))
    }

    fn put_manifest(&self, tag: &str, media_type: &str, manifest: &Value) -> String {
        let bytes = Bytes::from(manifest.to_string());
        let digest = digest(&bytes);
        let mut state = self.state();
        for name in [tag, &*digest] {
            state.manifests.insert(name.to_owned(), (media_type.to_owned(), bytes.clone()));
        }
        digest
    }

    /// An entry of the table whose bytes are not what its name says: an index that holds itself cannot be made otherwise.
    pub fn alias(&self, digest: &str, tag: &str) {
        let mut state = self.state();
        if let Some(found) = state.manifests.get(tag).cloned() {
            state.manifests.insert(digest.to_owned(), found);
        }
    }

    fn put_blob(&self, bytes: &[u8]) {
        self.state().blobs.insert(digest(bytes), Bytes::copy_from_slice(bytes));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>, address: String) {
    while let Ok((stream, _)) = listener.accept().await {
        let (state, address) = (state.clone(), address.clone());
        let service = service_fn(move |request| {
            let (state, address) = (state.clone(), address.clone());
            async move { answer(&state, &address, request).await }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(state: &Mutex<State>, address: &str, request: Request<Incoming>) -> Result<Response<Body>> {
    let path = request.uri().path().to_owned();
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (misbehaviour, found, allowed) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked.push(Asked {
            method: request.method().to_string(),
            path: path.clone(),
            has_credentials: authorization.is_some(),
            at: std::time::Instant::now(),
        });
        let wanted = state.password.as_ref().map(|password| format!("Basic {}", encode(password)));
        let allowed = wanted.is_none_or(|wanted| authorization == Some(wanted));
        let name = path.rsplit('/').next().unwrap_or_default();
        let found = match path.contains("/manifests/") {
            true => state.manifests.get(name).cloned(),
            false => state.blobs.get(name).map(|bytes| ("application/octet-stream".to_owned(), bytes.clone())),
        };
        (state.misbehaviour.clone(), found, allowed)
    };
    if path == "/endless-token" {
        return Ok(Response::new(endless(Bytes::from_static(&[b' '; 4096]))));
    }
    if !allowed {
        return plain(Response::builder().status(401).header("www-authenticate", "Basic realm=\"scripted\""), "");
    }
    let is_manifest = path.contains("/manifests/");
    if let Some(bad) = misbehave(&misbehaviour, is_manifest, address, &path, found.as_ref()).await? {
        return Ok(bad);
    }
    let Some((media_type, bytes)) = found else {
        let said = json!({ "errors": [{ "code": "MANIFEST_UNKNOWN", "message": "there is none" }] });
        return plain(Response::builder().status(404), &said.to_string());
    };
    let head =
        Response::builder().header(header::CONTENT_TYPE, media_type).header("docker-content-digest", digest_of(&path, &bytes));
    Ok(head.body(whole(bytes))?)
}

/// By digest it claims what it was asked for, whatever it gives.
fn digest_of(path: &str, bytes: &[u8]) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    if name.starts_with("sha256:") { name.to_owned() } else { digest(bytes) }
}

async fn misbehave(
    how: &Misbehaviour,
    is_manifest: bool,
    address: &str,
    path: &str,
    found: Option<&(String, Bytes)>,
) -> Result<Option<Response<Body>>> {
    let bytes = found.map(|(_, bytes)| bytes.clone()).unwrap_or_default();
    let redirect = |to: &str| plain(Response::builder().status(307).header(header::LOCATION, to), "");
    Ok(Some(match (how, is_manifest) {
        (Misbehaviour::Status(code, after), _) => {
            let mut head = Response::builder().status(*code);
            if let Some(after) = after {
                head = head.header(header::RETRY_AFTER, after.to_string());
            }
            plain(head, "{\"errors\":[{\"code\":\"SCRIPTED\",\"message\":\"as the test says\"}]}")?
        }
        (Misbehaviour::EndlessToken, _) => {
            let challenge = format!("Bearer realm=\"http://{address}/endless-token\",service=\"scripted\"");
            plain(Response::builder().status(401).header("www-authenticate", challenge), "")?
        }
        (Misbehaviour::Garbage, true) => plain(Response::builder().header(header::CONTENT_TYPE, MANIFEST), "<html>no</html>")?,
        (Misbehaviour::WrongManifest, true) => {
            let head = Response::builder().header(header::CONTENT_TYPE, MANIFEST);
            plain(head.header("docker-content-digest", digest(b"another")), &String::from_utf8_lossy(&bytes))?
        }
        (Misbehaviour::EndlessManifest, true) => {
            Response::builder().header(header::CONTENT_TYPE, MANIFEST).body(endless(Bytes::from_static(&[b' '; 65536])))?
        }
        (Misbehaviour::OversizeManifest, true) => {
            plain(Response::builder().header(header::CONTENT_TYPE, MANIFEST), &" ".repeat(5 << 20))?
        }
        (Misbehaviour::SilentManifest, true) => std::future::pending().await,
        (Misbehaviour::RedirectManifest(to), true) => redirect(&format!("http://{to}{path}"))?,
        (Misbehaviour::RedirectBlob(to), false) => redirect(&format!("http://{to}{path}"))?,
        (Misbehaviour::RedirectLoop, false) => redirect(path)?,
        (Misbehaviour::WrongBlob, false) => {
            let mut wrong = bytes.to_vec();
            if let Some(last) = wrong.last_mut() {
                *last ^= 1;
            }
            Response::new(whole(wrong.into()))
        }
        (Misbehaviour::TruncatedBlob, false) => {
            let half = bytes.slice(..bytes.len() / 2);
            // The head and the half are on their way before it breaks.
            let broken = stream::once(async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(std::io::Error::other("cut"))
            });
            let broken = stream::iter([Ok(Frame::data(half))]).chain(broken);
            Response::builder().header(header::CONTENT_LENGTH, bytes.len()).body(BodyExt::boxed(StreamBody::new(broken)))?
        }
        (Misbehaviour::EndlessBlob, false) => Response::new(endless(Bytes::from_static(&[0; 65536]))),
        (Misbehaviour::SlowBlob, false) => {
            let first = stream::iter([Ok(Frame::data(bytes.slice(..bytes.len().min(1))))]);
            Response::new(BodyExt::boxed(StreamBody::new(first.chain(stream::pending()))))
        }
        _ => return Ok(None),
    }))
}

fn encode(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn plain(head: http::response::Builder, text: &str) -> Result<Response<Body>> {
    Ok(head.body(whole(Bytes::copy_from_slice(text.as_bytes())))?)
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

fn endless(chunk: Bytes) -> Body {
    BodyExt::boxed(StreamBody::new(stream::repeat_with(move || Ok(Frame::data(chunk.clone())))))
}

/// Media types, for tests that make indexes.
pub const MEDIA_TYPES: (&str, &str) = (MANIFEST, INDEX);
