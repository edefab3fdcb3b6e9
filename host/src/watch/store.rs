//! The objects of one scope: by namespace and name, and by the uid of their owners. A plain container; what may
//! enter it and what that means is `replica`'s business.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::Entry;

#[derive(Default)]
pub struct Store {
    objects: HashMap<Arc<str>, HashMap<Arc<str>, Slot>>,
    children: HashMap<Arc<str>, HashSet<Place>>,
    count: usize,
    bytes: usize,
}

/// Namespace and name.
pub type Place = (Arc<str>, Arc<str>);

struct Slot {
    entry: Arc<Entry>,
    /// The round of listing that saw it last.
    seen: u32,
}

pub fn place(entry: &Entry) -> Place {
    (Arc::clone(&entry.id.namespace), Arc::clone(&entry.id.name))
}

impl Store {
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Entry>> {
        Some(&self.objects.get(namespace)?.get(name)?.entry)
    }

    /// Puts an entry in the place of the one of its name, which comes back, and whose mark it inherits.
    pub fn put(&mut self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        let place = place(&entry);
        let seen = self.slot(&place).map_or(0, |slot| slot.seen);
        self.bytes += entry.weight();
        let names = self.objects.entry(Arc::clone(&place.0)).or_default();
        let old = names.insert(Arc::clone(&place.1), Slot { entry: Arc::clone(&entry), seen }).map(|slot| slot.entry);
        match &old {
            Some(old) => self.bytes -= old.weight(),
            None => self.count += 1,
        }
        self.reparent(&place, old.as_deref(), Some(&entry));
        old
    }

    pub fn remove(&mut self, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        let names = self.objects.get_mut(namespace)?;
        let old = names.remove(name)?.entry;
        if names.is_empty() {
            self.objects.remove(namespace);
        }
        self.count -= 1;
        self.bytes -= old.weight();
        self.reparent(&place(&old), Some(&old), None);
        Some(old)
    }

    fn reparent(&mut self, place: &Place, old: Option<&Entry>, new: Option<&Entry>) {
        let owners = |entry: Option<&Entry>| entry.map(|e| e.owners.clone()).unwrap_or_default();
        let (old, new) = (owners(old), owners(new));
        for gone in old.iter().filter(|o| !new.iter().any(|n| n.uid == o.uid)) {
            if let Some(children) = self.children.get_mut(&gone.uid) {
                children.remove(place);
                if children.is_empty() {
                    self.children.remove(&gone.uid);
                }
            }
        }
        for come in new.iter().filter(|n| !old.iter().any(|o| o.uid == n.uid)) {
            self.children.entry(Arc::clone(&come.uid)).or_default().insert(place.clone());
        }
    }

    pub fn owned_by(&self, uid: &str) -> Vec<Arc<Entry>> {
        let places = self.children.get(uid).into_iter().flatten();
        places.filter_map(|(namespace, name)| self.get(namespace, name).cloned()).collect()
    }

    /// Notes that a round of listing has seen the object of this name.
    pub fn mark(&mut self, namespace: &str, name: &str, round: u32) {
        if let Some(slot) = self.objects.get_mut(namespace).and_then(|names| names.get_mut(name)) {
            slot.seen = round;
        }
    }

    /// Whatever a round of listing at `version` should have seen and has not.
    pub fn unseen(&self, round: u32, version: u64) -> Vec<Arc<Entry>> {
        let slots = self.objects.values().flat_map(HashMap::values);
        slots.filter(|s| s.seen != round && s.entry.resource_version <= version).map(|s| Arc::clone(&s.entry)).collect()
    }

    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.objects.values().flat_map(HashMap::values).map(|slot| &slot.entry)
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// What all of it costs in memory, as [`Entry::weight`] counts.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn slot(&self, place: &Place) -> Option<&Slot> {
        self.objects.get(&place.0)?.get(&place.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, version: u64, owners: &[&str]) -> Arc<Entry> {
        let owners: Vec<_> =
            owners.iter().map(|uid| serde_json::json!({ "apiVersion": "v1", "kind": "Pod", "name": uid, "uid": uid })).collect();
        let meta = serde_json::json!({ "name": name, "namespace": "a", "uid": name, "resourceVersion": version.to_string(), "ownerReferences": owners });
        let object = serde_json::json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta });
        Arc::new(Entry::parse(object.to_string().as_bytes(), None).unwrap())
    }

    #[test]
    fn children_are_found_by_every_owner_that_they_have_now() {
        let mut store = Store::default();
        let names = |store: &Store, uid: &str| {
            let mut names: Vec<_> = store.owned_by(uid).iter().map(|e| e.id.name.to_string()).collect();
            names.sort();
            names
        };
        store.put(entry("x", 1, &["o", "p"]));
        store.put(entry("y", 2, &["o"]));
        assert_eq!(names(&store, "o"), ["x", "y"]);
        store.put(entry("x", 3, &["p", "q"]));
        assert_eq!(
            (names(&store, "o"), names(&store, "p"), names(&store, "q")),
            (vec!["y".into()], vec!["x".into()], vec!["x".into()])
        );
        store.remove("a", "x");
        store.remove("a", "y");
        assert!(store.children.is_empty() && store.objects.is_empty());
    }

    #[test]
    fn amounts_follow_what_is_in_it() {
        let mut store = Store::default();
        let (small, large) = (entry("x", 1, &[]), entry("x", 22222, &[]));
        store.put(Arc::clone(&small));
        assert_eq!((store.len(), store.bytes()), (1, small.weight()));
        store.put(Arc::clone(&large));
        assert_eq!((store.len(), store.bytes()), (1, large.weight()));
        store.remove("a", "x");
        assert_eq!((store.len(), store.bytes()), (0, 0));
        assert!(store.remove("a", "x").is_none());
    }

    #[test]
    fn a_round_misses_what_it_has_not_seen_but_nothing_younger_than_itself() {
        let mut store = Store::default();
        for (name, version) in [("seen", 1), ("gone", 2), ("young", 9)] {
            store.put(entry(name, version, &[]));
        }
        store.mark("a", "seen", 7);
        let unseen = store.unseen(7, 5);
        assert_eq!(unseen.iter().map(|e| &*e.id.name).collect::<Vec<_>>(), ["gone"]);
    }
}
