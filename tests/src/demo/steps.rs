//! A plugin's everyday life: created, edited, repaired, collected.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{
    CONFIG, Demo, HELLOS, Line, TEAM, count, expect, only_hello,
    screen::duration,
    sight::{Change, Seen},
};
use crate::{
    audit::{Mark, Request},
    cluster::condition,
    paths,
};

/// The Hello of `plugins/hello/sample.yaml`.
pub const NAME: &str = "greeting";
const FIRST: &str = "Hello from the reef";
pub const SECOND: &str = "Hello again";
/// How often Kubernetes' garbage collector looks for new kinds.
const COLLECTOR_LOOKS: Duration = Duration::from_secs(30);

pub async fn created(demo: &mut Demo) -> Result<Line> {
    let (mark, audit) = (demo.sight.mark(), demo.world.audit.mark(&demo.world.cluster).await?);
    let began = Instant::now();
    demo.world.apply_file(TEAM, &paths::checkout().join("plugins/hello/sample.yaml")).await?;
    let hello = demo.sight.first(mark, "the Hello to appear", |seen| seen.is(HELLOS, NAME)).await?;
    let wanted = format!("ConfigMap {NAME} that says {FIRST:?}");
    let config = demo.sight.first(mark, &wanted, |seen| seen.is(CONFIG, NAME) && seen.says(FIRST)).await?;
    let ready = demo.sight.first(mark, "the Hello's status to be Ready", |seen| is_ready(seen, FIRST)).await?;
    let owner = &config.object["metadata"]["ownerReferences"][0]["uid"];
    expect(owner == hello.uid(), || format!("expected the ConfigMap to be owned by {}, it says {owner}", hello.uid()))?;
    let writes = demo.writes(audit, 2).await?;
    only_hello(&writes)?;
    let (written, after) = (count(writes.len(), "write"), duration(ready.at - began));
    let detail = format!("{FIRST:?}; Ready after {after}; {written} as {TEAM}:hello");
    Ok(Line { what: "Hello created → ConfigMap".into(), took: config.at - began, detail })
}

fn is_ready(seen: &Seen, text: &str) -> bool {
    let ready = condition(Some(&seen.object), "Ready").is_some_and(|ready| ready["status"] == "True");
    seen.is(HELLOS, NAME) && seen.object["status"]["text"] == text && ready
}

pub async fn edited(demo: &mut Demo) -> Result<Line> {
    let (mark, audit) = (demo.sight.mark(), demo.world.audit.mark(&demo.world.cluster).await?);
    let began = Instant::now();
    let took = demo.edit(NAME, SECOND, SECOND).await?;
    let ready = demo.sight.first(mark, "the Hello's status to follow", |seen| is_ready(seen, SECOND)).await?;
    let (written, after) = (written(demo, audit, 2).await?, duration(ready.at - began));
    Ok(Line {
        what: "text edited → ConfigMap follows".into(),
        took,
        detail: format!("{SECOND:?}; status after {after}; {written}"),
    })
}

pub async fn deleted_by_hand(demo: &mut Demo) -> Result<Line> {
    let (mark, audit) = (demo.sight.mark(), demo.world.audit.mark(&demo.world.cluster).await?);
    let began = Instant::now();
    demo.world.cluster.delete(CONFIG, TEAM, NAME).await?;
    let gone = |seen: &Seen| seen.is(CONFIG, NAME) && seen.change == Change::Deleted;
    let gone = demo.sight.first(mark, "the ConfigMap to go", gone).await?;
    let back = |seen: &Seen| seen.is(CONFIG, NAME) && seen.change == Change::Added && seen.uid() != gone.uid();
    let back = demo.sight.first(mark, "another ConfigMap of the same name", back).await?;
    expect(back.says(SECOND), || format!("expected the new ConfigMap to say {SECOND:?}, it is {}", back.object))?;
    let detail = format!("{SECOND:?}, with a new uid; {}", written(demo, audit, 1).await?);
    Ok(Line { what: "ConfigMap deleted by hand → back".into(), took: back.at - began, detail })
}

