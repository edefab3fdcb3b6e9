//! The host-wide file about registries: mirrors, certificate authorities, plain http. Read again when it changes; an
//! invalid one is refused at the start, and later the last good one is kept, and that is said.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use serde::Deserialize;

use super::{
    keyring::Keyring,
    reference::Reference,
    registry::{Credential, Downloads, Endpoint, Registry, RegistryError, Wire},
};
use crate::names::Digest;

/// How often the file and its bundles are looked at.
const POLL: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("registries file {file}: {why}")]
pub struct RegistriesError {
    file: String,
    why: String,
}

/// One registry's entry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    /// Host and port, as images name it.
    host: String,
    /// It speaks http without TLS.
    #[serde(default)]
    plain_http: bool,
    /// PEM file of authorities that it is trusted by, beside the system's. Relative to this file.
    ca_file: Option<PathBuf>,
    /// Asked before it, in this order: `host[:port][/prefix]`. What they need stands in their own entries.
    #[serde(default)]
    mirrors: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    #[serde(default)]
    registries: Vec<Entry>,
}

/// What the file says, ready for use.
#[derive(Debug)]
struct Known {
    entries: BTreeMap<String, (Entry, Wire)>,
    /// For registries that it does not name.
    other: Wire,
    /// Of all texts that it was made of.
    digest: Digest,
}

/// Hands out registries. Clones share it.
#[derive(Debug, Clone)]
pub struct Registries {
    known: Arc<RwLock<Arc<Known>>>,
    /// Why the newest version of the file is not in force.
    complaint: Arc<RwLock<Option<RegistriesError>>>,
    downloads: Downloads,
    file: Option<Arc<Path>>,
    deadline: Duration,
}

impl Registries {
    /// Without a file, every registry is asked by TLS that the system's authorities trust.
    pub fn load(file: Option<&Path>, deadline: Duration) -> Result<Self, RegistriesError> {
        let known = Known::read(file, deadline)?;
        Ok(Self {
            known: Arc::new(RwLock::new(Arc::new(known))),
            complaint: Arc::default(),
            downloads: Downloads::default(),
            file: file.map(Into::into),
            deadline,
        })
    }

    /// A repository, with the credential for the registry itself; its mirrors get what the keyring has for them.
    pub fn registry(&self, reference: &Reference, credential: Credential, keyring: &Keyring) -> Result<Registry, RegistryError> {
        let known = self.known.read().clone();
        let mut endpoints = Vec::new();
        for mirror in known.entries.get(&reference.registry).map(|(entry, _)| &*entry.mirrors).unwrap_or_default() {
            let (host, prefix) = mirror.split_once('/').unwrap_or((mirror, ""));
            let repository =
                [prefix, &reference.repository].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
            let credential = keyring.for_host(host, &repository);
            endpoints.push(known.endpoint(host, host, repository, credential)?);
        }
        endpoints.push(known.endpoint(&reference.registry, reference.host(), reference.repository.clone(), credential)?);
        Ok(Registry::new(endpoints, &self.downloads))
    }

    /// The file, if there is one, and whether what it says now is in force.
    pub fn state(&self) -> Option<(&Path, bool)> {
        self.file.as_deref().map(|file| (file, self.complaint.read().is_none()))
    }

    /// Looks at the file again and again. Never ends.
    pub async fn follow(self) {
        let Some(file) = self.file.clone() else { return std::future::pending().await };
        loop {
            tokio::time::sleep(POLL).await;
            let (path, deadline) = (file.clone(), self.deadline);
            let Ok(read) = tokio::task::spawn_blocking(move || Known::read(Some(&path), deadline)).await else { continue };
            let complaint = match read {
                Ok(new) => {
                    if new.digest != self.known.read().digest {
                        tracing::info!(file = %file.display(), "the registries file was read again");
                        *self.known.write() = Arc::new(new);
                    }
                    None
                }
                Err(error) => Some(error),
            };
            let before = std::mem::replace(&mut *self.complaint.write(), complaint.clone());
            if let Some(error) = complaint.filter(|error| before.as_ref() != Some(error)) {
                tracing::error!(%error, "the registries file is invalid now: what it said before is kept");
            }
        }
    }
}

