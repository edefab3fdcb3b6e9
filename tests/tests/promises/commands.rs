//! The commands that talk to a cluster, as a shell runs them: what they do, what they say, and how they end.

mod install;
mod run;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use reef_tests::{control_plane::HOST_USER, paths, world::Scene};
use serde_json::{Value, json};

use crate::hello;

/// What a command said and how it ended.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

/// `reef`, with nobody at its terminal, as the user of a kubeconfig.
fn reef_as(kubeconfig: &Path, args: &[&str]) -> Result<Said> {
    let output = Command::new(paths::binary("reef")?)
        .args(args)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .stdin(Stdio::null())
        .env_remove("KUBECONFIG")
        .output()?;
    let said =
        Said { code: output.status.code(), out: String::from_utf8(output.stdout)?, err: String::from_utf8(output.stderr)? };
    for noise in ["panicked", "RUST_BACKTRACE", "\x1b"] {
        ensure!(!said.err.contains(noise) && !said.out.contains(noise), "reef {args:?}: {}{}", said.out, said.err);
    }
    Ok(said)
}

fn reef(scene: &Scene<'_>, args: &[&str]) -> Result<Said> {
    reef_as(&scene.world.plane.admin_kubeconfig(), args)
}

/// It has to succeed.
fn done(scene: &Scene<'_>, args: &[&str]) -> Result<String> {
    let said = reef(scene, args)?;
    ensure!(said.code == Some(0), "reef {args:?}: {:?}\n{}{}", said.code, said.out, said.err);
    Ok(said.out)
}

/// It has to fail with one sentence that has these parts.
fn failed(said: &Said, parts: &[&str]) -> Result<()> {
    ensure!(said.code == Some(1), "{:?}\n{}{}", said.code, said.out, said.err);
    let sentences: Vec<&str> = said.err.lines().filter(|line| line.starts_with("reef: ")).collect();
    ensure!(sentences.len() == 1, "{}", said.err);
    hello::has(sentences.first().copied().unwrap_or_default(), parts)
}

/// The command line that installs one of `plugins/`, whose component lies in the host's plugin directory.
fn install(scene: &Scene<'_>, plugin: &str, more: &[&str]) -> Result<Vec<String>> {
    let component = paths::component(plugin)?;
    let file = format!("{plugin}.wasm");
    scene.place(&file, &hello::component(plugin)?)?;
    let component = component.display().to_string();
    let line = ["install", &component, "-n", &scene.namespace, "--class", &scene.namespace, "--host-user", HOST_USER];
    Ok([&line[..], &["--plugin-file", &file], more].concat().into_iter().map(str::to_owned).collect())
}

fn words(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}

fn json_of(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| format!("this is not JSON:\n{text}"))
}

/// Kind and name of everything that is in a namespace, and of everything that has none; but for events and what the API server
/// makes by itself.
async fn everything(scene: &Scene<'_>) -> Result<BTreeSet<String>> {
    let cluster = scene.cluster();
    let get =
        async |path: &str| -> Result<Value> { Ok(cluster.client().request(http::Request::get(path).body(Vec::new())?).await?) };
    let groups = get("/apis").await?;
    let versions = groups["groups"].as_array().into_iter().flatten();
    let versions = versions.filter_map(|group| group["preferredVersion"]["groupVersion"].as_str());
    let paths: Vec<String> =
        ["/api/v1".to_owned()].into_iter().chain(versions.map(|version| format!("/apis/{version}"))).collect();
    let mut all = BTreeSet::new();
    for path in paths {
        let list = get(&path).await?;
        let resources = list["resources"].as_array().cloned().unwrap_or_default();
        for resource in resources.iter().filter(|r| r["verbs"].as_array().is_some_and(|verbs| verbs.contains(&json!("list")))) {
            let (plural, kind) = (resource["name"].as_str().unwrap_or_default(), resource["kind"].as_str().unwrap_or_default());
            if ["Event", "Lease", "APIService", "FlowSchema", "PriorityLevelConfiguration"].contains(&kind) {
                continue;
            }
            let place = if resource["namespaced"] == true { format!("/namespaces/{}", scene.namespace) } else { String::new() };
            let objects = get(&format!("{path}{place}/{plural}")).await?;
            for object in objects["items"].as_array().into_iter().flatten() {
                all.insert(format!("{kind} {}", object["metadata"]["name"].as_str().unwrap_or_default()));
            }
        }
    }
    Ok(all)
}

/// The kubeconfig of a ServiceAccount that may do nothing at all.
async fn visitor(scene: &Scene<'_>) -> Result<PathBuf> {
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "visitor" } });
    scene.cluster().apply_object(&scene.namespace, &account).await?;
    scene.kubeconfig_of(&scene.namespace, "visitor").await
}
