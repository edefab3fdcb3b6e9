//! The policy's file and the files of keys that it names: read whole, watched by reading them again.
//!
//! They are small, and reading sees renames, swapped symlinks of a ConfigMap volume and network file systems alike.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use super::policy::{Policy, PolicyError, Text};
use crate::names::Digest;

/// How often the files are read.
const POLL: Duration = Duration::from_millis(500);
/// The largest file that is read.
const LARGEST: u64 = 1 << 20;

/// Why there is no policy to be had from a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    #[error("trust policy {file}: it cannot be read: {message}")]
    Unreadable { file: String, message: String },
    #[error("trust policy {file}: {error}")]
    Invalid { file: String, error: PolicyError },
}

/// The file, and the version of it that was looked at last.
#[derive(Debug, Clone)]
pub struct PolicyFile {
    path: PathBuf,
    known: Digest,
}

impl PolicyFile {
    pub fn open(path: &Path) -> Result<(Self, Policy), FileError> {
        let (known, policy) = read(path);
        Ok((Self { path: path.to_owned(), known }, policy?))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for another version, valid or not, of the file or of a key that it names. A version counts when it is read
    /// twice in a row: whoever writes in place leaves half a policy for a moment, which may be a valid one.
    pub async fn changed(&mut self) -> Result<Policy, FileError> {
        let mut seen = None;
        loop {
            tokio::time::sleep(POLL).await;
            let path = self.path.clone();
            let Ok((now, policy)) = tokio::task::spawn_blocking(move || read(&path)).await else { continue };
            if now == self.known {
                seen = None;
            } else if seen == Some(now) {
                self.known = now;
                return policy;
            } else {
                seen = Some(now);
            }
        }
    }
}

/// The version is a digest of all that was read, also of why something could not be.
fn read(path: &Path) -> (Digest, Result<Policy, FileError>) {
    let file = path.display().to_string();
    let text = match text(path) {
        Ok(text) => text,
        Err(message) => return (Digest::of(message.as_bytes()), Err(FileError::Unreadable { file, message })),
    };
    let all = std::cell::RefCell::new(text.clone());
    let pem = |name: &str| {
        let read = text_of_key(path, name);
        let (Ok(said) | Err(said)) = &read;
        all.borrow_mut().push_str(&format!("\0{name}\0{said}"));
        read
    };
    let policy = Text::parse(&text).and_then(|text| text.into_policy(pem));
    (Digest::of(all.borrow().as_bytes()), policy.map_err(|error| FileError::Invalid { file, error }))
}

/// Relative to the policy's file.
fn text_of_key(policy: &Path, name: &str) -> Result<String, String> {
    let path = policy.parent().unwrap_or(Path::new("")).join(name);
    text(&path).map_err(|message| format!("file {} cannot be read: {message}", path.display()))
}

fn text(path: &Path) -> Result<String, String> {
    // To open a pipe or a device could block for ever.
    let meta = fs::metadata(path).map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("it is not a regular file".into());
    }
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(LARGEST + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > LARGEST {
        return Err(format!("it is larger than {LARGEST} bytes"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const P256: &str = include_str!("fixtures/openssl/p256.pub");
    const RSA: &str = include_str!("fixtures/openssl/rsa.pub");
    const POLICY: &str = "apiVersion: reef.dev/v1alpha1\nkind: TrustPolicy\nkeys: [{ name: a, file: keys/a.pub }]\n\
                          rules: [{ namespaces: ['*'], repositories: ['r.example/**'], keys: [a] }]\n";

    fn keys(policy: &Policy) -> Vec<Digest> {
        policy.rule("any").unwrap().keys.iter().map(|key| key.fingerprint).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_the_policy_or_of_a_key_that_it_names_is_seen_also_when_it_is_not_valid() {
        let dir = tempfile::tempdir().unwrap();
        let (path, key) = (dir.path().join("policy.yaml"), dir.path().join("keys/a.pub"));
        fs::create_dir(dir.path().join("keys")).unwrap();
        fs::write(&path, POLICY).unwrap();
        let error = PolicyFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("policy.yaml: keys[a]: file ") && error.contains("cannot be read"), "{error}");
        fs::write(&key, P256).unwrap();
        let (mut file, first) = PolicyFile::open(&path).unwrap();

        fs::write(&key, RSA).unwrap();
        let second = file.changed().await.unwrap();
        assert_ne!(keys(&first), keys(&second));
        fs::write(&path, "rules: [").unwrap();
        assert!(matches!(file.changed().await, Err(FileError::Invalid { error: PolicyError::Yaml(_), .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(file.changed().await, Err(FileError::Unreadable { .. })));
        fs::write(&path, POLICY).unwrap();
        assert_eq!(file.changed().await.unwrap(), second);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_changed_is_no_news() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.yaml");
        fs::write(&path, POLICY.replace("file: keys/a.pub", &format!("pem: {P256:?}"))).unwrap();
        let (mut file, _) = PolicyFile::open(&path).unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(60), file.changed()).await.is_err());
    }
}
