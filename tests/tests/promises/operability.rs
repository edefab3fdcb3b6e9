//! Operability: what an admin sees with kubectl alone, and the sentence for each wrong input.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use reef_tests::{
    cluster::condition,
    host::message,
    paths,
    world::{Scene, scene},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    hello,
    probe::{self, PLUGIN},
};

/// What kubectl prints for the admin.
fn kubectl(scene: &Scene<'_>, args: &[&str]) -> Result<String> {
    let output = Command::new(&scene.world.tools.kubectl.path)
        .args(["--kubeconfig", &scene.world.plane.admin_kubeconfig().display().to_string(), "-n", &scene.namespace])
        .args(args)
        .env("HOME", scene.dir())
        .output()?;
    ensure!(output.status.success(), "kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The words of the line that begins with this one.
fn row<'a>(table: &'a str, first: &str) -> Result<Vec<&'a str>> {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.into_iter().find(|row| row.first() == Some(&first)).with_context(|| format!("no line of {first}:\n{table}"))
}

/// Promises: O1
/// Breaks it: a column or a condition that is missing, or that says something else than what is.
#[test]
fn with_kubectl_alone_an_admin_sees_how_each_plugin_is_and_what_fails_and_why() {
    scene("with-kubectl", async |scene: &Scene<'_>| {
        scene.host().await?;
        hello::install(scene).await?;
        probe::install(scene).await?;
        hello::plugin(scene, "nothing", json!({ "source": { "file": "nothing.wasm" } })).await?;
        for name in ["hello", "probe"] {
            kubectl(scene, &["wait", "--for=condition=Ready", &format!("plugin/{name}"), "--timeout=60s"])?;
        }
        kubectl(scene, &["wait", "--for=condition=Resolved=false", "plugin/nothing", "--timeout=60s"])?;
        let plugin = scene.cluster().get(PLUGIN, &scene.namespace, "hello").await?.context("the Plugin is gone")?;
        let revision = plugin["status"]["revision"].as_str().context("the Plugin has no revision")?;
        let digest = sha256(&hello::component("hello")?);
        ensure!(plugin["status"]["digest"] == format!("sha256:{digest}"), "{digest}: {}", plugin["status"]);
        ensure!(digest.starts_with(revision.trim_start_matches("sha256:")) && revision.len() >= 12, "{digest}: {revision}");

        let table = kubectl(scene, &["get", "plugins"])?;
        ensure!(row(&table, "NAME")? == ["NAME", "READY", "REASON", "KINDS", "DIGEST", "AGE"], "{table}");
        let hello = row(&table, "hello")?;
        ensure!(hello.get(..5) == Some(&["hello", "True", "Ready", r#"["demo.reef.dev/v1/Hello"]"#, revision]), "{table}");
        ensure!(row(&table, "nothing")?.get(..3) == Some(&["nothing", "False", "SourceFailed"]), "{table}");

        let conditions = kubectl(scene, &["get", "plugin", "hello", "-o", "jsonpath={.status.conditions[*].type}"])?;
        ensure!(conditions == "Resolved Verified Compiled Authorized Ready", "{conditions}");
        let statuses = kubectl(scene, &["get", "plugin", "hello", "-o", "jsonpath={.status.conditions[*].status}"])?;
        ensure!(statuses == "True True True True True", "{statuses}");

        probe::set(scene, "sound", json!({})).await?;
        probe::reconciled(scene, "sound").await?;
        probe::set(scene, "broken", json!({ "mode": "terminal", "text": "the disk is full" })).await?;
        kubectl(scene, &["wait", "--for=jsonpath={.status.failing.count}=1", "plugin/probe", "--timeout=60s"])?;
        let failing = kubectl(scene, &["get", "plugin", "probe", "-o", "jsonpath={.status.failing}"])?;
        let failing: Value = serde_json::from_str(&failing)?;
        let named = &failing["objects"][0];
        ensure!(named["kind"] == probe::PROBE && named["name"] == "broken" && named["reason"] == "AskedToEnd", "{failing}");
        ensure!(named["message"].as_str().is_some_and(|message| message.contains("the disk is full")), "{failing}");
        let probes = kubectl(scene, &["get", "probes"])?;
        ensure!(row(&probes, "broken")?.get(1..3) == Some(&["terminal", "AskedToEnd"]), "{probes}");
        Ok(())
    });
}

/// A line of the log of a reconcile; a name that comes twice does not parse.
#[derive(Deserialize)]
struct Line {
    level: String,
    message: String,
    error: String,
    span: Span,
}

#[derive(Deserialize)]
struct Span {
    name: String,
    plugin: String,
    kind: String,
    namespace: String,
    object: String,
    reconcile_id: String,
}

/// Promises: O1
/// Breaks it: a line that is not JSON, has a name twice, or does not say whose object failed and why.
#[test]
fn the_log_says_in_json_what_failed_of_whom_and_why() {
    scene("log", async |scene: &Scene<'_>| {
        probe::install(scene).await?;
        let host = scene.host().await?;
        probe::set(scene, "broken", json!({ "mode": "terminal", "text": "the disk is full" })).await?;
        host.wait_for_log("has failed", |line| message(line) == "reconcile failed").await?;
        let log = std::fs::read_to_string(host.log_path())?;
        let line = log.lines().find(|line| line.contains("reconcile failed")).context("no such line")?;
        let line: Line = serde_json::from_str(line).with_context(|| line.to_owned())?;
        ensure!((line.level.as_str(), line.message.as_str()) == ("WARN", "reconcile failed"), "{log}");
        ensure!(line.error.contains("the disk is full"), "{log}");
        let Span { name, plugin, kind, namespace, object, reconcile_id } = line.span;
        ensure!(name == "reconcile" && plugin == format!("{}/probe", scene.namespace) && kind == probe::PROBE, "{log}");
        ensure!(namespace == scene.namespace && object == "broken" && reconcile_id.len() == 16, "{log}");
        Ok(())
    });
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(bytes))
}

