//! What the schema of a kind says of its conditions: whether there are any, and how the list is merged.
//!
//! The answer comes from the API server's OpenAPI, which knows built-in kinds and CustomResourceDefinitions alike and is
//! readable by everybody. It is asked for once per kind and believed for some minutes. Asked as the host.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use http::Request;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tokio::time::Instant;

use crate::{
    identity::{Actor, Api, ApiError, Lane},
    names::Kind,
};

const BELIEVED: Duration = Duration::from_secs(300);
/// A new CustomResourceDefinition enters the OpenAPI a second or two after it is served.
const LATE: Duration = Duration::from_secs(10);

/// The conditions of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conditions {
    /// The schema has none, so none are written.
    Absent,
    /// Merged by `type`: everybody owns some. Only these fields may be written; `None`: any.
    Map(Option<BTreeSet<String>>),
    /// Replaced as a whole, whoever writes.
    Atomic(Option<BTreeSet<String>>),
}

impl Conditions {
    pub fn takes(&self, field: &str) -> bool {
        match self {
            Self::Absent => false,
            Self::Map(fields) | Self::Atomic(fields) => fields.as_ref().is_none_or(|fields| fields.contains(field)),
        }
    }
}

/// What is known of kinds so far.
#[derive(Default)]
pub(super) struct Schemas {
    known: Mutex<HashMap<Kind, Known>>,
}

struct Known {
    conditions: Option<Arc<Conditions>>,
    asked: Instant,
    first_asked: Instant,
}

impl Schemas {
    /// `Ok(None)`: the API server does not describe the kind yet; it will within seconds.
    pub async fn conditions(&self, api: &Api, kind: &Kind) -> Result<Option<Arc<Conditions>>, ApiError> {
        let first_asked = {
            let known = self.known.lock();
            match known.get(kind) {
                Some(Known { conditions: Some(conditions), asked, .. }) if asked.elapsed() < BELIEVED => {
                    return Ok(Some(conditions.clone()));
                }
                Some(Known { conditions: None, first_asked, .. }) => *first_asked,
                _ => Instant::now(),
            }
        };
        let mut conditions = fetch(api, kind).await?.map(Arc::new);
        if conditions.is_none() && first_asked.elapsed() >= LATE {
            tracing::warn!(%kind, "the API server does not describe this kind: no conditions are written to its objects");
            conditions = Some(Arc::new(Conditions::Absent));
        }
        let known = Known { conditions: conditions.clone(), asked: Instant::now(), first_asked };
        self.known.lock().insert(kind.clone(), known);
        Ok(conditions)
    }

    /// The schema may have changed: an API server refused what fitted it.
    pub fn doubt(&self, kind: &Kind) {
        self.known.lock().remove(kind);
    }
}

async fn fetch(api: &Api, kind: &Kind) -> Result<Option<Conditions>, ApiError> {
    let prefix = if kind.group.is_empty() { "api" } else { "apis" };
    let path = format!("/openapi/v3/{prefix}/{}", kind.api_version());
    let request = Request::get(&path).body(Vec::new()).map_err(|e| ApiError::Misconfigured(format!("{path}: {e}")))?;
    match api.send(&Actor::Host, Lane::Requests, request).await {
        Ok(document) => find(&document, kind).map_err(|e| ApiError::Undecodable(format!("the answer to {path}: {e}"))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    components: Components<'a>,
}

#[derive(Deserialize)]
struct Components<'a> {
    // Untouched text: the schema of one kind must not spoil another's, and most are not needed.
    #[serde(borrow)]
    schemas: HashMap<String, &'a RawValue>,
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "x-kubernetes-group-version-kind", default)]
    kinds: Vec<GroupVersionKind>,
}

#[derive(Deserialize)]
struct GroupVersionKind {
    group: String,
    version: String,
    kind: String,
}

