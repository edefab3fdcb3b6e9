//! What is in a namespace in the end, without what differs from one run to the next: to compare a disturbed run with a clean one.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::Value;

use crate::cluster::Cluster;

/// Objects by kind and name.
#[derive(Debug, Clone, PartialEq)]
pub struct State(BTreeMap<String, Value>);

impl State {
    /// Of these kinds; what every namespace has is left out.
    pub async fn of(cluster: &Cluster, namespace: &str, kinds: &[&str]) -> Result<Self> {
        let mut objects = BTreeMap::new();
        for kind in kinds {
            for object in cluster.list(kind, namespace).await? {
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                if name != "kube-root-ca.crt" {
                    objects.insert(format!("{kind} {name}"), timeless(object));
                }
            }
        }
        Ok(Self(objects))
    }

    /// Only what has this word in its name, with another word in its place wherever it stands.
    pub fn renamed(&self, from: &str, to: &str) -> Self {
        let mine = self.0.iter().filter(|(name, _)| name.contains(from));
        let rename = |(name, object): (&String, &Value)| {
            let object = serde_json::from_str(&object.to_string().replace(from, to)).unwrap_or_default();
            (name.replace(from, to), object)
        };
        Self(mine.map(rename).collect())
    }

    /// Without what tells how often and by whom it was edited.
    pub fn without_history(mut self) -> Self {
        self.0.values_mut().for_each(|object| drop_keys(object, &["generation", "observedGeneration", "managedFields"]));
        self
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first objects in which two states differ, for people; empty if they are equal.
    pub fn differences(&self, other: &Self) -> String {
        let names: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        let differ = names.into_iter().filter(|name| self.0.get(*name) != other.0.get(*name));
        let show = |object: Option<&Value>| object.map_or("nothing".into(), Value::to_string);
        differ
            .take(5)
            .map(|name| format!("{name}:\n  here  {}\n  there {}\n", show(self.0.get(name)), show(other.0.get(name))))
            .collect()
    }
}

/// The objects that carry a plugin's mark and have no owner that lives.
pub async fn orphans(cluster: &Cluster, namespace: &str, owners: &[&str], children: &[&str]) -> Result<Vec<String>> {
    let uid = |object: &Value| object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    // First: an owner that comes in between makes no child an orphan.
    let mut found = Vec::new();
    for kind in children {
        found.extend(cluster.list(kind, namespace).await?);
    }
    let mut living = BTreeSet::new();
    for kind in owners {
        living.extend(cluster.list(kind, namespace).await?.iter().map(uid));
    }
    found.retain(|object| {
        let owners = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        let marked = !object["metadata"]["labels"]["reef.dev/plugin"].is_null();
        marked && !owners.iter().any(|owner| owner["uid"].as_str().is_some_and(|uid| living.contains(uid)))
    });
    Ok(found.iter().map(|object| object["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect())
}

/// Without identity and time; who manages which field stays.
fn timeless(mut object: Value) -> Value {
    let times = ["creationTimestamp", "lastTransitionTime", "lastUpdateTime", "time"];
    // A Service's address is its own.
    let identity = ["uid", "resourceVersion", "namespace", "clusterIP", "clusterIPs"];
    drop_keys(&mut object, &[&times[..], &identity].concat());
    // The plan's hash covers the owner's uid.
    if let Some(hash) = object.pointer_mut("/metadata/annotations/reef.dev~1applied") {
        *hash = "HASH".into();
    }
    // In the order in which they came to be.
    if let Some(conditions) = object.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
        conditions.sort_by_key(|condition| condition["type"].as_str().unwrap_or_default().to_owned());
    }
    object
}

fn drop_keys(value: &mut Value, keys: &[&str]) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !keys.contains(&&**key));
            // How `managedFields` names an owner reference.
            let owner = map.keys().find(|key| key.starts_with("k:{\"uid\"")).cloned();
            if let Some(fields) = owner.and_then(|key| map.remove(&key)) {
                map.insert("k:{\"uid\"}".into(), fields);
            }
            map.values_mut().for_each(|value| drop_keys(value, keys));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| drop_keys(item, keys)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn two_runs_are_equal_but_for_identity_and_time() {
        let object = |uid: &str, text: &str| {
            let managed = json!([{ "manager": "reef:hello", "operation": "Apply", "time": uid, "fieldsV1": {} }]);
            timeless(json!({ "metadata": { "name": "a-1", "uid": uid, "managedFields": managed }, "data": { "text": text } }))
        };
        let state = |object| State(BTreeMap::from([("v1/ConfigMap a-1".to_owned(), object)]));
        let (one, two, other) = (state(object("1", "x")), state(object("2", "x")), state(object("1", "y")));
        assert!(one.differences(&two).is_empty());
        assert!(one.differences(&other).contains("v1/ConfigMap a-1"));
        let owned = |uid: &str| {
            let key = format!("k:{{\"uid\":\"{uid}\"}}");
            let conditions = [json!({ "type": "Ready" }), json!({ "type": "Reconciled" })];
            let conditions = if uid == "1" { json!(conditions) } else { json!([conditions[1], conditions[0]]) };
            timeless(
                json!({ "metadata": { "annotations": { "reef.dev/applied": uid }, "managedFields": [{ key: {} }] }, "status": { "conditions": conditions } }),
            )
        };
        assert_eq!(owned("1"), owned("2"));
        let service = |ip: &str| timeless(json!({ "spec": { "clusterIP": ip, "clusterIPs": [ip], "type": "ClusterIP" } }));
        assert_eq!(service("10.96.0.7"), service("10.96.0.8"));
        assert_eq!(one.renamed("a-1", "b-2").0.keys().collect::<Vec<_>>(), ["v1/ConfigMap b-2"]);
        assert_eq!(one.renamed("c-3", "b-2").len(), 0);
    }
}
