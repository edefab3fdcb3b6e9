//! The host's hold on an object whose plugin wants to clean up: put on before the first write, taken off when the
//! cleanup is done.

use serde_json::{Value, json};

use super::{Run, failure::Failed, writer::Target};
use crate::{identity::ApiError, watch::Entry};

/// The finalizer of the plugin with this field manager.
pub fn finalizer(field_manager: &str) -> String {
    format!("reef.dev/{field_manager}")
}

impl Run<'_> {
    pub(super) fn is_held(&self) -> bool {
        self.current.has_finalizer(&finalizer(&self.author.field_manager))
    }

    /// Puts the finalizer on.
    pub(super) async fn hold(&mut self) -> Result<(), Failed> {
        let name = finalizer(&self.author.field_manager);
        self.patch_finalizers(&hold(&self.current, &name)).await.map(|_| ())
    }

    /// Takes the finalizer off; that is the end of the object, unless somebody else holds it too.
    pub(super) async fn let_go(&mut self) -> Result<(), Failed> {
        let name = finalizer(&self.author.field_manager);
        let Some(operations) = let_go(&self.current, &name) else { return Ok(()) };
        if self.patch_finalizers(&operations).await? {
            let entry = &self.current;
            if entry.deleting && entry.finalizers.is_empty() && !has_grace(entry) {
                self.writer.gone(&entry.id, &entry.uid);
            }
        }
        Ok(())
    }

    /// Whether the object is still there.
    async fn patch_finalizers(&mut self, operations: &Value) -> Result<bool, Failed> {
        let id = self.current.id.clone();
        // A manager of its own: these fields are not part of any apply of the plugin's.
        let manager = format!("{}:finalizer", self.writer.manager);
        match self.writer.patch(Target::new(&self.owner.resource, &id), &manager, operations).await {
            Ok(entry) => {
                self.current = entry.into();
                Ok(true)
            }
            Err(refusal) if refusal.is(ApiError::is_not_found) && self.current.deleting => Ok(false),
            Err(refusal) if refusal.is(ApiError::is_not_found) => Err(Failed::owner_gone()),
            // One of the tests did not hold.
            Err(refusal) if refusal.is(ApiError::is_invalid) => {
                Err(Failed::superseded(format!("{id} was changed while its finalizer was being written")))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }
}

/// An absent list may only be made if nobody else made one meanwhile, hence the version.
fn hold(entry: &Entry, name: &str) -> Value {
    let uid = json!({ "op": "test", "path": "/metadata/uid", "value": &*entry.uid });
    match entry.finalizers.first() {
        Some(first) => json!([
            uid,
            { "op": "test", "path": "/metadata/finalizers/0", "value": &**first },
            { "op": "add", "path": "/metadata/finalizers/-", "value": name },
        ]),
        None => json!([
            uid,
            { "op": "test", "path": "/metadata/resourceVersion", "value": entry.resource_version.to_string() },
            { "op": "add", "path": "/metadata/finalizers", "value": [name] },
        ]),
    }
}

fn let_go(entry: &Entry, name: &str) -> Option<Value> {
    let path = format!("/metadata/finalizers/{}", entry.finalizers.iter().position(|f| **f == *name)?);
    Some(json!([
        { "op": "test", "path": "/metadata/uid", "value": &*entry.uid },
        { "op": "test", "path": path, "value": name },
        { "op": "remove", "path": path },
    ]))
}

/// A pod, say, goes on for a while after its last finalizer.
fn has_grace(entry: &Entry) -> bool {
    let object: Option<Value> = serde_json::from_slice(&entry.bytes).ok();
    object.is_none_or(|o| o.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0) > 0)
}

#[cfg(test)]
mod tests {
    use super::{super::tests::owner, *};

    #[test]
    fn the_finalizer_joins_others_and_leaves_them_alone() {
        let mut entry = (*owner().entry).clone();
        assert_eq!(hold(&entry, "reef.dev/hello")[2]["value"], json!(["reef.dev/hello"]));
        assert_eq!(hold(&entry, "reef.dev/hello")[1]["path"], "/metadata/resourceVersion");
        entry.finalizers = vec!["other/x".into()];
        assert_eq!(hold(&entry, "reef.dev/hello")[2], json!({"op": "add", "path": "/metadata/finalizers/-", "value": "reef.dev/hello"}));
        assert_eq!(let_go(&entry, "reef.dev/hello"), None);
        entry.finalizers.push("reef.dev/hello".into());
        assert_eq!(let_go(&entry, "reef.dev/hello").unwrap()[2], json!({"op": "remove", "path": "/metadata/finalizers/1"}));
    }
}
