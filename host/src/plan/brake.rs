//! The brake on mass loss: a new revision that would take children from too many objects at once prunes nothing before
//! somebody confirms it.
//!
//! Too many are more than a fifth of the plugin's objects, and more than ten. An object loses children if its first
//! complete plan of the revision no longer has one that is there; what it drops later is the ordinary course of things
//! and is not counted. To see the loss before any of it has happened, pruning waits until enough objects are planned: it
//! begins as soon as it could not be too many any more, even if all that are still to come lost something. Objects that
//! have no complete plan, because they fail or wait for something, would keep the others waiting for ever; so after a
//! while they are no longer waited for. Until all are planned, what was pruned goes on counting, and never do more
//! objects lose children than is too many.
//!
//! A revision is what decides what is planned: component and settings. The count begins anew with each start of it, also
//! after a restart of the host: whether the children that are there were planned by this revision is not known then, so
//! what was held is held again. Pure; the clock is passed in.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::names::{Key, ObjectId};

/// Losses of up to so many objects are never held.
const FEW: usize = 10;
/// Nor are those of one object in so many.
const SHARE: usize = 5;
/// So long objects without a complete plan are waited for.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub struct Brake(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// This revision takes away what it likes.
    open: bool,
    /// When the first object was planned.
    since: Option<Instant>,
    planned: HashMap<ObjectId, Loss>,
    /// Keys with children to lose, and what they were told.
    waiting: HashMap<Key, Ruling>,
    /// Counts at the last ruling.
    held: Option<Held>,
    /// How many losing objects the world was told of.
    told: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Nothing,
    Children,
    /// It has lost them.
    Pruned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    Prune,
    /// Not enough is known yet; the key is due again when it is.
    Wait,
    /// Too many; the key is due again when somebody confirms it.
    Held,
}

/// How many objects the plugin has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fleet {
    Exactly(usize),
    /// Not all of its kinds could be read yet.
    AtLeast(usize),
}

/// What is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Objects that would lose children.
    pub losing: usize,
    /// Objects that were planned so far.
    pub planned: usize,
    pub objects: usize,
}

impl Brake {
    /// About an object that has a complete plan. `loses`: it would lose children.
    pub fn ask(&self, key: &Key, loses: bool, fleet: Fleet, now: Instant) -> Ruling {
        let mut state = self.0.lock();
        if state.open {
            return Ruling::Prune;
        }
        let since = *state.since.get_or_insert(now);
        let loss = state.planned.entry(key.object.clone()).or_insert(Loss::Nothing);
        if *loss != Loss::Pruned {
            *loss = if loses { Loss::Children } else { Loss::Nothing };
        }
        let ruling = state.rule(fleet, now.duration_since(since) >= PATIENCE);
        match ruling {
            Ruling::Prune if !state.open && loses => drop(state.planned.insert(key.object.clone(), Loss::Pruned)),
            Ruling::Wait | Ruling::Held if loses => drop(state.waiting.insert(key.clone(), ruling)),
            _ => {}
        }
        ruling
    }

    /// Somebody wants the loss.
    pub fn confirm(&self) {
        self.0.lock().release();
    }

    /// The object is gone.
    pub fn forget(&self, object: &ObjectId) {
        let mut state = self.0.lock();
        state.planned.remove(object);
        state.waiting.retain(|key, _| key.object != *object);
    }

    /// Keys for which there is another ruling by now.
    pub fn due(&self) -> Vec<Key> {
        let mut state = self.0.lock();
        if state.open {
            return state.waiting.drain().map(|(key, _)| key).collect();
        }
        if state.held.is_none() {
            return Vec::new();
        }
        let told_to_wait = state.waiting.iter_mut().filter(|(_, told)| **told == Ruling::Wait);
        told_to_wait.map(|(key, told)| (*told = Ruling::Held, key.clone()).1).collect()
    }

    pub fn held(&self) -> Option<Held> {
        self.0.lock().held
    }

    /// Whether what is held is worth another word: when it begins and ends, when it has doubled, when all is known.
    pub fn is_news(&self) -> bool {
        let mut state = self.0.lock();
        let losing = state.held.map_or(0, |held| held.losing);
        let all_known = state.held.is_some_and(|held| held.planned >= held.objects);
        let news = losing != state.told && (losing == 0 || losing >= 2 * state.told || all_known);
        if news {
            state.told = losing;
        }
        news
    }
}

impl State {
    fn rule(&mut self, fleet: Fleet, patience_is_over: bool) -> Ruling {
        let (Fleet::Exactly(objects) | Fleet::AtLeast(objects)) = fleet;
        let planned = self.planned.len();
        let losing = self.planned.values().filter(|loss| **loss != Loss::Nothing).count();
        let most = FEW.max(objects / SHARE);
        self.held = (losing > most).then_some(Held { losing, planned, objects });
        if losing > most {
            Ruling::Held
        } else if matches!(fleet, Fleet::Exactly(_)) && losing + objects.saturating_sub(planned) <= most {
            self.release();
            Ruling::Prune
        } else if patience_is_over {
            Ruling::Prune
        } else {
            Ruling::Wait
        }
    }

