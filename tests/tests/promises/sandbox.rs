//! The sandbox: what a guest does wrong stays with the object for which it did it.

use anyhow::{Result, ensure};
use reef_tests::world::{Scene, scene};
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
