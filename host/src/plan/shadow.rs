//! Shadow mode: what would be written is compared with what is there, and noted; the door stays shut.
//!
//! The first write of a step ends the step, because there is no answer to go on from; the next step goes on as if it had been
//! made. So a whole plan is compared, and nothing of it is sent. Pure, but for the mode itself.

use serde_json::{Map, Value};

use super::failure::{Class, Failed};
use crate::{
    names::ObjectId,
    watch::{Entry, Managed, Operation},
};

/// Whether a plugin's plans are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Apply,
    /// They are made and compared; nothing is written.
    Shadow,
}

/// A write that was made, or in shadow mode would have been.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// As RBAC calls it.
    pub verb: &'static str,
    pub object: ObjectId,
    pub subresource: Option<Box<str>>,
    /// In shadow mode: what would change.
    pub difference: Option<Difference>,
}

/// What is there, as far as the write is about it, and what would be. Null: nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub before: Value,
    pub after: Value,
}

/// What a write says.
#[derive(Debug, Clone, Copy)]
pub(super) enum Says<'a> {
    /// An object, or what of it is ours.
    Object(&'a Value),
    /// The same, by a manager of its own.
    Shared(&'a Value, &'a str),
    /// A merge patch.
    Patch(&'a Value),
    /// A JSON patch.
    Operations(&'a Value),
    Deletion,
}

/// `live` is what the cache has; `manager` whose fields of the object, or of its subresource, the write replaces.
pub(super) fn difference(live: Option<&Entry>, says: Says<'_>, (manager, subresource): (&str, &str)) -> Difference {
    let there = live.and_then(|entry| serde_json::from_slice::<Value>(&entry.bytes).ok()).unwrap_or_default();
    match says {
        Says::Shared(wanted, manager) => difference(live, Says::Object(wanted), (manager, subresource)),
        Says::Object(wanted) => {
            let owned = live.and_then(|entry| fields(entry, manager, subresource)).unwrap_or_default();
            let after = without_preconditions(wanted.clone());
            Difference { before: part(&there, &after, &owned), after }
        }
        Says::Patch(patch) => {
            let before = part(&there, patch, &Value::Null);
            let mut after = before.clone();
            merge(&mut after, patch);
            Difference { before, after }
        }
        Says::Operations(operations) => {
            let changes = |operation: &&Value| operation.get("op").and_then(Value::as_str) != Some("test");
            let changes = operations.as_array().map(|all| all.iter().filter(changes).cloned().collect());
            Difference { before: Value::Null, after: changes.unwrap_or_default() }
        }
        Says::Deletion => Difference { before: there, after: Value::Null },
    }
}

/// What an apply of this manager has said before, as `fieldsV1`.
fn fields(entry: &Entry, manager: &str, subresource: &str) -> Option<Value> {
    let is_ours = |m: &&Managed| *m.manager == *manager && *m.subresource == *subresource && m.operation == Operation::Apply;
    let ours = entry.managers.iter().find(is_ours)?;
    serde_json::from_str(&ours.fields).ok()
}

/// Of what is there: whatever the plan speaks of, and what it spoke of before and no longer does. Lists are shown whole.
fn part(there: &Value, wanted: &Value, owned: &Value) -> Value {
    let (Value::Object(there), Value::Object(wanted)) = (there, wanted) else { return there.clone() };
    let mut shown = Map::new();
    for (key, value) in there {
        let owned = owned.get(format!("f:{key}")).unwrap_or(&Value::Null);
        match (wanted.get(key), owned) {
            (Some(wanted), owned) => drop(shown.insert(key.clone(), part(value, wanted, owned))),
            (None, Value::Null) => {}
            (None, owned) => drop(shown.insert(key.clone(), given_up(value, owned))),
        }
    }
    Value::Object(shown)
}

/// Of a field that the plan has no longer: what was ours of it.
fn given_up(there: &Value, owned: &Value) -> Value {
    let below = owned.as_object().is_some_and(|owned| owned.keys().any(|key| key.starts_with("f:")));
    match there {
        Value::Object(_) if below => part(there, &Value::Object(Map::new()), owned),
        _ => there.clone(),
    }
}

/// Which very object it is, is not a change.
fn without_preconditions(mut wanted: Value) -> Value {
    if let Some(metadata) = wanted.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("uid");
        metadata.remove("resourceVersion");
    }
    wanted
}

fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    let Some(fields) = into.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

impl Difference {
    /// Of a Secret, what it keeps is told by its length alone.
    pub(super) fn without_secrets(mut self) -> Self {
        for field in ["data", "stringData"] {
            let before = self.before.get(field).cloned().unwrap_or_default();
            conceal(self.after.get_mut(field), &before, ", another value");
            conceal(self.before.get_mut(field), &before, "");
        }
        self
    }
}

/// `new` marks what differs from what there was.
fn conceal(values: Option<&mut Value>, before: &Value, new: &str) {
    for (key, value) in values.and_then(Value::as_object_mut).into_iter().flatten() {
        let is_same = before.get(key) == Some(value);
        let length = value.as_str().map_or(0, str::len);
        *value = format!("({length} characters{})", if is_same { "" } else { new }).into();
    }
}

/// Goes on after a step that ended before its first write.
pub(super) fn or_shadowed(step: Result<(), Failed>) -> Result<(), Failed> {
    match step {
        Err(failed) if failed.class == Class::Shadowed => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn live(fields: &Value) -> Entry {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n", "uid": "c1",
            "resourceVersion": "1", "labels": {"foreign": "1"},
            "managedFields": [{"manager": "reef:x", "operation": "Apply", "fieldsV1": fields}]},
            "data": {"kept": "1", "dropped": "2", "foreign": "3"}, "list": [1, 2]});
        Entry::parse(object.to_string().as_bytes(), None).unwrap()
    }

    #[test]
    fn of_what_is_there_only_what_the_plan_speaks_of_or_spoke_of_is_shown() {
        let entry = live(&json!({"f:data": {"f:kept": {}, "f:dropped": {}}}));
        let wanted = json!({"kind": "ConfigMap", "metadata": {"name": "a", "uid": "c1"}, "data": {"kept": "9"}, "list": [3]});
        let Difference { before, after } = difference(Some(&entry), Says::Object(&wanted), ("reef:x", ""));
        let shown =
            json!({"kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"kept": "1", "dropped": "2"}, "list": [1, 2]});
        assert_eq!(before, shown);
        assert_eq!(after, json!({"kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"kept": "9"}, "list": [3]}));
    }

    #[test]
    fn a_field_that_the_plan_has_given_up_as_a_whole_is_shown_as_far_as_it_was_ours() {
        let entry = live(&json!({"f:data": {"f:dropped": {}}}));
        let before = difference(Some(&entry), Says::Object(&json!({"list": [1, 2]})), ("reef:x", "")).before;
        assert_eq!(before, json!({"data": {"dropped": "2"}, "list": [1, 2]}));
    }

    #[test]
    fn patches_deletions_and_what_is_new() {
        let entry = live(&json!({}));
        let found = difference(Some(&entry), Says::Patch(&json!({"data": {"kept": null, "new": "4"}})), ("reef:x", ""));
        assert_eq!(found, Difference { before: json!({"data": {"kept": "1"}}), after: json!({"data": {"new": "4"}}) });
        assert!(difference(Some(&entry), Says::Deletion, ("reef:x", "")).after.is_null());
        assert!(difference(None, Says::Object(&json!({"data": {}})), ("reef:x", "")).before.is_null());
        let secret = |x: &str, y: &str| json!({"data": {"x": x, "y": y}});
        let hidden = Difference { before: secret("abc", "same"), after: secret("xyz", "same") }.without_secrets();
        assert_eq!(hidden.before, secret("(3 characters)", "(4 characters)"));
        assert_eq!(hidden.after, secret("(3 characters, another value)", "(4 characters)"));
        let operations = json!([{"op": "test", "path": "/a"}, {"op": "add", "path": "/b", "value": 1}]);
        assert_eq!(
            difference(None, Says::Operations(&operations), ("", "")).after,
            json!([{"op": "add", "path": "/b", "value": 1}])
        );
    }
}
