//! What people would want: a web site, versions of their ConfigMaps, a database whose version changes replica by replica, and its
//! backup.
//!
//! There is no node: the demo says of pods and replicas that they are ready, as a kubelet and the StatefulSet's controller would.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    CONFIG, DATABASES, DEPLOYMENTS, Demo, EXAMPLES, INGRESSES, JOBS, Line, SERVICES, SETS, WEBSITES, count, expect,
    screen::duration,
    sight::{Change, Seen},
};
use crate::{cluster::condition, paths};

const COPY: &str = "demo.reef.dev/config-history";
const PODS: u64 = 2;
const KEEP: usize = 2;
const REPLICAS: u64 = 3;
const FROM: &str = "8.1-alpine";
const TO: &str = "9.0-alpine";

pub async fn served(demo: &mut Demo) -> Result<Line> {
    let site = |exposed: bool| {
        let mut spec = json!({ "html": "<h1>Reef</h1>", "replicas": PODS, "exposed": exposed });
        if exposed {
            spec["hostName"] = "reef.example.com".into();
        }
        json!({ "apiVersion": "demo.reef.dev/v1", "kind": "Website", "metadata": { "name": "front" }, "spec": spec })
    };
    let (mark, began) = (demo.sight.mark(), Instant::now());
    demo.world.cluster.apply_object(EXAMPLES, &site(true)).await?;
    let mut took = Duration::ZERO;
    for kind in [CONFIG, DEPLOYMENTS, SERVICES, INGRESSES] {
        let child = demo.sight.first(mark, &format!("the {kind} of the Website"), |seen| seen.is(kind, "front")).await?;
        took = took.max(child.at - began);
    }
    let ready = |seen: &Seen| {
        let ready = condition(Some(&seen.object), "Ready").is_some_and(|ready| ready["status"] == "True");
        seen.is(WEBSITES, "front") && ready && seen.object["status"]["readyReplicas"] == PODS
    };
    let cluster = &demo.world.cluster;
    let kubelet = async {
        loop {
            for pod in cluster.list("v1/Pod", EXAMPLES).await? {
                let up = json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
                let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                if condition(Some(&pod), "Ready").is_none_or(|ready| ready["status"] != "True") {
                    cluster.patch("v1/Pod", EXAMPLES, name, "status", &up).await?;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        ready = demo.sight.first(mark, "the Website to be ready", ready) => drop(ready?),
        ended = kubelet => return ended,
    }
    let (mark, hidden) = (demo.sight.mark(), Instant::now());
    demo.world.cluster.apply_object(EXAMPLES, &site(false)).await?;
    let mut gone = Duration::ZERO;
    for kind in [SERVICES, INGRESSES] {
        let left = |seen: &Seen| seen.is(kind, "front") && seen.change == Change::Deleted;
        gone = gone.max(demo.sight.first(mark, &format!("the {kind} to go"), left).await?.at - hidden);
    }
    let detail = format!("Ready with {PODS} of {PODS} pods; no longer exposed: Service and Ingress gone in {}", duration(gone));
    Ok(Line { what: "Website created → its four children".into(), took, detail })
}

pub async fn kept(demo: &mut Demo) -> Result<Line> {
    let mark = demo.sight.mark();
    let history = json!({
        "apiVersion": "demo.reef.dev/v1", "kind": "ConfigHistory", "metadata": { "name": "web" },
        "spec": { "selector": "app=web", "keep": KEEP },
    });
    demo.world.cluster.apply_object(EXAMPLES, &history).await?;
    let (mut began, texts) = (Instant::now(), ["one", "two", "three"]);
    for text in texts {
        began = Instant::now();
        let source = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "web", "labels": { "app": "web" } },
            "data": { "text": text },
        });
        demo.world.cluster.apply_object(EXAMPLES, &source).await?;
        demo.sight.first(mark, &format!("a copy of {text:?}"), |seen| is_copy(seen) && seen.says(text)).await?;
    }
    let gone = |seen: &Seen| is_copy(seen) && seen.change == Change::Deleted;
    let gone = demo.sight.first(mark, "the oldest copy to go", gone).await?;
    expect(gone.object["data"]["text"] == "one", || format!("expected the oldest copy to go, it was {}", gone.object))?;
    let copies = demo.world.cluster.list(CONFIG, EXAMPLES).await?;
    let left = copies.iter().filter(|copy| !copy["metadata"]["labels"][COPY].is_null()).count();
    expect(left == KEEP, || format!("expected {KEEP} copies, there are {left}"))?;
    let detail = format!("{} of one ConfigMap, {left} kept as copies named by their content", count(texts.len(), "version"));
    Ok(Line { what: "ConfigMap edited → history kept".into(), took: gone.at - began, detail })
}