pub async fn edited_by_hand(demo: &mut Demo) -> Result<Line> {
    let (mark, audit) = (demo.sight.mark(), demo.world.audit.mark(&demo.world.cluster).await?);
    let (vandalism, began) = ("somebody was here", Instant::now());
    demo.world.cluster.patch(CONFIG, TEAM, NAME, "", &json!({ "data": { "text": vandalism } })).await?;
    let spoilt = |seen: &Seen| seen.is(CONFIG, NAME) && seen.says(vandalism);
    let spoilt = demo.sight.first(mark, "the edited ConfigMap", spoilt).await?;
    let repaired = |seen: &Seen| seen.is(CONFIG, NAME) && seen.at > spoilt.at && seen.says(SECOND);
    let repaired = demo.sight.first(mark, &format!("the ConfigMap to say {SECOND:?} again"), repaired).await?;
    expect(repaired.uid() == spoilt.uid(), || "expected the same ConfigMap, it was replaced by another".into())?;
    let detail = format!("{vandalism:?} undone; {}", written(demo, audit, 1).await?);
    Ok(Line { what: "ConfigMap edited by hand → repaired".into(), took: repaired.at - began, detail })
}

/// The first change after a create has one write more: it takes the fields over from the create to the apply.
async fn written(demo: &Demo, mark: Mark, expected: usize) -> Result<String> {
    let writes = demo.writes(mark, expected).await?;
    only_hello(&writes)?;
    let more = if writes.len() > expected { ", one takes fields over" } else { "" };
    Ok(format!("{}{more}", count(writes.len(), "write")))
}

/// The garbage collector can only see the end of what it watches.
pub async fn collector_knows(demo: &Demo) -> Result<()> {
    let end = Instant::now() + 10 * COLLECTOR_LOOKS;
    let watches = |request: &Request| request.verb == "watch" && request.object_ref.resource == "hellos" && is_collector(request);
    while !demo.world.audit.all()?.iter().any(watches) {
        if Instant::now() > end {
            bail!("expected Kubernetes' garbage collector to watch Hellos, the audit log has no such watch");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn is_collector(request: &Request) -> bool {
    request.user.username.contains("kube-controller-manager") || request.user_agent.contains("generic-garbage-collector")
}

/// The host may see the ConfigMap go before it sees the Hello go, and make it once more; that one is collected as well.
/// So what counts is the state after the host has certainly seen the Hello go: when it has served a later one.
pub async fn collected(demo: &mut Demo) -> Result<Line> {
    let (mark, audit) = (demo.sight.mark(), demo.world.audit.mark(&demo.world.cluster).await?);
    let began = Instant::now();
    demo.world.cluster.delete(HELLOS, TEAM, NAME).await?;
    let collected = |seen: &Seen| seen.is(CONFIG, NAME) && seen.change == Change::Deleted;
    demo.sight.first(mark, "the garbage collector to delete the ConfigMap", collected).await?;
    demo.world.cluster.create(TEAM, &super::faults::hello("later", "later")).await?;
    demo.sight.first(mark, "a later Hello's ConfigMap", |seen| seen.is(CONFIG, "later")).await?;
    demo.sight.until("the ConfigMap to stay away", |sight| sight.now(CONFIG, NAME).is_none().then_some(())).await?;
    let last = demo.sight.since(mark).into_iter().rfind(|seen| collected(seen)).context("the ConfigMap was not seen to go")?;
    let again = demo.sight.since(mark).iter().filter(|seen| seen.is(CONFIG, NAME) && seen.change == Change::Added).count();

    demo.world.audit.mark(&demo.world.cluster).await?;
    let requests = demo.world.audit.since(audit)?;
    let by = requests.iter().find(|request| {
        request.verb == "delete" && request.object_ref.resource == "configmaps" && request.object_ref.name == NAME
    });
    let by = by.context("expected the audit log to say who deleted the ConfigMap, it does not")?;
    expect(is_collector(by), || format!("expected a deletion by the garbage collector, the audit log has: {}", by.line()))?;
    let again = if again == 0 { String::new() } else { format!(", made {} again in between", count(again, "time")) };
    let detail = format!("deleted by Kubernetes' own garbage collector{again}");
    Ok(Line { what: "Hello deleted → ConfigMap collected".into(), took: last.at - began, detail })
}
