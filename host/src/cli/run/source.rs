//! Where the component of a run comes from: a file that somebody replaces, or a crate that is built whenever it changes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use tempfile::TempDir;

use crate::{
    cli::{build, cargo::Crate, component::Component},
    sandbox::Inspected,
};

/// How often the files of a crate are looked at.
const LOOK: Duration = Duration::from_millis(300);
/// What a built component is called.
const BUILT: &str = "plugin.wasm";

/// What the host is told of: a directory, and a file in it.
pub struct Source {
    dir: PathBuf,
    file: String,
    /// The crate that is built into it.
    built: Option<Built>,
}

struct Built {
    plugin: Crate,
    dir: TempDir,
    seen: Files,
}

/// Of each file of a crate, when it was changed and how long it is.
type Files = BTreeMap<PathBuf, (SystemTime, u64)>;

impl Source {
    /// Builds it, if it is a crate, and reads what it says of itself.
    pub fn open(path: &Path) -> anyhow::Result<(Self, Inspected)> {
        if path.is_dir() { Self::of_crate(path) } else { Self::of_file(path) }
    }

    fn of_file(path: &Path) -> anyhow::Result<(Self, Inspected)> {
        let inspected = Component::read(path)?.inspected()?;
        let file = path
            .file_name()
            .and_then(|name| name.to_str())
            .with_context(|| format!("{}: its name is no text", path.display()))?;
        // Not the file itself: what it leads to may be swapped.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let dir = parent.canonicalize().with_context(|| format!("cannot find {}", parent.display()))?;
        Ok((Self { dir, file: file.to_owned(), built: None }, inspected))
    }

    fn of_crate(path: &Path) -> anyhow::Result<(Self, Inspected)> {
        let plugin = Crate::at(path)?;
        let seen = files(plugin.dir());
        let (component, inspected) = build::built(&plugin)?;
        let dir = tempfile::tempdir().context("cannot make a directory for the component")?;
        place(dir.path(), &component)?;
        Ok((Self { dir: dir.path().to_owned(), file: BUILT.to_owned(), built: Some(Built { plugin, dir, seen }) }, inspected))
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn file(&self) -> &str {
        &self.file
    }

    /// Builds the crate again and again, whenever its files have changed and have come to rest. A build that fails leaves what
    /// runs. It does not end by itself.
    pub async fn rebuild(&mut self) -> anyhow::Result<()> {
        let Some(built) = &mut self.built else { return std::future::pending().await };
        loop {
            let now = settled(built.plugin.dir(), &built.seen).await?;
            built.seen = now;
            eprintln!("its files have changed: building");
            let plugin = built.plugin.clone();
            match tokio::task::spawn_blocking(move || build::built(&plugin)).await? {
                Ok((component, _)) => place(built.dir.path(), &component)?,
                Err(error) => eprintln!("{error:#}; the last good one goes on"),
            }
        }
    }
}

/// Waits until the files are others than these, and the same twice.
async fn settled(dir: &Path, seen: &Files) -> anyhow::Result<Files> {
    let mut last = seen.clone();
    loop {
        tokio::time::sleep(LOOK).await;
        let of = dir.to_owned();
        let now = tokio::task::spawn_blocking(move || files(&of)).await?;
        if now != *seen && now == last {
            return Ok(now);
        }
        last = now;
    }
}

/// Renamed into its place, so that nobody sees half of it.
fn place(dir: &Path, component: &Component) -> anyhow::Result<()> {
    let beside = dir.join("new");
    fs::write(&beside, &component.bytes).with_context(|| format!("cannot write {}", beside.display()))?;
    fs::rename(&beside, dir.join(BUILT)).with_context(|| format!("cannot place {BUILT}"))
}

/// All files below, without those that a build or a tool makes.
fn files(dir: &Path) -> Files {
    let (mut all, mut dirs) = (Files::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        // What is being replaced just now is seen next time.
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let is_made = name == "target" || name == "Cargo.lock" || name.to_string_lossy().starts_with('.');
            match entry.metadata() {
                Ok(_) if is_made => {}
                Ok(meta) if meta.is_dir() => dirs.push(path),
                Ok(meta) => drop(all.insert(path, (meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), meta.len()))),
                Err(_) => {}
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_build_makes_is_no_change_of_the_sources() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("src/lib.rs", "one");
        let before = files(dir.path());
        for made in ["target/a.wasm", "Cargo.lock", ".git/HEAD", "src/.lib.rs.swp"] {
            write(made, "x");
        }
        assert_eq!(files(dir.path()), before);
        write("src/lib.rs", "longer");
        assert_ne!(files(dir.path()), before);
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_new_once_they_have_come_to_rest() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "one").unwrap();
        let seen = files(dir.path());
        fs::write(dir.path().join("a"), "longer").unwrap();
        assert_eq!(settled(dir.path(), &seen).await.unwrap(), files(dir.path()));
    }

    #[test]
    fn a_file_is_watched_where_its_name_is_and_not_where_it_leads() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Source::open(&dir.path().join("none.wasm")).is_err());
        fs::write(dir.path().join("text"), "text").unwrap();
        let said = Source::open(&dir.path().join("text")).map(drop).unwrap_err().to_string();
        assert!(said.contains("a host would not load it"), "{said}");
    }
}
