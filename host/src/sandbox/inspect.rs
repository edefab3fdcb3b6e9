//! What a component says of itself, read from its bytes before anything is compiled.
//!
//! Manifest, CRDs and settings schema stand in custom sections: at the top level, or nested in a module, where Rust's
//! linker leaves them. Imports and exports are compared with what this host offers ([`offer`]). Bytes in, or a sentence
//! out; nothing is run.

mod offer;

use wasmparser::{BinaryReaderError, ComponentExternalKind, Encoding, Parser, Payload};

use self::offer::{exported, offered};
use crate::contract::{
    Manifest,
    manifest::{CRD_SECTION, SECTION, SETTINGS_SECTION},
};

/// What the custom sections may hold together.
const MAX_SECTIONS: usize = 4 << 20;

/// What was found in a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    pub manifest: Manifest,
    /// YAML text, one or more documents each.
    pub crds: Vec<String>,
    /// The JSON schema of `spec.settings`.
    pub settings: Option<String>,
    /// Interfaces with their versions.
    pub imports: Vec<String>,
}

/// The same of a component that this host may not load, as far as it can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// `None`: it carries none. An error is a sentence.
    pub manifest: Option<Result<Manifest, String>>,
    pub crds: Vec<String>,
    pub settings: Option<String>,
    /// Each with what it lets the component do, or why this host does not offer it.
    pub imports: Vec<(String, Result<&'static str, String>)>,
    /// Why this host would not load it, if it would not.
    pub refusal: Option<String>,
}

/// Reads a component that is to be loaded. The error is a sentence.
pub fn inspect(wasm: &[u8]) -> Result<Inspected, String> {
    looks_like_wasm(wasm)?;
    judged(scan(wasm)?)
}

/// Reads any component, to tell people what it is.
pub fn describe(wasm: &[u8]) -> Result<Described, String> {
    looks_like_wasm(wasm)?;
    let found = scan(wasm)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let sections = &found.sections;
    Ok(Described {
        manifest: sections.manifest.map(|json| Manifest::parse(json).map_err(|error| error.to_string())),
        crds: sections.crds.iter().map(|crd| text(crd)).collect(),
        settings: sections.settings.map(text),
        imports: found.imports.iter().map(|import| (import.clone(), offered(import))).collect(),
        refusal: judged(found).err(),
    })
}

fn judged(found: Found<'_>) -> Result<Inspected, String> {
    for import in &found.imports {
        offered(import)?;
    }
    exported(&found.exports)?;
    let manifest = found
        .sections
        .manifest
        .ok_or_else(|| "it carries no manifest: add the `plugin!` line of the SDK, or one with `reef embed`".to_owned())?;
    let manifest = Manifest::parse(manifest).map_err(|error| error.to_string())?;
    let crds = found.sections.crds.iter().map(|crd| text(CRD_SECTION, crd)).collect::<Result<_, _>>()?;
    let settings = found.sections.settings.map(|schema| text(SETTINGS_SECTION, schema)).transpose()?;
    Ok(Inspected { manifest, crds, settings, imports: found.imports })
}

fn text(section: &str, bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| format!("its custom section `{section}` is not UTF-8 text"))
}

/// Magic and layer of the first eight bytes; for anything else a guess of what it is.
fn looks_like_wasm(bytes: &[u8]) -> Result<(), String> {
    match bytes {
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            Err("it is a core module, not a component: build it with --target wasm32-wasip2".to_owned())
        }
        [0, b'a', b's', b'm', version @ ..] => {
            let version: Vec<u8> = version.iter().take(4).copied().collect();
            Err(format!("it is WebAssembly of an unknown version {version:02x?}: build it with --target wasm32-wasip2"))
        }
        [] => Err("it is empty: 0 bytes".to_owned()),
        other => Err(format!("it is not WebAssembly: it begins with {}", beginning(other))),
    }
}

fn beginning(bytes: &[u8]) -> String {
    let head: Vec<u8> = bytes.iter().take(24).copied().collect();
    let printable = |b: &u8| b.is_ascii_graphic() || matches!(b, b' ' | b'\n' | b'\r' | b'\t');
    if !head.iter().all(printable) {
        let guess = match head.as_slice() {
            [0x1f, 0x8b, ..] => ", a gzip archive",
            [0x7f, b'E', b'L', b'F', ..] => ", a native program or compiled code",
            [b'P', b'K', ..] => ", a zip archive",
            _ => "",
        };
        let hex: Vec<String> = head.iter().take(8).map(|b| format!("{b:02x}")).collect();
        return format!("the bytes {}{guess}", hex.join(" "));
    }
    let shown = String::from_utf8_lossy(&head).escape_debug().to_string();
    let lower = shown.to_ascii_lowercase();
    let guess = if lower.starts_with("<!doctype") || lower.starts_with("<html") {
        ", an HTML page: was it downloaded from a login or error page?"
    } else if lower.starts_with("(component") || lower.starts_with("(module") {
        ", WebAssembly as text: assemble it first"
    } else if lower.starts_with("version https://git-lfs") {
        ", a Git LFS pointer: fetch the file itself"
    } else {
        ", which is text"
    };
    format!("`{shown}`{guess}")
}

