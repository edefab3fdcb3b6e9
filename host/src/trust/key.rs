//! A public key that signs components: read from PEM, known by name and fingerprint.
//!
//! The cryptography is ring's, which TLS has brought already; what is here is only which key is which.

use std::{fmt, sync::Arc};

use ring::{
    agreement, rand,
    signature::{self, UnparsedPublicKey, VerificationAlgorithm},
};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoOwned, der::DecodePem as _, der::Encode as _};

use crate::names::Digest;

const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// Bytes of an RSA key of 2048 bits, as PKCS #1 writes it; a shorter one cannot be trusted.
const SHORTEST_RSA: usize = 256;

/// One key of the policy.
#[derive(Clone)]
pub struct Key {
    pub name: Arc<str>,
    /// The sha256 of the key in DER, as `openssl pkey -pubin -outform DER | sha256sum` prints it.
    pub fingerprint: Digest,
    algorithm: &'static dyn VerificationAlgorithm,
    public: Vec<u8>,
}

/// Why a text is no key that signatures are checked with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("it is a private key: take it out of here, and put the public one there (`cosign public-key --key cosign.key`)")]
    Private,
    #[error("it is a certificate: put its public key there (`openssl x509 -pubkey -noout`)")]
    Certificate,
    #[error("it is no public key: put a PEM block `-----BEGIN PUBLIC KEY-----` there, as in the file `cosign.pub`")]
    Unreadable,
    #[error("it holds several PEM blocks: give each key a name of its own")]
    Several,
    #[error(
        "it is an Ed25519 key, with which cosign signs in a way that is not checked here (Ed25519ph): use ECDSA with P-256, what `cosign generate-key-pair` makes, or RSA of 2048 to 8192 bits"
    )]
    Ed25519,
    #[error(
        "its kind is not known here: use ECDSA with P-256, what `cosign generate-key-pair` makes, or RSA of 2048 to 8192 bits"
    )]
    Unknown,
}

impl Key {
    pub fn from_pem(name: &str, pem: &str) -> Result<Self, KeyError> {
        if pem.contains("PRIVATE KEY") {
            return Err(KeyError::Private);
        }
        if pem.contains("BEGIN CERTIFICATE") {
            return Err(KeyError::Certificate);
        }
        if pem.matches("-----BEGIN").count() > 1 {
            return Err(KeyError::Several);
        }
        let info = SubjectPublicKeyInfoOwned::from_pem(pem.trim()).map_err(|_| KeyError::Unreadable)?;
        let der = info.to_der().map_err(|_| KeyError::Unreadable)?;
        let public = info.subject_public_key.as_bytes().ok_or(KeyError::Unreadable)?.to_vec();
        let algorithm = algorithm(&info, &public)?;
        Ok(Self { name: name.into(), fingerprint: Digest::of(&der), algorithm, public })
    }

    /// Whether this key has signed exactly these bytes. `signature` is ASN.1 for ECDSA, and raw for RSA.
    pub fn has_signed(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm, &self.public).verify(bytes, signature).is_ok()
    }
}

fn algorithm(info: &SubjectPublicKeyInfoOwned, public: &[u8]) -> Result<&'static dyn VerificationAlgorithm, KeyError> {
    let curve = || info.algorithm.parameters.as_ref().and_then(|curve| curve.decode_as::<ObjectIdentifier>().ok());
    match info.algorithm.oid {
        EC if curve() == Some(P256) && is_on_curve(public) => Ok(&signature::ECDSA_P256_SHA256_ASN1),
        // Real cosign signs a hash with it (Ed25519ph), which ring does not know: it would never be found good.
        ED25519 => Err(KeyError::Ed25519),
        RSA if public.len() > SHORTEST_RSA => Ok(&signature::RSA_PKCS1_2048_8192_SHA256),
        _ => Err(KeyError::Unknown),
    }
}

/// A key with a typing error in it would only ever say "signed by somebody else". ring looks at a point when it agrees on
/// a secret with it.
fn is_on_curve(point: &[u8]) -> bool {
    let ours = agreement::EphemeralPrivateKey::generate(&agreement::ECDH_P256, &rand::SystemRandom::new());
    let theirs = agreement::UnparsedPublicKey::new(&agreement::ECDH_P256, point);
    ours.is_ok_and(|ours| agreement::agree_ephemeral(ours, &theirs, |_| ()).is_ok())
}

/// For people: `release (sha256:…)`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({})", self.name, self.fingerprint)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.fingerprint) == (&other.name, other.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    /// Made and used by openssl, which knows nothing of ring.
    const SIGNED: &[(&str, &str, &str)] = &[
        ("p256", include_str!("fixtures/openssl/p256.pub"), include_str!("fixtures/openssl/p256.sig")),
        ("rsa", include_str!("fixtures/openssl/rsa.pub"), include_str!("fixtures/openssl/rsa.sig")),
    ];

    #[test]
    fn each_kind_of_key_knows_its_own_signature_of_these_bytes_and_no_other() {
        for (name, pem, signature) in SIGNED {
            let key = Key::from_pem(name, pem).unwrap();
            let signature = STANDARD.decode(signature.trim()).unwrap();
            assert!(key.has_signed(b"reef", &signature), "{name}");
            assert!(!key.has_signed(b"reff", &signature), "{name}");
            let mut other = signature.clone();
            other.reverse();
            assert!(!key.has_signed(b"reef", &other) && !key.has_signed(b"reef", b""), "{name}");
            for (stranger, pem, _) in SIGNED.iter().filter(|(stranger, ..)| stranger != name) {
                assert!(!Key::from_pem(stranger, pem).unwrap().has_signed(b"reef", &signature), "{name} by {stranger}");
            }
        }
    }

    #[test]
    fn the_fingerprint_is_the_one_that_openssl_and_sha256sum_print() {
        let key = Key::from_pem("a", SIGNED[0].1).unwrap();
        assert_eq!(key.fingerprint.hex(), include_str!("fixtures/openssl/p256.sha256").trim());
    }

    #[test]
    fn what_is_no_public_key_is_told_apart_without_repeating_it() {
        let damaged = SIGNED[0].1.replacen("MFkw", "MFkx", 1);
        let (head, tail) = SIGNED[0].1.split_at(70);
        let off_curve = format!("{head}{}", tail.replacen(tail.get(..4).unwrap(), "AAAA", 1));
        for (pem, wanted) in [
            ("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nSECRET\n-----END", KeyError::Private),
            ("-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----", KeyError::Certificate),
            ("ssh-ed25519 AAAA", KeyError::Unreadable),
            ("", KeyError::Unreadable),
            (&damaged, KeyError::Unreadable),
            (&off_curve, KeyError::Unknown),
            (&SIGNED[0].1.repeat(2), KeyError::Several),
            (include_str!("fixtures/openssl/p384.pub"), KeyError::Unknown),
            (include_str!("fixtures/openssl/ed25519.pub"), KeyError::Ed25519),
            (include_str!("fixtures/openssl/rsa1024.pub"), KeyError::Unknown),
        ] {
            let error = Key::from_pem("a", pem).unwrap_err();
            assert_eq!(error, wanted, "{pem}");
            assert!(!error.to_string().contains("SECRET"));
        }
    }
}
