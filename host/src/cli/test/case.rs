//! A case: what a component is asked once, and what is in the cluster then.
//!
//! ```yaml
//! request:
//!   object: { apiVersion: example.dev/v1, kind: Banner, metadata: { name: first }, spec: { message: Moin } }
//!   settings: { size: 3 }         # spec.settings of the Plugin
//!   now: 2026-01-01T00:00:00Z
//!   seed: 7
//!   attempt: 0                    # failures in a row before this call
//! objects: []                     # what is in the cluster beside it
//! limits: { memory: 64Mi }        # spec.limits of the Plugin
//! ```

use std::{
    collections::{HashMap, hash_map::Entry},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::cluster::{Cluster, placed};
use crate::{
    capability::Grant,
    catalog::{crd, desired},
    contract::{Manifest, Request, manifest::Reconciles},
    names::{Kind, PluginId},
    rbac::kinds::Kinds,
    sandbox::{Call, Limits},
};

/// How the files end that hold what is expected.
const GOLDEN: &str = ".golden.yaml";
/// The time of a call that does not say another one.
const NOW: &str = "2026-01-01T00:00:00Z";
/// Where the object is if it does not say so.
const NAMESPACE: &str = "default";

pub struct Case {
    pub name: String,
    pub path: PathBuf,
    pub golden: PathBuf,
    file: File,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    request: Said,
    #[serde(default)]
    objects: Vec<Value>,
    #[serde(default)]
    limits: Option<crd::Limits>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Said {
    object: Value,
    #[serde(default)]
    settings: Option<Value>,
    #[serde(default)]
    now: Option<String>,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    attempt: u32,
}

/// What a case comes to for one component.
pub struct Asked {
    pub request: Request,
    pub call: Call,
    pub cluster: Arc<Cluster>,
    /// The object is on its way out.
    pub cleanup: bool,
    /// Its kind has a status subresource.
    pub status: bool,
}

/// The cases in this directory whose names contain the filter, by name.
pub fn find(dir: &Path, filter: Option<&str>) -> anyhow::Result<Vec<Case>> {
    let shown = dir.display();
    let entries = fs::read_dir(dir).with_context(|| {
        format!("there are no cases in {shown}: write one as NAME.yaml, with `request` and `objects` (`reef new` writes one)")
    })?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    let names: Vec<(String, PathBuf)> = paths.into_iter().filter_map(|path| Some((case_name(&path)?, path))).collect();
    ensure!(!names.is_empty(), "there are no cases in {shown}: write one as NAME.yaml, with `request` and `objects`");
    let all: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
    let all = all.join(", ");
    let wanted = names.into_iter().filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter)));
    let cases = wanted.map(|(name, path)| Case::read(name, path)).collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(!cases.is_empty(), "no case in {shown} has `{}` in its name: there are {all}", filter.unwrap_or_default());
    Ok(cases)
}

fn case_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    if file.ends_with(GOLDEN) || !path.is_file() {
        return None;
    }
    file.strip_suffix(".yaml").map(str::to_owned)
}

impl Case {
    fn read(name: String, path: PathBuf) -> anyhow::Result<Self> {
        let shown = path.display();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {shown}"))?;
        let file = serde_norway::from_str(&text).with_context(|| format!("{shown} is no case"))?;
        Ok(Self { golden: path.with_file_name(format!("{name}{GOLDEN}")), name, path, file })
    }

    /// The call of it, for the component with this manifest.
    pub fn asked(&self, manifest: &Manifest, kinds: &Kinds) -> anyhow::Result<Asked> {
        let said = &self.file.request;
        let (key, object) = placed(said.object.clone(), kinds, NAMESPACE).map_err(|said| anyhow!("request.object: {said}"))?;
        let Some(entry) = manifest.entry(&key.kind) else {
            let served: Vec<String> = manifest.reconciles.iter().map(|entry| entry.kind.to_string()).collect();
            bail!("request.object is of kind {}: {} reconciles {}", key.kind, manifest.name, served.join(" and "));
        };
        let cleanup = said.object.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null());
        ensure!(
            !cleanup || entry.cleanup,
            "request.object has a metadata.deletionTimestamp: {} does not clean up after {}, so it would not be called",
            manifest.name,
            key.kind
        );
        let mut objects = HashMap::from([(key.clone(), object.clone())]);
        for (n, other) in self.file.objects.iter().enumerate() {
            let (id, bytes) = placed(other.clone(), kinds, &key.namespace).map_err(|said| anyhow!("objects[{n}]: {said}"))?;
            match objects.entry(id) {
                Entry::Occupied(twice) => bail!("objects[{n}]: {} stands there twice", twice.key()),
                Entry::Vacant(free) => {
                    free.insert(bytes);
                }
            }
        }
        let plugin = PluginId::new(if key.namespace.is_empty() { NAMESPACE } else { &key.namespace }, &manifest.name);
        let cluster = Cluster::new(objects);
        let call = Call { grant: Arc::new(grant(&plugin, entry, kinds)), plugin, reads: cluster.clone(), limits: self.limits()? };
        let request = Request {
            object: String::from_utf8_lossy(&object).into_owned(),
            settings: said.settings.as_ref().map_or_else(|| "{}".to_owned(), Value::to_string),
            now: millis(said.now.as_deref().unwrap_or(NOW))?,
            seed: said.seed,
            attempt: said.attempt,
            key,
        };
        let status = kinds.of(&entry.kind).status;
        Ok(Asked { request, call, cluster, cleanup, status })
    }

    fn limits(&self) -> anyhow::Result<Limits> {
        let Some(limits) = &self.file.limits else { return Ok(Limits::default()) };
        let desired::Limits { memory, cpu, deadline } = desired::limits(limits)?;
        Ok(Limits { memory, cpu, deadline })
    }
}

