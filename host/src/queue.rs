//! The work queue: which key runs next. A pure state machine; the clock is passed in.
//!
//! It owns deduplication, delays, backoff and the turn between plugins. It knows keys, never what runs for them.
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
//! queue.add(key.clone(), Priority::Event, now);
//! queue.add(key.clone(), Priority::Event, now); // the same key: still one run
//! let batch = queue.pop(now).unwrap();
//! assert_eq!(batch.len(), 1);
//! queue.done(&key, Verdict::Done, now);
//! assert!(queue.pop(now).is_none());
//! ```

use std::{
    collections::{BTreeMap, HashMap, VecDeque, btree_map, hash_map},
    time::{Duration, Instant},
};

use crate::names::{Key, PluginId};

/// The most keys that one turn hands out.
pub const BATCH: usize = 32;
/// One key in so many is taken from the background even while events wait, so that a backlog always finishes.
const BACKGROUND_SHARE: u32 = 4;

/// Delay before the n-th retry in a row: `base` × 2ⁿ⁻¹, at most `cap`, ± 20 %.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Default 0.2 s.
    pub base: Duration,
    /// Default 2 min.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(200), cap: Duration::from_secs(120) }
    }
}

impl Backoff {
    fn delay(&self, failures: u32, jitter: &mut Jitter) -> Duration {
        let doubled = self.base.saturating_mul(1 << failures.saturating_sub(1).min(20));
        doubled.min(self.cap).mul_f64(jitter.next())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Something changed, or a timer fired.
    Event,
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

/// A key that was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub key: Key,
    /// Failures in a row before this run.
    pub failures: u32,
    /// Since when it could have run.
    pub ready_since: Instant,
}

#[derive(Debug)]
struct Item {
    state: State,
    failures: u32,
}

#[derive(Debug)]
enum State {
    Ready { since: Instant, priority: Priority },
    Delayed { timer: (Instant, u64) },
    Running { again: Option<(Priority, Instant)> },
}

#[derive(Debug, Default)]
struct Plugin {
    event: VecDeque<Key>,
    background: VecDeque<Key>,
    running: usize,
    concurrency: usize,
    handed_out: u32,
    in_ring: bool,
}

impl Plugin {
    fn may_run(&self) -> bool {
        self.running < self.concurrency && !(self.event.is_empty() && self.background.is_empty())
    }

    fn lane(&mut self, priority: Priority) -> &mut VecDeque<Key> {
        match priority {
            Priority::Event => &mut self.event,
            Priority::Background => &mut self.background,
        }
    }

