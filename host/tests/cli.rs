//! The author's commands as a shell runs them, on components that do one thing each. Nothing here needs cargo or a cluster.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "sandbox/guests.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod guests;
#[path = "cli/wrong_use.rs"]
mod wrong_use;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use guests::Guest;
use serde::Deserialize as _;
use serde_json::{Value, json};
use tempfile::TempDir;

const MANIFEST: &str =
    r#"{"name":"bare","version":"0.2.0","reconciles":[{"for":"demo.reef.dev/v1/Hello","owns":["v1/ConfigMap"]}]}"#;
const CRD: &str = "kind: CustomResourceDefinition\nmetadata: { name: hellos.demo.reef.dev }\nspec: { group: demo.reef.dev, scope: Namespaced, \
                   names: { kind: Hello, plural: hellos }, versions: [{ name: v1, subresources: { status: {} } }] }\n";
const CASE: &str = "request: { object: { apiVersion: demo.reef.dev/v1, kind: Hello, metadata: { name: x, namespace: n }, spec: { text: Moin } } }\n";

/// What a command said and how it ended.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn reef(dir: &Path, args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reef"));
    // Nobody's credentials.
    command.args(args).current_dir(dir).stdin(Stdio::null()).env("DOCKER_CONFIG", dir);
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// It has to succeed, and without colours, since nothing here is a terminal.
fn done(dir: &Path, args: &[&str]) -> String {
    let said = reef(dir, args);
    assert_eq!(said.code, Some(0), "{args:?}: {}{}", said.out, said.err);
    assert!(!said.out.contains('\x1b'), "{:?}", said.out);
    said.out
}

fn failed(dir: &Path, args: &[&str], parts: &[&str]) -> Said {
    let said = reef(dir, args);
    assert_eq!(said.code, Some(1), "{args:?}: {}{}", said.out, said.err);
    for part in parts {
        assert!(said.err.contains(part), "{args:?} should say `{part}`: {}", said.err);
    }
    said
}

fn write(dir: &Path, file: &str, content: impl AsRef<[u8]>) {
    let path = dir.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A directory with a component, one that has no manifest, and what can be given to it.
fn place() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "guest.wasm", Guest::echo().build());
    write(dir.path(), "bare.wasm", Guest::echo().bare());
    write(dir.path(), "manifest.json", MANIFEST);
    write(dir.path(), "crd.yaml", CRD);
    write(dir.path(), "schema.json", r#"{"type":"object"}"#);
    dir
}

#[test]
fn a_component_is_described_in_words_and_for_programs() {
    let dir = place();
    let text = done(dir.path(), &["inspect", "guest.wasm"]);
    for part in ["guest 1.0.0", "sha256:", "yes: this host would load it", "demo.reef.dev/v1/Hello", "reads objects of the kinds"]
    {
        assert!(text.contains(part), "`{part}` is missing: {text}");
    }
    let told = json_of(&done(dir.path(), &["inspect", "guest.wasm", "-o", "json"]));
    assert_eq!((&told["loads"], &told["manifest"]["name"]), (&json!(true), &json!("guest")));
    assert_eq!(told["imports"][0]["name"], "reef:plugin/reads@0.1.0");
    assert_eq!(told["size"], fs::metadata(dir.path().join("guest.wasm")).unwrap().len());
    let yaml: Value = serde_norway::from_str(&done(dir.path(), &["inspect", "guest.wasm", "-o", "yaml"])).unwrap();
    assert_eq!(yaml, told);
}

#[test]
fn what_would_not_be_loaded_is_described_too_and_is_an_error() {
    let dir = place();
    let said =
        failed(dir.path(), &["inspect", "bare.wasm", "-o", "json"], &["bare.wasm: this host would not load it", "reef embed"]);
    let told = json_of(&said.out);
    assert_eq!((&told["loads"], &told["manifest"]), (&json!(false), &Value::Null));
    assert!(told["refusal"].as_str().unwrap().contains("no manifest"));
}

