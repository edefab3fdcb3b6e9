//! Where keys are while the queue knows them: one small slot each, in exactly one list, found by hash.
//!
//! A slot holds the namespace and the name, and numbers for plugin and kind; the key is put together when it is handed out.
//! Lists run through the slots themselves, so that a key leaves any of them at once and without a trace.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Instant,
};

use hashbrown::HashTable;

use super::Priority;
use crate::names::{Cluster, Kind, ObjectId, PluginId};

pub(super) type Number = u32;
/// No slot.
const NONE: Number = Number::MAX;

/// What a slot waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its turn; `at` is since when.
    Ready,
    /// A time, `at`; an event comes first.
    Delayed,
    /// A time, `at`; nothing comes first.
    Braked,
    /// The end of its run; `at` is since when it has to run again.
    Running,
}

#[derive(Debug)]
pub(super) struct Slot {
    namespace: Arc<str>,
    name: Arc<str>,
    pub at: Instant,
    pub plugin: Number,
    kind: Number,
    before: Number,
    behind: Number,
    pub failures: u16,
    pub state: State,
    /// Of the run that it waits for, or of the one that runs.
    pub priority: Priority,
    /// The run that it waits for, or the one that runs, was not caused by anything but a timer.
    pub by_timer: bool,
    /// Only while it runs: with which priority it has to run again.
    pub again: Option<Priority>,
}

/// A list of slots.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    first: Number,
    last: Number,
    pub len: usize,
}

impl Default for List {
    fn default() -> Self {
        Self { first: NONE, last: NONE, len: 0 }
    }
}

impl List {
    pub fn first(&self) -> Option<Number> {
        (self.first != NONE).then_some(self.first)
    }
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Option<Slot>>,
    free: Vec<Number>,
    table: HashTable<Number>,
    /// Not a fixed one: names come from tenants.
    hasher: RandomState,
    kinds: Vec<(Cluster, Kind)>,
}

impl Slots {
    pub fn get(&self, number: Number) -> Option<&Slot> {
        self.slots.get(number as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, number: Number) -> Option<&mut Slot> {
        self.slots.get_mut(number as usize)?.as_mut()
    }

    /// The slot of a plugin's object, if the queue knows it.
    pub fn find(&self, plugin: Number, cluster: &Cluster, object: &ObjectId) -> Option<Number> {
        let is = |number: &Number| {
            let slot = self.get(*number)?;
            let (slots_cluster, kind) = self.kinds.get(slot.kind as usize)?;
            let same = slot.plugin == plugin && slot.name == object.name && slot.namespace == object.namespace;
            (same && *kind == object.kind && slots_cluster == cluster).then_some(())
        };
        self.table.find(self.hash(plugin, &object.namespace, &object.name), |number| is(number).is_some()).copied()
    }

    /// A slot for an object that has none, in no list yet.
    pub fn insert(&mut self, plugin: Number, cluster: &Cluster, object: ObjectId, priority: Priority, now: Instant) -> Number {
        let hash = self.hash(plugin, &object.namespace, &object.name);
        let kind = self.kind(cluster, object.kind);
        let slot = Slot {
            namespace: object.namespace,
            name: object.name,
            at: now,
            plugin,
            kind,
            before: NONE,
            behind: NONE,
            failures: 0,
            state: State::Ready,
            priority,
            by_timer: false,
            again: None,
        };
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            Number::try_from(self.slots.len() - 1).unwrap_or(NONE)
        });
        if let Some(place) = self.slots.get_mut(number as usize) {
            *place = Some(slot);
        }
        let (slots, hasher) = (&self.slots, &self.hasher);
        let rehash = |number: &Number| {
            let slot = slots.get(*number as usize).and_then(Option::as_ref);
            slot.map_or(0, |slot| hasher.hash_one((slot.plugin, &*slot.namespace, &*slot.name)))
        };
        self.table.insert_unique(hash, number, rehash);
        number
    }

    /// Forgets a slot that is in no list.
    pub fn remove(&mut self, number: Number) {
        let Some(slot) = self.slots.get_mut(number as usize).and_then(Option::take) else { return };
        let hash = self.hash(slot.plugin, &slot.namespace, &slot.name);
        if let Ok(found) = self.table.find_entry(hash, |other| *other == number) {
            found.remove();
        }
        self.free.push(number);
        if self.table.is_empty() {
            // A burst that is over gives its memory back.
            (self.slots, self.free) = (Vec::new(), Vec::new());
            self.table.shrink_to_fit(|_| 0);
        }
    }

    pub fn object(&self, number: Number) -> Option<(Cluster, ObjectId)> {
        let slot = self.get(number)?;
        let (cluster, kind) = self.kinds.get(slot.kind as usize)?;
        let object = ObjectId { kind: kind.clone(), namespace: slot.namespace.clone(), name: slot.name.clone() };
        Some((cluster.clone(), object))
    }

    /// The next one in the list that this one is in.
    pub fn behind(&self, number: Number) -> Option<Number> {
        self.get(number).map(|slot| slot.behind).filter(|behind| *behind != NONE)
    }

    pub fn push(&mut self, list: &mut List, number: Number) {
        let last = list.last;
        if let Some(slot) = self.get_mut(number) {
            (slot.before, slot.behind) = (last, NONE);
        }
        match self.get_mut(last) {
            Some(slot) => slot.behind = number,
            None => list.first = number,
        }
        (list.last, list.len) = (number, list.len + 1);
    }

    /// `number` must be in `list`.
    pub fn unlink(&mut self, list: &mut List, number: Number) {
        let Some(slot) = self.get_mut(number) else { return };
        let (before, behind) = (slot.before, slot.behind);
        (slot.before, slot.behind) = (NONE, NONE);
        match self.get_mut(before) {
            Some(slot) => slot.behind = behind,
            None => list.first = behind,
        }
        match self.get_mut(behind) {
            Some(slot) => slot.before = before,
            None => list.last = before,
        }
        list.len -= 1;
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    fn hash(&self, plugin: Number, namespace: &str, name: &str) -> u64 {
        self.hasher.hash_one((plugin, namespace, name))
    }

    /// Of the whole key: the same as long as the queue lives, also when the plugin gets another number.
    pub fn lasting_hash(&self, plugin: &PluginId, number: Number) -> u64 {
        self.get(number).map_or(0, |slot| self.hasher.hash_one((plugin, slot.kind, &*slot.namespace, &*slot.name)))
    }

    /// Kinds are few and stay.
    fn kind(&mut self, cluster: &Cluster, kind: Kind) -> Number {
        let known = self.kinds.iter().position(|(c, k)| c == cluster && *k == kind);
        let number = known.unwrap_or_else(|| {
            self.kinds.push((cluster.clone(), kind));
            self.kinds.len() - 1
        });
        Number::try_from(number).unwrap_or(NONE)
    }
}
