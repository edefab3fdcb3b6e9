//! The guest of most tests: `spec.mode` of a `Probe` says what to do, well or badly.
//!
//! Whatever the mode, `spec.children` are ConfigMaps to own, each with `spec.text`. What misbehaves inside the sandbox is in
//! `misbehave`, what makes a plan that the host must refuse in `refused`.

mod misbehave;
mod refused;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use plugin_sdk::prelude::*;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    mode: String,
    /// Names of the ConfigMaps to own.
    children: Vec<String>,
    /// What they say.
    text: String,
    /// What a partial plan waits for; empty: the plan is complete.
    pending: String,
    /// What to read: the name of a ConfigMap, or a label selector.
    read: String,
    /// Where a child goes that must not.
    namespace: String,
    /// How much of it: bytes, lines or milliseconds.
    size: usize,
}

type Probe = Object<Spec>;

fn reconcile(probe: Probe, cx: &Context) -> Result<Plan> {
    let plan = match probe.spec.mode.as_str() {
        "" => Plan::new().status(json!({ "text": probe.spec.text })),
        "ready" => Plan::new().condition(Condition::yes("Ready", "AsAsked", "the probe is ready")),
        "counter" => counter(),
        "request" => request(cx)?,
        "read" => read(&probe, cx)?,
        "chain" => chain(&probe, cx)?,
        "flip" => flip(&probe, cx)?,
        "slow" => slow(&probe),
        "list" => list(&probe, cx)?,
        "quantity" => quantity(&probe),
        "event" => Plan::new().event(Event::warning("Probed", "as asked")),
        "after" => Plan::new().after(Duration::from_millis(probe.spec.size as u64)).status(json!({ "now": millis(cx) })),
        "log" => log(),
        "retry" | "wait" | "terminal" | "foreign" => return Err(failure(&probe)),
        mode => match misbehave::as_asked(mode, &probe) {
            Some(plan) => plan,
            None => refused::plan(mode, &probe, cx)?,
        },
    };
    let plan = probe.spec.children.iter().fold(plan, |plan, name| plan.own(config(&probe, name)));
    Ok(if probe.spec.pending.is_empty() { plan } else { plan.pending(&probe.spec.pending) })
}

/// A child.
fn config(probe: &Probe, name: &str) -> Value {
    probe.child("v1/ConfigMap", json!({ "metadata": { "name": name }, "data": { "text": probe.spec.text } }))
}

/// A memory that outlived a call would count beyond one.
fn counter() -> Plan {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    Plan::new().status(json!({ "calls": CALLS.fetch_add(1, Ordering::Relaxed) + 1 }))
}

/// Everything that comes with a request.
fn request(cx: &Context) -> Result<Plan> {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(Plan::new().status(json!({
        "now": millis(cx),
        "clock": clock.as_millis() as u64,
        "attempt": cx.attempt(),
        "random": cx.rng().next_u64().to_string(),
        "settings": cx.settings::<Value>()?,
    })))
}

fn millis(cx: &Context) -> u64 {
    cx.now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Copies `data.value` of a ConfigMap into a child.
fn read(probe: &Probe, cx: &Context) -> Result<Plan> {
    let source = cx.get("v1/ConfigMap", probe.namespace(), &probe.spec.read)?;
    let Some(source) = source else {
        return Err(Error::wait(format!("there is no ConfigMap `{}` yet", probe.spec.read)));
    };
    let name = format!("{}-copy", probe.name());
    let copy = json!({ "metadata": { "name": name }, "data": { "value": source.at("/data/value") } });
    Ok(Plan::new().own(probe.child("v1/ConfigMap", copy)).status(json!({ "value": source.at("/data/value") })))
}

/// Counts up in a child, one step a run, each of which reads what the one before has written.
fn chain(probe: &Probe, cx: &Context) -> Result<Plan> {
    let name = format!("{}-chain", probe.name());
    let before = cx.get("v1/ConfigMap", probe.namespace(), &name)?;
    let before: usize = before.and_then(|child| child.at("/data/step").as_str()?.parse().ok()).unwrap_or(0);
    let step = probe.spec.size.min(before + 1);
    let child = json!({ "metadata": { "name": name }, "data": { "step": step.to_string() } });
    let plan = Plan::new().own(probe.child("v1/ConfigMap", child));
    Ok(if before < probe.spec.size { plan.after(Duration::ZERO) } else { plan })
}

/// Changes its mind in each run, and asks for the next one at once.
fn flip(probe: &Probe, cx: &Context) -> Result<Plan> {
    let name = format!("{}-flip", probe.name());
    let before = cx.get("v1/ConfigMap", probe.namespace(), &name)?;
    let side = if before.is_some_and(|child| child.at("/data/side").as_str() == Some("heads")) { "tails" } else { "heads" };
    let child = json!({ "metadata": { "name": name }, "data": { "side": side } });
    Ok(Plan::new().own(probe.child("v1/ConfigMap", child)).after(Duration::ZERO))
}

/// Says when it begins and when it ends.
fn slow(probe: &Probe) -> Plan {
    println!("begins");
    std::thread::sleep(Duration::from_millis(probe.spec.size as u64));
    println!("ends");
    Plan::new()
}

fn list(probe: &Probe, cx: &Context) -> Result<Plan> {
    let found = cx.list("v1/ConfigMap", &probe.spec.read)?;
    Ok(Plan::new().status(json!({ "names": found.iter().map(|object| object.name()).collect::<Vec<_>>() })))
}

/// An API server stores none of these amounts as they are written here.
fn quantity(probe: &Probe) -> Plan {
    let labels = json!({ "app": probe.name() });
    Plan::new().own(probe.child(
        "apps/v1/Deployment",
        json!({
            "spec": {
                "replicas": 1,
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": { "containers": [{
                        "name": "main",
                        "image": "registry.example/none:1",
                        "resources": { "requests": { "cpu": "1000m", "memory": "1024Mi" }, "limits": { "cpu": "2000m" } },
                        "ports": [{ "containerPort": 8080 }],
                    }] },
                },
            },
        }),
    ))
}

/// One line by each way that there is.
fn log() -> Plan {
    tracing::info!(color = "blue", depth = 3, "said by tracing");
    println!("said on stdout");
    eprintln!("said on stderr");
    Plan::new()
}

fn failure(probe: &Probe) -> Error {
    let text = &probe.spec.text;
    match probe.spec.mode.as_str() {
        "retry" => Error::retry(text).reason("AskedToRetry"),
        "wait" => Error::wait(text).reason("AskedToWait").condition(Condition::no("Ready", "NotYet", text)),
        "terminal" => Error::terminal(text).reason("AskedToEnd").status(json!({ "text": text })),
        _ => "no number".parse::<u8>().map_or_else(Error::from, |_| Error::retry(text)),
    }
}

plugin!(reconcile, for: "test.reef.dev/v1/Probe", owns: ["v1/ConfigMap", "apps/v1/Deployment"]);
