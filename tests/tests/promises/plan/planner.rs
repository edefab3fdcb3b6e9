//! Puts the guest `planner` on a stage, which plans what its objects say, word for word.

use anyhow::{Result, ensure};
use reef_tests::{audit::Request, host::Host, world::Scene};
use serde_json::{Value, json};
use std::sync::Arc;

use super::lines;
use crate::probe;

/// Installs `planner` in the scene's namespace, starts a host, and waits until it runs.
pub async fn start(scene: &Scene<'_>) -> Result<Arc<Host>> {
    probe::install_as(scene, "planner").await?;
    let host = scene.host().await?;
    probe::ready(scene, "planner").await?;
    Ok(host)
}

/// A write of a ConfigMap with more fields.
pub fn config(verb: &str, name: &str, more: Value) -> Value {
    let mut object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
    merge(&mut object, more);
    json!({ "verb": verb, "object": object })
}

/// The same write with options.
pub fn with(mut write: Value, options: Value) -> Value {
    merge(&mut write, options);
    write
}

/// ConfigMaps that are read.
pub fn get(names: &[&str]) -> Value {
    names.iter().map(|name| json!([probe::CONFIG, name])).collect()
}

fn merge(object: &mut Value, more: Value) {
    match (object, more) {
        (Value::Object(fields), Value::Object(more)) => {
            more.into_iter().for_each(|(key, value)| merge(fields.entry(key).or_insert(Value::Null), value));
        }
        (object, more) => *object = more,
    }
}

/// Has the owner reconciled once more with a spec that says the same, and checks that nothing but its status was written.
pub async fn stays(scene: &Scene<'_>, owner: &str, mut spec: Value) -> Result<()> {
    // What the Plugin says of failures follows what their objects say.
    let quiet = |plugin: Option<&Value>| plugin.is_some_and(|plugin| plugin["status"]["failing"].is_null());
    scene.cluster().wait(probe::PLUGIN, &scene.namespace, "planner", "names no failing object any more", quiet).await?;
    let mark = scene.world.audit.mark(scene.cluster()).await?;
    spec["again"] = json!(format!("{mark:?}"));
    probe::set(scene, owner, spec).await?;
    probe::reconciled(scene, owner).await?;
    let mut written = scene.world.audit.writes(mark, &scene.namespace)?;
    written.retain(|request: &Request| request.is_by_reef() && request.object_ref.resource != "probes");
    ensure!(written.is_empty(), "in a steady state was written:\n{}", lines(&written));
    Ok(())
}

/// Waits until the sentence of the host's condition is this one.
pub async fn sentence_is(scene: &Scene<'_>, owner: &str, (status, reason): (&str, &str), expected: &str) -> Result<()> {
    let what = format!("says {status}, {reason}: {expected}");
    let says = |object: Option<&Value>| object.is_some_and(|object| probe::sentence(object) == expected);
    scene.cluster().wait(probe::PROBE, &scene.namespace, owner, &what, says).await?;
    probe::says(scene, owner, status, reason).await.map(drop)
}
