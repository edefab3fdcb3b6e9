//! All objects of an installation, in the order in which they are applied: CRDs, account and rights, the component, the
//! Plugin. Pure.

use std::collections::BTreeSet;

use anyhow::{anyhow, bail, ensure};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::{
    cli::{
        cluster::{called, text_at},
        component::Component,
        inspect, made,
    },
    rbac::{self, Document, Host, Named, Wanted, kinds::Kinds},
    sandbox::Inspected,
    status,
};

/// What the API server takes as the data of one ConfigMap, in bytes.
const CONFIG_MAP: usize = 1 << 20;
/// The key of the component in its ConfigMap.
pub const KEY: &str = "plugin.wasm";

/// What is asked for.
pub struct Package<'a> {
    pub component: &'a Component,
    pub inspected: &'a Inspected,
    pub namespace: &'a str,
    pub name: &'a str,
    pub account: &'a str,
    pub class: &'a str,
    pub host: &'a Host,
    pub from: &'a From,
    pub pin: Pin,
    pub settings: Option<Value>,
    /// CRDs of earlier versions of it.
    pub crds_before: Vec<String>,
    pub crds: Included,
    pub rights: Included,
}

/// Where the host is to take the component from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// A ConfigMap that is made for it.
    ConfigMap,
    /// A file below the host's plugin directory.
    File(String),
    /// A registry, with the pull secrets that open it.
    Image { image: String, secrets: Vec<String> },
}

/// Whether the Plugin names the digest that alone is to be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    Digest,
    Nothing,
}

/// Whether a part of an installation is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Included {
    Yes,
    /// Somebody else has seen to it.
    No,
}

/// An object to apply.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    pub part: Part,
    pub object: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Crd,
    Rights,
    Component,
    Plugin,
}

