//! What the plugin `config-history` reads: as new as its own writes, whole or not at all, and only what its account may see.

use anyhow::{Result, ensure};
use reef_tests::{
    host::Options,
    world::{Scene, scene},
};
use serde_json::{Value, json};

use super::{HISTORY, edit, events, has, install, kept, set, texts};
use crate::{
    faults::{Stage, behind_proxy},
    hello, probe,
};

/// The event of the first copy is on its way for two seconds, and until then the history runs again.
///
/// Promises: R1
/// Breaks it: a cache that only the watch fills, in which the copy is not yet there and would be made, and told of, once more.
#[test]
fn a_version_that_was_just_kept_is_not_kept_again_by_the_next_run() {
    behind_proxy("history-echo", &[], async |stage: &Stage<'_>| {
        let scene = stage.scene;
        install(scene).await?;
        edit(scene, "web", "one").await?;
        stage.proxy.script(["watch configmaps: events #1+ delay 2000ms"])?;
        let host = stage.start().await?;
        let begin = scene.world.audit.mark(scene.cluster()).await?;
        set(scene, "h", json!({ "selector": "app=web", "keep": 5 })).await?;
        has(scene, "h", &["one"]).await?;
        let runs = probe::reconciles(scene, &host, "config-history", None).await?;
        set(scene, "h", json!({ "selector": "app=web", "keep": 4 })).await?;
        probe::reconciles_reach(scene, &host, "config-history", None, runs + 1).await?;
        kept(scene, "h").await?;
        hello::settled(scene, &host, "config-history").await?;
        scene.world.audit.mark(scene.cluster()).await?;
        let mut creates = scene.world.audit.writes(begin, &scene.namespace)?;
        creates.retain(|request| request.verb == "create" && request.object_ref.resource == "configmaps");
        let lines: Vec<String> = creates.iter().map(|request| request.line()).collect();
        ensure!(lines.len() == 1, "one version was made by:\n{}", lines.join("\n"));
        ensure!(events(scene, "h", "VersionKept").await?.len() == 1, "it was told of more than once");
        Ok(())
    });
}

/// The rules of the account, but for those of ConfigMaps, which are these.
async fn may(scene: &Scene<'_>, verbs: &str) -> Result<()> {
    let rules = format!(
        "[{{ apiGroups: [demo.reef.dev], resources: [confighistories], verbs: [get, list, watch, patch] }}, \
          {{ apiGroups: [demo.reef.dev], resources: [confighistories/status], verbs: [get, patch] }}, \
          {{ apiGroups: [events.k8s.io], resources: [events], verbs: [create] }}, \
          {{ apiGroups: [\"\"], resources: [configmaps], verbs: [{verbs}] }}]"
    );
    crate::plan::writer::may(scene, "config-history", "config-history", &rules).await
}

/// The period in which rights are looked at again is 1 s here instead of 30 s.
///
/// Promises: R4
/// Breaks it: a version that is kept of what the account may not see any more, or copies that are taken for gone.
#[test]
fn a_history_whose_account_may_no_longer_read_says_so_and_keeps_what_it_has() {
    scene("history-refused", async |scene: &Scene<'_>| {
        let _host = scene.host_with(&Options { flags: vec!["--recheck-period=1s".into()], ..scene.options() }).await?;
        install(scene).await?;
        edit(scene, "web", "one").await?;
        set(scene, "h", json!({ "selector": "app=web" })).await?;
        has(scene, "h", &["one"]).await?;
        kept(scene, "h").await?;
        may(scene, "create, patch, delete").await?;
        let missing = hello::plugin_says(scene, "config-history", ("Authorized", "False", "MissingRights")).await?;
        hello::has(&missing, &[r#"resources: ["configmaps"], verbs: ["get", "list", "watch"]"#])?;
        edit(scene, "web", "two").await?;
        set(scene, "h", json!({ "selector": "app=web", "keep": 1 })).await?;
        let refused = hello::object_says(scene, HISTORY, "h", ("UpToDate", "False", "CannotRead")).await?;
        hello::has(&hello::sentence(&refused, "UpToDate"), &["configmaps", &format!("{}/config-history", scene.namespace)])?;
        ensure!(texts(scene, "h").await? == ["one"], "there are {:?}", texts(scene, "h").await?);

        may(scene, "get, list, watch, create, patch, delete").await?;
        has(scene, "h", &["two"]).await?;
        kept(scene, "h").await.map(drop)
    });
}

/// A host begins with a copy of the histories, and for three seconds with none of the ConfigMaps.
///
/// Promises: R5
/// Breaks it: a history that says, or does, what is only true of a namespace without ConfigMaps.
#[test]
fn a_history_does_nothing_while_the_config_maps_are_being_read() {
    behind_proxy("history-half", &[], async |stage: &Stage<'_>| {
        let scene = stage.scene;
        install(scene).await?;
        edit(scene, "web", "one").await?;
        let host = stage.start().await?;
        set(scene, "h", json!({ "selector": "app=web", "retain": false })).await?;
        has(scene, "h", &["one"]).await?;
        kept(scene, "h").await?;
        hello::settled(scene, &host, "config-history").await?;
        scene.kill(&host).await?;
        let before = scene.cluster().get(HISTORY, &scene.namespace, "h").await?;
        stage.proxy.script(["watch configmaps: delay 3000ms", "list configmaps: delay 3000ms"])?;
        let host = stage.start().await?;
        hello::settled(scene, &host, "config-history").await?;
        let version = |history: &Option<Value>| history.as_ref().map(|history| history["metadata"]["resourceVersion"].clone());
        let after = scene.cluster().get(HISTORY, &scene.namespace, "h").await?;
        ensure!(version(&before) == version(&after), "from\n{before:#?}\nto\n{after:#?}");
        ensure!(texts(scene, "h").await? == ["one"], "there are {:?}", texts(scene, "h").await?);
        Ok(())
    });
}
