//! Real cosign, both of its major versions, with key pairs of a test's own and without a public log.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::tools::{self, COSIGN_V2, COSIGN_V3, Tool};

/// Which layout a signature is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A tag beside the image.
    V2,
    /// A manifest that refers to the image.
    V3,
}

pub struct Cosign {
    dir: PathBuf,
    v2: Tool,
    v3: Tool,
}

impl Cosign {
    /// Keys are kept in this directory, which is made.
    pub fn new(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let progress = |line: &str| eprintln!("{line}");
        Ok(Self {
            dir: dir.to_owned(),
            v2: tools::locate_one(COSIGN_V2, &progress)?,
            v3: tools::locate_one(COSIGN_V3, &progress)?,
        })
    }

    /// Makes a key pair, and returns the public key in PEM.
    pub fn key(&self, name: &str) -> Result<String> {
        self.run(Version::V2, &["generate-key-pair", "--output-key-prefix", name])?;
        let path = self.dir.join(format!("{name}.pub"));
        fs::read_to_string(&path).with_context(|| format!("cosign has not written {}", path.display()))
    }

    /// Signs an image, which is named by digest, in a registry without TLS.
    pub fn sign(&self, version: Version, key: &str, image: &str) -> Result<()> {
        self.with_key(version, "sign", key, &[image])
    }

    /// Says something else of an image with the same key.
    pub fn attest(&self, version: Version, key: &str, image: &str) -> Result<()> {
        let predicate = self.dir.join("predicate.json");
        fs::write(&predicate, r#"{"tested": true}"#)?;
        let predicate = predicate.display().to_string();
        self.with_key(version, "attest", key, &["--type", "custom", "--predicate", &predicate, image])
    }

    fn with_key(&self, version: Version, verb: &str, key: &str, more: &[&str]) -> Result<()> {
        let key = format!("{key}.key");
        let mut args = vec![verb, "--key", &key, "--yes", "--allow-http-registry", "--tlog-upload=false"];
        if version == Version::V3 {
            args.push("--use-signing-config=false");
        }
        args.extend(more);
        self.run(version, &args)
    }

    fn run(&self, version: Version, args: &[&str]) -> Result<()> {
        let tool = match version {
            Version::V2 => &self.v2,
            Version::V3 => &self.v3,
        };
        let mut command = Command::new(&tool.path);
        // It is never asked, and finds no configuration of whoever runs the tests.
        command.args(args).current_dir(&self.dir).env("HOME", &self.dir).env("COSIGN_PASSWORD", "");
        let output = command.output().with_context(|| format!("cannot run {}", tool.path.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{} {}: {said}", tool.name, args.join(" "));
        Ok(())
    }
}
