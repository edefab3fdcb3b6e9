//! Why a plan was not carried out, by consequence, and the sentence that says so.
//!
//! A sentence must be the same for the same failure: it ends up in a condition, and a condition that changes is a write.

use std::time::Duration;

use crate::{
    contract::Truth,
    identity::{ApiError, Resource, Status},
    names::{Account, PluginId},
};

/// What is to be done about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Something went wrong: back off, count it.
    Retry,
    /// Something is not there yet: no error is counted.
    Wait,
    /// Useless to try before something changes, or before `after`, where it says so.
    Terminal,
    /// A cache is not complete: nothing was decided, nothing is counted, come again soon.
    NotSynced,
    /// This host does not lead any more: drop it, the next leader computes it afresh.
    NotLeading,
    /// The owner vanished or was recreated since it was read: forget the key; if there is a new one, it has woken it.
    OwnerGone,
    /// Nothing may be written in shadow mode: what would have been is noted, and that is the end of it.
    Shadowed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub class: Class,
    /// CamelCase, the reason of the host's condition.
    pub reason: String,
    pub message: String,
    pub after: Option<Duration>,
    /// What the host's condition says of it; nothing, if it passes by itself or could not be written anyway.
    pub told: Option<Truth>,
}

/// How soon after something that is about to pass, as a deletion in progress; an event usually comes first.
pub(super) const SOON: Duration = Duration::from_secs(2);
/// How soon rights and names that an admin may just be giving are asked for again: as often as rights are re-checked.
pub(super) const RECHECK: Duration = Duration::from_secs(30);
/// How soon what the API server refused, or somebody else has, is tried again although nothing changed here.
pub(super) const SLOW: Duration = Duration::from_secs(300);

const FALSE: Option<Truth> = Some(Truth::False);

impl Failed {
    fn new(class: Class, reason: &str, message: impl Into<String>, after: Option<Duration>, told: Option<Truth>) -> Self {
        Self { class, reason: reason.into(), message: message.into(), after, told }
    }

    pub fn invalid_plan(message: impl Into<String>) -> Self {
        Self::new(Class::Terminal, "InvalidPlan", message, None, FALSE)
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Class::Terminal, "Conflict", message, Some(SLOW), FALSE)
    }

    pub fn waiting(message: impl Into<String>) -> Self {
        Self::new(Class::Wait, "Waiting", message, Some(SOON), Some(Truth::Unknown))
    }

    /// Somebody else has to make it first; then the key is woken.
    pub fn absent(message: impl Into<String>) -> Self {
        Self::new(Class::Wait, "Waiting", message, Some(SLOW), Some(Truth::Unknown))
    }

    /// The plan asks for another version than the one that is there; when there is yet another, the key is woken.
    pub fn outdated(message: impl Into<String>) -> Self {
        Self::new(Class::Wait, "Outdated", message, Some(SLOW), Some(Truth::Unknown))
    }

    /// What was read is no longer so; the event that says it is on its way.
    pub fn superseded(message: impl Into<String>) -> Self {
        Self::new(Class::Wait, "Superseded", message, Some(SOON), None)
    }

    /// Somebody keeps changing what is ours.
    pub fn contested(message: impl Into<String>, pause: Duration) -> Self {
        Self::new(Class::Terminal, "Contested", message, Some(pause), FALSE)
    }

    /// Whether it may prune is not known before other objects are planned; then the key is woken.
    pub fn prune_waits() -> Self {
        Self::new(Class::Wait, "PruneWaits", "other objects are planned first", Some(RECHECK), None)
    }

    /// Woken when somebody confirms it.
    pub fn prune_held(plugin: &PluginId) -> Self {
        let message = format!("children that are no longer planned are kept: see the condition `Pruned` of Plugin {plugin}");
        Self::new(Class::Wait, "PruneHeld", message, Some(SLOW), Some(Truth::Unknown))
    }

    pub fn not_leading() -> Self {
        Self::new(Class::NotLeading, "NotLeading", "this host does not lead any more", None, None)
    }

    pub fn not_synced(message: impl Into<String>) -> Self {
        Self::new(Class::NotSynced, "NotSynced", message, None, None)
    }

    pub fn owner_gone() -> Self {
        Self::new(Class::OwnerGone, "OwnerGone", "the object was deleted or recreated since it was read", None, None)
    }

    pub fn shadowed() -> Self {
        Self::new(Class::Shadowed, "Shadowed", "nothing is written in shadow mode", None, None)
    }

    pub fn undecodable(message: impl Into<String>) -> Self {
        Self::new(Class::Retry, "Failed", message, None, FALSE)
    }
}

