//! The work queue: which key runs next. A pure state machine; the clock is passed in.
//!
//! It owns deduplication, priorities, delays, backoff, the turn between plugins, the [`brake`] on keys that write again and
//! again, and the [`governor`] of plugins that an overloaded API server turns away. It knows keys, never what runs for them.
//!
//! A key takes 80 to 160 bytes while it waits for its turn, 120 to 200 while it waits for a time (`make bench` measures it;
//! the names are the hub's), and nothing when it is in order.
//!
//! ```
//! use std::time::Instant;
//! use reef::{names::*, queue::*};
//!
//! let now = Instant::now();
//! let kind = Kind::new("demo.reef.dev", "v1", "Hello");
//! let key = Key { plugin: PluginId::new("a", "hello"), cluster: Cluster::local(), object: ObjectId::new(kind, "a", "x") };
//! let mut queue = Queue::new(Backoff::default(), 1);
//! queue.open(key.plugin.clone(), 4);
//! queue.add(key.clone(), Priority::Edit, now);
//! queue.add(key.clone(), Priority::Edit, now); // the same key: still one run
//! let batch = queue.pop(now, usize::MAX).unwrap();
//! assert_eq!(batch.len(), 1);
//! queue.done(&key, Verdict::Done.into(), now);
//! assert!(queue.pop(now, usize::MAX).is_none());
//! ```

mod backoff;
mod brake;
mod governor;
mod plugins;
mod slots;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

pub use backoff::Backoff;
use backoff::Jitter;
use brake::Brakes;
pub use brake::{Braked, HURRY, Why};
use governor::Governor;
pub use governor::{Pushback, Slowed};
use plugins::Plugins;
use slots::{Number, Slots, State};

use crate::names::{Key, PluginId};

/// The most keys that one turn hands out.
pub const BATCH: usize = 32;
/// A timer of a run that came with a crowd fires at any time from this part of its length on; any other one when it is
/// over, or up to so much later, so that keys that came together part.
const CROWD: (f64, f64) = (0.1, 1.0);
const ALONE: (f64, f64) = (1.0, 1.1);

/// What runs first. Every fourth key of a plugin is the one that has waited longest, whatever its priority: so nothing
/// starves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// The object itself changed.
    Edit,
    /// Something that it owns or has read changed, or a timer fired.
    Dependency,
    /// First lists, relists and swaps: many keys, none urgent.
    Background,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// In order; nothing to do before something changes.
    Done,
    /// In order; run again after so long even if nothing changes.
    After(Duration),
    /// Failed: run again with backoff, or after so long. Counted.
    Retry(Option<Duration>),
    /// Something is not there yet: run again when it changes, at the latest after so long. Not counted.
    Wait(Duration),
    /// The run could not take place (a cache was not complete, leadership was gone): repeat it. Not counted, and the
    /// failures in a row stay as they are.
    Repeat(Duration),
    /// Useless to try before something changes.
    Terminal,
}

/// A run that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran {
    pub verdict: Verdict,
    /// If it wrote anything: a hash of what its plan says. Equal plans, equal hashes.
    pub wrote: Option<u64>,
}

impl From<Verdict> for Ran {
    /// A run that wrote nothing.
    fn from(verdict: Verdict) -> Self {
        Self { verdict, wrote: None }
    }
}

/// A key that was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub key: Key,
    pub priority: Priority,
    /// Failures in a row before this run; those of runs that an event caused are one with the failure before.
    pub failures: u32,
    /// Since when it could have run.
    pub ready_since: Instant,
}

/// How busy a plugin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load<'a> {
    pub plugin: &'a PluginId,
    /// Keys that wait for their turn.
    pub waiting: usize,
    /// Keys that wait for a time.
    pub delayed: usize,
    pub running: usize,
    pub concurrency: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Queue {
    slots: Slots,
    plugins: Plugins,
    timers: BTreeSet<(Instant, Number)>,
    brakes: Brakes,
    backoff: Backoff,
    jitter: Jitter,
}

impl Queue {
    /// `seed` decides the jitter: the same seed, the same delays.
    pub fn new(backoff: Backoff, seed: u64) -> Self {
        Self {
            slots: Slots::default(),
            plugins: Plugins::default(),
            timers: BTreeSet::new(),
            brakes: Brakes::default(),
            backoff,
            jitter: Jitter(seed),
        }
    }

    /// Lets the keys of a plugin run, at most `concurrency` at once. Keys of a plugin that is not open are not taken.
    pub fn open(&mut self, plugin: PluginId, concurrency: usize) {
        self.plugins.open(plugin, concurrency);
    }

