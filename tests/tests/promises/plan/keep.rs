//! Children that outlive the plan and their owner.

use anyhow::{Result, ensure};
use reef_tests::world::{Scene, scene};
use serde_json::{Value, json};

use super::{
    lines, planner,
    planner::{config, with},
    writes_of,
};
use crate::probe::{self, CONFIG};

async fn child(scene: &Scene<'_>) -> Result<Value> {
    Ok(scene.cluster().get(CONFIG, &scene.namespace, "treasure").await?.unwrap_or_default())
}

/// As long as the plan has it, it is made, changed, repaired and made again like any child, and nothing is written in between.
/// What leaves the plan stays, and is taken up where it was. An ordinary child becomes one that is kept and back without being
/// made anew. When its owner goes, it stays; an owner of the same name does not take it over unless it is told to.
///
/// Promises: W2, W3, W4, W5
/// Breaks it: pruning what is to be kept, an owner reference on it, drift of it that wakes nobody, or adopting it by name.
#[test]
fn what_is_owned_and_kept_is_repaired_like_a_child_and_outlives_plan_and_owner() {
    scene("keep", async |scene: &Scene<'_>| {
        let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
        let _host = planner::start(scene).await?;
        let own = |text: &str| config("own", "treasure", json!({ "data": { "text": text } }));
        let keep = |text: &str| json!({ "plan": [with(own(text), json!({ "keep": true }))] });
        let owner = probe::set(scene, "o", keep("gold")).await?;
        probe::reconciled(scene, "o").await?;
        let made = child(scene).await?;
        let metadata = &made["metadata"];
        ensure!(metadata["ownerReferences"].is_null() && metadata["labels"]["reef.dev/plugin"] == "planner", "{made}");
        ensure!(metadata["annotations"]["reef.dev/owner"] == owner["metadata"]["uid"], "{made}");
        planner::stays(scene, "o", keep("gold")).await?;
        probe::set(scene, "o", keep("silver")).await?;
        probe::config_says(scene, "treasure", "text", "silver").await?;
        cluster.patch(CONFIG, namespace, "treasure", "", &json!({ "data": { "text": "lead" } })).await?;
        probe::config_says(scene, "treasure", "text", "silver").await?;

        // Out of the plan, and into it again.
        probe::set(scene, "o", json!({ "plan": [] })).await?;
        probe::reconciled(scene, "o").await?;
        ensure!(child(scene).await?["data"]["text"] == "silver", "what is kept was deleted or changed");
        probe::set(scene, "o", keep("gold")).await?;
        probe::config_says(scene, "treasure", "text", "gold").await?;
        // From kept to ordinary and back.
        probe::set(scene, "o", json!({ "plan": [own("gold")] })).await?;
        probe::reconciled(scene, "o").await?;
        let ordinary = child(scene).await?;
        let reference = &ordinary["metadata"]["ownerReferences"][0]["uid"];
        ensure!(reference == &owner["metadata"]["uid"], "an ordinary child has an owner: {ordinary}");
        ensure!(ordinary["metadata"]["annotations"]["reef.dev/owner"].is_null(), "{ordinary}");
        probe::set(scene, "o", keep("gold")).await?;
        probe::reconciled(scene, "o").await?;
        let kept = child(scene).await?;
        ensure!(kept["metadata"]["ownerReferences"].is_null(), "what is kept has no owner reference: {kept}");
        ensure!(kept["metadata"]["uid"] == made["metadata"]["uid"], "it was made anew");
        let deletions: Vec<_> = writes_of(scene, "treasure")?.into_iter().filter(|request| request.verb == "delete").collect();
        ensure!(deletions.is_empty(), "what is kept was deleted:\n{}", lines(&deletions));

        cluster.delete(CONFIG, namespace, "treasure").await?;
        probe::config_says(scene, "treasure", "text", "gold").await?;
        probe::reconciled(scene, "o").await?;
        cluster.delete(probe::PROBE, namespace, "o").await?;
        cluster.wait(probe::PROBE, namespace, "o", "is gone", |object| object.is_none()).await?;
        let left = child(scene).await?;
        let second = probe::set(scene, "o", keep("mine")).await?;
        let said = format!(
            "v1/ConfigMap {namespace}/treasure exists already and was made to outlive another object, whose child it was: name the \
             child differently, delete that object, or let the plugin take it over with `kubectl annotate configmap treasure -n \
             {namespace} reef.dev/adopt=planner`"
        );
        planner::sentence_is(scene, "o", ("False", "Conflict"), &said).await?;
        ensure!(child(scene).await? == left, "what an earlier owner left behind was touched");
        let adopt = json!({ "metadata": { "annotations": { "reef.dev/adopt": "planner" } } });
        cluster.patch(CONFIG, namespace, "treasure", "", &adopt).await?;
        let adopted = probe::config_says(scene, "treasure", "text", "mine").await?;
        ensure!(adopted["metadata"]["annotations"]["reef.dev/owner"] == second["metadata"]["uid"], "{adopted}");
        ensure!(adopted["metadata"]["uid"] == left["metadata"]["uid"], "it was made anew");
        Ok(())
    });
}
