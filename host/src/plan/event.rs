//! Events about an object, written as the plugin's account.
//!
//! Best effort: an event that cannot be written fails nothing. The same event about the same object is not told again
//! for a while, so that a plugin that says it in every plan writes nothing in steady state; and of one object so many are told
//! as Kubernetes' own controllers would tell, so that one that says something new each time cannot fill the store.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Run, writer::Target};
use crate::{
    contract::Event,
    event::{self, Regarding, Telling},
    identity::Resource,
};

const QUIET: Duration = Duration::from_secs(600);
const REMEMBERED: usize = 20_000;
/// So many events about one object at once, and after that one in each of these times: what client-go's recorder allows.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(300);

/// What was told lately.
#[derive(Default)]
pub(super) struct Told {
    when: Mutex<HashMap<u64, Instant>>,
    /// By uid: when all that was told of the object will be forgotten.
    spent: Mutex<HashMap<Arc<str>, Instant>>,
}

impl Told {
    /// Whether this is news; from now on it is not.
    fn is_news(&self, uid: &str, event: &Event, now: Instant) -> bool {
        let mut hasher = DefaultHasher::new();
        (uid, &event.severity, &event.reason, &event.message).hash(&mut hasher);
        let mut when = self.when.lock();
        if when.len() >= REMEMBERED {
            when.retain(|_, told| now.duration_since(*told) < QUIET);
        }
        if when.len() >= REMEMBERED {
            when.clear();
        }
        let told = when.insert(hasher.finish(), now);
        told.is_none_or(|told| now.duration_since(told) >= QUIET)
    }

    /// Whether there is room for another event about this object; then it is taken.
    fn has_room(&self, uid: &Arc<str>, now: Instant) -> bool {
        let mut spent = self.spent.lock();
        if spent.len() >= REMEMBERED {
            spent.retain(|_, until| *until > now);
        }
        let until = spent.entry(uid.clone()).or_insert(now);
        let next = (*until).max(now) + REFILL;
        let fits = next - now <= BURST * REFILL;
        if fits {
            *until = next;
        }
        fits
    }
}

impl Run<'_> {
    pub(super) async fn events(&mut self, events: &[Event]) {
        for event in events {
            let (told, now) = (&self.applier.told, Instant::now());
            if !told.is_news(&self.current.uid, event, now) {
                continue;
            }
            if told.has_room(&self.current.uid, now) {
                self.event(event).await;
            } else {
                tracing::debug!(object = %self.current.id, reason = event.reason, "too many events about one object: not told");
            }
        }
    }

    async fn event(&mut self, told: &Event) {
        let about = self.current.clone();
        let regarding = Regarding { id: &about.id, uid: &about.uid, resource_version: &about.resource_version.to_string() };
        let controller = format!("reef.dev/{}", self.author.field_manager);
        let telling = Telling {
            severity: &told.severity,
            reason: &told.reason,
            note: &told.message,
            action: "Reconcile",
            controller: &controller,
        };
        let (id, object) = event::event(regarding, telling);
        let resource = Resource {
            kind: event::kind(),
            plural: Arc::from("events"),
            namespaced: true,
            status: false,
            subresources: Vec::new(),
        };
        if let Err(refusal) = self.writer.note(Target::new(&resource, &id), &object).await
            && !refusal.is_shadowed()
        {
            let failed = super::failure::Failed::from(refusal);
            tracing::warn!(object = %about.id, reason = told.reason, why = failed.message, "an event could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(message: &str) -> Event {
        Event { severity: "Normal".into(), reason: "Scaled".into(), message: message.into() }
    }

    #[test]
    fn the_same_event_is_told_once_in_a_while() {
        let (told, now) = (Told::default(), Instant::now());
        assert!(told.is_news("u1", &event("a"), now));
        assert!(!told.is_news("u1", &event("a"), now + Duration::from_secs(60)));
        assert!(told.is_news("u1", &event("b"), now));
        assert!(told.is_news("u2", &event("a"), now));
        assert!(told.is_news("u1", &event("b"), now + QUIET));
    }

    #[test]
    fn of_one_object_a_burst_is_told_and_then_one_now_and_then() {
        let (told, now) = (Told::default(), Instant::now());
        let room = |uid: &str, at| told.has_room(&uid.into(), at);
        assert_eq!((0..40).filter(|_| room("u1", now)).count(), 25);
        assert!(room("u2", now), "another object has its own");
        assert!(!room("u1", now + REFILL / 2) && room("u1", now + REFILL) && !room("u1", now + REFILL));
        assert_eq!((0..40).filter(|_| room("u1", now + 100 * REFILL)).count(), 25);
    }
}
