//! What an account may do: its rules in a namespace, and a single question where they do not say yes.
//!
//! Both are asked as the account itself, so nobody needs a right for it. Answers are believed for the recheck period, a no
//! as well as a yes, and asked for only while somebody wants to know.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::{Actor, ApiError, Inner, answers::Answers};
use crate::names::Account;

const RULES: &str = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
const ACCESS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// One thing that an account may or may not do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Access {
    pub verb: &'static str,
    pub group: Arc<str>,
    /// The plural.
    pub resource: Arc<str>,
    /// Empty for the object itself.
    pub subresource: &'static str,
    /// Empty: cluster-scoped, or all namespaces.
    pub namespace: Arc<str>,
    /// `None`: any name.
    pub name: Option<Arc<str>>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Rule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

impl Rule {
    /// As the API server's own RBAC decides.
    fn allows(&self, access: &Access) -> bool {
        let any = |list: &[String], wanted: &str| list.iter().any(|l| l == "*" || l == wanted);
        any(&self.verbs, access.verb)
            && any(&self.api_groups, &access.group)
            && self.resources.iter().any(|r| names_resource(r, access))
            && (self.resource_names.is_empty()
                || access.name.as_ref().is_some_and(|n| self.resource_names.iter().any(|r| **r == **n)))
    }
}

fn names_resource(rule: &str, access: &Access) -> bool {
    match (rule, rule.split_once('/')) {
        ("*", _) => true,
        (_, None) => access.subresource.is_empty() && *rule == *access.resource,
        (_, Some((resource, sub))) => {
            !sub.is_empty() && sub == access.subresource && (resource == "*" || *resource == *access.resource)
        }
    }
}

type Rules = Arc<Vec<Rule>>;

pub(super) struct Rights {
    recheck: Duration,
    rules: Answers<(Account, Arc<str>), Rules>,
    single: Answers<(Account, Access), bool>,
}

impl Rights {
    pub(super) fn new(recheck: Duration) -> Self {
        Self { recheck, rules: Answers::new(10_000), single: Answers::new(50_000) }
    }

    pub(super) async fn can(&self, api: &Inner, account: &Account, access: &Access) -> Result<bool, ApiError> {
        // Rules are those of a namespace: they do not say what may be done in all of them, or to what is in none.
        if !access.namespace.is_empty() && self.rules(api, account, &access.namespace).await?.iter().any(|r| r.allows(access)) {
            return Ok(true);
        }
        let until = Instant::now() + self.recheck;
        let ask = |_| async { Ok((single(api, account, access).await?, until)) };
        self.single.get(&(account.clone(), access.clone()), ask).await
    }

    async fn rules(&self, api: &Inner, account: &Account, namespace: &Arc<str>) -> Result<Rules, ApiError> {
        let until = Instant::now() + self.recheck;
        let ask = |_| async {
            match rules(api, account, namespace).await {
                Ok(rules) => Ok((Arc::new(rules), until)),
                // Where even this is not allowed, single questions may be.
                Err(ApiError::Refused(status)) if status.code == 403 => Ok((Rules::default(), until)),
                Err(error) => Err(error),
            }
        };
        self.rules.get(&(account.clone(), namespace.clone()), ask).await
    }
}

async fn rules(api: &Inner, account: &Account, namespace: &str) -> Result<Vec<Rule>, ApiError> {
    #[derive(Deserialize)]
    struct Review {
        status: ReviewStatus,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ReviewStatus {
        #[serde(default)]
        resource_rules: Vec<Rule>,
    }
    let question = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": { "namespace": namespace },
    });
    let review: Review = ask(api, account, RULES, &question).await?;
    Ok(review.status.resource_rules)
}

async fn single(api: &Inner, account: &Account, access: &Access) -> Result<bool, ApiError> {
    #[derive(Deserialize)]
    struct Review {
        status: ReviewStatus,
    }
    #[derive(Deserialize)]
    struct ReviewStatus {
        #[serde(default)]
        allowed: bool,
    }
    let attributes = json!({
        "verb": access.verb,
        "group": access.group,
        "resource": access.resource,
        "subresource": access.subresource,
        "namespace": access.namespace,
        "name": access.name.as_deref().unwrap_or_default(),
    });
    let question = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": attributes },
    });
    let review: Review = ask(api, account, ACCESS, &question).await?;
    Ok(review.status.allowed)
}

/// A question may be asked twice: with a token that is no longer good it was not heard.
async fn ask<T: for<'de> Deserialize<'de>>(
    api: &Inner,
    account: &Account,
    path: &str,
    question: &serde_json::Value,
) -> Result<T, ApiError> {
    let actor = Actor::Account(account.clone());
    match api.ask(&actor, path, question).await {
        Err(error) if error.code() == Some(401) => api.ask(&actor, path, question).await,
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> Rule {
        serde_json::from_str(json).unwrap()
    }

    fn access(verb: &'static str, group: &str, resource: &str, subresource: &'static str, name: Option<&str>) -> Access {
        let (group, resource, name) = (group.into(), resource.into(), name.map(Into::into));
        Access { verb, group, resource, subresource, namespace: "x".into(), name }
    }

    #[test]
    fn a_rule_allows_what_it_says_and_nothing_else() {
        let apps = rule(r#"{"verbs":["get","list"],"apiGroups":["apps"],"resources":["deployments"]}"#);
        assert!(apps.allows(&access("get", "apps", "deployments", "", Some("a"))));
        assert!(apps.allows(&access("list", "apps", "deployments", "", None)));
        assert!(!apps.allows(&access("watch", "apps", "deployments", "", None)));
        assert!(!apps.allows(&access("get", "", "deployments", "", None)));
        assert!(!apps.allows(&access("get", "apps", "replicasets", "", None)));
        assert!(!apps.allows(&access("get", "apps", "deployments", "status", None)));
    }

    #[test]
    fn stars_and_subresources_mean_what_rbac_means() {
        let all = rule(r#"{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}"#);
        assert!(all.allows(&access("delete", "apps", "deployments", "scale", Some("a"))));
        let status = rule(r#"{"verbs":["patch"],"apiGroups":[""],"resources":["pods/status"]}"#);
        assert!(status.allows(&access("patch", "", "pods", "status", None)));
        assert!(!status.allows(&access("patch", "", "pods", "", None)));
        let any_scale = rule(r#"{"verbs":["get"],"apiGroups":["apps"],"resources":["*/scale"]}"#);
        assert!(any_scale.allows(&access("get", "apps", "deployments", "scale", None)));
        assert!(!any_scale.allows(&access("get", "apps", "deployments", "", None)));
        let odd = rule(r#"{"verbs":["get"],"apiGroups":[""],"resources":["pods/*","pods/"]}"#);
        assert!(!odd.allows(&access("get", "", "pods", "log", None)), "RBAC knows no such star");
        assert!(!odd.allows(&access("get", "", "pods", "", None)));
    }

    #[test]
    fn names_restrict() {
        let one = rule(r#"{"verbs":["get","list"],"apiGroups":[""],"resources":["secrets"],"resourceNames":["a"]}"#);
        assert!(one.allows(&access("get", "", "secrets", "", Some("a"))));
        assert!(!one.allows(&access("get", "", "secrets", "", Some("b"))));
        assert!(!one.allows(&access("list", "", "secrets", "", None)));
    }
}
