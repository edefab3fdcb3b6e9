//! Looks for the signatures of an image where cosign puts them: behind a tag beside it (cosign 2), and among what refers
//! to it (cosign 3). What a registry says is bounded in number and size, and each document is held against its digest.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::Deserialize;

use super::{
    claim::{ANNOTATION, BUNDLE, Claim, Flaw, SIMPLE, shown},
    key::Key,
    subject::Image,
};
use crate::names::Digest;

/// Documents and signatures of one image that are looked at, all together.
const MOST: usize = 64;
/// The largest manifest or index that is read.
pub const LARGEST_MANIFEST: u64 = 1 << 20;
/// The largest signature that is read. One with the proofs of a public log has some 10 KB; larger ones are attestations.
pub const LARGEST_SIGNATURE: u64 = 128 << 10;

/// The one image's repository, as a registry serves it. Nothing: the registry does not have it.
pub trait Repository: Send + Sync {
    /// By tag or digest.
    fn manifest<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, String>>;
    /// The manifests that say of themselves that they refer to this one, by the API or by the tag that stands for it.
    fn referrers(&self, digest: Digest) -> BoxFuture<'_, Result<Vec<Digest>, String>>;
    /// At most `limit` bytes.
    fn blob(&self, digest: Digest, limit: u64) -> BoxFuture<'_, Result<Option<Bytes>, String>>;
}

/// How a search ended.
#[derive(Debug, PartialEq)]
pub enum Found<'k> {
    Approved {
        key: &'k Key,
        claim: Claim,
    },
    /// What was found, and why it does not count; empty if nobody signed it.
    Refused(Vec<Flaw>),
    /// What was found does not do, and there may be more: the registry's own words.
    Unknown(String),
}

/// One search. It ends at the first signature that approves.
struct Search<'a, 'k> {
    repository: &'a dyn Repository,
    digests: &'a [Digest],
    keys: &'k [Key],
    left: usize,
    flaws: Vec<Flaw>,
    failure: Option<String>,
}

type Approved<'k> = Option<(&'k Key, Claim)>;

/// A manifest.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    layers: Vec<Descriptor>,
    subject: Option<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

pub async fn search<'k>(repository: &dyn Repository, image: &Image, keys: &'k [Key]) -> Found<'k> {
    let mut search = Search { repository, digests: image.digests(), keys, left: MOST, flaws: Vec::new(), failure: None };
    for digest in image.digests() {
        let mut approved = search.tagged(*digest).await;
        if approved.is_none() {
            approved = search.referring(*digest).await;
        }
        if let Some((key, claim)) = approved {
            return Found::Approved { key, claim };
        }
    }
    match search.failure {
        Some(failure) => Found::Unknown(failure),
        None => Found::Refused(search.flaws),
    }
}

impl<'k> Search<'_, 'k> {
    /// As cosign 2 does it: a manifest whose tag is made of the digest, with a layer for each signature.
    async fn tagged(&mut self, digest: Digest) -> Approved<'k> {
        let manifest = self.document(&format!("sha256-{}.sig", digest.hex()), None).await?;
        self.layers(manifest).await
    }

    /// As cosign 3 does it: manifests whose subject the image is. What the list says of an entry's type is not to be
    /// relied on, so each is looked at.
    async fn referring(&mut self, digest: Digest) -> Approved<'k> {
        let referrers = match self.repository.referrers(digest).await {
            Ok(referrers) => referrers,
            Err(failure) => self.failed(failure)?,
        };
        for referrer in referrers {
            if !self.may_go_on() {
                return None;
            }
            let Some(manifest) = self.document(&referrer.to_string(), Some(referrer)).await else { continue };
            let subject = manifest.subject.as_ref().map(|subject| subject.digest.clone()).unwrap_or_default();
            if subject.parse() != Ok(digest) {
                self.flaws.push(Flaw::OtherSubject { referrer, subject: shown(&subject) });
                continue;
            }
            if let Some(approved) = self.layers(manifest).await {
                return Some(approved);
            }
        }
        None
    }

    async fn layers(&mut self, manifest: Document) -> Approved<'k> {
        for layer in manifest.layers {
            let is_signature = layer.media_type == SIMPLE || layer.media_type.starts_with(BUNDLE);
            if !is_signature || !self.may_go_on() {
                continue;
            }
            let Some(claim) = self.claim(layer).await else { continue };
            match claim.approves(self.digests, self.keys) {
                Ok(key) => return Some((key, claim)),
                Err(flaw) => self.flaws.push(flaw),
            }
        }
        None
    }

    async fn claim(&mut self, layer: Descriptor) -> Option<Claim> {
        let Ok(digest) = layer.digest.parse::<Digest>() else {
            return self.flawed("the digest of a layer is not a sha256");
        };
        if layer.size > LARGEST_SIGNATURE {
            return self.flawed(&format!("a layer of {} bytes is larger than any signature", layer.size));
        }
        let bytes = match self.repository.blob(digest, LARGEST_SIGNATURE).await {
            Ok(Some(bytes)) if Digest::of(&bytes) == digest => bytes,
            Ok(Some(_)) => return self.flawed("a layer is not what its digest says"),
            Ok(None) => return self.flawed("a layer is not there"),
            Err(failure) => return self.failed(failure),
        };
        let Ok(text) = String::from_utf8(bytes.into()) else { return self.flawed("a layer is no text") };
        if layer.media_type != SIMPLE {
            return Some(Claim::Bundle(text));
        }
        match layer.annotations.unwrap_or_default().remove(ANNOTATION) {
            Some(signature) => Some(Claim::Simple { payload: text, signature }),
            None => self.flawed("a payload without its signature"),
        }
    }

    async fn document(&mut self, reference: &str, digest: Option<Digest>) -> Option<Document> {
        let bytes = match self.repository.manifest(reference).await {
            Ok(bytes) => bytes?,
            Err(failure) => return self.failed(failure),
        };
        if digest.is_some_and(|digest| digest != Digest::of(&bytes)) {
            return self.flawed("a manifest is not what its digest says");
        }
        self.parse(&bytes)
    }

    fn parse(&mut self, bytes: &[u8]) -> Option<Document> {
        match serde_json::from_slice(bytes) {
            Ok(document) => Some(document),
            Err(error) => self.flawed(&format!("a manifest does not parse: {error}")),
        }
    }

    fn may_go_on(&mut self) -> bool {
        let more = self.left > 0;
        self.left = self.left.saturating_sub(1);
        if !more && !matches!(self.flaws.last(), Some(Flaw::TooMany(_))) {
            self.flaws.push(Flaw::TooMany(MOST));
        }
        more
    }

    fn flawed<T>(&mut self, what: &str) -> Option<T> {
        self.flaws.push(Flaw::Malformed(what.to_owned()));
        None
    }

    fn failed<T>(&mut self, failure: String) -> Option<T> {
        self.failure.get_or_insert(failure);
        None
    }
}

#[cfg(test)]
mod tests;
