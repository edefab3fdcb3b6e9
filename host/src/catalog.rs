//! Which revision of which plugin should run, and which one does: the `Plugin` resources, validated, and the table of
//! running revisions with the last good one of each. It never knows Wasm.

pub mod crd;
pub mod desired;

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;

pub use desired::{Desired, Refused, Source};

use crate::{
    contract::{Manifest, manifest::Reconciles},
    names::{Account, Digest, PluginId},
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
    pub mode: crd::Mode,
}

impl Revision {
    /// The field manager's name as the API server sees it.
    pub fn manager(&self) -> String {
        format!("reef:{}", self.field_manager)
    }

    /// Why this one may not run beside an older one of its namespace, if it may not. Each would undo what the other does,
    /// or take it for its own, without end.
    pub fn clash(&self, older: &Revision) -> Option<Refused> {
        let theirs = |mine: &Reconciles| older.manifest.reconciles.iter().find(|entry| entry.kind.same_group_kind(&mine.kind));
        let mine = &self.manifest.reconciles;
        if older.field_manager == self.field_manager && mine.iter().any(|entry| theirs(entry).is_some()) {
            return Some(Refused {
                reason: "FieldManagerTaken",
                message: format!(
                    "spec.fieldManager: plugin {} already uses `{}` on the same kind: give this one another name",
                    older.plugin, self.field_manager
                ),
            });
        }
        let both = mine.iter().find(|entry| theirs(entry).is_some_and(|theirs| theirs.condition == entry.condition))?;
        Some(Refused {
            reason: "ConditionTaken",
            message: format!(
                "plugin {} already writes the condition `{}` of {}: suspend one of the two, or name another `condition` in this \
                 one's `plugin!` line",
                older.plugin, both.condition, both.kind
            ),
        })
    }

    /// Of two that want the same, the one whose resource was created first keeps it.
    fn is_older_than(&self, other: &Revision) -> bool {
        (&self.created, &self.plugin) < (&other.created, &other.plugin)
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

    /// Puts a revision in the place of the last one, unless it clashes with an older plugin of the namespace.
    pub fn put(&self, running: Running<L>) -> Result<(), Refused> {
        let mut table = self.running.write();
        clash(&table, &running.revision)?;
        table.insert(running.revision.plugin.clone(), Arc::new(running));
        Ok(())
    }

    /// Refused once an older plugin of the namespace runs that it clashes with.
    pub fn may_stay(&self, revision: &Revision) -> Result<(), Refused> {
        clash(&self.running.read(), revision)
    }

    pub fn remove(&self, plugin: &PluginId) {
        self.running.write().remove(plugin);
    }
}

fn clash<L>(table: &HashMap<PluginId, Arc<Running<L>>>, mine: &Revision) -> Result<(), Refused> {
    let beside = |other: &&Revision| other.plugin != mine.plugin && other.plugin.namespace == mine.plugin.namespace;
    let others = table.values().map(|other| &other.revision).filter(beside);
    match others.filter(|other| other.is_older_than(mine)).find_map(|older| mine.clash(older)) {
        Some(refused) => Err(refused),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::names::{Memory, Span};

    /// A plugin of `team-a` for one kind.
    fn revision(name: &str, created: &str, kind: &str, condition: &str, field_manager: &str) -> Revision {
        let manifest = json!({ "name": "x", "version": "1.0.0", "reconciles": [{ "for": kind, "condition": condition }] });
        Revision {
            plugin: PluginId::new("team-a", name),
            uid: name.into(),
            created: created.into(),
            digest: Digest::of(b""),
            manifest: Manifest::parse(manifest.to_string().as_bytes()).unwrap(),
            account: Account::new("team-a", name),
            field_manager: field_manager.into(),
            settings: "{}".into(),
            limits: desired::Limits {
                memory: Memory(1 << 20),
                cpu: Span(Duration::from_secs(1)),
                deadline: Span(Duration::from_secs(1)),
            },
            concurrency: 1,
            mode: crd::Mode::Apply,
        }
    }

    fn put(catalog: &Catalog<()>, revision: Revision) -> Result<(), &'static str> {
        catalog.put(Running { revision, loaded: Arc::new(()) }).map_err(|refused| refused.reason)
    }

    const HELLO: &str = "demo.reef.dev/v1/Hello";

    #[test]
    fn of_two_that_write_one_condition_of_a_kind_the_younger_is_refused_in_whatever_order_they_come() {
        let (old, young) =
            (revision("b", "2026-01-01", HELLO, "Reconciled", "b"), revision("a", "2026-01-02", HELLO, "Reconciled", "a"));
        let catalog = Catalog::default();
        assert_eq!(put(&catalog, old.clone()), Ok(()));
        assert_eq!(put(&catalog, young.clone()), Err("ConditionTaken"));
        let catalog = Catalog::default();
        assert_eq!(put(&catalog, young.clone()), Ok(()));
        assert_eq!(put(&catalog, old.clone()), Ok(()), "the older one is never refused for a younger one's sake");
        assert!(catalog.may_stay(&young).is_err() && catalog.may_stay(&old).is_ok());
    }

    #[test]
    fn another_kind_condition_or_namespace_is_no_clash_and_neither_is_a_new_revision_of_itself() {
        let catalog = Catalog::default();
        let first = revision("a", "2026-01-01", HELLO, "Reconciled", "a");
        assert_eq!(put(&catalog, first.clone()), Ok(()));
        assert_eq!(put(&catalog, Revision { digest: Digest::of(b"2"), ..first.clone() }), Ok(()));
        assert_eq!(put(&catalog, revision("b", "2026-01-02", "demo.reef.dev/v1/Other", "Reconciled", "a")), Ok(()));
        assert_eq!(put(&catalog, revision("c", "2026-01-02", HELLO, "Greeted", "c")), Ok(()));
        assert_eq!(
            put(&catalog, Revision { plugin: PluginId::new("team-b", "a"), created: "2026-01-02".into(), ..first }),
            Ok(())
        );
    }

    #[test]
    fn a_version_of_the_same_kind_clashes_and_the_field_manager_is_named_first() {
        let catalog = Catalog::default();
        assert_eq!(put(&catalog, revision("a", "2026-01-01", HELLO, "Reconciled", "same")), Ok(()));
        let other = revision("b", "2026-01-02", "demo.reef.dev/v2/Hello", "Reconciled", "same");
        assert_eq!(put(&catalog, other), Err("FieldManagerTaken"));
    }
}
