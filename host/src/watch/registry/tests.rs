//! What the registry keeps, with a hub of its own and no API server.

use serde_json::{Value, json};

use super::*;
use crate::{
    contract::{Query, Read},
    names::{Account, Cluster, Kind, PluginId},
    watch::{Gap, Private, Why},
};

const HELLO: &str = "demo.reef.dev/v1/Hello";
const CONFIG: &str = "v1/ConfigMap";

type Woken = Arc<Mutex<Vec<(Key, Reason)>>>;

/// A registry whose watches are fed by hand.
struct Room {
    registry: Registry,
    woken: Woken,
}

impl Room {
    fn new() -> Self {
        let woken = Woken::default();
        let log = Arc::clone(&woken);
        let wake: Waker = Arc::new(move |key, reason| log.lock().push((key, reason)));
        Self { registry: Registry::new(wake, Memory(1 << 30)), woken }
    }

    fn join(&self, kind: &str, plugin: &str, role: Role) -> Membership {
        self.lend(kind, plugin, role, Actor::Host)
    }

    fn lend(&self, kind: &str, plugin: &str, role: Role, lender: Actor) -> Membership {
        let interest = Interest { plugin: PluginId::new("a", plugin), role };
        self.registry.join(scope(kind), lender, interest, |_| tokio::spawn(std::future::pending::<()>()).abort_handle())
    }

    fn list(&self, membership: &Membership, version: u64, objects: &[Value]) {
        let watch = &membership.watch;
        let list = json!({ "metadata": { "resourceVersion": version.to_string() }, "items": objects });
        watch.begin_list();
        self.registry.page(watch, Page::parse(list.to_string().as_bytes(), &watch.scope.kind).unwrap()).unwrap();
        self.registry.finish_list(watch).unwrap();
    }

    fn event(&self, membership: &Membership, what: &str, object: &Value) {
        let watch = &membership.watch;
        let line = json!({ "type": what, "object": object }).to_string();
        self.registry.event(watch, Event::parse(line.as_bytes(), &watch.scope.kind).unwrap()).unwrap();
    }

    /// Plugin, name of the key's object and reason of every wake since the last time.
    fn woken(&self) -> Vec<String> {
        let woken = std::mem::take(&mut *self.woken.lock());
        let mut said: Vec<_> =
            woken.iter().map(|(k, reason)| format!("{} {} {reason:?}", k.plugin.name, k.object.name)).collect();
        said.sort();
        said
    }
}

fn scope(kind: &str) -> Scope {
    Scope::new(Cluster::local(), kind.parse().unwrap(), "a")
}

fn object(kind: &str, name: &str, version: u64, owner: Option<&str>) -> Value {
    let kind: Kind = kind.parse().unwrap();
    let owners: Vec<Value> = owner
        .iter()
        .map(|o| json!({ "apiVersion": "demo.reef.dev/v1", "kind": "Hello", "name": o, "uid": format!("uid-{o}") }))
        .collect();
    let meta = json!({ "name": name, "namespace": "a", "uid": format!("uid-{name}"), "resourceVersion": version.to_string(), "ownerReferences": owners });
    json!({ "apiVersion": kind.api_version(), "kind": &*kind.kind, "metadata": meta })
}

fn entry(object: &Value) -> Arc<Entry> {
    Arc::new(Entry::parse(object.to_string().as_bytes(), None).unwrap())
}

fn key(plugin: &str, name: &str) -> Key {
    let object = ObjectId::new(HELLO.parse().unwrap(), "a", name);
    Key { plugin: PluginId::new("a", plugin), cluster: Cluster::local(), object }
}

fn owned(mark: &str) -> Role {
    Role::Owned { by: HELLO.parse().unwrap(), mark: mark.into() }
}

fn read(name: &str) -> Read {
    Read { object: ObjectId::new(CONFIG.parse().unwrap(), "a", name), fields: Vec::new() }
}

