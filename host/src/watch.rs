//! The hub: one watch per scope, however many plugins look at it; the store; and from changes to keys.
//!
//! A subscriber says what it looks at ([`Scope`]) and what a change there means to it ([`Interest`]). The first one
//! of a scope starts its watch, all others share it and the one copy of every object, and the last one that leaves
//! takes both along. The way of an event: `stream` reads it, `protocol` decodes it, `replica` decides what it
//! changes, `store` keeps the result, `index` and `registry` turn the change into keys.
//!
//! It knows names, reads and how to reach an API server; never Wasm, the queue, or the catalog.

mod budget;
mod dependencies;
mod echo;
mod entry;
mod index;
mod protocol;
pub mod raw;
mod registry;
mod replica;
mod store;
mod stream;

use std::{
    fmt,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::{sync::watch, task::AbortHandle};

pub use entry::{Entry, Managed, Operation, Owner};
pub use registry::Writing;

use crate::{
    contract::{Query, Read, Selector},
    identity::{Actor, Api},
    memory,
    names::{Account, Cluster, Key, Kind, Memory, ObjectId, PluginId},
};
use registry::{Membership, Registry};

/// What one watch covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    pub cluster: Cluster,
    pub kind: Kind,
    /// Empty: all namespaces, or a cluster-scoped kind.
    pub namespace: Arc<str>,
    /// Never shared with another account: Secrets.
    pub private: Option<Private>,
}

/// Whose own watch it is, and of which object; no name: of all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Private {
    pub account: Account,
    pub name: Option<Arc<str>>,
}

impl Scope {
    pub fn new(cluster: Cluster, kind: Kind, namespace: &str) -> Self {
        Self { cluster, kind, namespace: namespace.into(), private: None }
    }

    /// The one object that it is about, if it is.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.private.as_ref()?.name.as_ref()
    }

    /// For sentences.
    fn place(&self) -> String {
        if self.namespace.is_empty() { "the cluster".into() } else { format!("namespace {}", self.namespace) }
    }

    /// Whether an object of this scope's cluster belongs into it.
    pub fn holds(&self, id: &ObjectId) -> bool {
        // An object of the kind that is in no namespace says that none of them is.
        self.kind == id.kind
            && (self.namespace.is_empty() || self.namespace == id.namespace || id.namespace.is_empty())
            && self.name().is_none_or(|name| *name == id.name)
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
    Failed { message: String, why: Why },
}

/// Why a scope cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nobody who looks at it may.
    Forbidden,
    /// The API server does not serve the kind.
    Missing,
    /// It does not fit into the budget of the store. It is tried again when there is room.
    Full,
    /// The API server does not answer, or not as it should.
    Unwell,
}

/// How a scope is doing: for metrics, readiness and conditions.
#[derive(Debug, Clone)]
pub struct ScopeState {
    pub scope: Scope,
    pub synced: bool,
    pub objects: usize,
    /// What the objects cost in memory, nearly.
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

/// The cache cannot answer: it is not complete, so that "not found" would be a guess.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cache of {kind} in {place} is not complete: {why}")]
pub struct NotSynced {
    pub kind: Kind,
    pub place: String,
    pub why: String,
    pub gap: Gap,
}

/// What helps a cache that is not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// Time: it is being filled, and nobody is woken for that. Whoever needs it asks again.
    Filling,
    /// Whoever depends on anything in it is woken when it can be read.
    Unreadable,
    /// Only objects that do not decode are missing: a change of them.
    Quarantined,
}

#[derive(Clone, Debug)]
pub struct HubOptions {
    /// Waits after a failure double from the first to the second, with jitter, for each watch on its own.
    pub backoff: (Duration, Duration),
    /// A watch that says nothing for so long, not even a bookmark (one a minute), is taken for dead.
    pub idle: Duration,
    /// A watch is asked to end after this, up to twice this, and then resumed.
    pub watch_timeout: Duration,
    /// A watched scope is read anew after this, up to twice this, lest an event that was never sent stays missed.
    pub relist: Duration,
    /// What the store may hold, over all scopes, as [`Entry::weight`] counts. A scope that would go over it is refused.
    pub budget: Memory,
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
            budget: Memory(1 << 30),
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
    /// Whether the API server has not refused a streaming list yet.
    streams: AtomicBool,
    options: HubOptions,
    registry: Registry,
}

impl Hub {
    pub fn new(api: Api, wake: Waker, options: HubOptions) -> Self {
        let registry = Registry::new(wake, options.budget);
        Self { shared: Arc::new(Shared { api, streams: AtomicBool::new(true), options, registry }) }
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

    /// All objects that match, in the order of namespace and name, own writes included.
    pub fn list(&self, scope: &Scope, selector: &Selector) -> Result<Vec<Arc<Entry>>, NotSynced> {
        self.shared.registry.list(scope, selector)
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
        self.shared.registry.dependencies().add(key, read);
    }

    /// The same for a list.
    pub fn add_list(&self, key: &Key, query: &Query) {
        self.shared.registry.dependencies().add_list(key, query);
    }

    /// What a finished run has read replaces the key's dependencies. A key is woken when an object that it depends on
    /// appears, goes, or changes in the fields that were kept, when an object begins or ceases to match a list, and when a
    /// scope in which it has read becomes readable.
    pub fn set_reads(&self, key: &Key, reads: &[Read], lists: &[Query]) {
        self.shared.registry.dependencies().set(key, reads, lists);
    }

    pub fn forget(&self, key: &Key) {
        self.set_reads(key, &[], &[]);
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
        if self.shared.registry.leave(&self.membership) {
            memory::give_back();
        }
    }
}
