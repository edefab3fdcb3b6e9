//! The sandbox with real WebAssembly: small guests, written as text, that do one good or bad thing each.
//!
//! They are compiled by the real `reef compile`. No cluster and no network is needed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "sandbox/guests.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod guests;

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use guests::Guest;
use reef::{
    capability::{Grant, Reads, Recorded},
    contract::{FailureKind, Query, Read, ReadError, Request},
    names::{Digest, Kind, Memory, ObjectId, PluginId, Span},
    sandbox::{Call, Ended, Limits, LoadError, Loaded, Outcome, Sandbox, SandboxOptions},
};

/// Ten times what a loaded machine may need.
const HANG: Duration = Duration::from_secs(60);

struct Host {
    sandbox: Arc<Sandbox>,
    _dir: Option<tempfile::TempDir>,
}

fn options(dir: &Path) -> SandboxOptions {
    SandboxOptions {
        cache_dir: dir.to_owned(),
        in_flight: 8,
        reef_binary: env!("CARGO_BIN_EXE_reef").into(),
        ..SandboxOptions::default()
    }
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { sandbox: Sandbox::new(options(dir.path())).unwrap(), _dir: Some(dir) }
    }

    async fn load(&self, wasm: Vec<u8>) -> Result<Arc<Loaded>, LoadError> {
        self.sandbox.load(Digest::of(&wasm), wasm.into()).await
    }

    async fn run(&self, guest: &Guest) -> Outcome {
        self.run_with(guest, Limits::default(), Arc::new(Recorded::default())).await
    }

    async fn run_with(&self, guest: &Guest, limits: Limits, reads: Arc<dyn Reads>) -> Outcome {
        let loaded = self.load(guest.build()).await.unwrap();
        self.sandbox.reconcile(&loaded, request(), call(&loaded, limits, reads)).await
    }
}

