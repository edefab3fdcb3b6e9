//! What a replica makes of lists, events and own writes, in any order.

use serde_json::{Value, json};

use super::*;
use crate::names::{Cluster, Kind, PluginId};

fn kind() -> Kind {
    "v1/ConfigMap".parse().unwrap()
}

/// An object as the server sends it; its uid is its name with `life` behind it.
fn object(name: &str, life: u32, version: u64) -> Value {
    let meta = json!({ "name": name, "namespace": "a", "uid": format!("{name}-{life}"), "resourceVersion": version.to_string() });
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": { "v": version.to_string() } })
}

fn entry(name: &str, life: u32, version: u64) -> Arc<Entry> {
    Arc::new(Entry::parse(object(name, life, version).to_string().as_bytes(), None).unwrap())
}

fn page(version: u64, objects: &[Value]) -> Page {
    let list = json!({ "metadata": { "resourceVersion": version.to_string() }, "items": objects });
    Page::parse(list.to_string().as_bytes(), &kind()).unwrap()
}

fn line(what: &str, object: Value) -> Event {
    Event::parse(json!({ "type": what, "object": object }).to_string().as_bytes(), &kind()).unwrap()
}

fn bookmark(version: u64) -> Event {
    line("BOOKMARK", json!({ "metadata": { "resourceVersion": version.to_string() } }))
}

fn author(name: &str) -> Key {
    let object = ObjectId::new("demo.reef.dev/v1/Hello".parse().unwrap(), "a", name);
    Key { plugin: PluginId::new("a", "p"), cluster: Cluster::local(), object }
}

impl Replica {
    fn listed(version: u64, objects: &[Value]) -> Self {
        let mut replica = Self::default();
        replica.list(version, objects);
        replica
    }

    fn list(&mut self, version: u64, objects: &[Value]) -> Vec<Delta> {
        self.begin_list();
        let mut deltas = self.page(page(version, objects)).unwrap();
        match self.finish_list() {
            Listed::Complete { deltas: more, .. } => deltas.extend(more),
            Listed::Doubtful { missing } => panic!("{missing} objects are missing"),
        }
        deltas
    }

    fn names(&self) -> Vec<(String, u64)> {
        let mut present: Vec<_> = self.store().entries().map(|e| (e.id.name.to_string(), e.resource_version)).collect();
        present.sort();
        present
    }

    /// What an event changes, said as `x 1 -> 2`.
    fn tell(&mut self, what: &str, object: Value) -> String {
        say(&self.event(line(what, object)).unwrap())
    }
}

fn say(deltas: &[Delta]) -> String {
    let version = |e: &Option<Arc<Entry>>| e.as_ref().map_or("none".into(), |e| e.resource_version.to_string());
    let say = |delta: &Delta| match delta {
        Delta::Changed { old, new, .. } => {
            let name = &new.as_ref().or(old.as_ref()).unwrap().id.name;
            format!("{name} {} -> {}", version(old), version(new))
        }
        Delta::Overtaken { id, by } => format!("{} overtaken by {}", id.name, by.object.name),
    };
    let mut said: Vec<String> = deltas.iter().map(say).collect();
    said.sort();
    said.join(", ")
}

fn at(present: &[(&str, u64)]) -> Vec<(String, u64)> {
    present.iter().map(|(name, version)| ((*name).to_owned(), *version)).collect()
}

#[test]
fn a_list_in_pages_is_complete_only_at_its_end_and_events_go_on_from_its_version() {
    let mut replica = Replica::default();
    assert!(replica.must_list());
    replica.begin_list();
    replica.page(page(10, &[object("x", 1, 3)])).unwrap();
    assert!(!replica.is_complete());
    let deltas = replica.page(page(10, &[object("y", 1, 4)])).unwrap();
    assert!(matches!(&deltas[..], [Delta::Changed { found: Found::First, .. }]));
    assert!(matches!(replica.finish_list(), Listed::Complete { first: true, .. }));
    assert!(replica.is_complete() && !replica.must_list());
    assert_eq!((replica.version(), replica.names()), (10, at(&[("x", 3), ("y", 4)])));
}

