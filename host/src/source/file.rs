//! A component file under the host's plugin directory, on whatever volume: looked at by `stat`, since renames, symlink swaps
//! and network file systems then look alike.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::MAX_COMPONENT;
use crate::names::Digest;

/// A component file under the host's plugin directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSource {
    directory: PathBuf,
    file: String,
}

/// What tells one state of a file from another without reading it. A rename over the file changes the inode, the swap
/// of a volume's symlink changes what the path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// The bytes and what they are.
#[derive(Debug, Clone)]
pub struct Fetched {
    pub digest: Digest,
    pub bytes: Bytes,
    pub signature: Signature,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The plugin stays without component, or with its last good one, until the file appears.
    #[error("spec.source.file: there is no file `{file}` in the plugin directory {directory}: copy the component there")]
    Missing { file: String, directory: String },
    /// A volume that holds nothing is one that was not mounted, or an image volume of an artifact that holds no files.
    #[error(
        "spec.source.file: there is no file `{file}`, and its directory {directory} is empty: is the volume mounted? An image volume \
         of a bare Wasm artifact is empty: use spec.source.oci for it"
    )]
    NothingMounted { file: String, directory: String },
    /// The path would leave the plugin directory.
    #[error("spec.source.file: `{0}` leaves the plugin directory: name a file below it, as in `hello.wasm` or `team/hello.wasm`")]
    Outside(String),
    #[error("spec.source.file: `{file}` is empty: is the volume mounted, and was the file written completely?")]
    Empty { file: String },
    #[error("spec.source.file: `{file}` is larger than {MAX_COMPONENT}, the most that is loaded")]
    TooLarge { file: String },
    #[error("spec.source.file: `{file}` could not be read: {message}")]
    Unreadable { file: String, message: String },
}

impl FileSource {
    pub fn new(directory: &Path, file: &str) -> Result<Self, FileError> {
        let inside = Path::new(file).components().all(|c| matches!(c, std::path::Component::Normal(_)));
        if file.is_empty() || !inside {
            return Err(FileError::Outside(file.into()));
        }
        Ok(Self { directory: directory.into(), file: file.into() })
    }

    /// Cheap enough to be asked twice a second: one `stat`. Polling sees renames, symlink swaps and network file
    /// systems alike, where notifications do not.
    pub async fn signature(&self) -> Option<Signature> {
        let path = self.directory.join(&self.file);
        blocking(move || fs::metadata(path)).await.ok().map(|meta| Signature::of(&meta))
    }

    /// Reads the file whole. A file that changes while it is read is read again by the caller, since its signature
    /// then differs from the one returned.
    pub async fn fetch(&self) -> Result<Fetched, FileError> {
        let source = self.clone();
        blocking(move || Ok(source.read()))
            .await
            .unwrap_or_else(|e| Err(FileError::Unreadable { file: self.file.clone(), message: e.to_string() }))
    }

    fn read(&self) -> Result<Fetched, FileError> {
        let file = self.file.clone();
        let unreadable = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound => self.missing(),
            _ => FileError::Unreadable { file: self.file.clone(), message: e.to_string() },
        };
        // To open a pipe or a device could block for ever.
        if !fs::metadata(self.directory.join(&self.file)).map_err(unreadable)?.is_file() {
            return Err(FileError::Unreadable { file, message: "it is not a regular file".into() });
        }
        let opened = fs::File::open(self.directory.join(&self.file)).map_err(unreadable)?;
        let signature = Signature::of(&opened.metadata().map_err(unreadable)?);
        let mut bytes = Vec::new();
        opened.take(MAX_COMPONENT.0 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.is_empty() {
            return Err(FileError::Empty { file });
        }
        if bytes.len() as u64 > MAX_COMPONENT.0 {
            return Err(FileError::TooLarge { file });
        }
        Ok(Fetched { digest: Digest::of(&bytes), bytes: bytes.into(), signature })
    }
}

impl FileSource {
    fn missing(&self) -> FileError {
        let path = self.directory.join(&self.file);
        let parent = path.parent().unwrap_or(&self.directory);
        // The plugin directory itself is often empty before the first component comes.
        let below = parent != self.directory;
        match fs::read_dir(parent).map(|mut entries| entries.next().is_none()) {
            Ok(true) if below => FileError::NothingMounted { file: self.file.clone(), directory: parent.display().to_string() },
            _ => FileError::Missing { file: self.file.clone(), directory: self.directory.display().to_string() },
        }
    }
}

/// A volume may hang; nothing else waits for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(interrupted) => Err(io::Error::other(interrupted)),
    }
}

impl Signature {
    fn of(meta: &fs::Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino(), size: meta.size(), modified: (meta.mtime(), meta.mtime_nsec()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leaves_the_directory_is_refused() {
        for file in ["../x.wasm", "/etc/passwd", "a/../../b", "", "."] {
            assert_eq!(FileSource::new(Path::new("/plugins"), file), Err(FileError::Outside(file.into())), "{file}");
        }
    }

    #[tokio::test]
    async fn a_replaced_file_has_another_signature_and_digest() {
        let dir = tempfile::tempdir().unwrap();
        let source = FileSource::new(dir.path(), "a.wasm").unwrap();
        assert!(matches!(source.fetch().await, Err(FileError::Missing { .. })));
        fs::write(dir.path().join("a.wasm"), b"one").unwrap();
        let one = source.fetch().await.unwrap();
        fs::write(dir.path().join("new"), b"two").unwrap();
        fs::rename(dir.path().join("new"), dir.path().join("a.wasm")).unwrap();
        let two = source.fetch().await.unwrap();
        assert_ne!(one.signature, two.signature);
        assert_ne!(one.digest, two.digest);
        assert_eq!(Some(two.signature), source.signature().await);
    }

    #[tokio::test]
    async fn a_swapped_data_link_of_a_volume_is_another_file() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("hello");
        for (generation, text) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir_all(volume.join(generation)).unwrap();
            fs::write(volume.join(generation).join("a.wasm"), text).unwrap();
        }
        symlink("..1", volume.join("..data")).unwrap();
        symlink("..data/a.wasm", volume.join("a.wasm")).unwrap();
        let source = FileSource::new(dir.path(), "hello/a.wasm").unwrap();
        let one = source.fetch().await.unwrap();
        symlink("..2", volume.join("..data_tmp")).unwrap();
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
        assert_ne!(source.signature().await, Some(one.signature));
        assert_eq!(source.fetch().await.unwrap().digest, Digest::of(b"two"));
    }

    #[tokio::test]
    async fn an_empty_directory_of_a_volume_asks_for_the_mount() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("hello")).unwrap();
        let error = FileSource::new(dir.path(), "hello/a.wasm").unwrap().fetch().await.unwrap_err();
        assert!(error.to_string().contains("is the volume mounted?"), "{error}");
        let error = FileSource::new(dir.path(), "a.wasm").unwrap().fetch().await.unwrap_err();
        assert!(matches!(error, FileError::Missing { .. }), "{error}");
    }

    #[tokio::test]
    async fn what_is_no_regular_file_is_refused_without_being_opened() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("a.wasm");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        let error = FileSource::new(dir.path(), "a.wasm").unwrap().fetch().await.unwrap_err();
        assert!(error.to_string().contains("`a.wasm` could not be read: it is not a regular file"), "{error}");
    }

    #[tokio::test]
    async fn an_empty_file_is_an_error_that_asks_for_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.wasm"), b"").unwrap();
        let error = FileSource::new(dir.path(), "a.wasm").unwrap().fetch().await.unwrap_err();
        assert!(error.to_string().contains("is empty"), "{error}");
    }
}
