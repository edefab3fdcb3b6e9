//! All scopes and who looks at them: joins, leaves, reads, own writes, and the way from a change to woken keys.
//! No I/O: `stream` feeds it, the `Hub` is its face.
//!
//! Locks, always in this order: the map of watches, one watch's state, dependencies. Wakes go out after the last.

mod watched;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::task::AbortHandle;

pub use self::watched::Watch;
use self::watched::{Member, State, not_synced};
pub use super::echo::Writing;
use super::{
    Change, Entry, Gap, Interest, NotSynced, Reason, Role, Scope, ScopeState, SyncState, Waker,
    budget::Budget,
    dependencies::Dependencies,
    echo::Echoes,
    index::{self, State as ObjectState},
    protocol::{Event, Page},
    replica::{Broken, Delta, Listed},
};
use crate::{
    contract::Selector,
    identity::Actor,
    names::{Key, Memory, ObjectId},
};

pub struct Registry {
    wake: Waker,
    watches: RwLock<HashMap<Scope, Arc<Watch>>>,
    dependencies: Mutex<Dependencies>,
    echoes: Arc<Echoes>,
    budget: Budget,
    next_member: AtomicU64,
}

pub struct Membership {
    pub watch: Arc<Watch>,
    member: u64,
}

/// Why a list or a watch cannot go on as it is.
#[derive(Debug)]
pub enum Stop {
    Broken(Broken),
    /// The scope does not fit into what the store may hold. Its copy is given up; it had this many bytes.
    Full {
        bytes: usize,
        message: String,
    },
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl Registry {
    pub fn new(wake: Waker, budget: Memory) -> Self {
        Self {
            budget: Budget::new(budget),
            echoes: Echoes::new(Arc::clone(&wake)),
            wake,
            watches: RwLock::default(),
            dependencies: Mutex::default(),
            next_member: AtomicU64::new(0),
        }
    }

    /// `start` is called with the watch of a scope that nobody looked at before.
    pub fn join(
        &self,
        scope: Scope,
        lender: Actor,
        interest: Interest,
        start: impl FnOnce(&Arc<Watch>) -> AbortHandle,
    ) -> Membership {
        let number = self.next_member.fetch_add(1, Ordering::Relaxed);
        let mut watches = self.watches.write();
        let fresh = !watches.contains_key(&scope);
        let watch = watches.entry(scope.clone()).or_insert_with(|| Arc::new(Watch::new(scope)));
        let watch = Arc::clone(watch);
        let present = {
            let mut state = watch.state.write();
            let present = if state.readable() { state.replica.store().entries().cloned().collect() } else { Vec::new() };
            if let Role::Callback(tell) = &interest.role {
                let entries = state.replica.store().entries();
                entries.for_each(|entry| tell(Change { id: entry.id.clone(), entry: Some(Arc::clone(entry)) }));
            }
            // Whoever is new may be allowed what the others are not, and is not told their answer.
            if !state.readable() && !watch.lenders.borrow().contains(&lender) {
                watch.sync.send_replace(SyncState::Pending);
            }
            state.members.insert(number, Member { lender, interest: interest.clone() });
            watch.lenders.send_replace(state.lenders());
            present
        };
        if fresh {
            let _ = watch.task.set(start(&watch));
        }
        drop(watches);
        self.wake_initially(&watch.scope, &interest, &present);
        Membership { watch, member: number }
    }

    /// True: it was the last one, and the copy is gone.
    pub fn leave(&self, membership: &Membership) -> bool {
        let watch = &membership.watch;
        let mut watches = self.watches.write();
        let mut state = watch.state.write();
        let left = state.members.remove(&membership.member);
        watch.lenders.send_replace(state.lenders());
        let replica = state.members.is_empty().then(|| std::mem::take(&mut state.replica));
        if let Some(replica) = &replica {
            watches.remove(&watch.scope);
            if let Some(task) = watch.task.get() {
                task.abort();
            }
            self.budget.charge(replica.store().bytes(), 0);
        }
        // Nobody waits until all of it is freed; and a member's callback may own subscriptions, which leave in turn.
        drop((state, watches));
        let was_last = replica.is_some();
        drop((left, replica));
        was_last
    }

    fn wake_initially(&self, scope: &Scope, interest: &Interest, present: &[Arc<Entry>]) {
        if let Role::Primary = interest.role {
            for entry in present {
                (self.wake)(index::key(scope, &interest.plugin, entry.id.clone()), Reason::Initial);
            }
        }
    }

    pub fn get(&self, scope: &Scope, namespace: &str, name: &str) -> Result<Option<Arc<Entry>>, NotSynced> {
        self.read(scope, |state| match state.replica.quarantined(namespace, name) {
            Some(why) => Err(undecodable(scope, name, why)),
            None => Ok(state.replica.store().get(namespace, name).cloned()),
        })
    }

    /// An object that does not decode might match or not: without it the list would look complete and not be it.
    pub fn list(&self, scope: &Scope, selector: &Selector) -> Result<Vec<Arc<Entry>>, NotSynced> {
        let mut found = self.read(scope, |state| match state.replica.any_quarantined() {
            Some((name, why)) => Err(undecodable(scope, name, why)),
            None => {
                let matches = |entry: &&Arc<Entry>| selector.matches(|label| entry.label(label));
                Ok(state.replica.store().entries().filter(matches).cloned().collect::<Vec<_>>())
            }
        })?;
        found.sort_unstable_by(|a, b| (&a.id.namespace, &a.id.name).cmp(&(&b.id.namespace, &b.id.name)));
        Ok(found)
    }

    pub fn owned_by(&self, scope: &Scope, uid: &str) -> Result<Vec<Arc<Entry>>, NotSynced> {
        self.read(scope, |state| Ok(state.replica.store().owned_by(uid)))
    }

    pub fn count(&self, scope: &Scope, like: impl Fn(&Entry) -> bool) -> Result<usize, NotSynced> {
        self.read(scope, |state| Ok(state.replica.store().entries().filter(|entry| like(entry)).count()))
    }

    pub fn len(&self, scope: &Scope) -> Result<usize, NotSynced> {
        self.read(scope, |state| Ok(state.replica.store().len()))
    }

    fn read<T>(&self, scope: &Scope, answer: impl FnOnce(&State) -> Result<T, NotSynced>) -> Result<T, NotSynced> {
        let Some(watch) = self.watches.read().get(scope).cloned() else {
            return Err(not_synced(scope, Gap::Filling, "nobody has subscribed to it".into()));
        };
        let state = watch.state.read();
        if state.readable() { answer(&state) } else { Err(watch.not_synced(&state)) }
    }

    pub fn writing(&self, by: &Key, object: &ObjectId) -> Writing {
        self.echoes.writing(by, object)
    }

    pub fn record(&self, entry: &Arc<Entry>, by: &Key) {
        for watch in self.holding(&entry.id, by) {
            self.change(&watch, |state| state.replica.record(entry, by).into_iter().collect());
        }
        // Last, so that no event finds the answer neither in the store nor here.
        self.echoes.answered(by, &entry.id, &ObjectState::Version(entry.resource_version));
    }

    pub fn record_deleted(&self, id: &ObjectId, uid: &str, by: &Key) {
        for watch in self.holding(id, by) {
            self.change(&watch, |state| state.replica.record_deleted(id, uid, by).into_iter().collect());
        }
        self.echoes.answered(by, id, &ObjectState::Gone(uid.into()));
    }

    fn holding(&self, id: &ObjectId, by: &Key) -> Vec<Arc<Watch>> {
        let watches = self.watches.read();
        let holding = watches.values().filter(|watch| watch.scope.cluster == by.cluster && watch.scope.holds(id));
        holding.cloned().collect()
    }

    pub fn dependencies(&self) -> MutexGuard<'_, Dependencies> {
        self.dependencies.lock()
    }

