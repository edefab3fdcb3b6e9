//! How what `reef install` has made is recognised: by two labels, and on what has no namespace by a third.

use serde_json::{Value, json};

use super::cluster::text_at;
use crate::catalog::crd::Plugin;

const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The Plugin for which it was made.
const PLUGIN: &str = "reef.dev/installed";
/// That Plugin's namespace, on objects that have none.
const NAMESPACE: &str = "reef.dev/installed-in";
/// On the Plugin: the CRDs that its component brings, with commas between them.
pub const CRDS: &str = "reef.dev/crds";

/// Labels an object as made for a Plugin.
pub fn label(object: &mut Value, namespace: &str, plugin: &str) {
    let mut labels = json!({ MANAGED_BY: super::cluster::MANAGER, PLUGIN: plugin });
    if text_at(object, "/metadata/namespace").is_empty()
        && let Some(labels) = labels.as_object_mut()
    {
        labels.insert(NAMESPACE.into(), namespace.into());
    }
    set(object, labels);
}

/// Labels a CRD as made by an install; it is there for all Plugins.
pub fn label_crd(object: &mut Value) {
    set(object, json!({ MANAGED_BY: super::cluster::MANAGER }));
}

fn set(object: &mut Value, labels: Value) {
    let (Value::Object(labels), Some(metadata)) = (labels, object.get_mut("metadata").and_then(Value::as_object_mut)) else {
        return;
    };
    match metadata.get_mut("labels").and_then(Value::as_object_mut) {
        Some(before) => before.extend(labels),
        None => drop(metadata.insert("labels".into(), Value::Object(labels))),
    }
}

fn labelled<'a>(object: &'a Value, name: &str) -> &'a str {
    object.pointer("/metadata/labels").and_then(|labels| labels.get(name)).and_then(Value::as_str).unwrap_or_default()
}

/// Whether an install has made it, for whomever.
pub fn is_ours(object: &Value) -> bool {
    labelled(object, MANAGED_BY) == super::cluster::MANAGER
}

/// Whether an install has made it for this Plugin.
pub fn is_for(object: &Value, namespace: &str, plugin: &str) -> bool {
    let place = match text_at(object, "/metadata/namespace") {
        "" => labelled(object, NAMESPACE),
        place => place,
    };
    is_ours(object) && labelled(object, PLUGIN) == plugin && place == namespace
}

/// For a URL.
pub fn selector(plugin: &str) -> String {
    format!("labelSelector=app.kubernetes.io%2Fmanaged-by%3D{}%2Creef.dev%2Finstalled%3D{plugin}", super::cluster::MANAGER)
}

/// The CRDs that its installation has brought.
pub fn crds_of(plugin: &Plugin) -> Vec<String> {
    let said = plugin.metadata.annotations.as_ref().and_then(|all| all.get(CRDS)).map(String::as_str).unwrap_or_default();
    said.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_for_one_plugin_was_not_made_for_another() {
        let mut role = json!({ "metadata": { "name": "a", "namespace": "team-a", "labels": { "x": "y" } } });
        let mut cluster_role = json!({ "metadata": { "name": "a" } });
        assert!(!is_ours(&role));
        for object in [&mut role, &mut cluster_role] {
            label(object, "team-a", "hello");
            assert!(is_for(object, "team-a", "hello"), "{object}");
            assert!(!is_for(object, "team-b", "hello") && !is_for(object, "team-a", "other"), "{object}");
        }
        assert_eq!(role["metadata"]["labels"]["x"], "y");
        let mut crd = json!({ "metadata": { "name": "a" } });
        label_crd(&mut crd);
        assert!(is_ours(&crd) && !is_for(&crd, "team-a", "hello"));
    }
}
