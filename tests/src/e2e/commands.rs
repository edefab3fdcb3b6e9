//! The programs that such a person runs, and how they come to the cluster and to the registry.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use super::Target;
use crate::{
    paths,
    tools::{self, CRANE, HELM},
};

pub struct Commands {
    helm: PathBuf,
    crane: PathBuf,
    reef: PathBuf,
    kubeconfig: PathBuf,
    plain_http: bool,
}

impl Commands {
    pub fn new(target: &Target) -> Result<Self> {
        let found = |wanted| tools::locate_one(wanted, &|line| eprintln!("{line}")).map(|tool| tool.path);
        Ok(Self {
            helm: found(HELM)?,
            crane: found(CRANE)?,
            reef: paths::binary("reef")?,
            kubeconfig: target.kubeconfig.clone(),
            plain_http: target.plain_http,
        })
    }

    pub fn helm(&self, namespace: &str, args: &[&str]) -> Result<String> {
        checked(Command::new(&self.helm).args(args).args(["--namespace", namespace]).env("KUBECONFIG", &self.kubeconfig))
    }

    pub fn crane(&self, args: &[&str]) -> Result<String> {
        let insecure = self.plain_http.then_some("--insecure");
        checked(Command::new(&self.crane).args(args).args(insecure))
    }

    pub fn reef(&self, args: &[&str]) -> Result<String> {
        checked(Command::new(&self.reef).args(args).env("KUBECONFIG", &self.kubeconfig))
    }

    /// A command that talks to the registry, too.
    pub fn reef_at_registry(&self, args: &[&str]) -> Result<String> {
        let plain = self.plain_http.then_some("--plain-http");
        self.reef(&args.iter().copied().chain(plain).collect::<Vec<_>>())
    }
}

/// What it prints; a failure says what it said.
fn checked(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    ensure!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&said));
    Ok(String::from_utf8(output.stdout)?)
}
