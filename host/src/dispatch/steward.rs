//! The life of one `Plugin` resource: from what it asks for to a running revision, and to its status.
//!
//! Everything is level-triggered: whatever changed (the resource, its file, a scope, an object that fails), the steward
//! looks at all of it again. A revision that cannot be loaded, or whose account may not do what it needs, never takes the
//! place of one that runs.

mod standing;

use std::{sync::Arc, time::Duration};

use futures::future::{BoxFuture, select_all};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Shared, Unsettled, leaving,
    live::{Legacy, Live},
    losses,
    origin::{self, Brought, Origin},
    rights,
    trusted::Trusted,
};
use crate::{
    catalog::{
        Desired, Refused, Revision, Running,
        crd::{Mode, Plugin},
    },
    contract::Manifest,
    identity::ApiError,
    names::{Digest, PluginId},
    sandbox::{LoadError, Loaded},
    status::{Said, Truth},
    trust,
    watch::SyncState,
};

/// Shortest and first wait before something that went wrong is looked at again; it doubles up to the recheck period.
const SOONEST: Duration = Duration::from_millis(500);

type Wanted = watch::Receiver<Option<Arc<Plugin>>>;

struct Steward {
    shared: Arc<Shared>,
    id: PluginId,
    /// What is known of the source.
    origin: Origin,
    trusted: Trusted,
    /// Where the scopes of what runs stood when they were last judged.
    scopes: Vec<(watch::Receiver<SyncState>, SyncState)>,
    /// Doubling wait while something is missing.
    wait: Duration,
}

