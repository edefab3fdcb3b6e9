//! From a change to keys, by what the subscribers of its scope are interested in. By what keys have read: `dependencies`.

use std::{collections::HashSet, sync::Arc};

use super::{
    Entry, Interest, Reason, Role, Scope,
    replica::{Delta, Found},
};
use crate::names::{Key, ObjectId, PluginId};

/// On every child: the plugin that it belongs to.
const MARK: &str = "reef.dev/plugin";

/// A key to wake, and the event that says so.
#[derive(Debug, Clone, PartialEq)]
pub struct Wake {
    pub key: Key,
    pub reason: Reason,
    pub cause: Cause,
}

/// Which state of which object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    pub object: ObjectId,
    pub state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Version(u64),
    /// The object of this uid is gone.
    Gone(Arc<str>),
}

impl Delta {
    pub fn cause(&self) -> Option<Cause> {
        let Self::Changed { old, new, .. } = self else { return None };
        let state = match (new, old) {
            (Some(new), _) => Cause { object: new.id.clone(), state: State::Version(new.resource_version) },
            (None, Some(old)) => Cause { object: old.id.clone(), state: State::Gone(Arc::clone(&old.uid)) },
            (None, None) => return None,
        };
        Some(state)
    }

    /// Whose own write it is.
    pub fn author(&self) -> Option<&Key> {
        match self {
            Self::Changed { found: Found::OwnWrite(by), .. } => Some(by),
            _ => None,
        }
    }

    /// The reason for a wake by this, where `live` would be the one if it came from the watch. `None`: wakes nobody.
    pub fn reason(&self, live: Reason) -> Option<Reason> {
        match self {
            Self::Changed { found: Found::First, .. } => None,
            Self::Changed { found: Found::Relist, .. } => Some(Reason::Relist),
            _ => Some(live),
        }
    }
}

/// Keys that a change means something to, by a subscriber's interest.
pub fn wakes(scope: &Scope, interest: &Interest, delta: &Delta) -> Vec<Wake> {
    let Delta::Changed { old, new, .. } = delta else { return Vec::new() };
    let (Some(cause), sides) = (delta.cause(), (old.as_deref(), new.as_deref())) else { return Vec::new() };
    let (objects, live) = match &interest.role {
        Role::Primary => (vec![cause.object.clone()], Reason::Changed),
        Role::Owned { mark, .. } if is_foreign_business(sides, mark) => return Vec::new(),
        Role::Owned { by, .. } => {
            let owners = [sides.0, sides.1].into_iter().flatten().flat_map(|entry| &entry.owners);
            let names: HashSet<&Arc<str>> = owners.filter(|o| o.kind.same_group_kind(by)).map(|o| &o.name).collect();
            let owner = |name: &Arc<str>| ObjectId {
                kind: by.clone(),
                namespace: Arc::clone(&cause.object.namespace),
                name: Arc::clone(name),
            };
            (names.into_iter().map(owner).collect(), Reason::Child)
        }
        Role::Read | Role::Callback(_) => return Vec::new(),
    };
    let Some(reason) = delta.reason(live) else { return Vec::new() };
    let keys = objects.into_iter().map(|object| key(scope, &interest.plugin, object));
    keys.filter(|key| delta.author() != Some(key)).map(|key| Wake { key, reason, cause: cause.clone() }).collect()
}

/// The key that a primary's object is.
pub fn key(scope: &Scope, plugin: &PluginId, object: ObjectId) -> Key {
    Key { plugin: plugin.clone(), cluster: scope.cluster.clone(), object }
}

