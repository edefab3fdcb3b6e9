//! Somebody who changes a child back whenever it is repaired: named, and repaired ever more slowly.
//!
//! A repair is a write of what is planned already: the hash of the plan stands on the object, but our manager no longer
//! owns all of it. Five of them within a minute are a fight. From then on each repair of that object has to wait, twice as
//! long each time, until nobody has changed it for a while; the rest of the plan is carried out meanwhile.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{
    Mode, Run,
    complete::{APPLIED, Wanted},
    failure::Failed,
    writer::{ManagedEntry, Target, managed_entries},
};
use crate::{names::ObjectId, watch::Entry};

/// So many repairs within [`WITHIN`] are a fight.
const MANY: usize = 5;
const WITHIN: Duration = Duration::from_secs(60);
/// First and longest wait before the next repair.
const PAUSE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// A fight is over when nothing had to be repaired for so long after a pause.
const CALM: Duration = Duration::from_secs(60);
const REMEMBERED: usize = 10_000;

/// Objects that were repaired lately.
#[derive(Default)]
pub(super) struct Fights(Mutex<HashMap<ObjectId, Fight>>);

#[derive(Default)]
struct Fight {
    repairs: VecDeque<Instant>,
    /// The wait, until when, and what is said of it.
    paused: Option<(Duration, Instant, String)>,
}

/// What may be done about drift now.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Repair,
    /// Repair it, and say who keeps changing it.
    Name,
    /// Not before so long.
    Pause(Duration, String),
}

impl Fights {
    fn turn(&self, id: &ObjectId, now: Instant) -> Turn {
        let mut all = self.0.lock();
        if all.len() >= REMEMBERED {
            all.retain(|_, fight| fight.is_recent(now));
        }
        let fight = all.entry(id.clone()).or_default();
        if let Some((_, until, said)) = &fight.paused
            && now < *until
        {
            return Turn::Pause(*until - now, said.clone());
        }
        fight.repairs.retain(|at| now.duration_since(*at) < WITHIN);
        fight.repairs.push_back(now);
        fight.paused.take_if(|(_, until, _)| now.duration_since(*until) >= CALM);
        if fight.paused.is_some() || fight.repairs.len() >= MANY { Turn::Name } else { Turn::Repair }
    }

    /// Begins the next pause, and says how long it is.
    fn pause(&self, id: &ObjectId, said: &str, now: Instant) -> Duration {
        let mut all = self.0.lock();
        let fight = all.entry(id.clone()).or_default();
        let pause = fight.paused.as_ref().map_or(PAUSE.0, |(pause, ..)| (*pause * 2).min(PAUSE.1));
        fight.paused = Some((pause, now + pause, said.to_owned()));
        pause
    }
}

impl Fight {
    fn is_recent(&self, now: Instant) -> bool {
        let paused = self.paused.as_ref().is_some_and(|(_, until, _)| now < *until + CALM);
        paused || self.repairs.back().is_some_and(|at| now.duration_since(*at) < WITHIN)
    }
}

impl Run<'_> {
    /// Whether what is there may be made as planned now. If it was so already and is changed again and again, the run ends
    /// with saying by whom.
    pub(super) async fn may_repair(
        &mut self,
        wanted: &Wanted,
        live: &Entry,
        (hash_in, manager): (&str, &str),
    ) -> Result<bool, Failed> {
        // Who repairs nothing fights with nobody.
        if live.annotation(hash_in) != Some(&wanted.hash) || self.author.mode == Mode::Shadow {
            return Ok(true);
        }
        let fights = &self.applier.fights;
        match fights.turn(&wanted.id, Instant::now()) {
            Turn::Repair => Ok(true),
            Turn::Pause(wait, said) => {
                self.contested = Some(Failed::contested(said, wait));
                Ok(false)
            }
            Turn::Name => {
                let text = self.writer.live(Target::new(&wanted.resource, &wanted.id)).await?.map(|(_, text)| text);
                let who = text.and_then(|text| opponent(wanted, &managed_entries(&text), manager));
                let said = sentence(&wanted.id, who);
                tracing::warn!(object = %wanted.id, owner = %self.owner.entry.id, said, "drift is repaired ever more slowly");
                let wait = fights.pause(&wanted.id, &said, Instant::now());
                self.contested = Some(Failed::contested(said, wait));
                Ok(true)
            }
        }
    }

    /// The same for a child.
    pub(super) async fn may_repair_child(&mut self, child: &Wanted, live: &Entry) -> Result<bool, Failed> {
        let manager = self.writer.manager.clone();
        self.may_repair(child, live, (APPLIED, &manager)).await
    }
}

struct Opponent {
    manager: String,
    field: Option<String>,
}

fn sentence(id: &ObjectId, who: Option<Opponent>) -> String {
    let (who, what) = match who {
        Some(Opponent { manager, field: Some(field) }) => (format!("field manager `{manager}`"), format!("`{field}` of {id}")),
        Some(Opponent { manager, field: None }) => (format!("field manager `{manager}`"), id.to_string()),
        None => ("somebody".into(), id.to_string()),
    };
    format!("{who} keeps changing {what}, so it is repaired ever more slowly: have them stop, or leave it out of the plan")
}

