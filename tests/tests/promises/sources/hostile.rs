//! A registry that does everything wrong, one thing at a time.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reef_tests::{
    cluster::condition,
    scripted::{Asked, MEDIA_TYPES, Misbehaviour, Scripted},
    world::{Scene, scene},
};
use serde_json::Value;

use super::*;
use crate::probe;

/// What is wrong, how it is called in the condition, and a part of the sentence.
struct Case {
    name: &'static str,
    /// The registry does this; or, if it is `None`, the tag of this name holds what is wrong.
    does: Misbehaviour,
    reason: &'static str,
    says: &'static str,
}

const fn does(name: &'static str, does: Misbehaviour, reason: &'static str, says: &'static str) -> Case {
    Case { name, does, reason, says }
}

const fn holds(name: &'static str, reason: &'static str, says: &'static str) -> Case {
    Case { name, does: Misbehaviour::None, reason, says }
}

fn cases() -> Vec<Case> {
    use Misbehaviour as M;
    vec![
        does("wrong-blob", M::WrongBlob, "WrongDigest", "does not give what was asked for"),
        does("wrong-manifest", M::WrongManifest, "WrongDigest", "does not give what was asked for"),
        does("truncated", M::TruncatedBlob, "RegistryUnreachable", "broke off"),
        does("endless-blob", M::EndlessBlob, "TooLarge", "the most that is read"),
        does("endless-manifest", M::EndlessManifest, "TooLarge", "the most that is read"),
        does("oversize-manifest", M::OversizeManifest, "TooLarge", "is larger than 4Mi"),
        does("slow-blob", M::SlowBlob, "RegistrySlow", "did not come within"),
        does("silent", M::SilentManifest, "RegistrySlow", "did not come within"),
        does("garbage", M::Garbage, "RegistryAnswer", "makes no sense"),
        does("endless-token", M::EndlessToken, "TooLarge", "the token"),
        does("401", M::Status(401, None), "Unauthorized", "answers 401"),
        does("403", M::Status(403, None), "Forbidden", "answers 403"),
        does("404", M::Status(404, None), "NotFound", "answers 404"),
        does("429", M::Status(429, Some(2)), "Throttled", "answers 429 (`SCRIPTED as the test says`)"),
        does("500", M::Status(500, None), "RegistryError", "answers 500"),
        does("503", M::Status(503, Some(1)), "RegistryError", "answers 503"),
        does("redirect-loop", M::RedirectLoop, "Redirected", "too many redirects"),
        holds("two-layers", "NotAComponent", "2 layers with Wasm"),
        holds("no-layer", "NotAComponent", "it has no layer of a Wasm component"),
        holds("text", "NotAComponent", "it is not Wasm"),
        holds("core-module", "NotAComponent", "it is a core module"),
        holds("index-without-wasm", "NotAComponent", "an index without an entry for wasm"),
        holds("index-loop", "NotAComponent", "an index of an index"),
    ]
}

/// Puts under the case's tag what is wrong with it.
fn spoil(registry: &Scripted, name: &str, good: &[u8]) {
    let wasm = "application/wasm";
    match name {
        "two-layers" => registry.put_layers(name, &[(wasm, good), (wasm, b"\0asm\x0d\0\x01\0another")]),
        "no-layer" => registry.put_layers(name, &[("application/vnd.oci.image.layer.v1.tar+gzip", good)]),
        "text" => registry.put_layers(name, &[(wasm, b"#!/bin/sh")]),
        "core-module" => registry.put_layers(name, &[(wasm, b"\0asm\x01\0\0\0")]),
        "index-without-wasm" => {
            let image = registry.put_component("image", good);
            registry.put_index(name, &[(MEDIA_TYPES.0, &image, "linux", "amd64")])
        }
        "index-loop" => {
            let inner = registry.put_index("inner", &[(MEDIA_TYPES.1, &reef_tests::scripted::digest(b"x"), "wasip2", "wasm")]);
            registry.put_index(name, &[(MEDIA_TYPES.1, &inner, "wasip2", "wasm")])
        }
        _ => registry.put_component(name, good),
    };
}

/// Whatever the registry does, what ran before runs on, the condition says why, nothing of it is loaded, and once the registry
/// behaves, what was wanted runs, without anybody having touched anything.
///
/// Promises: L1, L2, L3, L4
/// Breaks it: bytes that are believed, a limit that is not there, a failure that is final, or one that stops what runs.
#[test]
fn whatever_a_registry_does_wrong_is_never_loaded_the_last_good_runs_and_it_heals_by_itself() {
    scene("hostile", async |scene: &Scene<'_>| {
        let registry = Scripted::start().await?;
        let host = scene.host_with(&options(scene, &[registry.entry()], &[])?).await?;
        hello::install_account(scene, |_| true).await?;
        let components = [hello::component("hello")?, hello::component("hello-v2")?];
        let digests = [digest_of("hello")?, digest_of("hello-v2")?];
        registry.put_component("good", &components[0]);
        from_image(scene, &registry.image("hello:good")).await?;
        runs(scene, &digests[0]).await?;
        let before = host.resident()?;
        let mut failures = Vec::new();
        for (n, case) in cases().iter().enumerate() {
            let (old, new) = (n % 2, (n + 1) % 2);
            spoil(&registry, case.name, &components[new]);
            // Each in a repository of its own: nothing is in the cache.
            let image = registry.image(&format!("hello-{n}:{}", case.name));
            registry.misbehaves(case.does.clone());
            from_image(scene, &image).await?;
            if let Err(error) = last_good_runs(scene, case, &digests[old], n).await {
                failures.push(format!("case {}: {error:#}", case.name));
            }
            registry.put_component(case.name, &components[new]);
            registry.misbehaves(Misbehaviour::None);
            runs(scene, &digests[new]).await.with_context(|| format!("case {} does not heal", case.name))?;
        }
        ensure!(failures.is_empty(), "{}", failures.join("\n"));
        let grown = host.resident()?.saturating_sub(before);
        ensure!(grown < 200 << 20, "the host has grown by {} MiB", grown >> 20);
        Ok(())
    });
}