fn find(document: &[u8], kind: &Kind) -> Result<Option<Conditions>, serde_json::Error> {
    let document: Document<'_> = serde_json::from_slice(document)?;
    let schemas = document.components.schemas;
    let is_it = |k: &GroupVersionKind| *k.group == *kind.group && *k.version == *kind.version && *k.kind == *kind.kind;
    for raw in schemas.values().filter(|raw| raw.get().contains(&*kind.kind)) {
        let Ok(head) = serde_json::from_str::<Head>(raw.get()) else { continue };
        if head.kinds.iter().any(is_it) {
            let schema: Value = serde_json::from_str(raw.get())?;
            return Ok(Some(conditions(&schema, &schemas)));
        }
    }
    Ok(None)
}

type Schemata<'a> = HashMap<String, &'a RawValue>;

fn conditions(object: &Value, all: &Schemata<'_>) -> Conditions {
    let Some(status) = property(object, "status", all) else {
        return if is_open(object) { Conditions::Atomic(None) } else { Conditions::Absent };
    };
    let Some(list) = property(&status, "conditions", all) else {
        return if is_open(&status) { Conditions::Atomic(None) } else { Conditions::Absent };
    };
    let item = list.get("items").map(|item| resolve(item, all));
    let fields = item.filter(|item| !is_open(item)).and_then(|item| {
        Some(item.get("properties")?.as_object()?.keys().cloned().collect::<BTreeSet<_>>())
    });
    match list.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("map") if list.get("x-kubernetes-list-map-keys") == Some(&Value::from(vec!["type"])) => Conditions::Map(fields),
        // Some other key: neither merged by type nor replaceable without taking away what others own.
        Some("map") => Conditions::Absent,
        _ => Conditions::Atomic(fields),
    }
}

fn property(schema: &Value, name: &str, all: &Schemata<'_>) -> Option<Value> {
    Some(resolve(schema.get("properties")?.get(name)?, all))
}

/// Follows a reference, plain or as the only part of an `allOf`.
fn resolve(schema: &Value, all: &Schemata<'_>) -> Value {
    let reference = schema.get("$ref").or_else(|| schema.pointer("/allOf/0/$ref")).and_then(Value::as_str);
    let target = reference.and_then(|r| all.get(r.rsplit('/').next()?));
    target.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_else(|| schema.clone())
}

/// Whether unknown fields are kept.
fn is_open(schema: &Value) -> bool {
    schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(schemas: Value) -> Option<Conditions> {
        let document = json!({"openapi": "3.0.0", "components": {"schemas": schemas}}).to_string();
        find(document.as_bytes(), &"demo.reef.dev/v1/Hello".parse().unwrap()).unwrap()
    }

    fn hello(status: Value) -> Value {
        json!({"x.Hello": {"properties": {"status": status}, "x-kubernetes-group-version-kind":
            [{"group": "demo.reef.dev", "version": "v1", "kind": "Hello"}]}})
    }

    #[test]
    fn a_list_by_type_is_a_map_with_the_fields_that_the_schema_has() {
        let list = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
            "items": {"properties": {"type": {}, "status": {}}}});
        let conditions = of(hello(json!({"properties": {"conditions": list}}))).unwrap();
        assert!(conditions.takes("status") && !conditions.takes("observedGeneration"));
        assert!(matches!(conditions, Conditions::Map(Some(_))));
    }

    #[test]
    fn references_are_followed() {
        let mut schemas = hello(json!({"allOf": [{"$ref": "#/components/schemas/x.Status"}], "default": {}}));
        schemas["x.Status"] = json!({"properties": {"conditions": {"type": "array", "x-kubernetes-list-type": "atomic",
            "items": {"allOf": [{"$ref": "#/components/schemas/x.Condition"}]}}}});
        schemas["x.Condition"] = json!({"properties": {"type": {}}});
        assert_eq!(of(schemas), Some(Conditions::Atomic(Some(BTreeSet::from(["type".to_string()])))));
    }

    #[test]
    fn an_open_status_takes_any_and_a_closed_one_none() {
        assert_eq!(of(hello(json!({"x-kubernetes-preserve-unknown-fields": true}))), Some(Conditions::Atomic(None)));
        assert_eq!(of(hello(json!({"properties": {"ready": {}}}))), Some(Conditions::Absent));
        assert_eq!(of(json!({})), None);
    }
}
