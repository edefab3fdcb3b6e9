//! One reconcile of hello: in a fresh instance under all limits, and natively, with the same decoding and encoding by the SDK.

use std::{
    fs,
    hint::black_box,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use plugin_sdk::prelude::{Condition, Context, Deserialize, Object, Plan, json};
use reef::{
    capability::{Grant, Recorded},
    contract::Request,
    names::{Digest, Kind, ObjectId, PluginId},
    sandbox::{Call, Limits, Loaded, Sandbox, SandboxOptions},
};

use crate::Row;

#[derive(clap::Args)]
pub struct Args {
    /// The component `hello`
    #[arg(long)]
    component: PathBuf,
    /// Keeps compiled code between rounds
    #[arg(long)]
    cache_dir: PathBuf,
    /// The program `reef`, which compiles
    #[arg(long)]
    reef: PathBuf,
    /// Reconciles whose time is taken one by one
    #[arg(long)]
    calls: usize,
    /// How long reconciles are counted, in seconds, for each number of threads
    #[arg(long)]
    seconds: f64,
}

/// As the hub keeps it after the first reconcile: 1 KB.
const OBJECT: &str = r#"{"apiVersion":"demo.reef.dev/v1","kind":"Hello","metadata":{"creationTimestamp":"2026-01-01T00:00:00Z","generation":1,"labels":{"app.kubernetes.io/managed-by":"bench","app.kubernetes.io/part-of":"bench"},"name":"greeting-0001","namespace":"team-a","resourceVersion":"12345","uid":"6f1c2f0e-64f5-4d32-9a3c-3d1f2f6f9a10"},"spec":{"text":"Hello from the reef"},"status":{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:01Z","message":"the text is in the ConfigMap of the same name","observedGeneration":1,"reason":"Written","status":"True","type":"Ready"},{"lastTransitionTime":"2026-01-01T00:00:01Z","message":"everything is as the plugin wants it","observedGeneration":1,"reason":"InOrder","status":"True","type":"Reconciled"}],"text":"Hello from the reef"}}"#;

/// Calls before the first one that counts.
const WARM_UP: usize = 500;

pub fn measure(args: &Args) -> anyhow::Result<Vec<Row>> {
    let bench = Bench::new(args)?;
    let mut rows = Vec::new();
    for (who, run) in [("sandbox", Bench::sandboxed as fn(&Bench, &tokio::runtime::Runtime)), ("native", Bench::native)] {
        let [p50, p99] = bench.times(args.calls, run)?;
        let [one, two] = [bench.rate(1, args.seconds, run)?, bench.rate(2, args.seconds, run)?];
        rows.push(Row::new(who, [("p50_us", p50), ("p99_us", p99), ("one_thread_per_s", one), ("two_threads_per_s", two)]));
    }
    Ok(rows)
}

struct Bench {
    sandbox: Arc<Sandbox>,
    loaded: Arc<Loaded>,
    grant: Arc<Grant>,
}

impl Bench {
    fn new(args: &Args) -> anyhow::Result<Self> {
        let wasm = fs::read(&args.component)?;
        let options =
            SandboxOptions { cache_dir: args.cache_dir.clone(), reef_binary: args.reef.clone(), ..SandboxOptions::default() };
        let sandbox = Sandbox::new(options)?;
        let loaded = runtime()?.block_on(sandbox.load(Digest::of(&wasm), wasm.into()))?;
        let entry = loaded.manifest().reconciles[0].clone();
        let grant = Arc::new(Grant { plugin: plugin(), entry, cluster_scoped: Vec::new(), unknown: Vec::new() });
        let bench = Self { sandbox, loaded, grant };
        let outcome = runtime()?.block_on(bench.call());
        ensure!(outcome.result.as_ref().is_ok_and(|plan| plan.writes.len() == 1), "hello makes no plan: {outcome:?}");
        drop(native().map_err(|error| anyhow::anyhow!("hello makes no plan natively: {error}"))?);
        Ok(bench)
    }

    async fn call(&self) -> reef::sandbox::Outcome {
        let kind = Kind::new("demo.reef.dev", "v1", "Hello");
        let request = Request {
            key: ObjectId::new(kind, "team-a", "greeting-0001"),
            object: OBJECT.into(),
            settings: "{}".into(),
            now: 1_767_225_600_000,
            seed: 7,
            attempt: 0,
        };
        let reads = Arc::new(Recorded::default());
        let call = Call { plugin: plugin(), grant: self.grant.clone(), reads, limits: Limits::default() };
        self.sandbox.reconcile(&self.loaded, request, call).await
    }

    fn sandboxed(&self, runtime: &tokio::runtime::Runtime) {
        black_box(runtime.block_on(self.call()));
    }

    #[expect(clippy::unused_self, reason = "takes the place of the sandboxed call")]
    fn native(&self, _runtime: &tokio::runtime::Runtime) {
        drop(black_box(native()));
    }

    /// Median and 99th percentile, in microseconds.
    fn times(&self, calls: usize, run: fn(&Self, &tokio::runtime::Runtime)) -> anyhow::Result<[f64; 2]> {
        let runtime = runtime()?;
        (0..WARM_UP).for_each(|_| run(self, &runtime));
        let mut times: Vec<Duration> = (0..calls)
            .map(|_| {
                let began = Instant::now();
                run(self, &runtime);
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        let at = |share: f64| times[((calls - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
        Ok([at(0.5), at(0.99)])
    }

    fn rate(&self, threads: usize, seconds: f64, run: fn(&Self, &tokio::runtime::Runtime)) -> anyhow::Result<f64> {
        let runtimes = (0..threads).map(|_| runtime()).collect::<Result<Vec<_>, _>>()?;
        let stop = AtomicBool::new(false);
        let began = Instant::now();
        let calls: u64 = std::thread::scope(|scope| {
            let worker = |runtime: tokio::runtime::Runtime| {
                let stop = &stop;
                move || {
                    let mut calls = 0;
                    while !stop.load(Relaxed) {
                        run(self, &runtime);
                        calls += 1;
                    }
                    calls
                }
            };
            let workers: Vec<_> = runtimes.into_iter().map(|runtime| scope.spawn(worker(runtime))).collect();
            std::thread::sleep(Duration::from_secs_f64(seconds));
            stop.store(true, Relaxed);
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        Ok(calls as f64 / began.elapsed().as_secs_f64())
    }
}

fn native() -> plugin_sdk::Result<Plan> {
    let cx = Context::fake().context("team-a")?;
    plugin_sdk::__private::reconcile(hello, black_box(OBJECT).to_owned(), &cx)
}

fn plugin() -> PluginId {
    PluginId::new("team-a", "hello")
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

#[derive(Deserialize)]
struct Hello {
    text: String,
}

/// As `plugins/hello` has it.
fn hello(hello: Object<Hello>, _cx: &Context) -> plugin_sdk::Result<Plan> {
    let config = hello.child("v1/ConfigMap", json!({ "data": { "text": hello.spec.text } }));
    Ok(Plan::new().own(config).status(json!({ "text": hello.spec.text })).condition(Condition::yes(
        "Ready",
        "Written",
        "the text is in the ConfigMap of the same name",
    )))
}
