//! Who may run what: an admin's policy, and the signatures that it asks for.
//!
//! A component is judged before it is compiled, by where it came from and by who signed it. Whatever is not allowed is
//! refused: no rule, no signature, no answer of the registry. The room knows bytes, digests, keys and JSON; it reaches a
//! registry only through `Repository`, and knows neither Kubernetes nor Wasm.

mod claim;
mod evidence;
mod file;
mod key;
mod lookup;
mod pattern;
mod policy;
mod subject;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{
    claim::Flaw,
    evidence::Evidence,
    file::PolicyFile,
    lookup::{Found, search},
    policy::{Rule, list},
};
pub use self::{
    file::FileError,
    key::Key,
    lookup::{LARGEST_MANIFEST, LARGEST_SIGNATURE, Repository},
    policy::Policy,
    subject::{Image, Origin, Pin, Subject},
};
use crate::names::Digest;

/// How long all signatures of one image may be looked for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Flaws that a sentence names.
const SHOWN: usize = 3;

/// What the host trusts now, and how it comes to know of changes.
pub struct Trust {
    file: Option<PolicyFile>,
    standing: watch::Sender<Standing>,
    evidence: Evidence,
}

/// The policy in force.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    /// Nothing: there is no policy, and everything is allowed.
    policy: Option<Arc<Policy>>,
    /// Another one for each policy.
    version: u64,
    /// Why the newest version of the file is not in force.
    pub complaint: Option<Arc<str>>,
}

/// Why something may run.
#[derive(Debug, Clone, PartialEq)]
pub struct Approval {
    version: u64,
    pub because: Because,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Because {
    NoPolicy,
    /// The rule for these namespaces lets it in as it is.
    NotAsked {
        rule: String,
    },
    Signed {
        rule: String,
        key: Key,
        image: String,
    },
}

/// Why something may not run. Each is shown on the Plugin, and holds until policy, signatures or the Plugin change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    #[error("the host's trust policy has no rule for namespace `{namespace}`, so nothing may run in it: have an admin add one")]
    NoMatchingRule { namespace: String },
    #[error(
        "spec.source.oci.image: {image} is in no repository that the trust policy allows for {rule}: use one of {allowed}, or have an admin add it to `repositories`"
    )]
    RegistryNotAllowed { image: String, rule: String, allowed: String },
    #[error(
        "{origin}: the trust policy does not allow this kind of source for {rule}, because it cannot carry a signature: use a signed image, or have an admin allow it in `files` or `configMaps`"
    )]
    SourceNotAllowed { origin: String, rule: String },
    #[error(
        "spec.digest is missing, and the trust policy asks for it for {rule}: what is there now is {digest}; if that is what you want, write `digest: {digest}`"
    )]
    DigestRequired { rule: String, digest: Digest },
    #[error(
        "{image} is not signed, and the trust policy asks for it for {rule}: sign it with {keys}, as with `cosign sign --key cosign.key {image}`"
    )]
    NoSignature { image: String, rule: String, keys: String },
    #[error(
        "{image} has no signature by {keys}, which the trust policy asks for for {rule}; what is there: {flaws}. Sign it, as with `cosign sign --key cosign.key {image}`"
    )]
    WrongSignature { image: String, rule: String, keys: String, flaws: String },
    #[error("the signatures of {image} cannot be read, so it is not known whether it may run: {message}; it is tried again")]
    SignatureUnknown { image: String, message: String },
    /// What was fetched does not hang together; a registry that lies, or a fault of ours.
    #[error(
        "the manifest of {image} does not name {component}, the bytes that were fetched: they are not what is signed, so they are not loaded"
    )]
    OtherBytes { image: String, component: Digest },
}

impl TrustError {
    /// For the condition.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoMatchingRule { .. } => "NoMatchingRule",
            Self::RegistryNotAllowed { .. } => "RegistryNotAllowed",
            Self::SourceNotAllowed { .. } => "SourceNotAllowed",
            Self::DigestRequired { .. } => "DigestRequired",
            Self::NoSignature { .. } => "NoSignature",
            Self::WrongSignature { .. } => "WrongSignature",
            Self::SignatureUnknown { .. } => "SignatureUnknown",
            Self::OtherBytes { .. } => "OtherBytes",
        }
    }
}

impl Approval {
    /// For the condition.
    pub fn label(&self) -> &'static str {
        match self.because {
            Because::NoPolicy | Because::NotAsked { .. } => "NotRequired",
            Because::Signed { .. } => "Verified",
        }
    }
}

impl std::fmt::Display for Approval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.because {
            Because::NoPolicy => f.write_str("this host has no trust policy: whatever its sources hold is loaded"),
            Because::NotAsked { rule } => write!(f, "the trust policy asks for no signature of this source for {rule}"),
            Because::Signed { rule, key, image } => {
                write!(f, "{image} is signed with key {key}, as the trust policy asks for {rule}")
            }
        }
    }
}

impl Trust {
    /// Without a policy: everything is allowed.
    pub fn in_everything() -> Self {
        Self { file: None, standing: watch::Sender::default(), evidence: Evidence::nowhere() }
    }

