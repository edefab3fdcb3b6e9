//! The queue against a naive model: a list of all keys, searched from one end to the other. Thousands of random schedules;
//! a failure prints the seed, and `REEF_QUEUE_SEED` plays it again.

use std::collections::BTreeMap;

use super::*;
use crate::names::{Cluster, Kind, ObjectId};

const SCHEDULES: u64 = 3000;
const STEPS: usize = 300;

#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    Ready,
    Delayed(Instant),
    Running { again: Option<Priority> },
}

#[derive(Debug)]
struct Naive {
    at: At,
    priority: Priority,
    since: Instant,
    failures: u32,
    by_timer: bool,
}

struct Test {
    queue: Queue,
    keys: BTreeMap<Key, Naive>,
    open: BTreeMap<PluginId, usize>,
    now: Instant,
    random: Jitter,
    /// Turns of other plugins since a plugin that could run had one.
    passed_over: BTreeMap<PluginId, usize>,
}

impl Test {
    fn new(seed: u64) -> Self {
        let queue = Queue::new(Backoff::default(), seed);
        let random = Jitter(seed ^ 0x5eed);
        let (keys, open, passed_over) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { queue, keys, open, now: Instant::now(), random, passed_over }
    }

    fn below(&mut self, n: usize) -> usize {
        (self.random.within(0.0, n as f64) as usize).min(n - 1)
    }

    fn plugin(&mut self) -> PluginId {
        PluginId::new("ns", ["p", "q", "r"][self.below(3)])
    }

    fn key(&mut self) -> Key {
        let kind = Kind::new("demo.reef.dev", "v1", ["Hello", "Probe"][self.below(2)]);
        let name = format!("o{}", self.below(6));
        Key { plugin: self.plugin(), cluster: Cluster::local(), object: ObjectId::new(kind, "ns", &name) }
    }

    fn priority(&mut self) -> Priority {
        [Priority::Edit, Priority::Dependency, Priority::Background][self.below(3)]
    }

    fn step(&mut self) {
        match self.below(20) {
            0 => {
                let (plugin, concurrency) = (self.plugin(), 1 + self.below(4));
                self.queue.open(plugin.clone(), concurrency);
                self.open.insert(plugin, concurrency);
            }
            1 if self.below(4) == 0 => {
                let plugin = self.plugin();
                self.queue.close(&plugin);
                self.open.remove(&plugin);
                self.passed_over.remove(&plugin);
                self.keys.retain(|key, naive| key.plugin != plugin || matches!(naive.at, At::Running { .. }));
                for (_, naive) in self.keys.iter_mut().filter(|(key, _)| key.plugin == plugin) {
                    naive.at = At::Running { again: None };
                }
            }
            1..=8 => self.add(),
            9..=13 => self.pop(),
            14..=17 => self.done(),
            _ => {
                let passed = self.below(3000) as u64;
                self.now += Duration::from_millis(passed);
            }
        }
        self.agree();
    }

    fn add(&mut self) {
        let (key, priority, now) = (self.key(), self.priority(), self.now);
        self.queue.add(key.clone(), priority, now);
        if !self.open.contains_key(&key.plugin) {
            return;
        }
        let fresh = || Naive { at: At::Ready, priority, since: now, failures: 0, by_timer: false };
        let naive = self.keys.entry(key).or_insert_with(fresh);
        if !matches!(naive.at, At::Running { .. }) {
            naive.by_timer = false;
        }
        match &mut naive.at {
            At::Ready => naive.priority = naive.priority.min(priority),
            At::Delayed(_) => (naive.at, naive.priority, naive.since) = (At::Ready, priority, now),
            At::Running { again } => {
                if again.is_none() {
                    naive.since = now;
                }
                *again = Some(again.map_or(priority, |known| known.min(priority)));
            }
        }
    }