/// A Plugin that cannot run, the condition that says so, and what its sentence has: what, value, fix.
struct Wrong {
    name: &'static str,
    /// What lies in the plugin directory under its name.
    bytes: Vec<u8>,
    /// Beside `source.file`, laid over what would be right.
    spec: Value,
    says: (&'static str, &'static str),
    parts: Vec<String>,
}

fn wrong(name: &'static str, bytes: Vec<u8>, spec: Value, says: (&'static str, &'static str), parts: &[&str]) -> Wrong {
    Wrong { name, bytes, spec, says, parts: parts.iter().map(|part| (*part).to_owned()).collect() }
}

fn wrong_plugins(namespace: &str) -> Result<Vec<Wrong>> {
    let probe = || hello::component("probe");
    let zeros = format!("sha256:{}", "0".repeat(64));
    let digest = format!("sha256:{}", sha256(&probe()?));
    let (refused, resolved) = (("Compiled", "Refused"), "Resolved");
    Ok(vec![
        wrong(
            "a-page",
            b"<!DOCTYPE html><title>Log in</title>".to_vec(),
            json!({}),
            refused,
            &[
                "a-page.wasm",
                "it is not WebAssembly",
                "`<!DOCTYPE html>",
                "an HTML page: was it downloaded from a login or error page?",
            ],
        ),
        wrong(
            "a-module",
            b"\0asm\x01\0\0\0".to_vec(),
            json!({}),
            refused,
            &["a-module.wasm", "it is a core module, not a component", "build it with --target wasm32-wasip2"],
        ),
        wrong(
            "another-world",
            hello::component("wrong-world")?,
            json!({}),
            refused,
            &[
                "another-world.wasm",
                "it exports no reconciler",
                "this host calls reef:plugin/reconciler@0.1.0",
                "add the `plugin!` line",
            ],
        ),
        wrong(
            "another-version",
            hello::component("wrong-version")?,
            json!({}),
            refused,
            &[
                "another-version.wasm",
                "@0.2.0",
                "this host offers reef:plugin@0.1.0",
                "build it with the SDK of this host's version",
            ],
        ),
        wrong(
            "no-manifest",
            hello::component("no-manifest")?,
            json!({}),
            refused,
            &["no-manifest.wasm", "it carries no manifest", "add the `plugin!` line of the SDK"],
        ),
        wrong(
            "two-sources",
            probe()?,
            json!({ "source": { "image": "registry.example/probe:1" } }),
            (resolved, "InvalidSource"),
            &["spec.source names several sources", "`file` and `image`", "keep exactly one"],
        ),
        wrong(
            "other-bytes",
            probe()?,
            json!({ "digest": zeros }),
            (resolved, "DigestMismatch"),
            &[&zeros, &digest, "spec.digest pins", "correct the digest, or put the pinned component there"],
        ),
        wrong(
            "not-lent",
            probe()?,
            json!({ "serviceAccountName": "stranger" }),
            ("Authorized", "NotLent"),
            &[&format!("ServiceAccount {namespace}/stranger is not lent to the host"), "kubectl create role reef-lend-stranger"],
        ),
        wrong(
            "narrow",
            probe()?,
            json!({ "serviceAccountName": "narrow" }),
            ("Authorized", "MissingRights"),
            &[
                &format!("ServiceAccount {namespace}/narrow may not do all that the plugin does in namespace {namespace}"),
                r#"add to its Role the rules {apiGroups: [""], resources: ["configmaps"], verbs: ["patch"]}"#,
            ],
        ),
    ])
}

