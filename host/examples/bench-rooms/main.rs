//! Figures of single rooms, without the rest of the host: `make bench` runs it, once per round, and compares.
//!
//! Each command measures once and prints one line of JSON: rows, and in each row figures by name, whose unit ends the name.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a benchmark fails by stopping")]

mod cache;
mod queue;
mod sandbox;

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;
use clap::Parser;
use kube::config::{KubeConfigOptions, Kubeconfig};
use reef::identity::{Api, ApiOptions};
use serde::Serialize;

/// As the host has it; so the native twin has it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
enum Command {
    /// P1, P2: one reconcile of hello in the sandbox, and the same logic compiled natively
    Sandbox(sandbox::Args),
    /// P8: keys through queue and dispatch that no plugin runs for
    Queue(queue::Args),
    /// P6: a kind's objects in the hub's store
    Cache(cache::Args),
    /// P6: a plain download of the same list
    Download(cache::Args),
}

/// One contender and what was measured of it.
#[derive(Debug, Serialize)]
pub struct Row {
    pub who: String,
    pub figures: BTreeMap<&'static str, f64>,
}

impl Row {
    pub fn new(who: impl Into<String>, figures: impl IntoIterator<Item = (&'static str, f64)>) -> Self {
        Self { who: who.into(), figures: figures.into_iter().collect() }
    }
}

fn main() -> anyhow::Result<()> {
    let rows = match Command::parse() {
        Command::Sandbox(args) => sandbox::measure(&args)?,
        Command::Queue(args) => runtime()?.block_on(queue::measure(&args))?,
        Command::Cache(args) => runtime()?.block_on(cache::measure(&args))?,
        Command::Download(args) => runtime()?.block_on(cache::download(&args))?,
    };
    println!("{}", serde_json::to_string(&rows)?);
    Ok(())
}

/// As the host has it.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

async fn connect(kubeconfig: &Path) -> anyhow::Result<Api> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    let options = ApiOptions { deadline: std::time::Duration::from_secs(60), ..ApiOptions::default() };
    Ok(Api::connect(config, options).await?)
}

/// Resident memory now and at its highest, in bytes.
fn memory() -> anyhow::Result<(f64, f64)> {
    let text = fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| -> anyhow::Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name} in /proc"))?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024.0)
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}

/// Lets the highest memory begin at what it is now.
fn reset_peak() -> anyhow::Result<()> {
    fs::write("/proc/self/clear_refs", "5").context("cannot reset the highest memory of this process")
}
