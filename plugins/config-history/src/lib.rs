//! Keeps the last versions of the ConfigMaps that each `ConfigHistory` selects, as copies that are named by what is in them.
//!
//! A copy is no child: nothing restores one that somebody deletes, and it may outlive its history. So it is created with `keep`
//! in the run that sees the version, and deleted by name when it is one too many.

mod copies;

use std::time::Duration;

use copies::{Batch, Copies};
use plugin_sdk::prelude::*;

#[derive(Deserialize)]
struct ConfigHistory {
    selector: String,
    #[serde(default = "five")]
    keep: usize,
    #[serde(default = "at_once")]
    every: Interval,
    #[serde(default = "yes")]
    retain: bool,
}

fn five() -> usize {
    5
}

fn at_once() -> Interval {
    Interval(Duration::ZERO)
}

fn yes() -> bool {
    true
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    sources: usize,
    versions: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_snapshot: Option<Timestamp>,
}

type History = Object<ConfigHistory, Status>;

const CONFIG: &str = "v1/ConfigMap";

/// What is left over for the next run is not taken up at once: other keys have their turn first.
const NEXT_BATCH: Duration = Duration::from_secs(1);
/// A plan has at most 500 writes.
const MOST_DELETED: usize = 400;

fn reconcile(history: History, cx: &Context) -> Result<Plan> {
    let sources = cx.list_fields(CONFIG, &copies::sources(&history), &["/data", "/binaryData"]).map_err(unread)?;
    let mut copies = Copies::read(&history, cx)?;
    let mut batch = Batch::default();
    for source in &sources {
        copies.look_at(source, &history, cx, &mut batch)?;
    }
    let surplus = copies.surplus(history.spec.keep);
    let (now, later) = surplus.split_at(surplus.len().min(MOST_DELETED));
    let status = Status {
        sources: sources.len(),
        versions: copies.len() - now.len(),
        last_snapshot: copies.iter().map(|copy| copy.taken).max(),
    };
    let plan = batch.plan().delete_all(now).status(status);
    let plan = batch.events.into_iter().fold(plan, Plan::event);
    let standing = match (sources.len(), batch.taken.first(), batch.next) {
        (0, ..) => Condition::no("UpToDate", "NothingSelected", format!("no ConfigMap matches `{}`", history.spec.selector)),
        (_, Some(name), _) => Condition::no(
            "UpToDate",
            "NameTaken",
            format!("there is a ConfigMap {name}, and it is no copy of this history: delete or rename it"),
        ),
        (_, None, Some(next)) => Condition::no("UpToDate", "Waiting", format!("changed ConfigMaps wait until {next}")),
        (n, None, None) if batch.left_over > 0 => {
            Condition::no("UpToDate", "CatchingUp", format!("{n} ConfigMaps are selected, not all versions are kept yet"))
        }
        (n, None, None) => Condition::yes("UpToDate", "Kept", format!("the present version of {n} ConfigMaps is kept")),
    };
    let next = batch.next.map(|next| cx.until(next));
    let next = if batch.left_over > 0 || !later.is_empty() { Some(NEXT_BATCH) } else { next };
    let plan = plan.condition(standing);
    Ok(next.into_iter().fold(plan, Plan::after))
}

/// What cannot be read is not kept, whatever was kept before.
fn unread(error: Error) -> Error {
    let said = Condition::no("UpToDate", "CannotRead", error.to_string());
    error.condition(said)
}

fn cleanup(history: History, cx: &Context) -> Result<Plan> {
    if history.spec.retain {
        return Ok(Plan::done());
    }
    let copies = cx.list_fields(CONFIG, &copies::own(&history), &["/metadata/uid"])?;
    match copies.get(..MOST_DELETED).filter(|first| first.len() < copies.len()) {
        Some(first) => Ok(Plan::new().delete_all(first).pending("copies are being deleted").after(NEXT_BATCH)),
        None => Ok(Plan::done().delete_all(copies)),
    }
}

plugin!(
    reconcile, for: "demo.reef.dev/v1/ConfigHistory",
        reads: ["v1/ConfigMap"],
        writes: ["v1/ConfigMap"],
        cleanup: cleanup,
        crds: ["../crd.yaml"]
);

#[cfg(test)]
mod tests;