#[tokio::test]
async fn primaries_wake_once_the_list_is_complete_and_children_of_the_list_do_not() {
    let room = Room::new();
    let (hellos, configs) = (room.join(HELLO, "p", Role::Primary), room.join(CONFIG, "p", owned("p")));
    let watch = &hellos.watch;
    watch.begin_list();
    assert!(room.registry.get(&scope(HELLO), "a", "x").is_err());
    room.list(&hellos, 10, &[object(HELLO, "x", 3, None), object(HELLO, "y", 4, None)]);
    room.list(&configs, 10, &[object(CONFIG, "c", 3, Some("x"))]);
    assert_eq!(room.woken(), ["p x Initial", "p y Initial"]);
    assert_eq!(*watch.sync.borrow(), SyncState::Synced);
    assert!(room.registry.get(&scope(HELLO), "a", "x").unwrap().is_some());
    assert!(room.registry.get(&scope(HELLO), "a", "z").unwrap().is_none());
    assert_eq!(room.registry.owned_by(&scope(CONFIG), "uid-x").unwrap().len(), 1);
}

#[tokio::test]
async fn two_plugins_share_one_watch_and_one_copy_and_both_get_the_event() {
    let room = Room::new();
    let one = room.join(HELLO, "p", Role::Primary);
    room.list(&one, 10, &[object(HELLO, "x", 3, None)]);
    room.woken();
    let two = room.join(HELLO, "q", Role::Primary);
    assert!(Arc::ptr_eq(&one.watch, &two.watch));
    assert_eq!(room.woken(), ["q x Initial"], "the second is told at once, and nobody else");
    room.event(&one, "MODIFIED", &object(HELLO, "x", 11, None));
    assert_eq!(room.woken(), ["p x Changed", "q x Changed"]);
    assert_eq!(room.registry.scopes().iter().map(|s| (s.objects, s.subscribers)).collect::<Vec<_>>(), [(1, 2)]);
}

#[tokio::test]
async fn the_last_one_out_takes_watch_and_store_along() {
    let room = Room::new();
    let (one, two) = (room.join(HELLO, "p", Role::Primary), room.join(HELLO, "q", Role::Primary));
    room.list(&one, 10, &[object(HELLO, "x", 3, None)]);
    room.registry.leave(&one);
    assert!(room.registry.get(&scope(HELLO), "a", "x").unwrap().is_some());
    room.registry.leave(&two);
    let left = Arc::downgrade(&two.watch);
    drop((one, two));
    assert!(room.registry.get(&scope(HELLO), "a", "x").is_err() && room.registry.scopes().is_empty());
    assert!(left.upgrade().is_none(), "the store is freed");
}

#[tokio::test]
async fn the_lenders_are_those_who_are_there() {
    let room = Room::new();
    let lender = |name| Actor::Account(Account::new("a", name));
    let one = room.lend(HELLO, "p", Role::Primary, lender("one"));
    let two = room.lend(HELLO, "q", Role::Primary, lender("two"));
    assert_eq!(*two.watch.lenders.borrow(), [lender("one"), lender("two")]);
    room.registry.leave(&one);
    assert_eq!(*two.watch.lenders.borrow(), [lender("two")]);
}

#[tokio::test]
async fn an_own_write_wakes_other_plugins_and_other_keys_once_and_its_author_never() {
    let room = Room::new();
    let configs = room.join(CONFIG, "p", owned("p"));
    let _others = room.join(CONFIG, "q", Role::Primary);
    room.list(&configs, 10, &[]);
    room.registry.dependencies().set(&key("p", "reader"), &[read("c")], &[]);
    let child = object(CONFIG, "c", 11, Some("x"));
    room.registry.record(&entry(&child), &key("p", "x"));
    assert_eq!(room.woken(), ["p reader Dependency", "q c Changed"]);
    room.event(&configs, "ADDED", &child);
    assert!(room.woken().is_empty(), "the echo");
    room.event(&configs, "MODIFIED", &object(CONFIG, "c", 12, Some("x")));
    assert_eq!(room.woken(), ["p reader Dependency", "p x Child", "q c Changed"]);
    room.registry.record_deleted(&entry(&child).id, "uid-c", &key("p", "x"));
    assert_eq!(room.woken(), ["p reader Dependency", "q c Changed"]);
    room.event(&configs, "DELETED", &object(CONFIG, "c", 13, Some("x")));
    assert!(room.woken().is_empty());
}

