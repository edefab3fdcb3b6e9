//! A component file: read with a cap, and judged as a host would.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, ensure};
use serde::Serialize;

use super::output::{self, Format};
use crate::{
    names::Digest,
    sandbox::inspect::{Inspected, inspect},
    source::MAX_COMPONENT,
};

pub struct Component {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    pub digest: Digest,
}

impl Component {
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        // To open a pipe or a device could block for ever.
        let found = fs::metadata(path).with_context(|| format!("cannot read the component {shown}"))?;
        ensure!(found.is_file(), "{shown} is not a file: give the component, as in `target/wasm32-wasip2/release/hello.wasm`");
        let mut bytes = Vec::new();
        let file = fs::File::open(path).with_context(|| format!("cannot read the component {shown}"))?;
        file.take(MAX_COMPONENT.0 + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read the component {shown}"))?;
        ensure!(bytes.len() as u64 <= MAX_COMPONENT.0, "{shown} is larger than {MAX_COMPONENT}, the most that a host loads");
        Ok(Self { path: path.to_owned(), digest: Digest::of(&bytes), bytes })
    }

    /// What it says of itself, if a host would load it.
    pub fn inspected(&self) -> anyhow::Result<Inspected> {
        inspect(&self.bytes).map_err(|sentence| anyhow!("{}: a host would not load it: {sentence}", self.path.display()))
    }

    pub fn size(&self) -> String {
        let bytes = self.bytes.len();
        format!("{:.0} kB ({bytes} bytes)", bytes as f64 / 1000.0)
    }

    /// Says which component it is.
    pub fn print(&self, inspected: &Inspected, format: Option<Format>) -> anyhow::Result<()> {
        let manifest = &inspected.manifest;
        let path = self.path.display().to_string();
        match format {
            None => output::print(&output::rows(&[
                ("plugin", format!("{} {}", manifest.name, manifest.version)),
                ("path", path),
                ("size", self.size()),
                ("digest", self.digest.to_string()),
            ])),
            Some(format) => output::print_as(
                format,
                &Summary {
                    name: &manifest.name,
                    version: &manifest.version,
                    path,
                    size: self.bytes.len(),
                    digest: self.digest.to_string(),
                },
            ),
        }
    }
}

#[derive(Serialize)]
struct Summary<'a> {
    name: &'a str,
    version: &'a str,
    path: String,
    /// In bytes.
    size: usize,
    digest: String,
}