    /// One step of a watch's copy, and the wakes that follow from it.
    fn change(&self, watch: &Watch, step: impl FnOnce(&mut State) -> Vec<Delta>) {
        let mut wakes = Vec::new();
        let deltas = {
            let mut state = watch.state.write();
            let before = state.replica.store().bytes();
            let deltas = step(&mut state);
            if !state.members.is_empty() {
                self.budget.charge(before, state.replica.store().bytes());
            }
            wakes.extend(state.wakes(&watch.scope, &deltas));
            deltas
        };
        {
            let dependencies = self.dependencies.lock();
            wakes.extend(deltas.iter().flat_map(|delta| dependencies.wakes(&watch.scope.cluster, delta)));
        }
        self.echoes.send(wakes);
    }

    pub fn page(&self, watch: &Watch, page: Page) -> Result<(), Stop> {
        let mut outcome = Ok(());
        self.change(watch, |state| state.replica.page(page).unwrap_or_else(|broken| none(&mut outcome, broken)));
        outcome?;
        self.afford(watch)
    }

    pub fn event(&self, watch: &Watch, event: Event) -> Result<(), Stop> {
        let mut outcome = Ok(());
        let grows = matches!(event, Event::Present(_));
        self.change(watch, |state| {
            state.events += u64::from(!matches!(event, Event::Bookmark(_) | Event::Listed(_)));
            state.replica.event(event).unwrap_or_else(|broken| none(&mut outcome, broken))
        });
        outcome?;
        if grows { self.afford(watch) } else { Ok(()) }
    }

