//! What a revision takes away from its objects, as far as that concerns the plugin as a whole: kinds that only a former
//! revision owned, and the brake on mass loss. Said in the condition `Pruned` of the Plugin, which is there only while
//! something is to be done about it.

use std::sync::Arc;

use super::{Shared, live::Live, reads::access};
use crate::{
    catalog::{Revision, Running, crd::Plugin},
    contract::Manifest,
    identity::ApiError,
    names::{Digest, Kind},
    plan::{Held, MARK, OWNER},
    watch::{NotSynced, Reason, SyncState},
};

/// The annotation on a Plugin that lets the revision that it names take children away from many objects.
const CONFIRM: &str = "reef.dev/confirm-loss";

/// What keeps children from being pruned.
pub(super) struct Kept {
    /// CamelCase.
    pub reason: &'static str,
    pub message: String,
}

/// The kinds of children that the manifest does not own, but a former revision did: by the status, and by what runs.
pub(super) fn former(plugin: &Plugin, before: Option<&Running<Live>>, manifest: &Manifest) -> Vec<Kind> {
    let said = plugin.status.iter().flat_map(|status| &status.owned_kinds).filter_map(|kind| kind.parse().ok());
    let ran = before.iter().flat_map(|before| owned(&before.revision.manifest).into_iter().chain(before.loaded.former()));
    let mut all: Vec<Kind> = said.chain(ran).collect();
    let owns = owned(manifest);
    all.retain(|kind| !owns.iter().any(|owned| owned.same_group_kind(kind)));
    all.sort_by_key(ToString::to_string);
    all.dedup_by(|one, other| one.same_group_kind(other));
    all
}

fn owned(manifest: &Manifest) -> Vec<Kind> {
    manifest.reconciles.iter().flat_map(|entry| entry.owns.iter().cloned()).collect()
}

/// Whether the Plugin's status names every kind of which this revision makes children. Before it does, none is made: what
/// the status does not name, a later revision would not look for.
pub(super) fn is_announced(plugin: &Plugin, manifest: &Manifest) -> bool {
    let said = plugin.status.as_ref().map_or(&[][..], |status| &status.owned_kinds[..]);
    owned(manifest).iter().all(|kind| said.contains(&kind.to_string()))
}

/// Lets go of what is settled, and says what is not.
pub(super) async fn look(shared: &Arc<Shared>, plugin: &Plugin, running: &Running<Live>) -> Option<Kept> {
    let (revision, live) = (&running.revision, &running.loaded);
    let confirmed = plugin.metadata.annotations.as_ref().and_then(|all| all.get(CONFIRM));
    if confirmed.is_some_and(|confirmed| *confirmed == name(revision)) {
        live.brake.confirm();
        wake(shared, live);
    }
    let mut kept = None;
    for kind in live.former() {
        match left(shared, running, &kind).await {
            Ok(0) => live.no_longer(&kind),
            Ok(_) => {}
            Err(why) => kept = kept.or(Some(why)),
        }
    }
    live.brake.held().map(|held| told(plugin, revision, held)).or(kept)
}

/// Wakes what waited for the brake.
pub(super) fn wake(shared: &Shared, live: &Live) {
    for key in live.brake.due() {
        shared.work.wake(key, Reason::Dependency);
    }
}

/// How many children of a former kind there may still be.
async fn left(shared: &Shared, running: &Running<Live>, kind: &Kind) -> Result<usize, Kept> {
    let (revision, live) = (&running.revision, &running.loaded);
    let resource = match shared.api.resource(kind).await {
        Ok(resource) => resource,
        // A kind takes all of its objects along.
        Err(ApiError::UnknownKind(_)) => return Ok(0),
        Err(_) => return Ok(1),
    };
    let scope = live.scope(kind);
    // What was made to outlive its owner stays.
    let mine =
        |entry: &crate::watch::Entry| entry.label(MARK) == Some(&revision.field_manager) && entry.annotation(OWNER).is_none();
    let count = match shared.hub.count(&scope, mine) {
        // A run of the former revision may be about to make another one.
        Ok(0) if !live.has_predecessor() => return Ok(0),
        Ok(count) => count.max(1),
        Err(NotSynced { .. }) => 1,
    };
    let mut missing = Vec::new();
    for verb in ["list", "watch", "delete"] {
        let access = access(&resource, verb, "", &revision.plugin.namespace, None);
        if matches!(shared.api.can(&revision.account, &access).await, Ok(false)) {
            missing.push(verb);
        }
    }
    if missing.is_empty() {
        return Ok(count);
    }
    Err(Kept {
        reason: "MissingRights",
        message: format!(
            "children of kind {kind}, which a former revision owned, cannot be pruned: ServiceAccount {} may not, add to its Role the \
             rule {{apiGroups: [\"{}\"], resources: [\"{}\"], verbs: [\"{}\"]}}",
            revision.account,
            kind.group,
            resource.plural,
            missing.join("\", \"")
        ),
    })
}

/// What a revision is called where somebody confirms its losses: by what decides what it plans.
fn name(revision: &Revision) -> String {
    Digest::of(format!("{}\n{}", revision.digest, revision.settings).as_bytes()).hex().chars().take(12).collect()
}

fn told(plugin: &Plugin, revision: &Revision, held: Held) -> Kept {
    let (name, namespace) = (plugin.metadata.name.as_deref().unwrap_or_default(), &revision.plugin.namespace);
    let Held { losing, planned, objects } = held;
    let so_far = if planned < objects { format!(" ({planned} are planned so far)") } else { String::new() };
    Kept {
        reason: "MassLossHeld",
        message: format!(
            "{losing} of {objects} objects{so_far} would lose children by this revision, so nothing is pruned: put the former \
             component or settings back, or confirm it with `kubectl annotate --overwrite plugin {name} -n {namespace} {CONFIRM}={}`",
            self::name(revision)
        ),
    }
}

/// Where the scopes of former kinds stand.
pub(super) fn states(live: &Live) -> Vec<(tokio::sync::watch::Receiver<SyncState>, SyncState)> {
    let known = |state: tokio::sync::watch::Receiver<SyncState>| {
        let now = state.borrow().clone();
        (state, now)
    };
    live.former_states().into_iter().map(known).collect()
}
