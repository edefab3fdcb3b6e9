//! Files that commands read and write: bounded, whole or not at all, and never a device in the place of which a file is put.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};

/// Nobody writes longer texts by hand.
pub const LARGEST_TEXT: u64 = 8 << 20;

/// The text of a file that a flag names.
pub fn text(flag: &str, path: &Path) -> anyhow::Result<String> {
    let cannot = || format!("{flag}: cannot read {}", path.display());
    let mut bytes = Vec::new();
    File::open(path).with_context(cannot)?.take(LARGEST_TEXT + 1).read_to_end(&mut bytes).with_context(cannot)?;
    ensure!(bytes.len() as u64 <= LARGEST_TEXT, "{flag}: {} has more than {} MiB", path.display(), LARGEST_TEXT >> 20);
    String::from_utf8(bytes).with_context(|| format!("{flag}: {} is no text", path.display()))
}

/// Writes a file as a whole: beside it first, so that nobody ever sees half of it. `-`, devices and pipes are written to.
pub fn put(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if is_stdout(path) {
        return io::stdout().lock().write_all(bytes).context("cannot write to standard output");
    }
    let cannot = || format!("cannot write {}", path.display());
    match fs::metadata(path) {
        Ok(there) if there.is_file() => replace(&fs::canonicalize(path).with_context(cannot)?, bytes, there.permissions()),
        Ok(there) if there.is_dir() => bail!("cannot write {}: it is a directory, name a file in it", path.display()),
        Ok(_) => OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => replace(path, bytes, Permissions::from_mode(0o644)),
        Err(error) => Err(error),
    }
    .with_context(cannot)
}

/// Whether what is written is what the command prints.
pub fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

fn replace(path: &Path, bytes: &[u8], permissions: Permissions) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), Path::to_owned);
    let mut file = tempfile::Builder::new().prefix(".reef-").tempfile_in(dir).map_err(|error| io::Error::from(error.kind()))?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(permissions)?;
    file.persist(path).map_err(|error| error.error).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, symlink};

    use super::*;

    #[test]
    fn a_file_is_replaced_with_the_rights_it_had_and_a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("a"), dir.path().join("b"));
        put(&file, b"one").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        symlink("a", &link).unwrap();
        put(&link, b"two").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_device_stays_a_device_and_a_directory_is_named() {
        put(Path::new("/dev/null"), b"x").unwrap();
        assert!(fs::symlink_metadata("/dev/null").unwrap().file_type().is_char_device());
        let dir = tempfile::tempdir().unwrap();
        assert!(put(dir.path(), b"x").unwrap_err().to_string().contains("it is a directory, name a file in it"));
        assert!(put(&dir.path().join("no/such"), b"x").unwrap_err().to_string().starts_with("cannot write"));
    }

    #[test]
    fn what_has_no_end_is_not_read_to_it() {
        assert_eq!(text("--readme", Path::new("/dev/zero")).unwrap_err().to_string(), "--readme: /dev/zero has more than 8 MiB");
    }
}
