//! Puts the guest `writer` on a stage, which writes by every verb; and gives accounts further rights.

use anyhow::Result;
use reef_tests::world::Scene;

use crate::probe;

/// What `writer` needs beside what `probe` does.
pub const FURTHER: &str =
    "[{ apiGroups: [\"\"], resources: [secrets, limitranges], verbs: [get, list, watch, create, patch, delete] }]";

/// Installs `writer` in the scene's namespace.
pub async fn install(scene: &Scene<'_>) -> Result<()> {
    may(scene, "writer", "further", FURTHER).await?;
    probe::install_as(scene, "writer").await
}

/// Gives an account a role with these rules, or others instead of those that it had by this name.
pub async fn may(scene: &Scene<'_>, account: &str, role: &str, rules: &str) -> Result<()> {
    let group = "rbac.authorization.k8s.io";
    scene
        .apply(&format!(
            "apiVersion: {group}/v1\nkind: Role\nmetadata: {{ name: {role} }}\nrules: {rules}\n---\n\
             apiVersion: {group}/v1\nkind: RoleBinding\nmetadata: {{ name: {role} }}\n\
             roleRef: {{ apiGroup: {group}, kind: Role, name: {role} }}\nsubjects: [{{ kind: ServiceAccount, name: {account} }}]\n"
        ))
        .await
}
