//! An API server that goes and comes back, and has forgotten the past: on a control plane of its own.

use anyhow::{Result, ensure};
use reef_tests::{
    host::{field, message},
    world::{World, with_world},
};

use super::{Stage, greeted, hello, no_orphans};
use crate::{
    hello::{self as hellos, HELLO},
    probe::{CONFIG, until},
};

/// kube-apiserver is killed and started again. The host is kept away from it until what they have seen last is compacted: then
/// etcd itself knows no more of it, nor does the API server's own cache, which is younger.
///
/// Promises: C3, C4
/// Breaks it: resuming a watch for ever at a version that nobody knows any more.
#[test]
fn after_a_restart_and_a_compaction_of_the_api_server_everything_is_caught_up_with() {
    with_world(async |world: &World| {
        let scene = world.scene("restart").await?;
        let stage = Stage::new(&scene, &["--request-timeout=2s", "--lease-duration=60s", "--lease-renew-deadline=50s"]).await?;
        let ended = goes_and_comes_back(&stage).await;
        if ended.is_err() {
            eprintln!("{}\n{}", stage.host().log_tail(60), stage.proxy.describe());
        }
        ended
    });
}

async fn goes_and_comes_back(stage: &Stage<'_>) -> Result<()> {
    let (scene, cluster, namespace) = (stage.scene, stage.scene.cluster(), &*stage.scene.namespace);
    let world = scene.world;
    hellos::install(scene).await?;
    let host = stage.start().await?;
    for name in ["edited", "robbed", "deleted", "kept"] {
        hello(scene, name, "before").await?;
        greeted(scene, name, "before").await?;
    }
    // An API server that has just started refuses everybody for a moment, and who is refused reads everything anew anyway.
    stage.proxy.script(["any *: reset before"])?;
    world.plane.stop_api()?;
    world.plane.start_api_again(&["--etcd-compaction-interval=1s"]).await?;
    hello(scene, "edited", "meanwhile").await?;
    hello(scene, "new", "meanwhile").await?;
    cluster.delete(HELLO, namespace, "deleted").await?;
    cluster.delete(CONFIG, namespace, "robbed").await?;
    // The past is gone when a list of it is refused.
    let old = cluster.get(HELLO, namespace, "kept").await?.unwrap_or_default();
    let old = old["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    let path = format!("/api/v1/namespaces/{namespace}/configmaps?limit=1&resourceVersionMatch=Exact&resourceVersion={old}");
    let compacted = || async {
        let answer = cluster.client().request_text(http::Request::get(&path).body(Vec::new()).unwrap()).await;
        matches!(answer, Err(kube::Error::Api(status)) if status.code == 410)
    };
    until("etcd is compacted", compacted).await?;
    stage.proxy.script([""; 0])?;
    for (name, text) in [("edited", "meanwhile"), ("new", "meanwhile"), ("robbed", "before"), ("kept", "before")] {
        greeted(scene, name, text).await?;
    }
    cluster.wait(CONFIG, namespace, "deleted", "is gone", |object| object.is_none()).await?;
    let anew: Vec<_> = host.log().into_iter().filter(|line| message(line) == "reading anew").collect();
    let too_old = anew.iter().filter(|line| field(line, "reason").is_some_and(|reason| reason.contains("too old"))).count();
    ensure!(too_old >= 2, "so many watches were told that they are too late: {too_old}; {anew:?}");
    ensure!(host.exit().is_none(), "the host has ended");
    // And it goes on.
    hello(scene, "kept", "after").await?;
    greeted(scene, "kept", "after").await?;
    no_orphans(scene, HELLO).await?;
    stage.a_round_writes_nothing("hello", 4).await
}
