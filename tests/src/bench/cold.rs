//! P4: a plugin from a registry until it serves, and a host that starts with many of them: with empty caches and with full ones.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    Rounds, Scale,
    contender::Operator,
    record::{Bench, Row, Versus, column},
    say,
    stage::{HELLO, Stage, hello},
};
use crate::{
    host::{Host, Options, message},
    paths,
    registry::{Door, Registry},
    world::World,
};

pub static BENCH: Bench = Bench {
    ids: &["P4"],
    title: "a host that starts with plugins from a registry",
    how: "Each plugin is hello with another version in its manifest, so each is fetched and compiled for itself, in a namespace of its \
          own with one Hello; the registry is the reference one, on the same machine. From the start of the process until each plugin \
          has reconciled its Hello: with empty caches, and once more with what the first start has left there. Installed: into a host \
          that runs, from the creation of the Plugin to the answer that made its Hello Ready, with empty caches and after the Plugin \
          was deleted and created again.",
    target: "installed: at most 300 ms, and 5 ms when compiled before; a start with full caches takes no longer than as many installs \
             of what is compiled before, and the look at what is there.",
    against: "1 plugin",
    columns: &[
        column("first_install_ms", "installed, ms", Versus::Nothing),
        column("again_install_ms", "installed, compiled before, ms", Versus::Nothing),
        column("empty_s", "start, empty caches, s", Versus::More),
        column("full_s", "start, full caches, s", Versus::More),
        column("empty_cpu_s", "CPU, empty caches, s", Versus::Nothing),
        column("full_cpu_s", "CPU, full caches, s", Versus::Nothing),
        column("empty_mib", "memory, empty caches, MiB", Versus::Nothing),
        column("full_mib", "memory, full caches, MiB", Versus::Nothing),
    ],
    run: |scale| Box::pin(run(scale)),
};

/// Nothing that is measured takes so long.
const HANG: Duration = Duration::from_secs(300);

async fn run(scale: Scale) -> Result<Rounds> {
    let mut rounds = Vec::new();
    // Each takes minutes, and is far more regular than what is measured in milliseconds.
    let all = scale.rounds.min(3);
    for round in 1..=all {
        let world = World::start(&say).await?;
        let registry = Registry::start(world.plane.supervisor(), &world.plane.dir().join("registry"), Door::Plain).await?;
        let mut rows = Vec::new();
        for plugins in [1, scale.plugins] {
            rows.push(many(&world, &registry, plugins).await?);
            say(&format!("round {round} of {all}: {plugins} plugins"));
        }
        rounds.push(rows);
    }
    Ok(rounds)
}

async fn many(world: &World, registry: &Registry, count: usize) -> Result<Row> {
    let class = format!("cold-{count}");
    let mut stages = Vec::new();
    for i in 0..count {
        let stage = Stage::new(world, &format!("{class}-{i}")).await?;
        registry.push(&component(&stage, i)?, &format!("hello-{i}:1"), &[])?;
        stage.create_hello(0).await?;
        stages.push(stage);
    }
    let (first, rest) = stages.split_first().context("no plugin")?;
    let mut row = Row::new(&if count == 1 { "1 plugin".to_owned() } else { format!("{count} plugins") }, &[]);
    let options = options(first, registry, &class)?;
    if rest.is_empty() {
        install(first, registry, &options, &mut row).await?;
        fs::remove_dir_all(&options.cache_dir)?;
    } else {
        for (i, stage) in stages.iter().enumerate() {
            create(stage, registry, &class, i).await?;
        }
    }
    for caches in ["empty", "full"] {
        let (seconds, cpu, memory) =
            start(&stages, &options).await.with_context(|| format!("{count} plugins, {caches} caches"))?;
        for (what, figure) in [("s", seconds), ("cpu_s", cpu), ("mib", memory)] {
            row.figures.insert(format!("{caches}_{what}"), figure);
        }
    }
    Ok(row)
}

