//! The life of one `Plugin` resource: from what it asks for to a running revision, and to its status.
//!
//! Everything is level-triggered: whatever changed (the resource, its file, a scope, an object that fails), the steward
//! looks at all of it again. A revision that cannot be loaded, or whose account may not do what it needs, never takes the
//! place of one that runs.

use std::{sync::Arc, time::Duration};

use futures::future::{BoxFuture, select_all};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Shared, Unsettled,
    live::{Legacy, Live},
    losses, rights,
};
use crate::{
    catalog::{Desired, Refused, Revision, Running, crd::Plugin},
    names::{Digest, Kind, PluginId},
    queue::Slowed,
    sandbox::Loaded,
    source::{Fetched, FileSource, Signature},
    status::{self, Said, Truth},
    watch::{SyncState, Why},
};

/// How often the component's file is looked at: one `stat`.
const FILE_POLL: Duration = Duration::from_millis(500);
/// Shortest and first wait before something that went wrong is looked at again; it doubles up to the recheck period.
const SOONEST: Duration = Duration::from_millis(500);

type Wanted = watch::Receiver<Option<Arc<Plugin>>>;

struct Steward {
    shared: Arc<Shared>,
    id: PluginId,
    /// What the last successful or failed fetch was of.
    seen: Option<Seen>,
    /// Where the scopes of what runs stood when they were last judged.
    scopes: Vec<(watch::Receiver<SyncState>, SyncState)>,
    /// Doubling wait while something is missing.
    wait: Duration,
}

struct Seen {
    source: FileSource,
    signature: Option<Signature>,
}

/// Looks after the resources of one name, one after the other, until there is none for this host any more.
pub(super) async fn run(shared: Arc<Shared>, id: PluginId, mut wanted: Wanted, unsettled: Unsettled, stop: CancellationToken) {
    let mut first = Some(unsettled);
    let mut steward = Steward { shared, id, seen: None, scopes: Vec::new(), wait: SOONEST };
    loop {
        let Some(plugin) = wanted.borrow_and_update().clone() else { break };
        if plugin.spec.class_name != steward.shared.options.class_name {
            steward.end();
            steward.tell(&plugin, Said::let_go(&plugin)).await;
            return;
        }
        steward.end_another(&plugin);
        let news = steward.shared.state.failures.news(&steward.id);
        let leading = steward.shared.leader.changed();
        let mut newer = wanted.clone();
        let said = tokio::select! {
            () = stop.cancelled() => return,
            // Whatever was on the way for the older one (a compilation, maybe) is of no use any more.
            _ = newer.wait_for(|now| is_newer(now.as_deref(), &plugin)) => continue,
            said = steward.settle(&plugin) => said,
        };
        drop(first.take());
        let ready = said.is_ready();
        let lasting = steward.tell(&plugin, said).await && ready;
        steward.wait = if lasting { SOONEST } else { (steward.wait * 2).min(steward.shared.options.recheck) };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = wanted.changed() => if changed.is_err() { return },
            () = steward.changed(news, leading) => {}
            () = tokio::time::sleep(if lasting { steward.shared.options.recheck } else { steward.wait }) => {}
        }
    }
    steward.end();
}

/// Another resource, or another wish.
fn is_newer(now: Option<&Plugin>, known: &Plugin) -> bool {
    now.is_none_or(|now| (&now.metadata.uid, now.metadata.generation) != (&known.metadata.uid, known.metadata.generation))
}

impl Steward {
    /// Something beside the resource changed.
    async fn changed(&self, mut news: watch::Receiver<()>, mut leading: watch::Receiver<Option<crate::leader::Term>>) {
        let mut waits: Vec<BoxFuture<'_, ()>> = Vec::new();
        for (state, known) in &self.scopes {
            let mut state = state.clone();
            waits.push(Box::pin(async move { drop(state.wait_for(|now| now != known).await) }));
        }
        waits.push(Box::pin(async move { drop(news.changed().await) }));
        waits.push(Box::pin(async move { drop(leading.changed().await) }));
        waits.push(Box::pin(self.file_changed()));
        select_all(waits).await;
    }

    async fn file_changed(&self) {
        let Some(seen) = &self.seen else { return std::future::pending().await };
        while seen.source.signature().await == seen.signature {
            tokio::time::sleep(FILE_POLL).await;
        }
    }

