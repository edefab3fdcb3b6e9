//! Where the trust policy reaches a registry: the signatures of an image are asked for with the credentials with which the
//! image itself was.

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use tokio::sync::OnceCell;

use crate::{
    catalog::{Desired, Source},
    identity::Api,
    names::{Account, Digest, Memory},
    source::{
        self,
        layout::{self, Depth, Found},
        oci::{Oci, OciSource},
        reference::Version,
        registry::{Manifest, Registry, RegistryError},
    },
    trust::Repository,
};

/// As whom an image's repository is asked.
#[derive(Debug, Clone)]
pub struct Asker {
    account: Account,
    source: OciSource,
}

impl Asker {
    /// Nobody, if the resource no longer has pull secrets because it names no image any more.
    pub fn of(desired: &Desired, image: &source::Image) -> Option<Self> {
        let Source::Oci(source) = &desired.source else { return None };
        let source = OciSource { image: image.pinned.clone(), ..source.clone() };
        Some(Self { account: desired.account.clone(), source })
    }
}

/// One look at a repository. Nothing is asked, and no Secret read, before somebody looks.
pub struct Signatures<'a> {
    api: &'a Api,
    oci: &'a Oci,
    asker: &'a Asker,
    opened: OnceCell<Vec<Registry>>,
}

impl<'a> Signatures<'a> {
    pub fn new(api: &'a Api, oci: &'a Oci, asker: &'a Asker) -> Self {
        Self { api, oci, asker, opened: OnceCell::new() }
    }

    /// What the first credentials that may see it see. Many registries say 404 of what one may not see.
    async fn first<T>(
        &self,
        ask: impl Fn(Registry) -> BoxFuture<'static, Result<T, RegistryError>> + Send,
    ) -> Result<Option<T>, String> {
        let open = || self.oci.registries(self.api, &self.asker.account, &self.asker.source);
        let registries = self.opened.get_or_try_init(open).await.map_err(|error| error.to_string())?;
        let mut refused = None;
        for registry in registries {
            match ask(registry.clone()).await {
                Ok(found) => return Ok(Some(found)),
                Err(error) if error.status() == Some(404) => {}
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(None), |error| Err(error.to_string()))
    }
}

impl Repository for Signatures<'_> {
    fn manifest<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, String>> {
        let version = reference.parse().map_or_else(|_| Version::Tag(reference.to_owned()), Version::Digest);
        async move {
            let found = self.first(|registry| {
                let version = version.clone();
                async move { registry.manifest(&version).await }.boxed()
            });
            Ok(found.await?.map(|manifest| manifest.bytes))
        }
        .boxed()
    }

    fn referrers(&self, digest: Digest) -> BoxFuture<'_, Result<Vec<Digest>, String>> {
        async move {
            let found = self.first(|registry| async move { registry.referrers(digest).await }.boxed()).await?;
            Ok(found.unwrap_or_default().iter().filter_map(|descriptor| descriptor.digest.parse().ok()).collect())
        }
        .boxed()
    }

    fn blob(&self, digest: Digest, limit: u64) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        self.first(move |registry| async move { registry.blob(digest, Memory(limit)).await }.boxed()).boxed()
    }
}

/// The documents between an image's digest and its component, as they came: the index, if there is one, and the manifest.
pub async fn documents(oci: &Oci, image: &source::Image) -> Vec<Bytes> {
    let place = image.pinned.place();
    let mut documents = Vec::new();
    let mut digest = image.manifest;
    for depth in [Depth::Top, Depth::OfIndex] {
        let Some(bytes) = oci.store.get(&place, digest).await else { break };
        documents.push(bytes.clone());
        let media_type = layout::media_type(&bytes);
        match layout::find(&Manifest { digest, media_type, bytes }, depth) {
            Ok(Found::Manifest(inner)) => digest = inner,
            _ => break,
        }
    }
    documents
}
