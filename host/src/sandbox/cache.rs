//! The private cache of compiled code: one file per component and compiler, each with a MAC.
//!
//! Such a file is native code, and loading it is trusting it: only files that this host wrote itself are ever named. The
//! key that proves it lies beside them and is readable by this host alone. What does not prove itself is deleted, and
//! compiled afresh.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    hash::{Hash, Hasher},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;

use crate::names::Digest;

/// Bytes of the key: one block of the hash.
const KEY: usize = 64;
/// Bytes of the MAC at the end of each file.
const MAC: usize = 32;

/// The cache cannot be used; the host does not start.
#[derive(Debug, thiserror::Error)]
#[error("the cache directory {} cannot be used: {why}; give the host a directory of its own that it may write", path.display())]
pub struct CacheError {
    path: PathBuf,
    why: String,
}

/// Compiled code by digest.
pub struct Cache {
    dir: PathBuf,
    key: [u8; KEY],
    compiler: [u8; 32],
    serial: AtomicU64,
}

impl Cache {
    /// Opens the directory, or makes it, with a key that nobody else can read.
    pub fn open(dir: &Path, engine: &Engine) -> Result<Self, CacheError> {
        let failed = |why: String| CacheError { path: dir.to_owned(), why };
        prepare(dir).map_err(|error| failed(error.to_string()))?;
        let key = key(dir).map_err(|error| failed(format!("its key: {error}")))?;
        Ok(Self { dir: dir.to_owned(), key, compiler: compiler(engine), serial: AtomicU64::new(0) })
    }

    /// The file with the code of this component, if there is one and it proves itself.
    pub fn find(&self, digest: Digest) -> Option<PathBuf> {
        let path = self.path(digest);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "compiled code cannot be read: it is compiled afresh");
                return None;
            }
        };
        if self.proves(digest, &bytes) {
            return Some(path);
        }
        tracing::warn!(path = %path.display(), "compiled code that this host did not write is deleted, and compiled afresh");
        let _ = fs::remove_file(&path);
        None
    }

    /// Keeps the code, and says in which file.
    pub fn store(&self, digest: Digest, code: &[u8]) -> io::Result<PathBuf> {
        let path = self.path(digest);
        let temporary = self.temporary();
        let written = self.write(&temporary, digest, code).and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.map(|()| path)
    }

    fn write(&self, path: &Path, digest: Digest, code: &[u8]) -> io::Result<()> {
        let mut file = private(path)?;
        file.write_all(code)?;
        file.write_all(&self.mac(digest, code).finalize().into_bytes())?;
        file.sync_all()
    }

    fn path(&self, digest: Digest) -> PathBuf {
        let compiler: String = hex::encode(self.compiler).chars().take(16).collect();
        self.dir.join(format!("{}-{compiler}.cwasm", digest.hex()))
    }

    fn temporary(&self) -> PathBuf {
        self.dir.join(format!("{}-{}.tmp", std::process::id(), self.serial.fetch_add(1, Relaxed)))
    }

    /// The MAC stands behind the code, where the loader does not look.
    fn proves(&self, digest: Digest, bytes: &[u8]) -> bool {
        let Some((code, mac)) = bytes.split_last_chunk::<MAC>() else { return false };
        self.mac(digest, code).verify_slice(mac).is_ok()
    }

    fn mac(&self, digest: Digest, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new(&self.key.into());
        for part in [b"reef compiled code 1\n", digest.hex().as_bytes(), &self.compiler, code] {
            mac.update(part);
        }
        mac
    }
}

/// What the engine's code depends on, as a digest that is the same in every process.
fn compiler(engine: &Engine) -> [u8; 32] {
    struct Stable(Sha256);
    impl Hasher for Stable {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut hasher = Stable(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.0.finalize().into()
}

fn prepare(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let found = fs::metadata(dir)?;
    if found.permissions().mode() & 0o022 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    // What a host that was killed left half written.
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            let _ = fs::remove_file(path);
        }
    }
    Ok(())
}

/// The key of this directory. One that others could read, or that is broken, proves nothing: it is replaced.
fn key(dir: &Path) -> io::Result<[u8; KEY]> {
    let path = dir.join("key");
    match known(&path) {
        Ok(Some(key)) => return Ok(key),
        Ok(None) => {
            tracing::warn!(path = %path.display(), "the key is replaced, since others could know it: all is compiled afresh")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut key = [0; KEY];
    getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string()))?;
    let temporary = dir.join(format!("{}-key.tmp", std::process::id()));
    private(&temporary)?.write_all(&key)?;
    fs::rename(&temporary, &path)?;
    Ok(key)
}

/// The key in this file, if it is a key and nobody else could read it.
fn known(path: &Path) -> io::Result<Option<[u8; KEY]>> {
    let file = File::open(path)?;
    let found = file.metadata()?;
    let mine = found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0;
    let mut bytes = Vec::with_capacity(KEY);
    file.take(KEY as u64 + 1).read_to_end(&mut bytes)?;
    Ok(<[u8; KEY]>::try_from(bytes).ok().filter(|_| mine))
}

/// A new file that only this user may read or write.
fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::engine;

    fn cache(dir: &Path) -> Cache {
        Cache::open(dir, &engine::compiler().unwrap()).unwrap()
    }

    #[test]
    fn what_was_stored_is_found_also_by_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"a");
        assert_eq!(cache(dir.path()).find(digest), None);
        let path = cache(dir.path()).store(digest, b"code").unwrap();
        assert_eq!(cache(dir.path()).find(digest), Some(path));
        assert_eq!(cache(dir.path()).find(Digest::of(b"b")), None);
    }

    /// Promises: S8
    /// Breaks it: a file that is believed without its MAC, or by the key of another directory.
    #[test]
    fn a_corrupt_or_foreign_file_is_never_named() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let path = cache.store(a, b"code").unwrap();
        let whole = fs::read(&path).unwrap();
        for broken in
            [&whole[..whole.len() - 1], &[&whole[..], b"x"].concat(), b"", b"code", &[&b"CODE"[..], &whole[4..]].concat()]
        {
            fs::write(&path, broken).unwrap();
            assert_eq!(cache.find(a), None);
            assert!(!path.exists(), "it is deleted");
        }
        fs::write(cache.path(b), &whole).unwrap();
        assert_eq!(cache.find(b), None, "code of another component");
        let other = tempfile::tempdir().unwrap();
        let foreign = Cache::open(other.path(), &engine::compiler().unwrap()).unwrap();
        fs::copy(foreign.store(a, b"code").unwrap(), &path).unwrap();
        assert_eq!(cache.find(a), None, "code of another host");
    }

    #[test]
    fn a_key_that_others_can_read_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"a");
        cache(dir.path()).store(digest, b"code").unwrap();
        let key = dir.path().join("key");
        assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(cache(dir.path()).find(digest), None);
        assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Cache::open(file.path(), &engine::compiler().unwrap()).err().unwrap().to_string();
        assert!(error.contains(file.path().to_str().unwrap()), "{error}");
    }
}
