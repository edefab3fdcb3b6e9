//! Who owns which fields, as far as the plans of `hello` need it: maps are granular, `conditions` a list by `type`,
//! `ownerReferences` one by `uid` with atomic items, `finalizers` a set; all other lists are atomic.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// Segments as in `fieldsV1`; `.` at the end is a list item itself.
pub type Path = Vec<String>;

/// Manager, operation, subresource.
pub type Manager = (String, &'static str, &'static str);

pub type Owners = BTreeMap<Manager, BTreeSet<Path>>;

/// All leaves that may have an owner.
pub fn leaves(object: &Value) -> BTreeMap<Path, Value> {
    let mut found = BTreeMap::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        match key.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                for name in ["labels", "annotations", "ownerReferences", "finalizers"] {
                    if let Some(value) = value.get(name) {
                        walk(vec!["f:metadata".into(), format!("f:{name}")], name, value, &mut found);
                    }
                }
            }
            key => walk(vec![format!("f:{key}")], key, value, &mut found),
        }
    }
    found
}

fn walk(path: Path, name: &str, value: &Value, found: &mut BTreeMap<Path, Value>) {
    let below = |segment: String| path.iter().cloned().chain([segment]).collect::<Path>();
    match (name, value) {
        ("ownerReferences", Value::Array(items)) => {
            for item in items {
                found.insert(below(format!("k:{}", json!({ "uid": item["uid"] }))), item.clone());
            }
        }
        ("finalizers", Value::Array(items)) => {
            for item in items {
                found.insert(below(format!("v:{item}")), item.clone());
            }
        }
        ("conditions", Value::Array(items)) => {
            for item in items {
                let item_path = below(format!("k:{}", json!({ "type": item["type"] })));
                found.insert(item_path.iter().cloned().chain([".".into()]).collect(), Value::Null);
                walk(item_path, "", item, found);
            }
        }
        (_, Value::Object(map)) if !map.is_empty() => {
            for (key, value) in map {
                walk(below(format!("f:{key}")), key, value, found);
            }
        }
        _ => drop(found.insert(path, value.clone())),
    }
}

/// Puts a leaf into an object, or takes it out.
pub fn set(object: &mut Value, path: &[String], value: Option<&Value>) {
    let Some((segment, rest)) = path.split_first() else { return };
    if let Some(key) = segment.strip_prefix("f:") {
        if !object.is_object() {
            *object = json!({});
        }
        let map = object.as_object_mut().unwrap();
        match (rest.is_empty(), value) {
            (true, Some(value)) => drop(map.insert(key.into(), value.clone())),
            (true, None) => drop(map.remove(key)),
            (false, _) => {
                if value.is_some() || map.contains_key(key) {
                    set(map.entry(key).or_insert(Value::Null), rest, value);
                    let empty = |v: &Value| v.is_null() || *v == json!({}) || *v == json!([]);
                    if value.is_none() && map.get(key).is_some_and(empty) {
                        map.remove(key);
                    }
                }
            }
        }
        return;
    }
    if !object.is_array() {
        *object = json!([]);
    }
    let items = object.as_array_mut().unwrap();
    let (is_set, text) = (segment.starts_with("v:"), &segment[2..]);
    let key: Value = serde_json::from_str(text).unwrap();
    let same = |item: &Value| if is_set { *item == key } else { key.as_object().unwrap().iter().all(|(k, v)| item[k] == *v) };
    let at = items.iter().position(same);
    // The item itself, or a leaf of it.
    if rest.is_empty() || rest == ["."] {
        match (value, at) {
            (Some(value), Some(at)) if rest.is_empty() => items[at] = value.clone(),
            (Some(value), None) => items.push(if rest.is_empty() { value.clone() } else { key }),
            (None, Some(at)) => drop(items.remove(at)),
            _ => {}
        }
    } else if let Some(at) = at {
        set(&mut items[at], rest, value);
    } else if let Some(value) = value {
        items.push(key);
        set(items.last_mut().unwrap(), rest, Some(value));
    }
}

