//! What belongs to a running revision: the loaded component and its subscriptions.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    catalog::Revision,
    contract::manifest::Reconciles,
    identity::Actor,
    names::{Account, Cluster, Kind, PluginId},
    sandbox::Loaded,
    watch::{Hub, Interest, Role, Scope, Subscription, SyncState},
};

/// Dropped with the last reconcile of its revision; the watches that nobody else needs end with it.
pub struct Live {
    pub loaded: Arc<Loaded>,
    plugin: PluginId,
    cluster: Cluster,
    /// Joined on start: the kinds of the manifest that must be complete before anything is written.
    joined: Mutex<Vec<Subscription>>,
    /// Joined on the first read.
    reading: Mutex<HashMap<Scope, Subscription>>,
}

impl Live {
    pub fn new(loaded: Arc<Loaded>, plugin: PluginId, cluster: Cluster) -> Self {
        Self { loaded, plugin, cluster, joined: Mutex::default(), reading: Mutex::default() }
    }

    /// Where objects of a kind of this plugin are watched: in its namespace.
    pub fn scope(&self, kind: &Kind) -> Scope {
        Scope::new(self.cluster.clone(), kind.clone(), &self.plugin.namespace)
    }

    /// The scopes in which children of this entry are looked for.
    pub fn owned(&self, entry: &Reconciles) -> Vec<(Kind, Scope)> {
        entry.owns.iter().map(|kind| (kind.clone(), self.scope(kind))).collect()
    }

    /// Joins the scopes of everything that the manifest reconciles and owns. Every object that is there is woken, so
    /// this comes after the queue opened and the catalog has the revision.
    pub fn join(&self, hub: &Hub, revision: &Revision) {
        let lender = || Actor::Plugin { plugin: self.plugin.clone(), account: revision.account.clone() };
        let interest = |role| Interest { plugin: self.plugin.clone(), role };
        let mut joined = self.joined.lock();
        for entry in &revision.manifest.reconciles {
            for kind in &entry.owns {
                let role = Role::Owned { by: entry.kind.clone(), mark: revision.field_manager.clone() };
                joined.push(hub.subscribe(self.scope(kind), lender(), interest(role)));
            }
        }
        for entry in &revision.manifest.reconciles {
            joined.push(hub.subscribe(self.scope(&entry.kind), lender(), interest(Role::Primary)));
        }
    }

    /// Where each joined scope stands.
    pub fn states(&self) -> Vec<(Kind, watch::Receiver<SyncState>)> {
        self.joined.lock().iter().map(|joined| (joined.scope().kind.clone(), joined.state())).collect()
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
