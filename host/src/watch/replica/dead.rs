//! The uids that were deleted last, against events that come late or twice. A uid never comes back.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

/// How many are remembered.
pub const REMEMBERED: usize = 1024;

#[derive(Default)]
pub struct Dead {
    uids: HashSet<Arc<str>>,
    order: VecDeque<Arc<str>>,
}

impl Dead {
    pub fn contains(&self, uid: &str) -> bool {
        self.uids.contains(uid)
    }

    pub fn insert(&mut self, uid: &str) {
        let uid: Arc<str> = uid.into();
        if self.uids.insert(Arc::clone(&uid)) {
            self.order.push_back(uid);
            if self.order.len() > REMEMBERED {
                self.order.pop_front().map(|oldest| self.uids.remove(&oldest));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_are_remembered() {
        let mut dead = Dead::default();
        for n in 0..REMEMBERED + 5 {
            dead.insert(&n.to_string());
            dead.insert(&n.to_string());
        }
        assert_eq!((dead.uids.len(), dead.order.len()), (REMEMBERED, REMEMBERED));
        assert!(!dead.contains("4") && dead.contains("5"));
    }
}
