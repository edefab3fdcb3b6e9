//! What a plugin's account must be allowed for what its manifest says, and what of it is missing.

use std::{collections::BTreeMap, sync::Arc};

use super::reads::access;
use crate::{
    catalog::Revision,
    contract::manifest::Reconciles,
    identity::{Access, Api, ApiError, Resource},
    names::Kind,
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

/// Whether the account is lent to the host and may do all that the manifest says.
pub(super) async fn check(api: &Api, revision: &Revision) -> Result<(), Missing> {
    api.lent(&revision.account).await.map_err(|error| Missing::of(&error))?;
    let mut missing: BTreeMap<(Arc<str>, String), Vec<&'static str>> = BTreeMap::new();
    for entry in &revision.manifest.reconciles {
        for access in needed(api, revision, entry).await.map_err(|error| Missing::of(&error))? {
            if !api.can(&revision.account, &access).await.map_err(|error| Missing::of(&error))? {
                let resource = match access.subresource {
                    "" => access.resource.to_string(),
                    sub => format!("{}/{sub}", access.resource),
                };
                let verbs = missing.entry((access.group.clone(), resource)).or_default();
                if !verbs.contains(&access.verb) {
                    verbs.push(access.verb);
                }
            }
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(sentence(revision, &missing)) }
}

fn sentence(revision: &Revision, missing: &BTreeMap<(Arc<str>, String), Vec<&'static str>>) -> Missing {
    let rules: Vec<String> = missing
        .iter()
        .map(|((group, resource), verbs)| {
            format!("{{apiGroups: [\"{group}\"], resources: [\"{resource}\"], verbs: [\"{}\"]}}", verbs.join("\", \""))
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
    add(&primary, &["get", "list", "watch"], "");
    if primary.status {
        add(&primary, &["patch"], "status");
    }
    if entry.cleanup {
        add(&primary, &["patch"], "");
    }
    for kind in &entry.owns {
        add(&*api.resource(kind).await?, &["get", "list", "watch", "create", "patch", "delete"], "");
    }
    for kind in &entry.writes {
        add(&*api.resource(kind).await?, &["get", "list", "watch", "patch"], "");
    }
    // Secrets may be granted one by one, and a kind that is read may come later: both are told when they are read.
    for kind in entry.reads.iter().filter(|kind| !kind.is_secret()) {
        if let Ok(resource) = api.resource(kind).await {
            add(&resource, &["get", "list", "watch"], "");
        }
    }
    add(&*api.resource(&Kind::new("events.k8s.io", "v1", "Event")).await?, &["create"], "");
    Ok(all)
}
