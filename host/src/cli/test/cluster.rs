//! What is in the cluster of a case: objects from YAML, and which of them the component was shown.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::Value;

use crate::{
    capability::{Reads, Recorded},
    contract::{Query, ReadError},
    names::{Kind, ObjectId},
    rbac::kinds::Kinds,
};

/// Answers the reads of one case.
pub struct Cluster {
    recorded: Recorded,
    /// Asked for by name, there or not, or in a list.
    shown: Mutex<HashSet<ObjectId>>,
}

impl Cluster {
    pub fn new(objects: HashMap<ObjectId, Bytes>) -> Arc<Self> {
        let recorded = Recorded(objects.into_iter().map(|(id, object)| (id, Ok(Some(object)))).collect());
        Arc::new(Self { recorded, shown: Mutex::default() })
    }

    /// Whether the component was shown the object that this one names; without a namespace it is in `namespace`, or has none.
    pub fn has_shown(&self, object: &Value, namespace: &str) -> bool {
        let id = identity(object);
        let shown = self.shown.lock();
        shown.contains(&id) || (id.namespace.is_empty() && shown.contains(&ObjectId::new(id.kind, namespace, &id.name)))
    }
}

impl Reads for Cluster {
    fn get<'a>(&'a self, object: &'a ObjectId, fields: &'a [String]) -> BoxFuture<'a, Result<Option<Bytes>, ReadError>> {
        self.shown.lock().insert(object.clone());
        self.recorded.get(object, fields)
    }

    fn list<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Vec<Bytes>, ReadError>> {
        Box::pin(async move {
            let found = self.recorded.list(query).await?;
            let objects = found.iter().filter_map(|object| serde_json::from_slice::<Value>(object).ok());
            self.shown.lock().extend(objects.map(|object| identity(&object)));
            Ok(found)
        })
    }
}

fn identity(object: &Value) -> ObjectId {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let kind = Kind::from_api_version(text("/apiVersion"), text("/kind"));
    ObjectId::new(kind, text("/metadata/namespace"), text("/metadata/name"))
}

/// The object as an API server would serve it, and which one it is: one of a namespaced kind that does not say where it is, is
/// in `namespace`.
pub fn placed(mut object: Value, kinds: &Kinds, namespace: &str) -> Result<(ObjectId, Bytes), String> {
    let api_version = text(&object, &["apiVersion"])?.ok_or("it has no apiVersion: add it")?;
    let kind = text(&object, &["kind"])?.ok_or("it has no kind: add it")?;
    let kind: Kind = format!("{api_version}/{kind}").parse::<Kind>().map_err(|error| format!("apiVersion and kind: {error}"))?;
    let name = text(&object, &["metadata", "name"])?.ok_or("it has no metadata.name: add it")?.to_owned();
    let said = text(&object, &["metadata", "namespace"])?.map(str::to_owned);
    let namespace = match (kinds.of(&kind).namespaced, said) {
        (true, said) => said.unwrap_or_else(|| namespace.to_owned()),
        (false, None) => String::new(),
        (false, Some(said)) => return Err(format!("metadata.namespace is `{said}`: {kind} has no namespaces, leave it out")),
    };
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        if !namespace.is_empty() {
            metadata.insert("namespace".into(), namespace.as_str().into());
        }
    }
    Ok((ObjectId::new(kind, &namespace, &name), object.to_string().into()))
}

fn text<'a>(object: &'a Value, path: &[&str]) -> Result<Option<&'a str>, String> {
    match path.iter().try_fold(object, |value, field| value.get(field)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("{} is `{other}`: write a string", path.join("."))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_where_it_says_or_where_the_case_is() {
        let kinds = Kinds::with_crds(&[]);
        let place = |object: Value| placed(object, &kinds, "team-a").map(|(id, _)| id.to_string());
        let config = |metadata: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
        assert_eq!(place(config(json!({"name": "a"}))).as_deref(), Ok("v1/ConfigMap team-a/a"));
        assert_eq!(place(config(json!({"name": "a", "namespace": "b"}))).as_deref(), Ok("v1/ConfigMap b/a"));
        let node = |metadata: Value| json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata});
        assert_eq!(place(node(json!({"name": "n"}))).as_deref(), Ok("v1/Node n"));
        for (object, part) in [
            (node(json!({"name": "n", "namespace": "b"})), "v1/Node has no namespaces"),
            (config(json!({})), "no metadata.name"),
            (config(json!({"name": 1})), "metadata.name is `1`: write a string"),
            (json!({"kind": "ConfigMap"}), "no apiVersion"),
            (json!({"apiVersion": "v1", "kind": "configmap"}), "is not valid"),
            (json!("text"), "no apiVersion"),
        ] {
            let said = place(object).unwrap_err();
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn what_an_api_server_would_serve_is_served() {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "managedFields": [{}]}});
        let (_, text) = placed(object, &Kinds::with_crds(&[]), "team-a").unwrap();
        let expected = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "team-a"}});
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), expected);
    }

    #[tokio::test]
    async fn what_was_listed_or_asked_for_was_shown() {
        let kinds = Kinds::with_crds(&[]);
        let object =
            |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": name}}});
        let cluster = Cluster::new(["a", "b"].map(|name| placed(object(name), &kinds, "team-a").unwrap()).into());
        assert!(!cluster.has_shown(&object("a"), "team-a"));
        let kind = Kind::new("", "v1", "ConfigMap");
        let query =
            Query { kind: kind.clone(), namespace: "team-a".into(), selector: "app=a".parse().unwrap(), fields: Vec::new() };
        assert_eq!(cluster.list(&query).await.unwrap().len(), 1);
        assert!(cluster.has_shown(&object("a"), "team-a") && !cluster.has_shown(&object("b"), "team-a"));
        assert_eq!(cluster.get(&ObjectId::new(kind, "team-a", "c"), &[]).await, Ok(None));
        assert!(cluster.has_shown(&object("c"), "team-a"), "that there is none was shown too");
    }
}
