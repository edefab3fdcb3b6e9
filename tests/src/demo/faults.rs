//! What must not hurt: a swap under load, a killed host, a plugin that never ends, one that reaches too far.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{
    CONFIG, Demo, HELLO, HELLOS, Line, OTHER_TEAM, PROBE, PROBES, TEAM, count, expect,
    screen::duration,
    sight::{Change, Seen, Sight},
    steps,
};
use crate::{
    cluster::{condition, hang_bound},
    host::Host,
    paths,
};

/// How many Hellos there are during the swap and after it.
const CROWD: usize = 20;

pub fn hello(name: &str, text: &str) -> Value {
    json!({ "apiVersion": "demo.reef.dev/v1", "kind": "Hello", "metadata": { "name": name }, "spec": { "text": text } })
}

fn probe(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "test.reef.dev/v1", "kind": "Probe", "metadata": { "name": name }, "spec": spec })
}

fn names() -> impl Iterator<Item = String> {
    (1..=CROWD).map(|number| format!("hello-{number:02}"))
}

/// Half of the Hellos are edited before the new component takes the place of the old one, half after it, without a pause.
pub async fn swapped(demo: &mut Demo) -> Result<Line> {
    for name in names() {
        demo.world.cluster.apply_object(TEAM, &hello(&name, &format!("{name} is quiet"))).await?;
    }
    let quiet = |sight: &Sight| names().all(|name| follows(sight, &name, &format!("{name} is quiet"))).then_some(());
    demo.sight.until("a ConfigMap and a status for each of 20 Hellos", quiet).await?;

    let (mark, audit) = (demo.sight.mark(), demo.world.audit.mark(&demo.world.cluster).await?);
    let mut replaced = Instant::now();
    for (number, name) in names().enumerate() {
        if number == CROWD / 2 {
            replaced = replace(demo)?;
        }
        let patch = json!({ "spec": { "text": format!("{name} is edited") } });
        demo.world.cluster.patch(HELLOS, TEAM, &name, "", &patch).await?;
    }
    let missing = |sight: &Sight| names().filter(|name| !follows(sight, name, &shouted(name))).collect::<Vec<_>>();
    let all = demo.sight.until("all 20 ConfigMaps to shout", |sight| missing(sight).is_empty().then_some(())).await;
    all.with_context(|| format!("these Hellos were lost: {:?}", missing(&demo.sight)))?;
    let took = replaced.elapsed();
    // Who was not edited is shouted as well; after that, nothing is left to be written.
    let (kept, becomes) = (steps::NAME, steps::SECOND.to_uppercase());
    demo.sight.until("the unedited Hello's ConfigMap to shout", |sight| follows(sight, kept, &becomes).then_some(())).await?;
    let shouts = |seen: &Seen| seen.kind == CONFIG && seen.says(&shouted(seen.name()));
    let first = demo.sight.first(mark, "a ConfigMap that shouts", shouts).await?;
    super::only_hello(&demo.writes(audit, CROWD * 2).await?)?;
    let all = duration(took);
    let detail = format!("{CROWD} Hellos edited around it: {CROWD} shout their last text after {all}");
    Ok(Line { what: "component replaced by rename → swapped".into(), took: first.at - replaced, detail })
}

/// The ConfigMap and the status have this text.
fn follows(sight: &Sight, name: &str, text: &str) -> bool {
    let config = sight.now(CONFIG, name).is_some_and(|seen| seen.says(text));
    config && sight.now(HELLOS, name).is_some_and(|seen| seen.object["status"]["text"] == text)
}

fn shouted(name: &str) -> String {
    format!("{name} is edited").to_uppercase()
}

/// As a deployment does: written beside, then renamed.
fn replace(demo: &Demo) -> Result<Instant> {
    let file = demo.options.plugin_dir.join(format!("{HELLO}.wasm"));
    let beside = file.with_extension("new");
    fs::copy(paths::component("hello-v2")?, &beside)?;
    fs::rename(&beside, &file).with_context(|| format!("cannot replace {}", file.display()))?;
    Ok(Instant::now())
}

pub async fn killed(demo: &mut Demo) -> Result<Line> {
    let audit = demo.world.audit.mark(&demo.world.cluster).await?;
    let began = Instant::now();
    demo.host.kill()?;
    demo.host = Host::start(demo.world.plane.supervisor(), &demo.options).await?;
    demo.host.ready().await?;
    // Also the Hello of the first steps.
    let reconciled = reconciled(demo, CROWD as f64 + 1.0).await?;
    let took = began.elapsed();
    let writes = demo.writes(audit, 0).await?;
    let lines: Vec<_> = writes.iter().map(crate::audit::Request::line).collect();
    expect(writes.is_empty(), || format!("expected 0 writes after the crash, the audit log has:\n{}", lines.join("\n")))?;
    let edit = duration(demo.edit("hello-01", "still there", "STILL THERE").await?);
    let detail = format!("3 s lease taken over, {reconciled} objects reconciled, 0 writes; then an edit in {edit}");
    Ok(Line { what: "host killed with -9 → recovered".into(), took, detail })
}