#[test]
fn events_add_change_and_delete() {
    let mut replica = Replica::listed(10, &[object("x", 1, 3)]);
    assert_eq!(replica.tell("ADDED", object("y", 1, 11)), "y none -> 11");
    assert_eq!(replica.tell("MODIFIED", object("x", 1, 12)), "x 3 -> 12");
    assert_eq!(replica.tell("DELETED", object("x", 1, 13)), "x 12 -> none");
    assert_eq!((replica.version(), replica.names()), (13, at(&[("y", 11)])));
}

#[test]
fn bookmarks_move_the_place_to_resume_from_and_nothing_else() {
    let mut replica = Replica::listed(10, &[object("x", 1, 3)]);
    assert!(replica.event(bookmark(40)).unwrap().is_empty());
    assert!(replica.event(bookmark(30)).unwrap().is_empty());
    assert_eq!((replica.version(), replica.names()), (40, at(&[("x", 3)])));
}

#[test]
fn an_expired_version_is_an_error_event_and_needs_a_list_while_the_store_stays_readable() {
    let mut replica = Replica::listed(10, &[object("x", 1, 3)]);
    let expired = line("ERROR", json!({ "kind": "Status", "code": 410, "message": "too old resource version" }));
    assert!(matches!(replica.event(expired), Err(Broken::StartOver(_))));
    assert!(replica.must_list() && replica.is_complete());
    assert_eq!(say(&replica.list(50, &[object("x", 1, 44)])), "x 3 -> 44");
    assert!(!replica.must_list());
}

#[test]
fn any_other_error_event_ends_the_stream_but_not_the_place_in_it() {
    let mut replica = Replica::listed(10, &[]);
    let error = line("ERROR", json!({ "kind": "Status", "code": 500, "message": "no leader" }));
    assert_eq!(replica.event(error), Err(Broken::Ended { code: 500, message: "no leader".into() }));
    assert!(!replica.must_list());
}

#[test]
fn duplicates_change_nothing() {
    let mut replica = Replica::listed(10, &[object("x", 1, 3)]);
    replica.tell("MODIFIED", object("x", 1, 11));
    for _ in 0..2 {
        assert_eq!(replica.tell("MODIFIED", object("x", 1, 11)), "");
        assert_eq!(replica.tell("ADDED", object("x", 1, 3)), "");
    }
    replica.tell("DELETED", object("x", 1, 12));
    for what in ["DELETED", "ADDED", "MODIFIED"] {
        assert_eq!(replica.tell(what, object("x", 1, 12)), "");
    }
    assert!(!replica.must_list() && replica.names().is_empty());
}

#[test]
fn an_object_never_goes_back_and_versions_are_numbers_not_text() {
    let mut replica = Replica::listed(8, &[object("x", 1, 8)]);
    assert_eq!(replica.tell("MODIFIED", object("x", 1, 100)), "x 8 -> 100");
    assert_eq!(replica.tell("MODIFIED", object("x", 1, 99)), "");
    assert_eq!(replica.names(), at(&[("x", 100)]));
}

#[test]
fn a_late_event_counts_and_makes_the_stream_suspect() {
    let mut replica = Replica::listed(10, &[]);
    replica.tell("ADDED", object("x", 1, 15));
    assert!(!replica.must_list());
    assert_eq!(replica.tell("ADDED", object("y", 1, 12)), "y none -> 12");
    assert!(replica.must_list(), "what else is missing, only a list can say");
    assert_eq!(replica.version(), 15);
}

#[test]
fn every_order_of_the_same_events_ends_in_the_same_state_after_the_list_that_follows() {
    let events = [
        ("ADDED", object("x", 1, 11)),
        ("MODIFIED", object("x", 1, 12)),
        ("DELETED", object("x", 1, 13)),
        ("ADDED", object("x", 2, 14)),
        ("MODIFIED", object("y", 1, 15)),
    ];
    let undisturbed = at(&[("x", 14), ("y", 15)]);
    for order in permutations(events.len()) {
        let mut replica = Replica::listed(10, &[object("y", 1, 3)]);
        for index in &order {
            let (what, object) = &events[*index];
            replica.tell(what, object.clone());
        }
        if replica.must_list() {
            replica.list(15, &[object("x", 2, 14), object("y", 1, 15)]);
        }
        assert_eq!(replica.names(), undisturbed, "{order:?}");
    }
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(n - 1);
    shorter.iter().flat_map(|p| (0..n).map(|i| [&p[..i], &[n - 1], &p[i..]].concat())).collect()
}

