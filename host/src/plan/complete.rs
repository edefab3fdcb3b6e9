//! What the host adds to an object before it is written: namespace; to a child, owner reference and mark; and the hash
//! of all of it.
//!
//! Pure. The completed object, without the hash, is what `diff` later recognises by its hash.

use std::sync::Arc;

use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};

use super::{
    Owner,
    json::canonical,
    shared,
    validate::Draft,
    verb::{Fate, Verb},
};
use crate::{
    identity::{Resource, Subresource},
    names::{Digest, ObjectId},
};

/// The label that says which plugin an object belongs to; its value is the plugin's field manager.
pub const MARK: &str = "reef.dev/plugin";
/// The annotation that carries the hash of what was last applied.
pub const APPLIED: &str = "reef.dev/applied";
/// The annotation by which somebody lets a plugin take an object over; its value is the plugin's field manager.
pub const ADOPT: &str = "reef.dev/adopt";
/// The annotation that carries the uid of the owner of a child that outlives it, in place of an owner reference.
pub const OWNER: &str = "reef.dev/owner";

/// An object as it is to be.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub verb: Verb,
    pub id: ObjectId,
    pub resource: Arc<Resource>,
    /// The part of it that is written; none: the object itself.
    pub subresource: Option<Subresource>,
    /// Whole, as it is sent; of a patch without identity, of a deletion null.
    pub object: Value,
    /// What [`APPLIED`] says of it.
    pub hash: String,
}

impl Wanted {
    /// The object without its identity, which no `fieldsV1` lists.
    pub fn without_identity(&self) -> Value {
        let mut object = self.object.clone();
        if let Some(fields) = object.as_object_mut() {
            fields.remove("apiVersion");
            fields.remove("kind");
        }
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("name");
            metadata.remove("namespace");
        }
        object
    }
}

/// Completes a validated object. `namespace` is empty for a cluster-scoped kind.
pub fn complete(
    draft: Draft,
    resource: Arc<Resource>,
    subresource: Option<Subresource>,
    namespace: &str,
    owner: &Owner,
    mark: &str,
) -> Wanted {
    let id = ObjectId::new(draft.kind, namespace, &draft.name);
    let Draft { verb, mut object, .. } = draft;
    if id.kind.is_secret() {
        encode_string_data(&mut object);
    }
    let object = match &verb {
        Verb::Delete { .. } => Value::Null,
        Verb::Patch { .. } => merged(object),
        _ => whole(object, &verb, namespace, owner, mark),
    };
    let mut wanted = Wanted { hash: hash(&object), verb, id, resource, subresource, object };
    let said_in = match (&wanted.verb, &wanted.subresource) {
        (Verb::Apply { .. }, None) => Some(shared::applied(mark, owner)),
        (verb, _) => verb.is_marked().then(|| APPLIED.into()),
    };
    if let (Some(object), Some(said_in)) = (wanted.object.as_object_mut(), said_in) {
        change(object, "metadata", |metadata| {
            change(metadata, "annotations", |annotations| {
                annotations.insert(said_in, wanted.hash.as_str().into());
            });
        });
    }
    if let (Some(object), Some(subresource)) = (wanted.object.as_object_mut(), &wanted.subresource)
        && object.contains_key("kind")
    {
        object.insert("apiVersion".into(), subresource.kind.api_version().into());
        object.insert("kind".into(), subresource.kind.kind.as_ref().into());
    }
    wanted
}

/// What a patch merges.
fn merged(mut object: Map<String, Value>) -> Value {
    object.remove("apiVersion");
    object.remove("kind");
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.remove("name");
        metadata.remove("namespace");
        if metadata.is_empty() {
            object.remove("metadata");
        }
    }
    Value::Object(object)
}

