//! A steward for every name of a `Plugin` of this host's class: starts one when a resource appears, and tells it what
//! becomes of it. There is never a second one for the same name, also when a resource goes and comes back at once.

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt as _;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{Plugins, Shared, Unsettled, steward};
use crate::{
    catalog::crd::{self, Plugin},
    identity::Actor,
    names::PluginId,
    watch::{Change, Entry, Interest, Role, Scope},
};

/// Runs until `stop`.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    match &shared.plugins {
        Plugins::Cluster => watch_all(shared, stop).await,
        Plugins::Given(given) => {
            let (id, wanted) = (given.id().clone(), given.watch());
            let unsettled = Unsettled::new(&shared.state.unsettled);
            steward::run(shared.clone(), id, wanted, unsettled, stop).await;
        }
    }
}

async fn watch_all(shared: Arc<Shared>, stop: CancellationToken) {
    let (changes, mut changed) = mpsc::unbounded_channel::<(Change, Unsettled)>();
    // Not all that is shared: the hub, which is a part of it, keeps this.
    let counter = shared.state.unsettled.clone();
    let role = Role::Callback(Arc::new(move |change| {
        // The receiver is gone only when the host stops.
        let _ = changes.send((change, Unsettled::new(&counter)));
    }));
    let scope = Scope::new(shared.api.cluster().clone(), crd::kind(), "");
    let interest = Interest { plugin: PluginId::new("", ""), role };
    let _subscription = shared.hub.subscribe(scope, Actor::Host, interest);
    let mut stewards = Stewards { shared, stop: stop.clone(), wanted: HashMap::new(), tasks: JoinSet::new() };
    loop {
        let change = tokio::select! {
            () = stop.cancelled() => break,
            change = changed.recv() => change,
            Some(ended) = stewards.tasks.join_next(), if !stewards.tasks.is_empty() => {
                if let Ok((id, well)) = ended {
                    stewards.ended(id, well);
                }
                continue;
            }
        };
        let Some((change, unsettled)) = change else { break };
        let id = PluginId::new(&change.id.namespace, &change.id.name);
        stewards.want(id, change.entry.and_then(|entry| parse(&entry)), unsettled);
    }
    // A steward may be waiting for a compiler or an API server; whatever it leaves undone, the next one does.
    stewards.tasks.shutdown().await;
}

struct Stewards {
    shared: Arc<Shared>,
    stop: CancellationToken,
    /// What each was told last.
    wanted: HashMap<PluginId, watch::Sender<Option<Arc<Plugin>>>>,
    /// The name, and whether it ended well.
    tasks: JoinSet<(PluginId, bool)>,
}

impl Stewards {
    fn want(&mut self, id: PluginId, plugin: Option<Plugin>, unsettled: Unsettled) {
        match (self.wanted.get(&id), plugin.map(Arc::new)) {
            (Some(wanted), plugin) => drop(wanted.send_replace(plugin)),
            (None, Some(plugin)) if self.is_ours(&plugin) => self.start(id, watch::Sender::new(Some(plugin)), unsettled),
            (None, _) => {}
        }
    }

    fn start(&mut self, id: PluginId, wanted: watch::Sender<Option<Arc<Plugin>>>, unsettled: Unsettled) {
        let steward = steward::run(self.shared.clone(), id.clone(), wanted.subscribe(), unsettled, self.stop.clone());
        self.wanted.insert(id.clone(), wanted);
        self.tasks.spawn(async move { (id, AssertUnwindSafe(steward).catch_unwind().await.is_ok()) });
    }

    /// What was wanted while it was ending, it has not seen any more.
    fn ended(&mut self, id: PluginId, well: bool) {
        let Some(wanted) = self.wanted.remove(&id) else { return };
        if !well {
            tracing::error!(plugin = %id, "its steward panicked; the next change of the resource starts another one");
            return;
        }
        let again = wanted.borrow().as_ref().is_some_and(|plugin| self.is_ours(plugin));
        if again {
            let unsettled = Unsettled::new(&self.shared.state.unsettled);
            self.start(id, wanted, unsettled);
        }
    }

    fn is_ours(&self, plugin: &Plugin) -> bool {
        plugin.spec.class_name == self.shared.options.class_name
    }
}

fn parse(entry: &Entry) -> Option<Plugin> {
    match serde_json::from_slice(&entry.bytes) {
        Ok(plugin) => Some(plugin),
        Err(error) => {
            tracing::error!(plugin = %entry.id, %error, "this Plugin resource cannot be read; it is left alone");
            None
        }
    }
}