/// Looks after the resources of one name, one after the other, until there is none for this host any more.
pub(super) async fn run(shared: Arc<Shared>, id: PluginId, mut wanted: Wanted, unsettled: Unsettled, stop: CancellationToken) {
    let mut first = Some(unsettled);
    let (origin, trusted) = (Origin::default(), Trusted::default());
    let mut steward = Steward { shared, id, origin, trusted, scopes: Vec::new(), wait: SOONEST };
    loop {
        let Some(plugin) = wanted.borrow_and_update().clone() else { break };
        if plugin.spec.class_name != steward.shared.options.class_name {
            steward.end();
            steward.tell(&plugin, Said::let_go(&plugin)).await;
            steward.let_go(&plugin).await;
            return;
        }
        steward.end_another(&plugin);
        let news = steward.shared.state.failures.news(&steward.id);
        let leading = steward.shared.leader.changed();
        let policy = steward.shared.trust.changes();
        let mut newer = wanted.clone();
        let said = tokio::select! {
            () = stop.cancelled() => return,
            // Whatever was on the way for the older one (a compilation, maybe) is of no use any more.
            _ = newer.wait_for(|now| is_newer(now.as_deref(), &plugin)) => continue,
            said = steward.settle(&plugin) => said,
        };
        drop(first.take());
        let lasting = match said {
            Some(said) => {
                let ready = said.is_ready();
                steward.tell(&plugin, said).await && ready
            }
            None => true,
        };
        steward.wait = if lasting { SOONEST } else { (steward.wait * 2).min(steward.shared.options.recheck) };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = wanted.changed() => if changed.is_err() { return },
            () = steward.changed(news, leading, policy) => {}
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
    async fn changed(
        &self,
        mut news: watch::Receiver<()>,
        mut leading: watch::Receiver<Option<crate::leader::Term>>,
        mut policy: watch::Receiver<trust::Standing>,
    ) {
        let mut waits: Vec<BoxFuture<'_, ()>> = Vec::new();
        for (state, known) in &self.scopes {
            let mut state = state.clone();
            waits.push(Box::pin(async move { drop(state.wait_for(|now| now != known).await) }));
        }
        waits.push(Box::pin(async move { drop(news.changed().await) }));
        waits.push(Box::pin(async move { drop(leading.changed().await) }));
        waits.push(Box::pin(async move { drop(policy.changed().await) }));
        waits.push(Box::pin(self.origin.changed(&self.shared)));
        select_all(waits).await;
    }

    /// Brings what runs as near to what is wanted as it gets now, and says how near that is; nothing if that is the end.
    async fn settle(&mut self, plugin: &Plugin) -> Option<Said> {
        let leaving = plugin.metadata.deletion_timestamp.is_some();
        if leaving && !leaving::is_held(plugin) {
            self.end();
            return None;
        }
        let mut said = Said::of(plugin);
        self.stop_what_is_forbidden(&mut said).await;
        let wanted = match Desired::of(plugin) {
            Err(refused) => {
                self.origin.forget();
                said.put("Resolved", Truth::False, refused.reason, &refused.message);
                None
            }
            Ok(desired) if desired.suspend && !leaving => {
                self.end();
                said.put("Ready", Truth::False, "Suspended", "spec.suspend is true: nothing is reconciled, nothing is deleted");
                return Some(said);
            }
            Ok(desired) => {
                let wanted = self.bring(plugin, &desired, &mut said).await;
                if wanted.is_none() {
                    self.revive(plugin, &desired, &mut said).await;
                }
                wanted
            }
        };
        let running = self.shared.state.catalog.get(&self.id);
        let kept = match &running {
            Some(running) => losses::look(&self.shared, plugin, running).await,
            None => None,
        };
        self.judge(plugin, wanted, &mut said);
        if let Some(complaint) = self.shared.trust.complaint() {
            said.add("Verified", &format!("the newest version of the policy is not in force: {complaint}"));
        }
        if let Some(running) = &running {
            self.scopes.extend(losses::states(&running.loaded));
            said.pruned(kept.map(|kept| (kept.reason, kept.message)));
        }
        if let (Some(running), Some(since)) = (&running, said.has_no_account_since())
            && self.shared.leader.gate().is_ok()
            && plugin.spec.mode == Mode::Apply
            && let Err(missing) = leaving::orphans(&self.shared, plugin, running, since).await
        {
            said.add("Authorized", &missing);
        }
        if leaving {
            match leaving::look(&self.shared, plugin, running.as_deref()).await {
                Some(why) => said.put("Ready", Truth::False, "Leaving", &why),
                None => {
                    self.end();
                    self.let_go(plugin).await;
                    return None;
                }
            }
        }
        Some(said)
    }

    /// Nothing of the plugin is held any more.
    async fn let_go(&self, plugin: &Plugin) {
        if self.shared.leader.gate().is_ok()
            && let Err(error) = self.shared.plugins.let_go(&self.shared.api, plugin).await
        {
            tracing::warn!(plugin = %self.id, %error, "the Plugin cannot be let go; trying again");
        }
    }

    /// The component that is wanted, if it can be loaded.
    async fn bring(&mut self, plugin: &Plugin, desired: &Desired, said: &mut Said) -> Option<Digest> {
        let brought = match self.fetch(plugin, desired).await {
            Ok(brought) => brought,
            Err(refused) => {
                said.put("Resolved", Truth::False, refused.reason, &refused.message);
                return None;
            }
        };
        said.put("Resolved", Truth::True, "Resolved", &self.resolved(desired, &brought));
        if !self.is_trusted(desired, &brought, said).await {
            self.origin.unfit(self.shared.options.recheck);
            return None;
        }
        let loaded = match self.load(brought).await {
            Ok(loaded) => loaded,
            Err(error) => {
                self.origin.unfit(self.shared.options.recheck);
                said.put("Compiled", Truth::False, error.label(), &format!("{}: {error}", desired.source));
                return None;
            }
        };
        self.origin.fit();
        let manifest = loaded.manifest();
        let what = format!("{} {}, for this host", manifest.name, manifest.version);
        said.put("Compiled", Truth::True, "Compiled", &what);
        let revision = revision(desired, &loaded);
        if let Err(error) = self.hold(plugin, loaded.manifest()).await {
            let message = format!("the host cannot put its finalizer on the Plugin, which goes before its objects do: {error}");
            said.put("Authorized", Truth::False, "HostRights", &message);
            return None;
        }
        let allowed = rights::check(&self.shared.api, &revision, &desired.source).await;
        let live = self.live(plugin, loaded);
        if let Err(refused) = self.start(revision.clone(), live, allowed.is_ok()) {
            said.put("Resolved", Truth::False, refused.reason, &refused.message);
            return None;
        }
        if self.shared.state.catalog.get(&self.id).is_some_and(|running| running.revision.digest == revision.digest) {
            self.trusted.started();
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

    /// Whether the policy lets this in. What it refuses is not compiled.
    async fn is_trusted(&mut self, desired: &Desired, (component, brought): &(Digest, Brought), said: &mut Said) -> bool {
        let image = match brought {
            Brought::New(candidate) => candidate.image.clone(),
            Brought::Same => self.origin.image(),
        };
        let judged = self.trusted.judge(&self.shared, desired, *component, image).await;
        self.shared.metrics.verified.with_label_values(&[&self.id.to_string()]).set(judged.is_ok().into());
        match &judged {
            Ok(approval) => said.put("Verified", Truth::True, approval.label(), &approval.to_string()),
            Err(refused) => said.put("Verified", Truth::False, refused.label(), &refused.to_string()),
        }
        judged.is_ok()
    }

    /// A policy holds for what runs, too. Nothing is deleted: what is stopped may come back.
    async fn stop_what_is_forbidden(&mut self, said: &mut Said) {
        if let Err(refused) = self.trusted.may_go_on(&self.shared).await {
            tracing::warn!(plugin = %self.id, %refused, "stopped: the trust policy no longer allows it");
            said.put("Verified", Truth::False, refused.label(), &format!("what ran is stopped: {refused}"));
            self.stop_running();
        }
    }

    /// The Plugin is not to go before objects that wait for its cleanup.
    async fn hold(&self, plugin: &Plugin, manifest: &Manifest) -> Result<(), ApiError> {
        if self.shared.leader.gate().is_err() || plugin.spec.mode == Mode::Shadow {
            return Ok(());
        }
        self.shared.plugins.hold(&self.shared.api, plugin, manifest).await
    }

    async fn fetch(&mut self, plugin: &Plugin, desired: &Desired) -> Result<(Digest, Brought), Refused> {
        let running = self.shared.state.catalog.get(&self.id).map(|running| running.revision.digest);
        let brought = self.origin.fetch(&self.shared, plugin, desired, running).await;
        let brought = brought.map_err(|error| Refused { reason: error.reason(), message: error.to_string() })?;
        let found = match (&brought, running) {
            (Brought::New(candidate), _) => candidate.digest,
            (Brought::Same, Some(running)) => running,
            (Brought::Same, None) => return Err(gone()),
        };
        match desired.pin {
            Some(pin) if pin != found => {
                self.origin.unfit(self.shared.options.recheck);
                let source = &desired.source;
                let fix = "correct the digest, or put the pinned component there";
                Err(Refused {
                    reason: "DigestMismatch",
                    message: format!("spec.digest pins {pin}, but {source} is {found}: {fix}"),
                })
            }
            _ => Ok((found, brought)),
        }
    }

    fn resolved(&self, desired: &Desired, (digest, brought): &(Digest, Brought)) -> String {
        let pinned = match brought {
            Brought::New(candidate) => candidate.image.as_ref().map(|image| image.manifest.to_string()),
            Brought::Same => self.origin.manifest(),
        };
        match pinned {
            Some(manifest) if !desired.source.to_string().contains(&manifest) => {
                format!("{} is the manifest {manifest}, and the component {digest}", desired.source)
            }
            _ => format!("{} is {digest}", desired.source),
        }
    }

    /// Compiled and linked: what was brought, or what runs already.
    async fn load(&self, (digest, brought): (Digest, Brought)) -> Result<Arc<Loaded>, LoadError> {
        match brought {
            Brought::New(candidate) => self.shared.sandbox.load(digest, candidate.bytes).await,
            Brought::Same => {
                let running = self.shared.state.catalog.get(&self.id).filter(|running| running.revision.digest == digest);
                running.map(|running| running.loaded.loaded.clone()).ok_or_else(|| LoadError::Io(gone().message))
            }
        }
    }

    /// What is wanted cannot be had, and nothing runs: then what ran before this host started, if that is in the content
    /// cache.
    async fn revive(&mut self, plugin: &Plugin, desired: &Desired, said: &mut Said) {
        if self.shared.state.catalog.get(&self.id).is_some() {
            return;
        }
        let Some(candidate) = origin::last_good(&self.shared, plugin).await else { return };
        let digest = candidate.digest;
        if let Err(refused) = self.trusted.judge(&self.shared, desired, digest, candidate.image.clone()).await {
            if !said.has_said("Verified") {
                said.put("Verified", Truth::False, refused.label(), &format!("what ran last may not run again: {refused}"));
            }
            return;
        }
        match self.load((digest, Brought::New(candidate))).await {
            Ok(loaded) => {
                let revision = revision(desired, &loaded);
                let live = self.live(plugin, loaded);
                match self.start(revision, live, true) {
                    Ok(()) => self.trusted.started(),
                    Err(refused) => tracing::warn!(plugin = %self.id, %digest, error = %refused, "what ran last does not start"),
                }
            }
            Err(error) => tracing::warn!(plugin = %self.id, %digest, %error, "what ran last does not load"),
        }
    }

    fn live(&self, plugin: &Plugin, loaded: Arc<Loaded>) -> Live {
        let before = self.shared.state.catalog.get(&self.id);
        let legacy = Legacy {
            former: losses::former(plugin, before.as_deref(), loaded.manifest()),
            predecessor: before.as_ref().map(|before| Arc::downgrade(&before.loaded)).unwrap_or_default(),
            leaving: plugin.metadata.deletion_timestamp.is_some(),
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

    /// Writes the status where it differs. False: it should differ from what is there, but could not be written.
    async fn tell(&self, plugin: &Plugin, said: Said) -> bool {
        if self.shared.leader.gate().is_err() {
            return true;
        }
        match self.shared.plugins.tell(&self.shared.api, plugin, said).await {
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
        self.origin.forget();
        self.trusted.forget();
        self.scopes.clear();
        self.stop_running();
        self.shared.metrics.forget(&self.id.to_string());
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

/// Cannot be: only the steward ends what runs.
fn gone() -> Refused {
    Refused { reason: "Starting", message: "what ran has ended in the meantime: it is looked at again".into() }
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
        mode: desired.mode,
        manifest,
    }
}
