//! Real registries, independent clients, credentials.

use anyhow::{Result, ensure};
use reef_tests::{
    host::Host,
    registry::{Door, PASSWORD},
    scripted::Scripted,
    world::{Scene, scene},
};
use serde_json::{Value, json};

use super::*;
use crate::probe;

/// `crane` knows nothing of Reef: it sees one layer of what `reef push` wrote, and what it pushes by hand, in the layout of
/// another tool, is loaded too.
///
/// Promises: L3
/// Breaks it: an artifact that other clients do not understand, or whose digest is another one at each push.
#[test]
fn artifacts_of_reef_push_and_of_crane_load_from_a_real_registry_and_are_pinned() {
    scene("artifacts", async |scene: &Scene<'_>| {
        let registry = registry(scene, "registry", Door::Plain).await?;
        scene.host_with(&options(scene, &[registry.entry()], &[])?).await?;
        hello::install_account(scene, |_| true).await?;
        let file = component_path("hello")?;
        let pushed =
            registry.push(&file, "team/hello:1.0.0", &["--annotation", "org.opencontainers.image.licenses=Apache-2.0"])?;
        let again = registry.push(&file, "other/hello:2", &["--annotation", "org.opencontainers.image.licenses=Apache-2.0"])?;
        ensure!(pushed["manifest"] == again["manifest"], "the same bytes are two artifacts: {pushed} {again}");
        let seen: Value = serde_json::from_str(&registry.crane(&["manifest", &registry.image("team/hello:1.0.0")])?)?;
        ensure!(seen["layers"].as_array().is_some_and(|layers| layers.len() == 1), "{seen}");
        is(&seen["layers"][0]["mediaType"], "application/wasm", "the layer's type")?;
        is(&seen["config"]["mediaType"], "application/vnd.wasm.config.v0+json", "the config's type")?;

        from_image(scene, pushed["pinned"].as_str().unwrap()).await?;
        let status = ready(scene).await?;
        is(&status["digest"], &digest_of("hello")?, "status.digest")?;
        is(&status["image"], pushed["pinned"].as_str().unwrap(), "status.image")?;
        hello::says(scene, "one").await?;

        let layers = scene.dir().join("layout");
        layout(&layers, "application/vnd.wasm.content.layer.v1+wasm", &hello::component("hello-v2")?)?;
        registry.crane(&["push", layers.to_str().unwrap(), &registry.image("team/hello:by-crane")])?;
        from_image(scene, &registry.image("team/hello:by-crane")).await?;
        runs(scene, &digest_of("hello-v2")?).await?;
        probe::config_says(scene, "greeting", "text", "ONE").await?;

        let copy = scene.dir().join("copy.wasm");
        registry.reef(&["pull", &registry.image("team/hello:1.0.0"), "-o", copy.to_str().unwrap()])?;
        ensure!(std::fs::read(copy)? == std::fs::read(file)?, "what was pulled is not what was pushed");
        Ok(())
    });
}

/// Promises: L1
/// Breaks it: a tag that is looked at again and again, so that what runs changes without anybody having asked for it.
#[test]
fn a_tag_that_is_moved_changes_nothing_until_the_resource_or_its_poll_says_so() {
    scene("moved-tag", async |scene: &Scene<'_>| {
        let registry = Scripted::start().await?;
        let options = options(scene, &[registry.entry()], &[])?;
        let host = scene.host_with(&options).await?;
        hello::install_account(scene, |_| true).await?;
        let first = registry.put_component("1.0", &hello::component("hello")?);
        from_image(scene, &registry.image("hello:1.0")).await?;
        runs(scene, &digest_of("hello")?).await?;
        registry.put_component("1.0", &hello::component("hello-v2")?);
        registry.forget();
        let change = json!({ "spec": { "concurrency": 3 } });
        scene.cluster().patch(PLUGIN, &scene.namespace, "hello", "", &change).await?;
        runs(scene, &digest_of("hello")?).await?;
        scene.kill(&host).await?;
        scene.host_with(&options).await?;
        hello::says(scene, "still the first").await?;
        let status = ready(scene).await?;
        is(&status["image"], &registry.image(&format!("hello@{first}")), "status.image")?;
        ensure!(registry.asked().is_empty(), "the registry was asked: {:?}", registry.asked());
        let poll = json!({ "spec": { "source": { "oci": { "poll": "5s" } } } });
        scene.cluster().patch(PLUGIN, &scene.namespace, "hello", "", &poll).await?;
        runs(scene, &digest_of("hello-v2")?).await?;
        hello::set(scene, "moved").await?;
        probe::config_says(scene, "greeting", "text", "MOVED").await.map(drop)
    });
}

