//! A registry as it was recorded after real cosign had signed in it: `tests/scripts/record-signatures.py`.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use serde::Deserialize;

use crate::{
    names::Digest,
    trust::{
        claim::{ANNOTATION, Claim, SIMPLE},
        key::Key,
        lookup::Repository,
        subject::{Image, Origin, Pin, Subject},
    },
};

#[derive(Deserialize)]
pub struct Recording {
    registry: String,
    repository: String,
    /// Name and PEM.
    keys: BTreeMap<String, String>,
    images: BTreeMap<String, Pushed>,
    /// By tag or digest.
    pub manifests: BTreeMap<String, String>,
    pub referrers: BTreeMap<String, Vec<String>>,
    pub blobs: BTreeMap<String, String>,
    /// Requests so far.
    #[serde(skip)]
    pub asked: AtomicUsize,
    /// What each request ends with, if it is to fail.
    #[serde(skip)]
    pub failure: Option<String>,
}

#[derive(Deserialize)]
struct Pushed {
    manifest: String,
    component: String,
}

impl Recording {
    pub fn read() -> Self {
        serde_json::from_str(include_str!("../fixtures/recorded.json")).unwrap()
    }

    pub fn pem(&self, key: &str) -> &str {
        &self.keys[key]
    }

    pub fn keys(&self, names: &[&str]) -> Vec<Key> {
        names.iter().map(|name| Key::from_pem(name, self.pem(name)).unwrap()).collect()
    }

    /// Of an image's manifest.
    pub fn digest(&self, image: &str) -> Digest {
        Digest::of(self.images[image].manifest.as_bytes())
    }

    pub fn image(&self, image: &str) -> Image {
        let pushed = &self.images[image];
        Image::new(&self.registry, &self.repository, &[&pushed.manifest], pushed.component.parse().unwrap()).unwrap()
    }

    pub fn subject(&self, namespace: &str, image: &str, pin: Pin) -> Subject {
        let component = self.images[image].component.parse().unwrap();
        Subject { namespace: namespace.into(), origin: Origin::Image(self.image(image)), pin, component }
    }

    /// The claims on an image, read without the code that looks for them.
    pub fn claims(&self, image: &str) -> Vec<Claim> {
        let digest = self.digest(image);
        let tag = format!("sha256-{}.sig", digest.hex());
        let manifests = self.referrers[&digest.to_string()].iter().chain([&tag]).filter_map(|name| self.manifests.get(name));
        let mut claims = Vec::new();
        for manifest in manifests {
            let manifest: serde_json::Value = serde_json::from_str(manifest).unwrap();
            for layer in manifest["layers"].as_array().unwrap() {
                let text = self.blobs[layer["digest"].as_str().unwrap()].clone();
                let signature = layer["annotations"][ANNOTATION].as_str().unwrap_or_default().to_owned();
                claims.push(match layer["mediaType"] == SIMPLE {
                    true => Claim::Simple { payload: text, signature },
                    false => Claim::Bundle(text),
                });
            }
        }
        claims
    }

    fn answer<T: Send + 'static>(&self, found: T) -> BoxFuture<'_, Result<T, String>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = self.failure.clone().map_or(Ok(found), Err);
        async move { answer }.boxed()
    }
}

impl Repository for Recording {
    fn manifest<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, String>> {
        self.answer(self.manifests.get(reference).map(|text| Bytes::from(text.clone())))
    }

    fn referrers(&self, digest: Digest) -> BoxFuture<'_, Result<Vec<Digest>, String>> {
        let found = self.referrers.get(&digest.to_string()).into_iter().flatten();
        self.answer(found.map(|digest| digest.parse().unwrap()).collect())
    }

    fn blob(&self, digest: Digest, limit: u64) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        let found = self.blobs.get(&digest.to_string()).map(|text| Bytes::from(text.clone()));
        self.answer(found.filter(|bytes| bytes.len() as u64 <= limit))
    }
}
