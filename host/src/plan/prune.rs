//! Deletes children that a complete plan no longer has.
//!
//! Only what carries both the owner's uid and the plugin's mark is ever deleted, and only that very object: its uid is
//! the precondition. Nothing is decided from a cache that is not complete.

use std::{collections::HashSet, sync::Arc, time::Instant};

use super::{
    Brake, Run,
    brake::{Fleet, Ruling},
    complete::{MARK, Wanted},
    failure::Failed,
    shadow::or_shadowed,
    verb::Propagation,
    writer::Target,
};
use crate::{
    names::ObjectId,
    watch::{Entry, Gap},
};

impl Run<'_> {
    /// Children that are there and not planned. Those of kinds that only a former revision owned are looked for as far as
    /// they can be read: the Plugin says if they cannot, and when they can, the key is woken.
    pub(super) fn losses(&mut self, planned: &[Wanted]) -> Result<Vec<Arc<Entry>>, Failed> {
        let (hub, uid) = (&self.applier.hub, self.owner.entry.uid.clone());
        let mut owned = Vec::new();
        for scope in &self.author.owned {
            owned.extend(hub.owned_by(scope, &uid).map_err(|e| Failed::not_synced(e.to_string()))?);
        }
        for scope in &self.author.former {
            if hub.owned_by(scope, &uid).is_err() {
                self.depend(&ObjectId::new(scope.kind.clone(), &scope.namespace, &self.owner.entry.id.name), Vec::new());
            }
            match hub.owned_by(scope, &uid) {
                Ok(children) => owned.extend(children),
                Err(error) if error.gap == Gap::Filling => return Err(Failed::not_synced(error.to_string())),
                Err(_) => {}
            }
        }
        let mut seen = HashSet::new();
        owned.retain(|entry| is_left_over(entry, &self.author.field_manager, planned) && seen.insert(entry.uid.clone()));
        Ok(owned)
    }

    /// Deletes them, unless the revision would do the like to too many objects: then it says what keeps them.
    pub(super) async fn prune(&mut self, losses: &[Arc<Entry>], brake: &Brake) -> Result<Option<Failed>, Failed> {
        let counts: Vec<_> = self.author.objects.iter().map(|scope| self.applier.hub.len(scope)).collect();
        let known = counts.iter().flatten().sum();
        let fleet = if counts.iter().all(Result::is_ok) { Fleet::Exactly(known) } else { Fleet::AtLeast(known) };
        match brake.ask(&self.owner.key, !losses.is_empty(), fleet, Instant::now()) {
            _ if losses.is_empty() => {}
            Ruling::Prune => {}
            Ruling::Wait => return Ok(Some(Failed::prune_waits())),
            Ruling::Held => return Ok(Some(Failed::prune_held(&self.author.plugin))),
        }
        for entry in losses {
            or_shadowed(self.delete(entry).await)?;
        }
        Ok(None)
    }

    async fn delete(&mut self, entry: &Entry) -> Result<(), Failed> {
        let resource = self.resource(&entry.id.kind).await?;
        tracing::info!(child = %entry.id, owner = %self.owner.entry.id, "no longer planned, so it is deleted");
        self.writer.delete(Target::new(&resource, &entry.id), &entry.uid, None, Propagation::Background).await?;
        Ok(())
    }
}

fn is_left_over(entry: &Entry, mark: &str, planned: &[Wanted]) -> bool {
    let same =
        |id: &ObjectId| id.kind.same_group_kind(&entry.id.kind) && id.namespace == entry.id.namespace && id.name == entry.id.name;
    entry.label(MARK) == Some(mark) && !entry.deleting && !planned.iter().any(|child| same(&child.id))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(name: &str, mark: &str) -> Entry {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "team-a",
            "uid": "c1", "resourceVersion": "1", "labels": {"reef.dev/plugin": mark}}});
        Entry::parse(object.to_string().as_bytes(), None).unwrap()
    }

    #[test]
    fn only_what_carries_our_mark_and_is_not_planned_is_left_over() {
        let planned = [super::super::tests::child("a")];
        assert!(is_left_over(&entry("b", "hello"), "hello", &planned));
        assert!(!is_left_over(&entry("a", "hello"), "hello", &planned));
        assert!(!is_left_over(&entry("b", "other"), "hello", &planned));
        let deleting = Entry { deleting: true, ..entry("b", "hello") };
        assert!(!is_left_over(&deleting, "hello", &planned));
    }
}