    fn pop(&mut self) {
        for naive in self.keys.values_mut() {
            if let At::Delayed(at) = naive.at
                && at <= self.now
            {
                (naive.at, naive.since, naive.by_timer) = (At::Ready, at, true);
            }
        }
        let room = [1, 2, usize::MAX][self.below(3)];
        let able: Vec<PluginId> = self.open.keys().filter(|plugin| self.may_run(plugin)).cloned().collect();
        self.passed_over.retain(|plugin, _| able.contains(plugin));
        let Some(jobs) = self.queue.pop(self.now, room) else {
            assert!(able.is_empty(), "nothing came, but {able:?} could run");
            return;
        };
        let plugin = jobs[0].key.plugin.clone();
        assert!(jobs.len() <= room && !jobs.is_empty(), "{} jobs for room {room}", jobs.len());
        for job in jobs {
            assert_eq!(job.key.plugin, plugin, "a batch is of one plugin");
            self.check(&job);
            let naive = self.keys.get_mut(&job.key).unwrap();
            naive.at = At::Running { again: None };
        }
        assert!(self.running(&plugin) <= self.open[&plugin].max(self.orphans(&plugin)), "more than its concurrency");
        for other in able.into_iter().filter(|other| *other != plugin) {
            let turns = self.passed_over.entry(other.clone()).or_default();
            *turns += 1;
            assert!(*turns <= 3, "{other} could run and was passed over {turns} times");
        }
        self.passed_over.remove(&plugin);
    }

    fn check(&self, job: &Job) {
        let naive = self.keys.get(&job.key).unwrap_or_else(|| panic!("{} is not wanted", job.key));
        assert_eq!(naive.at, At::Ready, "{}", job.key);
        assert_eq!((naive.priority, naive.since, naive.failures), (job.priority, job.ready_since, job.failures), "{}", job.key);
        let rivals = self.keys.iter().filter(|(key, other)| key.plugin == job.key.plugin && other.at == At::Ready);
        let (mut most_urgent, mut oldest) = (true, true);
        for (_, rival) in rivals {
            most_urgent &= naive.priority <= rival.priority;
            oldest &= naive.since <= rival.since;
        }
        // The oldest of all is the first of some lane; only a lifted key may stand behind a younger one in its lane.
        let lifted = self.keys.values().any(|other| other.at == At::Ready && other.since < naive.since);
        assert!(most_urgent || oldest || lifted, "{} is neither the most urgent nor the oldest", job.key);
    }

    fn done(&mut self) {
        let running: Vec<Key> =
            self.keys.iter().filter(|(_, n)| matches!(n.at, At::Running { .. })).map(|(k, _)| k.clone()).collect();
        if running.is_empty() {
            return;
        }
        let key = running[self.below(running.len())].clone();
        let delay = Duration::from_millis(self.below(5000) as u64);
        let verdict = match self.below(7) {
            0 => Verdict::After(delay + HURRY),
            1 => Verdict::Retry(None),
            2 => Verdict::Retry(Some(delay)),
            3 => Verdict::Wait(delay),
            4 => Verdict::Repeat(delay),
            5 => Verdict::Terminal,
            _ => Verdict::Done,
        };
        self.queue.done(&key, verdict.into(), self.now);
        let naive = self.keys.get_mut(&key).unwrap();
        let At::Running { again } = naive.at else { unreachable!() };
        naive.failures = match verdict {
            Verdict::Retry(_) if naive.by_timer || naive.failures == 0 => naive.failures + 1,
            Verdict::Retry(_) | Verdict::Repeat(_) => naive.failures,
            _ => 0,
        };
        let (least, most) = match verdict {
            Verdict::After(d) | Verdict::Wait(d) if naive.priority == Priority::Background => (d.mul_f64(0.1), d),
            Verdict::After(d) | Verdict::Wait(d) => (d, d.mul_f64(1.1)),
            Verdict::Retry(Some(d)) | Verdict::Repeat(d) => (d, d),
            Verdict::Retry(None) => {
                let d = (Duration::from_millis(200) * (1 << (naive.failures - 1).min(16))).min(Duration::from_secs(120));
                (d.mul_f64(0.8), d.mul_f64(1.2))
            }
            Verdict::Done | Verdict::Terminal => {
                if again.is_none() || !self.open.contains_key(&key.plugin) {
                    self.keys.remove(&key);
                    return;
                }
                (Duration::ZERO, Duration::ZERO)
            }
        };
        if !self.open.contains_key(&key.plugin) {
            self.keys.remove(&key);
            return;
        }
        if let Some(priority) = again {
            (naive.at, naive.priority, naive.by_timer) = (At::Ready, priority, false);
            return;
        }
        if !matches!(verdict, Verdict::Repeat(_)) {
            naive.priority = Priority::Dependency;
        }
        // When exactly is the queue's to choose, within bounds; the model takes it over.
        let number = self.queue.slots.find(self.queue.plugins.find(&key.plugin).unwrap(), &key.cluster, &key.object).unwrap();
        let at = self.queue.slots.get(number).unwrap().at;
        let slack = Duration::from_micros(1);
        assert!(at + slack >= self.now + least && at <= self.now + most + slack, "{verdict:?}: {:?}", at - self.now);
        naive.at = At::Delayed(at);
    }

