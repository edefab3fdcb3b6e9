//! Searches in a registry as real cosign left it, and in one that misbehaves.

use std::sync::atomic::Ordering;

use super::*;
use crate::trust::tests::recorded::Recording;

/// Who approves, or why nobody does.
async fn found(recording: &Recording, image: &str, keys: &[&str]) -> Result<String, Vec<String>> {
    let keys = recording.keys(keys);
    match search(recording, &recording.image(image), &keys).await {
        Found::Approved { key, .. } => Ok(key.name.to_string()),
        Found::Refused(flaws) => Err(flaws.iter().map(ToString::to_string).collect()),
        Found::Unknown(message) => Err(vec![format!("unknown: {message}")]),
    }
}

#[tokio::test]
async fn signatures_of_both_versions_are_found_whoever_else_has_signed() {
    let recording = Recording::read();
    for version in ["v2", "v3"] {
        for key in ["release", "other", "rsa"] {
            let image = format!("{version}-{key}");
            assert_eq!(found(&recording, &image, &["release", "other", "rsa"]).await, Ok(key.into()), "{image}");
        }
        assert_eq!(found(&recording, &format!("{version}-twice"), &["release"]).await, Ok("release".into()));
        assert_eq!(found(&recording, &format!("{version}-twice"), &["other"]).await, Ok("other".into()));
    }
    assert_eq!(found(&recording, "both-versions", &["release"]).await, Ok("release".into()));
}

#[tokio::test]
async fn nothing_another_key_a_copied_signature_and_an_attestation_are_told_apart() {
    let recording = Recording::read();
    assert_eq!(found(&recording, "unsigned", &["release"]).await, Err(Vec::new()));
    // Where cosign 2 puts attestations, nobody looks for a signature.
    assert_eq!(found(&recording, "v2-attested", &["release"]).await, Err(Vec::new()));
    for (image, part) in [
        ("v2-other", "made by another key".to_owned()),
        ("v3-other", "made by another key".to_owned()),
        ("v2-copied", format!("but for {}", recording.digest("v2-release"))),
        ("v3-copied", format!("but for {}", recording.digest("v3-release"))),
        ("v3-attested", "which approves nothing".to_owned()),
    ] {
        let flaws = found(&recording, image, &["release"]).await.unwrap_err();
        assert!(flaws.len() == 1 && flaws[0].contains(&part), "{image}: {flaws:?}");
    }
}

#[tokio::test]
async fn a_registry_that_fails_or_lies_approves_nothing_and_a_failure_is_not_an_absence() {
    let mut recording = Recording::read();
    recording.failure = Some("503 from r.example".into());
    assert_eq!(found(&recording, "unsigned", &["release"]).await, Err(vec!["unknown: 503 from r.example".into()]));

    let mut recording = Recording::read();
    recording.blobs.values_mut().for_each(|blob| blob.push(' '));
    recording.manifests.iter_mut().filter(|(name, _)| name.contains(':')).for_each(|(_, manifest)| manifest.push(' '));
    for image in ["v2-release", "v3-release"] {
        let flaws = found(&recording, image, &["release"]).await.unwrap_err();
        assert!(flaws[0].contains("is not what its digest says"), "{flaws:?}");
    }

    let mut recording = Recording::read();
    recording.blobs.clear();
    assert!(found(&recording, "v2-release", &["release"]).await.unwrap_err()[0].contains("a layer is not there"));

    // Another image's signatures, named as this one's.
    let mut recording = Recording::read();
    let signed = recording.referrers[&recording.digest("v3-release").to_string()].clone();
    recording.referrers.insert(recording.digest("unsigned").to_string(), signed);
    assert!(found(&recording, "unsigned", &["release"]).await.unwrap_err()[0].contains("refers to `sha256:"));

    let mut recording = Recording::read();
    let tag = format!("sha256-{}.sig", recording.digest("unsigned").hex());
    for (manifest, part) in [
        ("[[", "does not parse"),
        (r#"{"layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"sha512:1"}]}"#, "not a sha256"),
        (
            r#"{"layers":[{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","size":9999999,"digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000"}]}"#,
            "larger than any signature",
        ),
    ] {
        recording.manifests.insert(tag.clone(), manifest.into());
        let flaws = found(&recording, "unsigned", &["release"]).await.unwrap_err();
        assert!(flaws[0].contains(part), "{flaws:?}");
    }
}

#[tokio::test]
async fn a_flood_of_signatures_is_looked_at_up_to_a_bound_and_that_is_said() {
    let mut recording = Recording::read();
    let digest = recording.digest("unsigned");
    let one = recording.referrers[&recording.digest("v3-other").to_string()][0].clone();
    recording.referrers.insert(digest.to_string(), vec![one; 10_000]);
    let flaws = found(&recording, "unsigned", &["release"]).await.unwrap_err();
    assert!(flaws.last().unwrap().contains("only the first 64 were looked at"), "{flaws:?}");
    assert!(recording.asked.load(Ordering::Relaxed) < 100);

    let layer = format!(r#"{{"mediaType":"{SIMPLE}","digest":"{}"}}"#, recording.blobs.keys().next().unwrap());
    let layers = vec![layer; 10_000].join(",");
    recording.manifests.insert(format!("sha256-{}.sig", digest.hex()), format!(r#"{{"layers":[{layers}]}}"#));
    recording.asked.store(0, Ordering::Relaxed);
    found(&recording, "unsigned", &["release"]).await.unwrap_err();
    assert!(recording.asked.load(Ordering::Relaxed) < 100);
}
