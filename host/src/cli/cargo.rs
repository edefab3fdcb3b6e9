//! Calls cargo for a plugin's crate, and explains what is missing of the toolchain.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, anyhow, bail, ensure};
use serde::Deserialize;

/// What a component is compiled for.
const TARGET: &str = "wasm32-wasip2";

/// The crate in a directory.
#[derive(Debug, Clone)]
pub struct Crate {
    dir: PathBuf,
}

impl Crate {
    pub fn at(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let dir = path.canonicalize().with_context(|| format!("{shown}: cannot find the plugin's crate"))?;
        ensure!(
            dir.join("Cargo.toml").is_file(),
            "{shown} has no Cargo.toml: give the directory of a plugin's crate, or begin one with `reef new NAME`"
        );
        Ok(Self { dir })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs the native tests.
    pub fn test(&self) -> anyhow::Result<()> {
        let status = self.cargo(&["test"]).status().map_err(no_cargo)?;
        ensure!(status.success(), "the native tests failed (`cargo test`, {status}): cargo says above what is wrong");
        Ok(())
    }

    /// Builds the release component, and says where it is.
    pub fn build(&self) -> anyhow::Result<PathBuf> {
        self.check_target()?;
        let arguments = ["build", "--release", "--target", TARGET, "--message-format=json-render-diagnostics"];
        let built = self.cargo(&arguments).stderr(Stdio::inherit()).output().map_err(no_cargo)?;
        ensure!(
            built.status.success(),
            "the component was not built (`cargo build`, {}): cargo says above what is wrong",
            built.status
        );
        let lines = String::from_utf8_lossy(&built.stdout);
        component(&lines, &self.dir.join("Cargo.toml"))
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("cargo");
        command.args(arguments).current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    /// Rustc would say that it cannot find the crate `core`.
    fn check_target(&self) -> anyhow::Result<()> {
        let asked = Command::new("rustc")
            .args(["--print", "target-libdir", "--target", TARGET])
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .output();
        // Cargo may know another rustc, and says itself if it does not.
        let Ok(answer) = asked else { return Ok(()) };
        if !answer.status.success() {
            let said = String::from_utf8_lossy(&answer.stderr);
            let said = said.lines().next().unwrap_or_default().trim_start_matches("error: ");
            bail!(
                "this Rust toolchain cannot compile for {TARGET} ({said}): run `rustup update`, then `rustup target add {TARGET}`"
            );
        }
        let libraries = PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim());
        ensure!(
            libraries.is_dir(),
            "the target {TARGET} is not installed for this Rust toolchain: run `rustup target add {TARGET}` in {}",
            self.dir.display()
        );
        Ok(())
    }
}

fn no_cargo(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::NotFound => anyhow!("there is no `cargo` in PATH: install Rust, see https://rustup.rs"),
        _ => anyhow!("`cargo` does not start: {error}"),
    }
}

/// One line of what cargo tells programs.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    target: Target,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

#[derive(Deserialize, Default)]
struct Target {
    #[serde(default)]
    kind: Vec<String>,
}

/// The component of the package with this manifest, of all that was built.
fn component(lines: &str, manifest: &Path) -> anyhow::Result<PathBuf> {
    let messages = lines.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let libraries = messages.filter(|m| m.reason == "compiler-artifact" && m.target.kind.iter().any(|kind| kind == "cdylib"));
    let (mut own, mut others) = (None, Vec::new());
    for library in libraries {
        let wasm = library.filenames.into_iter().find(|file| file.extension().is_some_and(|end| end == "wasm"));
        if library.manifest_path == manifest {
            own = wasm;
        } else if wasm.is_some() {
            others.push(library.manifest_path);
        }
    }
    match (own, others.as_slice()) {
        (Some(own), _) => Ok(own),
        (None, []) => bail!(
            "{} makes no component: add `crate-type = [\"cdylib\", \"rlib\"]` under `[lib]`, as `reef new` writes it",
            manifest.display()
        ),
        (None, others) => {
            let dirs: Vec<String> = others.iter().filter_map(|m| Some(m.parent()?.display().to_string())).collect();
            bail!(
                "{} is a workspace of several crates: give the directory of one, as in {}",
                manifest.display(),
                dirs.join(" or ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn artifact(manifest: &str, kind: &str, files: &[&str]) -> String {
        json!({"reason": "compiler-artifact", "manifest_path": manifest, "target": {"kind": [kind, "rlib"]}, "filenames": files})
            .to_string()
    }

    fn found(lines: &[String]) -> Result<PathBuf, String> {
        let text = format!("not json\n{}\n{{\"reason\":\"build-finished\",\"success\":true}}", lines.join("\n"));
        component(&text, Path::new("/a/Cargo.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_component_is_the_wasm_file_of_this_package() {
        let dependency = artifact("/b/Cargo.toml", "lib", &["/t/libb.rlib"]);
        let other = artifact("/c/Cargo.toml", "cdylib", &["/t/c.wasm"]);
        let own = artifact("/a/Cargo.toml", "cdylib", &["/t/liba.rlib", "/t/a.wasm"]);
        assert_eq!(found(&[dependency.clone(), other.clone(), own]), Ok("/t/a.wasm".into()));
        assert!(found(&[dependency]).unwrap_err().contains("makes no component: add `crate-type"));
        assert!(found(&[other]).unwrap_err().contains("give the directory of one, as in /c"));
    }
}