#[test]
fn a_manifest_that_was_embedded_is_the_components_from_then_on() {
    let dir = place();
    let given = ["--manifest", "manifest.json", "--crd", "crd.yaml", "--settings-schema", "schema.json"];
    let embed =
        |from: &'static str, more: &[&'static str]| [&["embed", from][..], &given[..], &["-o", "out.wasm"][..], more].concat();
    let told = json_of(&done(dir.path(), &embed("bare.wasm", &["--format", "json"])));
    assert_eq!((&told["name"], &told["version"], &told["path"]), (&json!("bare"), &json!("0.2.0"), &json!("out.wasm")));
    let inspected = json_of(&done(dir.path(), &["inspect", "out.wasm", "-o", "json"]));
    assert_eq!(inspected["digest"], told["digest"]);
    assert_eq!(inspected["crds"][0]["metadata"]["name"], "hellos.demo.reef.dev");
    assert_eq!(inspected["settingsSchema"], json!({"type": "object"}));

    failed(dir.path(), &embed("out.wasm", &[]), &["out.wasm: it carries the manifest of bare 0.2.0 already", "--replace"]);
    write(dir.path(), "manifest.json", MANIFEST.replace("0.2.0", "0.3.0"));
    done(dir.path(), &embed("out.wasm", &["--replace"]));
    let inspected = json_of(&done(dir.path(), &["inspect", "out.wasm", "-o", "json"]));
    assert_eq!((&inspected["manifest"]["version"], inspected["crds"].as_array().unwrap().len()), (&json!("0.3.0"), 1));
    assert_eq!(fs::metadata(dir.path().join("out.wasm")).unwrap().len(), inspected["size"]);

    write(dir.path(), "testdata/x.yaml", CASE);
    done(dir.path(), &["test", "--component", "out.wasm", "--update"]);
}

#[test]
fn what_the_account_needs_is_printed_ready_to_be_applied() {
    let dir = place();
    let out = "bare.wasm --manifest manifest.json --crd crd.yaml -o out.wasm";
    done(dir.path(), &["embed"].into_iter().chain(out.split(' ')).collect::<Vec<_>>());
    let yaml = done(dir.path(), &["inspect", "out.wasm", "--rbac"]);
    assert!(yaml.contains("\n---\n") && yaml.starts_with("# Who bare is"), "{yaml}");
    let list =
        json_of(&done(dir.path(), &["inspect", "out.wasm", "--rbac", "-n", "team-a", "--service-account", "me", "-o", "json"]));
    let items = list["items"].as_array().unwrap();
    assert_eq!(items[0]["metadata"], json!({"name": "me", "namespace": "team-a"}));
    assert_eq!(
        items[1]["rules"][1],
        json!({"apiGroups": ["demo.reef.dev"], "resources": ["hellos/status"], "verbs": ["get", "patch"]})
    );
    assert_eq!(items[4]["subjects"], json!([{"kind": "ServiceAccount", "name": "reef", "namespace": "reef-system"}]));
    let user = json_of(&done(dir.path(), &["inspect", "out.wasm", "--rbac", "--host-user", "reef-host", "-o", "json"]));
    assert_eq!(user["items"][4]["subjects"][0]["name"], "reef-host");
}

#[test]
fn a_case_without_a_golden_file_fails_until_it_is_written_and_then_only_a_difference_does() {
    let dir = place();
    let (test, golden) = (["test", "--component", "guest.wasm"], dir.path().join("testdata/x.golden.yaml"));
    write(dir.path(), "testdata/x.yaml", CASE);
    let said = failed(dir.path(), &test, &["1 of 1 cases are not as their golden files say", "`reef test --update`"]);
    assert!(said.out.contains("there is no ./testdata/x.golden.yaml: `reef test --update` writes it"), "{}", said.out);
    assert!(!golden.exists());

    assert!(done(dir.path(), &[&test[..], &["--update"]].concat()).contains("case x ... updated"));
    let text = fs::read_to_string(&golden).unwrap();
    assert!(text.contains("    spec:\n      text: Moin\n") && text.contains("  pending: "), "{text}");
    assert!(done(dir.path(), &test).contains("case x ... ok"));
    done(dir.path(), &[&test[..], &["--update"]].concat());
    assert_eq!(fs::read_to_string(&golden).unwrap(), text);

    fs::write(&golden, format!("# a comment\n{}", text.replace("Moin", "Hello"))).unwrap();
    let said = failed(dir.path(), &test, &["1 of 1 cases"]);
    assert!(said.out.contains("-      text: Hello\n") && said.out.contains("+      text: Moin\n"), "{}", said.out);
    assert!(!said.out.contains("a comment"), "{}", said.out);
    fs::write(&golden, format!("# a comment\n{text}")).unwrap();
    done(dir.path(), &test);
}

#[test]
fn reads_are_answered_from_the_case_and_stand_in_the_golden_file() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "guest.wasm", Guest::read("v1", "ConfigMap", "n", "a").build());
    write(dir.path(), "testdata/absent.yaml", CASE);
    let object = "{ apiVersion: v1, kind: ConfigMap, metadata: { name: a }, data: { sign: '#' } }";
    write(dir.path(), "testdata/there.yaml", format!("{CASE}objects: [{object}]\n"));
    done(dir.path(), &["test", "--component", "guest.wasm", "--update"]);
    let golden = |name: &str| fs::read_to_string(dir.path().join(format!("testdata/{name}.golden.yaml"))).unwrap();
    assert!(
        golden("there").contains("sign: '#'") && golden("there").contains("reads:\n- v1/ConfigMap n/a\n"),
        "{}",
        golden("there")
    );
    assert!(!golden("absent").contains("sign") && golden("absent").contains("- v1/ConfigMap n/a\n"), "{}", golden("absent"));
    let said = done(dir.path(), &["test", ".", "sen", "--component", "guest.wasm"]);
    assert!(said.contains("case absent ... ok") && !said.contains("there"), "the filter: {said}");
}

