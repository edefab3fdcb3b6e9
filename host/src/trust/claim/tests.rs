//! Claims as real cosign made them, and what somebody without a key could make of them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::*;
use crate::trust::tests::recorded::Recording;

fn recording() -> Recording {
    Recording::read()
}

/// The claim on an image, however it was found.
fn claim_on(recording: &Recording, image: &str) -> Claim {
    recording.claims(image).into_iter().next().unwrap()
}

#[test]
fn what_cosign_2_and_3_have_signed_approves_this_digest_by_this_key_and_nothing_else() {
    let recording = recording();
    let keys = recording.keys(&["release", "rsa"]);
    for version in ["v2", "v3"] {
        for name in ["release", "rsa"] {
            let image = format!("{version}-{name}");
            let (claim, digest) = (claim_on(&recording, &image), recording.digest(&image));
            assert_eq!(&*claim.approves(&[digest], &keys).unwrap().name, name, "{image}");
            let other = Digest::of(b"other");
            assert!(matches!(claim.approves(&[other], &keys), Err(Flaw::OtherDigest { .. })), "{image}");
            assert!(matches!(claim.approves(&[], &keys), Err(Flaw::OtherDigest { .. })), "{image}");
            assert_eq!(claim.approves(&[digest], &recording.keys(&["other"])), Err(Flaw::Stranger), "{image}");
            assert_eq!(claim.approves(&[digest], &[]), Err(Flaw::Stranger), "{image}");
        }
    }
}

#[test]
fn an_attestation_by_the_same_key_approves_nothing() {
    let recording = recording();
    let keys = recording.keys(&["release"]);
    let flaw = claim_on(&recording, "v3-attested").approves(&[recording.digest("v3-attested")], &keys);
    let Err(Flaw::NoApproval { key, what }) = flaw else { panic!("{flaw:?}") };
    assert!(key.contains("`release`") && what.contains("://"), "{key} {what}");
}

/// A bundle of the recording with something in it changed.
fn bundle(recording: &Recording, change: impl FnOnce(&mut Value)) -> Claim {
    let Claim::Bundle(text) = claim_on(recording, "v3-release") else { panic!("no bundle") };
    let mut value: Value = serde_json::from_str(&text).unwrap();
    change(&mut value);
    Claim::Bundle(value.to_string())
}