#[test]
fn a_recreated_object_takes_the_place_of_the_former_one_whose_late_events_are_nothing() {
    let mut replica = Replica::listed(10, &[object("x", 1, 3)]);
    assert_eq!(replica.tell("ADDED", object("x", 2, 12)), "x 3 -> 12");
    assert_eq!(replica.tell("DELETED", object("x", 1, 11)), "");
    assert_eq!(replica.tell("MODIFIED", object("x", 1, 10)), "");
    assert_eq!(replica.names(), at(&[("x", 12)]));
}

#[test]
fn what_vanished_during_a_gap_is_found_by_the_next_list() {
    let mut replica = Replica::listed(10, &[object("x", 1, 3), object("y", 1, 4), object("z", 1, 5)]);
    let deltas = replica.list(20, &[object("x", 1, 3), object("y", 1, 15), object("w", 1, 16)]);
    assert_eq!(say(&deltas), "w none -> 16, y 4 -> 15, z 5 -> none");
    assert!(deltas.iter().all(|d| matches!(d, Delta::Changed { found: Found::Relist, .. })));
    assert_eq!(replica.tell("MODIFIED", object("z", 1, 9)), "", "and it stays gone");
}

#[test]
fn a_list_that_was_cut_removes_nothing() {
    let mut replica = Replica::listed(10, &[object("x", 1, 3), object("y", 1, 4)]);
    replica.begin_list();
    replica.page(page(20, &[object("y", 1, 15)])).unwrap();
    assert_eq!(replica.names(), at(&[("x", 3), ("y", 15)]));
    assert_eq!(say(&replica.list(30, &[object("y", 1, 15)])), "x 3 -> none");
}

#[test]
fn a_first_list_that_was_cut_leaves_no_ghosts() {
    let mut replica = Replica::default();
    replica.begin_list();
    replica.page(page(10, &[object("ghost", 1, 3)])).unwrap();
    assert!(!replica.is_complete());
    replica.list(20, &[object("x", 1, 15)]);
    assert_eq!(replica.names(), at(&[("x", 15)]));
}

#[test]
fn mass_vanishing_is_believed_only_when_said_twice() {
    let objects: Vec<Value> = (0..20).map(|n| object(&format!("o{n}"), 1, 3)).collect();
    let mut replica = Replica::listed(10, &objects);
    for version in [20, 22] {
        replica.begin_list();
        replica.page(page(version, &objects[..9])).unwrap();
        assert!(matches!(replica.finish_list(), Listed::Doubtful { missing: 11 }));
        assert_eq!(replica.names().len(), 20);
        assert_eq!(say(&replica.list(version + 1, &objects)), "", "the second list shows everything");
    }
    replica.begin_list();
    replica.page(page(30, &objects[..9])).unwrap();
    assert!(matches!(replica.finish_list(), Listed::Doubtful { .. }));
    assert_eq!(replica.list(31, &objects[..9]).len(), 11);
    assert_eq!(replica.names().len(), 9);
}

#[test]
fn a_list_from_a_server_that_lags_behind_is_refused() {
    let mut replica = Replica::listed(10, &[object("x", 1, 3)]);
    replica.event(bookmark(30)).unwrap();
    replica.begin_list();
    assert_eq!(replica.page(page(29, &[])), Err(Broken::Stale { got: 29, seen: 30 }));
    assert_eq!(replica.names(), at(&[("x", 3)]));
}

#[test]
fn an_object_that_does_not_decode_is_set_aside_alone_until_it_does() {
    let bad = json!({ "metadata": { "name": "bad", "namespace": "a", "uid": 7 } });
    let mut replica = Replica::listed(10, &[object("x", 1, 3), bad.clone()]);
    assert_eq!(replica.names(), at(&[("x", 3)]));
    assert!(replica.quarantined("a", "bad").is_some() && replica.quarantined("a", "x").is_none());
    assert_eq!(replica.tell("MODIFIED", object("bad", 1, 11)), "bad none -> 11");
    assert!(replica.quarantined("a", "bad").is_none());
    replica.event(line("MODIFIED", bad.clone())).unwrap();
    assert!(replica.quarantined("a", "bad").is_some());
    assert_eq!(say(&replica.list(20, &[object("x", 1, 3), bad])), "", "what it was before is not taken for vanished");
    assert_eq!(replica.list(30, &[object("x", 1, 3)]).len(), 1);
    assert!(replica.quarantined("a", "bad").is_none());
}