fn whole(mut object: Map<String, Value>, verb: &Verb, namespace: &str, owner: &Owner, mark: &str) -> Value {
    if object.get("status").is_some_and(super::json::is_blank) {
        object.remove("status");
    }
    change(&mut object, "metadata", |metadata| {
        metadata.remove("creationTimestamp");
        if !namespace.is_empty() {
            metadata.insert("namespace".into(), namespace.into());
        }
        if verb.is_marked() {
            change(metadata, "labels", |labels| {
                labels.insert(MARK.into(), mark.into());
            });
        }
        if verb.is_child() {
            metadata.insert("ownerReferences".into(), json!([owner_reference(owner)]));
        } else if *verb == Verb::Own(Fate::Kept) {
            change(metadata, "annotations", |annotations| {
                annotations.insert(OWNER.into(), (*owner.entry.uid).into());
            });
        }
    });
    Value::Object(object)
}

fn hash(object: &Value) -> String {
    Digest::of(canonical(object).as_bytes()).hex().chars().take(32).collect()
}

fn owner_reference(owner: &Owner) -> Value {
    let id = &owner.entry.id;
    json!({
        "apiVersion": id.kind.api_version(),
        "kind": &*id.kind.kind,
        "name": &*id.name,
        "uid": &*owner.entry.uid,
        "controller": true,
    })
}

/// Changes the object at `key`, made if it is not there.
fn change(object: &mut Map<String, Value>, key: &str, with: impl FnOnce(&mut Map<String, Value>)) {
    let mut map = match object.remove(key) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    with(&mut map);
    object.insert(key.into(), Value::Object(map));
}

/// As the API server would: it serves only `data`, so `stringData` could never be recognised again.
fn encode_string_data(object: &mut Map<String, Value>) {
    let Some(Value::Object(plain)) = object.remove("stringData") else { return };
    change(object, "data", |data| {
        for (key, value) in plain {
            if let Value::String(text) = value {
                data.insert(key, json!(ByteString(text.into_bytes())));
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::{super::tests::owner, *};
    use crate::{contract::Write, plan::validate};

    fn child(kind: &str, object: &Value) -> Wanted {
        let resource = Arc::new(super::super::failure::tests::resource(kind, "things"));
        let write = Write { verb: "own".into(), object: object.to_string(), options: "{}".into() };
        let draft = validate::drafts(&[write], &super::super::tests::owning(&[kind.parse().unwrap()])).unwrap().remove(0);
        complete(draft, resource, None, "team-a", &owner(), "hello")
    }

    #[test]
    fn a_child_gets_its_namespace_owner_mark_and_hash() {
        let child = child(
            "v1/ConfigMap",
            &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "creationTimestamp": null}, "data": {"x": "1"}}),
        );
        assert_eq!(
            child.object,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"x": "1"}, "metadata": {
                "name": "a", "namespace": "team-a", "labels": {"reef.dev/plugin": "hello"},
                "annotations": {"reef.dev/applied": child.hash},
                "ownerReferences": [{"apiVersion": "demo.reef.dev/v1", "kind": "Hello", "name": "a", "uid": "u1", "controller": true}],
            }})
        );
        assert_eq!(child.hash.len(), 32);
        assert!(child.without_identity()["metadata"].get("name").is_none());
    }

    #[test]
    fn the_hash_sees_values_and_not_their_order() {
        let of = |text: &str| {
            let object: Value = serde_json::from_str(text).unwrap();
            child("v1/ConfigMap", &object).hash
        };
        let a = of(r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"1","y":"2"}}"#);
        let b = of(r#"{"data":{"y":"2","x":"1"},"kind":"ConfigMap","metadata":{"name":"a"},"apiVersion":"v1"}"#);
        let c = of(r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"1","y":"3"}}"#);
        assert_eq!(a, b);
        assert_ne!(a, c);
    }

    #[test]
    fn string_data_becomes_data() {
        let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"},
            "data": {"a": "eA==", "b": "eA=="}, "stringData": {"b": "hé"}});
        let child = child("v1/Secret", &object);
        assert_eq!(child.object["data"], json!({"a": "eA==", "b": "aMOp"}));
        assert!(child.object.get("stringData").is_none());
    }
}
