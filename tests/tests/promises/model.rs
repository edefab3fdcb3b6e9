//! The model of an API server that the simulation runs against: what it is compared with is what a real one says.

#[path = "../../../host/tests/simulation/conversation.rs"]
mod conversation;

use std::fs;

use anyhow::{Context, Result, ensure};
use reef_tests::{
    paths,
    world::{Scene, scene},
};
use serde_json::Value;

use crate::hello as hellos;

/// As somebody who may do everything; what is refused is an answer too.
async fn ask(scene: &Scene<'_>, request: conversation::Request) -> Result<(u16, Value)> {
    let body = if request.body.is_null() { Vec::new() } else { serde_json::to_vec(&request.body)? };
    let mut sent = http::Request::builder().method(request.method).uri(&request.target);
    if !request.content.is_empty() {
        sent = sent.header("content-type", request.content);
    }
    let response = scene.cluster().client().send(sent.body(kube::client::Body::from(body))?).await?;
    let code = response.status().as_u16();
    let body = response.into_body().collect_bytes().await?;
    Ok((code, serde_json::from_slice(&body)?))
}

/// `REEF_RECORD=1` writes what it said, after a look at what has changed.
///
/// Breaks it: a real API server that answers otherwise than the one that was recorded.
#[test]
fn the_recorded_answers_are_those_of_a_real_api_server() {
    scene("recorded", async |scene: &Scene<'_>| {
        hellos::install(scene).await?;
        let served = || async { scene.cluster().list(hellos::HELLO, &scene.namespace).await.is_ok() };
        crate::probe::until("the API server serves Hellos", served).await?;
        let answer = async |request: conversation::Request| {
            let what = format!("{} {}", request.method, request.target);
            ask(scene, request).await.with_context(|| what).expect("the API server does not answer")
        };
        let answers = conversation::converse(&scene.namespace, answer).await;
        let found = conversation::plain(&scene.namespace, &answers);
        let path = paths::checkout().join("host/tests/simulation/recorded.json");
        if std::env::var_os("REEF_RECORD").is_some() {
            fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&found)?))?;
        }
        let recorded: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        for (found, recorded) in found.as_array().into_iter().flatten().zip(recorded.as_array().into_iter().flatten()) {
            ensure!(found == recorded, "\nthe server says: {found}\nrecorded is:     {recorded}");
        }
        ensure!(found == recorded, "the conversation is longer or shorter than what was recorded");
        Ok(())
    });
}
