//! `reef list`: the Plugins of a namespace, or of all.

use clap::Args;
use serde_json::{Value, json};

use super::{
    cluster::{self, ClusterArgs},
    output::{self, Cell, View},
    plugins::{self, Told},
};

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Those of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// For people, or the resources themselves for programs.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: View,
}

pub fn run(args: &ListArgs) -> anyhow::Result<()> {
    cluster::runtime()?.block_on(list(args))
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let cluster = args.cluster.connect().await?;
    let namespace = if args.all_namespaces { "" } else { &cluster.namespace };
    let mut found = plugins::all(&cluster, namespace).await?;
    if let Some(format) = args.output.format() {
        found.iter_mut().for_each(without_managed_fields);
        return output::print_as(format, &json!({ "apiVersion": "v1", "kind": "List", "items": found }));
    }
    if found.is_empty() {
        let place = if args.all_namespaces { "in this cluster".into() } else { format!("in namespace {namespace}") };
        eprintln!("there is no Plugin {place}");
        return Ok(());
    }
    let told = found.into_iter().map(|object| Ok(Told::of(&plugins::parse(object)?))).collect::<anyhow::Result<Vec<_>>>()?;
    output::print(&table(&told, args.all_namespaces))
}

/// Who manages which field is for programs that ask the API server themselves.
fn without_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

fn table(told: &[Told], all_namespaces: bool) -> String {
    let mut headings = vec!["NAME", "READY", "REASON", "FAILING", "COMPONENT", "DIGEST", "SOURCE", "KINDS", "AGE"];
    if all_namespaces {
        headings.insert(0, "NAMESPACE");
    }
    let row = |told: &Told| {
        let mut row = vec![
            Cell::plain(&told.name),
            Cell::truth(&told.ready),
            Cell::plain(&told.reason),
            Cell::plain(told.failing.to_string()),
            Cell::plain(told.component.as_deref().unwrap_or("-")),
            Cell::plain(told.digest.as_deref().map_or_else(|| "-".into(), plugins::short)),
            Cell::plain(&told.source),
            Cell::plain(if told.kinds.is_empty() { "-".into() } else { told.kinds.join(",") }),
            Cell::plain(told.age()),
        ];
        if all_namespaces {
            row.insert(0, Cell::plain(&told.namespace));
        }
        row
    };
    output::table(&headings, &told.iter().map(row).collect::<Vec<_>>())
}
