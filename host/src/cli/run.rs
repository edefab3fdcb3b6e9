//! `reef run`: one plugin against a cluster, from this process, without a Plugin resource.
//!
//! The same rooms as in `reef host` do it, for a Plugin that is given to them instead of being watched. Every reconcile is
//! told as it happens, and a component that was built anew takes the place of the old one. No lease is taken: it refuses to begin
//! where a Plugin serves the same kinds as the same field manager. In the end the objects that it held are let go.

mod rooms;
mod source;
mod told;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueHint};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::EnvFilter;

use self::source::Source;
use super::{
    cluster::{Cluster, ClusterArgs},
    install,
    plugins::{self, Told},
    progress::Progress,
};
use crate::{
    catalog::{
        Desired,
        crd::{Mode, Plugin},
    },
    dispatch::Given,
    identity::{Accounts, ApiError},
    names::{Kind, label, subdomain},
    plan,
    sandbox::Inspected,
};

/// How long the objects that are held may take to be let go in the end.
const LETTING_GO: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
pub struct RunArgs {
    /// The component, which is loaded again when it is replaced; or the directory of a plugin's crate, which is built again when
    /// one of its files changes.
    #[arg(default_value = ".", value_hint = ValueHint::AnyPath)]
    path: PathBuf,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Apply the CRDs that the component brings first.
    #[arg(long)]
    install_crds: bool,
    /// Act with your own credentials rather than as a ServiceAccount.
    #[arg(long, conflicts_with = "service_account")]
    as_me: bool,
    /// The ServiceAccount as which it acts; you have to be allowed to make tokens for it. Default: the name in the manifest.
    #[arg(long, value_name = "NAME", value_parser = subdomain)]
    service_account: Option<String>,
    /// Write nothing: print what each plan would change.
    #[arg(long)]
    shadow: bool,
    /// `spec.settings`, as YAML or JSON.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    settings: Option<PathBuf>,
    /// Mark and field manager of what it writes. Default: the name in the manifest.
    #[arg(long, value_name = "NAME", value_parser = label)]
    field_manager: Option<String>,
    /// What is logged on stderr, as with `reef host`: `reef::plugin` is what the plugin itself says.
    #[arg(long, value_name = "FILTER", default_value = "warn,reef::plugin=info")]
    log: String,
}

pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    let settings = args.settings.as_deref().map(install::read_settings).transpose()?;
    let filter = EnvFilter::try_new(&args.log).with_context(|| format!("--log: `{}` is not a filter", args.log))?;
    let (mut source, inspected) = Source::open(&args.path)?;
    rooms::start_logging(filter)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(serve(args, &mut source, &inspected, settings));
    // A build may still be under way.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn serve(args: &RunArgs, source: &mut Source, inspected: &Inspected, settings: Option<Value>) -> anyhow::Result<()> {
    let accounts = if args.as_me { Accounts::Own } else { Accounts::Lent };
    let (work, metrics) = rooms::work()?;
    let cluster = args.cluster.connect_with(rooms::api_options(accounts, &work)).await?;
    is_there(&cluster).await?;
    let plugin = plugin(args, &cluster.namespace, source, inspected, settings)?;
    if !args.shadow {
        nobody_else(&cluster, inspected, &field_manager(args, inspected)).await?;
    }
    kinds(args, &cluster, inspected).await?;
    let given = Given::new(plugin);
    begin(args, &cluster, inspected);
    let rooms = rooms::Rooms::open(&cluster, &given, source.dir(), (work, metrics)).await?;
    let told = tokio::spawn(told::conditions(given.watch()));
    let mut signals = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let ended = tokio::select! {
        () = interrupted(&mut signals) => Ok(()),
        ended = source.rebuild() => ended,
    };
    told.abort();
    let left = if args.shadow { Ok(()) } else { leave(&given, inspected, &mut signals).await };
    rooms.close().await;
    ended.and(left)
}

async fn interrupted(signals: &mut (Signal, Signal)) {
    tokio::select! {
        _ = signals.0.recv() => {}
        _ = signals.1.recv() => {}
    }
}

fn field_manager(args: &RunArgs, inspected: &Inspected) -> String {
    args.field_manager.clone().unwrap_or_else(|| inspected.manifest.name.clone())
}

/// The Plugin resource that is in no cluster.
fn plugin(
    args: &RunArgs,
    namespace: &str,
    source: &Source,
    inspected: &Inspected,
    settings: Option<Value>,
) -> anyhow::Result<Plugin> {
    let name = &inspected.manifest.name;
    let plugin = json!({
        "apiVersion": "reef.dev/v1alpha1", "kind": "Plugin",
        "metadata": { "name": name, "namespace": namespace, "uid": "reef-run", "generation": 1 },
        "spec": {
            "source": { "file": source.file() },
            "serviceAccountName": args.service_account.as_deref().unwrap_or(name),
            "fieldManager": field_manager(args, inspected),
            "settings": settings.unwrap_or_else(|| json!({})),
            "mode": if args.shadow { Mode::Shadow } else { Mode::Apply },
        },
    });
    let plugin: Plugin = serde_json::from_value(plugin)?;
    Desired::of(&plugin)?;
    Ok(plugin)
}

/// In a namespace that is not there, a plugin would wait for ever. Who may not look is told later, by what fails.
async fn is_there(cluster: &Cluster) -> anyhow::Result<()> {
    let namespaces = cluster.resource(&Kind::new("", "v1", "Namespace")).await?;
    let namespace = &cluster.namespace;
    match cluster.get(&namespaces, "", namespace).await {
        Ok(None) => bail!("there is no namespace {namespace}: create it with `kubectl create namespace {namespace}`"),
        _ => Ok(()),
    }
}

