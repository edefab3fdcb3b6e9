//! Watches that are cut, repeat themselves, come in the wrong order, fall silent or have to start over.

use anyhow::{Context, Result, ensure};
use reef_tests::{state::State, world::Scene};
use serde_json::json;

use super::{Stage, behind_proxy, greeted, hello, no_orphans, uid};
use crate::{
    hello::{self as hellos, HELLO},
    probe::CONFIG,
};

/// What happens to the connections that are open when a disturbance begins.
enum Open {
    Cut,
    /// They say nothing more, not even to pings.
    Swallow,
}

/// Five objects, in the course of whose life everything happens that can: made, edited, deleted; children deleted and changed
/// by strangers.
async fn course(scene: &Scene<'_>, case: &str) -> Result<()> {
    let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
    let name = |i: usize| format!("{case}-{i}");
    for i in 0..5 {
        hello(scene, &name(i), "one").await?;
    }
    for i in 0..5 {
        greeted(scene, &name(i), "one").await?;
    }
    hello(scene, &name(0), "two").await?;
    cluster.delete(CONFIG, namespace, &name(1)).await?;
    cluster.patch(CONFIG, namespace, &name(2), "", &json!({ "data": { "text": "by hand" } })).await?;
    cluster.delete(HELLO, namespace, &name(3)).await?;
    for text in ["two", "three", "four"] {
        hello(scene, &name(4), text).await?;
    }
    for (i, text) in [(0, "two"), (1, "one"), (2, "one"), (4, "four")] {
        greeted(scene, &name(i), text).await?;
    }
    cluster.wait(CONFIG, namespace, &name(3), "is gone", |object| object.is_none()).await.map(drop)
}

async fn state(scene: &Scene<'_>, case: &str) -> Result<State> {
    Ok(State::of(scene.cluster(), &scene.namespace, &[HELLO, CONFIG]).await?.renamed(&format!("{case}-"), "CASE-"))
}

/// The same course of things, undisturbed, and under each fault that a watch can have; the end is the same.
///
/// Promises: C3
/// Breaks it: believing events that are older than what is known, or resuming where the server no longer knows about.
#[test]
fn whatever_happens_to_a_watch_the_final_state_equals_an_undisturbed_run() {
    behind_proxy("watches", &["--request-timeout=2s"], async |stage: &Stage<'_>| {
        let scene = stage.scene;
        hellos::install(scene).await?;
        stage.start().await?;
        course(scene, "clean").await?;
        let clean = state(scene, "clean").await?;
        let cases: [(&str, Open, &[&str], &str); 10] = [
            ("cut", Open::Cut, &["watch *: events #2+ cut"], "event cut"),
            ("expired", Open::Cut, &["watch *: events #3 gone"], "event gone"),
            (
                "gone",
                Open::Cut,
                &["watch hellos #1: answer 410 before", "watch configmaps #1: answer 410 before"],
                "answer 410 before",
            ),
            ("twice", Open::Cut, &["watch *: events #1+ duplicate"], "event duplicate"),
            ("swapped", Open::Cut, &["watch *: events #1+ reorder"], "event reorder"),
            ("late", Open::Cut, &["watch *: events #1+ delay 100ms"], "event delay"),
            (
                "refused",
                Open::Cut,
                &["watch * #1: answer 429 before retry 1", "watch * #3: answer 500 before"],
                "answer 429 before",
            ),
            ("torn", Open::Cut, &["watch *: events #2 gone", "list * #1: list torn", "list * #3: list torn"], "list torn"),
            ("hole", Open::Swallow, &["watch * #1: hole"], "hole"),
            (
                "all",
                Open::Cut,
                &[
                    "watch *: events #1 duplicate",
                    "watch *: events #2 reorder",
                    "watch *: events #4 gone",
                    "list * #2: reset before",
                ],
                "event duplicate",
            ),
        ];
        for (case, open, rules, fault) in cases {
            let before = stage.proxy.count(fault);
            stage.proxy.script(rules)?;
            match open {
                Open::Cut => stage.proxy.cut(),
                Open::Swallow => stage.proxy.swallow(),
            }
            course(scene, case).await.with_context(|| format!("in the case `{case}`"))?;
            let found = state(scene, case).await?;
            ensure!(found == clean, "`{case}` ends differently:\n{}", found.differences(&clean));
            ensure!(stage.proxy.count(fault) > before, "`{case}`: nothing happened");
        }
        no_orphans(scene, HELLO).await?;
        let objects = scene.cluster().list(HELLO, &scene.namespace).await?.len();
        stage.a_round_writes_nothing("hello", objects as u64).await
    });
}

/// Children of many objects, and one of the objects, vanish while no watch comes through; when watches are let through again,
/// the server no longer knows where they were, so nobody tells of the deletions.
///
/// Promises: C4, C3
/// Breaks it: a list that only adds and changes, or one whose differences wake nobody.
#[test]
fn what_vanished_while_the_watch_was_down_wakes_its_owners() {
    behind_proxy("vanished", &["--request-timeout=2s"], async |stage: &Stage<'_>| {
        let (scene, cluster, namespace) = (stage.scene, stage.scene.cluster(), &*stage.scene.namespace);
        hellos::install(scene).await?;
        stage.start().await?;
        let names: Vec<String> = (0..15).map(|i| format!("h-{i}")).collect();
        let mut former = Vec::new();
        for name in &names {
            hello(scene, name, "here").await?;
        }
        for name in &names {
            greeted(scene, name, "here").await?;
            former.push(uid(scene, CONFIG, name).await?);
        }
        stage.proxy.script(["watch *: answer 503 before"])?;
        stage.proxy.cut();
        cluster.delete(HELLO, namespace, "h-0").await?;
        cluster.wait(CONFIG, namespace, "h-0", "is gone", |object| object.is_none()).await?;
        // More than a fifth of all: what a list lacks has to be lacking twice.
        for name in &names[1..13] {
            cluster.delete(CONFIG, namespace, name).await?;
        }
        ensure!(cluster.list(CONFIG, namespace).await?.len() == 3, "somebody made the children again without having been told");
        stage.proxy.script(["watch hellos #1: answer 410 before", "watch configmaps #1: answer 410 before"])?;
        for (name, former) in names.iter().zip(&former).skip(1) {
            greeted(scene, name, "here").await?;
            let again = uid(scene, CONFIG, name).await?;
            ensure!((again != *former) == names[1..13].contains(name), "{name}: {former} {again}");
        }
        ensure!(stage.proxy.count("answer 410 before") == 2, "{:?}", stage.proxy.faults());
        ensure!(cluster.get(CONFIG, namespace, "h-0").await?.is_none(), "a child of what vanished was made again");
        // The one that vanished comes back, as another one.
        hello(scene, "h-0", "again").await?;
        greeted(scene, "h-0", "again").await?;
        no_orphans(scene, HELLO).await?;
        stage.a_round_writes_nothing("hello", 15).await
    });
}
