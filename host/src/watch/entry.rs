//! One object as the store keeps it: its JSON text and the few fields that the host itself looks at.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::raw::{self, Fields};
use crate::names::{Kind, ObjectId};

/// Field managers of plugins start with this; nobody else's are kept.
const OUR_MANAGERS: &str = "reef:";
/// Labels and annotations of ours start with this.
const OUR_ANNOTATIONS: &str = "reef.dev/";

/// Two strings in a list: their addresses and lengths, and what the allocator adds.
const PAIR: usize = 64;
/// An object's place in the maps of the store, names and uid included.
const PLACE: usize = 240;

/// An object in the store. Cheap to share (`Arc<Entry>`), never changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// JSON text with `apiVersion` and `kind`, without `metadata.managedFields`; else as the API server wrote it.
    pub bytes: Bytes,
    pub id: ObjectId,
    pub uid: Arc<str>,
    pub resource_version: u64,
    pub generation: Option<i64>,
    /// Sorted by name.
    pub labels: Vec<(Box<str>, Box<str>)>,
    /// Only those that start with `reef.dev/`.
    pub annotations: Vec<(Box<str>, Box<str>)>,
    pub owners: Vec<Owner>,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    pub finalizers: Vec<Box<str>>,
    /// Only managers that start with `reef:`.
    pub managers: Vec<Managed>,
}

/// One owner reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub uid: Arc<str>,
    pub kind: Kind,
    pub name: Arc<str>,
    pub controller: bool,
}

/// What one of our field managers owns of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Managed {
    pub manager: Box<str>,
    pub operation: Operation,
    /// Empty, or as in `status`.
    pub subresource: Box<str>,
    /// `fieldsV1` as JSON text.
    pub fields: Box<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Operation {
    Apply,
    Update,
}

impl Entry {
    /// Reads an object as the API server serves it, however deeply it is nested. `kind_of_list` stands in where the
    /// object does not name its kind, as the items of a list do not.
    pub fn parse(object: &[u8], kind_of_list: Option<&Kind>) -> Result<Self, String> {
        let top = Fields::parse(object).map_err(|e| format!("it is not a JSON object: {e}"))?;
        let kind = kind_of(&top, kind_of_list)?;
        let metadata = top.get("metadata").ok_or("it has no metadata")?;
        let meta: Metadata<'_> = serde_json::from_str(metadata).map_err(|e| format!("its metadata does not decode: {e}"))?;
        let fields = Fields::parse(metadata.as_bytes()).map_err(|e| format!("its metadata does not decode: {e}"))?;
        let bytes = raw::without_managed_fields(&top, &fields, &kind.api_version(), &kind.kind);
        let version = &meta.resource_version;
        Ok(Self {
            // Boxed first: a `Vec` with spare room would carry it for as long as the object lives.
            bytes: Bytes::from(bytes.into_boxed_slice()),
            id: ObjectId::new(kind, meta.namespace.as_deref().unwrap_or_default(), &meta.name),
            uid: meta.uid.as_ref().into(),
            resource_version: version.parse().map_err(|_| format!("its resourceVersion `{version}` is not a number"))?,
            generation: meta.generation,
            labels: meta.labels.unwrap_or_default().into_iter().collect(),
            annotations: ours(meta.annotations.unwrap_or_default()),
            owners: meta.owner_references.unwrap_or_default().into_iter().map(OwnerReference::into_owner).collect(),
            deleting: meta.deletion_timestamp.is_some(),
            finalizers: meta.finalizers.unwrap_or_default(),
            managers: meta.managed_fields.unwrap_or_default().into_iter().filter_map(ManagedFields::into_ours).collect(),
        })
    }

