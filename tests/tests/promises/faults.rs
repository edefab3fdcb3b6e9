//! What goes wrong between host and API server, and a host that is killed: in the end everything is as if nothing had been.
//!
//! A failing test prints the proxy's rules or seed, which replay it, and what it did.

mod crash;
mod creates;
mod degradation;
mod leader;
mod mirror;
mod restart;
mod retries;
mod soak;
mod watches;

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use reef_tests::{
    host::{Host, Options},
    proxy::Proxy,
    world::{Scene, scene},
};
use serde_json::{Value, json};

use crate::{hello::HELLO, probe::CONFIG};

/// A scene whose hosts reach the API server through a proxy.
pub struct Stage<'a> {
    pub scene: &'a Scene<'a>,
    pub proxy: Proxy,
    options: Options,
    host: Mutex<Option<Arc<Host>>>,
}

/// As `scene`, with a proxy; flags are the host's.
pub fn behind_proxy(name: &str, flags: &[&str], test: impl AsyncFnOnce(&Stage<'_>) -> Result<()>) {
    scene(name, async |scene: &Scene<'_>| {
        let stage = Stage::new(scene, flags).await?;
        let ended = test(&stage).await;
        if ended.is_err() {
            eprintln!("{}", stage.proxy.describe());
        }
        ended
    });
}

impl<'a> Stage<'a> {
    pub async fn new(scene: &'a Scene<'a>, flags: &[&str]) -> Result<Self> {
        let proxy = Proxy::start(&scene.world.plane, scene.dir()).await?;
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let options = Options { kubeconfig: proxy.kubeconfig().into(), flags, ..scene.options() };
        Ok(Self { scene, proxy, options, host: Mutex::default() })
    }

    /// A host behind the proxy, ready; `kill` kills it.
    pub async fn start(&self) -> Result<Arc<Host>> {
        let host = self.scene.host_with(&self.options).await?;
        let victim = host.clone();
        self.proxy.victim(move || drop(victim.kill()));
        *self.host.lock().unwrap_or_else(PoisonError::into_inner) = Some(host.clone());
        Ok(host)
    }

    pub fn host(&self) -> Arc<Host> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner).clone().expect("no host was started")
    }

    /// Another host in the place of one that was killed, without rules.
    pub async fn again(&self) -> Result<Arc<Host>> {
        self.scene.kill(&self.host()).await?;
        self.proxy.script([""; 0])?;
        self.start().await
    }

    /// Starts the host again, and shows that it reconciles so many objects of the plugin and writes nothing.
    pub async fn a_round_writes_nothing(&self, plugin: &str, objects: u64) -> Result<()> {
        let (scene, namespace) = (self.scene, &*self.scene.namespace);
        reef_tests::soak::calm(scene.cluster(), namespace).await?;
        self.host().kill()?;
        let mark = scene.world.audit.mark(scene.cluster()).await?;
        let host = self.again().await?;
        crate::probe::reconciles_reach(scene, &host, plugin, Some("success"), objects).await?;
        let _ = scene.world.audit.mark(scene.cluster()).await?;
        let writes = scene.world.audit.writes(mark, namespace)?;
        let lines: Vec<String> = writes.iter().map(|write| write.line()).collect();
        ensure!(lines.is_empty(), "in a steady state was written:\n{}", lines.join("\n"));
        Ok(())
    }
}

/// Waits until an object of a kind is reconciled in its present generation, as a condition of this type says.
async fn reconciled(scene: &Scene<'_>, kind: &str, name: &str, kind_of_condition: &str) -> Result<Value> {
    let said = |object: Option<&Value>| {
        let generation = object.map(|object| &object["metadata"]["generation"]);
        reef_tests::cluster::condition(object, kind_of_condition)
            .is_some_and(|c| c["status"] == "True" && Some(&c["observedGeneration"]) == generation)
    };
    let what = format!("says {kind_of_condition}=True of its generation");
    scene.cluster().wait(kind, &scene.namespace, name, &what, said).await
}

async fn hello(scene: &Scene<'_>, name: &str, text: &str) -> Result<Value> {
    let object =
        json!({ "apiVersion": "demo.reef.dev/v1", "kind": "Hello", "metadata": { "name": name }, "spec": { "text": text } });
    scene.cluster().apply_object(&scene.namespace, &object).await
}

async fn greeted(scene: &Scene<'_>, name: &str, text: &str) -> Result<()> {
    crate::probe::config_says(scene, name, "text", text).await?;
    reconciled(scene, HELLO, name, "Reconciled").await.map(drop)
}

async fn no_orphans(scene: &Scene<'_>, owners: &str) -> Result<()> {
    let orphans = reef_tests::state::orphans(scene.cluster(), &scene.namespace, &[owners], &[CONFIG]).await?;
    ensure!(orphans.is_empty(), "orphans: {orphans:?}");
    Ok(())
}

/// The uid of an object that is there.
async fn uid(scene: &Scene<'_>, kind: &str, name: &str) -> Result<Value> {
    let object = scene.cluster().get(kind, &scene.namespace, name).await?;
    Ok(object.with_context(|| format!("there is no {kind} {name}"))?["metadata"]["uid"].clone())
}