    /// Forgets a plugin and what waits for it. What runs, runs on: its keys stay taken until they are done, also when
    /// the plugin opens again meanwhile.
    pub fn close(&mut self, id: &PluginId) {
        let Some(number) = self.plugins.find(id) else { return };
        let Some(plugin) = self.plugins.get_mut(number) else { return };
        for list in &mut plugin.lists() {
            while let Some(slot) = list.first() {
                if let Some(timer) = self.slots.get(slot).map(|found| (found.at, slot)) {
                    self.timers.remove(&timer);
                }
                self.slots.unlink(list, slot);
                self.slots.remove(slot);
            }
        }
        let mut running = plugin.running.first();
        while let Some(slot) = running {
            running = self.slots.behind(slot);
            if let Some(slot) = self.slots.get_mut(slot) {
                slot.again = None;
            }
        }
        self.plugins.close(number);
        self.brakes.close(id);
    }

    /// Something happened to a key: it runs once more, now. An event beats a timer, unless the key is braked, and leaves
    /// the failures as they are.
    pub fn add(&mut self, key: Key, priority: Priority, now: Instant) {
        let Some(plugin) = self.plugins.find(&key.plugin) else { return };
        if !self.plugins.is_open(plugin) {
            return;
        }
        let Some(number) = self.slots.find(plugin, &key.cluster, &key.object) else {
            let number = self.slots.insert(plugin, &key.cluster, key.object, priority, now);
            self.line_up(number, priority, now);
            return;
        };
        let Some(slot) = self.slots.get_mut(number) else { return };
        slot.by_timer &= slot.state == State::Running;
        match slot.state {
            State::Running => {
                if slot.again.is_none() {
                    slot.at = now;
                }
                slot.again = Some(slot.again.map_or(priority, |known| known.min(priority)));
            }
            State::Delayed => {
                self.timers.remove(&(slot.at, number));
                self.plugins.unlink(&mut self.slots, number);
                self.line_up(number, priority, now);
            }
            State::Braked => slot.priority = slot.priority.min(priority),
            State::Ready if priority < slot.priority => self.plugins.lift(&mut self.slots, number, priority),
            State::Ready => {}
        }
    }

    /// The next batch: up to [`BATCH`] keys, and no more than `room`, of the plugin whose turn it is.
    pub fn pop(&mut self, now: Instant, room: usize) -> Option<Vec<Job>> {
        self.fire_timers(now);
        self.plugins.settle(now);
        if room == 0 {
            return None;
        }
        while let Some(number) = self.plugins.next_turn() {
            let jobs = self.take(number, now, room.min(BATCH));
            if !jobs.is_empty() {
                return Some(jobs);
            }
        }
        None
    }

    /// A key that was handed out has run. True: it is news who is braked.
    pub fn done(&mut self, key: &Key, ran: Ran, now: Instant) -> bool {
        let Some(plugin) = self.plugins.find(&key.plugin) else { return false };
        let Some(number) = self.slots.find(plugin, &key.cluster, &key.object) else { return false };
        let Some(slot) = self.slots.get_mut(number).filter(|slot| slot.state == State::Running) else { return false };
        let crowd = slot.priority == Priority::Background;
        slot.failures = match ran.verdict {
            // A run that an event caused fails no further: who changes something must not have to wait longer for it.
            Verdict::Retry(_) if slot.by_timer || slot.failures == 0 => slot.failures.saturating_add(1),
            Verdict::Retry(_) | Verdict::Repeat(_) => slot.failures,
            Verdict::Done | Verdict::After(_) | Verdict::Wait(_) | Verdict::Terminal => 0,
        };
        let (failures, again, since, priority) = (slot.failures, slot.again.take(), slot.at, slot.priority);
        self.plugins.unlink(&mut self.slots, number);
        if !self.plugins.is_open(plugin) {
            self.slots.remove(number);
            self.plugins.forget(plugin);
            return false;
        }
        if !matches!(ran.verdict, Verdict::Retry(_) | Verdict::Repeat(_)) {
            self.plugins.went_well(plugin);
        }
        let news = self.brake(key, number, ran, now);
        let at = self.due(ran.verdict, failures, crowd).map(|delay| now + delay);
        match (again, at) {
            (Some(priority), _) => {
                self.caused_by_timer(number, false);
                self.line_up(number, priority, since);
            }
            (None, Some(at)) => {
                let next = if let Verdict::Repeat(_) = ran.verdict { priority } else { Priority::Dependency };
                self.delay(number, State::Delayed, next, at);
            }
            (None, None) => self.slots.remove(number),
        }
        self.plugins.take_turn(plugin);
        news
    }