/// hello, with a manifest that is like no other's.
fn component(stage: &Stage<'_>, i: usize) -> Result<PathBuf> {
    let (manifest, component) = (stage.scene.dir().join("manifest.json"), stage.scene.dir().join("hello.wasm"));
    let said =
        json!({ "name": "hello", "version": format!("0.1.{i}"), "reconciles": [{ "for": HELLO, "owns": ["v1/ConfigMap"] }] });
    fs::write(&manifest, said.to_string())?;
    let mut embed = Command::new(paths::binary("reef")?);
    embed.arg("embed").arg(paths::component("hello")?).arg("--manifest").arg(&manifest).arg("--replace");
    let done = embed.arg("-o").arg(&component).output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(component)
}

fn options(stage: &Stage<'_>, registry: &Registry, class: &str) -> Result<Options> {
    let file = stage.scene.dir().join("registries.yaml");
    fs::write(&file, json!({ "registries": [registry.entry()] }).to_string())?;
    let flags = vec![format!("--registries-file={}", file.display())];
    Ok(Options { class: class.into(), flags, cache_dir: stage.scene.dir().join("cache"), ..stage.scene.options() })
}

async fn create(stage: &Stage<'_>, registry: &Registry, class: &str, i: usize) -> Result<Value> {
    let spec = json!({
        "className": class, "serviceAccountName": "hello", "source": { "oci": { "image": registry.image(&format!("hello-{i}:1")) } },
    });
    let plugin = json!({ "apiVersion": "reef.dev/v1alpha1", "kind": "Plugin", "metadata": { "name": "hello" }, "spec": spec });
    stage.scene.cluster().apply_object(&stage.namespace, &plugin).await
}

/// Both installs; the Plugin stays.
async fn install(stage: &Stage<'_>, registry: &Registry, options: &Options, row: &mut Row) -> Result<()> {
    const PLUGIN: &str = "reef.dev/v1alpha1/Plugin";
    let cluster = stage.scene.cluster();
    let host = stage.scene.host_with(options).await?;
    let mut observer = stage.observe()?;
    let began = now()?;
    create(stage, registry, &options.class, 0).await?;
    observer.until("it is Ready", async |seen| Ok(!seen.ready.is_empty())).await?;
    let ready = observer.seen.last_ready().context("nothing was written")?;
    row.figures.insert("first_install_ms".into(), (ready - began) * 1000.0);

    cluster.delete(PLUGIN, &stage.namespace, "hello").await?;
    cluster.wait(PLUGIN, &stage.namespace, "hello", "is gone", |plugin| plugin.is_none()).await?;
    cluster.delete(HELLO, &stage.namespace, hello(0)["metadata"]["name"].as_str().unwrap_or_default()).await?;
    stage.create_hello(1).await?;
    let mut observer = stage.observe()?;
    let began = now()?;
    create(stage, registry, &options.class, 0).await?;
    observer.until("it is Ready again", async |seen| Ok(!seen.ready.is_empty())).await?;
    let ready = observer.seen.last_ready().context("nothing was written")?;
    row.figures.insert("again_install_ms".into(), (ready - began) * 1000.0);
    host.terminate().await.map(drop)
}

/// Seconds from the start of the process until every plugin has reconciled something, and what it took of processor and memory.
async fn start(stages: &[Stage<'_>], options: &Options) -> Result<(f64, f64, f64)> {
    let world = stages.first().context("no plugin")?.scene.world;
    let began = Instant::now();
    let host = Arc::new(Host::start(world.plane.supervisor(), options).await?);
    let operator = Operator::Host(host.clone());
    let ends =
        || (began.elapsed() < HANG).then_some(()).with_context(|| format!("it does not get done:\n{}", operator.log_tail()));
    while host.log().iter().filter(|line| message(line) == "revision started").count() < stages.len() {
        ends()?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    loop {
        let metrics = host.metrics().await?;
        let has_run = |stage: &Stage<'_>| {
            let controller = format!("{}/hello", stage.namespace);
            metrics.sum("controller_runtime_reconcile_total", &[("controller", &controller)]) >= 1.0
        };
        if stages.iter().all(has_run) {
            break;
        }
        ends()?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let (cpu, memory) = operator.usage()?;
    operator.stop().await?;
    Ok((seconds, cpu, memory))
}

fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}
