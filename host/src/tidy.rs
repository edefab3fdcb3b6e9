//! The invariants of ARCHITECTURE.md that can be read off the sources: what a room must not know, and how a file opens.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Rooms, and words that must not stand in their code.
const NEVER: &[(&str, &[&str])] = &[
    ("names.rs", &["kube::", "k8s_openapi", "tokio", "crate::"]),
    ("config.rs", &["kube::", "k8s_openapi", "tokio", "wasmtime"]),
    ("contract", &["kube::", "k8s_openapi", "tokio", "wasmtime", "crate::watch", "crate::sandbox"]),
    ("queue", &["kube::", "k8s_openapi", "tokio", "Instant::now", "crate::watch", "crate::contract"]),
    (
        "trust",
        &["kube::", "k8s_openapi", "crate::sandbox", "crate::dispatch", "crate::catalog", "crate::identity", "crate::watch"],
    ),
    ("source", &["crate::sandbox", "crate::watch", "crate::catalog", "crate::dispatch"]),
    ("catalog", &["crate::sandbox", "crate::watch", "crate::dispatch"]),
    ("watch", &["crate::sandbox", "crate::capability", "crate::queue", "crate::catalog", "crate::dispatch"]),
    ("capability/grant.rs", &["kube::", "k8s_openapi", "tokio", "wasmtime", "crate::identity"]),
    ("rbac", &["kube::Client", "k8s_openapi", "tokio", "wasmtime", "crate::identity", "crate::dispatch", "crate::watch"]),
    ("sandbox", &["kube::", "crate::identity", "crate::watch", "crate::plan"]),
    ("plan/cover.rs", &["kube::", "tokio", "crate::identity"]),
    ("plan", &["crate::sandbox", "crate::capability", "crate::queue", "crate::dispatch"]),
    ("leader", &["crate::watch", "crate::plan", "crate::dispatch"]),
];

/// The longest file, tests aside.
const LONGEST: usize = 500;

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tidy.rs") {
            into.push(path);
        }
    }
}

/// Path below `src`, and the code before the tests, without comments.
fn code() -> Vec<(String, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        let text = fs::read_to_string(path).unwrap();
        let before_tests = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let code = before_tests.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        (name, text, code)
    };
    paths.iter().map(read).filter(|(name, ..)| !name.ends_with("tests.rs")).collect()
}

#[test]
fn no_room_knows_what_it_must_not() {
    let mut wrong = Vec::new();
    for (name, _, code) in code() {
        for (room, words) in NEVER {
            let inside = name == *room || name == format!("{room}.rs") || name.starts_with(&format!("{room}/"));
            wrong.extend(words.iter().filter(|word| inside && code.contains(*word)).map(|word| format!("{name} knows {word}")));
        }
        let may_know_wasm = ["sandbox", "capability"].iter().any(|room| name.starts_with(room));
        if !may_know_wasm && (code.contains("wasmtime::") || code.contains("wasmtime_wasi")) {
            wrong.push(format!("{name} knows wasmtime"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_and_none_is_a_hall() {
    for (name, text, code) in code() {
        assert!(text.starts_with("//!"), "{name} does not open with a //! line");
        let lines = code.lines().count();
        assert!(lines <= LONGEST, "{name} has {lines} lines: find the second room in it");
    }
}
