//! Carries out the writes of a plan, one by one in the author's order, and stops at the first that fails.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    Mode, Run,
    complete::Wanted,
    diff::{self, Mine, Step},
    failure::Failed,
    json::insert,
    schema::Conditions,
    shared::leaves,
    status::Live,
    verb::{Fate, Verb},
    writer::{ManagedEntry, Target, managed_entries},
};
use crate::{
    contract::Read,
    identity::ApiError,
    names::ObjectId,
    watch::{Entry, Operation},
};

/// Create, then two changes of mind of the world; more than that is a race to come back to.
const ROUNDS: usize = 4;

/// What has to happen to an object that is there, or is not.
type Judge = fn(&Wanted, Option<&Entry>, Mine<'_>) -> Step;

impl Run<'_> {
    /// Makes one write of the plan true.
    pub(super) async fn make(&mut self, wanted: &Wanted) -> Result<(), Failed> {
        match &wanted.verb {
            Verb::Own(fate) => {
                if *fate == Fate::Kept {
                    // No owner reference tells whose it is.
                    self.depend(&wanted.id, leaves(&wanted.object));
                }
                self.bring(wanted, diff::step).await
            }
            Verb::Apply { conflicts, subresource: None } => self.share(wanted, *conflicts).await,
            Verb::Apply { conflicts, subresource: Some(name) } => self.share_part(wanted, name, *conflicts).await,
            Verb::Create(fate) => {
                if *fate == Fate::Kept {
                    // Nothing of it is ours, so only a dependency wakes this key when it goes.
                    self.depend(&wanted.id, vec!["/metadata/uid".into()]);
                }
                self.bring(wanted, diff::existence).await
            }
            Verb::Patch { if_version, .. } => self.merge(wanted, if_version.as_deref()).await,
            Verb::Delete { if_version, propagation } => self.remove(wanted, if_version.as_deref(), *propagation).await,
        }
    }

    async fn bring(&mut self, child: &Wanted, judge: Judge) -> Result<(), Failed> {
        let mut live = self.cached(child)?;
        let mut changed = false;
        for _ in 0..ROUNDS {
            live = match (judge(child, live.as_ref(), self.mine()), &live) {
                (Step::InOrder, _) => return Ok(()),
                (Step::Wait(said), _) => return Err(Failed::waiting(said)),
                (Step::Conflict(said), _) => {
                    // Nothing of it is ours, so only a dependency wakes this key when it changes.
                    self.depend(&child.id, Vec::new());
                    return Err(Failed::conflict(said));
                }
                (Step::Change { .. }, _) if changed => {
                    tracing::warn!(child = %child.id, owner = %self.owner.entry.id, "the API server does not keep all of what was applied");
                    return Ok(());
                }
                (Step::Change { convert }, Some(found)) => {
                    if !self.may_repair_child(child, found).await? {
                        return Ok(());
                    }
                    changed = true;
                    Some(self.change(child, found, convert).await?)
                }
                (Step::Create | Step::Change { .. }, _) => self.create(child).await?,
            };
        }
        Err(Failed::superseded(format!("{} comes and goes while it is being written", child.id)))
    }

    /// The new object, or what is there instead: a foreign one, or ours, if the answer to an earlier create was lost.
    async fn create(&mut self, child: &Wanted) -> Result<Option<Entry>, Failed> {
        self.see_owner().await?;
        let target = Target::new(&child.resource, &child.id);
        match self.writer.create(target, &child.object).await {
            Ok(entry) => Ok(Some(entry)),
            Err(refusal) if refusal.is(ApiError::is_already_exists) => {
                Ok(self.writer.live(target).await?.map(|(entry, _)| entry))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// A child of an object that was reconciled before and is not there: perhaps somebody deleted it, or perhaps its owner is
    /// gone, and the garbage collector was quicker than the event that says so. The API server knows.
    async fn see_owner(&mut self) -> Result<(), Failed> {
        if self.owner_seen || !self.was_reconciled().await? {
            return Ok(());
        }
        let id = self.owner.entry.id.clone();
        match self.writer.live(Target::new(&self.owner.resource, &id)).await? {
            Some((now, _)) if now.uid != self.owner.entry.uid => Err(Failed::owner_gone()),
            Some((now, _)) if now.deleting && !self.current.deleting => Err(Failed::superseded(format!("{id} is being deleted"))),
            Some(_) => {
                self.owner_seen = true;
                Ok(())
            }
            None => Err(Failed::owner_gone()),
        }
    }

    /// Whether a plan for the owner may have been carried out before. Where no condition says so, it may.
    async fn was_reconciled(&self) -> Result<bool, Failed> {
        if *self.conditions().await? == Conditions::Absent {
            return Ok(true);
        }
        let live = Live::of(&self.current, &self.writer.manager);
        Ok(live.is_ok_and(|live| live.has(&self.author.entry.condition)))
    }

    async fn change(&mut self, child: &Wanted, live: &Entry, convert: bool) -> Result<Entry, Failed> {
        let target = Target::new(&child.resource, &child.id);
        // Nothing that can be seen of the object.
        if convert && self.author.mode == Mode::Apply {
            self.convert(target).await?;
        }
        let mut object = child.object.clone();
        // The uid is a precondition: what was judged is what is changed.
        if let Some(metadata) = object.get_mut("metadata") {
            insert(metadata, "uid", &live.uid);
        }
        let refusal = match self.writer.apply(target, &object).await {
            Ok(entry) => return Ok(entry),
            Err(refusal) if !refusal.is(ApiError::is_invalid) => return Err(refusal.into()),
            Err(refusal) => refusal,
        };
        if self.is_another(target, &live.uid).await? {
            return Err(Failed::superseded(format!("{} was replaced while it was being written", child.id)));
        }
        if self.take_over(target).await? { Ok(self.writer.apply(target, &object).await?) } else { Err(refusal.into()) }
    }

    /// A uid that does not fit is refused as any other value that does not.
    async fn is_another(&self, target: Target<'_>, uid: &str) -> Result<bool, Failed> {
        Ok(self.writer.live(target).await?.is_none_or(|(now, _)| *now.uid != *uid))
    }

    /// Turns the entry that our own create left in `managedFields` into one of an apply: only then do fields that are
    /// no longer applied go away.
    async fn convert(&mut self, target: Target<'_>) -> Result<(), Failed> {
        let Some((entry, text)) = self.writer.live(target).await? else {
            return Err(Failed::superseded(format!("{} is gone", target.id)));
        };
        let Some(operations) = conversion(&entry, &text, &self.writer.manager) else { return Ok(()) };
        let manager = self.writer.manager.clone();
        match self.writer.patch(target, &manager, &operations).await {
            Ok(_) => Ok(()),
            // One of the tests did not hold.
            Err(refusal) if refusal.is(ApiError::is_invalid) => {
                Err(Failed::superseded(format!("{} was changed while it was being written", target.id)))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn mine(&self) -> Mine<'_> {
        Mine {
            owner: &self.owner.entry.id,
            owner_uid: &self.owner.entry.uid,
            mark: &self.author.field_manager,
            manager: &self.writer.manager,
        }
    }

    /// From now on, and until the next run, a change of these fields wakes the key.
    pub(super) fn depend(&mut self, id: &ObjectId, fields: Vec<String>) {
        let read = Read { object: id.clone(), fields };
        self.applier.hub.add_read(&self.owner.key, &read);
        self.reads.push(read);
    }

    pub(super) fn cached(&self, wanted: &Wanted) -> Result<Option<Entry>, Failed> {
        let id = &wanted.id;
        let scope = self.author.owned.iter().chain(&self.author.written).find(|scope| scope.holds(id));
        let scope = scope.ok_or_else(|| Failed::not_synced(format!("{} is not watched yet", id.kind)))?;
        let found = self.applier.hub.get(scope, &id.namespace, &id.name);
        Ok(found.map_err(|e| Failed::not_synced(e.to_string()))?.map(|entry| (*entry).clone()))
    }
}

/// The JSON patch for it, if there is something to convert. If an apply's entry is there as well, the other goes.
fn conversion(entry: &Entry, text: &Bytes, manager: &str) -> Option<Value> {
    let ours = |m: &ManagedEntry, operation: &str| m.manager == manager && m.subresource.is_empty() && m.operation == operation;
    let entries = managed_entries(text);
    let index = entries.iter().position(|m| ours(m, "Update"))?;
    let path = format!("/metadata/managedFields/{index}");
    let both =
        entry.managers.iter().any(|m| *m.manager == *manager && m.subresource.is_empty() && m.operation == Operation::Apply);
    let last = if both {
        json!({ "op": "remove", "path": path })
    } else {
        json!({ "op": "replace", "path": format!("{path}/operation"), "value": "Apply" })
    };
    Some(json!([
        { "op": "test", "path": "/metadata/uid", "value": &*entry.uid },
        { "op": "test", "path": format!("{path}/manager"), "value": manager },
        { "op": "test", "path": format!("{path}/operation"), "value": "Update" },
        last,
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(managed: &Value) -> Option<Value> {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata":
            {"name": "a", "uid": "c1", "resourceVersion": "1", "managedFields": managed}});
        let text = Bytes::from(object.to_string());
        conversion(&Entry::parse(&text, None).unwrap(), &text, "reef:hello")
    }

    fn entry(manager: &str, operation: &str, subresource: &str) -> Value {
        json!({"manager": manager, "operation": operation, "subresource": subresource, "fieldsV1": {"f:data": {}}})
    }

    #[test]
    fn the_entry_of_our_create_is_found_by_manager_operation_and_subresource() {
        let patch = convert(&json!([
            entry("kubectl", "Update", ""),
            entry("reef:hello", "Update", "status"),
            entry("reef:hello", "Update", ""),
        ]));
        let patch = patch.unwrap();
        assert_eq!(patch[1], json!({"op": "test", "path": "/metadata/managedFields/2/manager", "value": "reef:hello"}));
        assert_eq!(patch[3], json!({"op": "replace", "path": "/metadata/managedFields/2/operation", "value": "Apply"}));
        assert_eq!(convert(&json!([entry("reef:hello", "Apply", "")])), None);
    }

    #[test]
    fn beside_an_apply_the_entry_of_a_create_goes() {
        let patch = convert(&json!([entry("reef:hello", "Update", ""), entry("reef:hello", "Apply", "")])).unwrap();
        assert_eq!(patch[3], json!({"op": "remove", "path": "/metadata/managedFields/0"}));
    }
}
