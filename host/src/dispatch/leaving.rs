//! The end of a Plugin whose objects wait for its cleanup.
//!
//! A finalizer on the Plugin keeps it until no object carries the plugin's own. Meanwhile objects that are being deleted are
//! cleaned up as ever, and all others are let go as they are. If the account is gone as well, as in a namespace that is being
//! deleted, nobody can do either: then the host takes the finalizer off as itself after `spec.cleanup.orphanAfter`, if it was
//! given the right to. It sees nothing but the metadata of these objects.

use http::Request;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta},
    jiff::Timestamp,
};
use serde::Deserialize;
use serde_json::Value;

use super::{Shared, live::Live};
use crate::{
    catalog::{Running, crd::Plugin},
    clock,
    contract::{Manifest, Selector},
    finalizer::Found,
    identity::{Actor, Api, ApiError, Lane, Resource},
    names::{Key, Kind, Span},
    plan, status,
    watch::Reason,
};

/// On a Plugin while objects may carry the finalizer of its own.
pub(super) const HOLD: &str = "reef.dev/held-objects";
const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
/// Objects of one page.
const PAGE: usize = 500;

/// A page of objects as far as the host sees them.
#[derive(Deserialize)]
struct Page {
    metadata: ListMeta,
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    metadata: ObjectMeta,
}

/// Whose finalizer is taken off, from what.
struct Held<'a> {
    namespace: &'a str,
    kinds: Vec<Kind>,
    finalizer: String,
}

/// Whether objects of this plugin will carry its finalizer.
pub(super) fn is_needed(manifest: &Manifest) -> bool {
    manifest.reconciles.iter().any(|entry| entry.cleanup)
}

pub(super) fn is_held(plugin: &Plugin) -> bool {
    found(&plugin.metadata).has(HOLD)
}

/// From now on the Plugin goes only when its objects have been let go.
pub(super) async fn hold(api: &Api, plugin: &Plugin) -> Result<(), ApiError> {
    let operations = found(&plugin.metadata).put_on(HOLD);
    patch(api, &status::resource(), &plugin.metadata, &operations).await
}

pub(super) async fn let_go(api: &Api, plugin: &Plugin) -> Result<(), ApiError> {
    match found(&plugin.metadata).take_off(HOLD) {
        Some(operations) => patch(api, &status::resource(), &plugin.metadata, &operations).await,
        None => Ok(()),
    }
}

/// Why a Plugin that is being deleted has to stay; nothing if it may go.
pub(super) async fn look(shared: &Shared, plugin: &Plugin, running: Option<&Running<Live>>) -> Option<String> {
    let left = match running {
        Some(running) => {
            if running.loaded.leave() {
                wake(shared, running);
            }
            count(shared, running).await
        }
        None => None,
    };
    if left == Some(0) {
        return None;
    }
    let held = Held::of(plugin, running)?;
    let orphan_after = &plugin.spec.cleanup.orphan_after;
    if plugin.metadata.deletion_timestamp.as_ref().is_some_and(|since| is_over(plugin, since.0)) {
        return release(shared, &held, |_| true).await.err();
    }
    let objects = left.map_or_else(|| "its objects".to_owned(), |left| format!("{left} objects"));
    Some(format!(
        "{objects} are being let go: what is deleted is cleaned up, and the finalizer `{}` taken off the others; what is left \
         {orphan_after} after the deletion (spec.cleanup.orphanAfter) is let go without a cleanup",
        held.finalizer
    ))
}

/// Lets objects go that are being deleted and wait for a plugin that has had no account since then. An error says what is
/// missing.
pub(super) async fn orphans(shared: &Shared, plugin: &Plugin, running: &Running<Live>, since: Timestamp) -> Result<(), String> {
    match Held::of(plugin, Some(running)) {
        Some(held) if is_needed(&running.revision.manifest) && is_over(plugin, since) => {
            release(shared, &held, |object| object.deletion_timestamp.is_some()).await
        }
        _ => Ok(()),
    }
}

/// Whether whoever could clean up has been missed for long enough.
fn is_over(plugin: &Plugin, since: Timestamp) -> bool {
    plugin.spec.cleanup.orphan_after.parse::<Span>().is_ok_and(|after| clock::elapsed(since) >= after.0)
}

impl<'a> Held<'a> {
    /// By what runs, or by what the status says has run. Nothing if nothing has.
    fn of(plugin: &'a Plugin, running: Option<&Running<Live>>) -> Option<Self> {
        let status = plugin.status.as_ref();
        let (kinds, mark) = match running {
            Some(running) => {
                let entries = running.revision.manifest.reconciles.iter().filter(|entry| entry.cleanup);
                (entries.map(|entry| entry.kind.clone()).collect(), running.revision.field_manager.to_string())
            }
            None => {
                let kinds = status?.kinds.iter().filter_map(|kind| kind.parse().ok()).collect();
                (kinds, status?.field_manager.clone()?)
            }
        };
        let namespace = plugin.metadata.namespace.as_deref().unwrap_or_default();
        Some(Self { namespace, kinds, finalizer: plan::finalizer(&mark) })
    }
}

