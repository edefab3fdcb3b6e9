//! The life of one `Plugin` resource: from what it asks for to a running revision, and to its status.
//!
//! Everything is level-triggered: whatever changed (the resource, its file, a scope, an object that fails), the steward
//! looks at all of it again. A revision that cannot be loaded never takes the place of one that runs.

use std::{sync::Arc, time::Duration};

use futures::future::{BoxFuture, select_all};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Shared, Unsettled, live::Live, rights};
use crate::{
    catalog::{Desired, Refused, Revision, Running, crd::Plugin},
    names::{Kind, PluginId},
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

/// Looks after one resource until it goes or the host stops.
pub(super) async fn run(shared: Arc<Shared>, id: PluginId, mut wanted: Wanted, unsettled: Unsettled, stop: CancellationToken) {
    let mut first = Some(unsettled);
    let mut steward = Steward { shared, id, seen: None, scopes: Vec::new(), wait: SOONEST };
    loop {
        let Some(plugin) = wanted.borrow_and_update().clone() else { break };
        let news = steward.shared.news.subscribe();
        let leading = steward.shared.leader.changed();
        let said = steward.settle(&plugin).await;
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

impl Steward {
    /// Something beside the resource changed.
    async fn changed(&self, mut news: watch::Receiver<u64>, mut leading: watch::Receiver<Option<crate::leader::Term>>) {
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
        while seen.source.signature() == seen.signature {
            tokio::time::sleep(FILE_POLL).await;
        }
    }

    /// Brings what runs as near to what is wanted as it gets now, and says how near that is.
    async fn settle(&mut self, plugin: &Plugin) -> Said {
        let mut said = Said::of(plugin);
        match Desired::of(plugin) {
            Err(refused) => said.put("Resolved", Truth::False, refused.reason, &refused.message),
            Ok(desired) if desired.suspend => {
                self.end();
                said.put("Ready", Truth::False, "Suspended", "spec.suspend is true: nothing is reconciled, nothing is deleted");
                return said;
            }
            Ok(desired) => self.bring(&desired, &mut said).await,
        }
        self.judge(plugin, &mut said);
        said
    }

    async fn bring(&mut self, desired: &Desired, said: &mut Said) {
        let fetched = match self.fetch(desired) {
            Ok(fetched) => fetched,
            Err(refused) => return said.put("Resolved", Truth::False, refused.reason, &refused.message),
        };
        said.put("Resolved", Truth::True, "Resolved", &format!("{} is {}", desired.file, fetched.digest));
        let loaded = match self.shared.sandbox.load(fetched.digest, fetched.bytes).await {
            Ok(loaded) => loaded,
            Err(error) => return said.put("Compiled", Truth::False, error.label(), &format!("{}: {error}", desired.file)),
        };
        let manifest = loaded.manifest();
        let what = format!("{} {}, for this host", manifest.name, manifest.version);
        said.put("Compiled", Truth::True, "Compiled", &what);
        let revision = revision(desired, &loaded);
        let live = Live::new(loaded, self.id.clone(), self.shared.api.cluster().clone());
        if let Err(refused) = self.start(revision.clone(), live) {
            return said.put("Resolved", Truth::False, refused.reason, &refused.message);
        }
        match rights::check(&self.shared.api, &revision).await {
            Ok(()) => {
                let message = format!("acts as ServiceAccount {}, which may do all that the manifest says", revision.account);
                said.put("Authorized", Truth::True, "Authorized", &message);
            }
            Err(missing) if missing.reason == "Unknown" => {
                said.put("Authorized", Truth::Unknown, missing.reason, &missing.message)
            }
            Err(missing) => said.put("Authorized", Truth::False, missing.reason, &missing.message),
        }
    }

    fn fetch(&mut self, desired: &Desired) -> Result<Fetched, Refused> {
        let refuse = |e: crate::source::SourceError| Refused { reason: "SourceFailed", message: e.to_string() };
        let source = FileSource::new(&self.shared.options.plugin_dir, &desired.file).map_err(refuse)?;
        let signature = source.signature();
        let fetched = source.fetch();
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

    /// Swaps the revision in, unless it runs already. What ran before keeps its watches until the new one has joined
    /// them, so nothing is read anew; every object is reconciled once more, by the new revision.
    fn start(&self, revision: Revision, live: Live) -> Result<(), Refused> {
        let before = self.shared.catalog.get(&self.id);
        if before.as_ref().is_some_and(|running| running.revision == revision) {
            return Ok(());
        }
        let (digest, concurrency) = (revision.digest, revision.concurrency);
        self.shared.catalog.put(Running { revision, loaded: Arc::new(live) })?;
        self.shared.work.queue.lock().open(self.id.clone(), concurrency);
        if let Some(running) = self.shared.catalog.get(&self.id) {
            running.loaded.join(&self.shared.hub, &running.revision);
        }
        drop(before);
        tracing::info!(plugin = %self.id, digest = %digest, "revision started");
        Ok(())
    }

    /// Ready: a revision runs, and every cache that it needs is complete.
    fn judge(&mut self, plugin: &Plugin, said: &mut Said) {
        self.scopes.clear();
        let Some(running) = self.shared.catalog.get(&self.id) else {
            return said.put("Ready", Truth::False, &said.first_trouble(), "nothing runs: see the other conditions");
        };
        said.runs(&running.revision);
        said.failing(self.shared.failures.of(&self.id));
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
            (None, None) => said.put("Ready", Truth::True, "Ready", "reconciling"),
            (None, Some((reason, message))) if said.is_about_rights() => said.put("Ready", Truth::False, &reason, &message),
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
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(plugin = %self.id, %error, "the plugin's status could not be written");
                false
            }
        }
    }

    fn end(&mut self) {
        self.seen = None;
        self.scopes.clear();
        if self.shared.catalog.get(&self.id).is_some() {
            self.shared.work.queue.lock().close(&self.id);
            self.shared.catalog.remove(&self.id);
            self.shared.failures.forget(&self.id);
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

fn revision(desired: &Desired, loaded: &crate::sandbox::Loaded) -> Revision {
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