/// The API server does not say how a kind is served.
pub(super) fn unlearnt(error: &ApiError) -> Failed {
    match error {
        ApiError::UnknownKind(_) => Failed::new(Class::Wait, "UnknownKind", error.to_string(), Some(RECHECK), FALSE),
        _ => Failed::new(Class::Retry, "Unreachable", error.to_string(), None, None),
    }
}

/// What was being done when an API server refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doing<'a> {
    /// As RBAC calls it.
    pub verb: &'static str,
    pub resource: &'a Resource,
    pub namespace: &'a str,
    pub name: &'a str,
    pub subresource: Option<&'a str>,
    pub account: &'a Account,
}

impl Doing<'_> {
    pub fn failed(&self, error: &ApiError) -> Failed {
        use Class::{Retry, Terminal, Wait};
        let plain = |class, reason, after, told| Failed::new(class, reason, self.sentence(&error.to_string()), after, told);
        match error {
            ApiError::Refused(status) => self.refused(status),
            ApiError::NotLent { .. } => plain(Wait, "NotLent", Some(RECHECK), None),
            ApiError::NoAccount { .. } => plain(Wait, "NoAccount", Some(RECHECK), None),
            ApiError::UnknownKind(_) => plain(Wait, "UnknownKind", Some(RECHECK), FALSE),
            ApiError::Unreachable(_) => plain(Retry, "Unreachable", None, None),
            ApiError::Undecodable(_) => plain(Retry, "Failed", None, FALSE),
            ApiError::Misconfigured(_) => plain(Terminal, "Failed", None, FALSE),
        }
    }

    fn refused(&self, status: &Status) -> Failed {
        use Class::{Retry, Terminal, Wait};
        let said = self.sentence(&status.message);
        match status.code {
            401 => Failed::new(Retry, "Unauthorized", said, None, None),
            403 if is_about_rights(status) => Failed::new(Wait, "Forbidden", self.missing_rule(), Some(RECHECK), FALSE),
            403 if status.message.contains("being terminated") => {
                Failed::new(Wait, "NamespaceTerminating", said, Some(RECHECK), None)
            }
            403 if is_about_quota(status) => Failed::new(Wait, "QuotaExceeded", said, Some(RECHECK), FALSE),
            403 => Failed::new(Terminal, "Refused", said, Some(RECHECK), FALSE),
            404 => Failed::new(Retry, "NotFound", said, None, FALSE),
            409 => Failed::superseded(said),
            400 | 405 | 406 | 413 | 415 | 422 => Failed::new(Terminal, "Refused", said, Some(SLOW), FALSE),
            500 if is_about_schema(status) => Failed::new(Terminal, "Refused", said, Some(SLOW), FALSE),
            429 => Failed::new(Retry, "Throttled", said, status.retry_after, None),
            _ => Failed::new(Retry, "Failed", said, status.retry_after, FALSE),
        }
    }

    fn sentence(&self, said: &str) -> String {
        format!("cannot {} {}: {said}", self.verb, self.what())
    }

    fn what(&self) -> String {
        let sub = self.subresource.map(|s| format!("{s} of ")).unwrap_or_default();
        let place = if self.namespace.is_empty() { String::new() } else { format!("{}/", self.namespace) };
        format!("{sub}{} {place}{}", self.resource.kind, self.name)
    }

    /// The sentence for a missing right, with the rule to add.
    fn missing_rule(&self) -> String {
        let Self { verb, account, .. } = self;
        let sub = self.subresource.map(|s| format!("/{s}")).unwrap_or_default();
        let resource = format!("{}{sub}", self.resource.plural);
        let (place, role) = if self.namespace.is_empty() {
            (String::new(), "ClusterRole")
        } else {
            (format!(" in namespace {}", self.namespace), "Role")
        };
        format!(
            "ServiceAccount {account} may not {verb} {resource}{place}: add to a {role} that is bound to it the rule \
             {{apiGroups: [\"{}\"], resources: [\"{resource}\"], verbs: [\"{verb}\"]}}",
            self.resource.kind.group
        )
    }
}

