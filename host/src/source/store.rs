//! The content cache: manifests and components by digest, on disk, so that a host without its registry starts what it ran.
//!
//! What is in it is as good as its digest says, which is computed over the bytes whenever they are read. It is bounded:
//! what was used longest ago goes first. Two processes may share it: files are renamed into place, and one that vanishes is
//! one that is not there. A disk that is full costs a warning: what cannot be written is kept in memory, as far as that goes.
//!
//! An entry belongs to the place that it came from (a repository): that somebody else has fetched a digest from there tells
//! nothing to who cannot, and a registry that merely names a digest is not given its bytes.

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::MAX_COMPONENT;
use crate::names::{Digest, Memory};

/// What is kept in memory while the disk takes nothing.
const IN_MEMORY: usize = 64 << 20;

/// Clones share it.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    budget: u64,
    serial: AtomicU64,
    memory: Mutex<VecDeque<(String, Bytes)>>,
    /// Said once, until a write goes well again.
    failing: AtomicBool,
}

impl Store {
    /// Under this directory, at most so many bytes. A directory that cannot be used is no reason not to start.
    pub fn open(dir: &Path, budget: Memory) -> Self {
        let inner = Inner {
            dir: dir.to_owned(),
            budget: budget.0,
            serial: AtomicU64::new(0),
            memory: Mutex::default(),
            failing: AtomicBool::new(false),
        };
        if let Err(error) = inner.prepare() {
            inner.warn(&error);
        }
        Self(Arc::new(inner))
    }

    /// The bytes of this digest that came from this place, if they are there and whole.
    pub async fn get(&self, place: &str, digest: Digest) -> Option<Bytes> {
        let (inner, name) = (self.0.clone(), name(place, digest));
        let found = tokio::task::spawn_blocking(move || inner.get(&name, digest)).await;
        found.unwrap_or_default()
    }

    /// Keeps the bytes, on disk or else in memory.
    pub async fn put(&self, place: &str, digest: Digest, bytes: Bytes) {
        let (inner, name) = (self.0.clone(), name(place, digest));
        // A cache: what is not kept is fetched again.
        let _ = tokio::task::spawn_blocking(move || inner.put(&name, bytes)).await;
    }

    /// It is in use: it goes last.
    pub async fn keep(&self, place: &str, digest: Digest) {
        let path = self.0.dir.join(name(place, digest));
        let _ = tokio::task::spawn_blocking(move || touch(&path)).await;
    }
}

/// Which place a digest came from is a part of its name.
fn name(place: &str, digest: Digest) -> String {
    let place: String = Digest::of(place.as_bytes()).hex().chars().take(16).collect();
    format!("{}-{place}", digest.hex())
}

impl Inner {
    fn prepare(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)
    }

    fn get(&self, name: &str, digest: Digest) -> Option<Bytes> {
        if let Some((_, bytes)) = self.memory.lock().iter().find(|(known, _)| known == name) {
            return Some(bytes.clone());
        }
        let path = self.dir.join(name);
        let mut bytes = Vec::new();
        // Nobody puts larger ones there.
        File::open(&path).ok()?.take(MAX_COMPONENT.0 + 1).read_to_end(&mut bytes).ok()?;
        if Digest::of(&bytes) != digest {
            tracing::warn!(path = %path.display(), "what is in the content cache is not what its name says: it is deleted, and fetched again");
            let _ = fs::remove_file(&path);
            return None;
        }
        touch(&path);
        Some(bytes.into())
    }

    fn put(&self, name: &str, bytes: Bytes) {
        match self.write(name, &bytes) {
            Ok(()) => {
                self.failing.store(false, Relaxed);
                self.evict(name);
            }
            Err(error) => {
                self.warn(&error);
                self.remember(name, bytes);
            }
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.prepare()?;
        let temporary = self.dir.join(format!("{}-{}.tmp", std::process::id(), self.serial.fetch_add(1, Relaxed)));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, self.dir.join(name))
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn remember(&self, name: &str, bytes: Bytes) {
        let mut memory = self.memory.lock();
        memory.retain(|(known, _)| known != name);
        memory.push_back((name.to_owned(), bytes));
        while memory.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > IN_MEMORY && memory.len() > 1 {
            memory.pop_front();
        }
    }

    /// Deletes what was used longest ago until the rest fits; never what was just put.
    fn evict(&self, newest: &str) {
        let mut files = self.files();
        files.sort_by_key(|(used, ..)| *used);
        let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in files {
            if total <= self.budget {
                return;
            }
            if path.file_name().is_none_or(|name| name != newest) && fs::remove_file(&path).is_ok() {
                total = total.saturating_sub(size);
            }
        }
    }

    /// What another process is about to rename counts too; it is left alone unless it is old.
    fn files(&self) -> Vec<(SystemTime, u64, PathBuf)> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let of = |entry: fs::DirEntry| {
            let found = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            Some((found.modified().ok()?, found.len(), entry.path()))
        };
        entries.filter_map(Result::ok).filter_map(of).collect()
    }

    fn warn(&self, error: &io::Error) {
        if !self.failing.swap(true, Relaxed) {
            let dir = self.dir.display();
            tracing::warn!(%dir, %error, "the content cache cannot be written: components are kept in memory, and are fetched again after a restart");
        }
    }
}

