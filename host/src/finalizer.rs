//! JSON patches that put a finalizer on an object, or take it off, and leave those of others alone. Pure.

use serde_json::{Value, json};

/// What is known of an object: a patch holds only for the same object with the same finalizers in these places.
#[derive(Debug, Clone)]
pub struct Found<'a, S> {
    pub uid: &'a str,
    pub resource_version: String,
    pub finalizers: &'a [S],
}

impl<S: AsRef<str>> Found<'_, S> {
    pub fn has(&self, name: &str) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer.as_ref() == name)
    }

    /// An absent list may only be made if nobody else made one meanwhile, hence the version.
    pub fn put_on(&self, name: &str) -> Value {
        let uid = json!({ "op": "test", "path": "/metadata/uid", "value": self.uid });
        match self.finalizers.first() {
            Some(first) => json!([
                uid,
                { "op": "test", "path": "/metadata/finalizers/0", "value": first.as_ref() },
                { "op": "add", "path": "/metadata/finalizers/-", "value": name },
            ]),
            None => json!([
                uid,
                { "op": "test", "path": "/metadata/resourceVersion", "value": self.resource_version },
                { "op": "add", "path": "/metadata/finalizers", "value": [name] },
            ]),
        }
    }

    /// The same, but only if nothing of the object has changed: it may be on its way out by now, and want its cleanup first.
    pub fn take_off_unchanged(&self, name: &str) -> Option<Value> {
        let mut operations = self.take_off(name)?;
        if let Some(operations) = operations.as_array_mut() {
            let version = &self.resource_version;
            operations.insert(1, json!({ "op": "test", "path": "/metadata/resourceVersion", "value": version }));
        }
        Some(operations)
    }

    /// Nothing if it is not there.
    pub fn take_off(&self, name: &str) -> Option<Value> {
        let path = format!("/metadata/finalizers/{}", self.finalizers.iter().position(|f| f.as_ref() == name)?);
        Some(json!([
            { "op": "test", "path": "/metadata/uid", "value": self.uid },
            { "op": "test", "path": path, "value": name },
            { "op": "remove", "path": path },
        ]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finalizer_joins_others_and_leaves_them_alone() {
        let found = |finalizers: &'static [&'static str]| Found { uid: "u1", resource_version: "5".into(), finalizers };
        let first = found(&[]).put_on("reef.dev/hello");
        assert_eq!(first[1], json!({ "op": "test", "path": "/metadata/resourceVersion", "value": "5" }));
        assert_eq!(first[2]["value"], json!(["reef.dev/hello"]));
        let second = found(&["other/x"]).put_on("reef.dev/hello");
        assert_eq!(second[2], json!({ "op": "add", "path": "/metadata/finalizers/-", "value": "reef.dev/hello" }));
        assert_eq!(found(&["other/x"]).take_off("reef.dev/hello"), None);
        let off = found(&["other/x", "reef.dev/hello"]).take_off("reef.dev/hello").unwrap();
        assert_eq!(off[1], json!({ "op": "test", "path": "/metadata/finalizers/1", "value": "reef.dev/hello" }));
        assert_eq!(off[2], json!({ "op": "remove", "path": "/metadata/finalizers/1" }));
        let off = found(&["reef.dev/hello"]).take_off_unchanged("reef.dev/hello").unwrap();
        assert_eq!(off[1], json!({ "op": "test", "path": "/metadata/resourceVersion", "value": "5" }));
        assert_eq!(off[3], json!({ "op": "remove", "path": "/metadata/finalizers/0" }));
    }
}