/// Another plugin's child before and after, and nothing that we might react to (mark, adoption) has changed.
fn is_foreign_business(sides: (Option<&Entry>, Option<&Entry>), mark: &str) -> bool {
    let (Some(old), Some(new)) = sides else { return false };
    let foreign = |entry: &Entry| entry.label(MARK).is_some_and(|label| label != mark);
    foreign(old) && foreign(new) && old.annotations == new.annotations && old.uid == new.uid
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::names::{Cluster, Kind};

    fn entry(name: &str, version: u64, extra: Value) -> Arc<Entry> {
        let mut meta =
            json!({ "name": name, "namespace": "a", "uid": format!("uid-{name}"), "resourceVersion": version.to_string() });
        for (field, value) in extra.as_object().unwrap() {
            meta[field] = value.clone();
        }
        let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": { "v": version.to_string(), "same": "x" } });
        Arc::new(Entry::parse(object.to_string().as_bytes(), None).unwrap())
    }

    fn owner(name: &str) -> Value {
        json!([{ "apiVersion": "demo.reef.dev/v1", "kind": "Hello", "name": name, "uid": format!("uid-{name}") }])
    }

    fn changed(old: Option<&Arc<Entry>>, new: Option<&Arc<Entry>>) -> Delta {
        Delta::Changed { old: old.cloned(), new: new.cloned(), found: Found::Watch }
    }

    fn scope() -> Scope {
        Scope::new(Cluster::local(), "v1/ConfigMap".parse().unwrap(), "a")
    }

    /// Owners are declared in v1; the plugin reconciles v2.
    fn owned() -> Interest {
        let by: Kind = "demo.reef.dev/v2/Hello".parse().unwrap();
        Interest { plugin: PluginId::new("a", "p"), role: Role::Owned { by, mark: "p".into() } }
    }

    fn woken(delta: &Delta) -> Vec<String> {
        let mut names: Vec<_> = wakes(&scope(), &owned(), delta).iter().map(|w| w.key.object.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_child_wakes_its_owner_whatever_the_version_of_the_reference() {
        let child = entry("c", 1, json!({ "ownerReferences": owner("h") }));
        assert_eq!(woken(&changed(None, Some(&child))), ["demo.reef.dev/v2/Hello a/h"]);
        assert_eq!(woken(&changed(Some(&child), None)), ["demo.reef.dev/v2/Hello a/h"]);
        let stray =
            entry("c", 1, json!({ "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "Hello", "name": "h", "uid": "u" }] }));
        assert!(woken(&changed(None, Some(&stray))).is_empty());
    }

    #[test]
    fn a_child_that_changes_hands_wakes_both_and_one_that_is_let_go_wakes_the_former_owner() {
        let (one, two, none) = (
            entry("c", 1, json!({ "ownerReferences": owner("one") })),
            entry("c", 2, json!({ "ownerReferences": owner("two") })),
            entry("c", 3, json!({})),
        );
        assert_eq!(woken(&changed(Some(&one), Some(&two))), ["demo.reef.dev/v2/Hello a/one", "demo.reef.dev/v2/Hello a/two"]);
        assert_eq!(woken(&changed(Some(&two), Some(&none))), ["demo.reef.dev/v2/Hello a/two"]);
    }

    #[test]
    fn losing_the_mark_wakes_and_so_does_a_foreign_object_with_our_reference() {
        let marked = entry("c", 1, json!({ "ownerReferences": owner("h"), "labels": { "reef.dev/plugin": "p" } }));
        let plain = entry("c", 2, json!({ "ownerReferences": owner("h") }));
        let others = entry("c", 3, json!({ "ownerReferences": owner("h"), "labels": { "reef.dev/plugin": "q" } }));
        for (old, new) in
            [(Some(&marked), &plain), (Some(&marked), &others), (Some(&others), &plain), (None, &others), (None, &plain)]
        {
            assert_eq!(woken(&changed(old, Some(new))).len(), 1);
        }
    }

    #[test]
    fn the_child_of_another_plugin_of_the_same_kind_is_its_own_business() {
        let mine = |version, extra: Value| {
            let mut meta = json!({ "ownerReferences": owner("h"), "labels": { "reef.dev/plugin": "q" } });
            meta.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            entry("c", version, meta)
        };
        let (old, new) = (mine(1, json!({})), mine(2, json!({})));
        assert!(woken(&changed(Some(&old), Some(&new))).is_empty());
        assert_eq!(woken(&changed(Some(&new), None)).len(), 1, "its name is free now");
        let adoptable = mine(3, json!({ "annotations": { "reef.dev/adopt": "p" } }));
        assert_eq!(woken(&changed(Some(&new), Some(&adoptable))).len(), 1);
    }

    #[test]
    fn an_own_child_does_not_wake_its_author_but_another_plugin() {
        let key =
            key(&scope(), &PluginId::new("a", "p"), ObjectId::new("demo.reef.dev/v1/Hello".parse().unwrap(), "a", "author"));
        let child = entry("c", 1, json!({ "ownerReferences": owner("author") }));
        let delta = Delta::Changed { old: None, new: Some(child), found: Found::OwnWrite(key) };
        let by: Kind = "demo.reef.dev/v1/Hello".parse().unwrap();
        let interest =
            |plugin| Interest { plugin: PluginId::new("a", plugin), role: Role::Owned { by: by.clone(), mark: "p".into() } };
        assert!(wakes(&scope(), &interest("p"), &delta).is_empty());
        assert_eq!(wakes(&scope(), &interest("q"), &delta).len(), 1);
    }
}
