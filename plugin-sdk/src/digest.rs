//! A short name for content.

use std::fmt::Write;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::Result;

/// The half of a SHA-256 that is kept: nobody finds two contents of one digest, and it fits into a label and into a name.
const BYTES: usize = 16;

/// 32 hexadecimal digits that are the same for the same content, in whatever order its fields come: for a pod template that
/// rolls when a ConfigMap changes, and for names of copies.
///
/// ```
/// use plugin_sdk::prelude::*;
///
/// fn reconcile(site: Object<Value>, _cx: &Context) -> Result<Plan> {
///     let page = digest(&site.spec["html"])?;
///     let template = json!({ "metadata": { "annotations": { "example.com/page": page } } });
///     Ok(Plan::new().own(site.child("apps/v1/Deployment", json!({ "spec": { "template": template } }))))
/// }
/// # Context::fake().run(reconcile, "{ metadata: { name: a }, spec: { html: hi } }").unwrap();
/// assert_eq!(digest(&json!({ "a": 1, "b": 2 })).unwrap(), digest(&json!({ "b": 2, "a": 1 })).unwrap());
/// assert_eq!(digest("hi").unwrap().len(), 32);
/// ```
///
/// What cannot be JSON, as a map whose keys are no strings, is an error.
pub fn digest<T: Serialize + ?Sized>(content: &T) -> Result<String> {
    // As a `Value`, the fields of every object are sorted.
    let canonical = serde_json::to_value(content)?.to_string();
    let mut digits = String::with_capacity(2 * BYTES);
    for byte in Sha256::digest(canonical).iter().take(BYTES) {
        write!(digits, "{byte:02x}")?;
    }
    Ok(digits)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn it_is_the_beginning_of_the_sha_256_of_the_json() {
        // printf '{"a":"b"}' | sha256sum
        assert_eq!(digest(&HashMap::from([("a", "b")])).unwrap(), "db4a7ecb114bc66c623a06c4ff6fe8da");
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        assert!(digest(&HashMap::from([((1, 2), 3)])).is_err());
    }
}
