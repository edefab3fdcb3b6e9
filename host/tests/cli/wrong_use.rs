//! Wrong use of every command: a sentence with what, why and how to mend it, an exit code, and nothing left behind.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::{CASE, MANIFEST, guests::Guest, place, reef, write};

/// The command line as words, the exit code, and what the sentence says. 2: clap did not understand the command line.
const WRONG: &[(&str, i32, &[&str])] = &[
    ("", 2, &["Usage: reef <COMMAND>"]),
    ("frobnicate", 2, &["unrecognized subcommand 'frobnicate'"]),
    ("new", 2, &["<NAME>"]),
    ("new Bad_Name", 2, &["`Bad_Name` is not valid", "as in `my-plugin`"]),
    ("new fn", 2, &["a word of the Rust language", "`fn-plugin`"]),
    ("new a --kind Banner", 2, &["kind `Banner` is not valid", "group/version/Kind"]),
    ("new a --kind v1/Pod", 2, &["use a domain of yours"]),
    ("new empty", 1, &["empty is there already", "--path"]),
    ("new a --path no/such", 1, &["there is no directory no", "make it first"]),
    ("new a --sdk empty", 1, &["--sdk: empty is not the crate `plugin-sdk`", "`git`"]),
    ("build no/such", 1, &["no/such: cannot find the plugin's crate"]),
    ("build empty", 1, &["empty has no Cargo.toml", "reef new"]),
    ("build broken", 1, &["the component was not built", "cargo says above"]),
    ("build empty -o xml", 2, &["invalid value 'xml'", "json, yaml"]),
    ("test empty", 1, &["there are no cases in empty/testdata", "`request`"]),
    ("test broken", 1, &["there are no cases in broken/testdata"]),
    ("test cases none --component guest.wasm", 1, &["no case in cases/testdata has `none` in its name: there are a"]),
    ("test cases --component no.wasm", 1, &["cannot read the component no.wasm"]),
    ("test cases --component text", 1, &["text: a host would not load it: it is not WebAssembly"]),
    ("test cases --component bare.wasm", 1, &["bare.wasm: a host would not load it: it carries no manifest", "reef embed"]),
    ("test cases --component guest.wasm", 1, &["1 of 1 cases", "`reef test --update`"]),
    ("test typo --component guest.wasm", 1, &["typo/testdata/a.yaml is no case", "unknown field `requst`"]),
    ("test other --component guest.wasm", 1, &["other/testdata/a.yaml", "guest reconciles demo.reef.dev/v1/Hello"]),
    ("test golden --component guest.wasm", 1, &["golden/testdata/a.golden.yaml", "`reef test --update`"]),
    ("inspect", 2, &["<FILE>"]),
    ("inspect no.wasm", 1, &["cannot read the component no.wasm", "No such file"]),
    ("inspect empty", 1, &["empty is not a file"]),
    ("inspect text", 1, &["text: it is not WebAssembly: it begins with `just text`"]),
    ("inspect core.wasm", 1, &["it is a core module, not a component"]),
    ("inspect bare.wasm", 1, &["this host would not load it", "no manifest"]),
    ("inspect guest.wasm -n team-a", 2, &["--rbac"]),
    ("inspect guest.wasm --host-user reef-host", 2, &["--rbac"]),
    ("inspect guest.wasm --rbac -n Team_A", 2, &["`Team_A` is not valid"]),
    ("inspect guest.wasm --rbac --host-user a --host-namespace b", 2, &["cannot be used with"]),
    ("inspect bare.wasm --rbac", 1, &["a host would not load it", "no manifest"]),
    ("embed bare.wasm -o out.wasm", 2, &["--manifest"]),
    ("embed bare.wasm --manifest manifest.json", 2, &["--output"]),
    ("embed core.wasm --manifest manifest.json -o out.wasm", 1, &["core.wasm: it is a core module"]),
    ("embed text --manifest manifest.json -o out.wasm", 1, &["text: it is not WebAssembly"]),
    (
        "embed guest.wasm --manifest manifest.json -o out.wasm",
        1,
        &["it carries the manifest of guest 1.0.0 already", "--replace"],
    ),
    ("embed bare.wasm --manifest no.json -o out.wasm", 1, &["--manifest: cannot read no.json"]),
    ("embed bare.wasm --manifest text -o out.wasm", 1, &["--manifest: text: its manifest is not valid"]),
    ("embed bare.wasm --manifest schema.json -o out.wasm", 1, &["its manifest is not valid", "unknown field `type`"]),
    ("embed bare.wasm --manifest manifest.json --crd schema.json -o out.wasm", 1, &["--crd: schema.json holds something else"]),
    ("embed bare.wasm --manifest manifest.json --settings-schema text -o out.wasm", 1, &["--settings-schema: text is not JSON"]),
    ("embed bare.wasm --manifest manifest.json -o no/such/out.wasm", 1, &["--output: cannot write no/such/out.wasm"]),
    ("embed nothing.wasm --manifest manifest.json -o out.wasm", 1, &["it exports no reconciler"]),
    ("host --trust-policy no.yaml", 1, &["--trust-policy: trust policy no.yaml: it cannot be read", "No such file"]),
    ("host --trust-policy text", 1, &["--trust-policy: trust policy text: invalid type: string", "expected a trust policy"]),
    ("host --trust-policy manifest.json", 1, &["--trust-policy: trust policy manifest.json: unknown field `name`"]),
    ("push guest.wasm", 2, &["<REFERENCE>"]),
    ("push guest.wasm https://registry.example/a", 2, &["is not valid", "registry's host"]),
    ("push guest.wasm 127.0.0.1:1/Guest", 2, &["is not valid", "lower case"]),
    ("push no.wasm 127.0.0.1:1/guest", 1, &["cannot read the component no.wasm"]),
    ("push bare.wasm 127.0.0.1:1/guest", 1, &["bare.wasm: a host would not load it: it carries no manifest", "reef embed"]),
    (
        "push guest.wasm 127.0.0.1:1/guest@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        1,
        &["an artifact is pushed by tag", "leave out `@sha256:"],
    ),
    ("push guest.wasm 127.0.0.1:1/guest --username jane", 2, &["--password-stdin"]),
    ("push guest.wasm 127.0.0.1:1/guest --username jane --password-stdin", 1, &["--password-stdin: standard input is empty"]),
    ("push guest.wasm 127.0.0.1:1/guest --readme no.md", 1, &["--readme: cannot read no.md"]),
    ("push guest.wasm 127.0.0.1:1/guest --annotation x", 2, &["write KEY=VALUE"]),
    ("push guest.wasm 127.0.0.1:1/guest --ca-file no.pem", 1, &["--ca-file: cannot read no.pem"]),
    ("push guest.wasm 127.0.0.1:1/guest --ca-file text", 1, &["--ca-file: it holds no certificate"]),
    ("push guest.wasm 127.0.0.1:1/guest --plain-http", 1, &["127.0.0.1:1/guest: the registry 127.0.0.1:1 does not answer"]),
    ("pull 127.0.0.1:1/guest --plain-http", 1, &["guest.wasm is there already", "-o"]),
    ("pull 127.0.0.1:1/other --plain-http", 1, &["127.0.0.1:1/other: the registry 127.0.0.1:1 does not answer"]),
    ("install", 2, &["<FILE|REFERENCE>"]),
    ("install 127.0.0.1:1/Guest", 1, &["there is no file 127.0.0.1:1/Guest, and as a reference", "lower case"]),
    ("install 127.0.0.1:1/guest --plain-http", 1, &["127.0.0.1:1/guest: the registry 127.0.0.1:1 does not answer"]),
    ("install 127.0.0.1:1/guest --plugin-file a.wasm", 1, &["--plugin-file a.wasm: 127.0.0.1:1/guest", "leave it out"]),
    ("install guest.wasm --pull-secret a", 1, &["--pull-secret: guest.wasm comes from no registry"]),
    ("install no.wasm", 1, &["cannot read the component no.wasm"]),
    ("install text", 1, &["text: a host would not load it: it is not WebAssembly"]),
    ("install bare.wasm", 1, &["a host would not load it", "no manifest"]),
    ("install guest.wasm --name Bad_Name", 2, &["`Bad_Name` is not valid"]),
    ("install guest.wasm --host-account reef", 2, &["write NAMESPACE/NAME"]),
    ("install guest.wasm --host-account a/b --host-user c", 2, &["cannot be used with"]),
    ("install guest.wasm --timeout soon", 2, &["duration `soon` is not valid"]),
    ("install guest.wasm --settings no.yaml", 1, &["--settings: cannot read no.yaml"]),
    ("install guest.wasm --settings text", 1, &["--settings: text holds something else than one map"]),
    ("install guest.wasm --kubeconfig no.config", 1, &["--kubeconfig: no.config", "No such file"]),
    ("install guest.wasm --kubeconfig text", 1, &["--kubeconfig: text"]),
    ("install guest.wasm --kubeconfig nobody --context other", 1, &["--kubeconfig: nobody", "other"]),
    ("install guest.wasm --kubeconfig nobody", 1, &["http://127.0.0.1:1", "the API server does not answer"]),
    ("uninstall", 2, &["<NAME>"]),
    ("uninstall a --yes --dry-run", 2, &["cannot be used with"]),
    ("uninstall a --kubeconfig nobody", 1, &["the API server does not answer"]),
    ("list -A -n x", 2, &["cannot be used with"]),
    ("list -o xml", 2, &["invalid value 'xml'", "table, json, yaml"]),
    ("list --kubeconfig nobody", 1, &["the API server does not answer"]),
    ("status", 2, &["<NAME>"]),
    ("status A_B", 2, &["`A_B` is not valid"]),
    ("status a --kubeconfig nobody", 1, &["the API server does not answer"]),
    ("run no/such.wasm", 1, &["cannot read the component no/such.wasm"]),
    ("run empty", 1, &["empty has no Cargo.toml"]),
    ("run bare.wasm", 1, &["a host would not load it", "no manifest"]),
    ("run guest.wasm --as-me --service-account a", 2, &["cannot be used with"]),
    ("run guest.wasm --log a=b=c", 1, &["--log: `a=b=c` is not a filter"]),
    ("run guest.wasm --settings text", 1, &["--settings: text holds something else than one map"]),
    ("run guest.wasm --kubeconfig nobody", 1, &["the API server does not answer"]),
    ("completions", 2, &["<SHELL>"]),
    ("completions tcsh", 2, &["invalid value 'tcsh'"]),
    ("crds --wide", 2, &["unexpected argument '--wide'"]),
];