    /// Refuses a scope that has just grown if the store holds more than it may. What it held is freed, not reported as gone.
    fn afford(&self, watch: &Watch) -> Result<(), Stop> {
        if !self.budget.is_exceeded() {
            return Ok(());
        }
        let bytes = {
            let mut state = watch.state.write();
            if state.is_indispensable() || state.members.is_empty() {
                return Ok(());
            }
            let bytes = state.replica.store().bytes();
            self.budget.charge(bytes, 0);
            state.replica.clear();
            state.given_up = true;
            bytes
        };
        let (scope, limit) = (&watch.scope, self.budget.limit());
        let message = format!(
            "{} in {} does not fit into the cache: it needs more than {bytes} bytes, and with all others that is more than \
             --cache-budget {limit}; raise it, or have fewer objects",
            scope.kind,
            scope.place()
        );
        Err(Stop::Full { bytes, message })
    }

    /// Waits until so many bytes of the store are free.
    pub async fn room_for(&self, bytes: usize) {
        self.budget.wait_for(bytes).await;
    }

    /// The state that a streaming list has shown.
    pub fn list_at(&self, watch: &Watch, version: u64) -> Result<(), Broken> {
        watch.state.write().replica.list_at(version)
    }

    /// After the last page. How many objects are missing, when that is too many to believe it at once.
    pub fn finish_list(&self, watch: &Watch) -> Result<(), usize> {
        let mut doubt = Ok(());
        let mut begins = None;
        self.change(watch, |state| match state.replica.finish_list() {
            Listed::Doubtful { missing } => {
                doubt = Err(missing);
                Vec::new()
            }
            Listed::Complete { first, deltas } => {
                state.lists += 1;
                if first || state.withdrawn {
                    state.withdrawn = false;
                    let present: Vec<Arc<Entry>> = state.replica.store().entries().cloned().collect();
                    let (failed, given_up) = (std::mem::take(&mut state.failed), std::mem::take(&mut state.given_up));
                    begins = Some((state.interests(), present, failed, given_up));
                }
                deltas
            }
        });
        if doubt.is_ok() {
            watch.sync.send_if_modified(|sync| std::mem::replace(sync, SyncState::Synced) != SyncState::Synced);
        }
        if let Some((interests, present, failed, given_up)) = begins {
            interests.iter().for_each(|interest| self.wake_initially(&watch.scope, interest, &present));
            if given_up {
                interests.iter().for_each(|interest| self.wake_owners(&watch.scope, interest));
            }
            // Whoever asked while it was only being filled has waited, or tries again.
            if failed {
                self.wake_readers(&watch.scope);
            }
        }
        doubt
    }

    /// Nobody can say which children vanished while there was no copy, so every owner looks.
    fn wake_owners(&self, scope: &Scope, interest: &Interest) {
        let Role::Owned { by, .. } = &interest.role else { return };
        let owners = Scope { kind: by.clone(), private: None, ..scope.clone() };
        for entry in self.list(&owners, &Selector::default()).unwrap_or_default() {
            (self.wake)(index::key(scope, &interest.plugin, entry.id.clone()), Reason::Relist);
        }
    }

    /// Whoever was told that a scope cannot be read, can read it now.
    fn wake_readers(&self, scope: &Scope) {
        let readers = self.dependencies.lock().readers_in(scope);
        readers.into_iter().for_each(|key| (self.wake)(key, Reason::Dependency));
    }

    pub fn scopes(&self) -> Vec<ScopeState> {
        let watches: Vec<Arc<Watch>> = self.watches.read().values().cloned().collect();
        watches.iter().map(|watch| watch.describe()).collect()
    }
}

/// For a step that could not be made.
fn none(outcome: &mut Result<(), Stop>, broken: Broken) -> Vec<Delta> {
    *outcome = Err(broken.into());
    Vec::new()
}

fn undecodable(scope: &Scope, name: &str, why: &str) -> NotSynced {
    not_synced(scope, Gap::Quarantined, format!("`{name}` does not decode: {why}"))
}

#[cfg(test)]
mod tests;
