//! The form of cosign 3: a sigstore bundle with an in-toto statement in a DSSE envelope. What else a bundle may carry
//! (a certificate, an entry of a transparency log) is not asked for here: the key alone decides.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Flaw, Key, base64, is_meant, json, shown, signer};
use crate::names::Digest;

/// What a statement is that approves an image; everything else is an attestation.
const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
const PAYLOAD: &str = "application/vnd.in-toto+json";
const STATEMENTS: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
/// Signatures of one envelope that are looked at.
const MOST_SIGNATURES: usize = 8;
/// Subjects of one statement that are looked at.
const MOST_SUBJECTS: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle<'a> {
    dsse_envelope: Option<Envelope>,
    /// `cosign sign-blob` makes these.
    #[serde(borrow)]
    message_signature: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    type_: String,
    predicate_type: String,
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
}

pub fn approves<'a>(bundle: &[u8], digests: &[Digest], keys: &'a [Key]) -> Result<&'a Key, Flaw> {
    let Bundle { dsse_envelope, message_signature } = json("the bundle", bundle)?;
    let Some(envelope) = dsse_envelope else {
        let what = if message_signature.is_some() { "a signature of a file, not of an image" } else { "no envelope in it" };
        return Err(Flaw::Malformed(what.into()));
    };
    let payload = base64("its payload", &envelope.payload)?;
    let key = signed(&envelope, &payload, keys)?;
    let no_approval = |what: &str| Err(Flaw::NoApproval { key: key.to_string(), what: shown(what) });
    if envelope.payload_type != PAYLOAD {
        return no_approval(&envelope.payload_type);
    }
    let statement: Statement = json("its statement", &payload)?;
    if !STATEMENTS.contains(&&*statement.type_) {
        return no_approval(&statement.type_);
    }
    if statement.predicate_type != PREDICATE {
        return no_approval(&statement.predicate_type);
    }
    let subjects = statement.subject.iter().take(MOST_SUBJECTS);
    let named: Vec<String> =
        subjects.filter_map(|subject| subject.digest.get("sha256")).map(|hex| format!("sha256:{hex}")).collect();
    match named.iter().find(|digest| is_meant(key, digest, digests).is_ok()) {
        Some(_) => Ok(key),
        None => {
            let digest = named.first().map_or_else(|| "nothing".into(), |digest| shown(digest));
            Err(Flaw::OtherDigest { key: key.to_string(), digest })
        }
    }
}

fn signed<'a>(envelope: &Envelope, payload: &[u8], keys: &'a [Key]) -> Result<&'a Key, Flaw> {
    let bytes = encoding(&envelope.payload_type, payload);
    for Signature { sig } in envelope.signatures.iter().take(MOST_SIGNATURES) {
        if let Some(key) = signer(keys, &bytes, &base64("a signature", sig)?) {
            return Ok(key);
        }
    }
    Err(Flaw::Stranger)
}

/// DSSE's pre-authentication encoding: what is really signed, so that a payload cannot be passed off as another type.
fn encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}