    /// Brings what runs as near to what is wanted as it gets now, and says how near that is.
    async fn settle(&mut self, plugin: &Plugin) -> Said {
        let mut said = Said::of(plugin);
        let wanted = match Desired::of(plugin) {
            Err(refused) => {
                said.put("Resolved", Truth::False, refused.reason, &refused.message);
                None
            }
            Ok(desired) if desired.suspend => {
                self.end();
                said.put("Ready", Truth::False, "Suspended", "spec.suspend is true: nothing is reconciled, nothing is deleted");
                return said;
            }
            Ok(desired) => self.bring(plugin, &desired, &mut said).await,
        };
        let running = self.shared.state.catalog.get(&self.id);
        let kept = match &running {
            Some(running) => losses::look(&self.shared, plugin, running).await,
            None => None,
        };
        self.judge(plugin, wanted, &mut said);
        if let Some(running) = &running {
            self.scopes.extend(losses::states(&running.loaded));
            said.pruned(kept.map(|kept| (kept.reason, kept.message)));
        }
        said
    }

    /// The component that is wanted, if it can be loaded.
    async fn bring(&mut self, plugin: &Plugin, desired: &Desired, said: &mut Said) -> Option<Digest> {
        let fetched = match self.fetch(desired).await {
            Ok(fetched) => fetched,
            Err(refused) => {
                said.put("Resolved", Truth::False, refused.reason, &refused.message);
                return None;
            }
        };
        said.put("Resolved", Truth::True, "Resolved", &format!("{} is {}", desired.file, fetched.digest));
        let loaded = match self.shared.sandbox.load(fetched.digest, fetched.bytes).await {
            Ok(loaded) => loaded,
            Err(error) => {
                said.put("Compiled", Truth::False, error.label(), &format!("{}: {error}", desired.file));
                return None;
            }
        };
        let manifest = loaded.manifest();
        let what = format!("{} {}, for this host", manifest.name, manifest.version);
        said.put("Compiled", Truth::True, "Compiled", &what);
        let revision = revision(desired, &loaded);
        let allowed = rights::check(&self.shared.api, &revision).await;
        let live = self.live(plugin, loaded);
        if let Err(refused) = self.start(revision.clone(), live, allowed.is_ok()) {
            said.put("Resolved", Truth::False, refused.reason, &refused.message);
            return None;
        }
        match allowed {
            Ok(()) => {
                let message = format!("acts as ServiceAccount {}, which may do all that the manifest says", revision.account);
                said.put("Authorized", Truth::True, "Authorized", &message);
            }
            Err(missing) if missing.reason == "Unknown" => {
                said.put("Authorized", Truth::Unknown, missing.reason, &missing.message)
            }
            Err(missing) => said.put("Authorized", Truth::False, missing.reason, &missing.message),
        }
        Some(revision.digest)
    }

    async fn fetch(&mut self, desired: &Desired) -> Result<Fetched, Refused> {
        let refuse = |e: crate::source::SourceError| Refused { reason: "SourceFailed", message: e.to_string() };
        let source = FileSource::new(&self.shared.options.plugin_dir, &desired.file).map_err(refuse)?;
        let signature = source.signature().await;
        let fetched = source.fetch().await;
        let signature = fetched.as_ref().map_or(signature, |fetched| Some(fetched.signature));
        self.seen = Some(Seen { source, signature });
        let fetched = fetched.map_err(refuse)?;
        match desired.pin {
            Some(pin) if pin != fetched.digest => Err(Refused {
                reason: "DigestMismatch",
                message: format!(
                    "spec.digest pins {pin}, but {} is {}: correct the digest, or put the pinned component there",
                    desired.file, fetched.digest
                ),
            }),
            _ => Ok(fetched),
        }
    }

    fn live(&self, plugin: &Plugin, loaded: Arc<Loaded>) -> Live {
        let before = self.shared.state.catalog.get(&self.id);
        let legacy = Legacy {
            former: losses::former(plugin, before.as_deref(), loaded.manifest()),
            predecessor: before.as_ref().map(|before| Arc::downgrade(&before.loaded)).unwrap_or_default(),
        };
        let is_announced = losses::is_announced(plugin, loaded.manifest());
        let live = Live::new(loaded, self.id.clone(), self.shared.api.cluster().clone(), legacy);
        if is_announced {
            live.announced();
        }
        live
    }

    /// Swaps the revision in, unless it runs already, or something better does. What ran before keeps its watches until
    /// the new one has joined them, so nothing is read anew; every object is reconciled once more, by the new revision.
    fn start(&self, revision: Revision, live: Live, allowed: bool) -> Result<(), Refused> {
        let catalog = &self.shared.state.catalog;
        let before = catalog.get(&self.id);
        match &before {
            Some(running) if running.revision == revision => {
                return catalog.may_stay(&revision).inspect_err(|_| self.stop_running());
            }
            // The one that runs is the last good one.
            Some(running) if !allowed && running.revision.digest != revision.digest => return Ok(()),
            _ => {}
        }
        let (digest, concurrency) = (revision.digest, revision.concurrency);
        catalog.put(Running { revision, loaded: Arc::new(live) })?;
        self.shared.work.queue.lock().open(self.id.clone(), concurrency);
        if let Some(running) = catalog.get(&self.id) {
            running.loaded.join(&self.shared.hub, &running.revision);
        }
        drop(before);
        tracing::info!(plugin = %self.id, digest = %digest, "revision started");
        Ok(())
    }

