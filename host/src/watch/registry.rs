//! All scopes and who looks at them: joins, leaves, reads, own writes, and the way from a change to woken keys.
//! No I/O: `stream` feeds it, the `Hub` is its face.
//!
//! Locks, always in this order: the map of watches, one watch's state, dependencies. Wakes go out after the last.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use tokio::{sync::watch, task::AbortHandle};

pub use super::echo::Writing;
use super::{
    Change, Entry, Interest, NotSynced, Reason, Role, Scope, SyncState, Waker,
    echo::Echoes,
    index::{self, Cause, Dependencies, State as ObjectState, Wake},
    protocol::{Event, Page},
    replica::{Broken, Delta, Listed, Replica},
};
use crate::{
    contract::Read,
    identity::Actor,
    names::{Key, ObjectId},
};

pub struct Registry {
    wake: Waker,
    watches: RwLock<HashMap<Scope, Arc<Watch>>>,
    dependencies: Mutex<Dependencies>,
    echoes: Arc<Echoes>,
    next_member: AtomicU64,
}

/// One scope that somebody looks at.
pub struct Watch {
    pub scope: Scope,
    pub sync: watch::Sender<SyncState>,
    /// Who the watch may run as: one for each member.
    pub lenders: watch::Sender<Vec<Actor>>,
    state: RwLock<State>,
    task: OnceLock<AbortHandle>,
}

#[derive(Default)]
struct State {
    replica: Replica,
    members: BTreeMap<u64, Member>,
    /// Why the copy must not be read although it was complete once.
    withdrawn: bool,
    last_error: Option<String>,
    lists: u64,
    events: u64,
}

struct Member {
    lender: Actor,
    interest: Interest,
}

pub struct Membership {
    pub watch: Arc<Watch>,
    member: u64,
}

/// How a scope is doing: for metrics, readiness and conditions.
#[derive(Debug, Clone)]
pub struct ScopeState {
    pub scope: Scope,
    pub synced: bool,
    pub objects: usize,
    /// JSON text in the store.
    pub bytes: usize,
    /// Objects that did not decode.
    pub quarantined: usize,
    /// Of the last failure, until the watch is well again.
    pub last_error: Option<String>,
    pub subscribers: usize,
    pub resource_version: u64,
    /// Complete lists so far.
    pub lists: u64,
    /// Events so far, without bookmarks.
    pub events: u64,
}

impl State {
    fn readable(&self) -> bool {
        self.replica.is_complete() && !self.withdrawn
    }

    fn lenders(&self) -> Vec<Actor> {
        self.members.values().map(|member| member.lender.clone()).collect()
    }

    /// What a change means to the members; callbacks are told at once, while nothing else can change.
    fn wakes(&self, scope: &Scope, deltas: &[Delta]) -> Vec<Wake> {
        let mut wakes: Vec<Wake> = deltas.iter().filter_map(overtaken).collect();
        for delta in deltas {
            for member in self.members.values() {
                wakes.extend(index::wakes(scope, &member.interest, delta));
                if let (Role::Callback(tell), Some(change)) = (&member.interest.role, change(delta)) {
                    tell(change);
                }
            }
        }
        wakes
    }
}

fn overtaken(delta: &Delta) -> Option<Wake> {
    let Delta::Overtaken { id, by } = delta else { return None };
    let reason = if by.object == *id { Reason::Changed } else { Reason::Child };
    // No write answers with version zero: this waits for the end of a write, but is never taken for its echo.
    Some(Wake { key: by.clone(), reason, cause: Cause { object: id.clone(), state: ObjectState::Version(0) } })
}

fn change(delta: &Delta) -> Option<Change> {
    match delta {
        Delta::Changed { new, .. } => Some(Change { id: delta.cause()?.object, entry: new.clone() }),
        Delta::Overtaken { .. } => None,
    }
}

impl Watch {
    fn new(scope: Scope) -> Self {
        let (sync, lenders) = (watch::Sender::new(SyncState::Pending), watch::Sender::new(Vec::new()));
        Self { scope, sync, lenders, state: RwLock::default(), task: OnceLock::new() }
    }

    pub fn must_list(&self) -> bool {
        self.state.read().replica.must_list()
    }

    pub fn version(&self) -> u64 {
        self.state.read().replica.version()
    }

    pub fn start_over(&self) {
        self.state.write().replica.start_over();
    }

    pub fn begin_list(&self) {
        self.state.write().replica.begin_list();
    }

    pub fn last_error(&self) -> Option<String> {
        self.state.read().last_error.clone()
    }

    /// The watch is established.
    pub fn is_well(&self) {
        self.state.write().last_error = None;
    }

    /// A failure that leaves what is in the store true, if late.
    pub fn is_late(&self, message: String) {
        let complete = {
            let mut state = self.state.write();
            state.last_error = Some(message.clone());
            state.readable()
        };
        if !complete {
            self.fail(message, false);
        }
    }

    /// Nobody may read it, or the kind is not there: what is in the store must not be served any more.
    pub fn withdraw(&self, message: String, forbidden: bool) {
        {
            let mut state = self.state.write();
            (state.withdrawn, state.last_error) = (true, Some(message.clone()));
            state.replica.start_over();
        }
        self.fail(message, forbidden);
    }

    fn fail(&self, message: String, forbidden: bool) {
        self.sync.send_replace(SyncState::Failed { message, forbidden });
    }

    fn not_synced(&self, state: &State, quarantined: Option<&str>) -> NotSynced {
        let why = match (quarantined, &state.last_error) {
            (Some(why), _) => format!("the object does not decode: {why}"),
            (None, Some(error)) => error.clone(),
            (None, None) => "its first list is not finished".into(),
        };
        not_synced(&self.scope, why)
    }
}