/// Waits until the new host has run that many reconciles of hello.
async fn reconciled(demo: &Demo, expected: f64) -> Result<f64> {
    let controller = format!("{TEAM}/{HELLO}");
    let end = Instant::now() + hang_bound();
    loop {
        let labels = [("controller", controller.as_str()), ("result", "success")];
        let runs = demo.host.metrics().await?.sum("controller_runtime_reconcile_total", &labels);
        if runs >= expected {
            return Ok(runs);
        }
        if Instant::now() > end {
            bail!("expected {expected} reconciles of {controller} after the crash, /metrics says {runs}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Hellos are edited one after the other, before the loop begins and until it has been stopped.
pub async fn looped(demo: &mut Demo) -> Result<Line> {
    let mut alone = Vec::new();
    for round in 0..CROWD {
        alone.push(edit_once(demo, round).await?);
    }
    let mark = demo.sight.mark();
    let began = Instant::now();
    demo.world.cluster.create(OTHER_TEAM, &probe("stuck", &json!({ "mode": "loop" }))).await?;
    let stopped = |sight: &Sight| sight.since(mark).into_iter().find(|seen| failed(seen, "stuck").is_some());
    let (mut beside, end) = (Vec::new(), Instant::now() + hang_bound());
    let stopped = loop {
        if let Some(stopped) = stopped(&demo.sight) {
            break stopped;
        }
        if Instant::now() > end {
            bail!("expected the loop to be stopped, Probe `stuck` says {}", now(demo, "stuck"));
        }
        beside.push(edit_once(demo, CROWD + beside.len()).await?);
    };
    let (reason, message) = failed(&stopped, "stuck").context("the Probe has not failed")?;
    expect(reason == "CPULimitExceeded", || format!("expected CPULimitExceeded, the status says {reason}: {message}"))?;
    expect(!beside.is_empty(), || "expected edits of Hellos to be served while the loop ran, there was none".into())?;
    demo.world.cluster.delete(PROBES, OTHER_TEAM, "stuck").await?;
    let detail = format!(
        "{reason} at 500 ms; meanwhile {} served, median {} (before {}), slowest {}",
        count(beside.len(), "edit"),
        duration(median(&mut beside)),
        duration(median(&mut alone)),
        duration(beside.last().copied().unwrap_or_default()),
    );
    Ok(Line { what: "plugin in an endless loop → stopped".into(), took: stopped.at - began, detail })
}

async fn edit_once(demo: &mut Demo, round: usize) -> Result<Duration> {
    let (name, text) = (format!("hello-{:02}", round % CROWD + 1), format!("round {round}"));
    demo.edit(&name, &text, &text.to_uppercase()).await
}

/// Leaves them sorted.
fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

pub async fn refused(demo: &mut Demo) -> Result<Line> {
    let (mark, audit) = (demo.sight.mark(), demo.world.audit.mark(&demo.world.cluster).await?);
    let spec = json!({ "mode": "other-namespace", "namespace": TEAM });
    let began = Instant::now();
    demo.world.cluster.create(OTHER_TEAM, &probe("stray", &spec)).await?;
    let refused = demo.sight.first(mark, "Probe `stray` to fail", |seen| failed(seen, "stray").is_some()).await?;
    let (reason, message) = failed(&refused, "stray").context("the Probe has not failed")?;
    expect(message.contains(TEAM), || format!("expected a reason that names {TEAM}, the status says {reason}: {message}"))?;
    let stray = demo.world.cluster.get(CONFIG, TEAM, "stray").await?;
    expect(stray.is_none(), || format!("expected no ConfigMap `stray` in {TEAM}, there is one"))?;
    demo.world.audit.mark(&demo.world.cluster).await?;
    let account = format!("system:serviceaccount:{OTHER_TEAM}:{PROBE}");
    let requests = demo.world.audit.since(audit)?;
    let tried = requests.iter().find(|request| request.user.username == account && request.object_ref.namespace == TEAM);
    expect(tried.is_none(), || format!("expected no request by {account} in {TEAM}, the audit log has one: {tried:?}"))?;
    let detail = format!("status says {reason}: {message}");
    Ok(Line { what: "write into another namespace → refused".into(), took: refused.at - began, detail })
}

/// Reason and message, if the host says that the Probe failed.
fn failed(seen: &Seen, name: &str) -> Option<(String, String)> {
    let said = condition(Some(&seen.object), "Reconciled").filter(|condition| condition["status"] == "False")?;
    let text = |field: &str| said[field].as_str().unwrap_or_default().to_owned();
    (seen.is(PROBES, name) && seen.change != Change::Deleted).then(|| (text("reason"), text("message")))
}

fn now(demo: &Demo, name: &str) -> String {
    demo.sight.now(PROBES, name).map_or_else(|| "nothing".into(), |seen: Arc<Seen>| seen.object["status"].to_string())
}