#[test]
fn whatever_is_changed_in_an_envelope_its_signature_is_no_longer_ours() {
    let recording = recording();
    let (digest, keys) = (recording.digest("v3-release"), recording.keys(&["release"]));
    assert!(bundle(&recording, |_| ()).approves(&[digest], &keys).is_ok());
    let payload = |text: String| STANDARD.encode(text);
    let other = Digest::of(b"other");
    let statement = json!({"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "subject": [{"digest": {"sha256": other.hex()}}]});
    let changes: [(&str, Value); 3] = [
        ("payload", payload(statement.to_string()).into()),
        ("payload", payload("{}".into()).into()),
        ("payloadType", "application/vnd.in-toto".into()),
    ];
    for (field, value) in changes {
        let claim = bundle(&recording, |bundle| bundle["dsseEnvelope"][field] = value);
        assert_eq!(claim.approves(&[digest, other], &keys), Err(Flaw::Stranger), "{field}");
    }
}

#[test]
fn what_is_no_bundle_and_no_payload_says_what_is_wrong_with_it() {
    let recording = recording();
    let (digest, keys) = (recording.digest("v3-release"), recording.keys(&["release"]));
    let cases = [
        (Claim::Bundle("[]".into()), "the bundle"),
        (Claim::Bundle("{".into()), "the bundle"),
        (Claim::Bundle("{}".into()), "no envelope"),
        (Claim::Bundle(r#"{"messageSignature":{}}"#.into()), "of a file, not of an image"),
        (bundle(&recording, |bundle| bundle["dsseEnvelope"]["payload"] = "%".into()), "its payload is not base64"),
        (bundle(&recording, |bundle| bundle["dsseEnvelope"]["signatures"][0]["sig"] = "%".into()), "a signature is not base64"),
        (Claim::Simple { payload: "{}".into(), signature: "%".into() }, "the annotation is not base64"),
    ];
    for (claim, part) in cases {
        let flaw = claim.approves(&[digest], &keys).unwrap_err();
        assert!(flaw.to_string().contains(part), "{flaw}");
    }
    let none = bundle(&recording, |bundle| bundle["dsseEnvelope"]["signatures"] = json!([]));
    assert_eq!(none.approves(&[digest], &keys), Err(Flaw::Stranger));
}

/// Signs as openssl would, with a key of the test's own.
mod own {
    use ring::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
    };

    use super::*;

    pub struct Pair(EcdsaKeyPair);

    impl Pair {
        pub fn new() -> Self {
            let random = SystemRandom::new();
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
            Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap())
        }

        pub fn key(&self) -> Key {
            // The header of a P-256 key in DER; the point follows.
            let mut der = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
            der.extend_from_slice(self.0.public_key().as_ref());
            let text = STANDARD.encode(der);
            let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
            Key::from_pem("own", &format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n")))
                .unwrap()
        }

        pub fn sign(&self, bytes: &[u8]) -> String {
            STANDARD.encode(self.0.sign(&SystemRandom::new(), bytes).unwrap())
        }

        pub fn simple(&self, payload: &Value) -> Claim {
            Claim::Simple { signature: self.sign(payload.to_string().as_bytes()), payload: payload.to_string() }
        }

        pub fn bundle(&self, payload_type: &str, statement: &Value) -> Claim {
            let statement = statement.to_string();
            let encoded = format!("DSSEv1 {} {payload_type} {} {statement}", payload_type.len(), statement.len());
            let envelope = json!({"payload": STANDARD.encode(&statement), "payloadType": payload_type,
                "signatures": [{"sig": self.sign(encoded.as_bytes())}]});
            Claim::Bundle(json!({ "dsseEnvelope": envelope }).to_string())
        }
    }
}

#[test]
fn a_text_that_our_key_has_signed_approves_only_if_it_says_so() {
    let pair = own::Pair::new();
    let (keys, digest) = ([pair.key()], Digest::of(b"image"));
    let simple = |what: &str, digest: &str| {
        pair.simple(&json!({"critical": {"identity": {}, "image": {"docker-manifest-digest": digest}, "type": what}}))
    };
    assert!(simple("cosign container image signature", &digest.to_string()).approves(&[digest], &keys).is_ok());
    let flaw = simple("something else", &digest.to_string()).approves(&[digest], &keys).unwrap_err();
    assert!(matches!(&flaw, Flaw::NoApproval { what, .. } if what == "something else"), "{flaw}");
    for other in ["", "sha256:", &digest.hex(), &digest.to_string().to_uppercase()] {
        let flaw = simple("cosign container image signature", other).approves(&[digest], &keys).unwrap_err();
        assert!(matches!(flaw, Flaw::OtherDigest { .. }), "{other}: {flaw}");
    }
    for odd in [json!({}), json!([]), json!({"critical": {"type": "cosign container image signature"}})] {
        assert!(matches!(pair.simple(&odd).approves(&[digest], &keys), Err(Flaw::Malformed(_))), "{odd}");
    }

    let statement =
        |type_: &str, predicate: &str, subject: Value| json!({"_type": type_, "predicateType": predicate, "subject": subject});
    let (v1, sign, subject) =
        ("https://in-toto.io/Statement/v1", "https://sigstore.dev/cosign/sign/v1", json!([{"digest": {"sha256": digest.hex()}}]));
    let intoto = "application/vnd.in-toto+json";
    assert!(pair.bundle(intoto, &statement(v1, sign, subject.clone())).approves(&[digest], &keys).is_ok());
    for (payload_type, statement, what) in [
        ("text/plain", statement(v1, sign, subject.clone()), "text/plain"),
        (intoto, statement("https://example.com", sign, subject.clone()), "https://example.com"),
        (intoto, statement(v1, "https://slsa.dev/provenance/v1", subject.clone()), "https://slsa.dev/provenance/v1"),
    ] {
        let flaw = pair.bundle(payload_type, &statement).approves(&[digest], &keys).unwrap_err();
        assert!(matches!(&flaw, Flaw::NoApproval { what: said, .. } if said == what), "{flaw}");
    }
    for subject in
        [json!([]), json!([{"digest": {"sha512": digest.hex()}}]), json!([{"digest": {"sha256": Digest::of(b"o").hex()}}])]
    {
        let claim = pair.bundle(intoto, &statement(v1, sign, subject.clone()));
        assert!(matches!(claim.approves(&[digest], &keys), Err(Flaw::OtherDigest { .. })), "{subject}");
    }
}

#[test]
fn what_an_attacker_wrote_is_cut_before_it_stands_in_a_condition() {
    assert_eq!(shown(&"x\u{7}\n".repeat(500)).len(), 120);
}