/// A guest under the host's limits, and one that a host would not believe.
#[test]
fn a_component_that_is_stopped_or_plans_nonsense_fails_and_no_golden_file_says_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "testdata/x.yaml", CASE);
    for (guest, part) in [
        (Guest::endless_loop(), "CPULimitExceeded: it ran longer than spec.limits.cpu = 500ms"),
        (Guest::panic("the vault is empty"), "Panicked: the vault is empty"),
        (Guest::read("v1", "Secret", "n", "a"), "its plan is invalid: the status is not JSON"),
    ] {
        write(dir.path(), "guest.wasm", guest.build());
        let said = failed(dir.path(), &["test", "--component", "guest.wasm", "--update"], &["1 of 1 cases failed"]);
        assert!(said.out.contains("case x ... failed") && said.out.contains(part), "{}", said.out);
        assert!(!dir.path().join("testdata/x.golden.yaml").exists());
    }
    write(dir.path(), "guest.wasm", Guest::panic("the vault is empty").build());
    failed(dir.path(), &["test", "--component", "guest.wasm", "--logs"], &["ERROR the vault is empty"]);
}

#[test]
fn a_shell_takes_the_completions_and_whoever_stops_reading_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        write(dir.path(), shell, done(dir.path(), &["completions", shell]));
    }
    let taken = Command::new("bash").args(["-c", "source ./bash && complete -p reef"]).current_dir(dir.path()).output().unwrap();
    assert!(taken.status.success() && String::from_utf8_lossy(&taken.stdout).contains("_reef"), "{taken:?}");
    let mut child = Command::new(env!("CARGO_BIN_EXE_reef"))
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn every_command_explains_itself() {
    let dir = tempfile::tempdir().unwrap();
    let all = done(dir.path(), &["--help"]);
    for command in ["new", "build", "test", "inspect", "embed", "host", "crds", "completions"] {
        assert!(all.contains(&format!("\n  {command} ")), "{command}: {all}");
        assert!(done(dir.path(), &[command, "--help"]).contains("Usage: reef "), "{command}");
    }
}

/// A component that `make components` has built.
fn built(name: &str) -> String {
    let target = Path::new(env!("CARGO_BIN_EXE_reef")).parent().and_then(Path::parent).unwrap();
    target.join(format!("components/wasm32-wasip2/release/{}.wasm", name.replace('-', "_"))).to_str().unwrap().to_owned()
}

fn plugins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins")
}

#[test]
fn the_examples_answer_as_their_golden_files_say() {
    for name in ["hello", "website"] {
        let said = done(&plugins().join(name), &["test", "--component", &built(name)]);
        assert!(said.contains("... ok"), "{said}");
    }
}

/// `verb group/resource` of the Role with this name.
fn allowed(objects: &[Value], name: &str) -> BTreeSet<String> {
    let role = objects.iter().find(|object| object["kind"] == "Role" && object["metadata"]["name"] == name).unwrap();
    let words = |rule: &Value, field: &str| -> Vec<String> { serde_json::from_value(rule[field].clone()).unwrap() };
    let mut all = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for resource in words(rule, "resources") {
            all.extend(words(rule, "verbs").iter().map(|verb| format!("{verb} {}/{resource}", words(rule, "apiGroups")[0])));
        }
    }
    all
}

/// A manifest does not say with which verbs a plugin writes; the author of `database` knows, and nothing else is different.
#[test]
fn computed_rights_are_those_that_people_wrote_for_the_examples() {
    for (name, wider) in [
        ("hello", &[][..]),
        ("website", &[]),
        ("config-history", &[]),
        ("database", &["create /persistentvolumeclaims", "delete /persistentvolumeclaims", "patch batch/jobs"]),
    ] {
        let list = json_of(&done(&plugins(), &["inspect", &built(name), "--rbac", "-o", "json"]));
        let computed = allowed(list["items"].as_array().unwrap(), name);
        let text = fs::read_to_string(plugins().join(name).join("rbac.yaml")).unwrap();
        let documents = serde_norway::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap());
        let written = allowed(&documents.collect::<Vec<_>>(), name);
        assert_eq!(written.difference(&computed).collect::<Vec<_>>(), Vec::<&String>::new(), "{name}: too little is computed");
        assert_eq!(computed.difference(&written).collect::<Vec<_>>(), wider, "{name}: too much is computed");
    }
}
