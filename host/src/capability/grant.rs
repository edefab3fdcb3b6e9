//! What a plugin may ask for: the single choke point in front of every read.
//!
//! Pure: manifest and namespace in, a sentence out. It knows neither Wasm nor Kubernetes; whether the ServiceAccount may
//! see the object is a question for whoever answers the read.

use std::sync::Arc;

use crate::{
    contract::manifest::Reconciles,
    names::{Kind, ObjectId, PluginId},
};

/// The words of one manifest entry, for one plugin in one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub plugin: PluginId,
    pub entry: Reconciles,
    /// Those of the entry's kinds that the API server serves without a namespace; all others have one.
    pub cluster_scoped: Vec<Kind>,
    /// Those that it does not serve (yet), so that nobody knows.
    pub unknown: Vec<Kind>,
}

impl Grant {
    /// Whether the guest may ask for this object; if not, a sentence that says what to change.
    pub fn read(&self, object: &ObjectId) -> Result<(), String> {
        self.kind(&object.kind)?;
        self.namespace(object)?;
        name(&object.name)
    }

    /// Whether the guest may list this kind, and where: the namespace, or all for a cluster-scoped kind, of which a namespace
    /// says nothing.
    pub fn list(&self, kind: &Kind, namespaces: &[String]) -> Result<Arc<str>, String> {
        self.kind(kind)?;
        if self.cluster_scoped.contains(kind) {
            return Ok("".into());
        }
        let own = &self.plugin.namespace;
        match namespaces.iter().find(|asked| **asked != **own) {
            None if !namespaces.is_empty() => Ok(own.clone()),
            None if self.unknown.contains(kind) => Ok("".into()),
            None => Err(format!(
                "plugin {} reads in its own namespace only: list {kind} in namespace `{own}`, not in all",
                self.plugin
            )),
            Some(asked) => {
                let shown: String = asked.chars().take(63).flat_map(char::escape_debug).collect();
                Err(format!(
                    "plugin {} reads in its own namespace only: list {kind} in namespace `{own}`, not `{shown}`",
                    self.plugin
                ))
            }
        }
    }

    fn kind(&self, kind: &Kind) -> Result<(), String> {
        if self.kinds().any(|named| named == kind) {
            return Ok(());
        }
        if let Some(named) = self.kinds().find(|named| named.same_group_kind(kind)) {
            let (version, ours) = (&kind.version, &named.version);
            return Err(format!(
                "the plugin's manifest names {named}, not {kind}: read it in version {ours}, or write version {version} in its `plugin!` line"
            ));
        }
        Err(format!("plugin does not say that it reads {kind}: add `reads: [\"{kind}\"]` to its `plugin!` line"))
    }

    fn kinds(&self) -> impl Iterator<Item = &Kind> {
        std::iter::once(&self.entry.kind).chain(&self.entry.owns).chain(&self.entry.reads)
    }

    fn namespace(&self, object: &ObjectId) -> Result<(), String> {
        let (kind, own, asked) = (&object.kind, &self.plugin.namespace, &object.namespace);
        match (self.cluster_scoped.contains(kind), asked.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => {
                Err(format!("{kind} is cluster-scoped: ask for `{}` with an empty namespace, not `{asked}`", object.name))
            }
            (false, true) if self.unknown.contains(kind) => Ok(()),
            (false, true) => {
                Err(format!("{kind} is namespaced: ask for `{}` in namespace `{own}`, not without one", object.name))
            }
            (false, false) if asked == own => Ok(()),
            (false, false) => Err(format!(
                "plugin {} reads in its own namespace only: ask for {kind} `{}` in namespace `{own}`, not `{asked}`",
                self.plugin, object.name
            )),
        }
    }
}

