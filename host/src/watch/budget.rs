//! How much the store may hold, over all scopes. A scope that grows beyond it is refused, and told when there is room again.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

use crate::names::Memory;

pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    /// Counts how often it shrank.
    freed: watch::Sender<u64>,
}

impl Budget {
    pub fn new(limit: Memory) -> Self {
        let limit = usize::try_from(limit.0).unwrap_or(usize::MAX);
        Self { limit, used: AtomicUsize::new(0), freed: watch::Sender::new(0) }
    }

    pub fn limit(&self) -> Memory {
        Memory(self.limit as u64)
    }

    /// A scope went from so many bytes to so many.
    pub fn charge(&self, before: usize, after: usize) {
        if after >= before {
            self.used.fetch_add(after - before, Ordering::AcqRel);
        } else {
            self.used.fetch_sub(before - after, Ordering::AcqRel);
            self.freed.send_modify(|times| *times = times.wrapping_add(1));
        }
    }

    pub fn is_exceeded(&self) -> bool {
        self.used.load(Ordering::Acquire) > self.limit
    }

    fn room(&self) -> usize {
        self.limit.saturating_sub(self.used.load(Ordering::Acquire))
    }

    /// Waits until so many bytes are free.
    pub async fn wait_for(&self, bytes: usize) {
        let mut freed = self.freed.subscribe();
        // The sender lives as long as this.
        let _ = freed.wait_for(|_| self.room() >= bytes).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_for_room_goes_on_when_there_is_enough() {
        let budget = Budget::new(Memory(100));
        budget.charge(0, 60);
        budget.charge(0, 41);
        assert!(budget.is_exceeded());
        budget.charge(41, 0);
        assert!(!budget.is_exceeded());
        let waiting = budget.wait_for(41);
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        budget.charge(60, 59);
        assert!(futures::poll!(&mut waiting).is_ready());
        budget.wait_for(41).await;
    }
}
