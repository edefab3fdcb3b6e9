//! JSON taken apart without being decoded: values stay the text that the API server sent.
//!
//! Nothing here recurses, so an object may be nested as deeply as the API server accepts, and numbers keep
//! every digit. It knows nothing of Kubernetes beyond `metadata.managedFields`.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

/// The fields of one JSON object in their order, values untouched.
#[derive(Debug, Default)]
pub struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::with_capacity(8);
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

impl<'a> Fields<'a> {
    pub fn parse(json: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// The text of a field; `null` counts as absent, as everywhere in Kubernetes.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(key, value)| *key == name && *value != "null").map(|(_, value)| value)
    }

    /// A field that is a JSON string.
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        string(self.get(name)?)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.get()))
    }
}

/// Decodes a JSON string, without a copy where it has no escapes.
pub fn string(json: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Name<'_>>(json).ok().map(|name| name.0)
}

/// The items of a JSON array.
pub fn items(json: &str) -> Result<Vec<&str>, serde_json::Error> {
    let items: Vec<&RawValue> = serde_json::from_str(json)?;
    Ok(items.into_iter().map(RawValue::get).collect())
}

/// Writes an object again, without `metadata.managedFields`, and with `apiVersion` and `kind` in front, whether it had
/// them (as in an event) or not (as in a list): the same object is the same text. All else stays in its order.
pub fn without_managed_fields(object: &Fields<'_>, metadata: &Fields<'_>, api_version: &str, kind: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(size(object));
    out.push(b'{');
    for (name, value) in [("apiVersion", api_version), ("kind", kind)] {
        put_name(&mut out, name);
        put_string(&mut out, value);
    }
    for (name, value) in object.iter().filter(|(name, _)| !matches!(*name, "apiVersion" | "kind")) {
        put_name(&mut out, name);
        match name {
            "metadata" => put_metadata(&mut out, metadata),
            _ => out.extend_from_slice(value.as_bytes()),
        }
    }
    out.push(b'}');
    out
}

fn put_metadata(out: &mut Vec<u8>, metadata: &Fields<'_>) {
    out.push(b'{');
    for (name, value) in metadata.iter().filter(|(name, _)| *name != "managedFields") {
        put_name(out, name);
        out.extend_from_slice(value.as_bytes());
    }
    out.push(b'}');
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    if !out.ends_with(b"{") {
        out.push(b',');
    }
    put_string(out, name);
    out.push(b':');
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(Value::from(text).to_string().as_bytes());
}

fn size(object: &Fields<'_>) -> usize {
    object.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>() + 96
}

/// The text at a path: a JSON pointer (`/spec/replicas`, `~1` for a slash) or dotted (`spec.replicas`).
pub fn at<'a>(json: &'a str, path: &str) -> Option<&'a str> {
    segments(path).iter().try_fold(json, |json, segment| step(json, segment))
}

fn segments(path: &str) -> Vec<String> {
    match path.strip_prefix('/') {
        Some(pointer) => pointer.split('/').map(|s| s.replace("~1", "/").replace("~0", "~")).collect(),
        None => path.split('.').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
    }
}

fn step<'a>(json: &'a str, segment: &str) -> Option<&'a str> {
    if json.starts_with('[') {
        items(json).ok()?.get(segment.parse::<usize>().ok()?).copied()
    } else {
        Fields::parse(json.as_bytes()).ok()?.get(segment)
    }
}

/// Whether two objects say the same at all these paths. Values are compared, not text, as far as they decode.
pub fn same_at(paths: &[String], one: &[u8], other: &[u8]) -> bool {
    let (Ok(one), Ok(other)) = (str::from_utf8(one), str::from_utf8(other)) else { return false };
    paths.iter().all(|path| same(at(one, path), at(other, path)))
}

fn same(one: Option<&str>, other: Option<&str>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one == other || decodes_to_same(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

fn decodes_to_same(one: &str, other: &str) -> bool {
    match (serde_json::from_str::<Value>(one), serde_json::from_str::<Value>(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip(json: &str) -> String {
        let object = Fields::parse(json.as_bytes()).unwrap();
        let metadata = Fields::parse(object.get("metadata").unwrap().as_bytes()).unwrap();
        String::from_utf8(without_managed_fields(&object, &metadata, "apps/v1", "Deployment")).unwrap()
    }

    #[test]
    fn managed_fields_go_and_everything_else_stays_as_it_was_written() {
        let json = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","managedFields":[{"manager":"x"}],"uid":"1"},"spec":{"n":9007199254740993,"b":1.0,"é\n":"}"}}"#;
        assert_eq!(strip(json), json.replace(r#""managedFields":[{"manager":"x"}],"#, ""));
    }

    #[test]
    fn an_item_of_a_list_gets_its_kind_and_reads_as_in_an_event() {
        let event = r#"{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"a"}}"#;
        assert_eq!(strip(event), strip(r#"{"metadata":{"name":"a"}}"#));
        assert_eq!(
            strip(r#"{"metadata":{"name":"a"}}"#),
            r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"}}"#
        );
        assert_eq!(strip(r#"{"metadata":{},"kind":null}"#), r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{}}"#);
    }

    #[test]
    fn depth_does_not_matter() {
        let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        let json = format!(
            r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"a"}},"spec":{{"x":{},"y":2}}}}"#,
            deep(100_000)
        );
        assert_eq!(strip(&json), json);
        assert_eq!(at(&json, "/spec/y"), Some("2"));
        let other = json.replace("\"y\":2", "\"y\":3");
        assert!(same_at(&["/spec/x".into()], json.as_bytes(), other.as_bytes()));
        assert!(!same_at(&["/spec/y".into()], json.as_bytes(), other.as_bytes()));
    }

    #[test]
    fn paths_are_pointers_or_dotted() {
        let json = r#"{"a":{"b/c":[{"d":"x"},null]},"n":null}"#;
        assert_eq!(at(json, "/a/b~1c/0/d"), Some(r#""x""#));
        assert_eq!(at(json, "a.b/c.0"), Some(r#"{"d":"x"}"#));
        assert_eq!(at(json, ".a"), Some(r#"{"b/c":[{"d":"x"},null]}"#));
        for absent in ["/n", "/x", "/a/b~1c/7", "/a/b~1c/x", "/n/y", "/a/b~1c/0/d/e"] {
            assert_eq!(at(json, absent), None, "{absent}");
        }
    }

    #[test]
    fn values_are_compared_and_not_how_they_are_written() {
        let same = |a: &str, b: &str| same_at(&["/s".into()], a.as_bytes(), b.as_bytes());
        assert!(same(r#"{"s":{"a":1,"b":2}}"#, r#"{"s":{"b":2,"a":1},"t":1}"#));
        assert!(same(r#"{"s":null}"#, r#"{}"#));
        assert!(!same(r#"{"s":1}"#, r#"{}"#));
    }
}
