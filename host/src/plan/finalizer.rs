//! The host's hold on an object whose plugin wants to clean up: put on before the first write, taken off when the
//! cleanup is done.

use serde_json::Value;

use super::{Run, failure::Failed, writer::Target};
use crate::{finalizer::Found, identity::ApiError, watch::Entry};

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
        let operations = found(&self.current).put_on(&name);
        self.patch_finalizers(&operations).await.map(|_| ())
    }

    /// Takes the finalizer off; that is the end of the object, unless somebody else holds it too.
    pub(super) async fn let_go(&mut self) -> Result<(), Failed> {
        let name = finalizer(&self.author.field_manager);
        let found = found(&self.current);
        let operations = if self.current.deleting { found.take_off(&name) } else { found.take_off_unchanged(&name) };
        let Some(operations) = operations else { return Ok(()) };
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

fn found(entry: &Entry) -> Found<'_, Box<str>> {
    Found { uid: &entry.uid, resource_version: entry.resource_version.to_string(), finalizers: &entry.finalizers }
}

/// A pod, say, goes on for a while after its last finalizer.
fn has_grace(entry: &Entry) -> bool {
    let object: Option<Value> = serde_json::from_slice(&entry.bytes).ok();
    object.is_none_or(|o| o.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0) > 0)
}
