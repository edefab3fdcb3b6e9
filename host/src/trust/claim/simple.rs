//! The form of cosign 2: a JSON payload that names a manifest's digest, signed as it stands.

use serde::Deserialize;

use super::{Flaw, Key, base64, is_meant, json, shown, signer};
use crate::names::Digest;

/// What a payload is that approves an image.
const TYPE: &str = "cosign container image signature";

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

/// `identity`, the repository it was pushed to, is not looked at: an image may be copied together with its signature, and
/// the policy says where it may come from.
#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    type_: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

pub fn approves<'a>(payload: &[u8], signature: &str, digests: &[Digest], keys: &'a [Key]) -> Result<&'a Key, Flaw> {
    let signature = base64("the annotation", signature)?;
    let key = signer(keys, payload, &signature).ok_or(Flaw::Stranger)?;
    let Payload { critical } = json("its payload", payload)?;
    if critical.type_ != TYPE {
        return Err(Flaw::NoApproval { key: key.to_string(), what: shown(&critical.type_) });
    }
    is_meant(key, &critical.image.digest, digests)?;
    Ok(key)
}
