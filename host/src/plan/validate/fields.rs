//! What may stand in the fields of an object: names, metadata, and what a subresource has.
//!
//! Pure. Each refusal names the field, its value, and what to do instead.

use serde_json::{Map, Value};

use crate::names::Kind;

const PREFIX: &str = "reef.dev/";

pub fn check_name(kind: &Kind, name: &str) -> Result<(), String> {
    // Names of roles and bindings may be anything that fits into a path, as in `system:node`.
    let ok = if &*kind.group == "rbac.authorization.k8s.io" {
        !matches!(name, "" | "." | "..") && !name.contains(['/', '%'])
    } else {
        name.split('.').all(is_label)
    };
    if ok && name.len() <= 253 {
        return Ok(());
    }
    Err(format!(
        "metadata.name is `{name}`: use at most 253 of a-z, 0-9, `-` and `.`, beginning and ending with a letter or digit"
    ))
}

/// A DNS label, whatever its length.
fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// What the plugin may say of an object's metadata.
pub fn check_metadata(metadata: &Map<String, Value>) -> Result<(), String> {
    for (field, value) in metadata {
        match field.as_str() {
            "name" | "namespace" | "finalizers" => {}
            "labels" | "annotations" => check_strings(field, value, Nulls::Blank)?,
            _ if value.is_null() => {}
            "ownerReferences" => {
                return Err("metadata.ownerReferences is set: the host adds the owner of a child, leave it out".into());
            }
            _ => {
                return Err(format!(
                    "metadata.{field} is set: an object's metadata has name, namespace, labels, annotations and finalizers"
                ));
            }
        }
    }
    Ok(())
}

/// What a merge patch may change of it: nothing that says who holds the object, and nothing of the host's.
pub fn check_patched_metadata(metadata: &Map<String, Value>) -> Result<(), String> {
    for (field, value) in metadata {
        match field.as_str() {
            "name" | "namespace" => {}
            "labels" | "annotations" if value.is_null() => {
                return Err(format!("metadata.{field} is null, which takes away everybody's: name each that is to go"));
            }
            "labels" | "annotations" => check_strings(field, value, Nulls::TakeAway)?,
            _ => {
                return Err(format!("metadata.{field} is set: of metadata a patch changes labels and annotations, leave it out"));
            }
        }
    }
    Ok(())
}

/// What a write of a subresource may say: beside identity, what the subresource has.
pub fn check_subresource(subresource: &str, object: &Map<String, Value>) -> Result<(), String> {
    let metadata = object.get("metadata").and_then(Value::as_object);
    let said = metadata.and_then(|metadata| metadata.keys().find(|field| !matches!(field.as_str(), "name" | "namespace")));
    if let Some(field) = said {
        return Err(format!("metadata.{field} is set, which is no part of subresource `{subresource}`: leave it out"));
    }
    let other = |field: &&String| !matches!(field.as_str(), "apiVersion" | "kind" | "metadata" | "status");
    match object.keys().find(other) {
        Some(field) if subresource == "status" => {
            Err(format!("`{field}` is set, which is no part of subresource `status`: write it without the option"))
        }
        _ => Ok(()),
    }
}

/// What a null among labels or annotations means.
#[derive(Clone, Copy, PartialEq)]
enum Nulls {
    Blank,
    TakeAway,
}

fn check_strings(field: &str, value: &Value, nulls: Nulls) -> Result<(), String> {
    let map = match value {
        Value::Null => return Ok(()),
        Value::Object(map) => map,
        other => return Err(format!("metadata.{field} is `{other}`: write an object of strings")),
    };
    for (key, value) in map {
        if key.starts_with(PREFIX) {
            return Err(format!("metadata.{field} has `{key}`: what starts with `{PREFIX}` is the host's, choose another"));
        }
        let taken_away = value.is_null() && nulls == Nulls::TakeAway;
        if !value.is_string() && !taken_away {
            return Err(format!("metadata.{field} has `{key}: {value}`: write the value as a string"));
        }
    }
    Ok(())
}

pub fn check_string_data(data: Option<&Value>) -> Result<(), String> {
    match data {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(map)) => match map.iter().find(|(_, value)| !value.is_string()) {
            None => Ok(()),
            Some((key, _)) => Err(format!("stringData has a `{key}` that is no string: write it as a string")),
        },
        Some(_) => Err("stringData is no object: write an object of strings".into()),
    }
}
