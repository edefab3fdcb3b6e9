//! What a plugin's account must be allowed for what its manifest says, and what of it is missing.

use std::{collections::BTreeMap, sync::Arc};

use super::reads::access;
use crate::{
    catalog::{Revision, Source},
    contract::manifest::Reconciles,
    identity::{Access, Api, ApiError, Resource},
    names::Kind,
    rbac::{OWN, READ},
};

/// Why a plugin is not authorized.
pub(super) struct Missing {
    /// CamelCase.
    pub reason: &'static str,
    pub message: String,
}

impl Missing {
    fn of(error: &ApiError) -> Self {
        let reason = match error {
            ApiError::NotLent { .. } => "NotLent",
            ApiError::NoAccount { .. } => "NoServiceAccount",
            ApiError::UnknownKind(_) => "UnknownKind",
            _ => "Unknown",
        };
        Self { reason, message: error.to_string() }
    }
}

/// What is missing on a resource, or on one object of it.
type Lacking = BTreeMap<(Arc<str>, String, Option<Arc<str>>), Vec<&'static str>>;

/// Whether the account is lent to the host and may do all that the manifest says, and read what its source needs.
pub(super) async fn check(api: &Api, revision: &Revision, source: &Source) -> Result<(), Missing> {
    api.lent(&revision.account).await.map_err(|error| Missing::of(&error))?;
    let mut missing = Lacking::new();
    for access in of_source(source, &revision.plugin.namespace) {
        if !api.can(&revision.account, &access).await.map_err(|error| Missing::of(&error))? {
            missing.entry((access.group, access.resource.to_string(), access.name)).or_default().push(access.verb);
        }
    }
    for entry in &revision.manifest.reconciles {
        for access in needed(api, revision, entry).await.map_err(|error| Missing::of(&error))? {
            if !api.can(&revision.account, &access).await.map_err(|error| Missing::of(&error))? {
                let resource = match access.subresource {
                    "" => access.resource.to_string(),
                    sub => format!("{}/{sub}", access.resource),
                };
                let verbs = missing.entry((access.group.clone(), resource, None)).or_default();
                if !verbs.contains(&access.verb) {
                    verbs.push(access.verb);
                }
            }
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(sentence(revision, &missing)) }
}

/// A ConfigMap and pull secrets are read by name.
fn of_source(source: &Source, namespace: &str) -> Vec<Access> {
    let get = |resource: &str, name: &str| Access {
        verb: "get",
        group: "".into(),
        resource: resource.into(),
        subresource: "",
        namespace: namespace.into(),
        name: Some(name.into()),
    };
    match source {
        Source::File(_) => Vec::new(),
        Source::ConfigMap(map) => vec![get("configmaps", &map.name)],
        Source::Oci(oci) => oci.secrets.iter().map(|name| get("secrets", name)).collect(),
    }
}

fn sentence(revision: &Revision, missing: &Lacking) -> Missing {
    let rules: Vec<String> = missing
        .iter()
        .map(|((group, resource, name), verbs)| {
            let name = name.as_ref().map(|name| format!(", resourceNames: [\"{name}\"]")).unwrap_or_default();
            format!("{{apiGroups: [\"{group}\"], resources: [\"{resource}\"]{name}, verbs: [\"{}\"]}}", verbs.join("\", \""))
        })
        .collect();
    let message = format!(
        "ServiceAccount {} may not do all that the plugin does in namespace {}: add to its Role the rules {}",
        revision.account,
        revision.plugin.namespace,
        rules.join(", ")
    );
    Missing { reason: "MissingRights", message }
}

async fn needed(api: &Api, revision: &Revision, entry: &Reconciles) -> Result<Vec<Access>, ApiError> {
    let namespace = &revision.plugin.namespace;
    let mut all = Vec::new();
    let mut add = |resource: &Resource, verbs: &[&'static str], subresource: &'static str| {
        let place = if resource.namespaced { &**namespace } else { "" };
        all.extend(verbs.iter().map(|verb| access(resource, verb, subresource, place, None)));
    };
    let primary = api.resource(&entry.kind).await?;
    add(&primary, READ, "");
    if primary.status {
        add(&primary, &["patch"], "status");
    }
    if entry.cleanup {
        add(&primary, &["patch"], "");
    }
    for kind in &entry.owns {
        add(&*api.resource(kind).await?, OWN, "");
    }
    // The host watches what is written. Which verbs a plan uses on it, of which subresource and of which names, nobody knows
    // before: what the account lacks is told, with the rule to add, when it comes to it.
    for kind in &entry.writes {
        add(&*api.resource(kind).await?, READ, "");
    }
    // Secrets may be granted one by one, and a kind that is read may come later: both are told when they are read.
    for kind in entry.reads.iter().filter(|kind| !kind.is_secret()) {
        if let Ok(resource) = api.resource(kind).await {
            add(&resource, READ, "");
        }
    }
    add(&*api.resource(&Kind::new("events.k8s.io", "v1", "Event")).await?, &["create"], "");
    Ok(all)
}
