//! `reef embed`: gives a manifest to a component that was built without the SDK.
//!
//! The sections go to the top level of the component, where they are looked for first; nothing else of it changes.

use std::{borrow::Cow, path::PathBuf};

use anyhow::{Context as _, anyhow, bail, ensure};
use clap::{Args, ValueHint};
use serde_json::Value;
use wasm_encoder::{CustomSection, Section as _};
use wasmparser::{BinaryReader, BinaryReaderError};

use super::{component::Component, file, output::Format, yaml};
use crate::{
    contract::{
        Manifest,
        manifest::{CRD_SECTION, SECTION, SETTINGS_SECTION},
    },
    names::Digest,
    sandbox::inspect::{Described, describe},
};

#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// The component. It stays as it is.
    #[arg(value_hint = ValueHint::FilePath)]
    component: PathBuf,
    /// The manifest, as JSON by wit/manifest.schema.json.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    manifest: PathBuf,
    /// A CRD that belongs to the plugin, as YAML; may stand several times.
    #[arg(long = "crd", value_name = "FILE", value_hint = ValueHint::FilePath)]
    crds: Vec<PathBuf>,
    /// The JSON schema of `spec.settings`.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    settings_schema: Option<PathBuf>,
    /// Put these in the place of what the component carries already.
    #[arg(long)]
    replace: bool,
    /// Where the new component goes; `-`: to standard output.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: PathBuf,
    /// Print path, size and digest for programs.
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
}

pub fn run(args: &EmbedArgs) -> anyhow::Result<()> {
    let component = Component::read(&args.component)?;
    let shown = component.path.display();
    let described = describe(&component.bytes).map_err(|sentence| anyhow!("{shown}: {sentence}"))?;
    if !args.replace {
        carries_nothing(&described).with_context(|| shown.to_string())?;
    }
    let sections = sections(args)?;
    let bytes = embed(&component.bytes, &sections).map_err(|error| anyhow!("{shown} is damaged: {error}"))?;
    let made = Component { path: args.output.clone(), digest: Digest::of(&bytes), bytes };
    let inspected = made.inspected()?;
    file::put(&made.path, &made.bytes).context("--output")?;
    if file::is_stdout(&made.path) {
        return Ok(());
    }
    made.print(&inspected, args.format)
}

fn carries_nothing(described: &Described) -> anyhow::Result<()> {
    let carried = match (&described.manifest, described.crds.is_empty() && described.settings.is_none()) {
        (Some(Ok(manifest)), _) => format!("the manifest of {} {}", manifest.name, manifest.version),
        (Some(Err(_)), _) => "a manifest".to_owned(),
        (None, false) => "CRDs or a settings schema".to_owned(),
        (None, true) => return Ok(()),
    };
    bail!("it carries {carried} already: say --replace to put another one in its place")
}

type Section = (&'static str, Vec<u8>);

/// What goes in, each file judged first.
fn sections(args: &EmbedArgs) -> anyhow::Result<Vec<Section>> {
    let mut sections = Vec::new();
    let manifest = file::text("--manifest", &args.manifest)?;
    Manifest::parse(manifest.as_bytes()).map_err(|error| anyhow!("--manifest: {}: {error}", args.manifest.display()))?;
    sections.push((SECTION, manifest.into_bytes()));
    for file in &args.crds {
        let text = file::text("--crd", file)?;
        let documents = yaml::documents(&text).with_context(|| format!("--crd: {} is not YAML", file.display()))?;
        let is_crd = |document: &Value| document.get("kind").is_some_and(|kind| kind == "CustomResourceDefinition");
        ensure!(
            !documents.is_empty() && documents.iter().all(is_crd),
            "--crd: {} holds something else than CustomResourceDefinitions: give files of those alone",
            file.display()
        );
        sections.push((CRD_SECTION, text.into_bytes()));
    }
    if let Some(file) = &args.settings_schema {
        let text = file::text("--settings-schema", file)?;
        let schema: Value =
            serde_json::from_str(&text).with_context(|| format!("--settings-schema: {} is not JSON", file.display()))?;
        ensure!(schema.is_object(), "--settings-schema: {} is no JSON schema: write an object", file.display());
        sections.push((SETTINGS_SECTION, text.into_bytes()));
    }
    Ok(sections)
}

/// The component with these sections at its end, and without those of the same names that stood at its top level.
fn embed(wasm: &[u8], sections: &[Section]) -> Result<Vec<u8>, BinaryReaderError> {
    const HEADER: usize = 8;
    let (header, body) = wasm.split_at_checked(HEADER).unwrap_or((wasm, &[]));
    let mut made = header.to_vec();
    let mut reader = BinaryReader::new(body, HEADER);
    while !reader.eof() {
        let begin = reader.current_position();
        let id = reader.read_u8()?;
        let size = reader.read_var_u32()?;
        let content = reader.read_bytes(size as usize)?;
        if !(id == 0 && is_ours(content)) {
            made.extend_from_slice(body.get(begin..reader.current_position()).unwrap_or_default());
        }
    }
    for (name, data) in sections {
        CustomSection { name: Cow::Borrowed(*name), data: Cow::Borrowed(data.as_slice()) }.append_to(&mut made);
    }
    Ok(made)
}

fn is_ours(custom: &[u8]) -> bool {
    let name = BinaryReader::new(custom, 0).read_string().unwrap_or_default();
    [SECTION, CRD_SECTION, SETTINGS_SECTION].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"(instance $r) (export "reef:plugin/reconciler@0.1.0" (instance $r))"#;
    const MANIFEST: &str = r#"{"name":"a","version":"1.0.0","reconciles":[{"for":"v1/ConfigMap"}]}"#;

    fn sections(version: &str) -> Vec<Section> {
        vec![
            (SECTION, MANIFEST.replace("1.0.0", version).into_bytes()),
            (CRD_SECTION, b"a: 1".to_vec()),
            (CRD_SECTION, b"b: 2".to_vec()),
        ]
    }

    #[test]
    fn what_goes_in_is_found_again_and_takes_the_place_of_what_was_there() {
        let bare = wat::parse_str(format!("(component (@custom \"other\" \"stays\") {BODY})")).unwrap();
        let first = embed(&bare, &sections("1.0.0")).unwrap();
        let found = describe(&first).unwrap();
        assert_eq!((found.refusal, found.crds.len()), (None, 2));
        let second = embed(&first, &sections("2.0.0")[..1]).unwrap();
        let found = describe(&second).unwrap();
        assert_eq!((found.manifest.unwrap().unwrap().version.as_str(), found.crds.len()), ("2.0.0", 0));
        assert!(second.starts_with(&bare), "all else stays as it was");
        assert_eq!(embed(&second, &sections("1.0.0")).unwrap(), first);
    }

    #[test]
    fn a_section_that_lies_about_its_length_is_damage() {
        let bare = wat::parse_str(format!("(component {BODY})")).unwrap();
        assert!(embed(&bare[..bare.len() - 1], &[]).is_err());
    }
}
