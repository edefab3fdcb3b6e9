//! Signatures: which ones count, in both of cosign's layouts.

use anyhow::ensure;
use reef_tests::{
    cosign::Version,
    world::{Scene, scene},
};
use serde_json::json;

use super::Stage;
use crate::hello;

/// Promises: L1, L3, L4, L7
/// Breaks it: loading before looking for a signature, any key, one of the two layouts only, or asking the registry each time.
#[test]
fn an_image_runs_once_a_trusted_key_has_signed_it_with_cosign_2_or_3_and_also_when_its_registry_is_down() {
    scene("signed", async |scene: &Scene<'_>| {
        let stage = Stage::set(scene).await?;
        stage.write_policy(&stage.policy(&json!({})).to_string())?;
        let mut host = stage.host().await?;
        for (version, component) in [(Version::V2, "hello"), (Version::V3, "hello-v2")] {
            let name = format!("team/{component}:1");
            let pushed = stage.push(component, &name)?;
            stage.install(&stage.registry.image(&name)).await?;
            let message = stage.refused("NoSignature").await?;
            hello::has(&message, &[&pushed.pinned, "is not signed", "`release`", "cosign sign --key"])?;

            stage.cosign.sign(version, "other", &pushed.pinned)?;
            let message = stage.refused("WrongSignature").await?;
            hello::has(&message, &[&pushed.pinned, "no signature by `release`", "made by another key"])?;

            stage.cosign.sign(version, "release", &pushed.pinned)?;
            stage.verified(&pushed).await?;
            hello::says(scene, &format!("SIGNED BY {version:?}")).await?;

            stage.registry.stop()?;
            scene.kill(&host).await?;
            host = stage.host().await?;
            stage.verified(&pushed).await?;
            hello::says(scene, &format!("AGAIN, BY {version:?}")).await?;
            stage.registry.start_again().await?;
        }
        Ok(())
    });
}

/// Promises: L1, L2, L3, L4
/// Breaks it: a signature of something else, a statement of something else, or a tag that is believed.
#[test]
fn copied_signatures_attestations_and_moved_tags_are_refused_and_the_last_good_one_runs_on() {
    scene("copied", async |scene: &Scene<'_>| {
        let stage = Stage::set(scene).await?;
        stage.write_policy(&stage.policy(&json!({})).to_string())?;
        stage.host().await?;
        let good = stage.push("hello", "team/hello:1")?;
        stage.cosign.sign(Version::V2, "release", &good.pinned)?;
        stage.cosign.sign(Version::V3, "release", &good.pinned)?;
        stage.install(&stage.registry.image("team/hello:1")).await?;
        stage.verified(&good).await?;

        // The tag leads elsewhere now, and somebody looks at it anew.
        let moved = stage.push("hello-v2", "team/hello:1")?;
        ensure!(moved.manifest != good.manifest, "nothing has moved");
        let spec = json!({ "image": stage.registry.image("team/hello:1"), "pullPolicy": "Always" });
        hello::plugin(scene, "hello", json!({ "source": { "oci": spec }, "serviceAccountName": "hello" })).await?;
        hello::has(&stage.refused("NoSignature").await?, &[&moved.manifest])?;
        let message = hello::plugin_says(scene, "hello", ("Ready", "True", "LastGood")).await?;
        hello::has(&message, &["runs on", "NoSignature", &moved.manifest])?;
        hello::says(scene, "the last good one").await?;

        // The other image's signatures, where its own would be.
        for end in [".sig", ""] {
            let tag = |manifest: &str| format!("{}{end}", manifest.replace(':', "-"));
            let from = stage.registry.image(&format!("team/hello:{}", tag(&good.manifest)));
            stage.registry.crane(&["tag", &from, &tag(&moved.manifest)])?;
        }
        let message = stage.refused("WrongSignature").await?;
        hello::has(&message, &["`release`", &format!("but for {}", good.manifest), &format!("refers to `{}`", good.manifest)])?;
        hello::says(scene, "still the last good one").await?;

        // The same key, but it says something else.
        let attested = stage.push("hello-v2", "team/attested:1")?;
        stage.cosign.attest(Version::V2, "release", &attested.pinned)?;
        stage.cosign.attest(Version::V3, "release", &attested.pinned)?;
        stage.install(&attested.pinned).await?;
        let message = stage.refused("WrongSignature").await?;
        hello::has(&message, &["`release`", "attestation", "which approves nothing"])?;
        hello::plugin_says(scene, "hello", ("Ready", "True", "LastGood")).await?;

        stage.cosign.sign(Version::V3, "release", &attested.pinned)?;
        stage.verified(&attested).await?;
        hello::set(scene, "loud").await?;
        crate::probe::config_says(scene, "greeting", "text", "LOUD").await?;
        Ok(())
    });
}
