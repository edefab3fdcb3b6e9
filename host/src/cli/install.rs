//! `reef install`: everything that a plugin needs in a namespace, from its component alone, up to a Plugin that is ready.
//!
//! Nothing is forced, and nothing of somebody else's is taken over. The API server is asked about every object before the
//! first is applied; what was applied when something fails all the same is said. Running it again goes on from there.

mod apply;
mod package;

use std::{path::PathBuf, time::Duration};

use anyhow::{anyhow, bail, ensure};
use clap::{Args, ValueHint};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use self::{
    apply::{Applied, Found},
    package::{From, Included, Package, Piece, Pin},
};
use super::{
    cluster::{self, Cluster, ClusterArgs, called, text_at},
    component::Component,
    file, made,
    output::{self, View},
    plugins::{self, Standing, Told},
    progress::{LOOK, Progress},
    pull,
    remote::RemoteArgs,
    status::{self, Whole},
    yaml,
};
use crate::{
    catalog::crd::Plugin,
    names::{Account, Digest, Span, label, subdomain},
    rbac::Host,
    sandbox::Inspected,
    source::reference::Reference,
};

#[derive(Debug, Args)]
pub struct InstallArgs {
    /// A component file; or an artifact in a registry, as in `registry.example/team/hello:1.2.0`.
    #[arg(value_name = "FILE|REFERENCE", value_hint = ValueHint::FilePath)]
    component: String,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The Plugin's name. Default: the one in the component's manifest.
    #[arg(long, value_name = "NAME", value_parser = label)]
    name: Option<String>,
    /// The ServiceAccount as which it acts. Default: the Plugin's name.
    #[arg(long, value_name = "NAME", value_parser = subdomain)]
    service_account: Option<String>,
    /// `spec.settings`, as YAML or JSON. Default: those that it has.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    settings: Option<PathBuf>,
    /// Write the component's digest into the Plugin: no other bytes are loaded.
    #[arg(long, visible_alias = "set-digest")]
    pin: bool,
    /// Have the host read the component from this file below its plugin directory, where somebody has put it, rather than from
    /// a ConfigMap.
    #[arg(long, value_name = "FILE")]
    plugin_file: Option<String>,
    /// A pull secret of the namespace with which the host comes into the registry; as often as there are some.
    #[arg(long, value_name = "NAME", value_parser = subdomain, conflicts_with = "plugin_file")]
    pull_secret: Vec<String>,
    #[command(flatten)]
    remote: RemoteArgs,
    /// Which host serves it.
    #[arg(long, value_name = "NAME", default_value = "reef", value_parser = label)]
    class: String,
    /// The host's ServiceAccount, to which the plugin's account is lent.
    #[arg(long, value_name = "NAMESPACE/NAME", default_value = "reef-system/reef", value_parser = account)]
    host_account: Account,
    /// The user that the host is, if it has no ServiceAccount because it runs outside of the cluster.
    #[arg(long, value_name = "NAME", conflicts_with = "host_account")]
    host_user: Option<String>,
    /// Leave the CRDs that the component brings alone: they are there.
    #[arg(long)]
    no_crds: bool,
    /// Give the plugin's account the rights that it wants in the whole cluster, too.
    #[arg(long, conflicts_with = "no_rbac")]
    cluster_rights: bool,
    /// Leave account and rights alone: somebody has seen to them.
    #[arg(long)]
    no_rbac: bool,
    /// Ask the API server what would happen, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// How long to wait until the Plugin is ready; `0s`: not at all.
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    timeout: Span,
    /// For people or for programs.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: View,
}

fn account(text: &str) -> Result<Account, String> {
    let (namespace, name) = text.split_once('/').ok_or("write NAMESPACE/NAME, as in `reef-system/reef`")?;
    let namespace = label(namespace).map_err(|error| error.to_string())?;
    let name = subdomain(name).map_err(|error| error.to_string())?;
    Ok(Account::new(&namespace, &name))
}

/// What was done, for programs.
#[derive(Serialize)]
struct Report {
    objects: Vec<Applied>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<Whole>,
}

pub fn run(args: &InstallArgs) -> anyhow::Result<()> {
    let taken = Taken::of(&args.component)?;
    let component = taken.component(args)?;
    let inspected = component.inspected()?;
    let settings = args.settings.as_deref().map(read_settings).transpose()?;
    cluster::runtime()?.block_on(async {
        let cluster = args.cluster.connect().await?;
        plugins::served(&cluster).await?;
        let name = args.name.as_deref().unwrap_or(&inspected.manifest.name);
        let before = plugins::find(&cluster, name).await?;
        if let Some(before) = &before {
            is_the_same(before, &inspected.manifest.name)?;
        }
        // What an apply leaves out, it takes away.
        let settings = settings.or_else(|| before.as_ref()?.spec.settings.clone());
        let package = Package {
            component: &component,
            inspected: &inspected,
            namespace: &cluster.namespace,
            name,
            account: args.service_account.as_deref().unwrap_or(name),
            class: &args.class,
            host: &args.host(),
            from: &taken.from(args),
            pin: if args.pin { Pin::Digest } else { Pin::Nothing },
            settings,
            crds_before: before.as_ref().map(made::crds_of).unwrap_or_default(),
            crds: if args.no_crds { Included::No } else { Included::Yes },
            rights: if args.no_rbac { Included::No } else { Included::Yes },
        };
        install(args, &cluster, &package).await
    })
}