#[test]
fn an_own_write_is_there_at_once_and_its_echo_is_no_news() {
    let mut replica = Replica::listed(10, &[object("x", 1, 3)]);
    let delta = replica.record(&entry("x", 1, 12), &author("h")).unwrap();
    assert!(matches!(&delta, Delta::Changed { found: Found::OwnWrite(by), .. } if *by == author("h")));
    assert_eq!(replica.names(), at(&[("x", 12)]));
    assert_eq!(replica.tell("MODIFIED", object("x", 1, 12)), "");
    assert_eq!(replica.tell("MODIFIED", object("x", 1, 13)), "x 12 -> 13");
    assert!(replica.own.is_empty());
}

#[test]
fn an_answer_that_comes_after_its_event_is_no_news() {
    let mut replica = Replica::listed(10, &[]);
    replica.tell("ADDED", object("x", 1, 12));
    assert_eq!(replica.record(&entry("x", 1, 12), &author("h")), None);
    replica.tell("MODIFIED", object("x", 1, 14));
    assert_eq!(replica.record(&entry("x", 1, 13), &author("h")), None);
    assert_eq!(replica.names(), at(&[("x", 14)]));
    assert!(replica.own.is_empty());
}

#[test]
fn an_answer_that_comes_after_the_deletion_brings_nothing_back() {
    let mut replica = Replica::listed(10, &[]);
    replica.tell("ADDED", object("x", 1, 12));
    replica.tell("DELETED", object("x", 1, 13));
    assert_eq!(replica.record(&entry("x", 1, 12), &author("h")), None);
    replica.list(20, &[]);
    assert_eq!(replica.record(&entry("y", 1, 15), &author("h")), None, "created and deleted before the list");
    assert!(replica.names().is_empty());
}

#[test]
fn a_foreign_change_that_an_own_write_overtook_is_not_lost_on_its_author() {
    let mut replica = Replica::listed(10, &[object("x", 1, 3)]);
    replica.record(&entry("x", 1, 12), &author("h"));
    replica.record(&entry("x", 1, 14), &author("i"));
    assert_eq!(replica.tell("MODIFIED", object("x", 1, 11)), "x overtaken by h, x overtaken by i");
    assert_eq!(
        replica.tell("MODIFIED", object("x", 1, 12)),
        "",
        "the echo of h is no news to i, who was told when it was recorded"
    );
    assert_eq!(replica.tell("MODIFIED", object("x", 1, 13)), "x overtaken by i");
    assert_eq!(replica.tell("MODIFIED", object("x", 1, 14)), "");
    assert_eq!(replica.names(), at(&[("x", 14)]));
}

#[test]
fn after_a_gap_nobody_knows_what_an_own_write_overtook_so_its_author_looks_again() {
    let mut replica = Replica::listed(10, &[object("x", 1, 3), object("y", 1, 4)]);
    replica.record(&entry("x", 1, 12), &author("h"));
    replica.record(&entry("y", 1, 25), &author("h"));
    let deltas = replica.list(20, &[object("x", 1, 12), object("y", 1, 4)]);
    assert_eq!(say(&deltas), "x overtaken by h");
    assert_eq!(replica.tell("MODIFIED", object("y", 1, 25)), "", "its event was still to come");
    assert!(replica.own.is_empty());
}

#[test]
fn what_was_written_during_a_list_is_not_taken_for_vanished() {
    let mut replica = Replica::listed(10, &[]);
    replica.begin_list();
    replica.page(page(20, &[])).unwrap();
    assert!(replica.record(&entry("x", 1, 21), &author("h")).is_some());
    assert!(matches!(replica.finish_list(), Listed::Complete { first: false, .. }));
    assert_eq!(replica.names(), at(&[("x", 21)]));
    assert_eq!(replica.tell("ADDED", object("x", 1, 21)), "");
    assert_eq!(replica.tell("DELETED", object("x", 1, 22)), "x 21 -> none");
}

