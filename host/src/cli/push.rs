//! `reef push`: a component as an artifact of the CNCF's layout, with the same digest for the same bytes.
//!
//! The artifact has one layer, the component. CRDs and settings schema are in its custom sections, what it may do is computed
//! from its manifest, and a README travels as an annotation: so whoever knows the layout, and nothing of Reef, finds exactly
//! one layer.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{anyhow, ensure};
use bytes::Bytes;
use clap::{Args, ValueHint};
use serde_json::json;

use super::{
    component::Component,
    file,
    output::{self, Format},
    progress::Progress,
    remote::{self, RemoteArgs},
};
use crate::{
    names::Digest,
    sandbox::inspect::Inspected,
    source::{
        layout::{CONFIG, LAYER},
        reference::{Reference, Version},
        registry::{MANIFEST, Registry, RegistryError},
    },
};

/// In an annotation; registries take manifests of 4 MiB.
const LARGEST_README: usize = 64 << 10;
/// The same always: what is pushed again is the same artifact.
const CREATED: &str = "1970-01-01T00:00:00Z";
/// The annotation with the README's text.
const README: &str = "dev.reef.readme";

#[derive(Debug, Args)]
pub struct PushArgs {
    /// The component.
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Where to, as in `registry.example/team/hello:1.2.0`.
    reference: Reference,
    /// A README that travels with it.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    readme: Option<PathBuf>,
    /// A further annotation; as often as there are some.
    #[arg(long, value_name = "KEY=VALUE", value_parser = annotation)]
    annotation: Vec<(String, String)>,
    /// Print what was pushed for programs.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    remote: RemoteArgs,
}

fn annotation(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("write KEY=VALUE, as in `org.opencontainers.image.licenses=Apache-2.0`".into()),
    }
}

pub fn run(args: &PushArgs) -> anyhow::Result<()> {
    let reference = &args.reference;
    let Version::Tag(tag) = reference.version() else {
        return Err(anyhow!(
            "{reference}: an artifact is pushed by tag, and gets its digest from its content: leave out `@sha256:…`"
        ));
    };
    let component = Component::read(&args.file)?;
    let inspected = component.inspected()?;
    let config = config(&component, &inspected);
    let manifest = manifest(&component, &config, annotations(args, &inspected)?);
    let pushed = remote::block_on(async {
        let (mut progress, mut last) = (Progress::new(), None);
        let doing = format!("pushing {} to {}", component.size(), reference.registry);
        for registry in args.remote.open(reference)? {
            match progress.during(&doing, push(&registry, &component, &config, &manifest, &tag)).await {
                Err(error) if error.is_about_credentials() => last = Some(error),
                other => return other.map_err(|error| anyhow!("{reference}: {error}")),
            }
        }
        Err(last.map_or_else(|| anyhow!("{reference}: no credentials to try"), |error| anyhow!("{reference}: {error}")))
    })?;
    let by_digest = reference.pinned(pushed).to_string();
    match args.output {
        Some(format) => output::print_as(
            format,
            &json!({
                "reference": reference.to_string(),
                "pinned": by_digest,
                "manifest": pushed.to_string(),
                "component": component.digest.to_string(),
                "size": component.bytes.len(),
            }),
        ),
        None => output::print(&output::rows(&[
            ("plugin", format!("{} {}", inspected.manifest.name, inspected.manifest.version)),
            ("pushed", reference.to_string()),
            ("pinned", by_digest),
            ("component", component.digest.to_string()),
            ("size", component.size()),
        ])),
    }
}

async fn push(
    registry: &Registry,
    component: &Component,
    config: &[u8],
    manifest: &[u8],
    tag: &str,
) -> Result<Digest, RegistryError> {
    registry.push_blob(Bytes::copy_from_slice(&component.bytes)).await?;
    registry.push_blob(Bytes::copy_from_slice(config)).await?;
    registry.push_manifest(&Version::Tag(tag.into()), MANIFEST, Bytes::copy_from_slice(manifest)).await
}

fn annotations(args: &PushArgs, inspected: &Inspected) -> anyhow::Result<BTreeMap<String, String>> {
    let standard = |name: &str| format!("org.opencontainers.image.{name}");
    let mut all = BTreeMap::from([
        (standard("title"), inspected.manifest.name.clone()),
        (standard("version"), inspected.manifest.version.clone()),
        (standard("created"), CREATED.into()),
    ]);
    if let Some(path) = &args.readme {
        let text = file::text("--readme", path)?;
        let size = text.len();
        ensure!(
            size <= LARGEST_README,
            "--readme: {} has {size} bytes; {LARGEST_README} travel with an artifact at most",
            path.display()
        );
        all.insert(README.into(), text);
    }
    all.extend(args.annotation.iter().cloned());
    Ok(all)
}

fn config(component: &Component, inspected: &Inspected) -> Vec<u8> {
    let config = json!({
        "created": CREATED,
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [component.digest.to_string()],
        "component": { "exports": [], "imports": inspected.imports, "target": null },
    });
    config.to_string().into_bytes()
}

fn manifest(component: &Component, config: &[u8], annotations: BTreeMap<String, String>) -> Vec<u8> {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "digest": Digest::of(config).to_string(), "size": config.len() },
        "layers": [{ "mediaType": LAYER, "digest": component.digest.to_string(), "size": component.bytes.len() }],
        "annotations": annotations,
    });
    manifest.to_string().into_bytes()
}