/// A new version of what is there, not something else under its name: its objects and children would be left to nobody.
fn is_the_same(before: &Plugin, manifest: &str) -> anyhow::Result<()> {
    let told = Told::of(before);
    let component = before.status.as_ref().and_then(|status| status.component.as_deref()).unwrap_or_default();
    match component.split_once(' ') {
        Some((runs, _)) if runs != manifest => bail!(
            "Plugin {}/{} is there already and runs `{component}`, and this is `{manifest}`: choose another --name, or uninstall it first",
            told.namespace,
            told.name
        ),
        _ => Ok(()),
    }
}

/// Rights beyond the namespace are given only if somebody says so.
fn no_more_than_asked(args: &InstallArgs, pieces: &[Piece]) -> anyhow::Result<()> {
    let roles = pieces.iter().filter(|piece| text_at(&piece.object, "/kind") == "ClusterRole");
    let rules: Vec<String> = roles.flat_map(|role| rules(&role.object)).collect();
    ensure!(
        rules.is_empty() || args.cluster_rights || args.dry_run,
        "{} wants rights in the whole cluster: {}; nothing was changed. Give them with --cluster-rights, or have an admin see to all \
         rights and install with --no-rbac",
        args.component,
        rules.join("; ")
    );
    Ok(())
}

/// A line for each rule of an object that is a role.
fn said_of(object: &Value) -> Vec<String> {
    let who = called(object);
    rules(object).into_iter().map(|rule| format!("{who}: {rule}")).collect()
}

/// The rules of a role, each as `get,list on group/resources`.
fn rules(role: &Value) -> Vec<String> {
    let words = |rule: &Value, field: &str| {
        let all = rule.get(field).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
    };
    let rule = |rule: &Value| {
        let (group, resources) = (words(rule, "apiGroups"), words(rule, "resources"));
        let place = if group.is_empty() { resources } else { format!("{group}/{resources}") };
        format!("{} on {place}", words(rule, "verbs"))
    };
    role.get("rules").and_then(Value::as_array).into_iter().flatten().map(rule).collect()
}

impl InstallArgs {
    fn host(&self) -> Host {
        match &self.host_user {
            Some(user) => Host::User(user.clone()),
            None => Host::Account(self.host_account.clone()),
        }
    }
}

/// Where the component is taken from here, to be looked at.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    File(PathBuf),
    Registry(Reference),
}

impl Taken {
    /// A file that is there is meant, whatever else its name could mean.
    fn of(text: &str) -> anyhow::Result<Self> {
        let path = PathBuf::from(text);
        let host = text.split_once('/').map(|(host, _)| host).filter(|host| host.contains(['.', ':']) && !host.starts_with('.'));
        if host.is_none() || path.exists() || text.ends_with(".wasm") {
            return Ok(Self::File(path));
        }
        let reference = text.parse().map_err(|error| anyhow!("there is no file {text}, and as a reference: {error}"))?;
        Ok(Self::Registry(reference))
    }

    fn component(&self, args: &InstallArgs) -> anyhow::Result<Component> {
        match self {
            Self::File(path) => {
                ensure!(args.pull_secret.is_empty(), "--pull-secret: {} comes from no registry: leave it out", path.display());
                Component::read(path)
            }
            Self::Registry(reference) => {
                if let Some(file) = &args.plugin_file {
                    bail!("--plugin-file {file}: {reference} comes from a registry: leave it out, or name a component file");
                }
                let (artifact, bytes) = pull::fetch(&args.remote, reference)?;
                Ok(Component { path: reference.to_string().into(), digest: artifact.digest, bytes: bytes.into() })
            }
        }
    }

    fn from(&self, args: &InstallArgs) -> From {
        match (self, &args.plugin_file) {
            (Self::Registry(image), _) => From::Image { image: image.to_string(), secrets: args.pull_secret.clone() },
            (Self::File(_), Some(file)) => From::File(file.clone()),
            (Self::File(_), None) => From::ConfigMap,
        }
    }
}

/// `spec.settings` from a file.
pub fn read_settings(path: &std::path::Path) -> anyhow::Result<Value> {
    let shown = path.display();
    let text = file::text("--settings", path)?;
    let documents = yaml::documents(&text).map_err(|error| anyhow!("--settings: {shown} is not YAML: {error}"))?;
    match documents.as_slice() {
        [settings @ Value::Object(_)] => Ok(settings.clone()),
        [] => Ok(json!({})),
        _ => bail!("--settings: {shown} holds something else than one map, as in `greeting: hello`"),
    }
}

