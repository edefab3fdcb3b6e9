//! A component from a registry: tag → manifest digest once, then everything by digest.
//!
//! What a plugin has pinned, it gets from the content cache without asking anybody. What it has not, it has to be allowed to
//! see: also what the cache holds because of somebody else.

use std::time::Duration;

use super::{
    Candidate, Image, SourceError, is_component,
    keyring::Keyring,
    layout::{self, Depth, Found, LayoutError},
    reference::{Reference, Version},
    registries::Registries,
    registry::{Credential, Manifest, Registry, RegistryError},
    store::Store,
};
use crate::{
    identity::Api,
    names::{Account, Digest, Memory},
};

/// As in Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Every change of the resource resolves the tag anew.
    Always,
    /// Only another image does.
    IfNotPresent,
    /// The registry is never asked.
    Never,
}

/// `spec.source.oci`, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciSource {
    pub image: Reference,
    pub policy: PullPolicy,
    pub secrets: Vec<String>,
    /// How often the tag is resolved anew; never, if not.
    pub poll: Option<Duration>,
}

/// Registries, and what came from them. Clones share it.
#[derive(Debug, Clone)]
pub struct Oci {
    pub registries: Registries,
    pub store: Store,
}

impl Oci {
    /// What the plugin has pinned: from the cache, else by digest from the registry.
    pub async fn pinned(
        &self,
        api: &Api,
        account: &Account,
        source: &OciSource,
        manifest: Digest,
    ) -> Result<Candidate, SourceError> {
        if let Some(found) = self.cached(&source.image, manifest).await {
            return Ok(found);
        }
        let image = source.image.pinned(manifest);
        if source.policy == PullPolicy::Never {
            return Err(SourceError::NotPresent { image: image.to_string() });
        }
        self.pull(api, account, source, &image).await
    }

    /// What the image is now, as the registry says.
    pub async fn resolve(&self, api: &Api, account: &Account, source: &OciSource) -> Result<Candidate, SourceError> {
        if source.policy == PullPolicy::Never {
            return Err(SourceError::NotPresent { image: source.image.to_string() });
        }
        self.pull(api, account, source, &source.image).await
    }

    /// From the cache alone.
    pub async fn cached(&self, image: &Reference, manifest: Digest) -> Option<Candidate> {
        let place = image.place();
        let mut digest = manifest;
        for depth in [Depth::Top, Depth::OfIndex] {
            let bytes = self.store.get(&place, digest).await?;
            let media_type = layout::media_type(&bytes);
            match layout::find(&Manifest { digest, media_type, bytes }, depth).ok()? {
                Found::Component { digest, .. } => {
                    let bytes = self.store.get(&place, digest).await?;
                    return Some(candidate(image, manifest, digest, bytes));
                }
                Found::Manifest(inner) => digest = inner,
            }
        }
        None
    }

    /// A registry for each credential that may be meant, in the order in which they are tried.
    pub async fn registries(&self, api: &Api, account: &Account, source: &OciSource) -> Result<Vec<Registry>, SourceError> {
        let keyring = Keyring::read(api, account, &source.secrets).await?;
        let mut credentials = keyring.matching(&source.image);
        if credentials.is_empty() {
            credentials.push(Credential::Anonymous);
        }
        let open = |credential| self.registries.registry(&source.image, credential, &keyring);
        let all: Result<Vec<_>, _> = credentials.into_iter().map(open).collect();
        all.map_err(|error| SourceError::Registry { image: source.image.to_string(), error })
    }

    async fn pull(&self, api: &Api, account: &Account, source: &OciSource, image: &Reference) -> Result<Candidate, SourceError> {
        let mut last = None;
        for registry in self.registries(api, account, source).await? {
            match self.pull_as(&registry, image).await {
                Err(SourceError::Registry { error, .. }) if error.is_about_credentials() => last = Some(error),
                other => return other,
            }
        }
        let error = last.unwrap_or_else(|| RegistryError::Misconfigured("no credentials to try".into()));
        Err(SourceError::Registry { image: image.to_string(), error })
    }

    async fn pull_as(&self, registry: &Registry, image: &Reference) -> Result<Candidate, SourceError> {
        let refused = |error| SourceError::Registry { image: image.to_string(), error };
        if let Some(digest) = image.digest()
            && let Some(found) = self.cached(image, digest).await
        {
            // Somebody else may have brought it here.
            registry.may_see(digest).await.map_err(refused)?;
            return Ok(found);
        }
        let place = image.place();
        let artifact = look(registry, image).await?;
        let bytes = match self.store.get(&place, artifact.digest).await {
            Some(bytes) => bytes,
            None => registry.blob(artifact.digest, artifact.size).await.map_err(refused)?,
        };
        is_component(&bytes)
            .map_err(|why| SourceError::Layout { image: image.to_string(), error: LayoutError::NotAComponent(why) })?;
        let manifest = artifact.top.digest;
        for manifest in [Some(artifact.top), artifact.inner].into_iter().flatten() {
            self.store.put(&place, manifest.digest, manifest.bytes).await;
        }
        self.store.put(&place, artifact.digest, bytes.clone()).await;
        Ok(candidate(image, manifest, artifact.digest, bytes))
    }
}

/// What a manifest says of an artifact: enough to fetch its component.
#[derive(Debug, Clone, PartialEq)]
pub struct Artifact {
    /// What the image stands for.
    pub top: Manifest,
    /// What that leads to, if it is an index.
    pub inner: Option<Manifest>,
    /// The component's.
    pub digest: Digest,
    /// At most [`MAX_COMPONENT`](super::MAX_COMPONENT).
    pub size: Memory,
}

/// Reads the manifest of an image, and the one that an index leads to.
pub async fn look(registry: &Registry, image: &Reference) -> Result<Artifact, SourceError> {
    let refused = |error| SourceError::Registry { image: image.to_string(), error };
    let unfit = |error| SourceError::Layout { image: image.to_string(), error };
    let top = registry.manifest(&image.version()).await.map_err(refused)?;
    match layout::find(&top, Depth::Top).map_err(unfit)? {
        Found::Component { digest, size } => Ok(Artifact { top, inner: None, digest, size }),
        Found::Manifest(digest) => {
            let inner = registry.manifest(&Version::Digest(digest)).await.map_err(refused)?;
            match layout::find(&inner, Depth::OfIndex).map_err(unfit)? {
                Found::Component { digest, size } => Ok(Artifact { top, inner: Some(inner), digest, size }),
                Found::Manifest(_) => Err(unfit(LayoutError::Nested)),
            }
        }
    }
}

fn candidate(image: &Reference, manifest: Digest, digest: Digest, bytes: bytes::Bytes) -> Candidate {
    Candidate { digest, bytes, image: Some(Image { pinned: image.pinned(manifest), manifest }) }
}
