//! Where Plugins come from, and who is told how they are: the resources of a cluster, or one that somebody has given to this
//! process and that is in no cluster.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    catalog::crd::Plugin,
    contract::Manifest,
    identity::{Api, ApiError},
    names::PluginId,
    status::{self, Said},
};

use super::leaving;

/// Where Plugins come from.
#[derive(Clone)]
pub enum Plugins {
    /// The resources of this host's class, which carry their status.
    Cluster,
    Given(Given),
}

/// One Plugin, and what is said of it, in its status. When it is gone, there is none.
#[derive(Clone)]
pub struct Given {
    id: PluginId,
    plugin: Arc<watch::Sender<Option<Arc<Plugin>>>>,
}

impl Given {
    /// The uid has to be there; children do not refer to it.
    pub fn new(plugin: Plugin) -> Self {
        let (namespace, name) = (&plugin.metadata.namespace, &plugin.metadata.name);
        let id = PluginId::new(namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default());
        Self { id, plugin: Arc::new(watch::Sender::new(Some(Arc::new(plugin)))) }
    }

    pub fn id(&self) -> &PluginId {
        &self.id
    }

    /// The Plugin with its status, and every change of it.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Plugin>>> {
        self.plugin.subscribe()
    }

    /// Has the objects let go that it holds, as when a resource is deleted; then there is none.
    pub fn leave(&self, now: k8s_openapi::jiff::Timestamp) {
        self.change(|plugin| {
            plugin.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
            plugin.metadata.finalizers = Some(vec![leaving::HOLD.to_owned()]);
            plugin.metadata.generation = plugin.metadata.generation.map(|generation| generation + 1);
            true
        });
    }

    fn tell(&self, plugin: &Plugin, said: Said) {
        let status = said.finished();
        self.change(|now| {
            let news = now.metadata.generation == plugin.metadata.generation && now.status.as_ref() != Some(&status);
            if news {
                now.status = Some(status);
            }
            news
        });
    }

    fn change(&self, change: impl FnOnce(&mut Plugin) -> bool) {
        self.plugin.send_if_modified(|plugin| plugin.as_mut().is_some_and(|plugin| change(Arc::make_mut(plugin))));
    }
}

impl Plugins {
    /// Says how one is, where that is news.
    pub(super) async fn tell(&self, api: &Api, plugin: &Plugin, said: Said) -> Result<(), ApiError> {
        match self {
            Self::Cluster => status::write(api, plugin, said).await,
            Self::Given(given) => {
                given.tell(plugin, said);
                Ok(())
            }
        }
    }

    /// From now on the Plugin goes only when its objects have been let go.
    pub(super) async fn hold(&self, api: &Api, plugin: &Plugin, manifest: &Manifest) -> Result<(), ApiError> {
        let is_held = leaving::is_held(plugin) || plugin.metadata.deletion_timestamp.is_some();
        match self {
            Self::Cluster if !is_held && leaving::is_needed(manifest) => leaving::hold(api, plugin).await,
            _ => Ok(()),
        }
    }

    pub(super) async fn let_go(&self, api: &Api, plugin: &Plugin) -> Result<(), ApiError> {
        match self {
            Self::Cluster => leaving::let_go(api, plugin).await,
            Self::Given(given) => {
                given.plugin.send_replace(None);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::status::Truth;

    #[test]
    fn what_is_said_stands_in_the_status_and_what_is_old_does_not() {
        let plugin = json!({ "apiVersion": "reef.dev/v1alpha1", "kind": "Plugin",
            "metadata": { "name": "a", "namespace": "b", "uid": "u", "generation": 1 }, "spec": { "source": { "file": "a.wasm" } } });
        let plugin: Plugin = serde_json::from_value(plugin).unwrap();
        let given = Given::new(plugin.clone());
        let mut watch = given.watch();
        let said = |reason: &str| {
            let mut said = Said::of(&plugin);
            said.put("Ready", Truth::True, reason, "");
            said
        };
        given.tell(&plugin, said("Ready"));
        assert!(watch.has_changed().unwrap());
        watch.mark_unchanged();
        given.tell(&plugin, said("Ready"));
        assert!(!watch.has_changed().unwrap(), "it is no news");
        given.leave(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        let now = watch.borrow_and_update().clone().unwrap();
        assert!(leaving::is_held(&now) && now.metadata.generation == Some(2));
        given.tell(&plugin, said("Other"));
        assert!(!watch.has_changed().unwrap(), "it speaks of an older one");
    }
}
