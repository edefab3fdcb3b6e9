//! The policy: what it refuses without looking at a signature, and what becomes of changes to it.

use anyhow::{Context, Result, ensure};
use reef_tests::{
    cosign::Version,
    host::{Host, message},
    world::{Scene, scene},
};
use serde_json::json;

use super::Stage;
use crate::{hello, probe};

/// Promises: L1, L3, L4
/// Breaks it: a namespace without a rule that may run anything, or a rule that is looked at after the component.
#[test]
fn what_no_rule_lets_in_is_refused_with_the_rule_and_the_way_in() {
    scene("no-rule", async |scene: &Scene<'_>| {
        let stage = Stage::set(scene).await?;
        let image = stage.push("hello", "elsewhere/hello:1")?;
        let tagged = stage.registry.image("elsewhere/hello:1");
        let elsewhere =
            json!({ "repositories": [format!("{}/elsewhere/*", stage.registry.host())], "keys": [], "signature": "optional" });
        stage.write_policy(&stage.policy(&json!({ "namespaces": ["somebody-else"] })).to_string())?;
        stage.host().await?;
        stage.install(&tagged).await?;
        let message = stage.refused("NoMatchingRule").await?;
        hello::has(&message, &[&scene.namespace, "have an admin add one"])?;

        stage.write_policy(&stage.policy(&json!({})).to_string())?;
        let message = stage.refused("RegistryNotAllowed").await?;
        hello::has(&message, &["spec.source.oci.image", "elsewhere/hello", &format!("`{}/team/**`", stage.registry.host())])?;

        let mut rule = elsewhere.clone();
        rule["digest"] = "required".into();
        stage.write_policy(&stage.policy(&rule).to_string())?;
        let message = stage.refused("DigestRequired").await?;
        hello::has(&message, &["spec.digest", &format!("write `digest: {}`", image.component)])?;
        stage.install_with(&tagged, json!({ "digest": image.component })).await?;
        hello::plugin_says(scene, "hello", ("Verified", "True", "NotRequired")).await?;
        hello::says(scene, "pinned by its bytes").await?;
        stage.install(&image.pinned).await?;
        hello::plugin_says(scene, "hello", ("Verified", "True", "NotRequired")).await?;
        hello::says(scene, "pinned by its manifest").await?;

        scene.place("hello.wasm", &hello::component("hello")?)?;
        hello::plugin(scene, "hello", json!({ "source": { "file": "hello.wasm" }, "serviceAccountName": "hello" })).await?;
        let message = stage.refused("SourceNotAllowed").await?;
        hello::has(&message, &["spec.source.file: `hello.wasm`", "cannot carry a signature"])?;
        rule["files"] = "pinned".into();
        rule["digest"] = "optional".into();
        stage.write_policy(&stage.policy(&rule).to_string())?;
        hello::has(&stage.refused("DigestRequired").await?, &["spec.digest"])?;
        rule["files"] = "allowed".into();
        stage.write_policy(&stage.policy(&rule).to_string())?;
        hello::plugin_says(scene, "hello", ("Ready", "True", "Ready")).await?;
        hello::says(scene, "from a file").await
    });
}

/// Promises: L2, L3, L4, O3, O5
/// Breaks it: a typing error that stops everything or lets everything in; or a last good revision that outlives its permission.
#[test]
fn an_invalid_policy_changes_nothing_and_is_told_and_a_valid_one_holds_for_what_runs() {
    scene("policy", async |scene: &Scene<'_>| {
        let stage = Stage::set(scene).await?;
        stage.write_policy(&stage.policy(&json!({})).to_string())?;
        let host = stage.host().await?;
        let pushed = stage.push("hello", "team/hello:1")?;
        stage.cosign.sign(Version::V3, "release", &pushed.pinned)?;
        stage.install(&pushed.pinned).await?;
        ensure!(!stage.verified(&pushed).await?.contains("not in force"), "it complains without a reason");
        ensure!(current(&host).await? == 1.0, "the policy is not current");

        stage.write_policy("rules: [")?;
        host.wait_for_log("tells of the invalid policy", |line| message(line).contains("the last valid one stays in force"))
            .await?;
        probe::until("the metric shows it", || async { current(&host).await.is_ok_and(|value| value == 0.0) }).await?;
        let told = "`Verified` tells of it";
        let plugin = scene.cluster().wait(probe::PLUGIN, &scene.namespace, "hello", told, |plugin| {
            plugin.is_some_and(|plugin| hello::sentence(plugin, "Verified").contains("not in force: trust policy"))
        });
        hello::has(&hello::sentence(&plugin.await?, "Verified"), &["`release`", "policy.yaml", " at line "])?;
        stage.verified(&pushed).await?;
        hello::says(scene, "as before").await?;

        stage.write_policy(&stage.policy(&json!({})).to_string())?;
        probe::until("the metric shows that it is well", || async { current(&host).await.is_ok_and(|value| value == 1.0) })
            .await?;
        scene
            .cluster()
            .wait(probe::PLUGIN, &scene.namespace, "hello", "no longer tells of it", |plugin| {
                plugin.is_some_and(|plugin| !hello::sentence(plugin, "Verified").contains("not in force"))
            })
            .await?;

        let forbidden = json!({ "repositories": [format!("{}/other/**", stage.registry.host())] });
        stage.write_policy(&stage.policy(&forbidden).to_string())?;
        stage.refused("RegistryNotAllowed").await?;
        hello::plugin_says(scene, "hello", ("Ready", "False", "RegistryNotAllowed")).await?;
        let verified =
            host.metrics().await?.sum("reef_plugin_verified", &[("controller", &format!("{}/hello", scene.namespace))]);
        ensure!(verified == 0.0, "{verified}");
        hello::set(scene, "nobody reads this").await?;
        let config = scene.cluster().get(probe::CONFIG, &scene.namespace, "greeting").await?.context("its child is gone")?;
        ensure!(config["data"]["text"] == "as before", "it runs on: {config}");

        stage.write_policy(&stage.policy(&json!({})).to_string())?;
        stage.verified(&pushed).await?;
        probe::config_says(scene, "greeting", "text", "nobody reads this").await?;
        let stopped = host.log().iter().filter(|line| message(line).contains("the trust policy no longer allows it")).count();
        ensure!(stopped == 1, "it was stopped {stopped} times");
        Ok(())
    });
}

async fn current(host: &Host) -> Result<f64> {
    Ok(host.metrics().await?.sum("reef_trust_policy_current", &[]))
}