async fn last_good_runs(scene: &Scene<'_>, case: &Case, digest: &str, n: usize) -> Result<()> {
    wrong(scene, case).await?;
    let status = status(scene).await?;
    ensure!(status["digest"] == digest, "another component runs: {status}");
    // Whichever runs says it so.
    hello::says(scene, &format!("{n}")).await
}

async fn wrong(scene: &Scene<'_>, case: &Case) -> Result<()> {
    let said = |plugin: Option<&Value>| {
        let generation = plugin.map(|plugin| &plugin["metadata"]["generation"]);
        let (resolved, ready) = (condition(plugin, "Resolved"), condition(plugin, "Ready"));
        resolved.is_some_and(|c| {
            c["status"] == "False"
                && c["reason"] == case.reason
                && Some(&c["observedGeneration"]) == generation
                && c["message"].as_str().is_some_and(|message| message.contains(case.says))
        }) && ready.is_some_and(|c| c["status"] == "True" && c["reason"] == "LastGood")
    };
    let what = format!("says {}: {}, and runs the last good", case.reason, case.says);
    scene.cluster().wait(PLUGIN, &scene.namespace, "hello", &what, said).await.map(drop)
}

/// Asking again at once would make it worse.
///
/// Promises: L4
/// Breaks it: `Retry-After` that nobody reads, or a wait that does not grow.
#[test]
fn a_registry_that_asks_for_patience_is_left_alone_for_as_long() {
    scene("patience", async |scene: &Scene<'_>| {
        let registry = Scripted::start().await?;
        scene.host_with(&options(scene, &[registry.entry()], &[])?).await?;
        hello::install_account(scene, |_| true).await?;
        registry.put_component("1.0", &hello::component("hello")?);
        registry.misbehaves(Misbehaviour::Status(429, Some(4)));
        from_image(scene, &registry.image("hello:1.0")).await?;
        hello::plugin_says(scene, "hello", ("Resolved", "False", "Throttled")).await?;
        probe::until("it was asked three times", || async { manifests(&registry).len() >= 3 }).await?;
        let asked = manifests(&registry);
        for pair in asked.windows(2) {
            let apart = pair[1].at - pair[0].at;
            ensure!(apart >= Duration::from_secs(4), "asked again after {apart:?}, and 4 s were asked for");
        }
        registry.misbehaves(Misbehaviour::None);
        ready(scene).await.map(drop)
    });
}

fn manifests(registry: &Scripted) -> Vec<Asked> {
    registry.asked().into_iter().filter(|asked| asked.path.contains("/manifests/")).collect()
}

/// Blobs may lead to another host, as they do with most registries in clouds; what a tag means may not.
///
/// Promises: L1, L5
/// Breaks it: a password that goes along with a redirect, or a tag that another host resolves.
#[test]
fn credentials_never_follow_a_redirect_to_another_host() {
    scene("redirects", async |scene: &Scene<'_>| {
        let (registry, other) = (Scripted::start().await?, Scripted::start().await?);
        scene.host_with(&options(scene, &[registry.entry()], &[])?).await?;
        hello::install_account(scene, |_| true).await?;
        registry.put_component("1.0", &hello::component("hello")?);
        other.put_component("1.0", &hello::component("hello")?);
        registry.asks_for("jane", "secret");
        let config = json!({ "auths": { registry.host(): { "username": "jane", "password": "secret" } } });
        pull_secret(scene, "regcred", &config).await?;
        may_get(scene, "secrets", "regcred").await?;
        registry.misbehaves(Misbehaviour::RedirectManifest(other.host().into()));
        from_oci(scene, "hello", json!({ "image": registry.image("hello:1.0"), "pullSecrets": [{ "name": "regcred" }] })).await?;
        let said = hello::plugin_says(scene, "hello", ("Resolved", "False", "Redirected")).await?;
        hello::has(&said, &[other.host(), "which is not followed"])?;
        ensure!(other.asked().is_empty(), "the other host was asked: {:?}", other.asked());
        registry.misbehaves(Misbehaviour::RedirectBlob(other.host().into()));
        ready(scene).await?;
        ensure!(registry.asked().iter().any(|asked| asked.has_credentials), "the registry was not given the password");
        let asked = other.asked();
        ensure!(!asked.is_empty() && asked.iter().all(|asked| !asked.has_credentials), "the other host was given it: {asked:?}");
        Ok(())
    });
}
