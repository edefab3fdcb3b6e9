//! Which revision of which plugin should run, and which one does: the `Plugin` resources, validated, and the table of
//! running revisions with the last good one of each. It never knows Wasm.

pub mod crd;
pub mod desired;

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;

pub use desired::{Desired, Refused};

use crate::{
    contract::Manifest,
    names::{Account, Digest, Kind, PluginId},
};

/// What is the same for every reconcile of a plugin until it is swapped.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    pub plugin: PluginId,
    pub uid: Arc<str>,
    /// Creation of the `Plugin` resource (RFC 3339): of two that want the same name, the older one keeps it.
    pub created: Arc<str>,
    pub digest: Digest,
    pub manifest: Manifest,
    pub account: Account,
    /// The mark; the field manager's name is `reef:` and this.
    pub field_manager: Arc<str>,
    /// JSON text.
    pub settings: Arc<str>,
    pub limits: desired::Limits,
    pub concurrency: usize,
}

impl Revision {
    /// The field manager's name as the API server sees it.
    pub fn manager(&self) -> String {
        format!("reef:{}", self.field_manager)
    }

    fn serves(&self, kind: &Kind) -> bool {
        self.manifest.reconciles.iter().any(|entry| entry.kind.same_group_kind(kind))
    }
}

/// The table of running revisions; `L` is what was loaded for each.
#[derive(Debug)]
pub struct Catalog<L> {
    running: RwLock<HashMap<PluginId, Arc<Running<L>>>>,
}

#[derive(Debug)]
pub struct Running<L> {
    pub revision: Revision,
    pub loaded: Arc<L>,
}

impl<L> Default for Catalog<L> {
    fn default() -> Self {
        Self { running: RwLock::default() }
    }
}

impl<L> Catalog<L> {
    pub fn get(&self, plugin: &PluginId) -> Option<Arc<Running<L>>> {
        self.running.read().get(plugin).cloned()
    }

    /// Puts a revision in the place of the last one. Refused if an older plugin of the namespace uses the same field
    /// manager on one of its kinds: they would take each other's children for their own.
    pub fn put(&self, running: Running<L>) -> Result<(), Refused> {
        let mut table = self.running.write();
        let mine = &running.revision;
        let rival = table.values().map(|other| &other.revision).find(|other| {
            other.plugin != mine.plugin
                && other.plugin.namespace == mine.plugin.namespace
                && other.field_manager == mine.field_manager
                && mine.manifest.reconciles.iter().any(|entry| other.serves(&entry.kind))
                && (&other.created, &other.plugin) < (&mine.created, &mine.plugin)
        });
        if let Some(rival) = rival {
            return Err(Refused {
                reason: "FieldManagerTaken",
                message: format!(
                    "spec.fieldManager: plugin {} already uses `{}` on the same kind: give this one another name",
                    rival.plugin, mine.field_manager
                ),
            });
        }
        table.insert(mine.plugin.clone(), Arc::new(running));
        Ok(())
    }

    pub fn remove(&self, plugin: &PluginId) {
        self.running.write().remove(plugin);
    }
}