/// Who owns what of the plan we should: or else who wrote last.
fn opponent(wanted: &Wanted, entries: &[ManagedEntry], manager: &str) -> Option<Opponent> {
    let ours = entries.iter().find(|entry| entry.manager == manager && entry.subresource.is_empty());
    let ours = ours.map(|entry| entry.fields.clone()).unwrap_or_default();
    let plan = wanted.without_identity();
    let theirs = || entries.iter().filter(|entry| entry.manager != manager && entry.subresource.is_empty());
    let takes = |entry: &ManagedEntry| {
        let field = taken(&plan, ours.as_object(), entry.fields.as_object()?)?;
        Some(Opponent { manager: entry.manager.clone(), field: Some(field) })
    };
    theirs().find_map(takes).or_else(|| {
        let last = theirs().max_by(|a, b| a.time.cmp(&b.time))?;
        Some(Opponent { manager: last.manager.clone(), field: None })
    })
}

/// The first field of the plan that they own and we do not. A list is named as a whole.
fn taken(plan: &Value, ours: Option<&Map<String, Value>>, theirs: &Map<String, Value>) -> Option<String> {
    let Value::Object(fields) = plan else {
        let lacks = |key: &String| key != "." && ours.is_none_or(|ours| !ours.contains_key(key));
        return theirs.keys().any(lacks).then(String::new);
    };
    fields.iter().find_map(|(key, value)| {
        let name = format!("f:{key}");
        let below = theirs.get(&name)?.as_object()?;
        match ours.and_then(|ours| ours.get(&name)) {
            None => Some(format!(".{key}{}", taken(value, None, below).unwrap_or_default())),
            Some(ours) => taken(value, ours.as_object(), below).map(|rest| format!(".{key}{rest}")),
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::tests::child, *};

    fn id() -> ObjectId {
        child("a").id
    }

    #[test]
    fn five_repairs_within_a_minute_are_a_fight_and_fewer_are_not() {
        let (fights, start) = (Fights::default(), Instant::now());
        for i in 0..20 {
            assert_eq!(fights.turn(&id(), start + i * Duration::from_secs(15)), Turn::Repair, "one every 15 s");
        }
        let now = start + Duration::from_secs(600);
        let turns: Vec<Turn> = (0..5).map(|i| fights.turn(&id(), now + Duration::from_secs(i))).collect();
        assert_eq!(turns, [Turn::Repair, Turn::Repair, Turn::Repair, Turn::Repair, Turn::Name]);
        assert_eq!(fights.turn(&child("b").id, now), Turn::Repair, "another object has its own count");
    }

    #[test]
    fn each_pause_is_twice_as_long_until_it_is_calm() {
        let (fights, mut now) = (Fights::default(), Instant::now());
        (0..5).for_each(|_| drop(fights.turn(&id(), now)));
        for seconds in [10, 20, 40, 80, 160, 300, 300] {
            assert_eq!(fights.pause(&id(), "x", now), Duration::from_secs(seconds));
            assert_eq!(
                fights.turn(&id(), now + Duration::from_secs(1)),
                Turn::Pause(Duration::from_secs(seconds - 1), "x".into())
            );
            now += Duration::from_secs(seconds);
            assert_eq!(fights.turn(&id(), now), Turn::Name);
        }
        now += Duration::from_secs(300) + CALM;
        assert_eq!(fights.turn(&id(), now), Turn::Repair);
    }

    fn entry(manager: &str, time: &str, fields: Value) -> ManagedEntry {
        ManagedEntry { manager: manager.into(), time: time.into(), fields, ..ManagedEntry::default() }
    }

    #[test]
    fn the_opponent_is_who_has_what_we_should_or_else_who_wrote_last() {
        let ours = entry("reef:hello", "3", json!({"f:data": {}, "f:metadata": {"f:labels": {"f:reef.dev/plugin": {}}}}));
        let other = entry("other", "9", json!({"f:data": {"f:more": {}}}));
        let thief = entry("kubectl", "2", json!({"f:data": {"f:x": {}}}));
        let named = |entries: &[ManagedEntry]| {
            let found = opponent(&child("a"), entries, "reef:hello").unwrap();
            (found.manager, found.field)
        };
        assert_eq!(named(&[other, thief, ours]), ("kubectl".into(), Some(".data.x".into())));
        let ours = entry("reef:hello", "3", json!({"f:data": {"f:x": {}}}));
        let (one, two) = (entry("one", "1", json!({"f:spec": {}})), entry("two", "2", json!({"f:spec": {}})));
        assert_eq!(named(&[two, one, ours]), ("two".into(), None));
    }

    #[test]
    fn the_sentence_says_who_what_and_what_to_do() {
        let who = Opponent { manager: "kubectl-edit".into(), field: Some(".data.x".into()) };
        assert_eq!(
            sentence(&id(), Some(who)),
            "field manager `kubectl-edit` keeps changing `.data.x` of v1/ConfigMap team-a/a, so it is repaired ever more slowly: \
             have them stop, or leave it out of the plan"
        );
    }
}