/// Quotas, Pod Security and webhooks answer 403 as well; only the authorizer speaks like this.
fn is_about_rights(status: &Status) -> bool {
    status.message.contains(" cannot ") && status.message.contains(" resource ")
}

/// Nothing is wrong with the object: others have to go, or the quota to grow.
fn is_about_quota(status: &Status) -> bool {
    status.message.contains("exceeded quota: ") || status.message.contains("status unknown for quota: ")
}

/// An apply with a field that the schema does not have answers 500.
fn is_about_schema(status: &Status) -> bool {
    status.message.contains("failed to create typed patch object") || status.message.contains("field not declared in schema")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::names::Kind;

    pub fn resource(kind: &str, plural: &str) -> Resource {
        let kind: Kind = kind.parse().unwrap();
        Resource { kind, plural: plural.into(), namespaced: true, status: true, subresources: Vec::new() }
    }

    fn told(code: u16, message: &str) -> Failed {
        let resource = resource("apps/v1/Deployment", "deployments");
        let account = Account::new("team-a", "hello");
        let doing = Doing {
            verb: "patch",
            resource: &resource,
            namespace: "team-a",
            name: "web",
            subresource: Some("status"),
            account: &account,
        };
        let status = Status { code, reason: String::new(), message: message.into(), retry_after: None, causes: Vec::new() };
        doing.failed(&ApiError::Refused(status))
    }

    #[test]
    fn a_missing_right_is_named_with_the_rule_to_add() {
        let failed = told(
            403,
            r#"deployments.apps "web" is forbidden: User "system:serviceaccount:team-a:hello" cannot patch resource "deployments/status" in API group "apps" in the namespace "team-a""#,
        );
        assert_eq!((failed.class, failed.reason.as_str()), (Class::Wait, "Forbidden"));
        assert_eq!(
            failed.message,
            "ServiceAccount team-a/hello may not patch deployments/status in namespace team-a: add to a Role that is bound \
             to it the rule {apiGroups: [\"apps\"], resources: [\"deployments/status\"], verbs: [\"patch\"]}"
        );
    }

    #[test]
    fn a_quota_is_neither_a_missing_right_nor_a_fault_of_the_object() {
        let failed = told(403, "exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1");
        assert_eq!((failed.class, failed.reason.as_str(), failed.after), (Class::Wait, "QuotaExceeded", Some(RECHECK)));
        assert!(failed.message.contains("exceeded quota") && failed.message.contains("apps/v1/Deployment team-a/web"));
    }

    #[test]
    fn what_is_never_accepted_is_not_tried_hot() {
        for (code, message) in [
            (422, "spec.selector: field is immutable"),
            (400, "strict decoding error"),
            (500, "failed to create typed patch object (a/b; demo/v1, Kind=X): .status.bad: field not declared in schema"),
        ] {
            let failed = told(code, message);
            assert_eq!((failed.class, failed.reason.as_str(), failed.after), (Class::Terminal, "Refused", Some(SLOW)));
        }
        assert_eq!(told(500, "failed calling webhook").class, Class::Retry);
        assert_eq!(told(503, "etcd is away").class, Class::Retry);
    }
}
