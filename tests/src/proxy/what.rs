//! What a request is about, as an audit log would say it.

use std::fmt;

use http::{Method, Uri};
use serde_json::Value;

/// `create configmaps/status in team-a named x`; empty is: none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct What {
    pub verb: &'static str,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
}

impl What {
    /// The name of what is created stands in the body.
    pub fn of(method: &Method, uri: &Uri, body: &[u8]) -> Self {
        let mut parts = uri.path().trim_matches('/').split('/');
        let group = match parts.next() {
            Some("api") => String::new(),
            Some("apis") => parts.next().unwrap_or_default().to_owned(),
            _ => return Self { verb: "get", resource: uri.path().to_owned(), ..Self::default() },
        };
        let _version = parts.next();
        let rest: Vec<&str> = parts.collect();
        let (namespace, rest) = match rest.as_slice() {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let part = |i: usize| rest.get(i).copied().unwrap_or_default().to_owned();
        let mut what =
            Self { verb: "", group, resource: part(0), subresource: part(2), namespace: namespace.to_owned(), name: part(1) };
        what.verb = verb(method, uri, &what.name);
        if what.verb == "create" && what.name.is_empty() {
            let object: Value = serde_json::from_slice(body).unwrap_or_default();
            what.name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        }
        what
    }

    /// Create, update, patch or delete, except leases, access reviews and token requests, as in `audit`.
    pub fn is_write(&self) -> bool {
        let changes = matches!(self.verb, "create" | "update" | "patch" | "delete");
        let review = matches!(&*self.group, "authorization.k8s.io" | "authentication.k8s.io");
        changes && !review && !self.is_lease() && !self.is_token()
    }

    pub fn is_lease(&self) -> bool {
        self.group == "coordination.k8s.io"
    }

    pub fn is_token(&self) -> bool {
        self.resource == "serviceaccounts" && self.subresource == "token"
    }
}

fn verb(method: &Method, uri: &Uri, name: &str) -> &'static str {
    let watches = || uri.query().unwrap_or_default().split('&').any(|pair| matches!(pair, "watch=1" | "watch=true"));
    match method.as_str() {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ if watches() => "watch",
        _ if name.is_empty() => "list",
        _ => "get",
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        for (word, text) in [("/", &self.subresource), (" in ", &self.namespace), (" named ", &self.name)] {
            if !text.is_empty() {
                write!(f, "{word}{text}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(method: &str, uri: &str, body: &str) -> String {
        What::of(&method.parse().unwrap(), &uri.parse().unwrap(), body.as_bytes()).to_string()
    }

    #[test]
    fn requests_are_named_as_an_audit_log_names_them() {
        let body = r#"{"metadata":{"name":"x"}}"#;
        assert_eq!(what("POST", "/api/v1/namespaces/n/configmaps?fieldManager=a", body), "create configmaps in n named x");
        assert_eq!(what("PATCH", "/apis/g/v1/namespaces/n/hellos/x/status", ""), "patch hellos/status in n named x");
        assert_eq!(what("GET", "/api/v1/namespaces/n/configmaps?limit=5&watch=true", ""), "watch configmaps in n");
        assert_eq!(what("GET", "/apis/g/v1/hellos", ""), "list hellos");
        assert_eq!(what("DELETE", "/api/v1/namespaces/n", ""), "delete namespaces named n");
        assert_eq!(what("GET", "/version", ""), "get /version");
    }

    #[test]
    fn leases_reviews_and_tokens_are_no_writes() {
        let write = |method: &str, uri: &str| What::of(&method.parse().unwrap(), &uri.parse().unwrap(), b"").is_write();
        assert!(
            write("PATCH", "/api/v1/namespaces/n/configmaps/x") && write("POST", "/apis/events.k8s.io/v1/namespaces/n/events")
        );
        assert!(!write("PUT", "/apis/coordination.k8s.io/v1/namespaces/n/leases/x"));
        assert!(!write("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews"));
        assert!(!write("POST", "/api/v1/namespaces/n/serviceaccounts/x/token"));
        assert!(!write("GET", "/api/v1/namespaces/n/configmaps/x"));
    }
}
