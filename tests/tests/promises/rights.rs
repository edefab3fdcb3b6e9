//! Rights that are computed: what `reef inspect --rbac` prints, on a real API server.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use reef::{names::Kind, rbac::kinds::Kinds};
use reef_tests::{
    cluster::condition,
    control_plane::HOST_USER,
    host::Options,
    paths,
    world::{Scene, scene},
};
use serde_json::{Value, json};

use crate::{
    hello,
    probe::{self, CONFIG},
};

const HISTORY: &str = "demo.reef.dev/v1/ConfigHistory";
const BACKUP: &str = "demo.reef.dev/v1/Backup";
const ROLE: &str = "rbac.authorization.k8s.io/v1/Role";

/// What a command prints for programs.
fn inspect(component: &Path, more: &[&str]) -> Result<Value> {
    let output = Command::new(paths::binary("reef")?).arg("inspect").arg(component).args(["-o", "json"]).args(more).output()?;
    ensure!(output.status.success(), "reef inspect: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Account and roles of one of `plugins/`, as the component asks for them.
pub fn computed(scene: &Scene<'_>, name: &str) -> Result<Vec<Value>> {
    let flags = ["--rbac", "-n", &scene.namespace, "--host-user", HOST_USER];
    let list = inspect(&paths::component(name)?, &flags)?;
    list["items"].as_array().cloned().context("no items")
}

/// Installs one of `plugins/` from nothing but its component.
async fn install(scene: &Scene<'_>, name: &str) -> Result<()> {
    let cluster = scene.cluster();
    let crds = inspect(&paths::component(name)?, &[])?["crds"].take();
    for object in crds.as_array().into_iter().flatten().chain(&computed(scene, name)?) {
        cluster.apply_object(&scene.namespace, object).await?;
    }
    let file = format!("{name}.wasm");
    scene.place(&file, &hello::component(name)?)?;
    hello::plugin(scene, name, json!({ "source": { "file": file } })).await
}

async fn exists(scene: &Scene<'_>, kind: &str, name: &str) -> Result<()> {
    scene.cluster().wait(kind, &scene.namespace, name, "exists", |object| object.is_some()).await.map(drop)
}

/// Applies, writes, reports and cleans up all that the four examples do with their samples. No request of theirs is refused.
///
/// Promises: I3
/// Breaks it: a verb that is missing for what the manifest says, or a plural that is not the API server's.
#[test]
fn computed_rights_suffice_for_every_example() {
    scene("computed-rights", async |scene: &Scene<'_>| {
        let begin = scene.world.audit.mark(scene.cluster()).await?;
        scene.host().await?;
        let mut source = probe::config("page", json!({ "text": "one" }));
        source["metadata"]["labels"] = json!({ "app": "web" });
        scene.cluster().apply_object(&scene.namespace, &source).await?;
        for name in ["hello", "website", "config-history", "database"] {
            install(scene, name).await?;
            let sample = std::fs::read_to_string(paths::checkout().join("plugins").join(name).join("sample.yaml"))?;
            scene.apply(&sample).await?;
            hello::plugin_says(scene, name, ("Ready", "True", "Ready")).await?;
        }
        for (kind, name) in [
            (CONFIG, "greeting"),
            ("apps/v1/Deployment", "welcome"),
            ("v1/Service", "welcome"),
            ("networking.k8s.io/v1/Ingress", "welcome"),
            ("apps/v1/StatefulSet", "orders"),
        ] {
            exists(scene, kind, name).await?;
        }
        hello::object_says(scene, HISTORY, "web", ("UpToDate", "True", "Kept")).await?;
        let held = |object: Option<&Value>| condition(object, "Reconciled").is_some() && object.is_some_and(has_finalizer);
        scene.cluster().wait(BACKUP, &scene.namespace, "nightly", "is held and has a status", held).await?;
        for (kind, name) in [(HISTORY, "web"), (BACKUP, "nightly")] {
            scene.cluster().delete(kind, &scene.namespace, name).await?;
            scene.cluster().wait(kind, &scene.namespace, name, "is cleaned up", |object| object.is_none()).await?;
        }
        scene.world.audit.mark(scene.cluster()).await?;
        let mut requests = scene.world.audit.since(begin)?;
        requests.retain(|request| request.user.username.starts_with(&format!("system:serviceaccount:{}:", scene.namespace)));
        let refused: Vec<String> = requests.iter().filter(|r| r.response_status.code == 403).map(|r| r.line()).collect();
        ensure!(refused.is_empty(), "refused although the rights are computed:\n{}", refused.join("\n"));
        for verb in ["watch", "create", "patch", "delete"] {
            ensure!(requests.iter().any(|request| request.verb == verb), "no {verb} in the audit log: is it whole?");
        }
        Ok(())
    });
}

fn has_finalizer(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}

/// Promises: I3
/// Breaks it: a rule that nobody needs, or one whose loss is told of something else.
#[test]
fn without_any_one_rule_the_plugin_says_which_one_is_missing() {
    scene("rule-by-rule", async |scene: &Scene<'_>| {
        let flags = vec!["--recheck-period".into(), "1s".into()];
        scene.host_with(&Options { flags, ..scene.options() }).await?;
        install(scene, "hello").await?;
        hello::says(scene, "with all rights").await?;
        let whole = computed(scene, "hello")?;
        let whole = whole.iter().find(|object| object["kind"] == "Role").context("no Role")?;
        let rules = whole["rules"].as_array().context("no rules")?;
        ensure!(rules.len() == 4, "{rules:?}");
        for (n, rule) in rules.iter().enumerate() {
            let mut role = whole.clone();
            role["rules"].as_array_mut().context("no rules")?.remove(n);
            scene.cluster().apply_object(&scene.namespace, &role).await?;
            let message = hello::plugin_says(scene, "hello", ("Authorized", "False", "MissingRights")).await?;
            for other in rules {
                let named = message.contains(&format!("resources: [{}]", other["resources"][0]));
                ensure!(named == (other == rule), "without {rule}, and of {other} it says: {message}");
            }
            scene.cluster().apply_object(&scene.namespace, whole).await?;
            hello::plugin_says(scene, "hello", ("Authorized", "True", "Authorized")).await?;
        }
        exists(scene, ROLE, "hello").await?;
        hello::says(scene, "and with all again").await
    });
}