#[tokio::test]
async fn an_event_that_overtakes_its_own_answer_does_not_wake_the_author() {
    let room = Room::new();
    let configs = room.join(CONFIG, "p", owned("p"));
    let _others = room.join(CONFIG, "q", Role::Primary);
    room.list(&configs, 10, &[]);
    let child = object(CONFIG, "c", 11, Some("x"));
    let writing = room.registry.writing(&key("p", "x"), &entry(&child).id);
    room.event(&configs, "ADDED", &child);
    assert_eq!(room.woken(), ["q c Changed"]);
    room.registry.record(&entry(&child), &key("p", "x"));
    drop(writing);
    assert!(room.woken().is_empty());
}

#[tokio::test]
async fn what_others_do_during_a_write_reaches_the_author_after_it() {
    let room = Room::new();
    let configs = room.join(CONFIG, "p", owned("p"));
    room.list(&configs, 10, &[object(CONFIG, "c", 3, Some("x"))]);
    let own = object(CONFIG, "c", 12, Some("x"));
    let writing = room.registry.writing(&key("p", "x"), &entry(&own).id);
    room.event(&configs, "MODIFIED", &object(CONFIG, "c", 11, Some("x")));
    room.event(&configs, "MODIFIED", &own);
    room.registry.record(&entry(&own), &key("p", "x"));
    assert!(room.woken().is_empty());
    drop(writing);
    assert_eq!(room.woken(), ["p x Child"], "for version 11");

    let failed = room.registry.writing(&key("p", "x"), &entry(&own).id);
    room.event(&configs, "MODIFIED", &object(CONFIG, "c", 13, Some("x")));
    drop(failed);
    assert_eq!(room.woken(), ["p x Child"], "without an answer nothing is known to be an echo");
}

#[tokio::test]
async fn an_overtaken_change_wakes_the_author_of_the_write() {
    let room = Room::new();
    let hellos = room.join(HELLO, "p", Role::Primary);
    room.list(&hellos, 10, &[object(HELLO, "x", 3, None)]);
    room.woken();
    room.registry.record(&entry(&object(HELLO, "x", 12, None)), &key("p", "x"));
    room.event(&hellos, "MODIFIED", &object(HELLO, "x", 11, None));
    assert_eq!(room.woken(), ["p x Changed"]);
}

#[tokio::test]
async fn a_list_after_a_gap_wakes_self_owner_and_reader_of_what_changed_or_vanished() {
    let room = Room::new();
    let (hellos, configs) = (room.join(HELLO, "p", Role::Primary), room.join(CONFIG, "p", owned("p")));
    room.list(&hellos, 10, &[object(HELLO, "x", 3, None), object(HELLO, "y", 4, None)]);
    room.list(&configs, 10, &[object(CONFIG, "c", 3, Some("x")), object(CONFIG, "d", 4, Some("y"))]);
    room.registry.dependencies().set(&key("p", "reader"), &[read("c")], &[]);
    room.woken();
    room.list(&hellos, 20, &[object(HELLO, "x", 15, None), object(HELLO, "y", 4, None)]);
    assert_eq!(room.woken(), ["p x Relist"]);
    room.list(&configs, 20, &[object(CONFIG, "d", 4, Some("y"))]);
    assert_eq!(room.woken(), ["p reader Relist", "p x Relist"]);
}

