//! `reef inspect`: what a component is, in words; or what its account needs, ready to be applied.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueHint};
use serde_json::{Value, json};

use super::{
    cluster::text_at,
    component::Component,
    output::{self, Format},
    yaml,
};
use crate::{
    contract::{Manifest, manifest::Reconciles},
    names::{Account, Kind, label, subdomain},
    rbac::{self, Document, Host, Named, Wanted, kinds::Kinds},
    sandbox::inspect::{Described, describe},
};

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The component.
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Print it for programs.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    /// Print what its account needs instead, ready to be applied: account, roles, and the role that lends it to the host.
    #[arg(long)]
    rbac: bool,
    /// With --rbac: the plugin's namespace. Default: the one in which the objects are applied.
    #[arg(short, long, requires = "rbac", value_parser = label)]
    namespace: Option<String>,
    /// With --rbac: the plugin's ServiceAccount. Default: the name in its manifest.
    #[arg(long, requires = "rbac", value_name = "NAME", value_parser = subdomain)]
    service_account: Option<String>,
    /// With --rbac: a pull secret that the Plugin names; as often as there are some.
    #[arg(long, requires = "rbac", value_name = "NAME", value_parser = subdomain)]
    pull_secret: Vec<String>,
    /// With --rbac: the ConfigMap that the Plugin takes the component from.
    #[arg(long, requires = "rbac", value_name = "NAME", value_parser = subdomain)]
    config_map: Option<String>,
    #[command(flatten)]
    host: HostArgs,
}

/// As whom the host comes to the API server.
#[derive(Debug, Args)]
struct HostArgs {
    /// With --rbac: the namespace of the host's ServiceAccount.
    #[arg(long, requires = "rbac", value_name = "NAMESPACE", default_value = "reef-system", value_parser = label)]
    host_namespace: String,
    /// With --rbac: the host's ServiceAccount.
    #[arg(long, requires = "rbac", value_name = "NAME", default_value = "reef", value_parser = subdomain)]
    host_service_account: String,
    /// With --rbac: the user that the host is, if it has no ServiceAccount because it runs outside of the cluster.
    #[arg(long, requires = "rbac", value_name = "NAME", conflicts_with_all = ["host_namespace", "host_service_account"])]
    host_user: Option<String>,
}

impl HostArgs {
    fn host(&self) -> Host {
        match &self.host_user {
            Some(user) => Host::User(user.clone()),
            None => Host::Account(Account::new(&self.host_namespace, &self.host_service_account)),
        }
    }
}

pub fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let component = Component::read(&args.file)?;
    let shown = component.path.display();
    if args.rbac {
        return rbac(args, &component);
    }
    let described = describe(&component.bytes).map_err(|sentence| anyhow!("{shown}: {sentence}"))?;
    match args.output {
        Some(format) => output::print_as(format, &told(&component, &described)?)?,
        None => output::print(&said(&component, &described)?)?,
    }
    match described.refusal {
        Some(sentence) => Err(anyhow!("{shown}: this host would not load it: {sentence}")),
        None => Ok(()),
    }
}

fn rbac(args: &InspectArgs, component: &Component) -> anyhow::Result<()> {
    let inspected = component.inspected()?;
    let kinds = Kinds::with_crds(&crds(&inspected.crds)?);
    let manifest = &inspected.manifest;
    let secrets = args.pull_secret.iter().map(|name| Named { resource: "secrets", name: name.clone() });
    let config_map = args.config_map.iter().map(|name| Named { resource: "configmaps", name: name.clone() });
    let source: Vec<Named> = config_map.chain(secrets).collect();
    let wanted = Wanted {
        manifest,
        kinds: &kinds,
        account: args.service_account.as_deref().unwrap_or(&manifest.name),
        namespace: args.namespace.as_deref(),
        host: &args.host.host(),
        source: &source,
    };
    let documents = rbac::documents(wanted).map_err(|sentence| anyhow!("{}: {sentence}", component.path.display()))?;
    match args.output {
        Some(Format::Json) => {
            let items: Vec<Value> = documents.into_iter().map(|Document { object, .. }| object).collect();
            output::print_as(Format::Json, &json!({ "apiVersion": "v1", "kind": "List", "items": items }))
        }
        _ => output::print(&yaml::commented(&documents)?),
    }
}

