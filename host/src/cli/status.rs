//! `reef status`: how a Plugin is: conditions, what runs, what fails and why, and what has happened lately.

use std::{io::IsTerminal as _, time::Duration};

use clap::Args;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{
    cluster::{self, Cluster, ClusterArgs, text_at},
    output::{self, Cell, View},
    plugins::{self, Told},
};
use crate::{
    catalog::crd::{FailingObject, Plugin, PluginCondition},
    event,
    names::subdomain,
};

/// So many of the latest events are shown.
const EVENTS: usize = 10;
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The Plugin.
    #[arg(value_parser = subdomain)]
    name: String,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Go on until interrupted: in place on a terminal, else once for each change.
    #[arg(short, long)]
    watch: bool,
    /// For people or for programs.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: View,
}

/// What is known of a Plugin.
#[derive(Debug, Serialize)]
pub struct Whole {
    #[serde(flatten)]
    told: Told,
    /// The latest first.
    events: Vec<Event>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    /// RFC 3339.
    time: String,
    severity: String,
    reason: String,
    note: String,
}

pub fn run(args: &StatusArgs) -> anyhow::Result<()> {
    cluster::runtime()?.block_on(async {
        let cluster = args.cluster.connect().await?;
        if !args.watch {
            return show(&look(&cluster, &args.name).await?, args.output);
        }
        tokio::select! {
            ended = watch(&cluster, args) => ended,
            interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        }
    })
}

