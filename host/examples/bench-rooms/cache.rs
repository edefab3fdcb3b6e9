//! A kind's objects in the hub's store: memory while they are read, kept, read anew and given up; and how long reading takes.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use http::Request;
use reef::{
    identity::{Actor, Api, Lane},
    names::{Kind, PluginId},
    watch::{Hub, HubOptions, Interest, Role, Scope, ScopeState, SyncState},
};

use crate::{Row, connect, memory, reset_peak};

#[derive(clap::Args)]
pub struct Args {
    /// Of somebody who may list
    #[arg(long)]
    kubeconfig: PathBuf,
    #[arg(long)]
    namespace: String,
    /// ConfigMaps that are there
    #[arg(long)]
    objects: usize,
}

/// After how long the store is read anew: long enough to measure it at rest before.
const RELIST: Duration = Duration::from_secs(6);
/// What memory is given to come to rest.
const REST: Duration = Duration::from_secs(2);
const HANG: Duration = Duration::from_secs(120);

pub async fn measure(args: &Args) -> anyhow::Result<Vec<Row>> {
    let api = connect(&args.kubeconfig).await?;
    let options = HubOptions { relist: RELIST, ..HubOptions::default() };
    let hub = Hub::new(api.clone(), Arc::new(|_, _| {}), options);
    let scope = Scope::new(api.cluster().clone(), Kind::new("", "v1", "ConfigMap"), &args.namespace);
    let base = memory()?.0;
    reset_peak()?;
    let began = Instant::now();
    let interest = Interest { plugin: PluginId::new("bench", "bench"), role: Role::Read };
    let subscription = hub.subscribe(scope, Actor::Host, interest);
    let mut state = subscription.state();
    tokio::time::timeout(HANG, state.wait_for(|state| *state == SyncState::Synced)).await.context("not synced in time")??;
    let synced = began.elapsed();
    tokio::time::sleep(REST).await;
    let (steady, peak) = memory()?;
    let store = look(&hub)?;
    ensure!(store.objects >= args.objects, "the store has {} objects, not {}", store.objects, args.objects);
    reset_peak()?;
    let relisted = Instant::now();
    while look(&hub)?.lists <= store.lists {
        ensure!(relisted.elapsed() < HANG, "the store was not read anew");
        // A quiet watch looks at the clock only when a bookmark comes, once a minute.
        touch(&api, &args.namespace).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (_, relist_peak) = memory()?;
    drop((subscription, state));
    tokio::time::sleep(REST).await;
    let left = memory()?.0;
    let count = store.objects as f64;
    let kept = steady - base;
    Ok(vec![Row::new(
        "reef",
        [
            ("sync_s", synced.as_secs_f64()),
            ("object_json_bytes", store.bytes as f64 / count),
            ("object_rss_bytes", kept / count),
            ("sync_peak_ratio", (peak - base) / kept),
            ("relist_peak_ratio", (relist_peak - base) / kept),
            ("base_mib", base / MIB),
            ("steady_mib", steady / MIB),
            ("left_mib", left / MIB),
        ],
    )])
}

const MIB: f64 = 1024.0 * 1024.0;

fn look(hub: &Hub) -> anyhow::Result<ScopeState> {
    hub.scopes().pop().context("the hub has no scope")
}

async fn touch(api: &Api, namespace: &str) -> anyhow::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros().to_string();
    let patch = serde_json::json!({ "metadata": { "labels": { "bench": now } } });
    let request = Request::patch(format!("/api/v1/namespaces/{namespace}/configmaps/settings-000000"))
        .header("content-type", "application/merge-patch+json")
        .body(serde_json::to_vec(&patch)?)?;
    api.send(&Actor::Host, Lane::Requests, request).await?;
    Ok(())
}

/// The same list in one piece, thrown away: what cannot be saved.
pub async fn download(args: &Args) -> anyhow::Result<Vec<Row>> {
    let api = connect(&args.kubeconfig).await?;
    let began = Instant::now();
    let bytes = list(&api, &args.namespace).await?;
    let took = began.elapsed();
    ensure!(bytes > args.objects, "the list has only {bytes} bytes");
    Ok(vec![Row::new("plain download", [("sync_s", took.as_secs_f64()), ("list_mib", bytes as f64 / MIB)])])
}

async fn list(api: &Api, namespace: &str) -> anyhow::Result<usize> {
    let request = Request::get(format!("/api/v1/namespaces/{namespace}/configmaps")).body(Vec::new())?;
    Ok(api.send(&Actor::Host, Lane::Requests, request).await?.len())
}