    fn running(&self, plugin: &PluginId) -> usize {
        self.keys.iter().filter(|(key, naive)| key.plugin == *plugin && matches!(naive.at, At::Running { .. })).count()
    }

    /// What ran before the concurrency was lowered, or the plugin closed, runs on.
    fn orphans(&self, plugin: &PluginId) -> usize {
        self.running(plugin).min(4)
    }

    fn may_run(&self, plugin: &PluginId) -> bool {
        let waits = self.keys.iter().any(|(key, naive)| key.plugin == *plugin && naive.at == At::Ready);
        waits && self.running(plugin) < self.open[plugin]
    }

    /// Both know the same keys in the same states.
    fn agree(&self) {
        assert_eq!(self.queue.len(), self.keys.len());
        let due = self.keys.values().filter_map(|naive| if let At::Delayed(at) = naive.at { Some(at) } else { None }).min();
        assert_eq!(self.queue.next_timer(self.now), due);
        for load in self.queue.load() {
            assert_eq!(load.running, self.running(load.plugin), "{}", load.plugin);
        }
    }

    /// With nothing new to do, everything that waits runs in the end.
    fn finish(&mut self) {
        for plugin in ["p", "q", "r"] {
            self.queue.open(PluginId::new("ns", plugin), 4);
        }
        while !self.queue.is_empty() {
            let running = self.keys.iter().filter(|(_, naive)| matches!(naive.at, At::Running { .. }));
            for key in running.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
                self.queue.done(&key, Verdict::Done.into(), self.now);
                let naive = self.keys.get_mut(&key).unwrap();
                match naive.at {
                    At::Running { again: Some(_) } => naive.at = At::Ready,
                    _ => drop(self.keys.remove(&key)),
                }
            }
            match self.queue.pop(self.now, usize::MAX) {
                Some(jobs) => {
                    for job in jobs {
                        self.keys.get_mut(&job.key).unwrap().at = At::Running { again: None };
                    }
                }
                None => self.now = self.queue.next_timer(self.now).unwrap_or(self.now),
            }
        }
        assert!(self.keys.is_empty(), "lost: {:?}", self.keys);
    }
}

#[test]
fn the_queue_does_what_a_naive_model_does() {
    let seeds = match std::env::var("REEF_QUEUE_SEED") {
        Ok(seed) => seed.parse().map(|seed| seed..seed + 1).unwrap(),
        Err(_) => 0..SCHEDULES,
    };
    for seed in seeds {
        let mut test = Test::new(seed);
        let run = std::panic::AssertUnwindSafe(|| {
            (0..STEPS).for_each(|_| test.step());
            test.finish();
        });
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed}: play it again with REEF_QUEUE_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
