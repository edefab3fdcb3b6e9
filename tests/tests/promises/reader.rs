//! Puts the guest `reader` on a stage: a plugin that reads what its object says and says what it found.

use anyhow::Result;
use reef_tests::{
    host::{Host, message},
    world::Scene,
};
use serde_json::{Value, json};

use crate::probe::{self, PROBE};

/// Installs the plugin, with the rights that all test guests have and those to read ServiceAccounts, Secrets and the kinds that
/// come and go.
pub async fn install(scene: &Scene<'_>) -> Result<()> {
    may(scene, "ServiceAccounts", "\"\"", "serviceaccounts", "get, list, watch").await?;
    may(scene, "Secrets", "\"\"", "secrets", "get, list, watch").await?;
    may(scene, "Late", "late.reef.dev", "lates", "get, list, watch").await?;
    may(scene, "Gone", "gone.reef.dev", "gones", "get, list, watch").await?;
    probe::install_as(scene, "reader").await
}

/// Gives the account of `reader` these rights, and no others of this kind.
pub async fn may(scene: &Scene<'_>, kind: &str, group: &str, resource: &str, verbs: &str) -> Result<()> {
    let name = format!("reader-{}", kind.to_lowercase());
    let role = format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{ name: {name} }}\n\
         rules: [{{ apiGroups: [{group}], resources: [{resource}], verbs: [{verbs}] }}]\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{ name: {name} }}\n\
         roleRef: {{ apiGroup: rbac.authorization.k8s.io, kind: Role, name: {name} }}\n\
         subjects: [{{ kind: ServiceAccount, name: reader }}]\n"
    );
    scene.apply(&role).await
}

/// What a reader reads: a list, whatever answer it gets.
pub fn list(kind: &str, selector: &str) -> Value {
    json!({ "kind": kind, "selector": selector, "tolerant": true })
}

/// Waits until the reader's status says that it has found these.
pub async fn has_found(scene: &Scene<'_>, name: &str, found: &[&str]) -> Result<Value> {
    let says =
        |object: Option<&Value>| object.is_some_and(|o| o["status"]["found"] == json!(found) && o["status"]["error"] == "");
    scene.cluster().wait(PROBE, &scene.namespace, name, &format!("has found {found:?}"), says).await
}

/// Waits until the reader's status says that its read was refused with a sentence that has this part.
pub async fn was_refused(scene: &Scene<'_>, name: &str, part: &str) -> Result<Value> {
    let says = |object: Option<&Value>| object.and_then(|o| o["status"]["error"].as_str()).is_some_and(|e| e.contains(part));
    scene.cluster().wait(PROBE, &scene.namespace, name, &format!("was refused with `{part}`"), says).await
}

/// How many objects each of its reads has found so far, in the order of the log.
pub fn counts(host: &Host) -> Vec<String> {
    let lines = host.log();
    lines.iter().filter_map(|line| message(line).strip_prefix("found ").map(str::to_owned)).collect()
}

/// A CustomResourceDefinition in which anything goes.
pub fn definition(group: &str, kind: &str, versions: &[&str], served: &str) -> Value {
    let plural = format!("{}s", kind.to_lowercase());
    let schema = json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
    let version =
        |name: &&str| json!({ "name": name, "served": *name == served, "storage": *name == versions[0], "schema": schema });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}") },
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List") },
            "versions": versions.iter().map(version).collect::<Vec<_>>(),
        },
    })
}
