//! A steward for every `Plugin` resource of this host's class: starts one when a resource appears, ends it when it goes.

use std::{collections::HashMap, sync::Arc};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{Shared, Unsettled, steward};
use crate::{
    catalog::crd::Plugin,
    identity::Actor,
    names::{Kind, PluginId},
    watch::{Change, Entry, Interest, Role, Scope},
};

/// The kind of the host's own resource.
pub fn plugin_kind() -> Kind {
    Kind::new("reef.dev", "v1alpha1", "Plugin")
}

/// Runs until `stop`.
pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let (changes, mut changed) = mpsc::unbounded_channel::<(Change, Unsettled)>();
    let counter = shared.clone();
    let role = Role::Callback(Arc::new(move |change| {
        // The receiver is gone only when the host stops.
        let _ = changes.send((change, counter.unsettle()));
    }));
    let scope = Scope::new(shared.api.cluster().clone(), plugin_kind(), "");
    let interest = Interest { plugin: PluginId::new("", ""), role };
    let _subscription = shared.hub.subscribe(scope, Actor::Host, interest);
    let mut stewards: HashMap<PluginId, watch::Sender<Option<Arc<Plugin>>>> = HashMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let change = tokio::select! {
            () = stop.cancelled() => break,
            change = changed.recv() => change,
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a steward ended unexpectedly");
                }
                continue;
            }
        };
        let Some((change, unsettled)) = change else { break };
        let id = PluginId::new(&change.id.namespace, &change.id.name);
        let wanted =
            change.entry.and_then(|entry| parse(&entry)).filter(|plugin| plugin.spec.class_name == shared.options.class_name);
        match (wanted, stewards.get(&id)) {
            (Some(plugin), Some(steward)) => drop(steward.send_replace(Some(Arc::new(plugin)))),
            (Some(plugin), None) => {
                let (sender, receiver) = watch::channel(Some(Arc::new(plugin)));
                tasks.spawn(steward::run(shared.clone(), id.clone(), receiver, unsettled, stop.clone()));
                stewards.insert(id, sender);
            }
            (None, _) => {
                if let Some(steward) = stewards.remove(&id) {
                    steward.send_replace(None);
                }
            }
        }
    }
    // A steward may be waiting for a compiler or an API server; whatever it leaves undone, the next one does.
    tasks.shutdown().await;
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