/// Promises: L3, L4, L6
/// Breaks it: credentials of one plugin that open a cached image to another, or a password that is not asked for.
#[test]
fn a_private_image_opens_to_the_right_pull_secret_and_not_from_the_cache() {
    scene("password", async |scene: &Scene<'_>| private(scene, Door::Password).await);
}

/// Promises: L3, L4, L6
/// Breaks it: a token for one that is used for another.
#[test]
fn a_registry_with_tokens_opens_to_the_right_pull_secret_and_not_from_the_cache() {
    scene("token", async |scene: &Scene<'_>| private(scene, Door::Token).await);
}

async fn private(scene: &Scene<'_>, door: Door) -> Result<()> {
    let registry = registry(scene, "registry", door).await?;
    let host = scene.host_with(&options(scene, &[registry.entry()], &[])?).await?;
    hello::install_account(scene, |_| true).await?;
    let pushed = registry.push(&component_path("hello")?, "team/hello:1.0.0", &[])?;
    let (image, pinned) = (registry.image("team/hello:1.0.0"), pushed["pinned"].as_str().unwrap().to_owned());
    from_image(scene, &image).await?;
    let said = hello::plugin_says(scene, "hello", ("Resolved", "False", "Unauthorized")).await?;
    hello::has(&said, &["401", "pullSecrets"])?;
    // By name only, and only once the account may.
    pull_secret(scene, "regcred", &registry.docker_config("wrong")).await?;
    let with = |image: &str| json!({ "image": image, "pullSecrets": [{ "name": "regcred" }] });
    from_oci(scene, "hello", with(&image)).await?;
    let said = hello::plugin_says(scene, "hello", ("Resolved", "False", "MissingRights")).await?;
    hello::has(&said, &["resources: [\"secrets\"], resourceNames: [\"regcred\"], verbs: [\"get\"]"])?;
    may_get(scene, "secrets", "regcred").await?;
    hello::plugin_says(scene, "hello", ("Resolved", "False", "Unauthorized")).await?;
    pull_secret(scene, "regcred", &registry.docker_config(PASSWORD)).await?;
    ready(scene).await?;
    hello::says(scene, "one").await?;
    if door == Door::Token {
        ensure!(registry.tokens_given() > 0, "no token was given");
    }
    // What is in the cache now is not everybody's, by tag nor by digest.
    for (name, image) in [("second", &image), ("third", &pinned)] {
        from_oci(scene, name, json!({ "image": image })).await?;
        hello::plugin_says(scene, name, ("Resolved", "False", "Unauthorized")).await?;
    }
    from_oci(scene, "third", with(&pinned)).await?;
    let said = hello::plugin_says(scene, "third", ("Resolved", "False", "FieldManagerTaken")).await?;
    hello::has(&said, &["spec.fieldManager"])?;
    secrets_are_nowhere(scene, &host).await
}

async fn secrets_are_nowhere(scene: &Scene<'_>, host: &Host) -> Result<()> {
    let log = std::fs::read_to_string(host.log_path())?;
    let plugins = scene.cluster().list(PLUGIN, &scene.namespace).await?;
    let status: String = plugins.iter().map(|plugin| plugin["status"].to_string()).collect();
    ensure!(!log.contains(PASSWORD) && !status.contains(PASSWORD), "the password stands in a log or a status");
    Ok(())
}

/// Promises: O5
/// Breaks it: a file that is half written, or wrong, in the place of one that was good; or one that is read only once.
#[test]
fn the_registries_file_is_read_again_and_an_invalid_one_keeps_the_last_good_one() {
    scene("registries-file", async |scene: &Scene<'_>| {
        let (mirror, registry) = (Scripted::start().await?, Scripted::start().await?);
        let host = scene.host_with(&options(scene, &[], &[])?).await?;
        hello::install_account(scene, |_| true).await?;
        registry.put_component("1.0", &hello::component("hello")?);
        mirror.put_component("1.0", &hello::component("hello")?);
        from_image(scene, &registry.image("hello:1.0")).await?;
        // It is asked by TLS as long as nobody says otherwise.
        hello::plugin_says(scene, "hello", ("Resolved", "False", "RegistryUnreachable")).await?;
        write_registries(scene, &[json!({ "host": registry.host(), "plainHtpp": true })])?;
        host.wait_for_log("says that the file is invalid", |line| line.to_string().contains("what it said before is kept"))
            .await?;
        let current = async || anyhow::Ok(host.metrics().await?.sum("reef_registries_file_current", &[]));
        ensure!(current().await? == 0.0, "the metric does not say that the file is invalid");
        let mut entry = registry.entry();
        entry["mirrors"] = json!([mirror.host()]);
        write_registries(scene, &[entry, mirror.entry()])?;
        ready(scene).await?;
        ensure!(current().await? == 1.0, "the metric says that the file is invalid");
        hello::says(scene, "one").await?;
        ensure!(!mirror.asked().is_empty(), "the mirror was not asked");
        ensure!(
            registry.asked().iter().all(|asked| !asked.path.contains("/v2/")),
            "the registry was asked: {:?}",
            registry.asked()
        );
        Ok(())
    });
}