impl Package<'_> {
    pub fn pieces(&self) -> anyhow::Result<Vec<Piece>> {
        let crds = inspect::crds(&self.inspected.crds)?;
        self.stays_in_its_namespace(&Kinds::with_crds(&crds))?;
        let mut all = Vec::new();
        if self.crds == Included::Yes {
            all.extend(self::crds(self.inspected)?);
        }
        if self.rights == Included::Yes {
            all.extend(self.rights(&crds)?.into_iter().map(|object| Piece { part: Part::Rights, object }));
        }
        if *self.from == From::ConfigMap {
            all.push(Piece { part: Part::Component, object: self.config_map()? });
        }
        all.push(Piece { part: Part::Plugin, object: self.plugin(&crds) });
        for piece in all.iter_mut().filter(|piece| piece.part != Part::Crd) {
            made::label(&mut piece.object, self.namespace, self.name);
        }
        Ok(all)
    }

    /// What no host would run is not given any rights first.
    fn stays_in_its_namespace(&self, kinds: &Kinds) -> anyhow::Result<()> {
        let manifest = &self.inspected.manifest;
        let mut all =
            manifest.reconciles.iter().flat_map(|entry| [&entry.kind].into_iter().chain(&entry.owns).chain(&entry.writes));
        match all.find(|kind| !kinds.of(kind).namespaced) {
            None => Ok(()),
            Some(kind) => bail!(
                "{}: objects of kind {kind} have no namespace, and a plugin reconciles, owns and writes in its own namespace alone: \
                 take it out of the manifest",
                self.component.path.display()
            ),
        }
    }

    fn rights(&self, crds: &[Value]) -> anyhow::Result<Vec<Value>> {
        let kinds = Kinds::with_crds(crds);
        let wanted = Wanted {
            manifest: &self.inspected.manifest,
            kinds: &kinds,
            account: self.account,
            namespace: Some(self.namespace),
            host: self.host,
            source: &self.read_by_name(),
        };
        let documents = rbac::documents(wanted).map_err(|sentence| anyhow!("{}: {sentence}", self.component.path.display()))?;
        Ok(documents.into_iter().map(|Document { object, .. }| object).collect())
    }

    fn config_map(&self) -> anyhow::Result<Value> {
        let (bytes, path) = (&self.component.bytes, self.component.path.display());
        ensure!(
            bytes.len() <= CONFIG_MAP,
            "{path} has {} bytes, and a ConfigMap holds {CONFIG_MAP}: push it to a registry (`reef push`) and install it from there, \
             or copy it into the host's plugin directory and name it with --plugin-file; building with `opt-level = \"z\"`, \
             `lto = true` and `strip = true` makes it smaller",
            bytes.len()
        );
        Ok(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": config_map(self.name), "namespace": self.namespace },
            "binaryData": { KEY: ByteString(bytes.clone()) },
        }))
    }

    fn plugin(&self, crds: &[Value]) -> Value {
        let kind = status::resource().kind;
        let brought = crds.iter().map(|crd| text_at(crd, "/metadata/name"));
        let names: BTreeSet<&str> = brought.chain(self.crds_before.iter().map(String::as_str)).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let mut spec = json!({ "className": self.class, "source": self.source() });
        if let Some(fields) = spec.as_object_mut() {
            if self.pin == Pin::Digest {
                fields.insert("digest".into(), self.component.digest.to_string().into());
            }
            if self.account != self.name {
                fields.insert("serviceAccountName".into(), self.account.into());
            }
            if let Some(settings) = &self.settings {
                fields.insert("settings".into(), settings.clone());
            }
        }
        json!({
            "apiVersion": kind.api_version(), "kind": &*kind.kind,
            "metadata": { "name": self.name, "namespace": self.namespace, "annotations": { made::CRDS: names.join(",") } },
            "spec": spec,
        })
    }

    /// What the host reads as the plugin's account before there is a component.
    fn read_by_name(&self) -> Vec<Named> {
        match self.from {
            From::ConfigMap => vec![Named { resource: "configmaps", name: config_map(self.name) }],
            From::File(_) => Vec::new(),
            From::Image { secrets, .. } => secrets.iter().map(|name| Named { resource: "secrets", name: name.clone() }).collect(),
        }
    }

    fn source(&self) -> Value {
        match self.from {
            From::Image { image, secrets } if secrets.is_empty() => json!({ "oci": { "image": image } }),
            From::Image { image, secrets } => {
                let secrets: Vec<Value> = secrets.iter().map(|name| json!({ "name": name })).collect();
                json!({ "oci": { "image": image, "pullSecrets": secrets } })
            }
            From::ConfigMap => json!({ "configMap": { "name": config_map(self.name), "key": KEY } }),
            From::File(file) => json!({ "file": file }),
        }
    }
}

/// The ConfigMap with the component of a Plugin.
fn config_map(plugin: &str) -> String {
    format!("{plugin}-component")
}

/// The CRDs that a component brings.
pub fn crds(inspected: &Inspected) -> anyhow::Result<Vec<Piece>> {
    inspect::crds(&inspected.crds)?.into_iter().map(crd).collect()
}

