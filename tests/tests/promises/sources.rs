//! Where components come from: registries, volumes, ConfigMaps; and what becomes of a plugin when one of them fails.

mod hostile;
mod registries;
mod restart;
mod volumes;

use std::fs;

use anyhow::{Context, Result, ensure};
use reef_tests::{
    host::Options,
    paths,
    registry::{Door, Registry},
    world::Scene,
};
use serde_json::{Value, json};

use crate::{hello, probe::PLUGIN};

/// A host that knows these registries, looks again soon, and has caches of its own.
fn options(scene: &Scene<'_>, entries: &[Value], more: &[&str]) -> Result<Options> {
    write_registries(scene, entries)?;
    let mut flags = vec![
        format!("--registries-file={}", scene.dir().join("registries.yaml").display()),
        "--recheck-period=1s".into(),
        "--registry-timeout=2s".into(),
    ];
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    Ok(Options { flags, cache_dir: scene.dir().join("cache"), ..scene.options() })
}

fn write_registries(scene: &Scene<'_>, entries: &[Value]) -> Result<()> {
    let beside = scene.dir().join("registries.new");
    fs::write(&beside, json!({ "registries": entries }).to_string())?;
    Ok(fs::rename(beside, scene.dir().join("registries.yaml"))?)
}

async fn registry(scene: &Scene<'_>, name: &str, door: Door) -> Result<Registry> {
    Registry::start(scene.world.plane.supervisor(), &scene.dir().join(name), door).await
}

/// A Plugin `hello` that takes its component from this image.
async fn from_image(scene: &Scene<'_>, image: &str) -> Result<()> {
    from_oci(scene, "hello", json!({ "image": image })).await
}

async fn from_oci(scene: &Scene<'_>, name: &str, oci: Value) -> Result<()> {
    hello::plugin(scene, name, json!({ "source": { "oci": oci }, "serviceAccountName": "hello" })).await
}

async fn ready(scene: &Scene<'_>) -> Result<Value> {
    hello::plugin_says(scene, "hello", ("Ready", "True", "Ready")).await?;
    status(scene).await
}

async fn status(scene: &Scene<'_>) -> Result<Value> {
    let plugin = scene.cluster().get(PLUGIN, &scene.namespace, "hello").await?.context("the Plugin is gone")?;
    Ok(plugin["status"].clone())
}

/// Waits until this component runs.
async fn runs(scene: &Scene<'_>, component: &str) -> Result<Value> {
    let says = |plugin: Option<&Value>| {
        let condition = reef_tests::cluster::condition(plugin, "Ready");
        plugin.is_some_and(|plugin| plugin["status"]["digest"] == component)
            && condition.is_some_and(|c| c["status"] == "True" && c["reason"] == "Ready")
    };
    scene.cluster().wait(PLUGIN, &scene.namespace, "hello", &format!("runs {component}"), says).await
}

/// The digest of a built component.
fn digest_of(name: &str) -> Result<String> {
    Ok(reef_tests::scripted::digest(&hello::component(name)?))
}

/// Lets the account read one Secret, or ConfigMap, by name.
async fn may_get(scene: &Scene<'_>, resource: &str, name: &str) -> Result<()> {
    scene
        .apply(&format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{ name: source-{name} }}\nrules:\n\
             - {{ apiGroups: [\"\"], resources: [{resource}], resourceNames: [{name}], verbs: [get] }}\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{ name: source-{name} }}\n\
             roleRef: {{ apiGroup: rbac.authorization.k8s.io, kind: Role, name: source-{name} }}\n\
             subjects: [{{ kind: ServiceAccount, name: hello }}]\n"
        ))
        .await
}

async fn pull_secret(scene: &Scene<'_>, name: &str, config: &Value) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "type": "kubernetes.io/dockerconfigjson",
        "stringData": { ".dockerconfigjson": config.to_string() },
    });
    scene.cluster().apply_object(&scene.namespace, &secret).await.map(drop)
}

/// A directory in the OCI's layout with one artifact, made by hand.
fn layout(dir: &std::path::Path, layer: &str, component: &[u8]) -> Result<()> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let put = |media_type: &str, bytes: &[u8]| -> Result<Value> {
        let digest = reef_tests::scripted::digest(bytes);
        fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes)?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
    };
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let config = put("application/vnd.oci.image.config.v1+json", b"{}")?;
    let layers = [put(layer, component)?];
    let text = json!({ "schemaVersion": 2, "mediaType": manifest, "config": config, "layers": layers }).to_string();
    let index = json!({ "schemaVersion": 2, "manifests": [put(manifest, text.as_bytes())?] });
    fs::write(dir.join("index.json"), index.to_string())?;
    Ok(fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?)
}

fn component_path(name: &str) -> Result<std::path::PathBuf> {
    paths::component(name)
}

fn is(found: &Value, wanted: &str, what: &str) -> Result<()> {
    ensure!(found == wanted, "{what} is {found}, not {wanted}");
    Ok(())
}
