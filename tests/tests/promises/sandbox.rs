//! The sandbox: what a guest does wrong stays with the object for which it did it.

use anyhow::{Result, ensure};
use reef_tests::{
    cluster::condition,
    world::{Scene, scene},
};
use serde_json::{Value, json};

use crate::{
    hello,
    probe::{self, PLUGIN},
};

struct Case {
    mode: &'static str,
    size: usize,
    reason: &'static str,
    says: &'static [&'static str],
}

/// Limits of the Plugin below, so that the sentence must name this value and not the default.
const CASES: &[Case] = &[
    Case {
        mode: "loop",
        size: 0,
        reason: "CPULimitExceeded",
        says: &["it ran longer than spec.limits.cpu = 200ms", "raise spec.limits.cpu or look for a loop"],
    },
    Case {
        mode: "memory",
        size: 0,
        reason: "MemoryLimitExceeded",
        says: &["more than spec.limits.memory = 16Mi", "raise spec.limits.memory or keep less in memory"],
    },
    Case {
        mode: "sleep",
        size: 60_000,
        reason: "DeadlineExceeded",
        says: &["it was not done within spec.limits.deadline = 2s", "raise spec.limits.deadline or do less"],
    },
    Case { mode: "panic", size: 0, reason: "Panicked", says: &["the probe panics as asked: at panic"] },
    Case { mode: "trap", size: 0, reason: "Trapped", says: &["`unreachable`", "look into the plugin's log"] },
    Case {
        mode: "recursion",
        size: 0,
        reason: "Trapped",
        says: &["it reached outside of its memory", "look for a recursion that does not end"],
    },
    Case { mode: "giant-status", size: 2 << 20, reason: "InvalidPlan", says: &["the status has", "at most 1048576"] },
    Case {
        mode: "giant-object",
        size: 2 << 20,
        reason: "InvalidPlan",
        says: &["write 1: its object has 2097", "at most 1572864"],
    },
];

/// Promises: S1
/// Breaks it: a guest that is not stopped, or takes the host, its plugin's other objects or other plugins with it.
#[test]
fn a_guest_that_misbehaves_fails_only_its_own_object() {
    scene("misbehaviour", async |scene: &Scene<'_>| {
        let host = scene.host().await?;
        hello::install(scene).await?;
        probe::install(scene).await?;
        let limits = json!({ "memory": "16Mi", "cpu": "200ms", "deadline": "2s" });
        hello::plugin(scene, "probe", json!({ "source": { "file": "probe.wasm" }, "limits": limits })).await?;
        probe::ready(scene, "probe").await?;
        for case in CASES {
            let spec =
                json!({ "mode": case.mode, "size": case.size, "text": format!("at {}", case.mode), "children": [case.mode] });
            probe::set(scene, case.mode, spec).await?;
            let said = probe::sentence(&probe::says(scene, case.mode, "False", case.reason).await?);
            hello::has(&said, case.says)?;
            goes_on(scene, case.mode).await?;
            ensure!(
                scene.cluster().get(probe::CONFIG, &scene.namespace, case.mode).await?.is_none(),
                "{} has a child",
                case.mode
            );
        }
        names_all(scene).await?;
        for case in CASES {
            probe::set(scene, case.mode, json!({ "text": "well again", "children": [case.mode] })).await?;
            probe::reconciled(scene, case.mode).await?;
        }
        let none = |plugin: Option<&Value>| plugin.is_some_and(|plugin| plugin["status"]["failing"].is_null());
        scene.cluster().wait(PLUGIN, &scene.namespace, "probe", "names no failing object", none).await?;
        ensure!(host.exit().is_none(), "the host has ended");
        Ok(())
    });
}

/// Another object of the same plugin, and one of another plugin, are reconciled as if nothing was.
async fn goes_on(scene: &Scene<'_>, text: &str) -> Result<()> {
    probe::set(scene, "sound", json!({ "text": text, "children": ["sound"] })).await?;
    hello::says(scene, text).await?;
    probe::config_says(scene, "sound", "text", text).await.map(drop)
}

/// `status.failing` of the Plugin has exactly the objects that fail, each with its reason.
async fn names_all(scene: &Scene<'_>) -> Result<()> {
    let all = |plugin: Option<&Value>| plugin.is_some_and(|plugin| plugin["status"]["failing"]["count"] == CASES.len());
    let plugin = scene.cluster().wait(PLUGIN, &scene.namespace, "probe", "names all failing objects", all).await?;
    let named = plugin["status"]["failing"]["objects"].as_array().cloned().unwrap_or_default();
    let mut found: Vec<_> =
        named.iter().map(|o| (o["name"].as_str().unwrap_or(""), o["reason"].as_str().unwrap_or(""))).collect();
    let mut wanted: Vec<_> = CASES.iter().map(|case| (case.mode, case.reason)).collect();
    found.sort_unstable();
    wanted.sort_unstable();
    ensure!(found == wanted, "the Plugin names {found:?}, and these fail: {wanted:?}");
    Ok(())
}