    /// What this file says. Fails if it is no valid policy now; `follow` watches over what becomes of it.
    pub fn by(path: &Path, cache_dir: &Path) -> Result<Self, FileError> {
        let (file, policy) = PolicyFile::open(path)?;
        let standing = Standing { policy: Some(Arc::new(policy)), version: 1, complaint: None };
        let evidence = Evidence::below(cache_dir);
        Ok(Self { file: Some(file), standing: watch::Sender::new(standing), evidence })
    }

    /// Sees each change of the policy, and each attempt at one.
    pub fn changes(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// What there is to say where there is no policy.
    pub fn without_policy(&self) -> Option<Approval> {
        let Standing { policy, version, .. } = &*self.standing.borrow();
        policy.is_none().then_some(Approval { version: *version, because: Because::NoPolicy })
    }

    /// Why the newest version of the policy is not in force, if that is so.
    pub fn complaint(&self) -> Option<Arc<str>> {
        self.standing.borrow().complaint.clone()
    }

    /// The policy's file, if there is a policy, and whether its newest version is in force.
    pub fn state(&self) -> Option<(PathBuf, Option<Arc<str>>)> {
        let file = self.file.as_ref()?;
        Some((file.path().to_owned(), self.standing.borrow().complaint.clone()))
    }

    /// Takes over each new valid version of the file, until `stop`.
    pub async fn follow(&self, stop: CancellationToken) {
        let Some(file) = &self.file else { return };
        let mut file = file.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                read = file.changed() => self.take(&file, read),
            }
        }
    }

    fn take(&self, file: &PolicyFile, read: Result<Policy, FileError>) {
        let path = file.path().display();
        match read {
            Ok(policy) => {
                tracing::info!(file = %path, rules = policy.rules(), "the trust policy has changed");
                self.standing.send_modify(|standing| {
                    standing.complaint = None;
                    if standing.policy.as_deref() != Some(&policy) {
                        standing.policy = Some(Arc::new(policy));
                        standing.version += 1;
                    }
                });
            }
            Err(error) => {
                tracing::error!(%error, "the trust policy's new version is not valid; the last valid one stays in force");
                self.standing.send_modify(|standing| standing.complaint = Some(error.to_string().into()));
            }
        }
    }

    /// Whether this may run in its namespace. `repository` is where an image came from; `known`, what was said of the same
    /// subject before.
    pub async fn judge(
        &self,
        subject: &Subject,
        repository: Option<&dyn Repository>,
        known: Option<&Approval>,
    ) -> Result<Approval, TrustError> {
        let Standing { policy, version, .. } = self.standing.borrow().clone();
        if let Some(known) = known.filter(|known| known.version == version) {
            return Ok(known.clone());
        }
        let Some(policy) = policy else { return Ok(Approval { version, because: Because::NoPolicy }) };
        let rule = policy.rule(&subject.namespace)?;
        rule.allows(subject)?;
        let because = match &subject.origin {
            Origin::Image(image) if !rule.keys.is_empty() => {
                let key = self.signer(image, rule, repository).await?.clone();
                Because::Signed { rule: rule.to_string(), key, image: image.to_string() }
            }
            _ => Because::NotAsked { rule: rule.to_string() },
        };
        Ok(Approval { version, because })
    }

    async fn signer<'k>(
        &self,
        image: &Image,
        rule: &'k Rule,
        repository: Option<&dyn Repository>,
    ) -> Result<&'k Key, TrustError> {
        let kept = self.evidence.of(image).await;
        if let Some(key) = kept.iter().find_map(|claim| claim.approves(image.digests(), &rule.keys).ok()) {
            return Ok(key);
        }
        let unknown = |message: String| TrustError::SignatureUnknown { image: image.to_string(), message };
        let Some(repository) = repository else { return Err(unknown("its registry is not at hand".into())) };
        let late = |_| unknown(format!("the registry has not answered within {} s", PATIENCE.as_secs()));
        let found = tokio::time::timeout(PATIENCE, search(repository, image, &rule.keys)).await.map_err(late)?;
        let keys = list(rule.keys.iter().map(|key| key.name.to_string()));
        match found {
            Found::Approved { key, claim } => {
                self.evidence.keep(image, kept, claim).await;
                Ok(key)
            }
            Found::Unknown(message) => Err(unknown(message)),
            Found::Refused(flaws) if flaws.is_empty() => {
                Err(TrustError::NoSignature { image: image.to_string(), rule: rule.to_string(), keys })
            }
            Found::Refused(flaws) => {
                Err(TrustError::WrongSignature { image: image.to_string(), rule: rule.to_string(), keys, flaws: told(&flaws) })
            }
        }
    }
}

/// Each once, and not all of many.
fn told(flaws: &[Flaw]) -> String {
    let mut sentences: Vec<String> = Vec::new();
    for flaw in flaws {
        let sentence = flaw.to_string();
        if !sentences.contains(&sentence) {
            sentences.push(sentence);
        }
    }
    let more = sentences.len().saturating_sub(SHOWN);
    sentences.truncate(SHOWN);
    let shown = sentences.join("; ");
    if more == 0 { shown } else { format!("{shown}; and {more} more") }
}

#[cfg(test)]
mod tests;
