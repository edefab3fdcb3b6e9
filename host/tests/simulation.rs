//! Queue, hub, dispatch and plan against a model of an API server, in virtual time: random edits, deletes, drift, faults,
//! cuts, outages and kills, drawn from a seed. The plugin is the real `hello`, in the real sandbox.
//!
//! `REEF_SIM_SEED` plays one schedule again, `REEF_SIM_SCHEDULES` says how many there are (1,000). Needs `make components`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "simulation/conversation.rs"]
mod conversation;
#[path = "simulation/fields.rs"]
mod fields;
#[path = "simulation/random.rs"]
mod random;
#[path = "simulation/server.rs"]
mod server;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use random::Random;
use reef::{
    dispatch::{DispatchOptions, Plugins, Shared, State, Work, dispatch},
    identity::{Api, ApiOptions},
    leader::{Leader, LeaderOptions},
    metrics::Metrics,
    names::{Digest, Memory},
    plan::{Applier, Closed, Pass},
    queue::{Backoff, Queue},
    sandbox::{Loaded, Sandbox, SandboxOptions},
    source::{oci::Oci, registries::Registries, store::Store},
    trust::Trust,
    watch::{Hub, HubOptions},
};
use serde_json::{Value, json};
use server::{Faults, Server};
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "team-a";
const HELLOS: &str = "/apis/demo.reef.dev/v1/namespaces/team-a/hellos";
const CONFIGS: &str = "/api/v1/namespaces/team-a/configmaps";
const MERGE: &str = "application/merge-patch+json";

/// What all schedules share: the engine, and the compiled plugin.
struct Machine {
    sandbox: Arc<Sandbox>,
    oci: Oci,
    plugin_dir: PathBuf,
    _loaded: Arc<Loaded>,
    _cache: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let target = PathBuf::from(env!("CARGO_BIN_EXE_reef")).parent().and_then(|dir| dir.parent()).unwrap().to_owned();
        let plugin_dir = target.join("components/wasm32-wasip2/release");
        let wasm = std::fs::read(plugin_dir.join("hello.wasm")).expect("hello.wasm is not built: run `make components`");
        let cache = tempfile::tempdir().unwrap();
        let options = SandboxOptions {
            cache_dir: cache.path().to_owned(),
            in_flight: 16,
            reef_binary: env!("CARGO_BIN_EXE_reef").into(),
            ..SandboxOptions::default()
        };
        let sandbox = Sandbox::new(options).unwrap();
        let oci = Oci {
            registries: Registries::load(None, Duration::from_secs(1)).unwrap(),
            store: Store::open(&cache.path().join("content"), Memory(1 << 20)),
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let loaded = runtime.block_on(sandbox.load(Digest::of(&wasm), wasm.into())).unwrap();
        Self { sandbox, oci, plugin_dir, _loaded: loaded, _cache: cache }
    }
}

/// A host, as `reef host` puts it together.
struct Host {
    dead: CancellationToken,
    stop: CancellationToken,
    leader: Leader,
    work: Arc<Work>,
    loop_: tokio::task::JoinHandle<()>,
}

impl Host {
    async fn start(machine: &Machine, server: &Server, seed: u64) -> Self {
        let (dead, stop) = (CancellationToken::new(), CancellationToken::new());
        let metrics = Metrics::new().unwrap();
        let work = Work::new(Queue::new(Backoff::default(), seed), metrics.clone());
        let told = work.clone();
        let options = ApiOptions {
            observe_failure: Some(Arc::new(move |plugin, error| told.pushed_back(plugin, error))),
            ..ApiOptions::default()
        };
        let api = loop {
            match Api::over(server.open(false, &dead), server.open(true, &dead), options.clone()).await {
                Ok(api) => break api,
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        };
        let woken = work.clone();
        let hub = Hub::new(api.clone(), Arc::new(move |key, reason| woken.wake(key, reason)), HubOptions::default());
        let leader = Leader::run(api.clone(), LeaderOptions::new("reef-system", "reef")).unwrap();
        let gate = leader.clone();
        let gate = Arc::new(move || gate.gate().map(|term| Pass(term.0)).map_err(|_| Closed));
        let applier = Applier::new(api.clone(), hub.clone(), gate);
        let options = DispatchOptions {
            class_name: "reef".into(),
            plugin_dir: machine.plugin_dir.clone(),
            recheck: Duration::from_secs(30),
            max_in_flight: 16,
        };
        let (sandbox, oci) = (machine.sandbox.clone(), machine.oci.clone());
        let (work_, leader_, state) = (work.clone(), leader.clone(), State::default());
        let trust = Arc::new(Trust::in_everything());
        let shared = Shared {
            options,
            api,
            hub,
            sandbox,
            oci,
            applier,
            leader: leader_,
            trust,
            metrics,
            work: work_,
            plugins: Plugins::Cluster,
            listener: None,
            state,
        };
        let loop_ = tokio::spawn(dispatch(Arc::new(shared), stop.clone()));
        Self { dead, stop, leader, work, loop_ }
    }

    /// SIGTERM.
    async fn stop(self) {
        self.stop.cancel();
        let _ = self.loop_.await;
        reef::dispatch::drained(&self.work, Duration::from_secs(30)).await;
        self.leader.release().await;
    }

    /// `kill -9`: no further request of it goes out.
    async fn kill(self) {
        self.dead.cancel();
        self.stop.cancel();
        self.loop_.abort();
    }
}

struct Schedule<'a> {
    machine: &'a Machine,
    server: Server,
    random: Random,
    host: Option<Host>,
}

