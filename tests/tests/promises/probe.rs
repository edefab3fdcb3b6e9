//! Puts the guest `probe` on a stage: its kind, its account, its Plugin; and what tests of it ask again and again.

use anyhow::{Context, Result};
use reef_tests::{
    cluster::{condition, hang_bound},
    host::Host,
    paths,
    world::Scene,
};
use serde_json::{Value, json};

pub const PROBE: &str = "test.reef.dev/v1/Probe";
pub const CONFIG: &str = "v1/ConfigMap";
pub const PLUGIN: &str = "reef.dev/v1alpha1/Plugin";

/// Installs the plugin `probe` in the scene's namespace; a host that runs finds it, and one that starts later too.
pub async fn install(scene: &Scene<'_>) -> Result<()> {
    install_as(scene, "probe").await
}

/// Installs one of the guests that reconcile `Probe`, under its own name and as a ServiceAccount of that name.
pub async fn install_as(scene: &Scene<'_>, guest: &str) -> Result<()> {
    stage(scene, guest).await?;
    place(scene, guest, guest)?;
    let plugin = json!({
        "apiVersion": "reef.dev/v1alpha1", "kind": "Plugin", "metadata": { "name": guest },
        "spec": { "className": scene.namespace, "source": { "file": format!("{guest}.wasm") } },
    });
    scene.cluster().apply_object(&scene.namespace, &plugin).await.map(drop)
}

/// Everything that a guest needs beside component and Plugin: the kind `Probe`, and its account.
pub async fn stage(scene: &Scene<'_>, account: &str) -> Result<()> {
    scene.world.apply_file("", &paths::checkout().join("tests/guests/probe-crd.yaml")).await?;
    let served = || async { scene.cluster().list(PROBE, &scene.namespace).await.is_ok() };
    until("the API server serves Probes", served).await?;
    let yaml = std::fs::read_to_string(paths::checkout().join("tests/guests/probe-rbac.yaml"))?;
    let yaml = yaml
        .replace("name: probe\n", &format!("name: {account}\n"))
        .replace("name: probe }", &format!("name: {account} }}"))
        .replace("[probe]", &format!("[{account}]"))
        .replace("reef-lend-probe", &format!("reef-lend-{account}"));
    scene.apply(&yaml).await
}

/// Puts a guest where the Plugin of this name looks for its component.
pub fn place(scene: &Scene<'_>, plugin: &str, guest: &str) -> Result<()> {
    let component = paths::component(guest)?;
    let bytes = std::fs::read(&component).with_context(|| format!("cannot read {}", component.display()))?;
    scene.place(&format!("{plugin}.wasm"), &bytes)
}

/// The plugin runs.
pub async fn ready(scene: &Scene<'_>, plugin: &str) -> Result<Value> {
    let ready =
        |object: Option<&Value>| condition(object, "Ready").is_some_and(|c| c["status"] == "True" && c["reason"] == "Ready");
    scene.cluster().wait(PLUGIN, &scene.namespace, plugin, "is ready", ready).await
}

/// Creates a `Probe`, or replaces the whole of its `spec`.
pub async fn set(scene: &Scene<'_>, name: &str, spec: Value) -> Result<Value> {
    let object = json!({ "apiVersion": "test.reef.dev/v1", "kind": "Probe", "metadata": { "name": name }, "spec": spec });
    scene.cluster().apply_object(&scene.namespace, &object).await
}

/// Waits until the host says of the present generation that it is reconciled.
pub async fn reconciled(scene: &Scene<'_>, name: &str) -> Result<Value> {
    says(scene, name, "True", "Reconciled").await
}

/// Waits until the host's condition says so of the present generation.
pub async fn says(scene: &Scene<'_>, name: &str, status: &str, reason: &str) -> Result<Value> {
    let said = |object: Option<&Value>| {
        let generation = object.map(|object| &object["metadata"]["generation"]);
        condition(object, "Reconciled")
            .is_some_and(|c| c["status"] == status && c["reason"] == reason && Some(&c["observedGeneration"]) == generation)
    };
    let what = format!("says Reconciled={status}, {reason} of its generation");
    scene.cluster().wait(PROBE, &scene.namespace, name, &what, said).await
}

/// The sentence of the host's condition.
pub fn sentence(probe: &Value) -> String {
    condition(Some(probe), "Reconciled").and_then(|c| c["message"].as_str()).unwrap_or_default().to_owned()
}

/// A ConfigMap that somebody makes by hand.
pub fn config(name: &str, data: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data })
}

/// Waits until a ConfigMap says this under a key.
pub async fn config_says(scene: &Scene<'_>, name: &str, key: &str, value: &str) -> Result<Value> {
    let what = format!("says `{key}: {value}`");
    let says = |object: Option<&Value>| object.is_some_and(|object| object["data"][key] == value);
    scene.cluster().wait(CONFIG, &scene.namespace, name, &what, says).await
}

/// Waits until there is no such ConfigMap.
pub async fn config_gone(scene: &Scene<'_>, name: &str) -> Result<()> {
    scene.cluster().wait(CONFIG, &scene.namespace, name, "is gone", |object| object.is_none()).await.map(drop)
}

/// How many reconciles of a plugin have ended so far, with this result, or with any.
pub async fn reconciles(scene: &Scene<'_>, host: &Host, plugin: &str, result: Option<&str>) -> Result<u64> {
    let controller = format!("{}/{plugin}", scene.namespace);
    let mut labels = vec![("controller", &*controller)];
    labels.extend(result.map(|result| ("result", result)));
    Ok(host.metrics().await?.sum("controller_runtime_reconcile_total", &labels) as u64)
}

/// Polls a condition that no single object shows.
pub async fn until<F: Future<Output = bool>>(what: &str, done: impl Fn() -> F) -> Result<()> {
    let end = std::time::Instant::now() + hang_bound();
    while !done().await {
        anyhow::ensure!(std::time::Instant::now() < end, "waited {} s in vain until {what}", hang_bound().as_secs());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Waits until at least so many reconciles of a plugin have ended, with this result, or with any.
pub async fn reconciles_reach(scene: &Scene<'_>, host: &Host, plugin: &str, result: Option<&str>, least: u64) -> Result<()> {
    let reached = || async { reconciles(scene, host, plugin, result).await.is_ok_and(|count| count >= least) };
    until(&format!("{least} reconciles of {plugin} have ended ({result:?})"), reached).await
}