#[tokio::test]
async fn whoever_was_told_that_a_kind_cannot_be_read_is_woken_when_it_can() {
    let room = Room::new();
    let configs = room.join(CONFIG, "p", Role::Read);
    room.registry.dependencies().add(&key("p", "x"), &read("absent"));
    assert!(room.registry.get(&scope(CONFIG), "a", "absent").is_err());
    configs.watch.withdraw("forbidden".into(), Why::Forbidden);
    room.lend(CONFIG, "q", Role::Read, Actor::Account(Account::new("a", "rich")));
    room.list(&configs, 10, &[]);
    assert_eq!(room.woken(), ["p x Dependency"]);
    room.list(&configs, 20, &[]);
    assert!(room.woken().is_empty());
}

#[tokio::test]
async fn what_nobody_may_read_any_more_is_not_served_and_comes_back_with_initial_wakes() {
    let room = Room::new();
    let hellos = room.join(HELLO, "p", Role::Primary);
    room.list(&hellos, 10, &[object(HELLO, "x", 3, None)]);
    room.woken();
    hellos.watch.withdraw("hellos is forbidden".into(), Why::Forbidden);
    assert!(room.registry.get(&scope(HELLO), "a", "x").unwrap_err().to_string().contains("hellos is forbidden"));
    assert_eq!(*hellos.watch.sync.borrow(), SyncState::Failed { message: "hellos is forbidden".into(), why: Why::Forbidden });
    assert!(hellos.watch.must_list());
    let _late = room.join(HELLO, "q", Role::Primary);
    assert!(room.woken().is_empty());
    room.list(&hellos, 20, &[object(HELLO, "x", 3, None)]);
    assert_eq!(room.woken(), ["p x Initial", "q x Initial"]);
    assert!(room.registry.get(&scope(HELLO), "a", "x").unwrap().is_some());
}

#[tokio::test]
async fn a_new_lender_is_tried_before_its_subscriber_is_told_what_others_may_not() {
    let room = Room::new();
    let lender = |name| Actor::Account(Account::new("a", name));
    let poor = room.lend(HELLO, "p", Role::Primary, lender("poor"));
    let failed = SyncState::Failed { message: "forbidden".into(), why: Why::Forbidden };
    poor.watch.withdraw("forbidden".into(), Why::Forbidden);
    let _same = room.lend(HELLO, "q", Role::Primary, lender("poor"));
    assert_eq!(*poor.watch.sync.borrow(), failed);
    let _rich = room.lend(HELLO, "r", Role::Primary, lender("rich"));
    assert_eq!(*poor.watch.sync.borrow(), SyncState::Pending);
}

#[tokio::test]
async fn a_server_that_is_away_leaves_a_complete_store_readable_and_says_so() {
    let room = Room::new();
    let hellos = room.join(HELLO, "p", Role::Primary);
    hellos.watch.is_late("connection refused".into());
    assert!(matches!(&*hellos.watch.sync.borrow(), SyncState::Failed { why: Why::Unwell, .. }));
    room.list(&hellos, 10, &[object(HELLO, "x", 3, None)]);
    hellos.watch.is_late("connection refused".into());
    assert_eq!(*hellos.watch.sync.borrow(), SyncState::Synced);
    assert!(room.registry.get(&scope(HELLO), "a", "x").unwrap().is_some());
    assert_eq!(room.registry.scopes()[0].last_error.as_deref(), Some("connection refused"));
}

#[tokio::test]
async fn whoever_finds_a_gap_is_woken_when_it_closes_or_told_to_ask_again() {
    let room = Room::new();
    let configs = room.join(CONFIG, "p", Role::Read);
    let gap = || room.registry.owned_by(&scope(CONFIG), "uid-x").unwrap_err().gap;
    let depend = || {
        let object = entry(&object(CONFIG, "x", 1, None)).id.clone();
        room.registry.dependencies().add(&key("p", "x"), &Read { object, fields: Vec::new() });
    };
    assert_eq!(gap(), Gap::Filling);
    depend();
    room.list(&configs, 10, &[object(CONFIG, "of-x", 3, Some("x"))]);
    assert!(room.woken().is_empty(), "nobody is woken for the first list");
    configs.watch.withdraw("forbidden".into(), Why::Forbidden);
    assert_eq!(gap(), Gap::Unreadable);
    room.list(&configs, 20, &[object(CONFIG, "of-x", 3, Some("x"))]);
    assert_eq!(room.woken(), ["p x Dependency"]);
}

