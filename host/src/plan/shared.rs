//! Objects that a plugin shares with others: applied under a field manager of its own, beside theirs.
//!
//! Nothing is taken away from anybody unless the plan says `force`: a field that another manager has with another value
//! is a conflict, told with field and manager. The manager is the plugin's *for this owner*, because one manager has one
//! set of fields: two owners that apply to the same object under one name would take each other's fields away by turns.
//! A shared object is never deleted, and what was applied stays when it leaves the plan.
//!
//! As for a child, the hash of what was applied stands in an annotation, one for each owner: only so is it known, after a
//! restart too, that a value that the API server has normalised is the one that is planned.

use serde_json::{Map, Value};

use super::{
    Owner, Run,
    complete::Wanted,
    diff,
    failure::Failed,
    verb::Conflicts,
    writer::{Refusal, Target},
};
use crate::{
    identity::ApiError,
    names::{Digest, ObjectId},
};

/// What the API server takes for the name of a field manager.
const MAX_MANAGER: usize = 128;
/// So many conflicting fields are named.
const NAMED: usize = 3;
/// More leaves than these: any change of the object wakes.
const MAX_FIELDS: usize = 64;

impl Run<'_> {
    pub(super) async fn share(&mut self, wanted: &Wanted, conflicts: Conflicts) -> Result<(), Failed> {
        // Before it is looked at, so that no change falls in between.
        self.depend(&wanted.id, leaves(&wanted.object));
        let manager = self.shared_manager();
        if let Some(live) = self.cached(wanted)? {
            if live.deleting {
                return Err(Failed::waiting(format!("{} is being deleted: it is applied again when it is gone", wanted.id)));
            }
            let hash_in = applied(&self.author.field_manager, self.owner);
            if diff::is_shared_in_order(wanted, &live, &hash_in, &manager) {
                return Ok(());
            }
            if conflicts == Conflicts::Forced && !self.may_repair(wanted, &live, (&hash_in, &manager)).await? {
                return Ok(());
            }
        }
        self.apply_shared(wanted, &manager, conflicts).await
    }

    /// A subresource of an object that is there, applied in the same way.
    pub(super) async fn share_part(&mut self, wanted: &Wanted, name: &str, conflicts: Conflicts) -> Result<(), Failed> {
        self.depend(&wanted.id, part_fields(name, &wanted.object));
        let live = self.there(wanted)?;
        let part = self.part(wanted, &live).await?;
        let manager = self.shared_manager();
        if diff::is_part_in_order(wanted, name, &live, &part, &manager) {
            return Ok(());
        }
        self.apply_shared(wanted, &manager, conflicts).await
    }

    async fn apply_shared(&mut self, wanted: &Wanted, manager: &str, conflicts: Conflicts) -> Result<(), Failed> {
        match self.writer.share(Target::of(wanted), manager, &wanted.object, conflicts).await {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.is(ApiError::is_conflict) => Err(conflict(&wanted.id, refusal)),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Who writes what is somebody else's too.
    pub(super) fn shared_manager(&self) -> String {
        manager(&self.author.field_manager, &self.owner.entry.id)
    }
}

/// The field manager under which an owner's plan is applied to shared objects: `reef:shop:shop/team-a/web`.
fn manager(field_manager: &str, owner: &ObjectId) -> String {
    let of = format!("{}/{}/{}", owner.kind.kind.to_lowercase(), owner.namespace, owner.name);
    let whole = format!("reef:{field_manager}:{of}");
    if whole.len() <= MAX_MANAGER { whole } else { format!("reef:{field_manager}:{}", short(&of, 32)) }
}

/// The annotation with the hash of what was applied for an owner.
pub(super) fn applied(field_manager: &str, owner: &Owner) -> String {
    format!("{}-{}", super::complete::APPLIED, short(&manager(field_manager, &owner.entry.id), 10))
}

fn short(text: &str, length: usize) -> String {
    Digest::of(text.as_bytes()).hex().chars().take(length).collect()
}

/// The conflicts that the API server names, or whatever else it says.
fn conflict(id: &ObjectId, refusal: Refusal) -> Failed {
    let fields: Vec<String> =
        refusal.causes().iter().filter_map(|(field, said)| Some(clash(field, said.split('"').nth(1)?))).collect();
    if fields.is_empty() {
        return refusal.into();
    }
    let more = fields.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let fields: Vec<String> = fields.into_iter().take(NAMED).collect();
    Failed::conflict(format!(
        "of {id}, which is shared, {}{more}: leave that to them, have them give it up, or say `.force()` to take it over",
        fields.join(", ")
    ))
}

fn clash(field: &str, manager: &str) -> String {
    format!("`{field}` belongs to field manager `{manager}`")
}

/// What of an object a subresource may be; none stands for all of it.
pub(super) fn part_fields(subresource: &str, object: &Value) -> Vec<String> {
    match subresource {
        "status" => leaves(object),
        // Wherever a kind has its replicas, it is below `spec`.
        "scale" => vec!["/spec".into()],
        _ => Vec::new(),
    }
}

/// JSON pointers to everything that the plan says of the object; none stands for all of it.
pub(super) fn leaves(object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(fields) = object.as_object() {
        fields.iter().filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind")).for_each(|(key, value)| {
            below(&format!("/{}", escape(key)), value, &mut found);
        });
    }
    if found.len() > MAX_FIELDS { Vec::new() } else { found }
}

fn below(path: &str, value: &Value, found: &mut Vec<String>) {
    let deeper = |fields: &Map<String, Value>| !fields.is_empty();
    match value {
        Value::Object(fields) if deeper(fields) => {
            fields.iter().for_each(|(key, value)| below(&format!("{path}/{}", escape(key)), value, found));
        }
        _ => found.push(path.to_owned()),
    }
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::tests::owner, *};

    #[test]
    fn each_owner_applies_under_a_name_of_its_own_that_fits() {
        let id = &owner().entry.id;
        assert_eq!(manager("shop", id), "reef:shop:hello/team-a/a");
        let long = ObjectId { name: "x".repeat(253).into(), ..id.clone() };
        let named = manager(&"m".repeat(63), &long);
        assert!(named.len() <= 128 && named.starts_with("reef:mmm"), "{named}");
        assert_ne!(named, manager(&"m".repeat(63), &ObjectId { name: "y".repeat(253).into(), ..id.clone() }));
        assert!(applied("shop", &owner()).starts_with("reef.dev/applied-"));
    }

    #[test]
    fn only_what_the_plan_says_of_it_wakes() {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"x/y": "1"}},
            "data": {"k": "v"}, "list": [{"a": 1}], "empty": {}});
        let mut found = leaves(&object);
        found.sort();
        assert_eq!(found, ["/data/k", "/empty", "/list", "/metadata/labels/x~1y", "/metadata/name"]);
    }
}
