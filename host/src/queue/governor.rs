//! The governor: a plugin whose requests an overloaded API server turns away makes fewer of them.
//!
//! It pauses for as long as the server says, or for a time that doubles; then half as many of its keys run at once, and one
//! more each second, up to all. Its keys stay where they are. One per plugin, and only while it is slowed down.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::backoff::{Jitter, doubled};

/// The first pause, where the server asks for none.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A server that asks for more is not taken at its word.
const LONGEST_ASKED: Duration = Duration::from_secs(120);
/// After so long one more key may run.
const STEP: Duration = Duration::from_secs(1);

/// What an API server said that has too much to do, or has other trouble than the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushback {
    /// How long it asks to be left alone.
    pub retry_after: Option<Duration>,
    pub said: Arc<str>,
}

/// How far a plugin is slowed down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slowed {
    /// How many of its keys may run at once now.
    pub limit: usize,
    /// No key runs for so long.
    pub pause: Duration,
    /// What the API server said last.
    pub said: Arc<str>,
}

#[derive(Debug)]
pub(super) struct Governor {
    /// How many may run when the pause is over.
    limit: usize,
    resume: Instant,
    /// Pushbacks in a row, those during a pause not counted.
    strikes: u16,
    said: Arc<str>,
}

impl Governor {
    /// The next pushback of a plugin; `before` is its governor so far.
    pub(super) fn pushed_back(
        before: Option<Self>,
        concurrency: usize,
        pushback: Pushback,
        jitter: &mut Jitter,
        now: Instant,
    ) -> Self {
        let asked = pushback.retry_after.map(|asked| asked.min(LONGEST_ASKED));
        let said = pushback.said;
        match before {
            // Others that were on their way when the first was turned away: one strike, not many.
            Some(before) if now < before.resume => {
                Self { resume: before.resume.max(now + asked.unwrap_or_default()), said, ..before }
            }
            before => {
                let strikes = before.as_ref().map_or(0, |before| before.strikes);
                let limit = before.map_or(concurrency, |before| before.limit_at(concurrency, now));
                let pause = asked.unwrap_or_else(|| doubled(PAUSE, strikes).min(LONGEST_PAUSE));
                // Never earlier than asked; plugins that were turned away together come back one by one.
                let resume = now + pause.mul_f64(jitter.within(1.0, 1.2));
                Self { limit: (limit / 2).max(1), resume, strikes: strikes.saturating_add(1), said }
            }
        }
    }

    /// A run went through.
    pub(super) fn went_well(&mut self) {
        self.strikes = 0;
    }

    /// How many may run.
    pub(super) fn limit_at(&self, concurrency: usize, now: Instant) -> usize {
        match now.checked_duration_since(self.resume) {
            None => 0,
            Some(since) => {
                let steps = usize::try_from(since.as_secs() / STEP.as_secs()).unwrap_or(usize::MAX);
                self.limit.saturating_add(steps).min(concurrency)
            }
        }
    }

    /// All may run again, and nothing was turned away for a while.
    pub(super) fn is_over(&self, concurrency: usize, now: Instant) -> bool {
        now >= self.resume + STEP && self.limit_at(concurrency, now) >= concurrency
    }

    /// When one more may run.
    pub(super) fn next_step(&self, now: Instant) -> Instant {
        match now.checked_duration_since(self.resume) {
            None => self.resume,
            Some(since) => now + STEP - Duration::from_nanos(since.subsec_nanos().into()),
        }
    }

    pub(super) fn slowed(&self, concurrency: usize, now: Instant) -> Slowed {
        let pause = self.resume.saturating_duration_since(now);
        // Without the pause: how many it will be.
        let limit = self.limit_at(concurrency, now.max(self.resume));
        Slowed { limit, pause, said: self.said.clone() }
    }
}