fn not_synced(scope: &Scope, why: String) -> NotSynced {
    let place = if scope.namespace.is_empty() { "the cluster".into() } else { format!("namespace {}", scope.namespace) };
    NotSynced { kind: scope.kind.clone(), place, why }
}

impl Registry {
    pub fn new(wake: Waker) -> Self {
        Self {
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

    pub fn leave(&self, membership: &Membership) {
        let watch = &membership.watch;
        let mut watches = self.watches.write();
        let mut state = watch.state.write();
        state.members.remove(&membership.member);
        watch.lenders.send_replace(state.lenders());
        if state.members.is_empty() {
            watches.remove(&watch.scope);
            if let Some(task) = watch.task.get() {
                task.abort();
            }
        }
    }

    fn wake_initially(&self, scope: &Scope, interest: &Interest, present: &[Arc<Entry>]) {
        if let Role::Primary = interest.role {
            for entry in present {
                (self.wake)(index::key(scope, &interest.plugin, entry.id.clone()), Reason::Initial);
            }
        }
    }

    pub fn get(&self, scope: &Scope, namespace: &str, name: &str) -> Result<Option<Arc<Entry>>, NotSynced> {
        self.read(scope, |watch, state| match state.replica.quarantined(namespace, name) {
            Some(why) => Err(watch.not_synced(state, Some(why))),
            None => Ok(state.replica.store().get(namespace, name).cloned()),
        })
    }

    pub fn owned_by(&self, scope: &Scope, uid: &str) -> Result<Vec<Arc<Entry>>, NotSynced> {
        self.read(scope, |_, state| Ok(state.replica.store().owned_by(uid)))
    }

    pub fn count(&self, scope: &Scope, like: impl Fn(&Entry) -> bool) -> Result<usize, NotSynced> {
        self.read(scope, |_, state| Ok(state.replica.store().entries().filter(|entry| like(entry)).count()))
    }

    pub fn len(&self, scope: &Scope) -> Result<usize, NotSynced> {
        self.read(scope, |_, state| Ok(state.replica.store().len()))
    }

    fn read<T>(&self, scope: &Scope, answer: impl FnOnce(&Watch, &State) -> Result<T, NotSynced>) -> Result<T, NotSynced> {
        let Some(watch) = self.watches.read().get(scope).cloned() else {
            return Err(not_synced(scope, "nobody has subscribed to it".into()));
        };
        let state = watch.state.read();
        if state.readable() { answer(&watch, &state) } else { Err(watch.not_synced(&state, None)) }
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

    pub fn add_read(&self, key: &Key, read: &Read) {
        self.dependencies.lock().add(key, read);
    }

    pub fn set_reads(&self, key: &Key, reads: &[Read]) {
        self.dependencies.lock().set(key, reads);
    }

    /// One step of a watch's copy, and the wakes that follow from it.
    fn change(&self, watch: &Watch, step: impl FnOnce(&mut State) -> Vec<Delta>) {
        let mut wakes = Vec::new();
        let deltas = {
            let mut state = watch.state.write();
            let deltas = step(&mut state);
            wakes.extend(state.wakes(&watch.scope, &deltas));
            deltas
        };
        {
            let dependencies = self.dependencies.lock();
            wakes.extend(deltas.iter().flat_map(|delta| dependencies.wakes(&watch.scope.cluster, delta)));
        }
        self.echoes.send(wakes);
    }

    pub fn page(&self, watch: &Watch, page: Page) -> Result<(), Broken> {
        let mut outcome = Ok(());
        self.change(watch, |state| {
            state.replica.page(page).unwrap_or_else(|broken| {
                outcome = Err(broken);
                Vec::new()
            })
        });
        outcome
    }

    pub fn event(&self, watch: &Watch, event: Event) -> Result<(), Broken> {
        let mut outcome = Ok(());
        self.change(watch, |state| {
            state.events += u64::from(!matches!(event, Event::Bookmark(_)));
            state.replica.event(event).unwrap_or_else(|broken| {
                outcome = Err(broken);
                Vec::new()
            })
        });
        outcome
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
                    let interests: Vec<Interest> = state.members.values().map(|member| member.interest.clone()).collect();
                    begins = Some((interests, state.replica.store().entries().cloned().collect::<Vec<_>>()));
                }
                deltas
            }
        });
        if doubt.is_ok() {
            watch.sync.send_if_modified(|sync| std::mem::replace(sync, SyncState::Synced) != SyncState::Synced);
        }
        if let Some((interests, present)) = begins {
            interests.iter().for_each(|interest| self.wake_initially(&watch.scope, interest, &present));
            self.wake_readers(&watch.scope);
        }
        doubt
    }

    /// Whoever has read in a scope that could not answer, can now.
    fn wake_readers(&self, scope: &Scope) {
        let readers = self.dependencies.lock().readers_in(scope);
        readers.into_iter().for_each(|key| (self.wake)(key, Reason::Dependency));
    }

    pub fn scopes(&self) -> Vec<ScopeState> {
        let watches: Vec<Arc<Watch>> = self.watches.read().values().cloned().collect();
        watches.iter().map(|watch| watch.describe()).collect()
    }
}

impl Watch {
    fn describe(&self) -> ScopeState {
        let state = self.state.read();
        ScopeState {
            scope: self.scope.clone(),
            synced: state.readable(),
            objects: state.replica.store().len(),
            bytes: state.replica.store().bytes(),
            quarantined: state.replica.quarantine_len(),
            last_error: state.last_error.clone(),
            subscribers: state.members.len(),
            resource_version: state.replica.version(),
            lists: state.lists,
            events: state.events,
        }
    }
}

#[cfg(test)]
mod tests;