/// The CRDs that a component brings, decoded.
pub fn crds(texts: &[String]) -> anyhow::Result<Vec<Value>> {
    let documents = texts.iter().map(|text| yaml::documents(text)).collect::<Result<Vec<_>, _>>();
    Ok(documents.context("the component brings a CRD that is not YAML")?.concat())
}

fn schema(described: &Described) -> anyhow::Result<Option<Value>> {
    let parsed = described.settings.as_deref().map(serde_json::from_str).transpose();
    parsed.context("the component brings a settings schema that is not JSON")
}

/// For programs.
fn told(component: &Component, described: &Described) -> anyhow::Result<Value> {
    let import = |(name, meaning): &(String, Result<&str, String>)| match meaning {
        Ok(meaning) => json!({ "name": name, "means": meaning }),
        Err(refusal) => json!({ "name": name, "refusal": refusal }),
    };
    Ok(json!({
        "path": component.path.display().to_string(),
        "size": component.bytes.len(),
        "digest": component.digest.to_string(),
        "manifest": described.manifest.as_ref().and_then(|manifest| manifest.as_ref().ok()),
        "imports": described.imports.iter().map(import).collect::<Vec<_>>(),
        "crds": crds(&described.crds)?,
        "settingsSchema": schema(described)?,
        "loads": described.refusal.is_none(),
        "refusal": described.refusal,
    }))
}

/// For people.
fn said(component: &Component, described: &Described) -> anyhow::Result<String> {
    let mut rows = Vec::new();
    if let Some(Ok(manifest)) = &described.manifest {
        rows.push(("plugin", format!("{} {}", manifest.name, manifest.version)));
    }
    rows.push(("path", component.path.display().to_string()));
    rows.push(("size", component.size()));
    rows.push(("digest", component.digest.to_string()));
    rows.push((
        "loads",
        match &described.refusal {
            None => output::good("yes: this host would load it"),
            Some(_) => output::bad("no"),
        },
    ));
    let mut text = output::rows(&rows);
    if let Some(Ok(manifest)) = &described.manifest {
        text += &reconciles(manifest);
    }
    let imports: Vec<(&str, String)> = described.imports.iter().map(|(name, meaning)| (&**name, in_words(meaning))).collect();
    text += &section("may", &imports);
    let crds = crds(&described.crds)?;
    let crds: Vec<(String, &str)> =
        crds.iter().map(|crd| (text_at(crd, "/metadata/name").to_owned(), text_at(crd, "/spec/scope"))).collect();
    text += &section("brings the CRDs", &crds);
    if let Some(schema) = schema(described)? {
        text += &format!("\n{}\n{}\n", output::bold("settings"), serde_json::to_string_pretty(&schema)?);
    }
    Ok(text)
}

fn in_words(meaning: &Result<&'static str, String>) -> String {
    match meaning {
        Ok(meaning) => (*meaning).to_owned(),
        Err(refusal) => output::bad(refusal),
    }
}

fn reconciles(manifest: &Manifest) -> String {
    manifest.reconciles.iter().map(|entry| section(&format!("reconciles {}", entry.kind), &touches(entry))).collect()
}

fn touches(entry: &Reconciles) -> Vec<(&'static str, String)> {
    let list = |kinds: &[Kind]| kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut rows = vec![("owns", list(&entry.owns)), ("reads", list(&entry.reads)), ("writes", list(&entry.writes))];
    rows.retain(|(_, kinds)| !kinds.is_empty());
    if entry.cleanup {
        rows.push(("cleans up", "a finalizer of the host holds each object until it has".to_owned()));
    }
    rows.push(("condition", format!("the host's is called {}", entry.condition)));
    rows
}

fn section(title: &str, rows: &[(impl AsRef<str>, impl AsRef<str>)]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let lines: String = output::rows(rows).lines().map(|line| format!("  {line}\n")).collect();
    format!("\n{}\n{lines}", output::bold(title))
}
