//! Volumes as kubelets fill them, and ConfigMaps.

use std::{fs, os::unix::fs::symlink};

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reef_tests::world::{Scene, scene};
use serde_json::{Value, json};

use super::*;
use crate::probe::{self, CONFIG};

/// A ConfigMap volume is swapped by moving the symlink `..data`; a PVC by a rename; an image volume of a bare artifact is
/// mounted empty.
///
/// Promises: L2, L3, L4
/// Breaks it: a file that is looked at as an inode, or an empty mount taken for a file that is yet to come.
#[test]
fn a_volumes_data_link_and_a_rename_swap_the_component_and_an_empty_mount_is_named() {
    scene("volumes", async |scene: &Scene<'_>| {
        scene.host_with(&options(scene, &[], &[])?).await?;
        hello::install_account(scene, |_| true).await?;
        let volume = scene.plugin_dir().join("volume");
        fs::create_dir_all(&volume)?;
        hello::plugin(scene, "hello", json!({ "source": { "file": "volume/plugin.wasm" } })).await?;
        let said = hello::plugin_says(scene, "hello", ("Resolved", "False", "SourceFailed")).await?;
        hello::has(&said, &["volume/plugin.wasm", "is the volume mounted?"])?;
        // As the kubelet does it: a directory with a time in its name, and a link that is renamed over the last one.
        for (generation, guest) in [("..2026_01_01", "hello"), ("..2026_01_02", "hello-v2")] {
            fs::create_dir(volume.join(generation))?;
            fs::write(volume.join(generation).join("plugin.wasm"), hello::component(guest)?)?;
            symlink(generation, volume.join("..data_tmp"))?;
            fs::rename(volume.join("..data_tmp"), volume.join("..data"))?;
            if guest == "hello" {
                symlink("..data/plugin.wasm", volume.join("plugin.wasm"))?;
            }
            runs(scene, &digest_of(guest)?).await?;
        }
        hello::set(scene, "linked").await?;
        probe::config_says(scene, "greeting", "text", "LINKED").await?;
        let pvc = scene.plugin_dir().join("pvc");
        fs::create_dir(&pvc)?;
        fs::write(pvc.join("plugin.wasm"), hello::component("hello-v2")?)?;
        hello::plugin(scene, "hello", json!({ "source": { "file": "pvc/plugin.wasm" } })).await?;
        runs(scene, &digest_of("hello-v2")?).await?;
        fs::write(pvc.join(".plugin.wasm.tmp"), hello::component("hello")?)?;
        fs::rename(pvc.join(".plugin.wasm.tmp"), pvc.join("plugin.wasm"))?;
        runs(scene, &digest_of("hello")?).await?;
        hello::says(scene, "renamed").await
    });
}

/// Promises: L2, L3, L4
/// Breaks it: a ConfigMap that is read as the host, or only once.
#[test]
fn a_component_in_a_config_map_runs_and_is_swapped_when_the_config_map_changes() {
    scene("config-map", async |scene: &Scene<'_>| {
        scene.host_with(&options(scene, &[], &[])?).await?;
        hello::install_account(scene, |_| true).await?;
        let put = async |fields: Value| -> Result<()> {
            let mut map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "component" } });
            for (key, value) in fields.as_object().into_iter().flatten() {
                map[key] = value.clone();
            }
            let _ = scene.cluster().delete(CONFIG, &scene.namespace, "component").await;
            scene.cluster().create(&scene.namespace, &map).await.map(drop)
        };
        let binary = |guest: &str| -> Result<Value> {
            Ok(json!({ "binaryData": { "plugin.wasm": STANDARD.encode(hello::component(guest)?) } }))
        };
        hello::plugin(scene, "hello", json!({ "source": { "configMap": { "name": "component" } } })).await?;
        let said = hello::plugin_says(scene, "hello", ("Resolved", "False", "SourceFailed")).await?;
        hello::has(&said, &["there is no ConfigMap component"])?;
        put(json!({ "data": { "plugin.wasm": "text" } })).await?;
        let text = |plugin: Option<&Value>| {
            let condition = reef_tests::cluster::condition(plugin, "Resolved");
            condition.is_some_and(|c| c["message"].as_str().is_some_and(|message| message.contains("`binaryData`")))
        };
        scene.cluster().wait(PLUGIN, &scene.namespace, "hello", "says where the component belongs", text).await?;
        put(binary("hello")?).await?;
        runs(scene, &digest_of("hello")?).await?;
        hello::says(scene, "one").await?;
        put(binary("hello-v2")?).await?;
        runs(scene, &digest_of("hello-v2")?).await?;
        probe::config_says(scene, "greeting", "text", "ONE").await?;
        let broken = json!({ "binaryData": { "plugin.wasm": STANDARD.encode("nothing") } });
        put(broken).await?;
        hello::plugin_says(scene, "hello", ("Ready", "True", "LastGood")).await?;
        hello::set(scene, "two").await?;
        probe::config_says(scene, "greeting", "text", "TWO").await.map(drop)
    });
}