/// Two accounts beside `probe`: one that nobody lent, and one that may do all but patch ConfigMaps.
async fn accounts(scene: &Scene<'_>) -> Result<()> {
    scene.apply("{ apiVersion: v1, kind: ServiceAccount, metadata: { name: stranger } }").await?;
    let narrow = std::fs::read_to_string(paths::checkout().join("tests/guests/probe-rbac.yaml"))?;
    let narrow = narrow
        .replace("name: probe", "name: narrow")
        .replace("[probe]", "[narrow]")
        .replace("reef-lend-probe", "reef-lend-narrow");
    let rule = "resources: [configmaps]\n    verbs: [get, list, watch, create, patch, delete]";
    ensure!(narrow.contains(rule), "the Role of the probe has changed:\n{narrow}");
    scene.apply(&narrow.replace(rule, "resources: [configmaps]\n    verbs: [get, list, watch, create, delete]")).await
}

/// Each wrong Plugin gets its sentence, `hello` is reconciled meanwhile, and the Plugin runs once it is put right.
///
/// Promises: O1
/// Breaks it: a wrong input that stops others, that says nothing, or whose sentence has no value or no fix.
#[test]
fn a_plugin_that_cannot_run_says_what_is_wrong_and_others_go_on() {
    scene("wrong-plugins", async |scene: &Scene<'_>| {
        let host =
            scene.host_with(&reef_tests::host::Options { flags: vec!["--recheck-period=1s".into()], ..scene.options() }).await?;
        hello::install(scene).await?;
        probe::install(scene).await?;
        probe::ready(scene, "probe").await?;
        scene.cluster().delete(PLUGIN, &scene.namespace, "probe").await?;
        accounts(scene).await?;
        for case in wrong_plugins(&scene.namespace)? {
            let file = format!("{}.wasm", case.name);
            scene.place(&file, &case.bytes)?;
            let right = json!({ "source": { "file": file }, "serviceAccountName": "probe" });
            let mut spec = right.clone();
            lay_over(&mut spec, &case.spec);
            hello::plugin(scene, case.name, spec).await?;
            let (kind, reason) = case.says;
            let message = hello::plugin_says(scene, case.name, (kind, "False", reason)).await?;
            hello::has(&message, &case.parts.iter().map(String::as_str).collect::<Vec<_>>())?;
            let plugin = scene.cluster().get(PLUGIN, &scene.namespace, case.name).await?;
            ensure!(
                condition(plugin.as_ref(), "Ready").is_some_and(|ready| ready["status"] == "False"),
                "{}: it is ready",
                case.name
            );
            hello::says(scene, case.name).await?;

            scene.place(&file, &hello::component("probe")?)?;
            scene.cluster().delete(PLUGIN, &scene.namespace, case.name).await?;
            hello::plugin(scene, case.name, right).await?;
            hello::plugin_says(scene, case.name, ("Ready", "True", "Ready")).await?;
            scene.cluster().delete(PLUGIN, &scene.namespace, case.name).await?;
        }
        ensure!(host.exit().is_none(), "the host has ended");
        Ok(())
    });
}

fn lay_over(spec: &mut Value, other: &Value) {
    match (spec, other) {
        (Value::Object(spec), Value::Object(other)) => {
            for (key, value) in other {
                lay_over(spec.entry(key).or_insert(Value::Null), value);
            }
        }
        (spec, other) => *spec = other.clone(),
    }
}

/// Promises: O1, W1
/// Breaks it: part of such a plan applied, or a sentence without object, field or fix.
#[test]
fn a_plan_that_may_not_be_carried_out_says_what_is_wrong_and_others_go_on() {
    scene("wrong-plans", async |scene: &Scene<'_>| {
        scene.host().await?;
        hello::install(scene).await?;
        probe::install(scene).await?;
        let own = format!("leave it out or write `{}`", scene.namespace);
        let cases: [(&str, Value, &[&str]); 5] = [
            ("unnamed", json!({}), &["write 1", "its object has no metadata.name: add it"]),
            (
                "unlisted-kind",
                json!({}),
                &["v1/Service", "its manifest does not own v1/Service", r#"add `owns: ["v1/Service"]` to its `plugin!` line"#],
            ),
            (
                "other-namespace",
                json!({ "namespace": "default" }),
                &["v1/ConfigMap `stray`", "metadata.namespace is `default`", &own],
            ),
            ("owner-references", json!({}), &["v1/ConfigMap `claimed`", "metadata.ownerReferences is set", "leave it out"]),
            (
                "twice",
                json!({}),
                &["write 2 (v1/ConfigMap `twin`)", "the plan has this object twice", "merge the two writes or rename one"],
            ),
        ];
        for (mode, mut spec, parts) in cases {
            spec["mode"] = mode.into();
            spec["children"] = json!([mode]);
            refused(scene, mode, spec, parts).await?;
        }
        let stray = scene.cluster().get(probe::CONFIG, "default", "stray").await?;
        ensure!(stray.is_none(), "it has written into another namespace");
        Ok(())
    });
}

