//! What keys have read, objects by name and lists by selector, and which of them a change concerns.
//!
//! A dependency on an object fires when the object appears, goes, or changes in what was kept of it; one on a list when an
//! object begins or ceases to match, or one that matches changes in what was kept. An event costs one look-up by name,
//! and one match for each selector that anybody has listed its kind with in its namespace.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    Entry, Reason, Scope,
    index::{Cause, Wake},
    raw,
    replica::Delta,
};
use crate::{
    contract::{Query, Read, Selector},
    names::{Cluster, Key, Kind, ObjectId},
};

#[derive(Default)]
pub struct Dependencies {
    objects: HashMap<Arc<ObjectId>, Readers>,
    lists: HashMap<Place, HashMap<Arc<Selector>, Readers>>,
    read: HashMap<Arc<Key>, Targets>,
}

/// Kind and namespace; empty: all.
type Place = (Kind, Arc<str>);

type Readers = HashMap<Arc<Key>, Kept>;

/// What one key has read.
#[derive(Default)]
struct Targets {
    objects: HashSet<Arc<ObjectId>>,
    lists: HashSet<(Place, Arc<Selector>)>,
}

/// What was kept of an object.
enum Kept {
    Whole,
    /// By each of these reads.
    Parts(Box<[Fields]>),
}

/// Paths that were kept.
type Fields = Vec<String>;

impl Kept {
    fn nothing() -> Self {
        Self::Parts(Box::default())
    }

    fn add(&mut self, fields: &Fields) {
        match self {
            Self::Whole => {}
            _ if fields.is_empty() => *self = Self::Whole,
            Self::Parts(parts) if parts.contains(fields) => {}
            Self::Parts(parts) => *parts = parts.iter().chain([fields]).cloned().collect(),
        }
    }
}

impl Dependencies {
    pub fn add(&mut self, key: &Key, read: &Read) {
        let (key, targets) = targets(&mut self.read, key);
        let object = match self.objects.get_key_value(&read.object) {
            Some((object, _)) => Arc::clone(object),
            None => Arc::new(read.object.clone()),
        };
        let readers = self.objects.entry(Arc::clone(&object)).or_default();
        readers.entry(key).or_insert_with(Kept::nothing).add(&read.fields);
        targets.objects.insert(object);
    }

    pub fn add_list(&mut self, key: &Key, query: &Query) {
        let (key, targets) = targets(&mut self.read, key);
        let place = (query.kind.clone(), Arc::clone(&query.namespace));
        let selectors = self.lists.entry(place.clone()).or_default();
        let selector = match selectors.get_key_value(&query.selector) {
            Some((selector, _)) => Arc::clone(selector),
            None => Arc::new(query.selector.clone()),
        };
        let readers = selectors.entry(Arc::clone(&selector)).or_default();
        readers.entry(key).or_insert_with(Kept::nothing).add(&query.fields);
        targets.lists.insert((place, selector));
    }

    pub fn set(&mut self, key: &Key, reads: &[Read], lists: &[Query]) {
        self.forget(key);
        reads.iter().for_each(|read| self.add(key, read));
        lists.iter().for_each(|query| self.add_list(key, query));
    }

    fn forget(&mut self, key: &Key) {
        let Some(targets) = self.read.remove(key) else { return };
        for object in targets.objects {
            remove(&mut self.objects, &object, key);
        }
        for (place, selector) in targets.lists {
            let Some(selectors) = self.lists.get_mut(&place) else { continue };
            remove(selectors, &selector, key);
            if selectors.is_empty() {
                self.lists.remove(&place);
            }
        }
    }

    pub fn wakes(&self, cluster: &Cluster, delta: &Delta) -> Vec<Wake> {
        let Delta::Changed { old, new, .. } = delta else { return Vec::new() };
        let (Some(cause), Some(reason)) = (delta.cause(), delta.reason(Reason::Dependency)) else { return Vec::new() };
        let mut differs = Differs { old: old.as_deref(), new: new.as_deref(), known: HashMap::new() };
        let mut woken: HashSet<&Arc<Key>> = HashSet::new();
        if let Some(readers) = self.objects.get(&cause.object) {
            woken.extend(readers.iter().filter(|(_, kept)| differs.at(kept)).map(|(key, _)| key));
        }
        for (selector, readers) in self.selectors(&cause.object) {
            match (matches(selector, differs.old), matches(selector, differs.new)) {
                (false, false) => {}
                (true, true) => woken.extend(readers.iter().filter(|(_, kept)| differs.at(kept)).map(|(key, _)| key)),
                (true, false) | (false, true) => woken.extend(readers.keys()),
            }
        }
        let woken = woken.into_iter().filter(|key| key.cluster == *cluster && delta.author() != Some(key));
        woken.map(|key| Wake { key: Key::clone(key), reason, cause: Cause::clone(&cause) }).collect()
    }

    /// Everybody who has listed a place that this object is in.
    fn selectors(&self, object: &ObjectId) -> impl Iterator<Item = (&Arc<Selector>, &Readers)> {
        let mut places = vec![(object.kind.clone(), Arc::clone(&object.namespace))];
        if !object.namespace.is_empty() {
            places.push((object.kind.clone(), "".into()));
        }
        places.into_iter().filter(|_| !self.lists.is_empty()).filter_map(|place| self.lists.get(&place)).flatten()
    }

    /// Keys that have read anything in a scope.
    pub fn readers_in(&self, scope: &Scope) -> Vec<Key> {
        let objects = self.objects.iter().filter(|(object, _)| scope.holds(object)).flat_map(|(_, readers)| readers.keys());
        let listed = |(kind, namespace): &Place| {
            *kind == scope.kind && (scope.namespace.is_empty() || namespace.is_empty() || *namespace == scope.namespace)
        };
        let lists = self.lists.iter().filter(|(place, _)| listed(place)).flat_map(|(_, selectors)| selectors.values());
        let keys: HashSet<&Arc<Key>> = objects.chain(lists.flat_map(HashMap::keys)).collect();
        keys.into_iter().filter(|key| key.cluster == scope.cluster).map(|key| Key::clone(key)).collect()
    }
}

/// One copy of the key, however much it reads.
fn targets<'a>(read: &'a mut HashMap<Arc<Key>, Targets>, key: &Key) -> (Arc<Key>, &'a mut Targets) {
    let shared = match read.get_key_value(key) {
        Some((key, _)) => Arc::clone(key),
        None => Arc::new(key.clone()),
    };
    (Arc::clone(&shared), read.entry(shared).or_default())
}

fn remove<T: Eq + std::hash::Hash>(readers: &mut HashMap<Arc<T>, Readers>, target: &T, key: &Key) {
    if let Some(of) = readers.get_mut(target) {
        of.remove(key);
        if of.is_empty() {
            readers.remove(target);
        }
    }
}

fn matches(selector: &Selector, entry: Option<&Entry>) -> bool {
    entry.is_some_and(|entry| selector.matches(|label| entry.label(label)))
}

/// Whether what was kept differs; found out once however many keys kept the same.
struct Differs<'a> {
    old: Option<&'a Entry>,
    new: Option<&'a Entry>,
    known: HashMap<&'a Fields, bool>,
}

impl<'a> Differs<'a> {
    fn at(&mut self, kept: &'a Kept) -> bool {
        match (self.old, self.new, kept) {
            (Some(old), Some(new), Kept::Parts(parts)) if old.uid == new.uid => parts
                .iter()
                .any(|fields| *self.known.entry(fields).or_insert_with(|| !raw::same_at(fields, &old.bytes, &new.bytes))),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests;
