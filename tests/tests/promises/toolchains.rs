//! Components of other toolchains: `examples/hello-js` is built and given its manifest as its README says, and does what the
//! Rust `hello` does.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use reef_tests::{
    host::Host,
    paths, scripted,
    world::{Scene, scene},
};
use serde_json::{Value, json};

use crate::{
    hello::{self, HELLO, object_says},
    probe::{self, CONFIG, PLUGIN},
};

const EXAMPLE: &str = "examples/hello-js";
/// What decides about the component, beside the contract in `wit/`.
const SOURCES: [&str; 3] = ["hello.js", "package.json", "package-lock.json"];
const NAMES: [&str; 3] = ["greeting", "moin", "ahoi"];

/// `reef test` asks it what it asks the Rust one. On the API server it creates, follows an edit and repairs; then the Rust one
/// takes its place and finds nothing to write, since their plans are the same.
///
/// Promises: S1, L8
/// Breaks it: a contract, or limits, that only components of the SDK fit into; a limit that such a guest reaches without a word.
#[test]
fn a_component_made_of_javascript_does_what_the_rust_one_does() {
    scene("javascript", async |scene: &Scene<'_>| {
        let Some(built) = built()? else { return Ok(()) };
        let component = embedded(&built, scene.dir())?;
        let cases = paths::checkout().join("plugins/hello");
        succeeds(Command::new(paths::binary("reef")?).arg("test").arg(cases).arg("--component").arg(&component))?;
        let host = scene.host().await?;
        hello::install_account(scene, |_| true).await?;
        scene.place("hello.wasm", &fs::read(&component)?)?;
        limited_to(scene, "1Mi").await?;
        hello::set(scene, "one").await?;
        let stopped = object_says(scene, HELLO, "greeting", ("Reconciled", "False", "MemoryLimitExceeded")).await?;
        hello::has(&hello::sentence(&stopped, "Reconciled"), &["spec.limits.memory = 1Mi", "raise spec.limits.memory"])?;
        limited_to(scene, &stated_memory()?).await?;
        for text in ["one", "two"] {
            all_say(scene, text).await?;
        }
        comes_back(scene).await?;
        replaced_without_a_write(scene, &host).await
    });
}

/// What the example's own Plugin has as `spec.limits.memory`.
fn stated_memory() -> Result<String> {
    let text = fs::read_to_string(paths::checkout().join(EXAMPLE).join("plugin.yaml"))?;
    let plugin: Value = serde_norway::from_str(&text)?;
    Ok(plugin["spec"]["limits"]["memory"].as_str().context("plugin.yaml states no memory")?.to_owned())
}

async fn limited_to(scene: &Scene<'_>, memory: &str) -> Result<()> {
    let limits = json!({ "memory": memory });
    let spec = json!({ "source": { "file": "hello.wasm" }, "serviceAccountName": "hello", "limits": limits });
    hello::plugin(scene, "hello", spec).await
}

/// Has all objects say this, and waits until their children and their conditions do.
async fn all_say(scene: &Scene<'_>, text: &str) -> Result<()> {
    for name in NAMES {
        let object = json!({
            "apiVersion": "demo.reef.dev/v1", "kind": "Hello", "metadata": { "name": name }, "spec": { "text": text },
        });
        scene.cluster().apply_object(&scene.namespace, &object).await?;
    }
    for name in NAMES {
        probe::config_says(scene, name, "text", text).await?;
        object_says(scene, HELLO, name, ("Reconciled", "True", "Reconciled")).await?;
        let object = object_says(scene, HELLO, name, ("Ready", "True", "Written")).await?;
        ensure!(object["status"]["text"] == text, "{object:#}");
    }
    Ok(())
}

/// A child that somebody deletes by hand is made again.
async fn comes_back(scene: &Scene<'_>) -> Result<()> {
    let (cluster, namespace) = (scene.cluster(), &*scene.namespace);
    let before = probe::config_says(scene, "greeting", "text", "two").await?;
    cluster.delete(CONFIG, namespace, "greeting").await?;
    let back = |config: Option<&Value>| {
        config.is_some_and(|config| config["metadata"]["uid"] != before["metadata"]["uid"] && config["data"]["text"] == "two")
    };
    let config = cluster.wait(CONFIG, namespace, "greeting", "is back", back).await?;
    let owner = &config["metadata"]["ownerReferences"][0];
    ensure!(owner["kind"] == "Hello" && owner["name"] == "greeting", "{config:#}");
    Ok(())
}

