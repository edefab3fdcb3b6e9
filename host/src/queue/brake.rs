//! The brake: keys that write again and again run ever more seldom, and are named.
//!
//! Each key may write in bursts and steadily at a lower rate; what it may is counted in credit. A key that writes what it
//! has written a moment ago is in a loop: it changes its mind to and fro, or somebody undoes it. That costs more, and ends
//! in longer delays, than writing something new each time, which may well be progress. Only keys that wrote within the last
//! minutes are remembered, by a hash of the key: two keys of one hash would share a brake, which harms neither for long.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use super::backoff::doubled;
use crate::names::{Key, PluginId};

/// What a key may spend at once: so many new writes in a row, or a fifth as many repeated ones.
const BURST: f64 = 100.0;
/// What a write costs that says something new.
const NEW: f64 = 1.0;
/// What a write costs that says what one of the last few said.
const REPEATED: f64 = 5.0;
/// Credit that comes back each second.
const REGAINED: f64 = 2.5;
/// How many different outputs are compared: a turn through so many is seen as one.
const REMEMBERED: usize = 4;
/// The first delay. It doubles with each further run, up to one of the two bounds.
const FIRST: Duration = Duration::from_secs(1);
const MOST_NEW: Duration = Duration::from_secs(10);
const MOST_REPEATED: Duration = Duration::from_secs(120);
/// From this delay on a key is named: a shorter one passes before anybody has read of it.
const NAMED: Duration = Duration::from_secs(4);
/// A timer that a plugin sets itself, if shorter than this, counts as a write.
pub const HURRY: Duration = Duration::from_secs(1);

/// What a key is slowed down for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It writes what it has written before: it changes its mind to and fro, or somebody undoes what it writes.
    Repeats,
    /// It writes something new each time, or sets itself a timer that fires at once.
    Busy,
}

/// A key that runs more seldom than it is woken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Braked {
    pub key: Key,
    pub why: Why,
    /// Between two runs.
    pub delay: Duration,
}

#[derive(Debug)]
struct Pace {
    last: Instant,
    credit: f64,
    /// Runs in a row without credit.
    level: u16,
    why: Why,
    outputs: [u64; REMEMBERED],
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { last: now, credit: BURST, level: 0, why: Why::Busy, outputs: [0; REMEMBERED] }
    }

    fn delay(&self) -> Duration {
        let most = match self.why {
            Why::Repeats => MOST_REPEATED,
            Why::Busy => MOST_NEW,
        };
        if self.level == 0 { Duration::ZERO } else { doubled(FIRST, self.level - 1).min(most) }
    }

    /// In a loop the next run comes as soon as the delay has passed; who let pass twice the time is in none.
    fn is_cool(&self, now: Instant) -> bool {
        let idle = now.saturating_duration_since(self.last);
        if self.level == 0 { self.credit + regained(idle) >= BURST } else { idle > self.delay() * 2 }
    }

    fn ran(&mut self, output: Option<u64>, now: Instant) {
        if self.is_cool(now) {
            // What was written before the pause is still known: a fight does not become news by one.
            *self = Self { outputs: self.outputs, ..Self::new(now) };
        }
        let repeated = output.is_some_and(|output| self.outputs.contains(&output));
        if let Some(output) = output {
            self.outputs.rotate_right(1);
            if let Some(first) = self.outputs.first_mut() {
                *first = output;
            }
        }
        let (why, cost) = if repeated { (Why::Repeats, REPEATED) } else { (Why::Busy, NEW) };
        let idle = now.saturating_duration_since(self.last);
        (self.last, self.why) = (now, why);
        if self.level == 0 {
            self.credit = (self.credit + regained(idle)).min(BURST) - cost;
        }
        if self.credit < 0.0 {
            self.level = self.level.saturating_add(1);
        }
    }
}

fn regained(idle: Duration) -> f64 {
    idle.as_secs_f64() * REGAINED
}

/// All keys that wrote a short while ago.
#[derive(Debug, Default)]
pub(super) struct Brakes {
    paces: HashMap<u64, Pace>,
    /// When to look whether a key may be forgotten, in order.
    forget: VecDeque<(Instant, u64)>,
    named: HashMap<u64, Key>,
}

impl Brakes {
    /// A run that wrote has ended: what it wrote, as a hash; or one that set itself a short timer. True: the key is slowed
    /// down from now on so that people should know.
    pub(super) fn ran(&mut self, hash: u64, key: impl FnOnce() -> Key, output: Option<u64>, now: Instant) -> bool {
        self.forget(now);
        let forget = &mut self.forget;
        let pace = self.paces.entry(hash).or_insert_with(|| {
            forget.push_back((now + MOST_REPEATED, hash));
            Pace::new(now)
        });
        pace.ran(output, now);
        if pace.delay() >= NAMED {
            let fresh = !self.named.contains_key(&hash);
            if fresh {
                self.named.insert(hash, key());
            }
            return fresh;
        }
        self.named.remove(&hash);
        false
    }

    /// Until when a key may not run, if that is not over.
    pub(super) fn until(&self, hash: u64, now: Instant) -> Option<Instant> {
        let pace = self.paces.get(&hash).filter(|pace| pace.level > 0)?;
        Some(pace.last + pace.delay()).filter(|until| *until > now)
    }

    pub(super) fn named(&self, plugin: &PluginId, now: Instant) -> Vec<Braked> {
        let mine = self.named.iter().filter(|(_, key)| key.plugin == *plugin);
        let braked = mine.filter_map(|(hash, key)| {
            let pace = self.paces.get(hash).filter(|pace| !pace.is_cool(now))?;
            Some(Braked { key: key.clone(), why: pace.why, delay: pace.delay() })
        });
        let mut braked: Vec<Braked> = braked.collect();
        braked.sort_by(|a, b| a.key.cmp(&b.key));
        braked
    }

    pub(super) fn close(&mut self, plugin: &PluginId) {
        self.named.retain(|_, key| key.plugin != *plugin);
    }

    /// How many keys are remembered.
    pub(super) fn len(&self) -> usize {
        self.paces.len()
    }

    /// Two at a time, so that it keeps up with what comes and never takes long.
    fn forget(&mut self, now: Instant) {
        for _ in 0..2 {
            let Some((_, hash)) = self.forget.pop_front_if(|(at, _)| *at <= now) else { return };
            if self.paces.get(&hash).is_some_and(|pace| !pace.is_cool(now)) {
                self.forget.push_back((now + MOST_REPEATED, hash));
            } else {
                self.paces.remove(&hash);
                self.named.remove(&hash);
            }
        }
    }
}
