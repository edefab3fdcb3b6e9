//! The limits of one call: what they are, who counts, and what is said when one is reached.
//!
//! Memory and tables are counted by Wasmtime's limiter, time by [`Meter`]. It knows nothing of requests and plans.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use wasmtime::ResourceLimiter;

use super::{
    engine::{MAX_INSTANCES, MAX_MEMORIES, MAX_MEMORY, MAX_TABLE_ELEMENTS, MAX_TABLES},
    ticker::TICK,
};
use crate::names::{Memory, Span};

/// `spec.limits` of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All linear memory of one call. At most [`MAX_MEMORY`].
    pub memory: Memory,
    /// Time that the guest itself may run.
    pub cpu: Span,
    /// Wall time of the whole call, waiting for reads included.
    pub deadline: Span,
}

impl Default for Limits {
    fn default() -> Self {
        let (cpu, deadline) = (Span(Duration::from_millis(500)), Span(Duration::from_secs(10)));
        Self { memory: Memory(32 << 20), cpu, deadline }
    }
}

/// A limit that was reached, as an error that ends the guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    #[error("it ran longer than spec.limits.cpu = {0}; raise spec.limits.cpu or look for a loop that does not end")]
    Cpu(Span),
    #[error("it wanted {wanted} of memory, more than spec.limits.memory = {limit}; {}", memory_fix(*.limit))]
    Memory { wanted: Memory, limit: Memory },
    #[error("its memory did not grow to {wanted}: {why}; declare a larger maximum, or keep less in memory at once")]
    Growth { wanted: Memory, why: String },
    #[error(
        "it wanted a table of {wanted} elements, more than the {MAX_TABLE_ELEMENTS} that this host allows; keep data in memory, not in tables"
    )]
    Table { wanted: usize },
}

fn memory_fix(limit: Memory) -> String {
    if limit.0 >= MAX_MEMORY {
        format!("keep less in memory at once, since {} is the most that this host allows", Memory(MAX_MEMORY))
    } else {
        "raise spec.limits.memory or keep less in memory at once".to_owned()
    }
}

/// Counts the memory of one call.
pub struct Quota {
    limit: Memory,
    used: u64,
    wanted: u64,
    peak: u64,
}

impl Quota {
    pub fn new(limit: Memory) -> Self {
        Self { limit: Memory(limit.0.min(MAX_MEMORY)), used: 0, wanted: 0, peak: 0 }
    }

    pub fn peak(&self) -> Memory {
        Memory(self.peak)
    }
}

impl ResourceLimiter for Quota {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.used.saturating_sub(current as u64).saturating_add(desired as u64);
        if total > self.limit.0 {
            return Err(Exceeded::Memory { wanted: Memory(total), limit: self.limit }.into());
        }
        self.wanted = desired as u64;
        self.used = total;
        self.peak = self.peak.max(total);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(Exceeded::Growth { wanted: Memory(self.wanted), why: error.to_string() }.into())
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > MAX_TABLE_ELEMENTS {
            return Err(Exceeded::Table { wanted: desired }.into());
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        MAX_TABLES as usize
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES as usize
    }
}

/// Measures how long a guest runs: the time in which it was polled, but no more than the ticks that it saw, since a
/// machine that is short of processors must not count against it.
pub struct Meter {
    budget: Span,
    origin: Instant,
    /// Nanoseconds of polls that are over.
    spent: AtomicU64,
    /// When the current poll began, in nanoseconds since `origin`.
    entered: AtomicU64,
    ticks: AtomicU64,
}

impl Meter {
    pub fn new(budget: Span) -> Self {
        let (spent, entered, ticks) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Self { budget, origin: Instant::now(), spent, entered, ticks }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub fn enter(&self) {
        self.entered.store(self.now(), Relaxed);
    }

    pub fn leave(&self) {
        self.spent.fetch_add(self.now().saturating_sub(self.entered.load(Relaxed)), Relaxed);
    }

    /// A tick hit the guest: has it used up its budget?
    pub fn tick(&self) -> Result<(), Exceeded> {
        let ticks = self.ticks.fetch_add(1, Relaxed).saturating_add(1);
        let polled = self.spent.load(Relaxed).saturating_add(self.now().saturating_sub(self.entered.load(Relaxed)));
        let seen = TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX));
        if seen.min(Duration::from_nanos(polled)) > self.budget.0 { Err(Exceeded::Cpu(self.budget)) } else { Ok(()) }
    }

    /// How long the guest was polled, once it is over.
    pub fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent.load(Relaxed))
    }

    /// Wall time since the call began.
    pub fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_over_all_memories() {
        let mut quota = Quota::new(Memory(1 << 20));
        assert!(quota.memory_growing(0, 512 << 10, None).unwrap());
        assert!(quota.memory_growing(0, 256 << 10, None).unwrap());
        let error = quota.memory_growing(256 << 10, 768 << 10, None).unwrap_err();
        assert_eq!(
            error.downcast_ref::<Exceeded>(),
            Some(&Exceeded::Memory { wanted: Memory(1280 << 10), limit: Memory(1 << 20) })
        );
        assert_eq!(quota.peak(), Memory(768 << 10));
    }

    #[test]
    fn a_limit_says_its_field_and_value() {
        let text = Exceeded::Memory { wanted: Memory(48 << 20), limit: Memory(32 << 20) }.to_string();
        assert_eq!(
            text,
            "it wanted 48Mi of memory, more than spec.limits.memory = 32Mi; raise spec.limits.memory or keep less in memory at once"
        );
        let text = Exceeded::Memory { wanted: Memory(65 << 20), limit: Memory(MAX_MEMORY) }.to_string();
        assert!(text.contains("64Mi is the most"), "{text}");
    }

    #[test]
    fn waiting_costs_no_budget() {
        let meter = Meter::new(Span(Duration::from_millis(50)));
        meter.enter();
        meter.leave();
        std::thread::sleep(Duration::from_millis(60));
        meter.enter();
        assert_eq!(meter.tick(), Ok(()), "it was polled for much less than 50 ms");
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!(meter.tick(), Ok(()), "it saw two ticks only");
        for _ in 0..60 {
            let _ = meter.tick();
        }
        assert!(meter.tick().is_err());
    }
}
