//! Our copy of one scope, and the rules by which lists, events and our own writes change it. No I/O, no clock.
//!
//! It never goes back: of two states of an object the one with the higher resourceVersion stays, what was deleted
//! stays deleted, and an incomplete list removes nothing. Every change comes out as a [`Delta`].

mod dead;
mod own;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use self::{dead::Dead, own::OwnWrites};
use super::{
    Entry,
    protocol::{Event, Page, Quarantined},
    store::{Place, Store, place},
};
use crate::names::{Key, ObjectId};

/// More than this many missing objects, and more than one in so many, are not believed at once.
const MASS: (usize, usize) = (10, 5);

#[derive(Default)]
pub struct Replica {
    store: Store,
    /// Up to where the server has told us everything; zero before the first list.
    at: u64,
    /// Nothing is read before the first complete list, and nothing after this is set.
    complete: bool,
    must_list: bool,
    listing: Option<Listing>,
    round: u32,
    /// What the last list did not show, when that was too much to believe it: it is gone if the next one says so too.
    doubted: HashSet<Arc<str>>,
    own: OwnWrites,
    dead: Dead,
    quarantine: HashMap<Place, Aside>,
}

struct Listing {
    version: Option<u64>,
    /// An answer older than this comes from a server that lags behind.
    floor: u64,
}

struct Aside {
    why: String,
    round: u32,
}

/// One change of the copy.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    Changed {
        old: Option<Arc<Entry>>,
        new: Option<Arc<Entry>>,
        found: Found,
    },
    /// Somebody else's change was overtaken by a write of `by`, who therefore has not been woken for it yet.
    Overtaken {
        id: ObjectId,
        by: Key,
    },
}

/// How a change was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Before the first list was complete.
    First,
    Watch,
    Relist,
    OwnWrite(Key),
}

/// Why the stream or the list cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The server no longer knows where we were, or the stream cannot be trusted: only a list helps.
    #[error("the watch has to start over: {0}")]
    StartOver(String),
    /// The watch can be resumed where it was.
    #[error("the API server ended the watch: {code} {message}")]
    Ended { code: u16, message: String },
    #[error(
        "a list at resourceVersion {got} is older than what was seen before, {seen}; \
         if the cluster was restored from a backup, restart the host"
    )]
    Stale { got: u64, seen: u64 },
}

#[derive(Debug)]
pub enum Listed {
    Complete {
        first: bool,
        deltas: Vec<Delta>,
    },
    /// Too much is missing to believe it at once: list again.
    Doubtful {
        missing: usize,
    },
}

impl Replica {
    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn is_complete(&self) -> bool {
        self.complete
    }

    pub fn must_list(&self) -> bool {
        self.must_list || self.at == 0
    }

    /// Where a watch resumes.
    pub fn version(&self) -> u64 {
        self.at
    }

    /// Why an object that was sent is not in the store.
    pub fn quarantined(&self, namespace: &str, name: &str) -> Option<&str> {
        let aside = self.quarantine.iter().find(|((ns, n), _)| **ns == *namespace && **n == *name);
        aside.map(|(_, aside)| aside.why.as_str())
    }

    pub fn quarantine_len(&self) -> usize {
        self.quarantine.len()
    }

    /// One of those, if there are any: its name and why.
    pub fn any_quarantined(&self) -> Option<(&str, &str)> {
        self.quarantine.iter().next().map(|((_, name), aside)| (&**name, aside.why.as_str()))
    }

    pub fn start_over(&mut self) {
        self.must_list = true;
    }

    /// Gives up the copy. What comes next is a first list, though from no older state.
    pub fn clear(&mut self) {
        *self = Self { at: self.at, round: self.round, must_list: true, ..Self::default() };
    }

    pub fn begin_list(&mut self) {
        self.round = self.round.wrapping_add(1).max(1);
        self.listing = Some(Listing { version: None, floor: self.at });
    }