#[test]
fn after_an_own_deletion_late_events_of_that_uid_are_nothing_and_a_new_object_is_one() {
    let mut replica = Replica::listed(10, &[object("x", 1, 3)]);
    let delta = replica.record_deleted(&entry("x", 1, 3).id, "x-1", &author("h")).unwrap();
    assert!(matches!(&delta, Delta::Changed { new: None, found: Found::OwnWrite(_), .. }));
    assert_eq!(replica.tell("MODIFIED", object("x", 1, 11)), "");
    assert_eq!(say(&replica.list(20, &[object("x", 1, 11)])), "", "a list from just before");
    assert_eq!(replica.tell("DELETED", object("x", 1, 21)), "");
    assert_eq!(replica.tell("ADDED", object("x", 2, 22)), "x none -> 22");
    assert_eq!(replica.record_deleted(&entry("x", 1, 3).id, "x-1", &author("h")), None);
    assert_eq!(replica.names(), at(&[("x", 22)]));
}

#[test]
fn a_streaming_list_ends_with_its_bookmark_and_goes_on_as_a_watch() {
    let mut replica = Replica::listed(10, &[object("x", 1, 3), object("y", 1, 4)]);
    replica.start_over();
    replica.begin_list();
    assert_eq!(replica.tell("ADDED", object("x", 1, 3)), "");
    assert_eq!(replica.tell("ADDED", object("z", 1, 15)), "none -> 15".replace("none", "z none"));
    assert!(replica.must_list(), "nothing is known to be gone before the end");
    replica.list_at(20).unwrap();
    assert!(matches!(replica.finish_list(), Listed::Complete { deltas, .. } if say(&deltas) == "y 4 -> none"));
    assert_eq!((replica.version(), replica.must_list()), (20, false));
    assert_eq!(replica.tell("MODIFIED", object("x", 1, 21)), "x 3 -> 21");
}

#[test]
fn what_is_deleted_while_a_list_streams_is_gone() {
    let mut replica = Replica::default();
    replica.begin_list();
    replica.tell("ADDED", object("x", 1, 3));
    replica.tell("ADDED", object("y", 1, 4));
    replica.tell("DELETED", object("x", 1, 12));
    replica.list_at(13).unwrap();
    assert!(matches!(replica.finish_list(), Listed::Complete { first: true, .. }));
    assert_eq!(replica.names(), at(&[("y", 4)]));
}

#[test]
fn a_streaming_list_from_a_server_that_lags_behind_is_refused_at_its_end() {
    let mut replica = Replica::listed(10, &[object("x", 1, 3)]);
    replica.event(bookmark(30)).unwrap();
    replica.begin_list();
    assert_eq!(replica.list_at(29), Err(Broken::Stale { got: 29, seen: 30 }));
    assert_eq!(replica.names(), at(&[("x", 3)]));
}

#[test]
fn other_objects_that_miss_the_second_time_are_doubted_anew() {
    let objects: Vec<Value> = (0..40).map(|n| object(&format!("o{n}"), 1, 3)).collect();
    let mut replica = Replica::listed(10, &objects);
    let list = |replica: &mut Replica, version, shown: &[Value]| {
        replica.begin_list();
        replica.page(page(version, shown)).unwrap();
        replica.finish_list()
    };
    assert!(matches!(list(&mut replica, 20, &objects[20..]), Listed::Doubtful { missing: 20 }));
    assert!(matches!(list(&mut replica, 21, &objects[..20]), Listed::Doubtful { missing: 20 }));
    assert!(matches!(list(&mut replica, 22, &objects[..20]), Listed::Complete { deltas, .. } if deltas.len() == 20));
}

#[test]
fn a_copy_that_was_given_up_begins_anew_but_never_goes_back() {
    let mut replica = Replica::listed(10, &[object("x", 1, 3)]);
    replica.clear();
    assert!(!replica.is_complete() && replica.must_list() && replica.store().bytes() == 0);
    replica.begin_list();
    assert!(matches!(replica.page(page(9, &[])), Err(Broken::Stale { .. })));
    replica.list(10, &[object("x", 1, 3)]);
    assert_eq!(replica.names(), at(&[("x", 3)]));
}
