//! What is judged: where bytes came from, and the chain of digests from the bytes to what a signature may speak of.

use std::{fmt, sync::Arc};

use serde::Deserialize;

use super::TrustError;
use crate::names::Digest;

/// A component that somebody wants to run in a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub namespace: Arc<str>,
    pub origin: Origin,
    pub pin: Pin,
    /// Of the bytes that are to be loaded.
    pub component: Digest,
}

/// Whether the resource itself says which digest it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    Loose,
    Pinned,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Below the plugin directory.
    File(String),
    /// Its name.
    ConfigMap(String),
    Image(Image),
}

/// An artifact in a registry, and what a signature of it may be a signature of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// With its port, where it has one.
    pub registry: String,
    pub repository: String,
    /// The manifest whose layer the component is; before it the index that names this manifest, if there is one.
    digests: Vec<Digest>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

impl Image {
    /// `documents`: the manifest, or an index and the manifest in it, as they came. Each must name the next one, and the last
    /// one the component, by digest: so a signature of any of them is one of exactly these bytes.
    pub fn new(registry: &str, repository: &str, documents: &[impl AsRef<[u8]>], component: Digest) -> Result<Self, TrustError> {
        let mut below = component;
        let mut digests = Vec::with_capacity(documents.len());
        for document in documents.iter().rev() {
            let document = document.as_ref();
            if !names(document, below, digests.is_empty()) {
                return Err(TrustError::OtherBytes { component, image: format!("{registry}/{repository}") });
            }
            below = Digest::of(document);
            digests.insert(0, below);
        }
        if digests.is_empty() {
            return Err(TrustError::OtherBytes { component, image: format!("{registry}/{repository}") });
        }
        Ok(Self { registry: registry.to_owned(), repository: repository.to_owned(), digests })
    }

    /// What a signature may speak of: the index first, if there is one.
    pub fn digests(&self) -> &[Digest] {
        &self.digests
    }
}

/// Whether the document is an index of this manifest, or a manifest with this layer.
fn names(document: &[u8], digest: Digest, is_last: bool) -> bool {
    let Ok(Document { layers, manifests }) = serde_json::from_slice(document) else { return false };
    let named = if is_last { layers } else { manifests };
    named.iter().any(|descriptor| descriptor.digest.parse() == Ok(digest))
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "spec.source.file: `{file}`"),
            Self::ConfigMap(name) => write!(f, "spec.source.configMap: `{name}`"),
            Self::Image(image) => write!(f, "spec.source.oci.image: {image}"),
        }
    }
}

/// As cosign and crane take it.
impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        self.digests.first().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_document_must_name_the_next_one_and_the_last_one_the_component() {
        let component = Digest::of(b"component");
        let manifest = format!(r#"{{"layers":[{{"digest":"{component}"}}]}}"#);
        let of_manifest = Digest::of(manifest.as_bytes());
        let index = format!(r#"{{"manifests":[{{"digest":"sha256:{}"}},{{"digest":"{of_manifest}"}}]}}"#, "0".repeat(64));
        let image = |documents: &[&str]| Image::new("r.example", "a/b", documents, component);
        assert_eq!(image(&[&manifest]).unwrap().digests(), [of_manifest]);
        assert_eq!(image(&[&index, &manifest]).unwrap().digests(), [Digest::of(index.as_bytes()), of_manifest]);
        assert_eq!(image(&[&manifest]).unwrap().to_string(), format!("r.example/a/b@{of_manifest}"));
        for wrong in [&[][..], &[&*index], &[&*manifest, &*manifest], &[&*manifest, &*index], &["{}"], &["no json"]] {
            assert!(matches!(image(wrong), Err(TrustError::OtherBytes { .. })), "{wrong:?}");
        }
        let other = Image::new("r.example", "a/b", &[&manifest], Digest::of(b"other"));
        assert!(matches!(other, Err(TrustError::OtherBytes { .. })), "the bytes are another manifest's");
        let config = format!(r#"{{"config":{{"digest":"{component}"}},"layers":[]}}"#);
        assert!(image(&[&config]).is_err(), "only a layer is loaded");
    }
}
