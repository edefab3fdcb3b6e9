//! `reef uninstall`: takes a plugin out of a namespace, and what `reef install` made for it; nothing else.
//!
//! First it says what would be lost and what would hang. Then, with --crds, the CRDs begin to go, so that each object is cleaned
//! up while there is somebody to do it; then the Plugin, which stays until its objects are let go; then account, rights and
//! component.

mod findings;

use std::{
    io::{BufRead as _, IsTerminal as _},
    time::Duration,
};

use anyhow::{anyhow, bail};
use clap::Args;
use serde_json::Value;
use tokio::time::Instant;

use self::findings::Findings;
use super::{
    cluster::{self, Cluster, ClusterArgs, Meant, called, kind_of, text_at},
    output,
    plugins::{self, Told},
    progress::{LOOK, Progress},
};
use crate::{
    names::{Span, subdomain},
    status,
};

#[derive(Debug, Args)]
pub struct UninstallArgs {
    /// The Plugin.
    #[arg(value_parser = subdomain)]
    name: String,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Delete the CRDs as well that `reef install` has made for it, with all objects of theirs in all namespaces, unless another
    /// Plugin uses them.
    #[arg(long)]
    crds: bool,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    /// Say what would go, hang or be lost, and change nothing.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// How long to wait for cleanups, and until all is gone.
    #[arg(long, value_name = "DURATION", default_value = "2m")]
    timeout: Span,
}

pub fn run(args: &UninstallArgs) -> anyhow::Result<()> {
    cluster::runtime()?.block_on(uninstall(args))
}

async fn uninstall(args: &UninstallArgs) -> anyhow::Result<()> {
    let cluster = args.cluster.connect().await?;
    let plugin = plugins::find(&cluster, &args.name).await?;
    let findings = Findings::gather(&cluster, &args.name, plugin.as_ref(), args.crds).await?;
    if findings.is_empty() {
        bail!(
            "there is no Plugin {} in namespace {}, nor anything that `reef install` made for it: `reef list -A` shows all Plugins",
            args.name,
            cluster.namespace
        );
    }
    output::print(&findings.said())?;
    if args.dry_run {
        eprintln!("dry run: nothing is changed");
        return Ok(());
    }
    if !args.yes && !agreed()? {
        bail!("nothing was changed");
    }
    let mut progress = Progress::new();
    let until = Instant::now() + args.timeout.0;
    try_all(&cluster, &findings).await?;
    let deleting = Uninstall { cluster: &cluster, findings: &findings, until };
    let done = cluster::or_interrupted(deleting.all(&mut progress), "not all is gone").await;
    progress.clear();
    done.map_err(|error| anyhow!("{error}; what is done is done: `reef uninstall {}` goes on from there", args.name))?;
    output::print(&format!("uninstalled {} from namespace {}\n", args.name, cluster.namespace))
}

/// On a terminal, somebody is asked; elsewhere nobody can be.
fn agreed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nothing was changed: this is no terminal, so nobody can be asked; add --yes, or --dry-run to only look");
    }
    eprint!("Uninstall? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Has the API server say whether all may be deleted, before the first is.
async fn try_all(cluster: &Cluster, findings: &Findings) -> anyhow::Result<()> {
    for object in findings.all() {
        let resource = cluster.resource(&kind_of(object)).await?;
        let tried = cluster.delete(&resource, object, Meant::DryRun).await;
        tried.map_err(|error| anyhow!("{}: {error}; nothing was changed", called(object)))?;
    }
    Ok(())
}

struct Uninstall<'a> {
    cluster: &'a Cluster,
    findings: &'a Findings,
    until: Instant,
}

impl Uninstall<'_> {
    async fn all(&self, progress: &mut Progress) -> anyhow::Result<()> {
        for crd in &self.findings.crds {
            self.delete(crd).await?;
        }
        for kind in &self.findings.kinds {
            // From here on each of them is being deleted, so none is let go without its cleanup.
            while !self.findings.crds.is_empty() && findings::lives_on(self.cluster, kind).await? {
                self.again(progress, &format!("objects of {kind} begin to go"), "the API server does not delete them").await?;
            }
        }
        if let Some(plugin) = &self.findings.plugin {
            self.delete(plugin).await?;
            self.plugin_is_gone(plugin, progress).await?;
            progress.done(&format!("deleted {}", called(plugin)));
        }
        for object in &self.findings.made {
            self.delete(object).await?;
            progress.done(&format!("deleted {}", called(object)));
        }
        for object in self.findings.made.iter().chain(&self.findings.crds) {
            self.is_gone(object, progress).await?;
        }
        for crd in &self.findings.crds {
            progress.done(&format!("deleted {}", called(crd)));
        }
        Ok(())
    }

    async fn delete(&self, object: &Value) -> anyhow::Result<()> {
        let resource = self.cluster.resource(&kind_of(object)).await?;
        let deleted = self.cluster.delete(&resource, object, Meant::Really).await;
        deleted.map_err(|error| anyhow!("{}: {error}", called(object)))
    }

    /// Its finalizer stands for the objects that it still holds.
    async fn plugin_is_gone(&self, plugin: &Value, progress: &mut Progress) -> anyhow::Result<()> {
        let name = text_at(plugin, "/metadata/name");
        loop {
            let Some(now) = plugins::find(self.cluster, name).await? else { return Ok(()) };
            if now.metadata.uid.as_deref() != plugin.pointer("/metadata/uid").and_then(Value::as_str) {
                return Ok(());
            }
            let told = Told::of(&now);
            let said = if told.deleting && told.reason == "Leaving" {
                told.message
            } else {
                format!("its host lets its objects go ({})", told.message)
            };
            self.again(progress, &format!("{}: {said}", called(plugin)), &said).await?;
        }
    }

    async fn is_gone(&self, object: &Value, progress: &mut Progress) -> anyhow::Result<()> {
        let resource = self.cluster.resource(&kind_of(object)).await?;
        let (namespace, name) = (text_at(object, "/metadata/namespace"), text_at(object, "/metadata/name"));
        loop {
            match self.cluster.get(&resource, namespace, name).await? {
                Some(now) if text_at(&now, "/metadata/uid") == text_at(object, "/metadata/uid") => {}
                _ => return Ok(()),
            }
            let what = called(object);
            self.again(progress, &format!("{what} goes"), &format!("{what} is still there: its finalizers say who holds it"))
                .await?;
        }
    }

    /// Waits a little, unless it took too long already.
    async fn again(&self, progress: &mut Progress, waits_for: &str, why: &str) -> anyhow::Result<()> {
        progress.waits(waits_for);
        if Instant::now() > self.until {
            bail!("it is not done within --timeout: {why}");
        }
        tokio::time::sleep(LOOK.max(Duration::from_millis(100))).await;
        Ok(())
    }
}

/// The host's own resource.
fn plugin_object(plugin: &crate::catalog::crd::Plugin) -> anyhow::Result<Value> {
    let mut object = serde_json::to_value(plugin)?;
    let kind = status::resource().kind;
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".into(), kind.api_version().into());
        fields.insert("kind".into(), (&*kind.kind).into());
    }
    Ok(object)
}