#[tokio::test]
async fn a_callback_is_told_everything_in_order_the_first_list_too() {
    let room = Room::new();
    let log = Arc::new(Mutex::new(Vec::new()));
    let callback = || {
        let log = Arc::clone(&log);
        Role::Callback(Arc::new(move |change: Change| {
            log.lock().push(format!("{} {:?}", change.id.name, change.entry.map(|e| e.resource_version)));
        }))
    };
    let said = || std::mem::take(&mut *log.lock());
    let hellos = room.join(HELLO, "host", callback());
    room.list(&hellos, 10, &[object(HELLO, "x", 3, None)]);
    room.event(&hellos, "MODIFIED", &object(HELLO, "x", 11, None));
    assert_eq!(said(), ["x Some(3)", "x Some(11)"]);
    let _late = room.join(HELLO, "host", callback());
    assert_eq!(said(), ["x Some(11)"]);
    room.event(&hellos, "DELETED", &object(HELLO, "x", 12, None));
    assert_eq!(said(), ["x None", "x None"]);
    assert!(room.woken().is_empty());
}

#[tokio::test]
async fn a_private_watch_of_one_object_holds_nothing_else() {
    let room = Room::new();
    let only = Scope { private: Some(Private { account: Account::new("a", "p"), name: Some("c".into()) }), ..scope(CONFIG) };
    let interest = Interest { plugin: PluginId::new("a", "p"), role: Role::Read };
    let start = |_: &Arc<Watch>| tokio::spawn(std::future::pending::<()>()).abort_handle();
    let private = room.registry.join(only.clone(), Actor::Host, interest, start);
    room.list(&private, 10, &[]);
    for name in ["c", "d"] {
        room.registry.record(&entry(&object(CONFIG, name, 11, None)), &key("p", "x"));
    }
    assert!(room.registry.get(&only, "a", "c").unwrap().is_some());
    assert!(room.registry.get(&only, "a", "d").unwrap().is_none());
    assert!(room.registry.get(&scope(CONFIG), "a", "c").is_err(), "nobody else sees it");
}

fn labelled(name: &str, version: u64, app: &str) -> Value {
    let mut object = object(CONFIG, name, version, None);
    object["metadata"]["labels"] = json!({ "app": app });
    object
}

fn names(found: Result<Vec<Arc<Entry>>, NotSynced>) -> Vec<String> {
    found.unwrap().iter().map(|entry| entry.id.name.to_string()).collect()
}

#[tokio::test]
async fn a_list_is_what_matches_in_order_and_only_of_a_complete_scope() {
    let room = Room::new();
    let configs = room.join(CONFIG, "p", Role::Read);
    let list = |selector: &str| room.registry.list(&scope(CONFIG), &selector.parse().unwrap());
    assert!(list("").unwrap_err().to_string().contains("its first list is not finished"));
    room.list(&configs, 10, &[labelled("b", 3, "web"), labelled("a", 4, "web"), labelled("c", 5, "db")]);
    assert_eq!(
        (names(list("app=web")), names(list(""))),
        (vec!["a".into(), "b".into()], vec!["a".into(), "b".into(), "c".into()])
    );
    room.registry.record(&entry(&labelled("d", 11, "web")), &key("p", "x"));
    assert_eq!(names(list("app=web")), ["a", "b", "d"], "own writes are in it");
    room.event(&configs, "ADDED", &json!({ "metadata": { "name": "bad", "namespace": "a", "uid": 7 } }));
    let refused = list("app=db").unwrap_err();
    assert!(refused.gap == Gap::Quarantined && refused.to_string().contains("`bad` does not decode"), "{refused}");
    assert!(room.registry.get(&scope(CONFIG), "a", "a").unwrap().is_some(), "all others can be read");
}

