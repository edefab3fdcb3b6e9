//! What must be true in the end.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{END, Run, Subject, admin, name};
use crate::{
    cluster::{Cluster, condition},
    host::Options,
    state::{State, orphans},
    world::Scene,
};

/// So long nothing is reconciled any more before a round counts as whole.
const QUIET: Duration = Duration::from_secs(1);

impl<S: Subject> Run<'_, S> {
    /// The same objects, made once by another host without any trouble, in other namespaces. Returns how many were compared.
    pub(super) async fn is_as_after_a_clean_run(&self) -> Result<usize> {
        let (scene, cluster) = (self.scene, self.scene.cluster());
        let class = format!("{}-clean", scene.namespace);
        let clean = admin::install::<S>(scene, "-clean", &class).await?;
        let _others = S::others(scene, &clean);
        let _host = scene.host_with(&Options { class, ..scene.options() }).await?;
        for (i, spec) in self.wanted.iter().enumerate() {
            let namespace = clean.get(i % clean.len()).context("no namespace")?;
            if let Some(spec) = spec {
                cluster.apply_object(namespace, &admin::object::<S>(&name(i), spec)).await?;
            }
        }
        settled::<S>(scene, &clean, &self.wanted).await?;
        let kinds = [&[S::KIND], S::CHILDREN].concat();
        let mut compared = 0;
        for (soaked, clean) in self.namespaces.iter().zip(&clean) {
            let soaked_state = State::of(cluster, soaked, &kinds).await?.without_history();
            let clean_state = State::of(cluster, clean, &kinds).await?.without_history();
            ensure!(
                soaked_state == clean_state,
                "{soaked} differs from a clean run:\n{}",
                soaked_state.differences(&clean_state)
            );
            compared += soaked_state.len();
            let orphans = orphans(cluster, soaked, &[S::KIND], S::CHILDREN).await?;
            ensure!(orphans.is_empty(), "orphans in {soaked}: {orphans:?}");
        }
        Ok(compared)
    }

    /// A host that starts again looks at all objects, and writes nothing.
    pub(super) async fn writes_nothing_more(&mut self) -> Result<u64> {
        let audit = &self.scene.world.audit;
        for namespace in &self.namespaces {
            calm(self.scene.cluster(), namespace).await?;
        }
        self.host.kill()?;
        let mark = audit.mark(self.scene.cluster()).await?;
        self.start_again().await?;
        let due = self.wanted.iter().flatten().count() as u64;
        let end = Instant::now() + END;
        let (mut done, mut since) = (0, Instant::now());
        while done < due || since.elapsed() < QUIET {
            ensure!(Instant::now() < end, "{done} of {due} objects were reconciled in a round");
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = self.host.metrics().await?.sum("controller_runtime_reconcile_total", &[("result", "success")]) as u64;
            if now != done {
                (done, since) = (now, Instant::now());
            }
        }
        audit.mark(self.scene.cluster()).await?;
        for namespace in &self.namespaces {
            let writes = audit.writes(mark, namespace)?;
            let lines: Vec<String> = writes.iter().map(|write| write.line()).collect();
            ensure!(lines.is_empty(), "in a steady state was written:\n{}", lines.join("\n"));
        }
        Ok(done)
    }
}

/// Waits until no Plugin of a namespace says any more that it is slowed down: that it is not is said by a write too.
pub async fn calm(cluster: &Cluster, namespace: &str) -> Result<()> {
    let ready =
        |plugin: Option<&Value>| condition(plugin, "Ready").is_some_and(|c| c["status"] == "True" && c["reason"] == "Ready");
    for plugin in cluster.list(admin::PLUGIN, namespace).await? {
        let name = plugin["metadata"]["name"].as_str().unwrap_or_default();
        cluster.wait(admin::PLUGIN, namespace, name, "is ready, and not slowed down", ready).await?;
    }
    Ok(())
}

/// Waits until every object says what it should, and is reconciled, and nothing else is there.
pub async fn settled<S: Subject>(scene: &Scene<'_>, namespaces: &[String], wanted: &[Option<Value>]) -> Result<()> {
    let end = Instant::now() + END;
    loop {
        let mut open = Vec::new();
        for (n, namespace) in namespaces.iter().enumerate() {
            let objects = by_name(scene.cluster(), S::KIND, namespace).await?;
            let mut children = Vec::new();
            for kind in S::CHILDREN {
                children.push((*kind, by_name(scene.cluster(), kind, namespace).await?));
            }
            for (i, spec) in wanted.iter().enumerate().filter(|(i, _)| i % namespaces.len() == n) {
                let name = name(i);
                let mine = children.iter().filter_map(|(kind, all)| Some((*kind, all.get(&name)?.clone())));
                if !is_as_wanted::<S>(objects.get(&name), &mine.collect(), spec.as_ref()) {
                    open.push(format!("{namespace}/{name} should be {}", spec.clone().unwrap_or_default()));
                }
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            bail!(
                "after {} s {} objects are not as they should be: {:?}",
                END.as_secs(),
                open.len(),
                open.get(..open.len().min(5))
            );
        }
        admin::confirm_losses(scene.cluster(), namespaces).await?;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn by_name(cluster: &Cluster, kind: &str, namespace: &str) -> Result<BTreeMap<String, Value>> {
    let objects = cluster.list(kind, namespace).await?;
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    Ok(objects.into_iter().map(|object| (name(&object), object)).collect())
}

fn is_as_wanted<S: Subject>(object: Option<&Value>, children: &BTreeMap<&str, Value>, spec: Option<&Value>) -> bool {
    let Some(spec) = spec else { return object.is_none() && children.is_empty() };
    let Some(object) = object else { return false };
    let reconciled = condition(Some(object), "Reconciled")
        .is_some_and(|c| c["status"] == "True" && c["observedGeneration"] == object["metadata"]["generation"]);
    let wanted = S::children(spec);
    let all = children.len() == wanted.len() && wanted.iter().all(|kind| children.contains_key(kind));
    let lives = |child: &Value| {
        child["metadata"]["ownerReferences"][0]["uid"] == object["metadata"]["uid"]
            && child["metadata"]["deletionTimestamp"].is_null()
    };
    reconciled && all && children.values().all(lives) && S::is_done(object, children, spec)
}
