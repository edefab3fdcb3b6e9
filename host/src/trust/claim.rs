//! What a signature claims, and whether one of our keys claims it: cosign's two forms, without a registry. Pure.
//!
//! A signature is checked first and read afterwards, so nothing of an unsigned text is ever believed.

mod bundle;
mod simple;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::key::Key;
use crate::names::Digest;

/// Of the layer that is a payload of cosign 2, whose signature stands in the layer's annotation.
pub const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Of the layer that is a sigstore bundle of cosign 3, whatever its version is.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
/// The annotation of a simple-signing layer.
pub const ANNOTATION: &str = "dev.cosignproject.cosign/signature";

/// A signature as it was found, not yet checked. It proves itself, so it may be kept anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Claim {
    /// The payload, and the text of the annotation.
    Simple { payload: String, signature: String },
    /// The whole bundle, JSON.
    Bundle(String),
}

/// Why a signature approves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("made by another key")]
    Stranger,
    #[error("by {key}, but for {digest}")]
    OtherDigest { key: String, digest: String },
    /// Signed by our key, and says something else than "this may run".
    #[error("by {key}, but it says `{what}`, which approves nothing")]
    NoApproval { key: String, what: String },
    /// A registry that lists it here, or somebody who has copied the list.
    #[error("{referrer} refers to `{subject}`")]
    OtherSubject { referrer: Digest, subject: String },
    #[error("not readable: {0}")]
    Malformed(String),
    /// What comes after them was not looked at.
    #[error("only the first {0} were looked at: remove what is not a signature from the repository")]
    TooMany(usize),
}

impl Claim {
    /// The key that approves one of these digests, if one does.
    pub fn approves<'a>(&self, digests: &[Digest], keys: &'a [Key]) -> Result<&'a Key, Flaw> {
        match self {
            Self::Simple { payload, signature } => simple::approves(payload.as_bytes(), signature, digests, keys),
            Self::Bundle(bundle) => bundle::approves(bundle.as_bytes(), digests, keys),
        }
    }
}

fn signer<'a>(keys: &'a [Key], bytes: &[u8], signature: &[u8]) -> Option<&'a Key> {
    keys.iter().find(|key| key.has_signed(bytes, signature))
}

/// Refused unless it is one of ours, as `sha256` of a signed text says it.
fn is_meant(key: &Key, digest: &str, digests: &[Digest]) -> Result<(), Flaw> {
    if digest.parse().is_ok_and(|digest: Digest| digests.contains(&digest)) {
        return Ok(());
    }
    Err(Flaw::OtherDigest { key: key.to_string(), digest: shown(digest) })
}

fn base64(what: &str, text: &str) -> Result<Vec<u8>, Flaw> {
    STANDARD.decode(text.trim()).map_err(|_| Flaw::Malformed(format!("{what} is not base64")))
}

fn json<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, Flaw> {
    serde_json::from_slice(bytes).map_err(|error| Flaw::Malformed(format!("{what}: {error}")))
}

/// A text of somebody else's, short enough for a sentence.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

#[cfg(test)]
mod tests;
