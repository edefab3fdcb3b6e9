//! `reef build`: the release component of a crate, judged as a host would.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};

use super::{cargo::Crate, component::Component, output::Format};
use crate::sandbox::Inspected;

#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The directory of the plugin's crate.
    #[arg(default_value = ".", value_hint = ValueHint::DirPath)]
    path: PathBuf,
    /// Print path, size and digest for programs.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

pub fn run(args: &BuildArgs) -> anyhow::Result<()> {
    let (component, inspected) = built(&Crate::at(&args.path)?)?;
    component.print(&inspected, args.output)
}

/// Builds it, and has it judged.
pub fn built(plugin: &Crate) -> anyhow::Result<(Component, Inspected)> {
    let path = plugin.build()?;
    let component = Component::read(&shorter(&path))?;
    let inspected = component.inspected()?;
    Ok((component, inspected))
}

/// Relative to where we are, if it is below.
fn shorter(path: &Path) -> PathBuf {
    let here = std::env::current_dir().ok();
    here.and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path).to_owned()
}