    fn next(&mut self) -> Option<Key> {
        self.handed_out = self.handed_out.wrapping_add(1);
        if self.handed_out.is_multiple_of(BACKGROUND_SHARE) {
            self.background.pop_front().or_else(|| self.event.pop_front())
        } else {
            self.event.pop_front().or_else(|| self.background.pop_front())
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Queue {
    items: HashMap<Key, Item>,
    plugins: HashMap<PluginId, Plugin>,
    /// Plugins that may have something to run, in the order of their turns.
    ring: VecDeque<PluginId>,
    timers: BTreeMap<(Instant, u64), Key>,
    serial: u64,
    backoff: Backoff,
    jitter: Jitter,
}

impl Queue {
    /// `seed` decides the jitter: the same seed, the same delays.
    pub fn new(backoff: Backoff, seed: u64) -> Self {
        Self {
            items: HashMap::new(),
            plugins: HashMap::new(),
            ring: VecDeque::new(),
            timers: BTreeMap::new(),
            serial: 0,
            backoff,
            jitter: Jitter(seed),
        }
    }

    /// Lets the keys of a plugin run, at most `concurrency` at once. Keys of a plugin that is not open are not taken.
    pub fn open(&mut self, plugin: PluginId, concurrency: usize) {
        self.plugins.entry(plugin.clone()).or_default().concurrency = concurrency;
        self.take_turn(&plugin);
    }

    /// Forgets a plugin and what waits for it. What runs, runs on: its keys stay taken until they are done, also when
    /// the plugin opens again meanwhile.
    pub fn close(&mut self, id: &PluginId) {
        let Some(plugin) = self.plugins.get_mut(id) else { return };
        *plugin = Plugin { running: plugin.running, in_ring: plugin.in_ring, ..Plugin::default() };
        if plugin.running == 0 {
            self.plugins.remove(id);
        }
        let timers = &mut self.timers;
        self.items.retain(|key, item| {
            if key.plugin != *id {
                return true;
            }
            match &mut item.state {
                State::Running { again } => *again = None,
                State::Delayed { timer } => drop(timers.remove(timer)),
                State::Ready { .. } => {}
            }
            matches!(item.state, State::Running { .. })
        });
    }

    /// Something happened to a key: it runs once more, now. An event beats a timer and leaves the failures as they are.
    pub fn add(&mut self, key: Key, priority: Priority, now: Instant) {
        if !self.is_open(&key.plugin) {
            return;
        }
        match self.items.entry(key) {
            hash_map::Entry::Vacant(vacant) => {
                let key = vacant.key().clone();
                vacant.insert(Item { state: State::Ready { since: now, priority }, failures: 0 });
                self.line_up(key, priority);
            }
            hash_map::Entry::Occupied(mut occupied) => match &mut occupied.get_mut().state {
                State::Running { again } => {
                    let (known, since) = again.unwrap_or((priority, now));
                    *again = Some((known.min(priority), since));
                }
                State::Delayed { timer } => {
                    self.timers.remove(timer);
                    occupied.get_mut().state = State::Ready { since: now, priority };
                    let key = occupied.key().clone();
                    self.line_up(key, priority);
                }
                State::Ready { priority: known, .. } if priority < *known => {
                    // It stays in the background lane as well; that place is skipped when its turn comes.
                    *known = priority;
                    let key = occupied.key().clone();
                    self.line_up(key, priority);
                }
                State::Ready { .. } => {}
            },
        }
    }

    /// The next batch: up to [`BATCH`] keys of the plugin whose turn it is.
    pub fn pop(&mut self, now: Instant) -> Option<Vec<Job>> {
        self.fire_timers(now);
        for _ in 0..self.ring.len() {
            let id = self.ring.pop_front()?;
            let Some(plugin) = self.plugins.get_mut(&id) else { continue };
            plugin.in_ring = false;
            let jobs = Self::take(plugin, &mut self.items);
            self.take_turn(&id);
            if !jobs.is_empty() {
                return Some(jobs);
            }
        }
        None
    }

    /// A key that was handed out has run.
    pub fn done(&mut self, key: &Key, verdict: Verdict, now: Instant) {
        let Some(plugin) = self.plugins.get_mut(&key.plugin) else { return };
        let Some(Item { state: State::Running { again }, failures }) = self.items.get_mut(key) else { return };
        plugin.running = plugin.running.saturating_sub(1);
        if plugin.concurrency == 0 {
            self.items.remove(key);
            if plugin.running == 0 {
                self.plugins.remove(&key.plugin);
            }
            return;
        }
        let again = *again;
        *failures = match verdict {
            Verdict::Retry(_) => failures.saturating_add(1),
            Verdict::Repeat(_) => *failures,
            Verdict::Done | Verdict::After(_) | Verdict::Wait(_) | Verdict::Terminal => 0,
        };
        let failures = *failures;
        let delay = match verdict {
            Verdict::Done | Verdict::Terminal => None,
            Verdict::After(delay) | Verdict::Wait(delay) | Verdict::Repeat(delay) | Verdict::Retry(Some(delay)) => Some(delay),
            Verdict::Retry(None) => Some(self.backoff.delay(failures, &mut self.jitter)),
        };
        match (again, delay) {
            (Some((priority, since)), _) => {
                self.items.insert(key.clone(), Item { state: State::Ready { since, priority }, failures });
                self.line_up(key.clone(), priority);
            }
            (None, Some(delay)) => self.delay(key, failures, now + delay),
            (None, None) => {
                self.items.remove(key);
            }
        }
        self.take_turn(&key.plugin);
    }

    /// When the next timer fires.
    pub fn next_timer(&self) -> Option<Instant> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Keys that wait for their turn, per open plugin.
    pub fn depth(&self) -> impl Iterator<Item = (&PluginId, usize)> {
        self.plugins.iter().map(|(id, plugin)| (id, plugin.event.len() + plugin.background.len()))
    }

    /// Keys that run now.
    pub fn running(&self) -> usize {
        self.plugins.values().map(|plugin| plugin.running).sum()
    }

    fn is_open(&self, id: &PluginId) -> bool {
        self.plugins.get(id).is_some_and(|plugin| plugin.concurrency > 0)
    }

    fn take(plugin: &mut Plugin, items: &mut HashMap<Key, Item>) -> Vec<Job> {
        let mut jobs = Vec::new();
        while jobs.len() < BATCH && plugin.may_run() {
            let Some(key) = plugin.next() else { break };
            // A key that moved to the other lane, or that closed and opened again, has left a place behind.
            let Some(item) = items.get_mut(&key) else { continue };
            let State::Ready { since, .. } = item.state else { continue };
            item.state = State::Running { again: None };
            plugin.running += 1;
            jobs.push(Job { key, failures: item.failures, ready_since: since });
        }
        jobs
    }

    fn line_up(&mut self, key: Key, priority: Priority) {
        let id = key.plugin.clone();
        if let Some(plugin) = self.plugins.get_mut(&id) {
            plugin.lane(priority).push_back(key);
        }
        self.take_turn(&id);
    }

    fn take_turn(&mut self, id: &PluginId) {
        if let Some(plugin) = self.plugins.get_mut(id)
            && !plugin.in_ring
            && plugin.may_run()
        {
            plugin.in_ring = true;
            self.ring.push_back(id.clone());
        }
    }

    fn delay(&mut self, key: &Key, failures: u32, at: Instant) {
        self.serial += 1;
        let timer = (at, self.serial);
        self.timers.insert(timer, key.clone());
        self.items.insert(key.clone(), Item { state: State::Delayed { timer }, failures });
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some(first) = self.timers.first_entry() {
            if first.key().0 > now {
                break;
            }
            let ((at, _), key) = btree_map::OccupiedEntry::remove_entry(first);
            if let Some(item) = self.items.get_mut(&key) {
                item.state = State::Ready { since: at, priority: Priority::Event };
                self.line_up(key, Priority::Event);
            }
        }
    }
}

/// Factors between 0.8 and 1.2 (splitmix64). Enough to spread retries; nothing secret depends on it.
#[derive(Debug)]
struct Jitter(u64);

impl Jitter {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        0.8 + 0.4 * f64::from((z >> 32) as u32) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Cluster, Kind, ObjectId};

    fn key(plugin: &str, name: &str) -> Key {
        let kind = Kind::new("demo.reef.dev", "v1", "Hello");
        Key { plugin: PluginId::new("ns", plugin), cluster: Cluster::local(), object: ObjectId::new(kind, "ns", name) }
    }

    fn queue(plugins: &[(&str, usize)]) -> Queue {
        let mut queue = Queue::new(Backoff::default(), 7);
        for (plugin, concurrency) in plugins {
            queue.open(PluginId::new("ns", plugin), *concurrency);
        }
        queue
    }

    fn names(jobs: Option<Vec<Job>>) -> Vec<String> {
        jobs.unwrap_or_default().into_iter().map(|job| job.key.object.name.to_string()).collect()
    }

    #[test]
    fn a_key_never_runs_twice_at_once_and_a_thousand_events_cost_one_more_run() {
        let (mut queue, now) = (queue(&[("p", 4)]), Instant::now());
        queue.add(key("p", "a"), Priority::Event, now);
        assert_eq!(names(queue.pop(now)), ["a"]);
        for _ in 0..1000 {
            queue.add(key("p", "a"), Priority::Event, now);
            assert!(queue.pop(now).is_none());
        }
        queue.done(&key("p", "a"), Verdict::Done, now);
        assert_eq!(names(queue.pop(now)), ["a"]);
        queue.done(&key("p", "a"), Verdict::Done, now);
        assert!(queue.pop(now).is_none());
    }

    #[test]
    fn backoff_doubles_up_to_the_cap_and_events_in_between_do_not_inflate_it() {
        let (mut queue, mut now) = (queue(&[("p", 1)]), Instant::now());
        queue.add(key("p", "a"), Priority::Event, now);
        let mut expected = Duration::from_millis(200);
        for failures in 0..14 {
            let jobs = queue.pop(now).unwrap();
            assert_eq!(jobs[0].failures, failures);
            queue.done(&key("p", "a"), Verdict::Retry(None), now);
            let delay = queue.next_timer().unwrap() - now;
            assert!(delay >= expected.mul_f64(0.8) && delay <= expected.mul_f64(1.2), "{failures}: {delay:?}");
            expected = (expected * 2).min(Duration::from_secs(120));
            now += delay;
        }
        queue.pop(now).unwrap();
        queue.done(&key("p", "a"), Verdict::Retry(None), now);
        queue.add(key("p", "a"), Priority::Event, now);
        assert_eq!(queue.pop(now).unwrap()[0].failures, 15);
    }

    #[test]
    fn success_resets_the_failures_and_a_repeat_leaves_them() {
        let (mut queue, now) = (queue(&[("p", 1)]), Instant::now());
        queue.add(key("p", "a"), Priority::Event, now);
        queue.pop(now).unwrap();
        queue.done(&key("p", "a"), Verdict::Retry(Some(Duration::ZERO)), now);
        assert_eq!(queue.pop(now).unwrap()[0].failures, 1);
        queue.done(&key("p", "a"), Verdict::Repeat(Duration::ZERO), now);
        assert_eq!(queue.pop(now).unwrap()[0].failures, 1);
        queue.done(&key("p", "a"), Verdict::After(Duration::ZERO), now);
        assert_eq!(queue.pop(now).unwrap()[0].failures, 0);
    }

    #[test]
    fn an_event_beats_a_timer_and_the_timer_does_not_fire_a_second_time() {
        let (mut queue, now) = (queue(&[("p", 1)]), Instant::now());
        queue.add(key("p", "a"), Priority::Event, now);
        queue.pop(now).unwrap();
        queue.done(&key("p", "a"), Verdict::After(Duration::from_secs(60)), now);
        assert!(queue.pop(now).is_none());
        queue.add(key("p", "a"), Priority::Event, now);
        assert_eq!(names(queue.pop(now)), ["a"]);
        queue.done(&key("p", "a"), Verdict::Done, now);
        assert!(queue.next_timer().is_none());
        assert!(queue.pop(now + Duration::from_secs(120)).is_none());
    }

    #[test]
    fn a_terminal_failure_waits_for_a_change() {
        let (mut queue, now) = (queue(&[("p", 1)]), Instant::now());
        queue.add(key("p", "a"), Priority::Event, now);
        queue.pop(now).unwrap();
        queue.done(&key("p", "a"), Verdict::Terminal, now);
        assert!(queue.pop(now + Duration::from_secs(3600)).is_none());
        queue.add(key("p", "a"), Priority::Event, now);
        assert_eq!(names(queue.pop(now)), ["a"]);
    }

    #[test]
    fn plugins_take_turns_and_none_gets_more_than_its_concurrency() {
        let (mut queue, now) = (queue(&[("p", 2), ("q", 2)]), Instant::now());
        for i in 0..10 {
            queue.add(key("p", &format!("p{i}")), Priority::Event, now);
        }
        queue.add(key("q", "q0"), Priority::Event, now);
        assert_eq!(names(queue.pop(now)), ["p0", "p1"]);
        assert_eq!(names(queue.pop(now)), ["q0"]);
        assert!(queue.pop(now).is_none(), "p has no room");
        queue.done(&key("p", "p1"), Verdict::Done, now);
        assert_eq!(names(queue.pop(now)), ["p2"]);
    }

    #[test]
    fn events_run_before_a_backlog_and_the_backlog_still_advances() {
        let (mut queue, now) = (queue(&[("p", 1)]), Instant::now());
        for i in 0..100 {
            queue.add(key("p", &format!("old{i}")), Priority::Background, now);
        }
        let mut old = 0;
        for i in 0..40 {
            queue.add(key("p", &format!("new{i}")), Priority::Event, now);
            let job = queue.pop(now).unwrap().remove(0);
            old += usize::from(job.key.object.name.starts_with("old"));
            queue.done(&job.key, Verdict::Done, now);
        }
        assert_eq!(old, 10);
    }

    #[test]
    fn an_event_lifts_a_key_out_of_the_background_and_it_runs_once() {
        let (mut queue, now) = (queue(&[("p", 1)]), Instant::now());
        for name in ["a", "b", "c"] {
            queue.add(key("p", name), Priority::Background, now);
        }
        queue.add(key("p", "c"), Priority::Event, now);
        let mut seen = Vec::new();
        while let Some(jobs) = queue.pop(now) {
            for job in jobs {
                seen.push(job.key.object.name.to_string());
                queue.done(&job.key, Verdict::Done, now);
            }
        }
        assert_eq!(seen, ["c", "a", "b"]);
    }

    #[test]
    fn a_closed_plugin_leaves_nothing_behind() {
        let (mut queue, now) = (queue(&[("p", 2)]), Instant::now());
        for name in ["a", "b", "c"] {
            queue.add(key("p", name), Priority::Event, now);
        }
        queue.pop(now).unwrap();
        queue.done(&key("p", "a"), Verdict::After(Duration::from_secs(1)), now);
        queue.pop(now).unwrap();
        queue.close(&PluginId::new("ns", "p"));
        queue.done(&key("p", "b"), Verdict::Retry(None), now);
        queue.add(key("p", "d"), Priority::Event, now);
        assert!(queue.pop(now + Duration::from_secs(60)).is_none());
        queue.done(&key("p", "c"), Verdict::Done, now);
        assert!(queue.items.is_empty() && queue.timers.is_empty() && queue.plugins.is_empty());
    }

    #[test]
    fn a_key_that_runs_while_its_plugin_closes_and_opens_does_not_run_twice_at_once() {
        let (mut queue, now) = (queue(&[("p", 2)]), Instant::now());
        queue.add(key("p", "a"), Priority::Event, now);
        queue.pop(now).unwrap();
        queue.close(&PluginId::new("ns", "p"));
        queue.open(PluginId::new("ns", "p"), 2);
        queue.add(key("p", "a"), Priority::Event, now);
        assert!(queue.pop(now).is_none());
        queue.done(&key("p", "a"), Verdict::Done, now);
        assert_eq!(names(queue.pop(now)), ["a"]);
    }
}