/// How many objects are held, if that is known.
async fn count(shared: &Shared, running: &Running<Live>) -> Option<usize> {
    let name = plan::finalizer(&running.revision.field_manager);
    let mut all = 0;
    for entry in &running.revision.manifest.reconciles {
        // A kind takes all of its objects along.
        if !matches!(shared.api.resource(&entry.kind).await, Err(ApiError::UnknownKind(_))) {
            all += shared.hub.count(&running.loaded.scope(&entry.kind), |object| object.has_finalizer(&name)).ok()?;
        }
    }
    Some(all)
}

/// Nothing has happened to the objects, and yet there is something to do.
fn wake(shared: &Shared, running: &Running<Live>) {
    for entry in &running.revision.manifest.reconciles {
        let objects = shared.hub.list(&running.loaded.scope(&entry.kind), &Selector::default());
        for object in objects.unwrap_or_default() {
            let (plugin, cluster) = (running.revision.plugin.clone(), shared.api.cluster().clone());
            shared.work.wake(Key { plugin, cluster, object: object.id.clone() }, Reason::Changed);
        }
    }
}

/// Takes the finalizer off as the host itself. An error is a sentence with the rule that is missing.
async fn release(shared: &Shared, held: &Held<'_>, which: impl Fn(&ObjectMeta) -> bool) -> Result<(), String> {
    for kind in &held.kinds {
        let resource = match shared.api.resource(kind).await {
            Ok(resource) => resource,
            Err(ApiError::UnknownKind(_)) => continue,
            Err(error) => return Err(error.to_string()),
        };
        release_kind(shared, held, &resource, &which).await.map_err(|error| told(shared, held, &resource, &error))?;
    }
    Ok(())
}

async fn release_kind(
    shared: &Shared,
    held: &Held<'_>,
    resource: &Resource,
    which: &impl Fn(&ObjectMeta) -> bool,
) -> Result<(), ApiError> {
    let mut next = String::new();
    loop {
        let page = page(&shared.api, resource, held.namespace, &next).await?;
        for object in page.items.iter().map(|item| &item.metadata).filter(|object| which(object)) {
            // Another host leads by now: it does this.
            if shared.leader.gate().is_err() {
                return Err(ApiError::Unreachable("this host does not lead any more".into()));
            }
            if let Some(operations) = found(object).take_off(&held.finalizer) {
                patch(&shared.api, resource, object, &operations).await?;
                let name = object.name.as_deref().unwrap_or_default();
                tracing::warn!(kind = %resource.kind, namespace = held.namespace, name, "let go without a cleanup");
            }
        }
        next = page.metadata.continue_.unwrap_or_default();
        if next.is_empty() {
            return Ok(());
        }
    }
}

async fn page(api: &Api, resource: &Resource, namespace: &str, next: &str) -> Result<Page, ApiError> {
    let uri = format!("{}?limit={PAGE}&continue={next}", resource.path(namespace, None, None));
    let request = Request::get(&uri).header("accept", METADATA).body(Vec::new());
    let request = request.map_err(|e| ApiError::Misconfigured(e.to_string()))?;
    let answer = api.send(&Actor::Host, Lane::Requests, request).await?;
    serde_json::from_slice(&answer).map_err(|e| ApiError::Undecodable(format!("the answer to {uri} does not decode: {e}")))
}

fn told(shared: &Shared, held: &Held<'_>, resource: &Resource, error: &ApiError) -> String {
    if !error.is_forbidden() {
        return format!("the finalizer `{}` cannot be taken off: {error}", held.finalizer);
    }
    format!(
        "objects of {} in namespace {} wait for a cleanup that nobody can run, and the host may not let them go. Bind to the \
         host ({}) a ClusterRole with the rule {{apiGroups: [\"{}\"], resources: [\"{}\"], verbs: [\"list\", \"patch\"]}}, or \
         take the finalizer `{}` off by hand; or, unless the namespace goes as well, give the plugin its ServiceAccount and \
         rights back",
        resource.kind,
        held.namespace,
        shared.api.user().unwrap_or("its own account"),
        resource.kind.group,
        resource.plural,
        held.finalizer
    )
}

fn found(object: &ObjectMeta) -> Found<'_, String> {
    Found {
        uid: object.uid.as_deref().unwrap_or_default(),
        resource_version: object.resource_version.clone().unwrap_or_default(),
        finalizers: object.finalizers.as_deref().unwrap_or_default(),
    }
}

/// As the host. What is gone already is no error.
async fn patch(api: &Api, resource: &Resource, object: &ObjectMeta, operations: &Value) -> Result<(), ApiError> {
    let namespace = object.namespace.as_deref().unwrap_or_default();
    let path = resource.path(namespace, object.name.as_deref(), None);
    let request = Request::patch(format!("{path}?fieldManager={}", status::MANAGER))
        .header("content-type", "application/json-patch+json")
        .body(operations.to_string().into_bytes());
    let request = request.map_err(|e| ApiError::Misconfigured(e.to_string()))?;
    match api.send(&Actor::Host, Lane::Requests, request).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