    pub fn page(&mut self, page: Page) -> Result<Vec<Delta>, Broken> {
        self.list_at(page.version)?;
        let deltas = page.items.into_iter().flat_map(|entry| self.shown(entry)).collect();
        page.quarantined.into_iter().for_each(|quarantined| self.set_aside(quarantined));
        Ok(deltas)
    }

    /// The state that the list shows. Pages continue the first one's; a later one would promise events that nobody has sent.
    pub fn list_at(&mut self, version: u64) -> Result<(), Broken> {
        match &mut self.listing {
            Some(Listing { floor, .. }) if version < *floor => Err(Broken::Stale { got: version, seen: *floor }),
            Some(listing) => {
                listing.version.get_or_insert(version);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// One object of a list, of a page or streamed.
    fn shown(&mut self, entry: Entry) -> Vec<Delta> {
        let found = if self.complete { Found::Relist } else { Found::First };
        let place = place(&entry);
        let deltas = self.present(Arc::new(entry), &found);
        self.store.mark(&place.0, &place.1, self.round);
        deltas
    }

    /// After the last page: what the list has not shown is gone.
    pub fn finish_list(&mut self) -> Listed {
        let version = self.listing.take().and_then(|listing| listing.version).unwrap_or_default();
        let missing = self.store.unseen(self.round, version);
        let news = missing.iter().filter(|entry| !self.doubted.contains(&entry.uid)).count();
        if self.complete && news > MASS.0 && news * MASS.1 > self.store.len() {
            self.doubted = missing.iter().map(|entry| Arc::clone(&entry.uid)).collect();
            return Listed::Doubtful { missing: missing.len() };
        }
        let first = !self.complete;
        let found = if first { Found::First } else { Found::Relist };
        let mut deltas: Vec<Delta> = missing.iter().filter_map(|entry| self.take(entry, &found)).collect();
        (self.complete, self.must_list) = (true, false);
        self.doubted.clear();
        self.at = self.at.max(version);
        self.quarantine.retain(|_, aside| aside.round == self.round);
        deltas.extend(self.unheard(version));
        Listed::Complete { first, deltas }
    }

    /// Own writes whose events fell into the gap before a list: nobody can say any more what happened in between.
    fn unheard(&mut self, version: u64) -> Vec<Delta> {
        let passed = self.own.take_up_to(version).into_iter();
        let entry = |place: &Place| self.store.get(&place.0, &place.1);
        passed.filter_map(|(place, by)| Some(Delta::Overtaken { id: entry(&place)?.id.clone(), by })).collect()
    }

    pub fn event(&mut self, event: Event) -> Result<Vec<Delta>, Broken> {
        let version = match &event {
            Event::Present(entry) | Event::Gone(entry) => entry.resource_version,
            Event::Bookmark(version) | Event::Listed(version) => *version,
            Event::Quarantined(_) | Event::Error { .. } => 0,
        };
        let late = version < self.at;
        let deltas = match event {
            // A streaming list shows what is there: that is no history.
            Event::Present(entry) if self.listing.is_some() => return Ok(self.shown(entry)),
            Event::Present(entry) => self.present(Arc::new(entry), &Found::Watch),
            Event::Gone(entry) => self.gone(&entry).into_iter().collect(),
            Event::Bookmark(_) | Event::Listed(_) => Vec::new(),
            Event::Quarantined(quarantined) => {
                self.set_aside(quarantined);
                return Ok(Vec::new());
            }
            Event::Error { code: 410, message } => {
                self.must_list = true;
                return Err(Broken::StartOver(message));
            }
            Event::Error { code, message } => return Err(Broken::Ended { code, message }),
        };
        // A late event that still changes something was missed when it was due: others may be missing as well.
        self.must_list |= late && !deltas.is_empty();
        self.at = self.at.max(version);
        Ok(deltas)
    }

    fn present(&mut self, entry: Arc<Entry>, found: &Found) -> Vec<Delta> {
        if self.dead.contains(&entry.uid) {
            return Vec::new();
        }
        let (place, version) = (place(&entry), entry.resource_version);
        let known = version <= self.at || self.own.contains(&place, version);
        let overtaken = if known { HashSet::new() } else { self.own.later(&place, version) };
        if *found == Found::Watch {
            self.own.heard(&place, version);
        }
        let old = self.store.get(&place.0, &place.1).cloned();
        match old {
            Some(old) if old.resource_version > version => {
                overtaken.into_iter().map(|by| Delta::Overtaken { id: entry.id.clone(), by }).collect()
            }
            Some(old) if old.resource_version == version => Vec::new(),
            old => {
                self.bury_former(old.as_ref(), &entry);
                self.quarantine.remove(&place);
                self.store.put(Arc::clone(&entry));
                vec![Delta::Changed { old, new: Some(entry), found: found.clone() }]
            }
        }
    }

    fn gone(&mut self, entry: &Entry) -> Option<Delta> {
        if self.dead.contains(&entry.uid) {
            return None;
        }
        self.dead.insert(&entry.uid);
        self.quarantine.remove(&place(entry));
        let held = self.store.get(&entry.id.namespace, &entry.id.name)?;
        // Of another uid, the younger one is there: what was deleted came before or after it.
        if held.uid != entry.uid && held.resource_version > entry.resource_version {
            return None;
        }
        let held = Arc::clone(held);
        self.take(&held, &Found::Watch)
    }

    fn take(&mut self, entry: &Arc<Entry>, found: &Found) -> Option<Delta> {
        self.own.forget(&place(entry));
        self.dead.insert(&entry.uid);
        let old = self.store.remove(&entry.id.namespace, &entry.id.name)?;
        Some(Delta::Changed { old: Some(old), new: None, found: found.clone() })
    }

    fn bury_former(&mut self, old: Option<&Arc<Entry>>, new: &Entry) {
        if let Some(old) = old.filter(|old| old.uid != new.uid) {
            self.dead.insert(&old.uid);
        }
    }

    fn set_aside(&mut self, quarantined: Quarantined) {
        let Quarantined { namespace, name, why } = quarantined;
        self.store.mark(&namespace, &name, self.round);
        self.quarantine.insert((namespace.into(), name.into()), Aside { why, round: self.round });
    }

    /// The answer to a write of ours.
    pub fn record(&mut self, entry: &Arc<Entry>, by: &Key) -> Option<Delta> {
        let (place, version) = (place(entry), entry.resource_version);
        if self.dead.contains(&entry.uid) {
            return None;
        }
        let heard = version <= self.at;
        if !heard {
            self.own.add(&place, version, by);
        }
        let old = self.store.get(&place.0, &place.1).cloned();
        let older = match &old {
            Some(old) => old.resource_version < version,
            // Everything up to `at` was told: had it not been deleted since, it would be here. An unfinished list has
            // not told everything, but will say at its end whether it is there.
            None => !heard || self.listing.is_some(),
        };
        older.then(|| {
            self.bury_former(old.as_ref(), entry);
            self.quarantine.remove(&place);
            self.store.put(Arc::clone(entry));
            let found = if self.complete { Found::OwnWrite(by.clone()) } else { Found::First };
            Delta::Changed { old, new: Some(Arc::clone(entry)), found }
        })
    }

    /// A final deletion of ours.
    pub fn record_deleted(&mut self, id: &ObjectId, uid: &str, by: &Key) -> Option<Delta> {
        self.dead.insert(uid);
        let held = self.store.get(&id.namespace, &id.name).filter(|held| *held.uid == *uid).cloned()?;
        let found = if self.complete { Found::OwnWrite(by.clone()) } else { Found::First };
        self.take(&held, &found)
    }
}

#[cfg(test)]
mod tests;
