//! `reef pull`: the component of an artifact into a file, checked against its digests.

use std::path::PathBuf;

use anyhow::{anyhow, ensure};
use clap::{Args, ValueHint};
use serde_json::json;

use super::{
    file,
    output::{self, Format},
    progress::Progress,
    remote::{self, RemoteArgs},
};
use crate::source::{
    SourceError, is_component,
    layout::LayoutError,
    oci::{self, Artifact},
    reference::Reference,
    registry::Registry,
};

#[derive(Debug, Args)]
pub struct PullArgs {
    /// What to pull, as in `registry.example/team/hello:1.2.0` or `…@sha256:…`.
    reference: Reference,
    /// The file to write, or to replace; `-`: standard output. Default: the last part of the name with `.wasm`, which must not be there.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// Print what was pulled for programs.
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    #[command(flatten)]
    remote: RemoteArgs,
}

pub fn run(args: &PullArgs) -> anyhow::Result<()> {
    let reference = &args.reference;
    let path = match &args.output {
        Some(path) => path.clone(),
        None => {
            let name = reference.repository.rsplit('/').next().unwrap_or_default();
            let path = PathBuf::from(format!("{name}.wasm"));
            ensure!(!path.exists(), "{} is there already: name a file with -o", path.display());
            path
        }
    };
    let (artifact, bytes) = fetch(&args.remote, reference)?;
    file::put(&path, &bytes)?;
    if file::is_stdout(&path) {
        return Ok(());
    }
    let pinned = reference.pinned(artifact.top.digest).to_string();
    let shown = path.display().to_string();
    match args.format {
        Some(format) => output::print_as(
            format,
            &json!({
                "reference": reference.to_string(),
                "pinned": pinned,
                "manifest": artifact.top.digest.to_string(),
                "component": artifact.digest.to_string(),
                "size": bytes.len(),
                "path": shown,
            }),
        ),
        None => output::print(&output::rows(&[
            ("pulled", reference.to_string()),
            ("pinned", pinned),
            ("component", artifact.digest.to_string()),
            ("path", shown),
        ])),
    }
}

/// The component of an artifact, with whatever credentials open it.
pub fn fetch(remote: &RemoteArgs, reference: &Reference) -> anyhow::Result<(Artifact, bytes::Bytes)> {
    remote::block_on(async {
        let (mut progress, mut last) = (Progress::new(), None);
        let doing = format!("pulling {reference}");
        for registry in remote.open(reference)? {
            match progress.during(&doing, pull(&registry, reference)).await {
                Err(SourceError::Registry { image, error }) if error.is_about_credentials() => {
                    last = Some(SourceError::Registry { image, error });
                }
                other => return other.map_err(remote::plain),
            }
        }
        Err(last.map_or_else(|| anyhow!("{reference}: no credentials to try"), remote::plain))
    })
}

async fn pull(registry: &Registry, reference: &Reference) -> Result<(Artifact, bytes::Bytes), SourceError> {
    let artifact = oci::look(registry, reference).await?;
    let image = reference.to_string();
    let refused = |error| SourceError::Registry { image: image.clone(), error };
    let bytes = registry.blob(artifact.digest, artifact.size).await.map_err(refused)?;
    is_component(&bytes).map_err(|why| SourceError::Layout { image: image.clone(), error: LayoutError::NotAComponent(why) })?;
    Ok((artifact, bytes))
}
