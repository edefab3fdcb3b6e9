//! Puts the plugin `hello` on a stage, as a neighbour that must not notice anything; and Plugins of all kinds.

use std::{
    cell::Cell,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use reef_tests::{cluster::condition, host::Host, paths, world::Scene};
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

/// Its CRD and its account, and no Plugin.
pub async fn install_account(scene: &Scene<'_>, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let dir = paths::checkout().join("plugins/hello");
    scene.world.apply_file("", &dir.join("crd.yaml")).await?;
    let account = fs::read_to_string(dir.join("rbac.yaml"))?;
    for document in account.split("\n---\n").filter(|document| wanted(document)) {
        scene.apply(document).await?;
    }
    Ok(())
}

async fn install_with(scene: &Scene<'_>, name: &str, wanted: impl Fn(&str) -> bool) -> Result<()> {
    install_account(scene, wanted).await?;
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

/// Installs one of `plugins/` in the scene's namespace from its own manifests; these of its files are CRDs, for these kinds.
pub async fn install_example(scene: &Scene<'_>, name: &str, crds: &[(&str, &str)]) -> Result<()> {
    let dir = paths::checkout().join("plugins").join(name);
    for (file, kind) in crds {
        scene.world.apply_file("", &dir.join(file)).await?;
        let served = || async { scene.cluster().list(kind, &scene.namespace).await.is_ok() };
        probe::until(&format!("the API server serves {kind}"), served).await?;
    }
    scene.apply(&fs::read_to_string(dir.join("rbac.yaml"))?).await?;
    let file = format!("{name}.wasm");
    scene.place(&file, &component(name)?)?;
    plugin(scene, name, json!({ "source": { "file": file } })).await
}

/// Waits until an object says so of its present generation.
pub async fn object_says(scene: &Scene<'_>, kind: &str, name: &str, wanted: (&str, &str, &str)) -> Result<Value> {
    let (condition_type, status, reason) = wanted;
    let said = |object: Option<&Value>| {
        let generation = object.map(|object| &object["metadata"]["generation"]);
        condition(object, condition_type)
            .is_some_and(|c| c["status"] == status && c["reason"] == reason && Some(&c["observedGeneration"]) == generation)
    };
    let what = format!("says {condition_type}={status}, {reason} of its generation");
    scene.cluster().wait(kind, &scene.namespace, name, &what, said).await
}

/// The sentence of a condition.
pub fn sentence(object: &Value, condition_type: &str) -> String {
    condition(Some(object), condition_type).and_then(|c| c["message"].as_str()).unwrap_or_default().to_owned()
}

/// The notes of the events with this reason about an object.
pub async fn events(scene: &Scene<'_>, name: &str, reason: &str) -> Result<Vec<String>> {
    let events = scene.cluster().list("events.k8s.io/v1/Event", &scene.namespace).await?;
    let ours = events.iter().filter(|event| event["regarding"]["name"] == name && event["reason"] == reason);
    Ok(ours.map(|event| event["note"].as_str().unwrap_or_default().to_owned()).collect())
}

/// Waits until a plugin has reconciled and has nothing more to do: a run that found a cache incomplete is repeated after a quarter
/// of a second, and counted like one that ends with a timer.
pub async fn settled(scene: &Scene<'_>, host: &Host, plugin: &str) -> Result<()> {
    const QUIET: Duration = Duration::from_secs(1);
    let last = Cell::new((0, Instant::now()));
    let quiet = || async {
        let count = probe::reconciles(scene, host, plugin, None).await.unwrap_or_default();
        if count != last.get().0 {
            last.set((count, Instant::now()));
        }
        count > 0 && last.get().1.elapsed() > QUIET
    };
    probe::until(&format!("{plugin} has nothing more to do"), quiet).await
}

/// After a restart, a full round of reconciles writes nothing, events and the Plugin aside.
pub async fn restarted_and_steady(scene: &Scene<'_>, host: &Host, plugin: &str) -> Result<Arc<Host>> {
    scene.kill(host).await?;
    let mark = scene.world.audit.mark(scene.cluster()).await?;
    let host = scene.host().await?;
    settled(scene, &host, plugin).await?;
    scene.world.audit.mark(scene.cluster()).await?;
    let mut written = scene.world.audit.writes(mark, &scene.namespace)?;
    written.retain(|request| !matches!(&*request.object_ref.resource, "plugins" | "events"));
    let lines: Vec<_> = written.iter().map(|request| request.line()).collect();
    ensure!(lines.is_empty(), "a steady state was written:\n{}", lines.join("\n"));
    Ok(host)
}
