//! A component that is ready to run: inspected, compiled, linked.
//!
//! Order matters: what can be refused with a sentence is refused before a compiler sees the bytes.

use std::path::PathBuf;

use bytes::Bytes;
use wasmtime::component::Component;

use super::{
    Sandbox,
    call::State,
    engine::{MAX_INSTANCES, MAX_MEMORIES, MAX_MEMORY, MAX_TABLE_ELEMENTS, MAX_TABLES},
    inspect::{Inspected, inspect},
};
use crate::{
    capability::bindings::PluginPre,
    contract::Manifest,
    names::{Digest, Memory},
};

/// Why a component cannot run here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// This host will never run these bytes.
    #[error("{0}")]
    Refused(String),
    /// The compiler gave up, or reached a limit.
    #[error("{0}")]
    Compile(String),
    /// The host failed, not the component: worth another try.
    #[error("{0}")]
    Io(String),
}

impl LoadError {
    /// Its name in metrics and conditions.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Refused(_) => "Refused",
            Self::Compile(_) => "CompileFailed",
            Self::Io(_) => "HostError",
        }
    }
}

/// A component, linked. Cheap to run any number of times at once.
pub struct Loaded {
    digest: Digest,
    inspected: Inspected,
    pre: PluginPre<State>,
}

impl Loaded {
    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn manifest(&self) -> &Manifest {
        &self.inspected.manifest
    }

    /// The CRDs that the component brings, as YAML text.
    pub fn crds(&self) -> &[String] {
        &self.inspected.crds
    }

    /// The JSON schema of `spec.settings`.
    pub fn settings_schema(&self) -> Option<&str> {
        self.inspected.settings.as_deref()
    }

    /// The interfaces that it imports, as in `reef:plugin/reads@0.1.0`.
    pub fn imports(&self) -> &[String] {
        &self.inspected.imports
    }

    pub(super) fn pre(&self) -> &PluginPre<State> {
        &self.pre
    }
}

impl Sandbox {
    pub(super) async fn load_afresh(&self, digest: Digest, wasm: Bytes) -> Result<Loaded, LoadError> {
        let inspected = inspect(&wasm).map_err(LoadError::Refused)?;
        let component = match self.cached(digest).await? {
            Some(component) => component,
            None => self.compiled(digest, wasm).await?,
        };
        let pre = self.linker.instantiate_pre(&component).and_then(PluginPre::new).map_err(refused)?;
        Ok(Loaded { digest, inspected, pre })
    }

    async fn cached(&self, digest: Digest) -> Result<Option<Component>, LoadError> {
        let cache = self.cache.clone();
        let engine = self.engine.clone();
        blocking(move || match cache.find(digest) {
            Some(path) => mapped(&engine, path).map(Some),
            None => Ok(None),
        })
        .await
    }

    async fn compiled(&self, digest: Digest, wasm: Bytes) -> Result<Component, LoadError> {
        // The cache is keyed by digest, so it must never hold the code of other bytes.
        let found = Digest::of(&wasm);
        if found != digest {
            return Err(LoadError::Refused(format!(
                "its digest is {found}, not {digest}: the bytes are not the ones that were asked for"
            )));
        }
        let code = self.compiler.compile(wasm).await?;
        let (cache, engine) = (self.cache.clone(), self.engine.clone());
        blocking(move || match cache.store(digest, &code) {
            Ok(path) => mapped(&engine, path),
            Err(error) => {
                tracing::warn!(%digest, %error, "compiled code is not kept: the component is compiled again after a restart");
                copied(&engine, &code)
            }
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, LoadError> + Send + 'static) -> Result<T, LoadError> {
    let lost = |error: tokio::task::JoinError| LoadError::Io(format!("loading was interrupted: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(lost)?
}

#[expect(unsafe_code, reason = "native code can only be loaded so")]
fn mapped(engine: &wasmtime::Engine, path: PathBuf) -> Result<Component, LoadError> {
    // SAFETY: the cache only names files whose MAC, made with a key that only this host can read, is right, in a
    // directory that only this host can write.
    unsafe { Component::deserialize_file(engine, path) }.map_err(unusable)
}

#[expect(unsafe_code, reason = "native code can only be loaded so")]
fn copied(engine: &wasmtime::Engine, code: &[u8]) -> Result<Component, LoadError> {
    // SAFETY: the bytes come straight from our own compiler.
    unsafe { Component::deserialize(engine, code) }.map_err(unusable)
}

/// Loading also asks whether the pool can hold an instance; nothing but its text tells this from a damaged file.
#[expect(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
fn unusable(error: wasmtime::Error) -> LoadError {
    let text = format!("{error:#}");
    if !text.contains("pooling allocator") {
        return LoadError::Io(format!("its compiled code cannot be loaded: {text}"));
    }
    let memory = Memory(MAX_MEMORY);
    LoadError::Refused(format!(
        "one instance of it needs more than this host gives: {memory} of memory to start with, {MAX_MEMORIES} memories, \
         {MAX_TABLES} tables of {MAX_TABLE_ELEMENTS} elements, {MAX_INSTANCES} modules ({text})"
    ))
}

#[expect(clippy::needless_pass_by_value, reason = "an adapter for map_err")]
fn refused(error: wasmtime::Error) -> LoadError {
    LoadError::Refused(format!("it does not fit this host: {error:#}; build it against this host's version of the contract"))
}
