//! What belongs to a running revision: the loaded component and its subscriptions.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    catalog::Revision,
    identity::Actor,
    names::{Account, Cluster, Kind, PluginId},
    plan::Brake,
    sandbox::Loaded,
    watch::{Hub, Interest, Role, Scope, Subscription, SyncState},
};

/// Dropped with the last reconcile of its revision; the watches that nobody else needs end with it.
pub struct Live {
    pub loaded: Arc<Loaded>,
    pub brake: Brake,
    plugin: PluginId,
    cluster: Cluster,
    /// Joined on start: the kinds of the manifest that must be complete before anything is written.
    joined: Mutex<Vec<Subscription>>,
    /// Joined on the first read.
    reading: Mutex<HashMap<Scope, Subscription>>,
    /// Kinds of children that only a former revision owned, until nothing of them is left. Joined on start as well.
    former: Mutex<Vec<(Kind, Vec<Subscription>)>>,
    /// The former revision, while reconciles of it run.
    predecessor: Weak<Live>,
    /// The Plugin's status names all kinds of children.
    announced: AtomicBool,
    /// The Plugin is being deleted.
    leaving: AtomicBool,
}

/// What a revision takes over from those before it.
#[derive(Default)]
pub struct Legacy {
    pub former: Vec<Kind>,
    pub predecessor: Weak<Live>,
    pub leaving: bool,
}

impl Live {
    pub fn new(loaded: Arc<Loaded>, plugin: PluginId, cluster: Cluster, legacy: Legacy) -> Self {
        Self {
            loaded,
            brake: Brake::default(),
            plugin,
            cluster,
            joined: Mutex::default(),
            reading: Mutex::default(),
            former: Mutex::new(legacy.former.into_iter().map(|kind| (kind, Vec::new())).collect()),
            predecessor: legacy.predecessor,
            announced: AtomicBool::new(false),
            leaving: AtomicBool::new(legacy.leaving),
        }
    }

    /// Where objects of a kind of this plugin are watched: in its namespace.
    pub fn scope(&self, kind: &Kind) -> Scope {
        Scope::new(self.cluster.clone(), kind.clone(), &self.plugin.namespace)
    }

    /// Where objects of these kinds are watched.
    pub fn scopes<'a>(&self, kinds: impl IntoIterator<Item = &'a Kind>) -> Vec<Scope> {
        kinds.into_iter().map(|kind| self.scope(kind)).collect()
    }

    /// Joins the scopes of everything that the manifest reconciles, owns and writes, and of what former ones owned. Every
    /// object that is there is woken, so this comes after the queue opened and the catalog has the revision.
    pub fn join(&self, hub: &Hub, revision: &Revision) {
        let lender = || Actor::Plugin { plugin: self.plugin.clone(), account: revision.account.clone() };
        let subscribe =
            |kind: &Kind, role| hub.subscribe(self.scope(kind), lender(), Interest { plugin: self.plugin.clone(), role });
        let owned = |by: &Kind| Role::Owned { by: by.clone(), mark: revision.field_manager.clone() };
        let entries = &revision.manifest.reconciles;
        for (kind, subscriptions) in self.former.lock().iter_mut() {
            subscriptions.extend(entries.iter().map(|entry| subscribe(kind, owned(&entry.kind))));
        }
        let mut joined = self.joined.lock();
        for entry in entries {
            joined.extend(entry.owns.iter().map(|kind| subscribe(kind, owned(&entry.kind))));
            joined.extend(entry.writes.iter().map(|kind| subscribe(kind, Role::Read)));
        }
        for entry in entries {
            joined.push(subscribe(&entry.kind, Role::Primary));
        }
    }

    /// Where each joined scope stands.
    pub fn states(&self) -> Vec<(Kind, watch::Receiver<SyncState>)> {
        self.joined.lock().iter().map(|joined| (joined.scope().kind.clone(), joined.state())).collect()
    }

    pub fn former(&self) -> Vec<Kind> {
        self.former.lock().iter().map(|(kind, _)| kind.clone()).collect()
    }

    pub fn former_states(&self) -> Vec<watch::Receiver<SyncState>> {
        self.former.lock().iter().flat_map(|(_, joined)| joined).map(Subscription::state).collect()
    }

    /// Nothing is left of a former kind.
    pub fn no_longer(&self, kind: &Kind) {
        self.former.lock().retain(|(former, _)| former != kind);
    }

    /// Whether a reconcile of the former revision may still be under way.
    pub fn has_predecessor(&self) -> bool {
        self.predecessor.strong_count() > 0
    }

    pub fn is_announced(&self) -> bool {
        self.announced.load(Ordering::Acquire)
    }

    /// The Plugin's status names all kinds of children: from now on some may be made.
    pub fn announced(&self) {
        self.announced.store(true, Ordering::Release);
    }

    /// Nothing is reconciled any more, but for what is being deleted.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// The Plugin is being deleted. True: nobody knew.
    pub fn leave(&self) -> bool {
        !self.leaving.swap(true, Ordering::AcqRel)
    }

    /// Joins a scope that a reconcile reads from, unless it is joined, and says where it stands.
    pub fn reading(&self, hub: &Hub, scope: &Scope, account: &Account) -> watch::Receiver<SyncState> {
        if let Some(joined) = self.joined.lock().iter().find(|joined| joined.scope() == scope) {
            return joined.state();
        }
        let mut reading = self.reading.lock();
        let subscription = reading.entry(scope.clone()).or_insert_with(|| {
            let interest = Interest { plugin: self.plugin.clone(), role: Role::Read };
            let lender = Actor::Plugin { plugin: self.plugin.clone(), account: account.clone() };
            hub.subscribe(scope.clone(), lender, interest)
        });
        subscription.state()
    }
}
