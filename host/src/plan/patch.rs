//! Merge patches: some fields of objects that are somebody else's.
//!
//! An object that says already what the patch says is left alone; one that is not there is waited for. Nothing is noted on
//! the object, so values are compared: an amount that the API server writes in another way is patched by every run.

use serde_json::{Value, json};

use super::{
    Run,
    complete::Wanted,
    failure::Failed,
    json::{is_blank, same},
    shared::{leaves, part_fields},
    writer::Target,
};
use crate::{identity::ApiError, watch::Entry};

impl Run<'_> {
    pub(super) async fn merge(&mut self, wanted: &Wanted, version: Option<&str>) -> Result<(), Failed> {
        // Before it is looked at, so that no change falls in between.
        let fields = wanted.subresource.as_ref().map_or_else(|| leaves(&wanted.object), |s| part_fields(&s.name, &wanted.object));
        self.depend(&wanted.id, if version.is_some() { Vec::new() } else { fields });
        let live = self.there(wanted)?;
        if says(&self.part(wanted, &live).await?, &wanted.object) {
            return Ok(());
        }
        self.check_version(wanted, &live, version)?;
        let patch = with_version(wanted.object.clone(), version);
        let manager = self.shared_manager();
        match self.writer.merge(Target::of(wanted), &manager, &patch).await {
            Ok(now) => {
                if !serde_json::from_slice(&now.bytes).is_ok_and(|now| says(&now, &wanted.object)) {
                    tracing::warn!(object = %wanted.id, owner = %self.owner.entry.id, "the API server writes what was patched in another way, so that each run patches it again");
                }
                Ok(())
            }
            Err(refusal) if refusal.is(ApiError::is_not_found) => Err(absent(wanted)),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// The object, which somebody else has to make.
    pub(super) fn there(&self, wanted: &Wanted) -> Result<Entry, Failed> {
        match self.cached(wanted)? {
            Some(live) if live.deleting => {
                Err(Failed::waiting(format!("{} is being deleted: it is written again when there is another one", wanted.id)))
            }
            Some(live) => Ok(live),
            None => Err(absent(wanted)),
        }
    }

    /// The object as it is, or the part of it that is to be written. The status is in the cache; any other subresource is
    /// asked for, because only the API server knows what of the object it is.
    pub(super) async fn part(&self, wanted: &Wanted, live: &Entry) -> Result<Value, Failed> {
        let undecodable = |said: serde_json::Error| Failed::undecodable(format!("{} does not decode: {said}", wanted.id));
        match &wanted.subresource {
            Some(subresource) if &*subresource.name != "status" => match self.writer.live(Target::of(wanted)).await? {
                Some((_, text)) => serde_json::from_slice(&text).map_err(undecodable),
                None => Err(absent(wanted)),
            },
            _ => serde_json::from_slice(&live.bytes).map_err(undecodable),
        }
    }

    /// Whether it has the version that the plan asks for.
    pub(super) fn check_version(&self, wanted: &Wanted, live: &Entry, version: Option<&str>) -> Result<(), Failed> {
        let (Some(asked), now) = (version, live.resource_version.to_string()) else { return Ok(()) };
        if asked == now {
            return Ok(());
        }
        let said = format!("{} has resourceVersion {now}, and `if-version` asks for {asked}", wanted.id);
        let read = self.seen.of(self.owner, &wanted.id).flatten();
        if read.is_some_and(|read| read.resource_version.to_string() == asked) {
            return Err(Failed::superseded(said));
        }
        Err(Failed::outdated(format!("{said}: read it in this call, and ask for what that returned")))
    }
}

fn absent(wanted: &Wanted) -> Failed {
    Failed::absent(format!("{} is not there: it is written when somebody has made it", wanted.id))
}

fn with_version(mut patch: Value, version: Option<&str>) -> Value {
    if let (Some(version), Some(fields)) = (version, patch.as_object_mut()) {
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        super::json::insert(metadata, "resourceVersion", version);
    }
    patch
}

/// Whether a merge of the patch would change nothing. Within lists, which a merge patch replaces as a whole, the object may
/// say more than the patch, as defaults do.
fn says(object: &Value, patch: &Value) -> bool {
    let Value::Object(fields) = patch else { return same(object, patch) };
    fields.iter().all(|(key, value)| match (object.get(key), value) {
        (None | Some(Value::Null), value) => is_blank(value),
        (Some(_), Value::Null) => false,
        (Some(now), Value::Object(_)) => now.is_object() && says(now, value),
        (Some(now), value) => super::cover::agrees(value, now, &Value::Null),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_is_in_order_if_the_object_says_so_already() {
        let object = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"n": 1, "list": [{"x": 1, "default": true}]}});
        let holds = |patch: Value| says(&object, &patch);
        assert!(holds(json!({"metadata": {"labels": {"a": "1", "gone": null}}, "spec": {"n": 1.0}})));
        assert!(holds(json!({"spec": {"list": [{"x": 1}], "none": {"below": null}}})));
        assert!(!holds(json!({"metadata": {"labels": {"a": null}}})));
        assert!(!holds(json!({"metadata": {"labels": {"b": "2"}}})));
        assert!(!holds(json!({"spec": {"list": []}})) && !holds(json!({"spec": {"list": [{"x": 1}, {"x": 2}]}})));
        assert!(!holds(json!({"spec": {"n": {"m": 1}}})) && !holds(json!({"spec": {"none": {"below": 0}}})));
    }

    #[test]
    fn the_version_becomes_part_of_the_patch() {
        let patch = with_version(json!({"data": {"x": "1"}}), Some("7"));
        assert_eq!(patch, json!({"data": {"x": "1"}, "metadata": {"resourceVersion": "7"}}));
    }
}