/// Two that write the same as the same manager would undo each other's work without end.
async fn nobody_else(cluster: &Cluster, inspected: &Inspected, field_manager: &str) -> anyhow::Result<()> {
    let found = match cluster.list(&crate::status::resource(), &cluster.namespace, "").await {
        Ok(found) => found,
        // A cluster without Reef has no Plugins.
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => bail!("whether a Plugin serves the same kinds cannot be seen: {error}"),
    };
    let kinds: Vec<&Kind> = inspected.manifest.reconciles.iter().map(|entry| &entry.kind).collect();
    for object in found {
        let other = plugins::parse(object)?;
        if let Some(said) = clash(&other, &kinds, field_manager) {
            bail!("{said}");
        }
    }
    Ok(())
}

/// Why nothing may be run beside this Plugin, if so.
fn clash(other: &Plugin, kinds: &[&Kind], field_manager: &str) -> Option<String> {
    let told = Told::of(other);
    let theirs = || told.kinds.iter().filter_map(|kind| kind.parse::<Kind>().ok());
    let both = theirs().find(|kind| kinds.iter().any(|mine| mine.same_group_kind(kind)))?;
    if other.spec.suspend || other.spec.mode == Mode::Shadow || told.field_manager.as_deref() != Some(field_manager) {
        return None;
    }
    let (namespace, name) = (&told.namespace, &told.name);
    Some(format!(
        "Plugin {namespace}/{name} serves {both} as field manager `{field_manager}` already, and each would undo what the other does: \
         look on with --shadow, use another namespace, or suspend it meanwhile with `kubectl patch plugin {name} -n {namespace} \
         --type=merge -p '{{\"spec\":{{\"suspend\":true}}}}'`"
    ))
}

/// All kinds of the manifest are served, if need be after applying what the component brings.
async fn kinds(args: &RunArgs, cluster: &Cluster, inspected: &Inspected) -> anyhow::Result<()> {
    if args.install_crds {
        install::apply_crds(cluster, inspected, &mut Progress::new()).await?;
    }
    for entry in &inspected.manifest.reconciles {
        match cluster.resource(&entry.kind).await {
            Err(error @ ApiError::UnknownKind(_)) if !inspected.crds.is_empty() => {
                bail!("{error}; --install-crds applies the one that the component brings")
            }
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
    }
    Ok(())
}

fn begin(args: &RunArgs, cluster: &Cluster, inspected: &Inspected) {
    let (manifest, namespace) = (&inspected.manifest, &cluster.namespace);
    let account = args.service_account.as_deref().unwrap_or(&manifest.name);
    let who = match (args.as_me, cluster.api.user()) {
        (true, Some(user)) => format!("you, {user}"),
        (true, None) => "you".to_owned(),
        (false, _) => format!("ServiceAccount {namespace}/{account}"),
    };
    let how = if args.shadow { ", in shadow: nothing is written" } else { "" };
    eprintln!("running {} {} in namespace {namespace} as {who}{how}; Ctrl-C ends it", manifest.name, manifest.version);
    if !args.shadow && manifest.reconciles.iter().any(|entry| entry.cleanup) {
        eprintln!(
            "objects are held for its cleanup by the finalizer `{}` while it runs, and let go in the end; after a kill -9, run it again",
            plan::finalizer(&field_manager(args, inspected))
        );
    }
}

/// Lets go of the objects that wait for its cleanup, as when a Plugin is deleted.
async fn leave(given: &Given, inspected: &Inspected, signals: &mut (Signal, Signal)) -> anyhow::Result<()> {
    if !inspected.manifest.reconciles.iter().any(|entry| entry.cleanup) {
        return Ok(());
    }
    let mut watch = given.watch();
    given.leave(Timestamp::now());
    eprintln!("letting its objects go; Ctrl-C again does not wait for that");
    let gone = tokio::select! {
        gone = tokio::time::timeout(LETTING_GO, watch.wait_for(Option::is_none)) => gone.is_ok(),
        () = interrupted(signals) => false,
    };
    if gone { Ok(()) } else { Err(still_held(&watch)) }
}

fn still_held(watch: &watch::Receiver<Option<Arc<Plugin>>>) -> anyhow::Error {
    let why = watch.borrow().as_deref().map(|plugin| Told::of(plugin).message).unwrap_or_default();
    anyhow!(
        "not all of its objects were let go ({why}): they cannot be deleted before it runs again, or somebody takes the finalizer off"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(spec: &Value) -> Plugin {
        serde_json::from_value(json!({ "apiVersion": "reef.dev/v1alpha1", "kind": "Plugin",
            "metadata": { "name": "b", "namespace": "team-a" }, "spec": spec,
            "status": { "kinds": ["a.dev/v1/Box"], "fieldManager": "box" } }))
        .unwrap()
    }

    #[test]
    fn beside_a_plugin_that_writes_the_same_as_the_same_manager_nothing_is_run() {
        let kind: Kind = "a.dev/v2/Box".parse().unwrap();
        let file = json!({ "file": "a.wasm" });
        let said = |spec: Value, manager: &str| clash(&other(&spec), &[&kind], manager);
        let refused = said(json!({ "source": file }), "box").unwrap();
        assert!(refused.contains("Plugin team-a/b serves a.dev/v1/Box as field manager `box`"), "{refused}");
        assert_eq!(said(json!({ "source": file }), "other"), None);
        assert_eq!(said(json!({ "source": file, "suspend": true }), "box"), None);
        assert_eq!(said(json!({ "source": file, "mode": "Shadow" }), "box"), None);
        assert_eq!(clash(&other(&json!({ "source": file })), &[&"a.dev/v1/Bag".parse().unwrap()], "box"), None);
    }
}