impl Schedule<'_> {
    async fn run(mut self) -> Result<(), String> {
        self.install();
        let server = self.server.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(700)).await;
                server.change(|state| state.collect());
            }
        });
        for name in 0..1 + self.random.below(5) {
            self.edit(name);
        }
        self.start().await;
        let faults =
            Faults { refused: self.random.below(10), answer_lost: self.random.below(10), latency: 1 + self.random.below(200) };
        self.server.change(|state| state.faults = faults);
        for _ in 0..5 + self.random.below(15) {
            self.step().await;
            self.pause(3000).await;
        }
        self.server.change(|state| (state.faults, state.away) = (Faults::default(), false));
        self.converge().await?;
        self.stays_calm().await?;
        if let Some(host) = self.host.take() {
            host.stop().await;
        }
        self.right()
    }

    fn install(&self) {
        let plugin = json!({ "apiVersion": "reef.dev/v1alpha1", "kind": "Plugin", "metadata": { "name": "hello" },
            // Computing time is real: a machine that is busy must not decide how a schedule ends.
            "spec": { "className": "reef", "source": { "file": "hello.wasm" }, "limits": { "cpu": "10s", "deadline": "10s" } } });
        self.ask("POST", "/apis/reef.dev/v1alpha1/namespaces/team-a/plugins", "application/json", &plugin);
    }

    fn ask(&self, method: &str, target: &str, content: &str, body: &Value) -> u16 {
        self.server.ask(method, target, content, body).0
    }

    async fn start(&mut self) {
        let seed = self.random.below(u64::MAX);
        self.host = Some(Host::start(self.machine, &self.server, seed).await);
    }

    async fn pause(&mut self, most: u64) {
        let time = self.random.below(most);
        tokio::time::sleep(Duration::from_millis(time)).await;
    }

    fn edit(&mut self, name: u64) {
        let text = format!("text {}", self.random.below(4));
        let target = format!("{HELLOS}/h{name}");
        if self.ask("PATCH", &target, MERGE, &json!({ "spec": { "text": text } })) == 404 {
            let hello = json!({ "apiVersion": "demo.reef.dev/v1", "kind": "Hello",
                "metadata": { "name": format!("h{name}") }, "spec": { "text": text } });
            self.ask("POST", HELLOS, "application/json", &hello);
        }
    }

    async fn step(&mut self) {
        let name = self.random.below(6);
        match self.random.below(20) {
            0..=5 => self.edit(name),
            6 | 7 => drop(self.ask("DELETE", &format!("{HELLOS}/h{name}"), "", &json!({}))),
            8 => {
                self.ask("DELETE", &format!("{HELLOS}/h{name}"), "", &json!({}));
                self.edit(name);
            }
            9 | 10 => drop(self.ask("PATCH", &format!("{CONFIGS}/h{name}"), MERGE, &json!({ "data": { "text": "theirs" } }))),
            11 => drop(self.ask("PATCH", &format!("{CONFIGS}/h{name}"), MERGE, &json!({ "data": { "more": "theirs" } }))),
            12 => drop(self.ask("DELETE", &format!("{CONFIGS}/h{name}"), "", &json!({}))),
            13 | 14 => self.server.cut_watches(),
            15 => {
                self.server.change(|state| state.compact());
                self.server.cut_watches();
            }
            16 | 17 => {
                self.server.change(|state| state.away = true);
                self.pause(20_000).await;
                self.server.change(|state| state.away = false);
            }
            18 => {
                self.host.take().unwrap().stop().await;
                self.start().await;
            }
            _ => {
                self.host.take().unwrap().kill().await;
                self.start().await;
            }
        }
    }

    /// What is not as it has to be: a function of the Hellos alone.
    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        self.server.change(|state| {
            let hellos = state.all("hellos");
            for hello in &hellos {
                let name = hello["metadata"]["name"].as_str().unwrap();
                let config = state.get("configmaps", NAMESPACE, name).cloned().unwrap_or_default();
                let condition = |kind: &str| {
                    let conditions = hello["status"]["conditions"].as_array()?;
                    conditions.iter().find(|c| c["type"] == kind).cloned()
                };
                let reconciled = condition("Reconciled").unwrap_or_default();
                let right = config["data"]["text"] == hello["spec"]["text"]
                    && config["metadata"]["ownerReferences"][0]["uid"] == hello["metadata"]["uid"]
                    && config["metadata"]["labels"]["reef.dev/plugin"] == "hello"
                    && hello["status"]["text"] == hello["spec"]["text"]
                    && reconciled["status"] == "True"
                    && reconciled["observedGeneration"] == hello["metadata"]["generation"]
                    && condition("Ready").is_some_and(|ready| ready["status"] == "True");
                if !right {
                    missing.push(format!("{hello}\n  {config}"));
                }
            }
            for config in state.all("configmaps") {
                if hellos.iter().all(|hello| hello["metadata"]["name"] != config["metadata"]["name"]) {
                    missing.push(format!("left over: {config}"));
                }
            }
        });
        missing
    }

    /// Fifteen minutes are enough for the longest backoff, the longest lease and every recheck.
    async fn converge(&self) -> Result<(), String> {
        for _ in 0..180 {
            if self.missing().is_empty() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        let queue = self.host.as_ref().map(|host| format!("{:?}", host.work.queue.lock().load().collect::<Vec<_>>()));
        Err(format!("not as it has to be after fifteen quiet minutes:\n{}\n{queue:?}", self.missing().join("\n")))
    }

    /// Nothing is written when nothing happens, not by timers, retries and new lists either.
    async fn stays_calm(&self) -> Result<(), String> {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let before = self.server.change(|state| state.writes.len());
        self.server.change(|state| state.compact());
        self.server.cut_watches();
        tokio::time::sleep(Duration::from_secs(400)).await;
        let writes = self.server.change(|state| state.writes.split_off(before));
        if writes.is_empty() { Ok(()) } else { Err(format!("writes although nothing happened:\n{}", writes.join("\n"))) }
    }

    fn right(&self) -> Result<(), String> {
        let wrong = self.server.change(|state| state.wrong.clone());
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }
}

