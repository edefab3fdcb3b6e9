//! Faults by seed: what happens to a request is a function of the seed, of what the request is, and of how often it has come.
//!
//! Only what an API server or a network really does, and what a client has to get over by itself. A list that lies and an
//! event that never comes need a rule.

use std::time::Duration;

use super::{
    rules::{EventFault, Fault, ListFault, When},
    what::What,
};
use crate::random::Random;

#[derive(Debug, Clone, Copy)]
pub struct Chaos {
    pub seed: u64,
    /// Of a thousand requests; leases, reviews and tokens a quarter of it.
    pub requests: u64,
    /// Of a thousand events.
    pub events: u64,
}

const fn answer(code: u16, when: When) -> Fault {
    Fault::Answer { code, when, retry_after: None }
}

const fn throttled(seconds: u64) -> Fault {
    Fault::Answer { code: 429, when: When::Before, retry_after: Some(seconds) }
}

const DELAY: Fault = Fault::Delay(Duration::from_millis(250));

const WRITES: [Fault; 14] = [
    Fault::Reset(When::Before),
    Fault::Reset(When::After),
    Fault::Reset(When::After),
    Fault::Cut(When::Before),
    Fault::Cut(When::After),
    Fault::Stall(When::Before),
    Fault::Stall(When::After),
    DELAY,
    answer(409, When::Before),
    answer(429, When::Before),
    throttled(1),
    answer(500, When::Before),
    answer(503, When::Before),
    answer(503, When::After),
];

const READS: [Fault; 8] = [
    Fault::Reset(When::Before),
    Fault::Cut(When::Before),
    Fault::Stall(When::Before),
    DELAY,
    answer(429, When::Before),
    answer(500, When::Before),
    answer(503, When::Before),
    Fault::List(ListFault::Torn),
];

const WATCHES: [Fault; 7] = [
    Fault::Reset(When::Before),
    Fault::Cut(When::Before),
    Fault::Hole,
    DELAY,
    answer(410, When::Before),
    answer(429, When::Before),
    answer(503, When::Before),
];

/// Duplicates, delays and reordering more often than what ends the stream.
const EVENTS: [EventFault; 8] = [
    EventFault::Duplicate,
    EventFault::Duplicate,
    EventFault::Reorder,
    EventFault::Reorder,
    EventFault::Delay(Duration::from_millis(100)),
    EventFault::Delay(Duration::from_millis(400)),
    EventFault::Cut,
    EventFault::Gone,
];

impl Chaos {
    /// What happens to the so manieth request of this kind.
    pub fn request(&self, what: &What, count: u64) -> Option<Fault> {
        let mut random = Random::named(self.seed, &format!("{what} {count}"));
        let aside = what.is_lease() || what.is_token() || what.group.ends_with("authorization.k8s.io");
        if !random.permille(if aside { self.requests / 4 } else { self.requests }) {
            return None;
        }
        let faults: &[Fault] = match what.verb {
            "watch" => &WATCHES,
            "get" => &READS[..READS.len() - 1],
            "list" => &READS,
            _ => &WRITES,
        };
        random.pick(faults).cloned()
    }

    /// What happens to the events of the so manieth watch of this kind.
    pub fn events(&self, what: &What, count: u64) -> EventChaos {
        EventChaos { random: Random::named(self.seed, &format!("events of {what} {count}")), permille: self.events }
    }
}

/// The faults of one stream, event by event.
#[derive(Debug, Clone)]
pub struct EventChaos {
    random: Random,
    permille: u64,
}

impl EventChaos {
    pub fn next(&mut self) -> Option<EventFault> {
        if self.random.permille(self.permille) { self.random.pick(&EVENTS).copied() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_does_the_same_to_the_same_requests() {
        let what = |name: &str| What { verb: "patch", resource: "configmaps".into(), name: name.into(), ..What::default() };
        let faults = |seed| {
            let chaos = Chaos { seed, requests: 300, events: 300 };
            (0..100).map(|i| chaos.request(&what(&format!("x{}", i % 10)), i)).collect::<Vec<_>>()
        };
        assert_eq!(faults(1), faults(1));
        assert_ne!(faults(1), faults(2));
        let some = faults(1).iter().flatten().count();
        assert!((10..60).contains(&some), "{some} of 100");
    }
}