/// A name becomes part of a request's path: whatever could leave its segment is refused.
fn name(name: &str) -> Result<(), String> {
    let bad = name.is_empty()
        || name.len() > 253
        || name == "."
        || name == ".."
        || name.chars().any(|c| matches!(c, '/' | '%' | '?' | '#' | '\\') || c.is_control() || c.is_whitespace());
    if bad {
        let shown: String = name.chars().take(60).flat_map(char::escape_debug).collect();
        return Err(format!("`{shown}` is not the name of an object: use 1 to 253 characters without `/`, `%` and spaces"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant() -> Grant {
        let json = br#"{"for":"demo.reef.dev/v1/Hello","owns":["v1/ConfigMap"],"reads":["apps/v1/Deployment","v1/Namespace","late.dev/v1/Late"]}"#;
        Grant {
            plugin: PluginId::new("team-a", "hello"),
            entry: serde_json::from_slice(json).unwrap(),
            cluster_scoped: vec![Kind::new("", "v1", "Namespace")],
            unknown: vec![Kind::new("late.dev", "v1", "Late")],
        }
    }

    fn read(kind: &str, namespace: &str, name: &str) -> Result<(), String> {
        grant().read(&ObjectId::new(kind.parse().unwrap(), namespace, name))
    }

    #[test]
    fn what_the_manifest_names_may_be_read() {
        for kind in ["demo.reef.dev/v1/Hello", "v1/ConfigMap", "apps/v1/Deployment"] {
            assert_eq!(read(kind, "team-a", "a"), Ok(()));
        }
        assert_eq!(read("v1/Namespace", "", "team-a"), Ok(()));
    }

    /// Promises: S7
    /// Breaks it: a read by any kind.
    #[test]
    fn another_kind_is_refused_with_the_line_to_add() {
        let sentence = "plugin does not say that it reads v1/Secret: add `reads: [\"v1/Secret\"]` to its `plugin!` line";
        assert_eq!(read("v1/Secret", "team-a", "a"), Err(sentence.into()));
    }

    #[test]
    fn another_version_is_refused_with_the_one_that_is_named() {
        let sentence = read("apps/v1beta1/Deployment", "team-a", "a").unwrap_err();
        assert!(sentence.contains("read it in version v1,"), "{sentence}");
    }

    /// Promises: I5
    /// Breaks it: a read in any namespace.
    #[test]
    fn another_namespace_is_refused_with_the_own_one() {
        let sentence = read("v1/ConfigMap", "team-b", "a").unwrap_err();
        assert!(sentence.contains("in namespace `team-a`, not `team-b`"), "{sentence}");
        let sentence = read("v1/ConfigMap", "", "a").unwrap_err();
        assert!(sentence.contains("is namespaced"), "{sentence}");
        let sentence = read("v1/Namespace", "team-a", "a").unwrap_err();
        assert!(sentence.contains("empty namespace"), "{sentence}");
    }

    /// Promises: S7, I5
    /// Breaks it: a list of any kind or namespace.
    #[test]
    fn lists_are_of_named_kinds_and_of_the_own_namespace() {
        let list = |kind: &str, namespaces: &[&str]| {
            let namespaces: Vec<String> = namespaces.iter().map(|n| (*n).to_owned()).collect();
            grant().list(&kind.parse().unwrap(), &namespaces)
        };
        assert_eq!(list("v1/ConfigMap", &["team-a"]).as_deref(), Ok("team-a"));
        assert_eq!(list("v1/Namespace", &[]).as_deref(), Ok(""));
        assert_eq!(list("v1/Namespace", &["team-a"]).as_deref(), Ok(""), "whoever asks may not know that it has none");
        assert!(list("v1/Secret", &["team-a"]).unwrap_err().contains("add `reads: [\"v1/Secret\"]`"));
        for namespaces in [&[][..], &["team-b"], &["team-a", "team-b"], &[""]] {
            assert!(list("v1/ConfigMap", namespaces).unwrap_err().contains("in namespace `team-a`, not"), "{namespaces:?}");
        }
    }

    #[test]
    fn of_a_kind_that_nobody_serves_yet_nobody_knows_whether_it_has_a_namespace() {
        for namespace in ["", "team-a"] {
            assert_eq!(read("late.dev/v1/Late", namespace, "a"), Ok(()));
        }
        assert!(read("late.dev/v1/Late", "team-b", "a").is_err());
    }

    /// Promises: I5
    /// Breaks it: a name that is put into a path as it is.
    #[test]
    fn a_name_cannot_leave_its_path_segment() {
        for name in ["", ".", "..", "a/b", "../x", "a%2fb", "a?b", "a#b", "a b", "a\nb", &"x".repeat(254)] {
            assert!(read("v1/ConfigMap", "team-a", name).is_err(), "{name}");
        }
        assert_eq!(read("v1/ConfigMap", "team-a", "system:node.a-b_c"), Ok(()));
    }
}
