//! The plugin hello as an operator of its own, written with kube-rs as its guide shows: the text of each Hello goes into a
//! ConfigMap of the same name. What Reef is measured against.

mod noop;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use clap::Parser;
use futures::StreamExt as _;
use k8s_openapi::{
    api::core::v1::ConfigMap,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Config, CustomResource, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{
        WatchStreamExt as _,
        controller::{self, Action, Controller},
        predicates, reflector, watcher,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

const MANAGER: &str = "hello";

#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[kube(group = "demo.reef.dev", version = "v1", kind = "Hello", namespaced, status = "HelloStatus")]
struct HelloSpec {
    text: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
struct HelloStatus {
    text: Option<String>,
    #[serde(default)]
    conditions: Vec<Condition>,
}

struct Context {
    client: Client,
    count: AtomicU64,
}

async fn reconcile(hello: Arc<Hello>, context: Arc<Context>) -> kube::Result<Action> {
    let namespace = hello.namespace().unwrap_or_default();
    let name = hello.name_any();
    let apply = PatchParams::apply(MANAGER).force();
    let owner = hello.controller_owner_ref(&());
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name, "ownerReferences": owner.into_iter().collect::<Vec<_>>() },
        "data": { "text": hello.spec.text },
    });
    let configs: Api<ConfigMap> = Api::namespaced(context.client.clone(), &namespace);
    configs.patch(&name, &apply, &Patch::Apply(&config)).await?;
    if !is_ready(&hello) {
        let status = json!({
            "apiVersion": "demo.reef.dev/v1", "kind": "Hello",
            "status": { "text": hello.spec.text, "conditions": [ready(&hello)] },
        });
        let hellos: Api<Hello> = Api::namespaced(context.client.clone(), &namespace);
        hellos.patch_status(&name, &apply, &Patch::Apply(&status)).await?;
    }
    context.count.fetch_add(1, Relaxed);
    Ok(Action::await_change())
}

/// A status that is right already is left alone: else two runs in front of a late cache would answer each other with two times
/// of one condition, again and again.
fn is_ready(hello: &Hello) -> bool {
    let Some(status) = &hello.status else { return false };
    let is_true = |condition: &Condition| {
        condition.type_ == "Ready" && condition.status == "True" && condition.observed_generation == hello.metadata.generation
    };
    status.text.as_ref() == Some(&hello.spec.text) && status.conditions.iter().any(is_true)
}

/// A condition that stays as it is keeps its time.
fn ready(hello: &Hello) -> Condition {
    let conditions = hello.status.as_ref().map(|status| &*status.conditions).unwrap_or_default();
    let known = conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True");
    Condition {
        type_: "Ready".into(),
        status: "True".into(),
        reason: "Written".into(),
        message: "the text is in the ConfigMap of the same name".into(),
        observed_generation: hello.metadata.generation,
        last_transition_time: known.map_or_else(|| Time(Timestamp::now()), |known| known.last_transition_time.clone()),
    }
}

fn error_policy(_hello: Arc<Hello>, error: &kube::Error, _context: Arc<Context>) -> Action {
    tracing::warn!(%error, "reconcile failed");
    Action::requeue(Duration::from_secs(5))
}

#[derive(Parser)]
struct Args {
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Whose Hellos are reconciled
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Objects reconciled at once; 0: as by default, without a bound. With a bound the other usual measure is taken too: only a
    /// new generation of a Hello wakes it
    #[arg(long, default_value_t = 0)]
    workers: u16,
    /// No operator: runs this many keys through kube-runtime's queue and runner with a reconciler that does nothing, prints
    /// how long it took in seconds, and ends
    #[arg(long)]
    noop: Option<usize>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let filter = tracing_subscriber::EnvFilter::new("info");
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    if let Some(keys) = args.noop {
        println!("{}", noop::run(keys).await?.as_secs_f64());
        return Ok(());
    }
    let client = match &args.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)?;
            Client::try_from(Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?)?
        }
        None => Client::try_default().await?,
    };
    let context = Arc::new(Context { client: client.clone(), count: AtomicU64::new(0) });
    tokio::spawn(report(context.clone()));
    let hellos: Api<Hello> = Api::namespaced(client.clone(), &args.namespace);
    let configs: Api<ConfigMap> = Api::namespaced(client, &args.namespace);
    controller(hellos, args.workers)
        .owns(configs, watcher::Config::default())
        .shutdown_on_signal()
        .run(reconcile, error_policy, context)
        .for_each(|_| futures::future::ready(()))
        .await;
    Ok(())
}

fn controller(hellos: Api<Hello>, workers: u16) -> Controller<Hello> {
    if workers == 0 {
        return Controller::new(hellos, watcher::Config::default());
    }
    let (reader, writer) = reflector::store();
    let changes = watcher(hellos, watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(predicates::generation, Default::default());
    Controller::for_stream(changes, reader).with_config(controller::Config::default().concurrency(workers))
}

/// Says how many reconciles there were, whenever there are more: the benchmark waits for them.
async fn report(context: Arc<Context>) {
    let mut said = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = context.count.load(Relaxed);
        if now != said {
            println!("reconciles {now}");
            said = now;
        }
    }
}