/// Everything that one writer changed belongs to it from now on, and to nobody else.
pub fn updated(owners: &mut Owners, manager: Manager, before: &Value, after: &Value) {
    let (before, after) = (leaves(before), leaves(after));
    for paths in owners.values_mut() {
        paths.retain(|path| after.contains_key(path) && before.get(path) == after.get(path));
    }
    let changed = after.iter().filter(|(path, value)| before.get(*path) != Some(value)).map(|(path, _)| path.clone());
    owners.entry(manager).or_default().extend(changed);
    owners.retain(|_, paths| !paths.is_empty());
}

/// Whether an apply says something else of a field than its other owner.
pub fn conflicts(owners: &Owners, manager: &Manager, live: &Value, applied: &Value) -> bool {
    let (wanted, was) = (leaves(applied), leaves(live));
    let differs = |path: &Path| wanted.contains_key(path) && wanted.get(path) != was.get(path);
    owners.iter().filter(|(owner, _)| *owner != manager).any(|(_, paths)| paths.iter().any(differs))
}

/// A forced server-side apply of what `applied` says; returns the object as it is then.
pub fn apply(owners: &mut Owners, manager: Manager, live: &Value, applied: &Value) -> Value {
    let (mut object, wanted, was) = (live.clone(), leaves(applied), leaves(live));
    let mine = owners.remove(&manager).unwrap_or_default();
    for path in mine.iter().filter(|path| !wanted.contains_key(*path)) {
        if !owners.values().any(|paths| paths.contains(path)) {
            set(&mut object, path, None);
        }
    }
    for (path, value) in &wanted {
        // An empty map says nothing of what is in it.
        if *value != json!({}) || !was.keys().any(|is| is.starts_with(path)) {
            set(&mut object, path, Some(value));
        }
        if was.get(path).is_some_and(|was| was != value) {
            for paths in owners.values_mut() {
                paths.remove(path);
            }
        }
    }
    owners.insert(manager, wanted.into_keys().collect());
    owners.retain(|_, paths| !paths.is_empty());
    object
}

/// `managedFields` as the API server writes them.
pub fn managed(owners: &Owners, api_version: &str) -> Value {
    let entry = |((manager, operation, subresource), paths): (&Manager, &BTreeSet<Path>)| {
        let mut fields = json!({});
        for path in paths {
            let mut at = &mut fields;
            for segment in path {
                at = at.as_object_mut().unwrap().entry(segment.clone()).or_insert_with(|| json!({}));
            }
        }
        let mut entry = json!({ "manager": manager, "operation": operation, "apiVersion": api_version,
            "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields });
        if !subresource.is_empty() {
            entry["subresource"] = json!(subresource);
        }
        entry
    };
    owners.iter().map(entry).collect()
}

/// The other way round, after somebody has patched them.
pub fn owners(managed: &Value) -> Owners {
    let mut all = Owners::new();
    for entry in managed.as_array().into_iter().flatten() {
        let operation = if entry["operation"] == "Apply" { "Apply" } else { "Update" };
        let subresource = if entry["subresource"] == "status" { "status" } else { "" };
        let mut paths = BTreeSet::new();
        collect(entry["fieldsV1"].as_object().unwrap_or(&Map::new()), &Path::new(), &mut paths);
        all.entry((entry["manager"].as_str().unwrap_or_default().into(), operation, subresource)).or_default().extend(paths);
    }
    all
}

fn collect(fields: &Map<String, Value>, path: &Path, paths: &mut BTreeSet<Path>) {
    for (segment, below) in fields {
        let path: Path = path.iter().cloned().chain([segment.clone()]).collect();
        match below.as_object().filter(|below| !below.is_empty()) {
            Some(below) => collect(below, &path, paths),
            None => drop(paths.insert(path)),
        }
    }
}
