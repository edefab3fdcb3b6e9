//! Deletes children that a complete plan no longer has.
//!
//! Only what carries both the owner's uid and the plugin's mark is ever deleted, and only that very object: its uid is
//! the precondition. Nothing is decided from a cache that is not complete.

use std::collections::HashSet;

use super::{
    Run,
    complete::{Child, MARK},
    failure::Failed,
    writer::Target,
};
use crate::{names::ObjectId, watch::Entry};

impl Run<'_> {
    pub(super) async fn prune(&mut self, planned: &[Child]) -> Result<(), Failed> {
        let mut owned = Vec::new();
        for (_, scope) in &self.author.owned {
            let found = self.applier.hub.owned_by(scope, &self.owner.entry.uid);
            owned.extend(found.map_err(|e| Failed::not_synced(e.to_string()))?);
        }
        let mut seen = HashSet::new();
        for entry in owned.iter().filter(|entry| is_left_over(entry, &self.author.field_manager, planned)) {
            if seen.insert(entry.uid.clone()) {
                self.delete(entry).await?;
            }
        }
        Ok(())
    }

    async fn delete(&mut self, entry: &Entry) -> Result<(), Failed> {
        let resource = self.resource(&entry.id.kind).await?;
        tracing::info!(child = %entry.id, owner = %self.owner.entry.id, "no longer planned, so it is deleted");
        self.writer.delete(Target::new(&resource, &entry.id), &entry.uid).await?;
        Ok(())
    }
}

fn is_left_over(entry: &Entry, mark: &str, planned: &[Child]) -> bool {
    let same = |id: &ObjectId| {
        id.kind.same_group_kind(&entry.id.kind) && id.namespace == entry.id.namespace && id.name == entry.id.name
    };
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