/// Promises: S7
/// Breaks it: a read that the manifest does not name, or a child, that goes through; a sentence without the line to add.
#[test]
fn what_the_manifest_does_not_name_is_refused_with_the_line_to_add() {
    scene("unnamed", async |scene: &Scene<'_>| {
        scene.host().await?;
        probe::install(scene).await?;
        let own = format!(
            "plugin {0}/probe reads in its own namespace only: ask for v1/ConfigMap `a` in namespace `{0}`",
            scene.namespace
        );
        let cases = [
            ("unlisted-read", "Forbidden", r#"add `reads: ["v1/Service"]` to its `plugin!` line"#),
            ("other-namespace-read", "Forbidden", &own),
            ("unlisted-kind", "InvalidPlan", r#"add `owns: ["v1/Service"]` to its `plugin!` line"#),
        ];
        for (mode, reason, part) in cases {
            probe::set(scene, mode, json!({ "mode": mode, "read": "a", "namespace": "default", "children": [mode] })).await?;
            hello::has(&probe::sentence(&probe::says(scene, mode, "False", reason).await?), &[part])?;
            ensure!(scene.cluster().get(probe::CONFIG, &scene.namespace, mode).await?.is_none(), "{mode} has a child");
        }
        Ok(())
    });
}

/// Each run is a new instance, and the clock that its code sees is the one of the request.
///
/// Promises: S5, S6
/// Breaks it: an instance that is used again, or a guest that sees the machine's clock.
#[test]
fn nothing_survives_from_run_to_run_and_the_clock_is_the_requests() {
    scene("afresh", async |scene: &Scene<'_>| {
        scene.host().await?;
        probe::install(scene).await?;
        for round in 0..10 {
            for name in ["a", "b", "c"] {
                probe::set(scene, name, json!({ "mode": "counter", "text": format!("round {round}") })).await?;
            }
            for name in ["a", "b", "c"] {
                let counted = probe::reconciled(scene, name).await?;
                ensure!(counted["status"]["calls"] == 1, "{name} in round {round}: {}", counted["status"]);
            }
        }
        probe::set(scene, "clock", json!({ "mode": "request" })).await?;
        let told = probe::reconciled(scene, "clock").await?["status"].clone();
        ensure!(told["now"].as_u64().is_some_and(|now| now > 0) && told["now"] == told["clock"], "{told}");
        Ok(())
    });
}

/// Promises: S1, S4
/// Breaks it: a flood that is logged to its end, or what a bad guest leaves behind: memory, handles, threads.
#[test]
fn floods_are_cut_and_nothing_is_left_of_bad_guests() {
    scene("floods", async |scene: &Scene<'_>| {
        let host = scene.host().await?;
        probe::install(scene).await?;
        let limits = json!({ "memory": "16Mi", "cpu": "200ms", "deadline": "2s" });
        hello::plugin(scene, "probe", json!({ "source": { "file": "probe.wasm" }, "limits": limits })).await?;
        probe::ready(scene, "probe").await?;
        bad_round(scene, 0).await?;
        let before = Left::of(host.pid())?;
        for round in 1..8 {
            bad_round(scene, round).await?;
        }
        let after = Left::of(host.pid())?;
        ensure!(after.threads <= before.threads + 4, "threads: {before:?}, then {after:?}");
        ensure!(after.handles <= before.handles + 8, "handles: {before:?}, then {after:?}");
        ensure!(after.memory <= before.memory + (32 << 20), "memory: {before:?}, then {after:?}");
        let lines = host.log().iter().filter(|line| reef_tests::host::message(line).contains("a line of a flood")).count();
        ensure!(lines > 0 && lines < 8 * 2000, "{lines} lines of the floods were logged");
        Ok(())
    });
}

/// One bad guest of each sort, until each has failed or ended.
async fn bad_round(scene: &Scene<'_>, round: usize) -> Result<()> {
    for (mode, size) in
        [("memory", 0), ("recursion", 0), ("panic", 0), ("loop", 0), ("log-flood", 20_000), ("print-flood", 20_000)]
    {
        probe::set(scene, mode, json!({ "mode": mode, "size": size, "text": format!("round {round}") })).await?;
    }
    for (mode, reason) in
        [("memory", "MemoryLimitExceeded"), ("recursion", "Trapped"), ("panic", "Panicked"), ("loop", "CPULimitExceeded")]
    {
        probe::says(scene, mode, "False", reason).await?;
    }
    for mode in ["log-flood", "print-flood"] {
        let ended = |probe: Option<&Value>| {
            let generation = probe.map(|probe| &probe["metadata"]["generation"]);
            condition(probe, "Reconciled").is_some_and(|c| Some(&c["observedGeneration"]) == generation)
        };
        scene.cluster().wait(probe::PROBE, &scene.namespace, mode, "was reconciled, well or not", ended).await?;
    }
    Ok(())
}

/// What a process holds.
#[derive(Debug)]
struct Left {
    threads: usize,
    handles: usize,
    /// Bytes resident.
    memory: usize,
}

impl Left {
    fn of(pid: i32) -> Result<Self> {
        let count = |what: &str| -> Result<usize> { Ok(std::fs::read_dir(format!("/proc/{pid}/{what}"))?.count()) };
        let pages = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
        let pages: usize = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
        Ok(Self { threads: count("task")?, handles: count("fd")?, memory: pages * 4096 })
    }
}
