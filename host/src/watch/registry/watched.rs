//! One scope that somebody looks at: its copy, its members, and where it stands.

use std::{collections::BTreeMap, sync::OnceLock};

use parking_lot::RwLock;
use tokio::{sync::watch, task::AbortHandle};

use crate::{
    identity::Actor,
    watch::{
        Change, Gap, Interest, NotSynced, Reason, Role, Scope, ScopeState, SyncState, Why,
        index::{self, Cause, State as ObjectState, Wake},
        replica::{Delta, Replica},
    },
};

pub struct Watch {
    pub scope: Scope,
    pub sync: watch::Sender<SyncState>,
    /// Who the watch may run as: one for each member.
    pub lenders: watch::Sender<Vec<Actor>>,
    pub(super) state: RwLock<State>,
    pub(super) task: OnceLock<AbortHandle>,
}

#[derive(Default)]
pub(super) struct State {
    pub replica: Replica,
    pub members: BTreeMap<u64, Member>,
    /// Why the copy must not be read although it was complete once.
    pub withdrawn: bool,
    /// Somebody may have been told that it cannot be read.
    pub failed: bool,
    /// The copy was given up: children that vanished since will not be missed.
    pub given_up: bool,
    pub last_error: Option<String>,
    pub lists: u64,
    pub events: u64,
}

pub(super) struct Member {
    pub lender: Actor,
    pub interest: Interest,
}

impl State {
    pub fn readable(&self) -> bool {
        self.replica.is_complete() && !self.withdrawn
    }

    pub fn lenders(&self) -> Vec<Actor> {
        self.members.values().map(|member| member.lender.clone()).collect()
    }

    pub fn interests(&self) -> Vec<Interest> {
        self.members.values().map(|member| member.interest.clone()).collect()
    }

    /// What a callback was told cannot be taken back, and it is the host's own: such a scope is never refused for its size.
    pub fn is_indispensable(&self) -> bool {
        self.members.values().any(|member| matches!(member.interest.role, Role::Callback(_)))
    }

    /// What a change means to the members; callbacks are told at once, while nothing else can change.
    pub fn wakes(&self, scope: &Scope, deltas: &[Delta]) -> Vec<Wake> {
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
    pub fn new(scope: Scope) -> Self {
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

    /// Whether what is in the store is served.
    pub fn is_readable(&self) -> bool {
        self.state.read().readable()
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
            self.fail(message, Why::Unwell);
        }
    }

    /// Nobody may read it, or the kind is not there: what is in the store must not be served any more.
    pub fn withdraw(&self, message: String, why: Why) {
        {
            let mut state = self.state.write();
            (state.withdrawn, state.last_error) = (true, Some(message.clone()));
            state.replica.start_over();
        }
        self.fail(message, why);
    }

    fn fail(&self, message: String, why: Why) {
        self.state.write().failed = true;
        self.sync.send_replace(SyncState::Failed { message, why });
    }

    pub(super) fn not_synced(&self, state: &State) -> NotSynced {
        let why = state.last_error.clone().unwrap_or_else(|| "its first list is not finished".into());
        let gap = if state.failed { Gap::Unreadable } else { Gap::Filling };
        not_synced(&self.scope, gap, why)
    }

    pub(super) fn describe(&self) -> ScopeState {
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

pub(super) fn not_synced(scope: &Scope, gap: Gap, why: String) -> NotSynced {
    NotSynced { kind: scope.kind.clone(), place: scope.place(), why, gap }
}