    /// What it costs in memory, in bytes, nearly: text, lists, and its share of the store and the index.
    pub fn weight(&self) -> usize {
        let pairs =
            |pairs: &[(Box<str>, Box<str>)]| pairs.iter().map(|(name, value)| PAIR + name.len() + value.len()).sum::<usize>();
        let managers =
            self.managers.iter().map(|m| size_of::<Managed>() + m.manager.len() + m.subresource.len() + m.fields.len());
        let finalizers = self.finalizers.iter().map(|name| PAIR / 2 + name.len());
        let lists = pairs(&self.labels) + pairs(&self.annotations) + managers.sum::<usize>() + finalizers.sum::<usize>();
        PLACE + size_of::<Self>() + self.bytes.len() + lists + self.owners.len() * (size_of::<Owner>() + PLACE)
    }

    pub fn label(&self, name: &str) -> Option<&str> {
        find(&self.labels, name)
    }

    /// One of the annotations that start with `reef.dev/`; all others are only in `bytes`.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        find(&self.annotations, name)
    }

    pub fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.iter().any(|f| **f == *name)
    }

    /// Whether one of the owner references carries this uid.
    pub fn is_owned_by(&self, uid: &str) -> bool {
        self.owners.iter().any(|owner| *owner.uid == *uid)
    }
}

fn find<'a>(pairs: &'a [(Box<str>, Box<str>)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| **key == *name).map(|(_, value)| &**value)
}

/// Shares the words of `expected` where they fit, which for the objects of one watch is always.
fn kind_of(object: &Fields<'_>, expected: Option<&Kind>) -> Result<Kind, String> {
    match (object.text("apiVersion"), object.text("kind"), expected) {
        (Some(version), Some(kind), Some(expected)) if *expected.kind == *kind && expected.api_version() == *version => {
            Ok(expected.clone())
        }
        (Some(version), Some(kind), _) => Ok(Kind::from_api_version(&version, &kind)),
        (None, None, Some(expected)) => Ok(expected.clone()),
        _ => Err("it does not say its apiVersion and kind".into()),
    }
}

fn ours(annotations: Fields<'_>) -> Vec<(Box<str>, Box<str>)> {
    let ours = annotations.iter().filter(|(name, _)| name.starts_with(OUR_ANNOTATIONS));
    ours.filter_map(|(name, value)| Some((name.into(), raw::string(value)?.into()))).collect()
}

/// What is read of `metadata`. Everything in it has a fixed shape, so this does not recurse; what is open
/// (`fieldsV1`, annotations) stays text.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    namespace: Option<String>,
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow)]
    resource_version: Cow<'a, str>,
    generation: Option<i64>,
    labels: Option<BTreeMap<Box<str>, Box<str>>>,
    #[serde(borrow)]
    annotations: Option<Fields<'a>>,
    #[serde(borrow)]
    owner_references: Option<Vec<OwnerReference<'a>>>,
    deletion_timestamp: Option<IgnoredAny>,
    finalizers: Option<Vec<Box<str>>>,
    #[serde(borrow)]
    managed_fields: Option<Vec<ManagedFields<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnerReference<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    uid: Cow<'a, str>,
    controller: Option<bool>,
}

