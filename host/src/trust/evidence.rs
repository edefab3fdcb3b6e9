//! Signatures that were found good, kept on disk, so that a host that starts without its registry can check them again.
//!
//! A signature proves itself, so nothing here is believed, and losing it costs a look at the registry: no error of the
//! disk is anybody's trouble.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{claim::Claim, subject::Image};

/// Signatures that are kept of one image: a policy may ask for other keys in other namespaces.
const MOST_OF_ONE: usize = 4;
/// Images whose signatures are kept; the ones that were not asked for the longest go first.
const MOST: usize = 4096;
/// The largest file that is read.
const LARGEST: u64 = 1 << 20;

#[derive(Debug, Clone)]
pub struct Evidence {
    directory: Option<PathBuf>,
}

impl Evidence {
    pub fn nowhere() -> Self {
        Self { directory: None }
    }

    pub fn below(cache_dir: &Path) -> Self {
        Self { directory: Some(cache_dir.join("signatures")) }
    }

    /// What is kept of this image.
    pub async fn of(&self, image: &Image) -> Vec<Claim> {
        let Some(path) = self.path(image) else { return Vec::new() };
        tokio::task::spawn_blocking(move || read(&path)).await.unwrap_or_default()
    }

    pub async fn keep(&self, image: &Image, mut kept: Vec<Claim>, claim: Claim) {
        let (Some(path), Some(directory)) = (self.path(image), self.directory.clone()) else { return };
        kept.retain(|known| *known != claim);
        kept.insert(0, claim);
        kept.truncate(MOST_OF_ONE);
        let written = tokio::task::spawn_blocking(move || write(&directory, &path, &kept)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "a signature cannot be kept: a host that starts without its registry will not know it");
        }
    }

    fn path(&self, image: &Image) -> Option<PathBuf> {
        let digest = image.digests().first()?;
        Some(self.directory.as_ref()?.join(format!("{}.json", digest.hex())))
    }
}

fn read(path: &Path) -> Vec<Claim> {
    let is_small = fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= LARGEST);
    let bytes = is_small.then(|| fs::read(path).ok()).flatten().unwrap_or_default();
    let claims = serde_json::from_slice(&bytes).unwrap_or_default();
    // The age decides who goes; a failure makes this one look older than it is.
    let _ = fs::File::options().write(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    claims
}

/// Beside and renamed, so that nobody sees half of it.
fn write(directory: &Path, path: &Path, claims: &[Claim]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let beside = tempfile::NamedTempFile::new_in(directory)?;
    serde_json::to_writer(&beside, claims)?;
    beside.persist(path)?;
    forget_the_oldest(directory)
}

fn forget_the_oldest(directory: &Path) -> io::Result<()> {
    let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(directory)?.flatten() {
        files.push((entry.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH), entry.path()));
    }
    let surplus = files.len().saturating_sub(MOST);
    if surplus > 0 {
        files.sort();
        files.iter().take(surplus).try_for_each(|(_, path)| fs::remove_file(path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Digest;

    fn image() -> Image {
        let component = Digest::of(b"component");
        Image::new("r.example", "a", &[format!(r#"{{"layers":[{{"digest":"{component}"}}]}}"#)], component).unwrap()
    }

    #[tokio::test]
    async fn the_newest_signatures_of_an_image_are_kept_and_what_is_no_file_of_ours_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let evidence = Evidence::below(dir.path());
        assert_eq!(evidence.of(&image()).await, []);
        for n in 0..6 {
            let kept = evidence.of(&image()).await;
            evidence.keep(&image(), kept, Claim::Bundle(n.to_string())).await;
        }
        let kept = evidence.of(&image()).await;
        assert_eq!((kept.len(), kept.first()), (MOST_OF_ONE, Some(&Claim::Bundle("5".into()))));
        fs::write(evidence.path(&image()).unwrap(), b"[{\"bundle\":").unwrap();
        assert_eq!(evidence.of(&image()).await, []);
    }

    #[tokio::test]
    async fn a_disk_that_takes_nothing_is_nobodys_trouble() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("signatures"), b"no directory").unwrap();
        let evidence = Evidence::below(dir.path());
        evidence.keep(&image(), Vec::new(), Claim::Bundle("1".into())).await;
        assert_eq!(evidence.of(&image()).await, []);
    }
}