/// The Rust one reconciles every object again, and neither children nor statuses are written.
async fn replaced_without_a_write(scene: &Scene<'_>, host: &Host) -> Result<()> {
    hello::settled(scene, host, "hello").await?;
    let before = probe::reconciles(scene, host, "hello", None).await?;
    let mark = scene.world.audit.mark(scene.cluster()).await?;
    let rust = hello::component("hello")?;
    scene.place("hello.wasm", &rust)?;
    let digest = scripted::digest(&rust);
    let runs = |plugin: Option<&Value>| plugin.is_some_and(|plugin| plugin["status"]["digest"] == *digest);
    scene.cluster().wait(PLUGIN, &scene.namespace, "hello", "runs the Rust one", runs).await?;
    probe::reconciles_reach(scene, host, "hello", None, before + NAMES.len() as u64).await?;
    hello::settled(scene, host, "hello").await?;
    scene.world.audit.mark(scene.cluster()).await?;
    let mut written = scene.world.audit.writes(mark, &scene.namespace)?;
    written.retain(|request| !matches!(&*request.object_ref.resource, "plugins" | "events"));
    let lines: Vec<_> = written.iter().map(|request| request.line()).collect();
    ensure!(lines.is_empty(), "the same plan was written again:\n{}", lines.join("\n"));
    Ok(())
}

/// The component as its toolchain makes it, once for each content, in the cache; nothing where there is no npm to make it.
fn built() -> Result<Option<PathBuf>> {
    let sources = sources()?;
    let dir = paths::cache()?.join("components").join(format!("hello-js-{}", name_of(&sources)));
    let place = dir.join("built.wasm");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let lock = File::create(dir.join(".lock"))?;
    lock.lock()?;
    if place.is_file() {
        return Ok(Some(place));
    }
    for tool in ["node", "npm"] {
        let started = Command::new(tool).arg("--version").output();
        if started.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            // Not by `eprintln!`: of a test that passes, nobody would see it.
            writeln!(
                io::stderr(),
                "SKIPPED: {EXAMPLE} is not tested: there is no `{tool}` in PATH, install Node.js 18 or newer"
            )?;
            return Ok(None);
        }
    }
    build(&sources, &dir, &place).with_context(|| {
        format!("{EXAMPLE} cannot be built; its packages come once from the npm registry, or from npm's own cache")
    })?;
    Ok(Some(place))
}

type Source = (PathBuf, Vec<u8>);

/// Paths in the checkout, and what is there.
fn sources() -> Result<Vec<Source>> {
    let checkout = paths::checkout();
    let mut files: Vec<PathBuf> = SOURCES.iter().map(|file| Path::new(EXAMPLE).join(file)).collect();
    for entry in fs::read_dir(checkout.join("wit"))? {
        files.push(Path::new("wit").join(entry?.file_name()));
    }
    files.retain(|file| !file.starts_with("wit") || file.extension().is_some_and(|extension| extension == "wit"));
    files.sort();
    let read = |file: PathBuf| -> Result<Source> {
        let bytes = fs::read(checkout.join(&file)).with_context(|| format!("cannot read {}", file.display()))?;
        Ok((file, bytes))
    };
    files.into_iter().map(read).collect()
}

fn name_of(sources: &[Source]) -> String {
    let all: Vec<String> =
        sources.iter().map(|(file, bytes)| format!("{} {}\n", file.display(), scripted::digest(bytes))).collect();
    scripted::digest(all.concat().as_bytes()).trim_start_matches("sha256:").chars().take(16).collect()
}

/// Builds a copy, so that nothing is left in the checkout, and renames, so that nobody sees half a component.
fn build(sources: &[Source], dir: &Path, place: &Path) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix(".build-").tempdir_in(dir)?;
    for (file, bytes) in sources {
        let copy = scratch.path().join(file);
        fs::create_dir_all(copy.parent().context("a source has no directory")?)?;
        fs::write(copy, bytes)?;
    }
    let example = scratch.path().join(EXAMPLE);
    succeeds(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&example))?;
    succeeds(Command::new("npm").args(["run", "build"]).current_dir(&example))?;
    Ok(fs::rename(example.join("built.wasm"), place)?)
}

/// With the manifest of the example and the CRD of `hello`.
fn embedded(built: &Path, dir: &Path) -> Result<PathBuf> {
    let (checkout, output) = (paths::checkout(), dir.join("hello-js.wasm"));
    let mut embed = Command::new(paths::binary("reef")?);
    embed.arg("embed").arg(built).arg("--manifest").arg(checkout.join(EXAMPLE).join("manifest.json"));
    embed.arg("--crd").arg(checkout.join("plugins/hello/crd.yaml")).arg("--output").arg(&output);
    succeeds(&mut embed)?;
    Ok(output)
}

fn succeeds(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    ensure!(output.status.success(), "{command:?} failed ({}):\n{out}{err}", output.status);
    Ok(())
}