fn request() -> Request {
    Request { key: hello("x"), object: r#"{"kind":"Hello"}"#.into(), settings: "{}".into(), now: 7, seed: 9, attempt: 0 }
}

fn hello(name: &str) -> ObjectId {
    ObjectId::new(Kind::new("demo.reef.dev", "v1", "Hello"), "team-a", name)
}

fn config_map(name: &str) -> ObjectId {
    ObjectId::new(Kind::new("", "v1", "ConfigMap"), "team-a", name)
}

fn call(loaded: &Loaded, limits: Limits, reads: Arc<dyn Reads>) -> Call {
    let plugin = PluginId::new("team-a", "hello");
    let entry = loaded.manifest().reconciles[0].clone();
    let grant = Arc::new(Grant { plugin: plugin.clone(), entry, cluster_scoped: Vec::new(), unknown: Vec::new() });
    Call { plugin, grant, reads, limits }
}

fn trapped(outcome: &Outcome) -> (&'static str, &str) {
    match &outcome.result {
        Err(Ended::Trapped { reason, message }) => (reason, message),
        other => panic!("{other:?} is no trap"),
    }
}

fn limits(cpu: u64, deadline: u64) -> Limits {
    let millis = |n| Span(Duration::from_millis(n));
    Limits { memory: Memory(4 << 20), cpu: millis(cpu), deadline: millis(deadline) }
}

#[tokio::test]
async fn a_plan_comes_out_as_the_guest_wrote_it() {
    let outcome = Host::new().run(&Guest::echo()).await;
    let plan = outcome.result.unwrap();
    assert_eq!(plan.report.status.as_deref(), Some(r#"{"kind":"Hello"}"#), "the object of the request, echoed");
    assert_eq!(plan.after, Some(Duration::from_millis(7)), "`now` of the request, echoed");
    assert!(plan.writes.is_empty() && plan.partial && !plan.done);
    assert!(outcome.reads.is_empty() && !outcome.read_failed);
    assert_eq!(outcome.usage.memory, Memory(1 << 20));
    assert!(outcome.usage.wall >= outcome.usage.cpu && outcome.usage.cpu > Duration::ZERO);
}

#[tokio::test]
async fn a_failure_comes_out_typed_and_an_unknown_one_is_an_invalid_answer() {
    let host = Host::new();
    for (text, kind) in [("retry", FailureKind::Retry), ("wait", FailureKind::Wait), ("terminal", FailureKind::Terminal)] {
        match host.run(&Guest::failure(text)).await.result {
            Err(Ended::Failure(failure)) => assert_eq!(failure.kind, kind),
            other => panic!("{other:?}"),
        }
    }
    let outcome = host.run(&Guest::failure("never")).await;
    let (reason, message) = trapped(&outcome);
    assert_eq!(reason, "InvalidAnswer");
    assert!(message.contains("`never`") && message.contains("`terminal`"), "{message}");
}

/// Promises: S1
/// Breaks it: a guest that is not interrupted, or whose sentence has neither limit nor field.
#[tokio::test]
async fn an_endless_loop_ends_at_its_budget_and_says_which() {
    let host = Host::new();
    let started = Instant::now();
    let outcome = host.run_with(&Guest::endless_loop(), limits(50, 60_000), Arc::new(Recorded::default())).await;
    assert!(started.elapsed() < HANG);
    let (reason, message) = trapped(&outcome);
    assert_eq!(reason, "CPULimitExceeded");
    assert_eq!(message, "it ran longer than spec.limits.cpu = 50ms; raise spec.limits.cpu or look for a loop that does not end");
    assert!(outcome.usage.cpu >= Duration::from_millis(50));
}

/// Promises: S1
/// Breaks it: a deadline that counts CPU only.
#[tokio::test]
async fn a_guest_that_runs_past_its_deadline_is_stopped() {
    let host = Host::new();
    let outcome = host.run_with(&Guest::endless_loop(), limits(60_000, 60), Arc::new(Recorded::default())).await;
    let (reason, message) = trapped(&outcome);
    assert_eq!(reason, "DeadlineExceeded");
    assert!(message.contains("spec.limits.deadline = 60ms"), "{message}");
    assert!(outcome.usage.wall < HANG);
}

/// Promises: S1
/// Breaks it: a limit that is not set, or an outcome that says `Trapped` of everything.
#[tokio::test]
async fn memory_tables_and_stack_have_limits_that_are_named() {
    let host = Host::new();
    let small = limits(5_000, 60_000);
    for (guest, reason, part) in [
        (Guest::memory_bomb(), "MemoryLimitExceeded", "it wanted 4160Ki of memory, more than spec.limits.memory = 4Mi"),
        (Guest::table_bomb(), "TableLimitExceeded", "more than the 20000 that this host allows"),
        (Guest::recursion(), "StackOverflow", "its call stack of 256Ki is full"),
        (Guest::unreachable(), "Trapped", "without a message"),
        (Guest::out_of_bounds(), "Trapped", "outside of its memory"),
        (Guest::divide_by_zero(), "Trapped", "integer divide by zero"),
        (Guest::wild_pointer(), "InvalidAnswer", "what it passed to the host is broken"),
        (Guest::not_utf8(), "InvalidAnswer", "utf-8"),
        (Guest::huge_answer(), "AnswerTooLarge", "more than 4Mi"),
    ] {
        let outcome = host.run_with(&guest, Limits { memory: guest.memory(), ..small }, Arc::new(Recorded::default())).await;
        let (found, message) = trapped(&outcome);
        assert_eq!(found, reason, "{message}");
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn a_panic_shows_its_message() {
    let outcome = Host::new().run(&Guest::panic("the vault is empty")).await;
    assert_eq!(trapped(&outcome), ("Panicked", "the vault is empty"));
}

/// Promises: R2, S7
/// Breaks it: a read that is not written down because it found nothing; a kind that the manifest does not name.
#[tokio::test]
async fn reads_are_answered_and_written_down() {
    let host = Host::new();
    let known = HashMap::from([(config_map("a"), Ok(Some(Bytes::from_static(br#"{"kind":"ConfigMap","data":1}"#))))]);
    let known = Arc::new(Recorded(known));
    let outcome = host.run_with(&Guest::read("v1", "ConfigMap", "team-a", "a"), Limits::default(), known.clone()).await;
    assert_eq!(outcome.result.unwrap().report.status.as_deref(), Some(r#"{"kind":"ConfigMap","data":1}"#));
    assert_eq!(outcome.reads, [Read { object: config_map("a"), fields: Vec::new() }]);
    assert!(!outcome.read_failed);

    let outcome = host.run_with(&Guest::read("v1", "ConfigMap", "team-a", "b"), Limits::default(), known.clone()).await;
    assert_eq!(outcome.result.unwrap().report.status, None, "there is none");
    assert_eq!(outcome.reads, [Read { object: config_map("b"), fields: Vec::new() }]);

    let outcome = host.run_with(&Guest::read("v1", "Secret", "team-a", "a"), Limits::default(), known).await;
    let said = outcome.result.unwrap().report.status.unwrap();
    assert!(said.contains("add `reads: [\"v1/Secret\"]`"), "{said}");
    assert!(outcome.read_failed && outcome.reads.is_empty());
}

/// Promises: R5
/// Breaks it: an incomplete cache that answers `nothing`.
#[tokio::test]
async fn a_cache_that_is_not_complete_ends_the_call_and_keeps_the_read() {
    let known = HashMap::from([(config_map("a"), Err(ReadError::NotSynced(config_map("a").kind)))]);
    let guest = Guest::read("v1", "ConfigMap", "team-a", "a");
    let outcome = Host::new().run_with(&guest, Limits::default(), Arc::new(Recorded(known))).await;
    assert_eq!(outcome.result, Err(Ended::NotSynced(config_map("a").kind)));
    assert!(outcome.read_failed);
    assert_eq!(outcome.reads.len(), 1);
}

/// Never answers.
struct Silent;

impl Reads for Silent {
    fn get<'a>(&'a self, _: &'a ObjectId, _: &'a [String]) -> BoxFuture<'a, Result<Option<Bytes>, ReadError>> {
        Box::pin(std::future::pending())
    }

    fn list<'a>(&'a self, _query: &'a Query) -> BoxFuture<'a, Result<Vec<Bytes>, ReadError>> {
        Box::pin(std::future::pending())
    }
}

/// Promises: S1
/// Breaks it: an import without a deadline.
#[tokio::test]
async fn waiting_counts_for_the_deadline_but_not_as_cpu() {
    let guest = Guest::read("v1", "ConfigMap", "team-a", "a");
    let outcome = Host::new().run_with(&guest, limits(20, 100), Arc::new(Silent)).await;
    let (reason, message) = trapped(&outcome);
    assert_eq!(reason, "DeadlineExceeded");
    assert!(message.contains("waiting for v1/ConfigMap team-a/a"), "{message}");
    assert!(outcome.usage.cpu < outcome.usage.wall && outcome.usage.wall >= Duration::from_millis(100));
    assert_eq!(outcome.reads.len(), 1);
}

/// Promises: S5
/// Breaks it: an instance that is used again.
#[tokio::test]
async fn nothing_survives_from_one_reconcile_to_the_next() {
    let host = Host::new();
    for _ in 0..200 {
        let plan = host.run(&Guest::counter()).await.result.unwrap();
        assert_eq!(plan.after, Some(Duration::from_millis(1)), "each instance counts to one");
    }
}

/// Promises: S3, S4
/// Breaks it: a slot, a permit or a handle that a bad guest keeps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_neighbours_take_nothing_from_good_ones() {
    let host = Host::new();
    let mut calls = Vec::new();
    for round in 0..60 {
        let guest = match round % 6 {
            0 => Guest::endless_loop(),
            1 => Guest::memory_bomb(),
            2 => Guest::unreachable(),
            3 => Guest::recursion(),
            _ => Guest::echo(),
        };
        let loaded = host.load(guest.build()).await.unwrap();
        let sandbox = host.sandbox.clone();
        calls.push(tokio::spawn(async move {
            let call = call(&loaded, limits(30, 30_000), Arc::new(Recorded::default()));
            (round % 6, sandbox.reconcile(&loaded, request(), call).await)
        }));
    }
    for call in calls {
        let (kind, outcome) = tokio::time::timeout(HANG, call).await.unwrap().unwrap();
        assert_eq!(outcome.result.is_ok(), kind > 3, "{outcome:?}");
    }
}

#[tokio::test]
async fn a_component_is_linked_once_and_unloaded_with_its_last_user() {
    let host = Host::new();
    let (one, two) = tokio::join!(host.load(Guest::echo().build()), host.load(Guest::echo().build()));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert!(Arc::ptr_eq(&one, &two));
    assert_eq!(
        (one.manifest().name.as_str(), one.imports()),
        ("guest", &["reef:plugin/reads@0.1.0".to_owned(), "reef:plugin/log@0.1.0".to_owned()][..])
    );
    let gone = Arc::downgrade(&one);
    drop((one, two));
    assert!(gone.upgrade().is_none());
}

/// Promises: S8
/// Breaks it: a file that is loaded without its MAC.
#[tokio::test]
async fn compiled_code_is_used_again_unless_it_was_touched() {
    let dir = tempfile::tempdir().unwrap();
    let wasm = Guest::echo().build();
    let no_compiler = SandboxOptions { reef_binary: "/nonexistent".into(), ..options(dir.path()) };
    let load = |options: SandboxOptions| {
        let sandbox = Sandbox::new(options).unwrap();
        let wasm = wasm.clone();
        async move {
            let loaded = sandbox.load(Digest::of(&wasm), wasm.into()).await?;
            let outcome =
                sandbox.reconcile(&loaded, request(), call(&loaded, Limits::default(), Arc::new(Recorded::default()))).await;
            assert!(outcome.result.is_ok());
            Ok::<(), LoadError>(())
        }
    };
    assert!(matches!(load(no_compiler.clone()).await, Err(LoadError::Io(text)) if text.contains("/nonexistent")));
    load(options(dir.path())).await.unwrap();
    load(no_compiler.clone()).await.unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "cwasm") {
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    assert!(load(no_compiler).await.is_err(), "what was touched is compiled afresh");
    load(options(dir.path())).await.unwrap();
}

/// L1
#[tokio::test]
async fn bytes_of_another_digest_are_never_compiled() {
    let error = Host::new().sandbox.load(Digest::of(b"other"), Guest::echo().build().into()).await.err().unwrap();
    assert!(matches!(&error, LoadError::Refused(text) if text.contains("are not the ones")), "{error}");
}

/// Promises: S2
/// Breaks it: compiling in the process, or without a limit.
#[tokio::test]
async fn a_compile_bomb_fails_only_its_own_load() {
    let dir = tempfile::tempdir().unwrap();
    let little = SandboxOptions { compile_memory: Memory(96 << 20), ..options(dir.path()) };
    let hurried = SandboxOptions { compile_timeout: Duration::from_millis(300), ..options(dir.path()) };
    for (options, part) in [(little, "takes more than 96Mi of memory"), (hurried, "takes longer than 300ms")] {
        let host = Host { sandbox: Sandbox::new(options).unwrap(), _dir: None };
        let bomb = Guest::compile_bomb().build();
        let (bomb, echo) = tokio::join!(host.load(bomb), host.load(Guest::echo().build()));
        let error = bomb.err().unwrap();
        assert!(matches!(&error, LoadError::Compile(text) if text.contains(part)), "{error}");
        echo.unwrap();
    }
}

#[tokio::test]
async fn code_that_is_not_valid_is_refused_with_the_reason() {
    let error = Host::new().load(Guest::invalid_code().build()).await.err().unwrap();
    assert!(matches!(&error, LoadError::Compile(text) if text.contains("it does not compile: ")), "{error}");
}

#[tokio::test]
async fn what_the_pool_cannot_hold_is_refused_before_it_runs() {
    let host = Host::new();
    let error = host.load(Guest::large_memory().build()).await.err().unwrap();
    let sentence = "needs more than this host gives: 64Mi of memory to start with";
    assert!(matches!(&error, LoadError::Refused(text) if text.contains(sentence)), "{error}");
    let error = host.load(Guest::more_memories(4).build()).await.err().unwrap();
    assert!(matches!(&error, LoadError::Refused(text) if text.contains("4 memories")), "{error}");
}

/// Other toolchains link stubs beside their guest, with a memory each.
///
/// Promises: S1
/// Breaks it: a limit that counts only the first memory.
#[tokio::test]
async fn a_guest_may_have_several_memories_and_all_of_them_count() {
    let host = Host::new();
    let guest = Guest::more_memories(3);
    let run = async |memory| {
        let limits = Limits { memory: Memory(memory), ..Limits::default() };
        host.run_with(&guest, limits, Arc::new(Recorded::default())).await
    };
    let outcome = run(1216 << 10).await;
    assert!(outcome.result.is_ok(), "{:?}", outcome.result);
    assert_eq!(outcome.usage.memory, Memory(1216 << 10));
    let outcome = run(1152 << 10).await;
    let (reason, message) = trapped(&outcome);
    assert_eq!(reason, "MemoryLimitExceeded");
    assert!(message.contains("it wanted 1216Ki of memory, more than spec.limits.memory = 1152Ki"), "{message}");
}

/// The child reads all of stdin, and then waits for it to end: so it ends when its parent does.
#[test]
fn a_compiler_ends_with_its_parent() -> io::Result<()> {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };
    let wasm = Guest::compile_bomb().build();
    let mut child = Command::new(env!("CARGO_BIN_EXE_reef"))
        .args(["compile", "--length", &wasm.len().to_string(), "--memory", "4000000000", "--cpu", "600"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&wasm)?;
    drop(stdin);
    let started = Instant::now();
    let status = child.wait()?;
    assert!(!status.success() && started.elapsed() < HANG, "{status}");
    Ok(())
}

/// A component that `make components` has built.
fn component(name: &str) -> Vec<u8> {
    let target = Path::new(env!("CARGO_BIN_EXE_reef")).parent().and_then(Path::parent).unwrap();
    let path = target.join(format!("components/wasm32-wasip2/release/{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}: run `make components`", path.display()))
}

#[tokio::test]
async fn equal_input_gives_an_equal_plan_to_the_last_byte_and_only_the_input_makes_it_another() {
    let hosts = [Host::new(), Host::new()];
    let cases = [
        ("probe", "test.reef.dev/v1", "Probe", r#"{ "mode": "request" }"#),
        ("hello", "demo.reef.dev/v1", "Hello", r#"{ "text": "hello" }"#),
        ("website", "demo.reef.dev/v1", "Website", r#"{ "html": "<h1>hello</h1>", "replicas": 2, "exposed": true }"#),
    ];
    for (name, api_version, kind, spec) in cases {
        let metadata = r#"{ "name": "x", "namespace": "team-a", "uid": "u1", "resourceVersion": "5", "generation": 1 }"#;
        let object = format!(r#"{{ "apiVersion": "{api_version}", "kind": "{kind}", "metadata": {metadata}, "spec": {spec} }}"#);
        let plan = async |host: &Host, seed: u64| {
            let key = ObjectId::new(format!("{api_version}/{kind}").parse().unwrap(), "team-a", "x");
            let loaded = host.load(component(name)).await.unwrap();
            let request = Request { key, object: object.clone(), seed, ..request() };
            let outcome =
                host.sandbox.reconcile(&loaded, request, call(&loaded, Limits::default(), Arc::new(Recorded::default()))).await;
            format!("{:?}", outcome.result.unwrap())
        };
        let first = plan(&hosts[0], 1).await;
        for host in [&hosts[0], &hosts[1]] {
            assert_eq!(plan(host, 1).await, first, "{name}");
        }
        assert_eq!(plan(&hosts[0], 2).await == first, name != "probe", "{name}: only the probe rolls dice");
    }
}
