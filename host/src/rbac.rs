//! What a plugin's account must be allowed, computed from the manifest, as the objects that tell Kubernetes so.
//!
//! Pure: the manifest and how its kinds are served in, objects out. Which verbs it takes to read and to own stands here
//! once; the host looks at the same ones before a plugin runs.

pub mod kinds;

use serde_json::{Value, json};

use self::kinds::{Kinds, Served};
use crate::{
    contract::Manifest,
    names::{Account, Kind},
};

/// What it takes to read a kind: it is watched, and listed first.
pub const READ: &[&str] = &["get", "list", "watch"];
/// What it takes to own children of a kind.
pub const OWN: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];
/// What it takes to report: the status is read again where somebody else was faster.
const REPORT: &[&str] = &["get", "patch"];

/// As whom the host comes to the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Account(Account),
    User(String),
}

/// Who is to be allowed what, and where.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub manifest: &'a Manifest,
    pub kinds: &'a Kinds,
    /// The plugin's ServiceAccount.
    pub account: &'a str,
    /// `None`: wherever the objects are applied.
    pub namespace: Option<&'a str>,
    pub host: &'a Host,
    /// What the plugin's source takes, beside what the component does.
    pub source: &'a [Named],
}

/// A single object that is read: a ConfigMap with a component, a pull secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The plural, as in `secrets`.
    pub resource: &'static str,
    pub name: String,
}

/// An object to apply, with what is to be said about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Lines without `#`.
    pub comment: Vec<String>,
    pub object: Value,
}

/// Account, roles and bindings, and the role that lends the account to the host. The error is a sentence.
pub fn documents(wanted: Wanted<'_>) -> Result<Vec<Document>, String> {
    let Wanted { manifest, account, namespace, .. } = wanted;
    let rules = Rules::of(manifest, wanted.kinds);
    let mut namespaced = merged(&rules.namespaced);
    if let Some(all) = namespaced.as_array_mut() {
        all.extend(by_name(wanted.source));
    }
    let place = if namespace.is_some() { "" } else { " Apply it with -n NAMESPACE." };
    let who = format!("Who {} is, what it may do in its namespace, and that the host may act as it there.{place}", manifest.name);
    let role = |kind: &str, name: &str, namespace, rules: Value| object(API, kind, name, namespace, json!({ "rules": rules }));
    let mut all = vec![
        Document { comment: vec![who], object: object("v1", "ServiceAccount", account, namespace, json!({})) },
        Document { comment: rules.notes.clone(), object: role("Role", account, namespace, namespaced) },
        binding("Role", account, namespace, &wanted.account_subject()),
    ];
    if !rules.cluster.is_empty() {
        let Some(namespace) = namespace else { return Err(no_namespace(&rules.cluster)) };
        let name = format!("reef:{namespace}:{account}");
        let comment = vec!["What it may do with kinds that have no namespace.".to_owned()];
        all.push(Document { comment, object: role("ClusterRole", &name, None, merged(&rules.cluster)) });
        all.push(binding("ClusterRole", &name, None, &wanted.account_subject()));
    }
    let lend = format!("reef-lend-{account}");
    let comment = vec![format!("Lends the account to the host: it may make tokens for `{account}`, here, and for nobody else.")];
    let tokens = json!([{
        "apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": [account], "verbs": ["create"],
    }]);
    all.push(Document { comment, object: role("Role", &lend, namespace, tokens) });
    all.push(binding("Role", &lend, namespace, &wanted.host_subject()));
    Ok(all)
}

fn no_namespace(rules: &[Rule]) -> String {
    let names: Vec<&str> = rules.iter().flat_map(|rule| rule.resources.iter().map(String::as_str)).collect();
    format!(
        "the plugin uses cluster-scoped kinds ({}), and a ClusterRoleBinding names the namespace of its account: give it with -n",
        names.join(", ")
    )
}

impl Wanted<'_> {
    fn account_subject(&self) -> Value {
        let mut subject = json!({ "kind": "ServiceAccount", "name": self.account });
        set_namespace(&mut subject, self.namespace);
        subject
    }

    fn host_subject(&self) -> Value {
        match self.host {
            Host::Account(Account { namespace, name }) => {
                json!({ "kind": "ServiceAccount", "name": &**name, "namespace": &**namespace })
            }
            Host::User(name) => json!({ "apiGroup": GROUP, "kind": "User", "name": name }),
        }
    }
}

/// One resource at a time.
#[derive(Debug)]
struct Rule {
    group: String,
    resources: Vec<String>,
    /// In the order of [`OWN`].
    verbs: Vec<&'static str>,
}

#[derive(Debug, Default)]
struct Rules {
    namespaced: Vec<Rule>,
    cluster: Vec<Rule>,
    notes: Vec<String>,
}