    /// Ready: a revision runs, and every cache that it needs is complete.
    fn judge(&mut self, plugin: &Plugin, wanted: Option<Digest>, said: &mut Said) {
        self.scopes.clear();
        let Some(running) = self.shared.state.catalog.get(&self.id) else {
            return said.put("Ready", Truth::False, &said.first_trouble(), "nothing runs: see the other conditions");
        };
        said.runs(&running.revision, &running.loaded.former());
        said.failing(self.shared.failing(&self.id));
        let mut unread = None;
        for (kind, state) in running.loaded.states() {
            let known = state.borrow().clone();
            unread = unread.or_else(|| unreadable(&kind, &known));
            self.scopes.push((state, known));
        }
        match (unread, said.trouble()) {
            // A restart is no news.
            (Some(("Syncing", _)), None) if said.stays_ready(plugin) => {}
            (Some((reason, message)), _) => said.put("Ready", Truth::False, reason, &message),
            (None, None) => match self.shared.work.slowed(&self.id) {
                None => said.put("Ready", Truth::True, "Ready", "reconciling"),
                Some(slowed) => said.put("Ready", Truth::True, "Throttled", &throttled(&slowed)),
            },
            (None, Some((reason, message))) if wanted == Some(running.revision.digest) => {
                said.put("Ready", Truth::False, &reason, &message)
            }
            (None, Some((reason, message))) => {
                let digest = running.revision.digest.short();
                said.put(
                    "Ready",
                    Truth::True,
                    "LastGood",
                    &format!("{digest} runs on; the new one does not: {reason}: {message}"),
                );
            }
        }
    }

    /// Writes the status where it differs. False: it should differ from what is there, but could not be written.
    async fn tell(&self, plugin: &Plugin, said: Said) -> bool {
        if self.shared.leader.gate().is_err() {
            return true;
        }
        match status::write(&self.shared.api, plugin, said).await {
            Ok(()) => {
                if let Some(running) = self.shared.state.catalog.get(&self.id) {
                    running.loaded.announced();
                }
                true
            }
            Err(error) => {
                tracing::warn!(plugin = %self.id, %error, "the plugin's status could not be written");
                false
            }
        }
    }

    fn end(&mut self) {
        self.seen = None;
        self.scopes.clear();
        self.stop_running();
    }

    /// Ends what runs for a resource that had this name before.
    fn end_another(&mut self, plugin: &Plugin) {
        let uid = plugin.metadata.uid.as_deref();
        if self.shared.state.catalog.get(&self.id).is_some_and(|running| Some(&*running.revision.uid) != uid) {
            self.end();
        }
    }

    fn stop_running(&self) {
        let state = &self.shared.state;
        if state.catalog.get(&self.id).is_some() {
            self.shared.work.queue.lock().close(&self.id);
            state.catalog.remove(&self.id);
            state.failures.forget(&self.id);
            self.shared.metrics.forget(&self.id.to_string());
            tracing::info!(plugin = %self.id, "stopped");
        }
    }
}

/// Why a scope keeps a plugin from being ready.
fn unreadable(kind: &Kind, state: &SyncState) -> Option<(&'static str, String)> {
    match state {
        SyncState::Synced => None,
        SyncState::Pending => Some(("Syncing", format!("{kind} is being read"))),
        SyncState::Failed { message, why: Why::Forbidden } => Some(("Forbidden", format!("{kind} cannot be read: {message}"))),
        SyncState::Failed { message, why: Why::Full } => Some(("CacheFull", message.clone())),
        SyncState::Failed { message, .. } => Some(("CannotRead", format!("{kind} cannot be read: {message}"))),
    }
}

/// Without numbers that change by the second: each would be a write, to an API server that has too much to do.
fn throttled(slowed: &Slowed) -> String {
    format!("fewer objects are reconciled at once, because the API server has turned requests away: {}", slowed.said)
}

fn revision(desired: &Desired, loaded: &Loaded) -> Revision {
    let manifest = loaded.manifest().clone();
    Revision {
        plugin: desired.plugin.clone(),
        uid: desired.uid.clone(),
        created: desired.created.clone(),
        digest: loaded.digest(),
        account: desired.account.clone(),
        field_manager: desired.field_manager.clone().unwrap_or_else(|| manifest.name.as_str().into()),
        settings: desired.settings.clone(),
        limits: desired.limits,
        concurrency: desired.concurrency,
        manifest,
    }
}
