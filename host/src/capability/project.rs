//! Keeping only some fields of an object: identity, and what the given JSON pointers lead to.
//!
//! Pure, and without a recursion limit: what is kept is copied as text, never decoded. A pointer descends through objects;
//! one that leads into a list keeps the whole list. A pointer to what is not there keeps nothing.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// What every projection keeps.
const IDENTITY: [&str; 5] = ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace", "/metadata/uid"];

/// The longest pointer in bytes, which also bounds how deep a projection recurses.
const MAX_POINTER: usize = 512;

type Fields<'a> = BTreeMap<String, &'a RawValue>;

/// What is wanted of one object: everything, or only some of its members.
#[derive(Default)]
struct Wanted {
    whole: bool,
    members: BTreeMap<String, Wanted>,
}

impl Wanted {
    fn add(&mut self, pointer: &str) -> Result<(), String> {
        let rest = pointer.strip_prefix('/').filter(|rest| rest.len() < MAX_POINTER).ok_or_else(|| {
            let shown: String = pointer.chars().take(60).flat_map(char::escape_debug).collect();
            format!("`{shown}` is no path to a field: write a JSON pointer of at most {MAX_POINTER} bytes, as in `/data/text`")
        })?;
        let mut at = self;
        for segment in rest.split('/') {
            at = at.members.entry(segment.replace("~1", "/").replace("~0", "~")).or_default();
        }
        at.whole = true;
        Ok(())
    }

    /// Appends what is wanted of `value`, and says whether there was anything.
    fn copy(&self, value: &RawValue, out: &mut String) -> bool {
        let text = value.get();
        if self.whole || text.starts_with('[') {
            out.push_str(text);
            return true;
        }
        let Ok(fields) = serde_json::from_str::<Fields>(text) else { return false };
        out.push('{');
        let start = out.len();
        for (name, wanted) in &self.members {
            let Some(value) = fields.get(name) else { continue };
            let before = out.len();
            if before > start {
                out.push(',');
            }
            out.push_str(&serde_json::Value::from(name.as_str()).to_string());
            out.push(':');
            if !wanted.copy(value, out) {
                out.truncate(before);
            }
        }
        out.push('}');
        true
    }
}

/// The object with identity and these fields only. No fields keep everything.
pub fn project(object: &[u8], fields: &[String]) -> Result<Vec<u8>, String> {
    if fields.is_empty() {
        return Ok(object.to_vec());
    }
    let mut wanted = Wanted::default();
    for pointer in IDENTITY.into_iter().chain(fields.iter().map(String::as_str)) {
        wanted.add(pointer)?;
    }
    let object: &RawValue = serde_json::from_slice(object).map_err(|error| format!("the object is no JSON: {error}"))?;
    let mut out = String::new();
    wanted.copy(object, &mut out);
    Ok(out.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &str = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"b","uid":"u","resourceVersion":"7",
        "annotations":{"a/b":"1","c":"2"}},"data":{"text":"hi","more":"x"},"list":[{"a":1}],"none":null}"#;

    fn kept(fields: &[&str]) -> String {
        let fields: Vec<String> = fields.iter().map(|f| (*f).to_owned()).collect();
        String::from_utf8(project(OBJECT.as_bytes(), &fields).unwrap()).unwrap()
    }

    #[test]
    fn only_identity_and_what_was_asked_for_is_kept() {
        let identity =
            r#"{"apiVersion":"v1","data":{"text":"hi"},"kind":"ConfigMap","metadata":{"name":"a","namespace":"b","uid":"u"}}"#;
        assert_eq!(kept(&["/data/text"]), identity);
        assert_eq!(kept(&["/data/text", "/nowhere", "/list0/x", "/kind/deeper"]), identity);
        assert_eq!(kept(&[]), OBJECT);
    }

    #[test]
    fn pointers_are_unescaped_lists_stay_whole_and_null_is_something() {
        let text = kept(&["/metadata/annotations/a~1b", "/list/0/a", "/none", "/metadata"]);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["list"], serde_json::json!([{"a": 1}]));
        assert!(value.as_object().unwrap().contains_key("none"));
        assert_eq!(value["metadata"]["resourceVersion"], "7", "the wider of two pointers wins");
        let value: serde_json::Value = serde_json::from_str(&kept(&["/metadata/annotations/a~1b"])).unwrap();
        assert_eq!(value["metadata"]["annotations"], serde_json::json!({"a/b": "1"}));
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        let error = project(OBJECT.as_bytes(), &["data.text".into()]).unwrap_err();
        assert!(error.contains("`data.text`") && error.contains("/data/text"), "{error}");
    }

    #[test]
    fn depth_is_no_obstacle() {
        let deep = format!(r#"{{"kind":"X","spec":{}1{},"data":"d"}}"#, r#"{"a":"#.repeat(9000), "}".repeat(9000));
        let kept = project(deep.as_bytes(), &["/data".into()]).unwrap();
        assert_eq!(String::from_utf8(kept).unwrap(), r#"{"data":"d","kind":"X"}"#);
        assert_eq!(project(deep.as_bytes(), &["/spec".into()]).unwrap().len(), deep.len() - r#","data":"d""#.len());
    }
}
