//! Creates whose answers are lost, and deletions that are refused on the way.

use anyhow::ensure;
use reef_tests::host::field;

use super::{Stage, behind_proxy, greeted, hello, no_orphans, uid};
use crate::{
    hello::{self as hellos, HELLO},
    probe::{self, CONFIG},
};

/// The create is carried out and the host does not learn of it, in five ways; once the event of it comes at once, and once it
/// comes long after the host has tried again and was told that there is such an object already.
///
/// Promises: W7
/// Breaks it: taking what exists already for a stranger's without looking.
#[test]
fn a_create_whose_answer_was_lost_is_recognised() {
    behind_proxy("lost-answer", &["--request-timeout=2s"], async |stage: &Stage<'_>| {
        let scene = stage.scene;
        hellos::install(scene).await?;
        stage.start().await?;
        for late in [false, true] {
            if late {
                stage.again().await?;
                stage.proxy.script(["watch configmaps: events #1+ delay 1000ms"])?;
                stage.proxy.cut();
            }
            for (i, fault) in
                ["reset after", "cut after", "stall after", "answer 500 after", "answer 503 after"].into_iter().enumerate()
            {
                let name = format!("{}-{i}", if late { "late" } else { "soon" });
                let rule = format!("create configmaps named {name} #1: {fault}");
                // The open watches keep the rules that they have.
                stage.proxy.script([rule.as_str(), "watch configmaps: events #1+ delay 1000ms"].into_iter().take(if late {
                    2
                } else {
                    1
                }))?;
                hello(scene, &name, "one").await?;
                greeted(scene, &name, "one").await?;
                let created = uid(scene, CONFIG, &name).await?;
                hello(scene, &name, "two").await?;
                greeted(scene, &name, "two").await?;
                ensure!(uid(scene, CONFIG, &name).await? == created, "{fault}: another child took its place");
                scene.world.audit.mark(scene.cluster()).await?;
                let mut creates = scene.world.audit.all()?;
                creates.retain(|r| r.verb == "create" && r.object_ref.resource == "configmaps" && r.is_by_reef());
                creates.retain(|r| r.object_ref.namespace == scene.namespace && r.object_ref.name == name);
                let codes: Vec<u16> = creates.iter().map(|r| r.response_status.code).collect();
                let (first, again) = codes.split_first().unwrap_or((&0, &[]));
                ensure!(*first == 201 && again.iter().all(|code| *code == 409), "{fault}: creates were answered {codes:?}");
                ensure!(!late || !again.is_empty(), "{fault}: nothing was tried again before the event came: {codes:?}");
            }
        }
        let faults = stage.proxy.faults();
        ensure!(faults.iter().filter(|(fault, times)| fault.ends_with(" after") && **times == 2).count() == 5, "{faults:?}");
        let conflict = stage.host().log().into_iter().find(|line| field(line, "reason") == Some("Conflict"));
        ensure!(conflict.is_none(), "{conflict:?}");
        no_orphans(scene, HELLO).await?;
        let objects = scene.cluster().list(HELLO, &scene.namespace).await?.len();
        stage.a_round_writes_nothing("hello", objects as u64).await
    });
}

/// A child that left the plan is to be deleted, and somebody between host and API server says 409 for it.
///
/// Promises: W3
/// Breaks it: taking a conflict for the proof that another object has the name by now.
#[test]
fn a_deletion_that_was_refused_on_the_way_is_made_again() {
    behind_proxy("refused-deletion", &[], async |stage: &Stage<'_>| {
        let scene = stage.scene;
        probe::install(scene).await?;
        stage.start().await?;
        probe::set(scene, "p", serde_json::json!({ "children": ["stays", "leaves"] })).await?;
        probe::reconciled(scene, "p").await?;
        stage.proxy.script(["delete configmaps named leaves #1: answer 409 before"])?;
        probe::set(scene, "p", serde_json::json!({ "children": ["stays"] })).await?;
        probe::config_gone(scene, "leaves").await?;
        ensure!(stage.proxy.count("answer 409 before") == 1, "{:?}", stage.proxy.faults());
        probe::reconciled(scene, "p").await.map(drop)
    });
}