#[tokio::test]
async fn whoever_listed_is_woken_by_events_and_relists() {
    let room = Room::new();
    let configs = room.join(CONFIG, "p", Role::Read);
    let query = |selector: &str| Query {
        kind: CONFIG.parse().unwrap(),
        namespace: "a".into(),
        selector: selector.parse().unwrap(),
        fields: Vec::new(),
    };
    room.registry.dependencies().add_list(&key("p", "web"), &query("app=web"));
    room.registry.dependencies().add_list(&key("p", "db"), &query("app=db"));
    room.list(&configs, 10, &[labelled("a", 3, "web")]);
    assert!(room.woken().is_empty(), "they have waited");
    room.event(&configs, "MODIFIED", &labelled("a", 11, "db"));
    assert_eq!(room.woken(), ["p db Dependency", "p web Dependency"]);
    room.list(&configs, 20, &[]);
    assert_eq!(room.woken(), ["p db Relist"]);
}

/// Three objects fit, four do not.
fn small_room() -> Room {
    let weight = entry(&object(CONFIG, "c0", 1, Some("x"))).weight();
    let room = Room::new();
    Room { registry: Registry::new(Arc::clone(&room.registry.wake), Memory((weight * 7 / 2) as u64)), ..room }
}

fn full(stopped: Result<(), Stop>) -> String {
    match stopped {
        Err(Stop::Full { message, .. }) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_scope_that_does_not_fit_is_refused_and_freed_and_no_other() {
    let room = small_room();
    let (hellos, configs) = (room.join(HELLO, "p", Role::Primary), room.join(CONFIG, "p", owned("p")));
    room.list(&hellos, 10, &[object(HELLO, "x", 3, None)]);
    let many: Vec<Value> = (0..4).map(|n| object(CONFIG, &format!("c{n}"), 4, Some("x"))).collect();
    let page = json!({ "metadata": { "resourceVersion": "10" }, "items": many }).to_string();
    configs.watch.begin_list();
    let refused = full(room.registry.page(&configs.watch, Page::parse(page.as_bytes(), &CONFIG.parse().unwrap()).unwrap()));
    assert!(refused.contains("v1/ConfigMap in namespace a") && refused.contains("--cache-budget"), "{refused}");
    assert!(room.registry.get(&scope(CONFIG), "a", "c0").is_err());
    assert!(room.registry.get(&scope(HELLO), "a", "x").unwrap().is_some());
    assert_eq!(configs.watch.state.read().replica.store().bytes(), 0);
    room.registry.leave(&hellos);
    assert!(!room.registry.budget.is_exceeded());
    room.registry.room_for(configs.watch.version() as usize).await;
}

#[tokio::test]
async fn a_scope_that_outgrew_the_budget_comes_back_with_nothing_reported_gone_and_every_owner_looking() {
    let room = small_room();
    let (hellos, configs) = (room.join(HELLO, "p", Role::Primary), room.join(CONFIG, "p", owned("p")));
    room.registry.dependencies().set(&key("p", "reader"), &[read("c1")], &[]);
    room.list(&hellos, 10, &[object(HELLO, "x", 3, None)]);
    room.list(&configs, 10, &[object(CONFIG, "c0", 3, Some("x"))]);
    room.woken();
    let line = |n: u64| {
        let object = object(CONFIG, &format!("c{n}"), 10 + n, Some("x"));
        let line = json!({ "type": "ADDED", "object": object }).to_string();
        Event::parse(line.as_bytes(), &CONFIG.parse().unwrap()).unwrap()
    };
    room.registry.event(&configs.watch, line(1)).unwrap();
    room.woken();
    full(room.registry.event(&configs.watch, line(2)));
    configs.watch.withdraw("full".into(), Why::Full);
    room.woken();
    room.list(&configs, 20, &[object(CONFIG, "c0", 3, Some("x"))]);
    assert_eq!(room.woken(), ["p reader Dependency", "p x Relist"], "c1 vanished meanwhile");
    assert!(room.registry.get(&scope(CONFIG), "a", "c0").unwrap().is_some());
}