impl OwnerReference<'_> {
    fn into_owner(self) -> Owner {
        Owner {
            uid: self.uid.as_ref().into(),
            kind: Kind::from_api_version(&self.api_version, &self.kind),
            name: self.name.as_ref().into(),
            controller: self.controller == Some(true),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManagedFields<'a> {
    #[serde(borrow, default)]
    manager: Cow<'a, str>,
    operation: Option<Operation>,
    #[serde(borrow, default)]
    subresource: Cow<'a, str>,
    #[serde(borrow, rename = "fieldsV1")]
    fields: Option<&'a RawValue>,
}

impl ManagedFields<'_> {
    fn into_ours(self) -> Option<Managed> {
        let managed = Managed {
            manager: self.manager.into(),
            operation: self.operation?,
            subresource: self.subresource.into(),
            fields: self.fields?.get().into(),
        };
        managed.manager.starts_with(OUR_MANAGERS).then_some(managed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"a","uid":"u1",
        "resourceVersion":"42","generation":3,"creationTimestamp":null,"deletionTimestamp":"2026-01-01T00:00:00Z","finalizers":["x/y"],
        "labels":{"z":"1","reef.dev/plugin":"hello"},"annotations":{"reef.dev/applied":"h\"1","other":"big"},
        "ownerReferences":[{"apiVersion":"demo.reef.dev/v1","kind":"Hello","name":"h","uid":"o1","controller":true,"blockOwnerDeletion":false}],
        "managedFields":[{"manager":"reef:hello","operation":"Apply","apiVersion":"apps/v1","time":"t","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{}}},
            {"manager":"kubectl","operation":"Update","fieldsV1":{"f:x":{}}},
            {"manager":"reef:hello","operation":"Apply","subresource":"status","fieldsV1":{"f:status":{}}}]},"spec":{"n":9007199254740993}}"#;

    #[test]
    fn everything_that_the_host_looks_at_is_read() {
        let entry = Entry::parse(FULL.as_bytes(), None).unwrap();
        assert_eq!(entry.id, ObjectId::new("apps/v1/Deployment".parse().unwrap(), "a", "web"));
        assert_eq!((&*entry.uid, entry.resource_version, entry.generation), ("u1", 42, Some(3)));
        assert_eq!(entry.label("reef.dev/plugin"), Some("hello"));
        assert_eq!(entry.annotation("reef.dev/applied"), Some("h\"1"));
        assert_eq!(entry.annotation("other"), None);
        assert!(entry.deleting && entry.has_finalizer("x/y") && entry.is_owned_by("o1"));
        assert_eq!(entry.owners[0].kind.to_string(), "demo.reef.dev/v1/Hello");
        assert!(entry.owners[0].controller);
        let managers: Vec<_> = entry.managers.iter().map(|m| (&*m.manager, &*m.subresource, &*m.fields)).collect();
        assert_eq!(managers, [("reef:hello", "", r#"{"f:spec":{}}"#), ("reef:hello", "status", r#"{"f:status":{}}"#)]);
        let text = str::from_utf8(&entry.bytes).unwrap();
        assert!(!text.contains("managedFields") && text.contains("9007199254740993"));
    }

    #[test]
    fn an_entry_read_again_from_its_own_bytes_is_the_same_but_for_the_managers() {
        let entry = Entry::parse(FULL.as_bytes(), None).unwrap();
        let again = Entry::parse(&entry.bytes, None).unwrap();
        assert_eq!(again, Entry { managers: Vec::new(), ..entry });
    }

    #[test]
    fn nine_thousand_levels_are_an_object_like_any_other() {
        let deep = format!("{}1{}", r#"{"a":"#.repeat(9_000), "}".repeat(9_000));
        let meta = r#"{"name":"deep","uid":"u","resourceVersion":"1"}"#;
        let kind = "demo.reef.dev/v1/Hello".parse().unwrap();
        let entry = Entry::parse(format!(r#"{{"metadata":{meta},"spec":{deep}}}"#).as_bytes(), Some(&kind)).unwrap();
        assert_eq!(entry.id, ObjectId::new(kind, "", "deep"));
    }

    #[test]
    fn what_is_no_object_says_why() {
        let kind: Kind = "v1/ConfigMap".parse().unwrap();
        let parse = |json: &str| Entry::parse(json.as_bytes(), Some(&kind)).unwrap_err();
        assert!(parse("[]").contains("not a JSON object"));
        assert!(parse("{}").contains("no metadata"));
        assert!(parse(r#"{"metadata":{"name":"a","uid":"u"}}"#).contains("resourceVersion"));
        assert!(parse(r#"{"metadata":{"name":"a","uid":"u","resourceVersion":"x"}}"#).contains("`x` is not a number"));
        assert!(
            Entry::parse(br#"{"metadata":{"name":"a","uid":"u","resourceVersion":"1"}}"#, None)
                .unwrap_err()
                .contains("apiVersion")
        );
    }
}
