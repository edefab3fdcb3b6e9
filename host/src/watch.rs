//! The hub: one watch per scope, however many plugins look at it; the store; and from changes to keys.
//!
//! A subscriber says what it looks at ([`Scope`]) and what a change there means to it ([`Interest`]). The first one
//! of a scope starts its watch, all others share it and the one copy of every object, and the last one that leaves
//! takes both along. The way of an event: `stream` reads it, `protocol` decodes it, `replica` decides what it
//! changes, `store` keeps the result, `index` and `registry` turn the change into keys.
//!
//! It knows names, reads and how to reach an API server; never Wasm, the queue, or the catalog.

mod echo;
mod entry;
mod index;
mod protocol;
pub mod raw;
mod registry;
mod replica;
mod store;
mod stream;

use std::{fmt, sync::Arc, time::Duration};

use tokio::{sync::watch, task::AbortHandle};

pub use entry::{Entry, Managed, Operation, Owner};
pub use registry::{ScopeState, Writing};

use crate::{
    contract::Read,
    identity::{Actor, Api},
    names::{Account, Cluster, Key, Kind, ObjectId, PluginId},
};
use registry::{Membership, Registry};

/// What one watch covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    pub cluster: Cluster,
    pub kind: Kind,
    /// Empty: all namespaces, or a cluster-scoped kind.
    pub namespace: Arc<str>,
    /// A private watch of the one object of this name, never shared with another account: Secrets.
    pub only: Option<(Account, Arc<str>)>,
}

impl Scope {
    pub fn new(cluster: Cluster, kind: Kind, namespace: &str) -> Self {
        Self { cluster, kind, namespace: namespace.into(), only: None }
    }

    /// Whether an object of this scope's cluster belongs into it.
    pub fn holds(&self, id: &ObjectId) -> bool {
        // An object of the kind that is in no namespace says that none of them is.
        self.kind == id.kind
            && (self.namespace.is_empty() || self.namespace == id.namespace || id.namespace.is_empty())
            && self.only.as_ref().is_none_or(|(_, name)| *name == id.name)
    }
}

/// Takes a key that has something to do. Called without any lock of the hub, from several tasks; must not block.
pub type Waker = Arc<dyn Fn(Key, Reason) + Send + Sync>;

/// Why a key was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The object itself changed.
    Changed,
    /// A child came, changed or went.
    Child,
    /// Something that the key has read changed.
    Dependency,
    /// The object was there when its scope was first read, or when the subscriber came.
    Initial,
    /// Any of these, found out later, after a gap in the watch.
    Relist,
}

/// What a change in a scope means to one subscriber.
#[derive(Clone, Debug)]
pub struct Interest {
    pub plugin: PluginId,
    pub role: Role,
}

#[derive(Clone)]
pub enum Role {
    /// The kind that it reconciles: wakes the key of the object itself.
    Primary,
    /// A kind of its children: wakes the key of every owner of the group and kind of `by`, whatever the version. What
    /// carries another plugin's mark before and after a change is that plugin's business and wakes nobody here.
    Owned { by: Kind, mark: Arc<str> },
    /// Wakes only the keys that have read what changed.
    Read,
    /// Is told of every object of the first list and of every change, in order. Called with the scope locked: it must
    /// be quick and must not call the hub.
    Callback(Callback),
}

pub type Callback = Arc<dyn Fn(Change) + Send + Sync>;

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("Primary"),
            Self::Owned { by, mark } => write!(f, "Owned {{ by: {by}, mark: {mark} }}"),
            Self::Read => f.write_str("Read"),
            Self::Callback(_) => f.write_str("Callback"),
        }
    }
}

/// What a [`Role::Callback`] is told: the object as it is now, or that it is gone.
#[derive(Clone, Debug)]
pub struct Change {
    pub id: ObjectId,
    pub entry: Option<Arc<Entry>>,
}

/// How far a scope is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncState {
    /// Not read completely yet.
    Pending,
    /// Complete and followed. Stays while a broken watch is resumed: the store is then late, never incomplete.
    Synced,
    /// Cannot be read. It goes on trying.
    Failed {
        message: String,
        /// Whether the API server refused, rather than not answering or not knowing the kind.
        forbidden: bool,
    },
}

/// The cache cannot answer: it is not complete, so that "not found" would be a guess.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cache of {kind} in {place} is not complete: {why}")]
pub struct NotSynced {
    pub kind: Kind,
    pub place: String,
    pub why: String,
}