fn touch(path: &Path) {
    if let Ok(file) = File::open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: &str = "registry.example/hello";

    fn put(store: &Store, bytes: &'static [u8]) -> Digest {
        let digest = Digest::of(bytes);
        store.0.put(&name(PLACE, digest), Bytes::from_static(bytes));
        digest
    }

    #[tokio::test]
    async fn what_was_changed_on_disk_is_not_given_out_and_another_place_sees_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Memory(1 << 20));
        let digest = put(&store, b"component");
        assert_eq!(store.get(PLACE, digest).await.as_deref(), Some(&b"component"[..]));
        assert_eq!(store.get("registry.example/other", digest).await, None);
        fs::write(dir.path().join(name(PLACE, digest)), b"forged").unwrap();
        assert_eq!(store.get(PLACE, digest).await, None);
        assert!(!dir.path().join(name(PLACE, digest)).exists());
    }

    #[tokio::test]
    async fn what_was_used_longest_ago_goes_first_and_what_is_kept_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Memory(8));
        let (old, kept) = (put(&store, b"1111"), put(&store, b"2222"));
        for (digest, seconds) in [(kept, 10), (old, 20)] {
            let file = File::open(dir.path().join(name(PLACE, digest))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        }
        store.keep(PLACE, kept).await;
        let new = put(&store, b"3333");
        assert_eq!(store.get(PLACE, old).await, None);
        assert!(store.get(PLACE, kept).await.is_some() && store.get(PLACE, new).await.is_some());
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_written_is_made_up_for_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        // Not a directory: nobody can write below it, root included.
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let store = Store::open(&file.join("content"), Memory(1 << 20));
        let digest = put(&store, b"component");
        assert_eq!(store.get(PLACE, digest).await.as_deref(), Some(&b"component"[..]));
    }

    #[test]
    fn two_that_share_it_never_see_half_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let stores: Vec<Store> = (0..2).map(|_| Store::open(dir.path(), Memory(64 << 10))).collect();
        std::thread::scope(|scope| {
            for store in &stores {
                scope.spawn(|| {
                    for n in 0..100_u32 {
                        let bytes = Bytes::from(vec![u8::try_from(n % 5).unwrap(); 20 << 10]);
                        let digest = Digest::of(&bytes);
                        // The same process id, and so the same names, would be the worst case: the serial differs.
                        store.0.serial.fetch_add(1000 * u64::from(std::ptr::eq(store, &stores[0])), Relaxed);
                        store.0.put(&name(PLACE, digest), bytes.clone());
                        if let Some(found) = store.0.get(&name(PLACE, digest), digest) {
                            assert_eq!(found, bytes);
                        }
                    }
                });
            }
        });
        assert!(stores[0].0.files().iter().map(|(_, size, _)| size).sum::<u64>() <= 64 << 10);
    }
}