/// The table of kinds has what this API server serves; it may have more, of other versions.
#[test]
fn the_kinds_of_kubernetes_are_served_as_the_table_says() {
    scene("kinds", async |scene: &Scene<'_>| {
        let get = async |path: String| -> Result<Value> {
            Ok(scene.cluster().client().request(http::Request::get(path).body(Vec::new())?).await?)
        };
        let groups = get("/apis".into()).await?;
        let versions = groups["groups"].as_array().into_iter().flatten().map(|group| &group["preferredVersion"]["groupVersion"]);
        let versions = versions.filter_map(Value::as_str).filter(|version| is_kubernetes(version));
        let paths = versions.map(|version| format!("/apis/{version}"));
        let (kinds, mut seen) = (Kinds::with_crds(&[]), 0);
        for path in ["/api/v1".to_owned()].into_iter().chain(paths) {
            let list = get(path).await?;
            let resources = list["resources"].as_array().cloned().unwrap_or_default();
            let parts: Vec<&str> = resources.iter().filter_map(|resource| resource["name"].as_str()).collect();
            let listed = |resource: &&Value| resource["verbs"].as_array().is_some_and(|verbs| verbs.contains(&json!("list")));
            for resource in resources.iter().filter(listed) {
                let text = |field: &str| resource[field].as_str().unwrap_or_default();
                let kind = Kind::from_api_version(list["groupVersion"].as_str().unwrap_or_default(), text("kind"));
                let served = kinds.of(&kind);
                let status = parts.contains(&&*format!("{}/status", text("name")));
                ensure!(served.known && served.plural == text("name"), "{kind} is called {}: {served:?}", text("name"));
                ensure!(resource["namespaced"] == served.namespaced, "{kind}: {served:?}");
                ensure!(served.status || !status, "{kind} has a status: {served:?}");
                seen += 1;
            }
        }
        ensure!(seen > 50, "only {seen} kinds were seen");
        Ok(())
    });
}

/// Whether a group's version is of its own; those of CRDs have other domains.
fn is_kubernetes(version: &str) -> bool {
    let group = version.split('/').next().unwrap_or_default();
    !group.contains('.') || group.ends_with(".k8s.io")
}