async fn install(args: &InstallArgs, cluster: &Cluster, package: &Package<'_>) -> anyhow::Result<()> {
    let mut progress = Progress::new();
    let pieces = package.pieces()?;
    no_more_than_asked(args, &pieces)?;
    let granted: Vec<String> = pieces.iter().flat_map(|piece| said_of(&piece.object)).collect();
    let found = Found::look(cluster, pieces, (package.namespace, package.name)).await?;
    progress.waits("the API server is asked about each object");
    let would = found.try_all(cluster).await?;
    progress.clear();
    if args.dry_run {
        eprintln!("dry run: nothing is changed; the roles would let");
        granted.iter().for_each(|line| eprintln!("  {line}"));
        return tell(args, would, None);
    }
    let (name, namespace) = (package.name, package.namespace);
    let left = format!(
        "what is applied by now is left there: install again to go on, or take it away with `reef uninstall {name} -n {namespace}`"
    );
    let applying = async {
        let applied = found.apply_all(cluster, &mut progress).await?;
        if args.output == View::Table {
            output::print(&apply::said(&applied))?;
        }
        if args.timeout.0 > Duration::ZERO {
            wait(cluster, package, args.timeout, &mut progress).await?;
        }
        anyhow::Ok(applied)
    };
    let applied = cluster::or_interrupted(applying, &left).await?;
    let whole = status::look(cluster, package.name).await?;
    tell(args, applied, Some(whole))
}

/// The CRDs that a component brings, and nothing else.
pub async fn apply_crds(cluster: &Cluster, inspected: &Inspected, progress: &mut Progress) -> anyhow::Result<()> {
    let found = Found::look(cluster, package::crds(inspected)?, ("", "")).await?;
    found.try_all(cluster).await?;
    found.apply_all(cluster, progress).await.map(drop)
}

fn tell(args: &InstallArgs, objects: Vec<Applied>, plugin: Option<Whole>) -> anyhow::Result<()> {
    match (args.output.format(), &plugin) {
        (Some(format), _) => output::print_as(format, &Report { objects, plugin }),
        (None, Some(whole)) => output::print(&whole.in_short()),
        (None, None) => output::print(&apply::said(&objects)),
    }
}

/// Until the Plugin's present generation is ready with this component.
async fn wait(cluster: &Cluster, package: &Package<'_>, timeout: Span, progress: &mut Progress) -> anyhow::Result<()> {
    let (until, digest) = (Instant::now() + timeout.0, package.component.digest);
    loop {
        let plugin = plugins::must_find(cluster, package.name).await?;
        let said = match plugins::standing(&plugin, Some(&digest)) {
            Standing::Ready => {
                progress.clear();
                return Ok(());
            }
            Standing::NotYet(said) => said,
        };
        progress.waits(&format!("Plugin {}/{}: {said}", package.namespace, package.name));
        if Instant::now() > until {
            progress.clear();
            return Err(not_ready(&plugin, &said, &digest, timeout));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Every condition, with what to do.
fn not_ready(plugin: &Plugin, said: &str, digest: &Digest, timeout: Span) -> anyhow::Error {
    let told = Told::of(plugin);
    for condition in &told.conditions {
        eprintln!("{}: {} {}: {}", condition.type_, condition.status, condition.reason, condition.message);
    }
    let (namespace, name) = (&told.namespace, &told.name);
    if told.conditions.iter().any(|condition| condition.status != "True" && condition.message.contains("reef-lend-")) {
        eprintln!("the account is lent to another one than the host is: install again with --host-user or --host-account");
    }
    anyhow!(
        "everything is applied, but Plugin {namespace}/{name} is not ready with {} after {timeout}: {said}; it goes on trying: look again \
         with `reef status {name} -n {namespace}`, or take it away with `reef uninstall {name} -n {namespace}`",
        digest.short()
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_account_is_a_namespace_and_a_name() {
        assert_eq!(account("reef-system/reef"), Ok(Account::new("reef-system", "reef")));
        assert!(account("reef").unwrap_err().contains("NAMESPACE/NAME"));
        assert!(account("Reef/x").unwrap_err().contains("`Reef` is not valid"));
    }

    #[test]
    fn a_file_that_is_there_or_is_called_like_a_component_is_meant_and_else_a_registry() {
        let file = |text: &str| Ok(Taken::File(text.into()));
        let taken = |text: &str| Taken::of(text).map_err(|error| error.to_string());
        for text in ["hello.wasm", "dir/hello.wasm", "no.such/hello.wasm", "hello", "./registry.example/hello", "/etc/passwd"] {
            assert_eq!(taken(text), file(text), "{text}");
        }
        let reference = "registry.example/team/hello:1.2.0";
        assert_eq!(taken(reference), Ok(Taken::Registry(reference.parse().unwrap())));
        assert!(taken("registry.example/Hello").unwrap_err().starts_with("there is no file registry.example/Hello, and as a"));
    }

    #[test]
    fn settings_are_one_map() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            fs::write(file.path(), text).unwrap();
            read_settings(file.path()).map_err(|error| error.to_string())
        };
        assert_eq!(read("a: 1"), Ok(json!({ "a": 1 })));
        assert_eq!(read(""), Ok(json!({})));
        assert!(read("- a").unwrap_err().contains("something else than one map"));
        assert!(read("a: [").unwrap_err().contains("is not YAML"));
    }
}