fn grant(plugin: &PluginId, entry: &Reconciles, kinds: &Kinds) -> Grant {
    let named = || [&entry.kind].into_iter().chain(&entry.owns).chain(&entry.reads);
    let of = |wanted: fn(&Kinds, &Kind) -> bool| named().filter(|kind| wanted(kinds, kind)).cloned().collect();
    Grant {
        plugin: plugin.clone(),
        entry: entry.clone(),
        cluster_scoped: of(|kinds, kind| !kinds.of(kind).namespaced),
        unknown: of(|kinds, kind| !kinds.of(kind).known),
    }
}

fn millis(now: &str) -> anyhow::Result<u64> {
    let time: Option<Timestamp> = now.parse().ok();
    let millis = time.and_then(|time| u64::try_from(time.as_millisecond()).ok());
    millis.with_context(|| format!("request.now: `{now}` is not a time: write it as in {NOW}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(yaml: &str) -> anyhow::Result<Case> {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("x.yaml"), yaml)?;
        fs::write(dir.path().join("x.golden.yaml"), "{}")?;
        Ok(find(dir.path(), None)?.remove(0))
    }

    fn asked(yaml: &str) -> anyhow::Result<Asked> {
        let json = br#"{"name":"a","version":"1.0.0","reconciles":[{"for":"example.dev/v1/Banner","reads":["v1/Node"]}]}"#;
        case(yaml)?.asked(&Manifest::parse(json)?, &Kinds::with_crds(&[]))
    }

    const BANNER: &str = "{ apiVersion: example.dev/v1, kind: Banner, metadata: { name: b } }";

    #[test]
    fn a_case_that_says_little_has_defaults() {
        let asked = asked(&format!("request: {{ object: {BANNER} }}")).unwrap();
        assert_eq!(asked.request.key.to_string(), "example.dev/v1/Banner default/b");
        assert_eq!((asked.request.now, asked.request.settings.as_str()), (1_767_225_600_000, "{}"));
        assert_eq!((asked.call.limits, asked.cleanup, asked.status), (Limits::default(), false, true));
        assert_eq!(asked.call.grant.cluster_scoped, [Kind::new("", "v1", "Node")]);
        assert_eq!(asked.call.grant.unknown, [Kind::new("example.dev", "v1", "Banner")]);
    }

    #[test]
    fn what_it_says_is_what_is_asked() {
        let yaml = format!(
            "request: {{ object: {BANNER}, settings: {{ size: 3 }}, now: '1970-01-01T00:00:07Z', seed: 9, attempt: 2 }}\n\
             limits: {{ memory: 64Mi }}\n"
        );
        let asked = asked(&yaml).unwrap();
        let Request { now, seed, attempt, settings, .. } = asked.request;
        assert_eq!((now, seed, attempt, settings.as_str()), (7000, 9, 2, r#"{"size":3}"#));
        assert_eq!(asked.call.limits.memory.to_string(), "64Mi");
    }

    #[test]
    fn what_makes_no_sense_gets_a_sentence() {
        let config = "{ apiVersion: v1, kind: ConfigMap, metadata: { name: a } }";
        let deleted = "{ apiVersion: example.dev/v1, kind: Banner, metadata: { name: b, deletionTimestamp: x } }";
        for (yaml, part) in [
            ("request: {}".to_owned(), "missing field `object`"),
            (format!("request: {{ object: {BANNER}, sed: 1 }}"), "unknown field `sed`"),
            (format!("request: {{ object: {config} }}"), "is of kind v1/ConfigMap: a reconciles example.dev/v1/Banner"),
            (format!("request: {{ object: {deleted} }}"), "does not clean up"),
            (format!("request: {{ object: {BANNER}, now: soon }}"), "request.now: `soon` is not a time"),
            (
                format!("request: {{ object: {BANNER} }}\nobjects: [{config}, {config}]"),
                "objects[1]: v1/ConfigMap default/a stands there twice",
            ),
            (format!("request: {{ object: {BANNER} }}\nobjects: [{{}}]"), "objects[0]: it has no apiVersion"),
            (format!("request: {{ object: {BANNER} }}\nlimits: {{ memory: 1Gi }}"), "`1Gi` is out of range"),
            ("request: [".to_owned(), "x.yaml is no case"),
        ] {
            let said = format!("{:#}", asked(&yaml).err().unwrap());
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn no_case_and_a_filter_that_matches_none_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let said = |filter| format!("{:#}", find(dir.path(), filter).err().unwrap());
        assert!(said(None).contains("there are no cases in"));
        for name in ["a", "b"] {
            fs::write(dir.path().join(format!("{name}.yaml")), format!("request: {{ object: {BANNER} }}")).unwrap();
        }
        assert!(said(Some("c")).contains("has `c` in its name: there are a, b"));
        assert_eq!(find(dir.path(), Some("b")).unwrap().len(), 1);
    }
}