#[derive(Default)]
struct Sections<'a> {
    manifest: Option<&'a [u8]>,
    settings: Option<&'a [u8]>,
    crds: Vec<&'a [u8]>,
}

impl<'a> Sections<'a> {
    fn add(&mut self, name: &str, data: &'a [u8]) {
        match name {
            SECTION => self.manifest = Some(data),
            SETTINGS_SECTION => self.settings = Some(data),
            CRD_SECTION => self.crds.push(data),
            _ => {}
        }
    }

    fn bytes(&self) -> usize {
        let one = |section: Option<&[u8]>| section.map_or(0, <[u8]>::len);
        one(self.manifest) + one(self.settings) + self.crds.iter().map(|crd| crd.len()).sum::<usize>()
    }

    /// The sections of the top level, and from the modules what is missing there.
    fn or(self, nested: Self) -> Self {
        Self {
            manifest: self.manifest.or(nested.manifest),
            settings: self.settings.or(nested.settings),
            crds: if self.crds.is_empty() { nested.crds } else { self.crds },
        }
    }
}

struct Found<'a> {
    imports: Vec<String>,
    exports: Vec<String>,
    sections: Sections<'a>,
}

/// Walks over the component and all that is nested in it, skipping the code.
fn scan(wasm: &[u8]) -> Result<Found<'_>, String> {
    let broken = |error: BinaryReaderError| {
        format!("it is damaged: {} at byte {}; build or fetch it again", error.message(), error.offset())
    };
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let (mut top, mut nested) = (Sections::default(), Sections::default());
    let mut depth: u32 = 0;
    let mut whole = false;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(broken)? {
            Payload::Version { encoding: Encoding::Module, .. } | Payload::Version { encoding: Encoding::Component, .. } => {}
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) if depth > 0 => depth -= 1,
            Payload::End(_) => whole = true,
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import.map_err(broken)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(broken)?;
                    if export.kind == ComponentExternalKind::Instance {
                        exports.push(export.name.name.to_owned());
                    }
                }
            }
            Payload::CustomSection(section) => {
                if depth == 0 { &mut top } else { &mut nested }.add(section.name(), section.data());
            }
            _ => {}
        }
    }
    if !whole {
        return Err("it is damaged: it ends too early; build or fetch it again".to_owned());
    }
    let sections = top.or(nested);
    if sections.bytes() > MAX_SECTIONS {
        return Err(format!(
            "its manifest, CRDs and settings schema have {} bytes, {MAX_SECTIONS} are allowed",
            sections.bytes()
        ));
    }
    Ok(Found { imports, exports, sections })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"{\"name\":\"a\",\"version\":\"1.0.0\",\"reconciles\":[{\"for\":\"v1/ConfigMap\"}]}"#;

    fn component(body: &str) -> Vec<u8> {
        wat::parse_str(format!("(component {body})")).unwrap()
    }

    fn reconciler(rest: &str) -> Vec<u8> {
        component(&format!(r#"{rest} (instance $r) (export "reef:plugin/reconciler@0.1.0" (instance $r))"#))
    }

    fn refused(wasm: &[u8]) -> String {
        inspect(wasm).unwrap_err()
    }

    #[test]
    fn the_manifest_is_found_at_the_top_or_in_a_module() {
        let top = format!(r#"(@custom "reef.manifest" "{MANIFEST}")"#);
        let nested = format!(
            r#"(core module (@custom "reef.manifest" "{MANIFEST}") (@custom "reef.crd" "a: 1") (@custom "reef.crd" "b: 2"))"#
        );
        assert_eq!(inspect(&reconciler(&top)).unwrap().manifest.name, "a");
        let found = inspect(&reconciler(&nested)).unwrap();
        assert_eq!((found.manifest.version.as_str(), found.crds), ("1.0.0", vec!["a: 1".to_owned(), "b: 2".to_owned()]));
        let other = top.replace("1.0.0", "2.0.0");
        assert_eq!(inspect(&reconciler(&format!("{nested}{other}"))).unwrap().manifest.version, "2.0.0", "the top level wins");
    }

    #[test]
    fn what_is_no_component_is_named() {
        for (bytes, part) in [
            (&b""[..], "empty"),
            (b"<!DOCTYPE html><html>", "HTML page"),
            (b"404 page not found", "`404 page not found`, which is text"),
            (b"\x1f\x8b\x08\x00\x00\x00", "1f 8b 08 00 00 00, a gzip archive"),
            (b"\x7fELF\x02\x01\x01\x00", "native program"),
            (b"(component)", "assemble it"),
            (b"\0asm\x01\0\0\0", "is a core module, not a component: build it with --target wasm32-wasip2"),
            (b"\0asm\x0a\0\x01\0", "unknown version"),
            (b"\0asm", "unknown version"),
        ] {
            let sentence = refused(bytes);
            assert!(sentence.contains(part), "{sentence}");
        }
    }

    #[test]
    fn a_component_that_was_cut_off_is_damaged() {
        let whole = reconciler(&format!(r#"(@custom "reef.manifest" "{MANIFEST}")"#));
        for end in 9..whole.len() {
            match inspect(&whole[..end]) {
                // WebAssembly has no mark at its end: what lacks only names and notes is whole.
                Ok(found) => assert_eq!(Ok(found), inspect(&whole)),
                Err(sentence) => {
                    let known =
                        ["damaged", "manifest", "reconciler", "unknown version"].iter().any(|word| sentence.contains(word));
                    assert!(known, "cut at {end}: {sentence}");
                }
            }
        }
    }

    #[test]
    fn a_component_without_reconciler_or_manifest_says_so() {
        assert!(refused(&component("")).contains("exports no reconciler"));
        assert!(refused(&reconciler("")).contains("no manifest: add the `plugin!` line"));
        let next = component(r#"(instance $r) (export "reef:plugin/reconciler@0.2.0" (instance $r))"#);
        assert!(refused(&next).contains("reconciler@0.2, this host calls reef:plugin/reconciler@0.1.0"));
        let broken = reconciler(r#"(@custom "reef.manifest" "{}")"#);
        assert!(refused(&broken).contains("its manifest is not valid"));
    }

    #[test]
    fn what_is_not_loaded_is_described_all_the_same() {
        let manifest = format!(r#"(@custom "reef.manifest" "{MANIFEST}")"#);
        let imports = r#"(import "reef:plugin/reads@0.1.0" (instance)) (import "wasi:sockets/tcp@0.2.6" (instance))"#;
        let found = describe(&reconciler(&format!("{imports}{manifest}"))).unwrap();
        assert_eq!(found.manifest.unwrap().unwrap().name, "a");
        assert!(found.imports[0].1.as_ref().unwrap().contains("reads objects"), "{:?}", found.imports);
        assert_eq!(found.imports[1].1.as_ref().unwrap_err(), &found.refusal.unwrap());
        assert_eq!(describe(&reconciler(&manifest)).unwrap().refusal, None);
        assert!(describe(b"text").is_err() && describe(&component("")).unwrap().manifest.is_none());
    }

    /// Promises: S7
    /// Breaks it: an import that only the linker finds missing.
    #[test]
    fn an_import_that_is_not_offered_is_refused_with_a_sentence() {
        for (import, part) in [
            ("reef:plugin/reads@0.2.0", "it wants reef:plugin/reads@0.2.0, this host offers reef:plugin@0.1.0"),
            ("reef:plugin/secrets@0.1.0", "which reef:plugin@0.1.0 does not have"),
            ("wasi:filesystem/types@0.2.6", "a plugin has no files"),
            ("wasi:sockets/tcp@0.2.6", "a plugin has no network"),
            ("wasi:http/outgoing-handler@0.2.6", "makes no HTTP requests"),
            ("wasi:cli/stdout@0.3.0", "this host offers WASI 0.2"),
            ("acme:db/sql@1.0.0", "it wants acme:db/sql@1.0.0, which this host does not offer"),
        ] {
            let sentence = refused(&reconciler(&format!(r#"(import "{import}" (instance))"#)));
            assert!(sentence.contains(part), "{sentence}");
        }
        for import in ["reef:plugin/reads@0.1.7", "wasi:io/streams@0.2.3"] {
            assert!(refused(&reconciler(&format!(r#"(import "{import}" (instance))"#))).contains("no manifest"), "{import}");
        }
    }
}
