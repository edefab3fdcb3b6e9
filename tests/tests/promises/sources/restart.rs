//! Without the registry, without a disk, in the middle of a swap: what runs goes on.

use std::{collections::HashMap, fs, process::Command};

use anyhow::{Context, Result, ensure};
use reef_tests::{
    cluster::condition,
    host::Options,
    registry::Door,
    scripted::{Misbehaviour, Scripted},
    world::{Scene, scene},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    hello::HELLO,
    probe::{self, CONFIG},
};

/// The compiled code is gone too, so that what starts can only come from the content cache.
///
/// Promises: L2, L4, L7
/// Breaks it: a host that needs its registry to start what it ran, or that takes something else for it.
#[test]
fn with_the_registry_gone_a_restarted_host_runs_what_ran_and_heals_when_it_is_back() {
    scene("registry-gone", async |scene: &Scene<'_>| {
        let registry = registry(scene, "registry", Door::Plain).await?;
        let options = options(scene, &[registry.entry()], &[])?;
        let host = scene.host_with(&options).await?;
        hello::install_account(scene, |_| true).await?;
        let pushed = registry.push(&component_path("hello")?, "hello:latest", &[])?;
        // Of policy Always, which asks more often than any other.
        from_image(scene, &registry.image("hello")).await?;
        ready(scene).await?;
        hello::says(scene, "before").await?;
        registry.stop()?;
        scene.kill(&host).await?;
        forget_compiled(&options)?;
        let host = scene.host_with(&options).await?;
        hello::says(scene, "without").await?;
        let found = ready(scene).await?;
        is(&found["image"], pushed["pinned"].as_str().unwrap(), "status.image")?;
        // Something new is wanted, and cannot be had: what ran last is started again all the same.
        from_image(scene, &registry.image("hello:2")).await?;
        hello::plugin_says(scene, "hello", ("Ready", "True", "LastGood")).await?;
        scene.kill(&host).await?;
        forget_compiled(&options)?;
        scene.host_with(&options).await?;
        hello::says(scene, "last good").await?;
        let said = hello::plugin_says(scene, "hello", ("Ready", "True", "LastGood")).await?;
        hello::has(&said, &["runs on; the new one does not: RegistryUnreachable", "hello:2"])?;
        registry.start_again().await?;
        hello::plugin_says(scene, "hello", ("Resolved", "False", "NotFound")).await?;
        registry.push(&component_path("hello-v2")?, "hello:2", &[])?;
        runs(scene, &digest_of("hello-v2")?).await?;
        probe::config_says(scene, "greeting", "text", "LAST GOOD").await.map(drop)
    });
}