impl Known {
    fn read(file: Option<&Path>, deadline: Duration) -> Result<Self, RegistriesError> {
        let shown = file.map(|file| file.display().to_string()).unwrap_or_default();
        let fail = |why: String| RegistriesError { file: shown.clone(), why };
        let text = match file {
            Some(file) => fs::read_to_string(file).map_err(|e| fail(format!("it cannot be read: {e}")))?,
            None => String::new(),
        };
        let document = parse(&text).map_err(fail)?;
        let mut all = text.into_bytes();
        let mut entries = BTreeMap::new();
        for entry in document.registries {
            let bundle = match &entry.ca_file {
                None => None,
                Some(path) => {
                    let path = file.and_then(Path::parent).unwrap_or(Path::new("")).join(path);
                    let bundle =
                        fs::read(&path).map_err(|e| fail(format!("caFile {} of {}: {e}", path.display(), entry.host)))?;
                    all.extend_from_slice(&bundle);
                    Some(bundle)
                }
            };
            let wire = Wire::new(bundle.as_slice(), deadline).map_err(|why| fail(format!("caFile of {}: {why}", entry.host)))?;
            entries.insert(entry.host.clone(), (entry, wire));
        }
        let other = Wire::new(&[], deadline).map_err(fail)?;
        Ok(Self { entries, other, digest: Digest::of(&all) })
    }

    fn endpoint(&self, name: &str, host: &str, repository: String, credential: Credential) -> Result<Endpoint, RegistryError> {
        let (scheme, wire) = match self.entries.get(name) {
            Some((entry, wire)) => (if entry.plain_http { "http" } else { "https" }, wire),
            None => ("https", &self.other),
        };
        let base = format!("{scheme}://{host}");
        let base = base.parse().map_err(|e| RegistryError::Misconfigured(format!("`{base}` is not an address: {e}")))?;
        Ok(Endpoint { wire: wire.clone(), base, repository, credential })
    }
}

fn parse(text: &str) -> Result<Document, String> {
    if text.trim().is_empty() {
        return Ok(Document::default());
    }
    let document: Document = serde_norway::from_str(text).map_err(|e| e.to_string())?;
    let mut seen = Vec::new();
    for entry in &document.registries {
        let host = &entry.host;
        if format!("{host}/x").parse::<Reference>().ok().is_none_or(|found| found.registry != *host) {
            return Err(format!("`{host}` is no host: write it as images do, as in `registry.example:5000` or `docker.io`"));
        }
        if seen.contains(&host) {
            return Err(format!("{host} has two entries: keep one"));
        }
        for mirror in &entry.mirrors {
            let whole = format!("{}/x", mirror.trim_end_matches('/'));
            if whole.parse::<Reference>().ok().is_none_or(|found| !whole.starts_with(&format!("{}/", found.registry))) {
                return Err(format!("mirrors of {host}: `{mirror}` is not `host[:port][/prefix]`"));
            }
        }
        if entry.plain_http && entry.ca_file.is_some() {
            return Err(format!("{host} has both plainHttp and caFile: over plain http there is nothing to trust"));
        }
        seen.push(host);
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_place() {
        for (text, part) in [
            ("registries: [{ host: a.example, plainHtpp: true }]", "unknown field `plainHtpp`"),
            ("registries: [{ host: https://a.example }]", "is no host"),
            ("registries: [{ host: a.example }, { host: a.example }]", "two entries"),
            ("registries: [{ host: a.example, mirrors: ['https://b'] }]", "`https://b` is not"),
            ("registries: [{ host: a.example, plainHttp: true, caFile: x }]", "both plainHttp and caFile"),
            ("registries: 1", "invalid type"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let good =
            "registries:\n- host: docker.io\n  mirrors: [mirror.example:5000/hub]\n- host: localhost:5000\n  plainHttp: true\n";
        assert_eq!(parse(good).unwrap().registries.len(), 2);
        assert!(parse("").unwrap().registries.is_empty());
    }

    #[test]
    fn a_bundle_that_is_not_there_or_holds_nothing_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("registries.yaml");
        fs::write(&file, "registries: [{ host: a.example, caFile: ca.pem }]").unwrap();
        let error = Registries::load(Some(&file), Duration::from_secs(1)).unwrap_err().to_string();
        assert!(error.contains("ca.pem of a.example"), "{error}");
        fs::write(dir.path().join("ca.pem"), "nothing").unwrap();
        let error = Registries::load(Some(&file), Duration::from_secs(1)).unwrap_err().to_string();
        assert!(error.contains("holds no certificate"), "{error}");
    }
}
