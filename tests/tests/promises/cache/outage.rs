//! What happened while nobody could tell, on control planes of their own.

use anyhow::{Context, Result, ensure};
use reef_tests::{
    audit::Request,
    control_plane::Setup,
    host::{field, message},
    world::{Scene, scene_apart},
};
use serde_json::{Value, json};

use crate::probe;

/// Requests of the host for a resource of the scene's namespace.
fn requests(scene: &Scene<'_>, resource: &str, verb: &str) -> Result<Vec<Request>> {
    let mut all = scene.world.audit.all()?;
    all.retain(|r| {
        r.is_by_reef() && r.verb == verb && r.object_ref.resource == resource && r.object_ref.namespace == scene.namespace
    });
    Ok(all)
}

/// The API server is away; meanwhile 30 of 40 children, and one of the objects, are lost from its data as if they had never
/// been, and all history is forgotten, so that no watch can be resumed. The host lists, does not believe it, and lists again;
/// then every owner is reconciled, what was lost is there again, and a neighbour that lost nothing has not been written.
///
/// Promises: C3, C4, C10
/// Breaks it: a list that is believed at once, or compared with nothing.
#[test]
fn what_vanished_during_an_outage_is_confirmed_and_then_its_owners_are_woken() {
    scene_apart("outage", Setup::default(), async |scene: &Scene<'_>| {
        let (plane, cluster, namespace) = (&scene.world.plane, scene.cluster(), &*scene.namespace);
        probe::install(scene).await?;
        let host = scene.host().await?;
        probe::ready(scene, "probe").await?;
        for n in 0..40 {
            let (name, child) = (format!("o{n}"), if n < 30 { format!("lost-{n}") } else { format!("kept-{n}") });
            probe::set(scene, &name, json!({ "text": "x", "children": [child] })).await?;
        }
        for n in 0..40 {
            probe::reconciled(scene, &format!("o{n}")).await?;
        }
        let kept = probe::config_says(scene, "kept-30", "text", "x").await?;
        let before = requests(scene, "configmaps", "list")?.len();

        plane.stop_api()?;
        let lost = plane.lose(&format!("/registry/configmaps/{namespace}/lost-")).await?;
        ensure!(lost == 30, "{lost} children were lost");
        plane.lose(&format!("/registry/test.reef.dev/probes/{namespace}/o39")).await?;
        plane.compact().await?;
        plane.start_api_again(&[]).await?;

        for n in 0..30 {
            probe::config_says(scene, &format!("lost-{n}"), "text", "x").await?;
        }
        let doubt = |line: &&Value| message(line).starts_with("a list lacks more than a fifth");
        let log = host.log();
        let doubted: Vec<&Value> = log.iter().filter(doubt).collect();
        ensure!(doubted.len() == 1 && field(doubted[0], "kind") == Some(probe::CONFIG), "doubted: {doubted:?}");
        let confirmed = requests(scene, "configmaps", "list")?.len() - before;
        ensure!(confirmed == 1, "{confirmed} lists of ConfigMaps confirm what the first one said");
        let now = cluster.get(probe::CONFIG, namespace, "kept-30").await?.context("a kept child is gone")?;
        ensure!(now["metadata"]["resourceVersion"] == kept["metadata"]["resourceVersion"], "a kept child was written");
        let seen = || async {
            let labels = [("kind", probe::PROBE), ("namespace", namespace)];
            host.metrics().await.is_ok_and(|metrics| metrics.sum("reef_cache_objects", &labels) == 39.0)
        };
        probe::until("the lost object is gone from the copy", seen).await
    });
}

/// 1,100 ConfigMaps on an API server whose feature `WatchList` is switched off: it is asked for it once, then everything is
/// read in pages of 500, and followed from there.
///
/// Promises: C5
/// Breaks it: a streaming list without another way.
#[test]
fn a_server_that_streams_no_lists_is_read_in_pages() {
    scene_apart(
        "no-watchlist",
        Setup { apiserver: &["--feature-gates=WatchList=false"], ..Setup::default() },
        async |scene: &Scene<'_>| {
            let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
            for some in (0..1100).collect::<Vec<u32>>().chunks(110) {
                let create = async |n: &u32| {
                    cluster.create(namespace, &probe::config(&format!("c{n}"), json!({ "n": n.to_string() }))).await
                };
                futures::future::try_join_all(some.iter().map(create)).await?;
            }
            probe::install(scene).await?;
            let host = scene.host().await?;
            probe::ready(scene, "probe").await?;
            let labels = [("kind", probe::CONFIG), ("namespace", namespace)];
            let kept = host.metrics().await?.sum("reef_cache_objects", &labels);
            ensure!(kept == 1101.0, "{kept} ConfigMaps are kept; there are 1,100 and the one that every namespace has");
            let lists = requests(scene, "configmaps", "list")?;
            let pages: Vec<&str> = lists.iter().map(|r| &*r.uri).collect();
            ensure!(pages.len() == 3 && pages.iter().all(|uri| uri.contains("limit=500")), "pages: {pages:#?}");
            let all = scene.world.audit.all()?;
            let streams = all.iter().filter(|r| r.is_by_reef() && r.uri.contains("sendInitialEvents")).count();
            let refused = host.log().iter().filter(|line| message(line).starts_with("the API server streams no lists")).count();
            ensure!(refused == 1, "said {refused} times");
            ensure!(streams <= 5, "asked {streams} times for what it does not do");
            probe::set(scene, "o", json!({ "text": "one", "children": ["c7777"] })).await?;
            probe::config_says(scene, "c7777", "text", "one").await?;
            cluster.delete(probe::CONFIG, namespace, "c7777").await?;
            let again = |object: Option<&Value>| object.is_some();
            cluster.wait(probe::CONFIG, namespace, "c7777", "is there again", again).await.map(drop)
        },
    );
}