#[derive(Clone, Debug)]
pub struct HubOptions {
    /// Waits after a failure double from the first to the second, with jitter, for each watch on its own.
    pub backoff: (Duration, Duration),
    /// A watch that says nothing for so long, not even a bookmark (one a minute), is taken for dead.
    pub idle: Duration,
    /// A watch is asked to end after this, up to twice this, and then resumed.
    pub watch_timeout: Duration,
    /// A watched scope is read anew after so long, lest an event that was never sent stays missed.
    pub relist: Duration,
    /// Objects per page of a list.
    pub page: usize,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            backoff: (Duration::from_millis(200), Duration::from_secs(10)),
            idle: Duration::from_secs(90),
            watch_timeout: Duration::from_secs(300),
            relist: Duration::from_secs(3600),
            page: 500,
        }
    }
}

/// The one cache and all watches of a cluster. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    api: Api,
    options: HubOptions,
    registry: Registry,
}

impl Hub {
    pub fn new(api: Api, wake: Waker, options: HubOptions) -> Self {
        Self { shared: Arc::new(Shared { api, options, registry: Registry::new(wake) }) }
    }

    /// Joins a scope. `lender` is who the watch may run as; of several lenders one is used, and another takes over
    /// when that one is refused or leaves. A `Primary` of a scope that is synced gets its `Initial` wakes before this
    /// returns. Dropping the subscription leaves; the last one out ends the watch and frees the store.
    /// Must be called on a Tokio runtime.
    pub fn subscribe(&self, scope: Scope, lender: Actor, interest: Interest) -> Subscription {
        let shared = Arc::clone(&self.shared);
        let start = |watch: &Arc<registry::Watch>| -> AbortHandle {
            tokio::spawn(stream::follow(Arc::clone(&shared), Arc::clone(watch))).abort_handle()
        };
        let membership = self.shared.registry.join(scope, lender, interest, start);
        Subscription { shared: Arc::clone(&self.shared), membership }
    }

    /// The object as far as the hub knows, own writes included.
    pub fn get(&self, scope: &Scope, namespace: &str, name: &str) -> Result<Option<Arc<Entry>>, NotSynced> {
        self.shared.registry.get(scope, namespace, name)
    }

    /// All objects with an owner reference to this uid.
    pub fn owned_by(&self, scope: &Scope, uid: &str) -> Result<Vec<Arc<Entry>>, NotSynced> {
        self.shared.registry.owned_by(scope, uid)
    }

    /// How many objects are like this.
    pub fn count(&self, scope: &Scope, like: impl Fn(&Entry) -> bool) -> Result<usize, NotSynced> {
        self.shared.registry.count(scope, like)
    }

    /// How many objects there are.
    pub fn len(&self, scope: &Scope) -> Result<usize, NotSynced> {
        self.shared.registry.len(scope)
    }

    /// Announces that `by` is about to write an object, so that an event of it that overtakes the answer does not
    /// wake `by`. Drop it after [`Hub::record`], or when the write failed.
    pub fn writing(&self, by: &Key, object: &ObjectId) -> Writing {
        self.shared.registry.writing(by, object)
    }

    /// The answer to a write of `by` enters every scope that holds the object, unless a newer one is there. Wakes all
    /// others that look at the object, but never `by`, now or when the event of this write arrives.
    pub fn record(&self, entry: Entry, by: &Key) {
        self.shared.registry.record(&Arc::new(entry), by);
    }

    /// A deletion by `by` was final: the object is gone now, and late events of this uid change nothing.
    pub fn record_deleted(&self, id: &ObjectId, uid: &str, by: &Key) {
        self.shared.registry.record_deleted(id, uid, by);
    }

    /// Adds one dependency. Called before the read itself, so that no change falls between read and dependency.
    pub fn add_read(&self, key: &Key, read: &Read) {
        self.shared.registry.add_read(key, read);
    }

    /// What a finished run has read replaces the key's dependencies. A key is woken when an object that it depends on
    /// appears, goes, or changes in the fields that were kept, and when its scope becomes readable.
    pub fn set_reads(&self, key: &Key, reads: Vec<Read>) {
        self.shared.registry.set_reads(key, &reads);
    }

    pub fn forget(&self, key: &Key) {
        self.shared.registry.set_reads(key, &[]);
    }

    pub fn scopes(&self) -> Vec<ScopeState> {
        self.shared.registry.scopes()
    }
}

/// Membership in a scope, until dropped.
pub struct Subscription {
    shared: Arc<Shared>,
    membership: Membership,
}

impl Subscription {
    pub fn state(&self) -> watch::Receiver<SyncState> {
        self.membership.watch.sync.subscribe()
    }

    pub fn scope(&self) -> &Scope {
        &self.membership.watch.scope
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.registry.leave(&self.membership);
    }
}
