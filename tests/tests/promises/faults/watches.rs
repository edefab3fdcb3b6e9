//! Watches that are cut, repeat themselves, come in the wrong order, fall silent or have to start over.

use anyhow::{Context, Result, ensure};
use reef_tests::{host::message, state::State, world::Scene};
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

/// A proxy on the way lets lists through and breaks off every watch before its first event; edits arrive all the same.
///
/// Promises: C3
/// Breaks it: taking a server that breaks off for one that is away, and resuming for ever.
#[test]
fn where_no_watch_gets_to_its_first_event_lists_bring_the_news() {
    behind_proxy("no-events", &["--request-timeout=2s"], async |stage: &Stage<'_>| {
        let scene = stage.scene;
        hellos::install(scene).await?;
        stage.start().await?;
        hello(scene, "a", "one").await?;
        greeted(scene, "a", "one").await?;
        stage.proxy.script(["watch hellos: events #1+ cut"])?;
        stage.proxy.cut();
        for text in ["two", "three"] {
            hello(scene, "a", text).await?;
            crate::probe::config_says(scene, "a", "text", text).await?;
        }
        ensure!(stage.proxy.count("event cut") > 0, "{:?}", stage.proxy.faults());
        Ok(())
    });
}

/// An API server that has just started refuses everybody for a moment, until it has read who may what.
///
/// Promises: C3, R5
/// Breaks it: giving up a copy at the first 403.
#[test]
fn a_refusal_in_passing_takes_no_cache_away() {
    behind_proxy("refused-once", &[], async |stage: &Stage<'_>| {
        let scene = stage.scene;
        hellos::install(scene).await?;
        stage.start().await?;
        hello(scene, "a", "one").await?;
        greeted(scene, "a", "one").await?;
        stage.proxy.script(["watch hellos #1: answer 403 before", "watch hellos #2: answer 403 before"])?;
        stage.proxy.cut();
        hello(scene, "a", "two").await?;
        greeted(scene, "a", "two").await?;
        ensure!(stage.proxy.count("answer 403 before") == 2, "{:?}", stage.proxy.faults());
        let plugin = scene.cluster().get(crate::probe::PLUGIN, &scene.namespace, "hello").await?.context("no Plugin")?;
        let events = scene.cluster().list("events.k8s.io/v1/Event", &scene.namespace).await?;
        let told: Vec<_> = events.iter().filter(|event| event["reason"] == "Forbidden").collect();
        ensure!(told.is_empty(), "{told:?}\n{plugin}");
        Ok(())
    });
}

/// A server that cannot stream lists answers the first list after a 410 with half of what is there: that is not believed, no
/// child is deleted, made again or changed, and edits of what the list had lacked are carried out.
///
/// Promises: C10
/// Breaks it: believing a list that lacks much of what was there at once.
#[test]
fn a_list_that_lacks_most_of_what_was_there_is_asked_for_again_before_it_is_believed() {
    behind_proxy("lying-lists", &[], async |stage: &Stage<'_>| {
        let scene = stage.scene;
        hellos::install(scene).await?;
        let host = stage.start().await?;
        let names: Vec<String> = (0..30).map(|i| format!("h-{i}")).collect();
        let mut children = Vec::new();
        for name in &names {
            hello(scene, name, "here").await?;
        }
        for name in &names {
            greeted(scene, name, "here").await?;
            children.push(uid(scene, CONFIG, name).await?);
        }
        let mark = scene.world.audit.mark(scene.cluster()).await?;
        stage.proxy.script([
            "watch hellos #1: answer 410 before",
            "watch hellos #2: answer 400 before",
            "list hellos #1: list halved",
        ])?;
        stage.proxy.cut();
        let doubted = || async {
            let log = host.log();
            log.iter().filter(|line| message(line).starts_with("a list lacks more than a fifth")).count() == 1
        };
        crate::probe::until("the list was doubted", doubted).await?;
        // It sorts behind the others, so it was not in that list.
        hello(scene, "h-9", "still").await?;
        greeted(scene, "h-9", "still").await?;
        ensure!(stage.proxy.count("list halved") == 1, "{:?}", stage.proxy.faults());
        for (name, child) in names.iter().zip(&children) {
            ensure!(uid(scene, CONFIG, name).await? == *child, "{name} has another child now");
        }
        let _ = scene.world.audit.mark(scene.cluster()).await?;
        let written = scene.world.audit.writes(mark, &scene.namespace)?;
        // The Plugin says that its requests were turned away, and has an event.
        let objects = |line: &String| (line.contains(" hellos ") || line.contains(" configmaps ")) && !line.contains("h-9");
        let others: Vec<String> = written.iter().map(|write| write.line()).filter(objects).collect();
        ensure!(others.is_empty(), "what had only vanished from lists was written:\n{}", others.join("\n"));
        Ok(())
    });
}
