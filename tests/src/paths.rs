//! Where things are: the checkout, the cache outside of it, our own binaries, the components.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// The root of the checkout.
pub fn checkout() -> PathBuf {
    // Cargo sets the variable at run time too; a target directory may be shared by several checkouts.
    let tests = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).filter(|dir| dir.ends_with("tests"));
    let tests = tests.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    tests.parent().map(Path::to_path_buf).unwrap_or(tests)
}

/// The cache outside the checkout: `REEF_CACHE`, or `reef` under `XDG_CACHE_HOME` or `~/.cache`.
pub fn cache() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("REEF_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("reef")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/reef")))
        .context("no place for the cache of built tools: set REEF_CACHE to a directory")
}

/// Cargo's target directory, from the place of the running executable: `target/debug/x` or `target/debug/deps/x-hash`.
pub fn target() -> Result<PathBuf> {
    let profile = profile_dir()?;
    profile.parent().map(Path::to_path_buf).context("the running executable is not in a target directory")
}

fn profile_dir() -> Result<PathBuf> {
    let exe = env::current_exe()?;
    let dir = exe.parent().context("the running executable has no directory")?;
    Ok(if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir }.to_path_buf())
}

/// One of this workspace's executables: `reef`, `reef-testbed` …
pub fn binary(name: &str) -> Result<PathBuf> {
    let path = profile_dir()?.join(name);
    if !path.is_file() {
        bail!("there is no `{}`: run `cargo build --workspace` first, or `make test`", path.display());
    }
    Ok(path)
}

/// A component built from `plugins/` or `tests/guests/`, by its crate's name.
pub fn component(name: &str) -> Result<PathBuf> {
    let file = format!("{}.wasm", name.replace('-', "_"));
    let path = target()?.join("components/wasm32-wasip2/release").join(file);
    if !path.is_file() {
        bail!("there is no `{}`: run `make components` first, or `make test`", path.display());
    }
    Ok(path)
}
