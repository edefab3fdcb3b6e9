//! From `reef new` to a tested component, with the real cargo.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// Where these crates are compiled: kept, so that their dependencies are compiled once.
const TARGET: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/author");

fn run(program: &str, dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    // What cargo tells this test is not meant for the cargo that it runs.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_") && name != "CARGO_HOME") {
        command.env_remove(name);
    }
    command.args(args).current_dir(dir).env("CARGO_TARGET_DIR", TARGET).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn done(program: &str, dir: &Path, args: &[&str]) -> String {
    let output = run(program, dir, args);
    assert!(output.status.success(), "{program} {args:?}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const REEF: &str = env!("CARGO_BIN_EXE_reef");

/// A new plugin, with the versions of this repository so that nothing has to be fetched.
fn new(dir: &Path, name: &str, more: &[&str]) -> std::path::PathBuf {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let sdk = checkout.join("plugin-sdk");
    done(REEF, dir, &[&["new", name, "--sdk", sdk.to_str().unwrap()], more].concat());
    let plugin = dir.join(name);
    fs::copy(checkout.join("plugins/Cargo.lock"), plugin.join("Cargo.lock")).unwrap();
    plugin
}

/// Also in the middle of somebody's workspace, with a name that is not an identifier, and a kind with an odd plural.
#[test]
fn a_new_plugin_builds_passes_its_tests_and_has_nothing_that_clippy_or_rustfmt_would_change() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("Cargo.toml"), "[workspace]\n").unwrap();
    let plugin = new(dir.path(), "my-policy", &["--kind", "shop.example/v1beta1/Policy"]);
    let said = done(REEF, &plugin, &["test"]);
    assert!(said.contains("case first ... ok"), "{said}");
    done("cargo", &plugin, &["clippy", "--all-targets", "--", "-D", "warnings"]);
    done("cargo", &plugin, &["fmt", "--check"]);

    let built: serde_json::Value = serde_json::from_str(&done(REEF, &plugin, &["build", "-o", "json"])).unwrap();
    let path = built["path"].as_str().unwrap();
    assert!(path.ends_with("wasm32-wasip2/release/my_policy.wasm"), "{path}");
    assert_eq!((built["name"].as_str(), built["version"].as_str()), (Some("my-policy"), Some("0.1.0")));
    let size = built["size"].as_u64().unwrap();
    assert!((50_000..300_000).contains(&size), "{size} bytes");
    let rbac = done(REEF, &plugin, &["inspect", path, "--rbac"]);
    assert_eq!(rbac, fs::read_to_string(plugin.join("rbac.yaml")).unwrap(), "what was written is what is computed");
    assert!(rbac.contains("- policies\n"), "{rbac}");
}

#[test]
fn a_change_shows_as_a_difference_until_it_is_said_to_be_right() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = new(dir.path(), "shouter", &[]);
    let code = fs::read_to_string(plugin.join("src/lib.rs")).unwrap();
    let shouting = code.replace("let message = &object.spec.message;", "let message = object.spec.message.to_uppercase();");
    assert_ne!(code, shouting);
    fs::write(plugin.join("src/lib.rs"), shouting.replace("\"Moin\"", "\"MOIN\"")).unwrap();
    let output = run(REEF, &plugin, &["test"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("-        message: Moin\n") && said.contains("+        message: MOIN\n"), "{said}");
    assert!(done(REEF, &plugin, &["test", "--update"]).contains("case first ... updated"));
    assert!(done(REEF, &plugin, &["test"]).contains("case first ... ok"));

    fs::write(plugin.join("src/lib.rs"), shouting).unwrap();
    let output = run(REEF, &plugin, &["test"]);
    assert!(text(&output).contains("reef: the native tests failed"), "{}", text(&output));
}

#[test]
fn a_crate_that_makes_no_component_is_told_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let crate_ = |name: &str, manifest: &str| {
        let root = dir.path().join(name);
        fs::create_dir_all(root.join("src")).unwrap();
        fs::write(root.join("Cargo.toml"), manifest).unwrap();
        fs::write(root.join("src/lib.rs"), "").unwrap();
        root
    };
    let plain = crate_("plain", "[package]\nname = \"plain\"\nedition = \"2024\"\n[workspace]\n");
    let output = run(REEF, &plain, &["build"]);
    assert!(text(&output).contains("makes no component: add `crate-type = [\"cdylib\", \"rlib\"]`"), "{}", text(&output));
    let cdylib = "[package]\nname = \"empty\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"cdylib\"]\n[workspace]\n";
    let output = run(REEF, &crate_("empty", cdylib), &["build"]);
    assert!(text(&output).contains("a host would not load it: it exports no reconciler"), "{}", text(&output));
}