    /// An API server turned away a request that was made for a plugin: it makes fewer. True: it did not before.
    pub fn pushed_back(&mut self, plugin: &PluginId, pushback: Pushback, now: Instant) -> bool {
        let Some(number) = self.plugins.find(plugin) else { return false };
        let Some(plugin) = self.plugins.get_mut(number) else { return false };
        let before = plugin.governor.take();
        let fresh = before.is_none();
        plugin.governor = Some(Governor::pushed_back(before, plugin.concurrency, pushback, &mut self.jitter, now));
        if fresh {
            self.plugins.slowed.push(number);
        }
        fresh
    }

    /// Plugins that are no longer slowed down, each told once.
    pub fn recovered(&mut self) -> Vec<PluginId> {
        std::mem::take(&mut self.plugins.recovered)
    }

    /// When to ask again, if nothing happens before.
    pub fn next_timer(&self, now: Instant) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.plugins.next_step(now)].into_iter().flatten().min()
    }

    /// How busy each plugin is.
    pub fn load(&self) -> impl Iterator<Item = Load<'_>> {
        self.plugins.load()
    }

    /// How far a plugin is slowed down because the API server turned its requests away.
    pub fn slowed(&self, plugin: &PluginId, now: Instant) -> Option<Slowed> {
        self.plugins.slowed(plugin, now)
    }

    /// Keys of a plugin that wait at least some seconds between two runs because they write again and again.
    pub fn braked(&self, plugin: &PluginId, now: Instant) -> Vec<Braked> {
        self.brakes.named(plugin, now)
    }

    /// How many keys it knows: those that wait, for their turn or a time, and those that run.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn take(&mut self, number: Number, now: Instant, most: usize) -> Vec<Job> {
        let mut jobs = Vec::new();
        while jobs.len() < most
            && let Some(slot) = self.plugins.next(&mut self.slots, number, now)
            && let Some(job) = self.job(number, slot)
        {
            jobs.push(job);
        }
        self.plugins.take_turn(number);
        jobs
    }

    fn job(&self, plugin: Number, number: Number) -> Option<Job> {
        let slot = self.slots.get(number)?;
        let (cluster, object) = self.slots.object(number)?;
        let key = Key { plugin: self.plugins.get(plugin)?.id.clone(), cluster, object };
        Some(Job { key, priority: slot.priority, failures: slot.failures.into(), ready_since: slot.at })
    }

    /// Into the lane of its priority; a braked one when its time has come.
    fn line_up(&mut self, number: Number, priority: Priority, since: Instant) {
        match self.braked_until(number, since) {
            Some(until) => self.delay(number, State::Braked, priority, until),
            None => self.plugins.line_up(&mut self.slots, number, priority, since),
        }
    }

    fn braked_until(&self, number: Number, now: Instant) -> Option<Instant> {
        if self.brakes.len() == 0 {
            return None;
        }
        let plugin = self.plugins.get(self.slots.get(number)?.plugin)?;
        self.brakes.until(self.slots.lasting_hash(&plugin.id, number), now)
    }

    fn brake(&mut self, key: &Key, number: Number, ran: Ran, now: Instant) -> bool {
        let hurried = matches!(ran.verdict, Verdict::After(delay) if delay < HURRY);
        if ran.wrote.is_none() && !hurried {
            return false;
        }
        let hash = self.slots.lasting_hash(&key.plugin, number);
        self.brakes.ran(hash, || key.clone(), ran.wrote, now)
    }

    fn due(&mut self, verdict: Verdict, failures: u16, crowd: bool) -> Option<Duration> {
        match verdict {
            Verdict::Done | Verdict::Terminal => None,
            Verdict::Repeat(delay) | Verdict::Retry(Some(delay)) => Some(delay),
            Verdict::After(delay) | Verdict::Wait(delay) => {
                let (least, most) = if crowd { CROWD } else { ALONE };
                Some(delay.mul_f64(self.jitter.within(least, most)))
            }
            Verdict::Retry(None) => Some(self.backoff.delay(failures, &mut self.jitter)),
        }
    }

    fn delay(&mut self, number: Number, state: State, priority: Priority, at: Instant) {
        // A brake outlasts a shorter timer.
        let (state, at) = match self.braked_until(number, at) {
            Some(until) => (State::Braked, until),
            None => (state, at),
        };
        self.plugins.delay(&mut self.slots, number, state, priority, at);
        self.timers.insert((at, number));
    }

    fn caused_by_timer(&mut self, number: Number, yes: bool) {
        if let Some(slot) = self.slots.get_mut(number) {
            slot.by_timer = yes;
        }
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some((at, number)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, number));
            let Some(slot) = self.slots.get(number) else { continue };
            let (priority, braked) = (slot.priority, slot.state == State::Braked);
            self.caused_by_timer(number, !braked);
            self.plugins.unlink(&mut self.slots, number);
            self.plugins.line_up(&mut self.slots, number, priority, at);
        }
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