/// Promises: O1, W1
/// Breaks it: text from a guest that is believed, or that takes the host down.
#[test]
fn an_answer_that_is_no_json_or_no_known_word_says_what_is_wrong_and_others_go_on() {
    scene("wrong-answers", async |scene: &Scene<'_>| {
        scene.host().await?;
        hello::install(scene).await?;
        probe::install_as(scene, "raw-json").await?;
        let cases: [(&str, &[&str]); 6] = [
            ("object", &["write 1: its object is not JSON", "line 1 column 3"]),
            ("list", &["write 1: its object is an array and must be a JSON object"]),
            ("options", &["options is not JSON"]),
            ("option", &["option `colour` is unknown: verb `own` has keep"]),
            ("verb", &["verb `bless` is unknown: use one of own"]),
            ("status", &["the status is an array and must be a JSON object"]),
        ];
        for (mode, parts) in cases {
            refused(scene, mode, json!({ "mode": mode }), parts).await?;
        }
        Ok(())
    });
}

/// The plan for this Probe is refused with a sentence, on the object and on its plugin; nothing of it is applied.
async fn refused(scene: &Scene<'_>, name: &str, spec: Value, parts: &[&str]) -> Result<()> {
    probe::set(scene, name, spec).await?;
    let said = probe::sentence(&probe::says(scene, name, "False", "InvalidPlan").await?);
    hello::has(&said, parts)?;
    hello::says(scene, name).await?;
    ensure!(
        scene.cluster().get(probe::CONFIG, &scene.namespace, name).await?.is_none(),
        "{name}: a part of the plan was applied"
    );
    Ok(())
}

/// Promises: O5
/// Breaks it: a host that runs with something else than what was asked for, or a message in which one has to search.
#[test]
fn a_host_that_cannot_start_says_why_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).display().to_string()
    };
    let typo = file("typo.yaml", "clas-name: a\n");
    let nested = file("nested.yaml", "class-name: { a: b }\n");
    let soon = file("soon.yaml", "lease-duration: soon\n");
    let garbage = file("garbage.kubeconfig", "{ this is no kubeconfig");
    let missing = dir.path().join("missing").display().to_string();
    let cases: [(&[&str], i32, &[&str]); 9] = [
        (&["--plugin-dri", "/plugins"], 2, &["error: unexpected argument '--plugin-dri'", "'--plugin-dir'"]),
        (&["--max-in-flight", "0"], 2, &["invalid value '0' for '--max-in-flight <N>'", "1..=1024"]),
        (&["--admin-address", "here"], 2, &["invalid value 'here' for '--admin-address <ADDRESS>'"]),
        (&["--lease-duration", "5s"], 1, &["lease-duration (5s) must be longer than lease-renew-deadline (10s)"]),
        (&["--config", &typo], 1, &[&typo, "unknown key `clas-name`", "see `reef host --help`"]),
        (&["--config", &nested], 1, &[&nested, "`class-name` is not a text, number or boolean"]),
        (&["--config", &soon], 1, &["--lease-duration", "soon"]),
        (&["--kubeconfig", &missing], 1, &["--kubeconfig", &missing, "No such file"]),
        (&["--kubeconfig", &garbage], 1, &["--kubeconfig", &garbage, "line 1"]),
    ];
    for (args, code, parts) in cases {
        let (found, said) = start(dir.path(), args);
        assert_eq!(found, Some(code), "reef host {args:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "reef host {args:?}: {said}\nshould say {part}");
        }
        assert!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{said}");
    }
}

/// Code and complaint of a host that does not start: its last line, or for wrong flags all of clap's message.
fn start(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let cache = dir.join("cache").display().to_string();
    let output = Command::new(paths::binary("reef").unwrap())
        .args(["host", "--cache-dir", &cache])
        .args(args)
        .env_remove("KUBECONFIG")
        .env("HOME", dir)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let own: Vec<&str> = text.lines().filter(|line| line.starts_with("reef: ")).collect();
    assert!(own.len() <= 1, "{text}");
    let complaint = own.first().map_or_else(|| text.clone(), |line| (*line).to_owned());
    assert!(own.is_empty() || text.ends_with(&format!("{complaint}\n")), "more than one sentence: {text}");
    (output.status.code(), complaint)
}
