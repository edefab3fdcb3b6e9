//! What others have added to a child, where the API server refuses the child because of it.
//!
//! An apply changes what it names, and takes away what it has named before. To a list it only adds: a port whose number somebody
//! has changed is a second port by then, and the two together may be invalid. So what others have written becomes ours, and
//! the next apply takes away what the plan does not have.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{
    Run,
    failure::Failed,
    writer::{ManagedEntry, Target, managed_entries},
};
use crate::{identity::ApiError, watch::Entry};

impl Run<'_> {
    /// Whether there was anything to take over.
    pub(super) async fn take_over(&mut self, target: Target<'_>) -> Result<bool, Failed> {
        let Some((entry, text)) = self.writer.live(target).await? else {
            return Err(Failed::superseded(format!("{} is gone", target.id)));
        };
        let Some(operations) = operations(&entry, &text, &self.writer.manager) else { return Ok(false) };
        let manager = self.writer.manager.clone();
        match self.writer.patch(target, &manager, &operations).await {
            Ok(_) => Ok(true),
            // One of the tests did not hold.
            Err(refusal) if refusal.is(ApiError::is_invalid) => {
                Err(Failed::superseded(format!("{} was changed while it was being written", target.id)))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }
}

/// The JSON patch by which all fields of others become fields of our apply. What is written through a subresource, by a kubelet
/// or an autoscaler, stays theirs, and so does what somebody else applies.
fn operations(entry: &Entry, text: &Bytes, manager: &str) -> Option<Value> {
    let entries = managed_entries(text);
    let ours = entries.iter().position(|m| m.manager == manager && m.operation == "Apply" && m.subresource.is_empty())?;
    let is_taken = |m: &ManagedEntry| m.operation == "Update" && m.subresource.is_empty();
    let taken: Vec<usize> = (0..entries.len()).filter(|index| entries.get(*index).is_some_and(is_taken)).collect();
    if taken.is_empty() {
        return None;
    }
    let mut fields = entries.get(ours)?.fields.clone();
    for entry in entries.iter().filter(|m| is_taken(m)) {
        merge(&mut fields, &entry.fields);
    }
    let mut operations = vec![
        json!({ "op": "test", "path": "/metadata/uid", "value": &*entry.uid }),
        json!({ "op": "test", "path": "/metadata/resourceVersion", "value": entry.resource_version.to_string() }),
        json!({ "op": "replace", "path": format!("/metadata/managedFields/{ours}/fieldsV1"), "value": fields }),
    ];
    // From the end, so that the others keep their places.
    operations
        .extend(taken.iter().rev().map(|index| json!({ "op": "remove", "path": format!("/metadata/managedFields/{index}") })));
    Some(Value::Array(operations))
}

/// The union of two trees of `fieldsV1`.
fn merge(into: &mut Value, more: &Value) {
    let Value::Object(more) = more else { return };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    if let Value::Object(into) = into {
        for (key, value) in more {
            merge(into.entry(key).or_insert_with(|| json!({})), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(managed: &Value) -> Option<Value> {
        let object = json!({ "apiVersion": "v1", "kind": "Service", "metadata":
            { "name": "a", "uid": "s1", "resourceVersion": "7", "managedFields": managed } });
        let text = Bytes::from(object.to_string());
        operations(&Entry::parse(&text, None).unwrap(), &text, "reef:website")
    }

    fn entry(manager: &str, operation: &str, subresource: &str, fields: &Value) -> Value {
        json!({ "manager": manager, "operation": operation, "subresource": subresource, "fieldsV1": fields })
    }

    #[test]
    fn what_others_wrote_becomes_ours_but_for_subresources_and_applies() {
        let ours = json!({ "f:spec": { "f:ports": { "k:{\"port\":80}": { "f:name": {} } } } });
        let theirs = json!({ "f:spec": { "f:ports": { "k:{\"port\":81}": { ".": {}, "f:name": {} } } } });
        let patch = taken(&json!([
            entry("kubectl-edit", "Update", "", &theirs),
            entry("reef:website", "Apply", "", &ours),
            entry("kubelet", "Update", "status", &json!({ "f:status": {} })),
            entry("somebody", "Apply", "", &json!({ "f:metadata": {} })),
            entry("other", "Update", "", &json!({ "f:metadata": { "f:labels": {} } })),
        ]));
        let patch = patch.unwrap();
        assert_eq!(patch[2]["path"], "/metadata/managedFields/1/fieldsV1");
        assert_eq!(
            patch[2]["value"],
            json!({
                "f:metadata": { "f:labels": {} },
                "f:spec": { "f:ports": { "k:{\"port\":80}": { "f:name": {} }, "k:{\"port\":81}": { ".": {}, "f:name": {} } } },
            })
        );
        let removed: Vec<&Value> = patch.as_array().unwrap()[3..].iter().map(|operation| &operation["path"]).collect();
        assert_eq!(removed, ["/metadata/managedFields/4", "/metadata/managedFields/0"]);
    }

    #[test]
    fn where_nobody_else_wrote_there_is_nothing_to_take_over() {
        assert_eq!(taken(&json!([entry("reef:website", "Apply", "", &json!({}))])), None);
        assert_eq!(taken(&json!([entry("kubectl", "Update", "", &json!({}))])), None, "nothing of it is ours");
    }
}
