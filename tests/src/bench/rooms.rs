//! Single rooms of the host, measured by its example `bench-rooms`: a process per measurement, so that memory is its own.

use std::{ffi::OsString, path::PathBuf, process::Stdio};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use tokio::process::Command;

use super::{
    Rounds, Scale,
    contender::Peer,
    record::{Bench, Row, Versus, column},
    say,
};
use crate::{
    paths,
    world::{HOST_NAMESPACE, World},
};

pub static SANDBOX: Bench = Bench {
    ids: &["P1", "P2"],
    title: "one reconcile of hello in the sandbox",
    how: "A fresh instance per reconcile, all limits on, the object of 1 KB from and the plan back to the host's own types. Native: \
          the same function, decoded and encoded by the same SDK, compiled into the benchmark, with the same allocator (mimalloc).",
    target: "p50 at most 9 µs and p99 at most 60 µs over native; at least 35,000 per second with one thread and 65,000 with two.",
    against: "native",
    columns: &[
        column("p50_us", "p50, µs", Versus::More),
        column("p99_us", "p99, µs", Versus::More),
        column("one_thread_per_s", "per second, 1 thread", Versus::Nothing),
        column("two_threads_per_s", "per second, 2 threads", Versus::Nothing),
    ],
    run: |scale| Box::pin(sandbox(scale)),
};

pub static CACHE: Bench = Bench {
    ids: &["P6"],
    title: "20,000 ConfigMaps of 2.8 KB in the store",
    how: "The hub alone, on a real API server: memory of the process before, at the peak of the first list, at rest, at the peak of a \
          relist, and after the last subscriber has left; per object without what the process had before. Plain download: the same list \
          in one piece over the same connections, thrown away.",
    target: "at most 4,000 bytes per object; peaks at most 1.3 times; at most 1.2 times the plain download; memory back at the end. \
             (P6 asks it of 100,000 objects.)",
    against: "plain download",
    columns: &[
        column("sync_s", "time to sync, s", Versus::Times),
        column("object_json_bytes", "JSON per object, bytes", Versus::Nothing),
        column("object_rss_bytes", "memory per object, bytes", Versus::Nothing),
        column("sync_peak_ratio", "peak of the first list ÷ rest", Versus::Nothing),
        column("relist_peak_ratio", "peak of a relist ÷ rest", Versus::Nothing),
        column("base_mib", "before, MiB", Versus::Nothing),
        column("steady_mib", "at rest, MiB", Versus::Nothing),
        column("left_mib", "after the last left, MiB", Versus::Nothing),
    ],
    run: |scale| Box::pin(cache(scale)),
};

pub static QUEUE: Bench = Bench {
    ids: &["P8"],
    title: "queue and dispatch without a guest",
    how: "The host's own loop with its spans and metrics; keys of eight plugins wait, and each run ends at once because no revision is \
          there to run. Bytes are of the process, the names of the objects not counted, since the store has them; after the drain: what \
          the queue still holds of them. kube-rs: its applier (scheduler and runner) with a reconciler that does nothing.",
    target: "at least 100,000 keys per second; at most 200 bytes per queued key.",
    against: "kube-rs",
    columns: &[
        column("keys_per_s", "keys per second", Versus::Times),
        column("queued_key_bytes", "bytes per queued key", Versus::Nothing),
        column("drained_key_bytes", "bytes per key after the drain", Versus::Nothing),
    ],
    run: |scale| Box::pin(queue(scale)),
};

async fn sandbox(scale: Scale) -> Result<Rounds> {
    let mut rounds = Vec::new();
    for round in 1..=scale.rounds {
        let calls = scale.calls.to_string();
        let seconds = scale.seconds.to_string();
        let args = [
            ("--component", paths::component("hello")?.into_os_string()),
            ("--cache-dir", cache_dir()?.into_os_string()),
            ("--reef", paths::binary("reef")?.into_os_string()),
            ("--calls", calls.into()),
            ("--seconds", seconds.into()),
        ];
        rounds.push(rooms("sandbox", args).await?);
        say(&format!("round {round} of {}", scale.rounds));
    }
    Ok(rounds)
}

async fn queue(scale: Scale) -> Result<Rounds> {
    let world = World::start(&say).await?;
    let mut rounds = Vec::new();
    for round in 1..=scale.rounds {
        let args = [
            ("--kubeconfig", world.plane.host_kubeconfig().into_os_string()),
            ("--lease-namespace", HOST_NAMESPACE.into()),
            ("--cache-dir", cache_dir()?.into_os_string()),
            ("--keys", scale.keys.to_string().into()),
        ];
        let mut rows = rooms("queue", args).await?;
        if let Some(peer) = Peer::KubeRs.program()? {
            let text = output(Command::new(peer).arg("--noop").arg(scale.keys.to_string())).await?;
            let seconds: f64 = text.trim().parse().context("kube-rs did not print seconds")?;
            rows.push(Row::new("kube-rs", &[("keys_per_s", scale.keys as f64 / seconds)]));
        }
        rounds.push(rows);
        say(&format!("round {round} of {}", scale.rounds));
    }
    Ok(rounds)
}

async fn cache(scale: Scale) -> Result<Rounds> {
    let world = World::start(&say).await?;
    let namespace = "cache";
    world.cluster.create_namespace(namespace).await?;
    let count = scale.config_maps;
    let creating = stream::iter(0..count).map(|i| create(&world, namespace, i)).buffer_unordered(8);
    creating.try_collect::<()>().await?;
    say(&format!("{count} ConfigMaps are there"));
    let mut rounds = Vec::new();
    for round in 1..=scale.rounds {
        let args = || {
            [
                ("--kubeconfig", world.plane.admin_kubeconfig().into_os_string()),
                ("--namespace", namespace.into()),
                ("--objects", count.to_string().into()),
            ]
        };
        let mut rows = rooms("download", args()).await?;
        rows.extend(rooms("cache", args()).await?);
        rounds.push(rows);
        say(&format!("round {round} of {}", scale.rounds));
    }
    Ok(rounds)
}

/// 2.8 KB as the store keeps it, without `managedFields`.
async fn create(world: &World, namespace: &str, i: usize) -> Result<()> {
    let line = |key: usize| format!("{i}-{key} ").repeat(40).chars().take(240).collect::<String>();
    let data: serde_json::Map<_, _> = (0..9).map(|key| (format!("settings-{key}"), json!(line(key)))).collect();
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": format!("settings-{i:06}"),
            "labels": { "app.kubernetes.io/name": "bench", "app.kubernetes.io/instance": format!("bench-{i:06}") },
        },
        "data": data,
    });
    world.cluster.create(namespace, &object).await.map(drop)
}

/// Compiled code stays there between runs.
pub fn cache_dir() -> Result<PathBuf> {
    Ok(paths::target()?.join("bench-cache"))
}

async fn rooms<const N: usize>(what: &str, args: [(&str, OsString); N]) -> Result<Vec<Row>> {
    let mut command = Command::new(paths::binary("examples/bench-rooms")?);
    command.arg(what);
    for (flag, value) in args {
        command.arg(flag).arg(value);
    }
    let text = output(&mut command).await?;
    serde_json::from_str(&text).with_context(|| format!("bench-rooms {what} printed no figures: {text}"))
}

async fn output(command: &mut Command) -> Result<String> {
    // Not `output()`, which would keep what goes to standard error.
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "{:?} ended with {}", command.as_std(), output.status);
    Ok(String::from_utf8(output.stdout)?)
}