fn crd(object: Value) -> anyhow::Result<Piece> {
    if text_at(&object, "/kind") != "CustomResourceDefinition" {
        bail!("the component brings a {} where it should bring CRDs: build it with the `crds` of `plugin!`", called(&object));
    }
    Ok(Piece { part: Part::Crd, object })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{
        contract::Manifest,
        names::{Account, Digest},
    };

    const CRD: &str = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: { name: boxes.a.dev }\n\
                       spec: { group: a.dev, scope: Namespaced, names: { kind: Box, plural: boxes }, versions: [] }\n";

    fn component(size: usize) -> (Component, Inspected) {
        let manifest = json!({ "name": "hello", "version": "1.0.0", "reconciles": [{ "for": "a.dev/v1/Box" }] });
        let manifest = Manifest::parse(manifest.to_string().as_bytes()).unwrap();
        let bytes = vec![0; size];
        let component = Component { path: PathBuf::from("hello.wasm"), digest: Digest::of(&bytes), bytes };
        (component, Inspected { manifest, crds: vec![CRD.into()], settings: None, imports: Vec::new() })
    }

    fn pieces(size: usize) -> anyhow::Result<Vec<Piece>> {
        packed(size, &From::ConfigMap, |_| {})
    }

    fn packed(size: usize, from: &From, change: impl Fn(&mut Package<'_>)) -> anyhow::Result<Vec<Piece>> {
        let (component, inspected) = component(size);
        let mut package = Package {
            component: &component,
            inspected: &inspected,
            namespace: "team-a",
            name: "greeter",
            account: "greeter",
            class: "reef",
            host: &Host::Account(Account::new("reef-system", "reef")),
            from,
            pin: Pin::Nothing,
            settings: None,
            crds_before: vec!["boxes.a.dev".into()],
            crds: Included::Yes,
            rights: Included::Yes,
        };
        change(&mut package);
        package.pieces()
    }

    fn named(pieces: &[Piece]) -> Vec<String> {
        pieces.iter().map(|piece| called(&piece.object)).collect()
    }

    #[test]
    fn everything_comes_in_the_order_in_which_it_is_needed_and_carries_its_labels() {
        let all = pieces(10).unwrap();
        assert_eq!(
            named(&all),
            [
                "CustomResourceDefinition boxes.a.dev",
                "ServiceAccount team-a/greeter",
                "Role team-a/greeter",
                "RoleBinding team-a/greeter",
                "Role team-a/reef-lend-greeter",
                "RoleBinding team-a/reef-lend-greeter",
                "ConfigMap team-a/greeter-component",
                "Plugin team-a/greeter",
            ]
        );
        assert!(all[1..].iter().all(|piece| made::is_for(&piece.object, "team-a", "greeter")));
        assert!(!made::is_ours(&all[0].object), "whose the CRD is, is found out when it is applied");
        assert_eq!(all[6].object["binaryData"][KEY], "AAAAAAAAAAAAAA==");
        assert_eq!(
            all[7].object["spec"],
            json!({ "className": "reef", "source": { "configMap": { "name": "greeter-component", "key": KEY } } })
        );
        assert_eq!(all[7].object["metadata"]["annotations"][made::CRDS], "boxes.a.dev");
    }

    #[test]
    fn what_somebody_else_sees_to_is_left_out_and_what_is_asked_for_is_in_the_plugin() {
        let file = From::File("team/hello.wasm".into());
        let all = packed(10, &file, |package| {
            (package.crds, package.rights) = (Included::No, Included::No);
            (package.account, package.pin, package.settings) = ("other", Pin::Digest, Some(json!({ "x": 1 })));
        });
        let all = all.unwrap();
        assert_eq!(named(&all), ["Plugin team-a/greeter"]);
        let spec = &all[0].object["spec"];
        assert_eq!(spec["source"], json!({ "file": "team/hello.wasm" }));
        assert_eq!((&spec["serviceAccountName"], &spec["settings"]), (&json!("other"), &json!({ "x": 1 })));
        assert_eq!(spec["digest"], Digest::of(&[0; 10]).to_string());
    }

    #[test]
    fn from_a_registry_no_config_map_is_made_and_its_pull_secrets_may_be_read_by_name() {
        let image = From::Image { image: "registry.example/team/hello:1".into(), secrets: vec!["regcred".into()] };
        let all = packed(CONFIG_MAP + 1, &image, |_| {}).unwrap();
        assert!(!named(&all).iter().any(|name| name.starts_with("ConfigMap")), "{:?}", named(&all));
        let role = all.iter().find(|piece| called(&piece.object) == "Role team-a/greeter").unwrap();
        let rules = role.object["rules"].as_array().unwrap();
        let secret = json!({ "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["regcred"], "verbs": ["get"] });
        assert!(rules.contains(&secret), "{rules:?}");
        let source = &all.last().unwrap().object["spec"]["source"];
        assert_eq!(
            *source,
            json!({ "oci": { "image": "registry.example/team/hello:1", "pullSecrets": [{ "name": "regcred" }] } })
        );
    }

    #[test]
    fn a_component_that_no_config_map_holds_is_refused_with_the_other_ways() {
        assert!(pieces(CONFIG_MAP).is_ok());
        let said = pieces(CONFIG_MAP + 1).unwrap_err().to_string();
        assert!(
            said.contains("hello.wasm has 1048577 bytes") && said.contains("reef push") && said.contains("--plugin-file"),
            "{said}"
        );
    }
}