    fn release(&mut self) {
        (self.open, self.held) = (true, None);
        self.planned = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Cluster, PluginId};

    struct Plugin {
        brake: Brake,
        objects: usize,
        now: Instant,
    }

    impl Plugin {
        fn of(objects: usize) -> Self {
            Self { brake: Brake::default(), objects, now: Instant::now() }
        }

        fn plan(&self, number: usize, loses: bool) -> Ruling {
            self.brake.ask(&key(number), loses, Fleet::Exactly(self.objects), self.now)
        }
    }

    fn key(number: usize) -> Key {
        let object = ObjectId::new("demo.reef.dev/v1/Hello".parse().unwrap(), "a", &number.to_string());
        Key { plugin: PluginId::new("a", "p"), cluster: Cluster::local(), object }
    }

    #[test]
    fn of_up_to_ten_objects_any_may_lose_children_at_once() {
        let fleet = Plugin::of(10);
        assert!((0..10).all(|n| fleet.plan(n, true) == Ruling::Prune));
        assert_eq!(fleet.brake.held(), None);
    }

    #[test]
    fn as_long_as_not_all_kinds_are_read_nothing_is_sure() {
        let fleet = Plugin::of(3);
        assert_eq!(fleet.brake.ask(&key(0), true, Fleet::AtLeast(3), fleet.now), Ruling::Wait);
        assert_eq!(fleet.brake.ask(&key(0), true, Fleet::AtLeast(3), fleet.now + PATIENCE), Ruling::Prune);
    }

    #[test]
    fn nothing_is_pruned_before_it_is_sure_that_it_is_not_too_much() {
        let fleet = Plugin::of(100);
        assert!((0..20).all(|n| fleet.plan(n, true) == Ruling::Wait));
        assert!((20..99).all(|n| fleet.plan(n, false) == Ruling::Wait));
        assert!(fleet.brake.due().is_empty());
        assert_eq!(fleet.plan(99, false), Ruling::Prune);
        assert_eq!(fleet.brake.due().len(), 20);
        assert_eq!(fleet.plan(100, true), Ruling::Prune, "what comes later is the ordinary course of things");
    }

    #[test]
    fn more_than_a_fifth_is_held_until_it_is_confirmed() {
        let fleet = Plugin::of(100);
        assert!((0..20).all(|n| fleet.plan(n, true) == Ruling::Wait));
        assert!((20..100).all(|n| fleet.plan(n, true) == Ruling::Held));
        assert_eq!(fleet.brake.due().len(), 20, "those that were told to wait are told that they are held");
        assert!(fleet.brake.due().is_empty());
        assert_eq!(fleet.plan(3, true), Ruling::Held);
        assert_eq!(fleet.brake.held(), Some(Held { losing: 100, planned: 100, objects: 100 }));
        fleet.brake.confirm();
        assert_eq!((fleet.brake.due().len(), fleet.brake.held()), (100, None));
        assert_eq!(fleet.plan(3, true), Ruling::Prune);
    }

    #[test]
    fn plans_that_no_longer_lose_anything_let_go_of_it() {
        let fleet = Plugin::of(12);
        (0..11).for_each(|n| assert_ne!(fleet.plan(n, true), Ruling::Prune));
        assert_eq!(fleet.plan(11, false), Ruling::Held);
        assert_eq!(fleet.plan(0, false), Ruling::Prune);
        assert_eq!(fleet.brake.due().len(), 11);
    }

    #[test]
    fn objects_that_have_no_plan_are_waited_for_but_not_for_ever_and_losses_go_on_counting() {
        let mut fleet = Plugin::of(100);
        assert_eq!(fleet.plan(0, true), Ruling::Wait);
        fleet.now += PATIENCE;
        assert!((0..20).all(|n| fleet.plan(n, true) == Ruling::Prune));
        assert!((0..20).all(|n| fleet.plan(n, false) == Ruling::Prune));
        assert_eq!(fleet.plan(20, true), Ruling::Held);
    }

    #[test]
    fn what_is_gone_is_not_counted() {
        let mut fleet = Plugin::of(20);
        (0..11).for_each(|n| assert_ne!(fleet.plan(n, true), Ruling::Prune));
        assert_eq!(fleet.brake.held().map(|held| held.losing), Some(11));
        fleet.brake.forget(&key(0).object);
        fleet.objects = 19;
        assert_eq!(fleet.plan(11, false), Ruling::Wait);
    }

    #[test]
    fn it_is_news_when_it_begins_doubles_is_all_known_and_ends() {
        let fleet = Plugin::of(30);
        let news: Vec<usize> = (0..30)
            .filter(|n| {
                let _ = fleet.plan(*n, true);
                fleet.brake.is_news()
            })
            .collect();
        assert_eq!(news, [10, 21, 29]);
        fleet.brake.confirm();
        assert!(fleet.brake.is_news() && !fleet.brake.is_news());
    }
}