impl Rules {
    fn of(manifest: &Manifest, kinds: &Kinds) -> Self {
        let (mut rules, mut written) = (Self::default(), Vec::new());
        for entry in &manifest.reconciles {
            let served = rules.add(kinds, &entry.kind, "", READ);
            if entry.cleanup {
                // Its finalizer is put on and taken off.
                rules.add(kinds, &entry.kind, "", &["patch"]);
            }
            if served.status {
                rules.add(kinds, &entry.kind, "/status", REPORT);
            }
        }
        for entry in &manifest.reconciles {
            for kind in &entry.owns {
                rules.add(kinds, kind, "", OWN);
            }
            for kind in &entry.reads {
                rules.add(kinds, kind, "", READ);
                if kind.is_secret() {
                    rules.note("Secrets can be given one by one: name them with `resourceNames`.".to_owned());
                }
            }
            for kind in &entry.writes {
                let plural = rules.add(kinds, kind, "", OWN).plural;
                if !written.contains(&plural) {
                    written.push(plural);
                }
            }
        }
        if !written.is_empty() {
            rules.note(format!(
                "Which verbs the plugin uses on what it writes, its manifest does not say: of create, patch and delete on {}, take \
                 away what it does not need.",
                written.join(" and ")
            ));
        }
        rules.add(kinds, &crate::event::kind(), "", &["create"]);
        rules
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn add(&mut self, kinds: &Kinds, kind: &Kind, part: &str, verbs: &[&'static str]) -> Served {
        let served = kinds.of(kind);
        if !served.known {
            self.note(format!(
                "That {kind} is namespaced and called `{}` is a guess: no CRD says so. Compare with `kubectl api-resources`.",
                served.plural
            ));
        }
        let place = if served.namespaced { &mut self.namespaced } else { &mut self.cluster };
        let (group, resource) = (kind.group.to_string(), format!("{}{part}", served.plural));
        match place.iter_mut().find(|rule| rule.group == group && rule.resources.contains(&resource)) {
            Some(rule) => rule.verbs = in_order(&rule.verbs, verbs),
            None => place.push(Rule { group, resources: vec![resource], verbs: in_order(&[], verbs) }),
        }
        served
    }
}

fn in_order(some: &[&str], more: &[&str]) -> Vec<&'static str> {
    OWN.iter().copied().filter(|verb| some.contains(verb) || more.contains(verb)).collect()
}

/// The rules as Kubernetes writes them, those of one group and the same verbs as one.
fn merged(rules: &[Rule]) -> Value {
    let mut all: Vec<Rule> = Vec::new();
    for Rule { group, resources, verbs } in rules {
        match all.iter_mut().find(|rule| rule.group == *group && rule.verbs == *verbs) {
            Some(rule) => rule.resources.extend(resources.iter().cloned()),
            None => all.push(Rule { group: group.clone(), resources: resources.clone(), verbs: verbs.clone() }),
        }
    }
    let rule = |rule: &Rule| json!({ "apiGroups": [rule.group], "resources": rule.resources, "verbs": rule.verbs });
    all.iter().map(rule).collect()
}

/// One rule for each resource, with all names.
fn by_name(source: &[Named]) -> Vec<Value> {
    let rule = |resource: &str| {
        let names: Vec<&str> = source.iter().filter(|named| named.resource == resource).map(|named| &*named.name).collect();
        let rule = json!({ "apiGroups": [""], "resources": [resource], "resourceNames": names, "verbs": ["get"] });
        (!names.is_empty()).then_some(rule)
    };
    ["configmaps", "secrets"].into_iter().filter_map(rule).collect()
}

const GROUP: &str = "rbac.authorization.k8s.io";
const API: &str = "rbac.authorization.k8s.io/v1";

/// `fields` are those beside identity.
fn object(api_version: &str, kind: &str, name: &str, namespace: Option<&str>, mut fields: Value) -> Value {
    let mut metadata = json!({ "name": name });
    set_namespace(&mut metadata, namespace);
    if let Some(fields) = fields.as_object_mut() {
        fields.insert("apiVersion".into(), api_version.into());
        fields.insert("kind".into(), kind.into());
        fields.insert("metadata".into(), metadata);
    }
    fields
}

fn set_namespace(fields: &mut Value, namespace: Option<&str>) {
    if let (Some(fields), Some(namespace)) = (fields.as_object_mut(), namespace) {
        fields.insert("namespace".into(), namespace.into());
    }
}

/// The binding of a role of this kind to somebody.
fn binding(role: &str, name: &str, namespace: Option<&str>, subject: &Value) -> Document {
    let fields = json!({ "roleRef": { "apiGroup": GROUP, "kind": role, "name": name }, "subjects": [subject] });
    Document { comment: Vec::new(), object: object(API, &format!("{role}Binding"), name, namespace, fields) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(reconciles: Value) -> Manifest {
        let manifest = json!({ "name": "shop", "version": "1.0.0", "reconciles": reconciles });
        Manifest::parse(manifest.to_string().as_bytes()).unwrap()
    }

    fn objects(manifest: &Manifest, namespace: Option<&str>, host: &Host) -> Result<Vec<Document>, String> {
        let kinds = Kinds::with_crds(&[]);
        documents(Wanted { manifest, kinds: &kinds, account: "shop", namespace, host, source: &[] })
    }

    #[test]
    fn what_the_source_takes_is_given_by_name() {
        let manifest = manifest(json!([{ "for": "v1/ConfigMap" }]));
        let named = |resource, name: &str| Named { resource, name: name.into() };
        let source = [named("secrets", "regcred"), named("configmaps", "shop"), named("secrets", "other")];
        let (kinds, host) = (Kinds::with_crds(&[]), host());
        let wanted =
            Wanted { manifest: &manifest, kinds: &kinds, account: "shop", namespace: None, host: &host, source: &source };
        let found = documents(wanted).unwrap();
        let rules = found[1].object["rules"].as_array().unwrap();
        assert_eq!(
            rules[rules.len() - 2..],
            [
                json!({ "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["shop"], "verbs": ["get"] }),
                json!({ "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["regcred", "other"], "verbs": ["get"] }),
            ]
        );
    }

    fn host() -> Host {
        Host::Account(Account::new("reef-system", "reef"))
    }

    /// `verbs on resources of group`, of the Role or ClusterRole at this place.
    fn rules(documents: &[Document], at: usize) -> Vec<String> {
        let words = |value: &Value| value.as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect::<Vec<_>>().join(",");
        let rules = documents[at].object["rules"].as_array().unwrap();
        rules
            .iter()
            .map(|rule| format!("{} {} {}", words(&rule["apiGroups"]), words(&rule["resources"]), words(&rule["verbs"])))
            .collect()
    }

    #[test]
    fn what_is_reconciled_owned_read_and_written_each_takes_its_verbs() {
        let manifest = manifest(json!([
            { "for": "apps/v1/Deployment", "owns": ["v1/ConfigMap", "v1/Service"], "reads": ["v1/Pod"] },
            { "for": "batch/v1/Job", "reads": ["apps/v1/Deployment"], "writes": ["v1/Pod"], "cleanup": true },
        ]));
        let found = objects(&manifest, None, &host()).unwrap();
        assert_eq!(
            rules(&found, 1),
            [
                "apps deployments get,list,watch",
                "apps deployments/status get,patch",
                "batch jobs get,list,watch,patch",
                "batch jobs/status get,patch",
                " configmaps,services,pods get,list,watch,create,patch,delete",
                "events.k8s.io events create",
            ]
        );
        assert!(found[1].comment[0].contains("create, patch and delete on pods, take away"), "{:?}", found[1].comment);
        let kinds: Vec<&str> = found.iter().map(|document| document.object["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["ServiceAccount", "Role", "RoleBinding", "Role", "RoleBinding"]);
        assert!(found.iter().all(|document| document.object["metadata"].get("namespace").is_none()));
    }

    #[test]
    fn the_account_is_lent_by_name_to_whoever_the_host_is() {
        let manifest = manifest(json!([{ "for": "v1/ConfigMap" }]));
        let found = objects(&manifest, Some("team-a"), &host()).unwrap();
        assert_eq!(
            found[3].object["rules"],
            json!([{ "apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": ["shop"], "verbs": ["create"] }])
        );
        assert_eq!(
            found[4].object["subjects"],
            json!([{ "kind": "ServiceAccount", "name": "reef", "namespace": "reef-system" }])
        );
        assert_eq!(found[2].object["subjects"], json!([{ "kind": "ServiceAccount", "name": "shop", "namespace": "team-a" }]));
        assert!(found.iter().all(|document| document.object["metadata"]["namespace"] == "team-a"));
        assert_eq!(rules(&found, 1)[0], " configmaps get,list,watch", "and no status, which it has not");
        let found = objects(&manifest, None, &Host::User("reef-host".into())).unwrap();
        assert_eq!(found[4].object["subjects"], json!([{ "apiGroup": GROUP, "kind": "User", "name": "reef-host" }]));
    }

    #[test]
    fn kinds_without_namespace_go_into_a_cluster_role_of_that_account() {
        let manifest = manifest(json!([{ "for": "v1/ConfigMap", "reads": ["v1/Node"], "writes": ["v1/Namespace"] }]));
        let refused = objects(&manifest, None, &host()).unwrap_err();
        assert!(refused.contains("(nodes, namespaces)") && refused.contains("-n"), "{refused}");
        let found = objects(&manifest, Some("team-a"), &host()).unwrap();
        assert_eq!(found[3].object["metadata"], json!({ "name": "reef:team-a:shop" }));
        assert_eq!(rules(&found, 3), [" nodes get,list,watch", " namespaces get,list,watch,create,patch,delete"]);
        assert_eq!(found[4].object["roleRef"]["name"], "reef:team-a:shop");
        assert_eq!(rules(&found, 1), [" configmaps get,list,watch", "events.k8s.io events create"]);
    }

    #[test]
    fn a_guess_is_said_and_so_is_that_secrets_can_be_named() {
        let manifest = manifest(json!([{ "for": "acme.dev/v1/Box", "reads": ["v1/Secret"] }]));
        let comment = objects(&manifest, None, &host()).unwrap()[1].comment.join("\n");
        assert!(comment.contains("acme.dev/v1/Box is namespaced and called `boxes` is a guess"), "{comment}");
        assert!(comment.contains("`resourceNames`"), "{comment}");
        assert_eq!(comment.matches("is a guess").count(), 1, "{comment}");
    }
}