fn run(machine: &Machine, seed: u64) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let schedule = || {
        let server = Server::new(seed);
        runtime.block_on(Schedule { machine, server, random: Random(seed ^ 0x0af1), host: None }.run())
    };
    match catch_unwind(AssertUnwindSafe(schedule)) {
        Ok(ended) => ended,
        Err(_) => Err("it panicked".into()),
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[test]
fn whatever_happens_the_end_is_a_function_of_the_objects() {
    if number("REEF_SIM_LOG").is_some() {
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).init();
    }
    let machine = Machine::new();
    let seeds = match number("REEF_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("REEF_SIM_SCHEDULES").unwrap_or(1000),
    };
    let next = AtomicU64::new(seeds.start);
    let failures = parking_lot::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failures.lock().len() >= 3 {
                        return;
                    }
                    if let Err(why) = run(&machine, seed) {
                        failures.lock().push(format!("REEF_SIM_SEED={seed} plays it again: {why}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// What a real API server said is in `recorded.json`, and is compared with one again by a test of the promises.
#[tokio::test]
async fn the_model_answers_as_a_real_api_server_does() {
    let server = Server::new(1);
    let ask = async |request: conversation::Request| server.ask(request.method, &request.target, request.content, &request.body);
    let found = conversation::plain(NAMESPACE, &conversation::converse(NAMESPACE, ask).await);
    let recorded: Value = serde_json::from_str(include_str!("simulation/recorded.json")).unwrap();
    let (found, recorded) = (found.as_array().unwrap(), recorded.as_array().unwrap());
    let differ = found.iter().zip(recorded).filter(|(found, recorded)| found != recorded);
    let differ: Vec<String> = differ.map(|(found, recorded)| format!("the model:  {found}\nthe server: {recorded}")).collect();
    assert!(differ.is_empty(), "{}", differ.join("\n\n"));
    assert_eq!(found.len(), recorded.len());
}