/// A cluster where nobody is at home.
const NOBODY: &str = "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{ name: a, cluster: { server: 'http://127.0.0.1:1' } }]\n\
                      contexts: [{ name: a, context: { cluster: a, user: a } }]\nusers: [{ name: a, user: {} }]\n";

fn fill(dir: &Path) {
    for (file, text) in [
        ("text", "just text"),
        ("broken/Cargo.toml", "[package"),
        ("cases/testdata/a.yaml", CASE),
        ("typo/testdata/a.yaml", "requst: {}"),
        ("other/testdata/a.yaml", "request: { object: { apiVersion: v1, kind: Pod, metadata: { name: a } } }"),
        ("golden/testdata/a.yaml", CASE),
        ("golden/testdata/a.golden.yaml", "plam: {}"),
        ("manifest.json", MANIFEST),
        ("nobody", NOBODY),
    ] {
        write(dir, file, text);
    }
    write(dir, "core.wasm", wat::parse_str("(module)").unwrap());
    write(dir, "nothing.wasm", wat::parse_str("(component)").unwrap());
    fs::create_dir(dir.join("empty")).unwrap();
}

/// Every file below, and what is in it.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
            all.insert(path, Vec::new());
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

#[test]
fn wrong_use_gets_a_sentence_and_leaves_nothing() {
    let dir = place();
    fill(dir.path());
    let before = contents(dir.path());
    for (line, code, parts) in WRONG {
        let args: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        let said = reef(dir.path(), &args);
        assert_eq!(said.code, Some(*code), "reef {line}: {}{}", said.out, said.err);
        for part in *parts {
            assert!(said.err.contains(part), "reef {line} should say `{part}`: {}", said.err);
        }
        for noise in ["panicked", "stack backtrace", "RUST_BACKTRACE"] {
            assert!(!said.err.contains(noise), "reef {line}: {}", said.err);
        }
        if *code == 1 {
            let sentences = said.err.lines().filter(|line| line.starts_with("reef: ")).count();
            assert_eq!(sentences, 1, "reef {line}: {}", said.err);
        }
        assert_eq!(contents(dir.path()), before, "reef {line} has left something behind");
    }
}

