//! Events that overtake the answer to the write that caused them. While a key writes an object, its wakes by events of
//! that object wait; what turns out to be the write's own echo is dropped, all else goes out when the write is over.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::{
    Waker,
    index::{Cause, State, Wake},
};
use crate::names::{Key, ObjectId};

pub struct Echoes {
    wake: Waker,
    open: Mutex<HashMap<(Key, ObjectId), Open>>,
}

#[derive(Default)]
struct Open {
    writes: usize,
    waiting: Vec<Wake>,
}

/// A write that is under way; see [`super::Hub::writing`].
#[must_use = "the announcement ends when this is dropped"]
pub struct Writing {
    echoes: Arc<Echoes>,
    key: (Key, ObjectId),
}

impl Echoes {
    pub fn new(wake: Waker) -> Arc<Self> {
        Arc::new(Self { wake, open: Mutex::default() })
    }

    pub fn writing(self: &Arc<Self>, by: &Key, object: &ObjectId) -> Writing {
        let key = (by.clone(), object.clone());
        self.open.lock().entry(key.clone()).or_default().writes += 1;
        Writing { echoes: Arc::clone(self), key }
    }

    /// Sends what need not wait.
    pub fn send(&self, wakes: Vec<Wake>) {
        let now: Vec<Wake> = {
            let mut open = self.open.lock();
            if open.is_empty() { wakes } else { wakes.into_iter().filter_map(|wake| keep(&mut open, wake)).collect() }
        };
        for wake in now {
            (self.wake)(wake.key, wake.reason);
        }
    }

    /// The answer of a write of `by` was this.
    pub fn answered(&self, by: &Key, object: &ObjectId, state: &State) {
        if let Some(open) = self.open.lock().get_mut(&(by.clone(), object.clone())) {
            open.waiting.retain(|wake| wake.cause.state != *state);
        }
    }

    fn end(&self, key: &(Key, ObjectId)) {
        let over = {
            let mut open = self.open.lock();
            let Some(write) = open.get_mut(key) else { return };
            write.writes -= 1;
            if write.writes > 0 { None } else { open.remove(key) }
        };
        for wake in over.into_iter().flat_map(|open| open.waiting) {
            (self.wake)(wake.key, wake.reason);
        }
    }
}

fn keep(open: &mut HashMap<(Key, ObjectId), Open>, wake: Wake) -> Option<Wake> {
    let Cause { object, .. } = &wake.cause;
    match open.get_mut(&(wake.key.clone(), object.clone())) {
        Some(write) => {
            write.waiting.push(wake);
            None
        }
        None => Some(wake),
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.echoes.end(&self.key);
    }
}
