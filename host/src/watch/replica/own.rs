//! Our own writes whose events are still to come: so their echoes are no news, and what they overtook is not lost.

use std::collections::{HashMap, HashSet};

use crate::{names::Key, watch::store::Place};

#[derive(Default)]
pub struct OwnWrites(HashMap<Place, Vec<Write>>);

struct Write {
    version: u64,
    by: Key,
}

impl OwnWrites {
    pub fn add(&mut self, place: &Place, version: u64, by: &Key) {
        self.0.entry(place.clone()).or_default().push(Write { version, by: by.clone() });
    }

    pub fn forget(&mut self, place: &Place) {
        self.0.remove(place);
    }

    /// Whether this version is one of them.
    pub fn contains(&self, place: &Place, version: u64) -> bool {
        self.0.get(place).is_some_and(|writes| writes.iter().any(|write| write.version == version))
    }

    /// Whose writes came after this version.
    pub fn later(&self, place: &Place, version: u64) -> HashSet<Key> {
        let writes = self.0.get(place).into_iter().flatten();
        writes.filter(|write| write.version > version).map(|write| write.by.clone()).collect()
    }

    /// The watch has told everything of this object up to a version.
    pub fn heard(&mut self, place: &Place, version: u64) {
        if let Some(writes) = self.0.get_mut(place) {
            writes.retain(|write| write.version > version);
            if writes.is_empty() {
                self.0.remove(place);
            }
        }
    }

    /// Takes out those up to a version, of all objects, with their authors.
    pub fn take_up_to(&mut self, version: u64) -> Vec<(Place, Key)> {
        let mut passed = Vec::new();
        for (place, writes) in &mut self.0 {
            passed.extend(writes.extract_if(.., |write| write.version <= version).map(|write| (place.clone(), write.by)));
        }
        self.0.retain(|_, writes| !writes.is_empty());
        passed
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