/// What a machine without the whole of a toolchain answers.
#[test]
fn a_missing_toolchain_is_named_with_the_command_that_installs_it() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "crate/Cargo.toml", "[package]\nname = \"a\"\n");
    fs::create_dir(dir.path().join("bin")).unwrap();
    let build = || {
        let output = Command::new(env!("CARGO_BIN_EXE_reef"))
            .args(["build", "crate"])
            .current_dir(dir.path())
            .env("PATH", dir.path().join("bin"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(build().contains("there is no `cargo` in PATH: install Rust, see https://rustup.rs"), "{}", build());
    let rustc = |script: &str| {
        let path = dir.path().join("bin/rustc");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    rustc("echo /no/such/lib");
    assert!(
        build().contains("wasm32-wasip2 is not installed for this Rust toolchain: run `rustup target add wasm32-wasip2`"),
        "{}",
        build()
    );
    rustc("echo 'error: could not find specification for target' >&2; exit 1");
    assert!(build().contains("(could not find specification for target): run `rustup update`"), "{}", build());
}

#[test]
fn a_guest_that_is_not_bare_is_not_given_a_manifest_by_mistake() {
    let dir = place();
    write(dir.path(), "guest.wasm", Guest::echo().build());
    let before = contents(dir.path());
    let said = reef(dir.path(), &["embed", "guest.wasm", "--manifest", "manifest.json", "-o", "guest.wasm"]);
    assert_eq!((said.code, contents(dir.path()) == before), (Some(1), true), "{}", said.err);
}
