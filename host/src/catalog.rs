//! Which revision of which plugin should run, and which one does: the `Plugin` resources, validated, and the table of
//! running revisions with the last good one of each. It never knows Wasm.

pub mod crd;
pub mod desired;

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;

pub use desired::{Desired, Refused};

use crate::{
    contract::{Manifest, manifest::Reconciles},
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

    /// The entry whose host condition the other one writes as well, on the same kind.
    fn same_condition(&self, other: &Revision) -> Option<&Reconciles> {
        self.manifest.reconciles.iter().find(|mine| {
            let theirs = &other.manifest.reconciles;
            theirs.iter().any(|theirs| theirs.kind.same_group_kind(&mine.kind) && theirs.condition == mine.condition)
        })
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
        let older = |other: &&Revision| {
            other.plugin != mine.plugin
                && other.plugin.namespace == mine.plugin.namespace
                && (&other.created, &other.plugin) < (&mine.created, &mine.plugin)
        };
        let rivals = || table.values().map(|other| &other.revision).filter(older);
        let serves = |other: &&Revision| mine.manifest.reconciles.iter().any(|entry| other.serves(&entry.kind));
        // Both would write the same condition, each waking the other by it, without end.
        let shared = rivals().find_map(|other| Some((other, mine.same_condition(other)?)));
        if let (Some((rival, entry)), false) = (shared, rivals().filter(serves).any(|r| r.field_manager == mine.field_manager)) {
            return Err(Refused {
                reason: "ConditionTaken",
                message: format!(
                    "plugin {} already writes the condition `{}` of {}: suspend one of the two, or name another `condition` in this \
                     one's `plugin!` line",
                    rival.plugin, entry.condition, entry.kind
                ),
            });
        }
        if let Some(rival) = rivals().filter(serves).find(|other| other.field_manager == mine.field_manager) {
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