fn forget_compiled(options: &Options) -> Result<()> {
    for entry in fs::read_dir(&options.cache_dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cwasm") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Promises: L8
/// Breaks it: a key that is lost between the old revision and the new one, or that both reconcile.
#[test]
fn swaps_under_a_stream_of_edits_lose_no_object_and_reconcile_none_twice() {
    const OBJECTS: usize = 20;
    const ROUNDS: usize = 6;
    scene("swap", async |scene: &Scene<'_>| {
        let registry = Scripted::start().await?;
        let host = scene.host_with(&options(scene, &[registry.entry()], &[])?).await?;
        hello::install_account(scene, |_| true).await?;
        registry.put_component("1", &hello::component("hello")?);
        registry.put_component("2", &hello::component("hello-v2")?);
        from_image(scene, &registry.image("hello:1")).await?;
        ready(scene).await?;
        let edit = async |round: usize| -> Result<()> {
            for n in 0..OBJECTS {
                let hello = json!({ "apiVersion": "demo.reef.dev/v1", "kind": "Hello", "metadata": { "name": format!("h{n}") },
                                    "spec": { "text": format!("round {round}") } });
                scene.cluster().apply_object(&scene.namespace, &hello).await?;
            }
            Ok(())
        };
        let mark = scene.world.audit.mark(scene.cluster()).await?;
        for round in 0..ROUNDS {
            // The swap happens somewhere in the middle of these edits.
            let tag = if round % 2 == 0 { "2" } else { "1" };
            let (swapped, edited) = tokio::join!(from_image_at(scene, &registry, tag), edit(round));
            swapped.and(edited)?;
        }
        let last = format!("round {}", ROUNDS - 1);
        runs(scene, &digest_of("hello")?).await?;
        for n in 0..OBJECTS {
            probe::config_says(scene, &format!("h{n}"), "text", &last).await?;
        }
        hello::settled(scene, &host, "hello").await?;
        scene.world.audit.mark(scene.cluster()).await?;
        let mut written: HashMap<String, usize> = HashMap::new();
        for request in scene.world.audit.writes(mark, &scene.namespace)? {
            if request.object_ref.resource == "configmaps" {
                *written.entry(request.object_ref.name.clone()).or_default() += 1;
            }
        }
        ensure!(written.len() == OBJECTS, "written: {written:?}");
        // Each edit and each swap changes the text once at most; before its first change a child's fields are taken over once.
        let most = written.values().max().copied().unwrap_or_default();
        ensure!(most <= 2 * ROUNDS + 1, "an object was written {most} times for {ROUNDS} edits and {ROUNDS} swaps: {written:?}");
        let failed = probe::reconciles(scene, &host, "hello", Some("error")).await?;
        ensure!(failed == 0, "{failed} reconciles failed");
        let still: Vec<Value> = scene.cluster().list(HELLO, &scene.namespace).await?;
        ensure!(
            still.iter().all(|hello| condition(Some(hello), "Reconciled").is_some_and(|c| c["status"] == "True")),
            "{still:?}"
        );
        Ok(())
    });
}

async fn from_image_at(scene: &Scene<'_>, registry: &Scripted, tag: &str) -> Result<()> {
    from_image(scene, &registry.image(&format!("hello:{tag}"))).await?;
    let wanted = digest_of(if tag == "1" { "hello" } else { "hello-v2" })?;
    runs(scene, &wanted).await.map(drop)
}

/// A file system as small as a page or two, which only root can make: elsewhere this is skipped, and says so.
///
/// Promises: L9
/// Breaks it: a component that does not run because it cannot be kept, or a host that ends for it.
#[test]
fn with_a_full_disk_a_component_is_loaded_all_the_same_and_what_runs_goes_on() {
    scene("full-disk", async |scene: &Scene<'_>| {
        let registry = Scripted::start().await?;
        let options = options(scene, &[registry.entry()], &[])?;
        let content = options.cache_dir.join("content");
        fs::create_dir_all(&content)?;
        let Some(mounted) = Mounted::tmpfs(&content, "size=64k")? else { return Ok(()) };
        let host = scene.host_with(&options).await?;
        hello::install_account(scene, |_| true).await?;
        registry.put_component("1", &hello::component("hello")?);
        registry.put_component("2", &hello::component("hello-v2")?);
        from_image(scene, &registry.image("hello:1")).await?;
        ready(scene).await?;
        hello::says(scene, "one").await?;
        host.wait_for_log("says that its cache is full", |line| {
            line.to_string().contains("the content cache cannot be written") && line.to_string().contains("No space left")
        })
        .await?;
        let small: u64 = fs::read_dir(&content)?.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum();
        ensure!(small < 64 << 10, "{small} bytes on a disk of 64 KiB");
        from_image(scene, &registry.image("hello:2")).await?;
        runs(scene, &digest_of("hello-v2")?).await?;
        // The registry goes too: what runs, runs on, and starts again from memory.
        registry.misbehaves(Misbehaviour::Status(500, None));
        hello::set(scene, "two").await?;
        probe::config_says(scene, "greeting", "text", "TWO").await?;
        let suspend = async |yes: bool| {
            let change = json!({ "spec": { "suspend": yes } });
            scene.cluster().patch(PLUGIN, &scene.namespace, "hello", "", &change).await.map(drop)
        };
        suspend(true).await?;
        hello::plugin_says(scene, "hello", ("Ready", "False", "Suspended")).await?;
        suspend(false).await?;
        runs(scene, &digest_of("hello-v2")?).await?;
        hello::set(scene, "three").await?;
        probe::config_says(scene, "greeting", "text", "THREE").await?;
        drop(mounted);
        scene.cluster().get(CONFIG, &scene.namespace, "greeting").await?.context("it is gone").map(drop)
    });
}

/// Unmounted when it goes.
struct Mounted(std::path::PathBuf);

impl Mounted {
    /// Nothing, if this user cannot mount.
    fn tmpfs(dir: &std::path::Path, options: &str) -> Result<Option<Self>> {
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", options, "reef-test"]).arg(dir).output()?;
        if output.status.success() {
            return Ok(Some(Self(dir.to_owned())));
        }
        eprintln!("SKIPPED: a full disk needs the right to mount: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(None)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
