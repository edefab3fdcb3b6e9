//! Puts the plugin `hello` on a stage, as a neighbour that must not notice anything; and Plugins of all kinds.

use std::fs;

use anyhow::{Context, Result, ensure};
use reef_tests::{cluster::condition, paths, world::Scene};
use serde_json::{Value, json};

use crate::probe::{self, PLUGIN};

pub const HELLO: &str = "demo.reef.dev/v1/Hello";

/// Installs the plugin `hello` in the scene's namespace from its own manifests.
pub async fn install(scene: &Scene<'_>) -> Result<()> {
    install_as(scene, "hello").await
}

/// The same, with another name for the Plugin; its account and its mark are still `hello`.
pub async fn install_as(scene: &Scene<'_>, name: &str) -> Result<()> {
    install_with(scene, name, |_| true).await
}

/// The same, but nobody lends its account to the host.
pub async fn install_unlent(scene: &Scene<'_>) -> Result<()> {
    install_with(scene, "hello", |document| !document.contains("reef-lend-")).await
}

async fn install_with(scene: &Scene<'_>, name: &str, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let dir = paths::checkout().join("plugins/hello");
    scene.world.apply_file("", &dir.join("crd.yaml")).await?;
    let account = fs::read_to_string(dir.join("rbac.yaml"))?;
    for document in account.split("\n---\n").filter(|document| wanted(document)) {
        scene.apply(document).await?;
    }
    scene.place("hello.wasm", &component("hello")?)?;
    plugin(scene, name, json!({ "source": { "file": "hello.wasm" }, "serviceAccountName": "hello" })).await
}

/// A built component.
pub fn component(name: &str) -> Result<Vec<u8>> {
    let path = paths::component(name)?;
    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Creates a Plugin of the scene's class, or changes it.
pub async fn plugin(scene: &Scene<'_>, name: &str, mut spec: Value) -> Result<()> {
    if spec["className"].is_null() {
        spec["className"] = scene.namespace.as_str().into();
    }
    let plugin = json!({ "apiVersion": "reef.dev/v1alpha1", "kind": "Plugin", "metadata": { "name": name }, "spec": spec });
    scene.cluster().apply_object(&scene.namespace, &plugin).await.map(drop)
}

/// Has `greeting` say this, and waits until its ConfigMap does.
pub async fn says(scene: &Scene<'_>, text: &str) -> Result<()> {
    set(scene, text).await?;
    probe::config_says(scene, "greeting", "text", text).await.map(drop)
}

/// Has `greeting` say this.
pub async fn set(scene: &Scene<'_>, text: &str) -> Result<Value> {
    let hello = json!({
        "apiVersion": "demo.reef.dev/v1", "kind": "Hello", "metadata": { "name": "greeting" }, "spec": { "text": text },
    });
    scene.cluster().apply_object(&scene.namespace, &hello).await
}

/// Waits until a condition of a Plugin has this status and reason, and returns its message.
pub async fn plugin_says(scene: &Scene<'_>, name: &str, (kind, status, reason): (&str, &str, &str)) -> Result<String> {
    let said = |plugin: Option<&Value>| {
        let generation = plugin.map(|plugin| &plugin["metadata"]["generation"]);
        condition(plugin, kind)
            .is_some_and(|c| c["status"] == status && c["reason"] == reason && Some(&c["observedGeneration"]) == generation)
    };
    let what = format!("says {kind}={status}, {reason}");
    let plugin = scene.cluster().wait(PLUGIN, &scene.namespace, name, &what, said).await?;
    Ok(condition(Some(&plugin), kind).and_then(|c| c["message"].as_str()).unwrap_or_default().to_owned())
}

/// A sentence has all of these parts.
pub fn has(sentence: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(sentence.contains(part), "`{sentence}`\nshould say `{part}`");
    }
    Ok(())
}