fn is_copy(seen: &Seen) -> bool {
    seen.kind == CONFIG && seen.object["metadata"]["labels"][COPY] == "web"
}

pub async fn walked(demo: &mut Demo) -> Result<Line> {
    let mark = demo.sight.mark();
    demo.world.cluster.apply_object(EXAMPLES, &database(FROM)).await?;
    step(demo, mark, FROM, 0).await?;
    demo.sight.first(mark, "the Database to be complete", |seen| runs(seen, FROM)).await?;

    let (mark, began) = (demo.sight.mark(), Instant::now());
    demo.world.cluster.apply_object(EXAMPLES, &database(TO)).await?;
    let mut first = None;
    for partition in (0..=REPLICAS).rev() {
        let set = step(demo, mark, TO, partition).await?;
        first.get_or_insert(set.at - began);
    }
    let done = demo.sight.first(mark, "all replicas to run the new version", |seen| runs(seen, TO)).await?;
    let first = first.map(duration).unwrap_or_default();
    let detail = format!("{REPLICAS} replicas from {FROM} to {TO}, one at a time; planned after {first}");
    Ok(Line { what: "Database version → replica by replica".into(), took: done.at - began, detail })
}

fn database(version: &str) -> Value {
    let spec = json!({ "version": version, "replicas": REPLICAS, "storage": "1Gi" });
    json!({ "apiVersion": "demo.reef.dev/v1", "kind": "Database", "metadata": { "name": "orders" }, "spec": spec })
}

/// All replicas run this version.
fn runs(seen: &Seen, version: &str) -> bool {
    let complete = condition(Some(&seen.object), "Progressing").is_some_and(|progress| progress["reason"] == "Complete");
    seen.is(DATABASES, "orders") && seen.object["status"]["version"] == version && complete
}

/// Waits until the plugin has come to this partition of this version, and says that this has been done.
async fn step(demo: &mut Demo, mark: usize, version: &str, partition: u64) -> Result<Arc<Seen>> {
    let image = format!("docker.io/valkey/valkey:{version}");
    let at = |seen: &Seen| {
        let spec = &seen.object["spec"];
        seen.is(SETS, "orders")
            && spec["template"]["spec"]["containers"][0]["image"] == *image
            && spec["updateStrategy"]["rollingUpdate"]["partition"] == partition
    };
    let set = demo.sight.first(mark, &format!("a StatefulSet with partition {partition}"), at).await?;
    let current = if partition == 0 { version } else { FROM };
    let status = json!({
        "observedGeneration": set.object["metadata"]["generation"], "replicas": REPLICAS, "readyReplicas": REPLICAS,
        "availableReplicas": REPLICAS, "updatedReplicas": REPLICAS - partition, "currentRevision": current, "updateRevision": version,
    });
    demo.world.cluster.patch(SETS, EXAMPLES, "orders", "status", &json!({ "status": status })).await?;
    Ok(set)
}

pub async fn backed_up(demo: &mut Demo) -> Result<Line> {
    let (mark, began) = (demo.sight.mark(), Instant::now());
    let sample = std::fs::read_to_string(paths::checkout().join("plugins/database/sample.yaml"))?;
    let backup = sample.split("\n---\n").nth(1).context("the sample of the plugin database has no Backup")?;
    demo.world.cluster.apply(EXAMPLES, backup).await?;
    let job = demo.sight.first(mark, "a Job of the Backup", |seen| seen.kind == JOBS && seen.change == Change::Added).await?;
    // As a controller does that cleans up what has finished.
    demo.world.cluster.delete(JOBS, EXAMPLES, job.name()).await?;
    let lost = "the Job ";
    let told = |backup: Option<&Value>| {
        condition(backup, "Ready").is_some_and(|ready| ready["message"].as_str().is_some_and(|said| said.starts_with(lost)))
    };
    demo.world.cluster.wait(super::BACKUPS, EXAMPLES, "nightly", "says that its Job is gone", told).await?;
    expect(demo.world.cluster.list(JOBS, EXAMPLES).await?.is_empty(), || "expected the Job not to be made again".into())?;
    let detail = format!("Job {}; deleted by hand, it is not run twice", job.name());
    Ok(Line { what: "Backup created → Job".into(), took: job.at - began, detail })
}
