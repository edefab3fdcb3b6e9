//! Bytes by digest: where a component comes from, a file each.
//!
//! What comes is read whole, with a cap, and is identified by its digest over exactly the bytes that are handed on. It knows
//! names, bytes and registries; as whom a tenant's ConfigMap or Secret is read it is told. Never Wasm, but for the eight
//! bytes with which a component begins.

pub mod config_map;
pub mod file;
pub mod keyring;
pub mod layout;
pub mod oci;
pub mod reference;
pub mod registries;
pub mod registry;
pub mod store;

use std::time::Duration;

use bytes::Bytes;

use self::reference::Reference;
use crate::names::{Digest, Memory};

/// The largest component that is read.
pub const MAX_COMPONENT: Memory = Memory(64 << 20);

/// A component that was fetched, and that nobody has looked into yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Of exactly these bytes.
    pub digest: Digest,
    pub bytes: Bytes,
    /// Where it came from, if that was a registry.
    pub image: Option<Image>,
}

/// What a component is called in its registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `registry/repository@sha256:…`: the manifest, or index, that the tag stood for.
    pub pinned: Reference,
    /// The digest of it: what a signature is about.
    pub manifest: Digest,
}

/// Why there is no component. Each is a sentence with the field and the fix.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    File(#[from] file::FileError),
    #[error(transparent)]
    ConfigMap(#[from] config_map::ConfigMapError),
    #[error(transparent)]
    Keyring(#[from] keyring::KeyringError),
    #[error("spec.source.oci: {image}: {error}")]
    Registry { image: String, error: registry::RegistryError },
    #[error("spec.source.oci: {image}: {error}")]
    Layout { image: String, error: layout::LayoutError },
    /// With `pullPolicy: Never` nobody asks the registry.
    #[error(
        "spec.source.oci: pullPolicy is Never, and {image} is not what this plugin has run before, or is no longer in this host's \
         content cache: use IfNotPresent"
    )]
    NotPresent { image: String },
}

impl SourceError {
    /// CamelCase, for the condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::File(_) => "SourceFailed",
            Self::ConfigMap(error) => error.reason(),
            Self::Keyring(error) => error.reason(),
            Self::Registry { error, .. } => error.reason(),
            Self::Layout { .. } => "NotAComponent",
            Self::NotPresent { .. } => "NotPresent",
        }
    }

    /// For how long a registry asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Registry { error, .. } => error.retry_after(),
            _ => None,
        }
    }
}

/// A component begins so; a core module, of version 1 and layer 0, does not.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// What these bytes are instead of a component, if they are none.
pub fn is_component(bytes: &[u8]) -> Result<(), &'static str> {
    match bytes {
        _ if bytes.starts_with(COMPONENT) => Ok(()),
        _ if bytes.starts_with(b"\0asm\x01\0\0\0") => Err("it is a core module: build a component, for the target wasm32-wasip2"),
        _ if bytes.starts_with(b"\0asm") => Err("it is Wasm of a version that this host does not know"),
        [] => Err("it is empty"),
        _ => Err("it is not Wasm: it does not begin with `\\0asm`"),
    }
}