/// Until the Plugin is gone.
async fn watch(cluster: &Cluster, args: &StatusArgs) -> anyhow::Result<()> {
    let in_place = std::io::stdout().is_terminal() && args.output == View::Table;
    let mut last = None;
    loop {
        match (find(cluster, &args.name).await, &last) {
            (Ok(Some(whole)), _) if in_place => {
                output::print(&format!("\x1b[H\x1b[2J{}", said(&whole)))?;
                last = Some(line(&whole.told));
            }
            (Ok(Some(whole)), _) => {
                let now = Some(line(&whole.told));
                match &now {
                    Some(line) if now != last && args.output == View::Table => output::print(&format!("{line}\n"))?,
                    _ if now != last => show(&whole, args.output)?,
                    _ => {}
                }
                last = now;
            }
            (Ok(None), Some(_)) => return output::print(&format!("{} is gone\n", args.name)),
            (Ok(None), None) => return plugins::must_find(cluster, &args.name).await.map(drop),
            (Err(error), None) => return Err(error),
            // It was there: an API server that is away for a moment ends nothing.
            (Err(error), Some(_)) => eprintln!("{error:#}"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A Plugin and its events.
pub async fn look(cluster: &Cluster, name: &str) -> anyhow::Result<Whole> {
    let plugin = plugins::must_find(cluster, name).await?;
    whole(cluster, &plugin).await
}

async fn find(cluster: &Cluster, name: &str) -> anyhow::Result<Option<Whole>> {
    match plugins::find(cluster, name).await? {
        Some(plugin) => whole(cluster, &plugin).await.map(Some),
        None => Ok(None),
    }
}

async fn whole(cluster: &Cluster, plugin: &Plugin) -> anyhow::Result<Whole> {
    let uid = plugin.metadata.uid.as_deref().unwrap_or_default();
    Ok(Whole { told: Told::of(plugin), events: events(cluster, uid).await? })
}

/// Those of whoever may not see them are none.
async fn events(cluster: &Cluster, uid: &str) -> anyhow::Result<Vec<Event>> {
    let kind = cluster.resource(&event::kind()).await?;
    let mut found = match cluster.list(&kind, &cluster.namespace, &format!("fieldSelector=regarding.uid%3D{uid}")).await {
        Ok(found) => found.iter().map(Event::of).collect(),
        Err(error) if error.is_forbidden() || error.is_invalid() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    found.sort_by(|one, other| other.time.cmp(&one.time));
    found.truncate(EVENTS);
    Ok(found)
}

impl Event {
    fn of(object: &Value) -> Self {
        let text = |pointer: &str| text_at(object, pointer).to_owned();
        let times = ["/series/lastObservedTime", "/eventTime", "/deprecatedLastTimestamp", "/metadata/creationTimestamp"];
        let time = times.iter().map(|pointer| text(pointer)).find(|time| !time.is_empty()).unwrap_or_default();
        Self { time, severity: text("/type"), reason: text("/reason"), note: text("/note") }
    }
}

impl Whole {
    /// In a line, for whoever has waited for it.
    pub fn in_short(&self) -> String {
        format!("{}\n", line(&self.told))
    }
}

fn show(whole: &Whole, view: View) -> anyhow::Result<()> {
    match view.format() {
        Some(format) => output::print_as(format, whole),
        None => output::print(&said(whole)),
    }
}

/// What changes from one look to the next, in a line.
fn line(told: &Told) -> String {
    let digest = told.digest.as_deref().map_or_else(|| "nothing runs".into(), plugins::short);
    let leaving = if told.deleting { ", being deleted" } else { "" };
    format!("{} {}: {} ({digest}, {} failing{leaving}): {}", told.name, told.ready, told.reason, told.failing, told.message)
}

/// For people.
fn said(whole: &Whole) -> String {
    let told = &whole.told;
    let or_none = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let ready = if told.ready == "True" { output::good(&told.ready) } else { output::bad(&told.ready) };
    let mut rows = vec![
        ("plugin", format!("{}/{}", told.namespace, told.name)),
        ("ready", format!("{ready} {}: {}", told.reason, told.message)),
        ("component", told.component.clone().unwrap_or_else(|| "-".into())),
        ("digest", told.digest.clone().unwrap_or_else(|| "-".into())),
        ("source", told.source.clone()),
        ("acts as", format!("ServiceAccount {}/{}", told.namespace, told.account)),
        ("reconciles", or_none(&told.kinds.join(", "))),
        ("owns", or_none(&told.owned_kinds.join(", "))),
        ("class", told.class.clone()),
        ("age", told.age()),
    ];
    if told.deleting {
        rows.insert(2, ("leaving", "it is being deleted".into()));
    }
    output::rows(&rows) + &conditions(told) + &failing(told) + &events_said(&whole.events)
}

fn conditions(told: &Told) -> String {
    let row = |c: &PluginCondition| {
        vec![Cell::plain(&c.type_), Cell::truth(&c.status), Cell::plain(&c.reason), Cell::plain(&c.message)]
    };
    let rows: Vec<_> = told.conditions.iter().map(row).collect();
    section(&["CONDITION", "STATUS", "REASON", "MESSAGE"], &rows)
}

fn failing(told: &Told) -> String {
    let row = |object: &FailingObject| {
        vec![Cell::plain(format!("{} {}", object.kind, object.name)), Cell::plain(&object.reason), Cell::plain(&object.message)]
    };
    let rows: Vec<_> = told.failing_objects.iter().map(row).collect();
    section(&["FAILING", "REASON", "MESSAGE"], &rows)
}

fn events_said(events: &[Event]) -> String {
    let row = |event: &Event| {
        let age = event.time.parse::<Timestamp>().map_or_else(|_| "?".into(), plugins::age);
        vec![Cell::plain(age), Cell::plain(&event.severity), Cell::plain(&event.reason), Cell::plain(&event.note)]
    };
    section(&["EVENT", "TYPE", "REASON", "NOTE"], &events.iter().map(row).collect::<Vec<_>>())
}

fn section(headings: &[&str], rows: &[Vec<Cell>]) -> String {
    if rows.is_empty() { String::new() } else { format!("\n{}", output::table(headings, rows)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_time_of_an_event_is_when_it_was_seen_last() {
        let event =
            Event::of(&json!({ "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal", "reason": "Ready", "note": "n",
            "series": { "lastObservedTime": "2026-01-02T00:00:00.000000Z" } }));
        assert_eq!(event.time, "2026-01-02T00:00:00.000000Z");
        assert_eq!(
            Event::of(&json!({ "eventTime": null, "deprecatedLastTimestamp": "2026-01-03T00:00:00Z" })).time,
            "2026-01-03T00:00:00Z"
        );
    }
}
