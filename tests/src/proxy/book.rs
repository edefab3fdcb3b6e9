//! What the proxy has to do to whom, and what it has done: rules, numbers, counts, the last requests.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{
    chaos::{Chaos, EventChaos},
    rules::{EventFault, Fault, Nth, Rule},
    what::What,
};

/// How many requests a failing test shows.
const KEPT: usize = 300;

pub struct Book {
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// With how many requests have fitted.
    rules: Vec<(Rule, u64)>,
    chaos: Option<Chaos>,
    /// Of each kind, for chaos.
    seen: HashMap<String, u64>,
    writes: u64,
    requests: u64,
    faults: BTreeMap<String, u64>,
    lines: VecDeque<Line>,
    /// The host is being killed: nobody gets through.
    frozen: bool,
}

/// One thing that happened to a request.
#[derive(Debug, Clone)]
pub struct Line {
    /// Seconds since the proxy began.
    pub at: f64,
    /// `patch hellos/status in team-a named x`
    pub what: String,
    /// A fault, or the code of the API server's answer.
    pub outcome: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:9.3} {}: {}", self.at, self.what, self.outcome)
    }
}

/// What is to happen to one request.
#[derive(Debug, Default)]
pub struct Decision {
    pub frozen: bool,
    pub fault: Option<Fault>,
    /// Of a watch.
    pub events: EventFaults,
}

/// What is to happen in one watch's stream.
#[derive(Debug, Default)]
pub struct EventFaults {
    rules: Vec<(Nth, EventFault)>,
    chaos: Option<EventChaos>,
    count: u64,
}

impl EventFaults {
    /// Of the next event.
    pub fn next(&mut self) -> Option<EventFault> {
        self.count += 1;
        let chaos = self.chaos.as_mut().and_then(EventChaos::next);
        let rule = self.rules.iter().find(|(nth, _)| nth.holds(self.count)).map(|(_, fault)| *fault);
        rule.or(chaos)
    }
}

impl Book {
    pub fn new() -> Self {
        Self { began: Instant::now(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of all rules; requests are counted from here.
    pub fn script(&self, rules: Vec<Rule>) {
        let mut state = self.state();
        state.rules = rules.into_iter().map(|rule| (rule, 0)).collect();
        (state.writes, state.frozen) = (0, false);
    }

    pub fn chaos(&self, chaos: Option<Chaos>) {
        self.state().chaos = chaos;
    }

    pub fn decide(&self, what: &What) -> Decision {
        let mut state = self.state();
        if state.frozen {
            return Decision { frozen: true, ..Decision::default() };
        }
        state.requests += 1;
        state.writes += u64::from(what.is_write());
        let mut decision = Decision::default();
        for (rule, count) in state.rules.iter_mut().filter(|(rule, _)| rule.fits(what)) {
            *count += 1;
            match (rule.meant(*count), &rule.fault) {
                (true, Fault::Events(nth, fault)) => decision.events.rules.push((*nth, *fault)),
                (true, fault) if decision.fault.is_none() => decision.fault = Some(fault.clone()),
                _ => {}
            }
        }
        if let Some(chaos) = state.chaos {
            let count = state.seen.entry(what.to_string()).or_default();
            *count += 1;
            let count = *count;
            decision.fault = decision.fault.or_else(|| chaos.request(what, count));
            decision.events.chaos = (what.verb == "watch").then(|| chaos.events(what, count));
        }
        // Set here, so that no other request slips through before the host is dead.
        state.frozen = matches!(decision.fault, Some(Fault::Kill(_)));
        decision
    }

    /// A fault took effect.
    pub fn happened(&self, fault: &str, what: &What) {
        *self.state().faults.entry(fault.to_owned()).or_default() += 1;
        self.line(what, fault.to_owned());
    }

    /// A request was answered by the API server.
    pub fn answered(&self, what: &What, code: u16) {
        if what.is_write() || code >= 400 {
            self.line(what, code.to_string());
        }
    }

    fn line(&self, what: &What, outcome: String) {
        let line = Line { at: self.began.elapsed().as_secs_f64(), what: what.to_string(), outcome };
        let mut state = self.state();
        if state.lines.len() == KEPT {
            state.lines.pop_front();
        }
        state.lines.push_back(line);
    }

    /// The last writes, faults and refusals.
    pub fn lines(&self) -> Vec<Line> {
        self.state().lines.iter().cloned().collect()
    }

    /// Writes since the last script.
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// How often each fault took effect.
    pub fn faults(&self) -> BTreeMap<String, u64> {
        self.state().faults.clone()
    }

    /// What replays it, and the last that happened.
    pub fn describe(&self) -> String {
        let state = self.state();
        let mut text = "--- fault proxy: rules\n".to_owned();
        for (rule, count) in &state.rules {
            text += &format!("{rule}    (fitted {count} times)\n");
        }
        if let Some(chaos) = state.chaos {
            text += &format!("{chaos:?}\n");
        }
        text += "--- fault proxy: faults that took effect\n";
        for (fault, count) in &state.faults {
            text += &format!("{count:5} {fault}\n");
        }
        text += "--- fault proxy: writes, faults and refusals, in seconds since it began\n";
        for line in &state.lines {
            text += &format!("{line}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(verb: &'static str, resource: &str) -> What {
        What { verb, resource: resource.into(), ..What::default() }
    }

    fn book(rules: &[&str]) -> Book {
        let book = Book::new();
        book.script(rules.iter().map(|rule| rule.parse().unwrap()).collect());
        book
    }

    #[test]
    fn the_first_rule_that_fits_decides_and_each_counts_for_itself() {
        let book = book(&["create configmaps #2: hole", "write * #1+: stall before"]);
        let faults: Vec<String> =
            (0..3).map(|_| book.decide(&what("create", "configmaps")).fault.map(|f| f.to_string()).unwrap_or_default()).collect();
        assert_eq!(faults, ["stall before", "hole", "stall before"]);
        assert_eq!((book.writes(), book.requests()), (3, 3));
        assert!(book.decide(&what("list", "configmaps")).fault.is_none());
    }

    #[test]
    fn once_the_host_is_to_be_killed_nobody_gets_through_until_the_next_script() {
        let book = book(&["write * #1: kill before"]);
        assert!(!book.decide(&what("list", "hellos")).frozen);
        assert!(book.decide(&what("create", "hellos")).fault.is_some());
        assert!(book.decide(&what("list", "hellos")).frozen);
        book.script(Vec::new());
        assert!(!book.decide(&what("list", "hellos")).frozen);
    }

    #[test]
    fn events_of_one_stream_are_counted_from_its_beginning() {
        let book = book(&["watch hellos #2+: events #2 drop", "watch hellos: events #3+ duplicate"]);
        let faults = |n: usize| {
            let mut events = book.decide(&what("watch", "hellos")).events;
            (0..n).map(|_| events.next()).collect::<Vec<_>>()
        };
        assert_eq!(faults(3), [None, None, Some(EventFault::Duplicate)]);
        assert_eq!(faults(3), [None, Some(EventFault::Drop), Some(EventFault::Duplicate)]);
    }
}
