//! Which keys a change concerns, by what they have read.

use serde_json::{Value, json};

use super::*;
use crate::{names::PluginId, watch::replica::Found};

fn entry(name: &str, version: u64, extra: Value) -> Arc<Entry> {
    let mut meta =
        json!({ "name": name, "namespace": "a", "uid": format!("uid-{name}"), "resourceVersion": version.to_string() });
    for (field, value) in extra.as_object().unwrap() {
        meta[field] = value.clone();
    }
    let object =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": { "v": version.to_string(), "same": "x" } });
    Arc::new(Entry::parse(object.to_string().as_bytes(), None).unwrap())
}

fn labelled(name: &str, version: u64, app: &str) -> Arc<Entry> {
    entry(name, version, json!({ "labels": { "app": app } }))
}

fn changed(old: Option<&Arc<Entry>>, new: Option<&Arc<Entry>>) -> Delta {
    Delta::Changed { old: old.cloned(), new: new.cloned(), found: Found::Watch }
}

fn reader(name: &str) -> Key {
    let object = ObjectId::new("demo.reef.dev/v1/Hello".parse().unwrap(), "a", name);
    Key { plugin: PluginId::new("a", "p"), cluster: Cluster::local(), object }
}

fn fields(fields: &[&str]) -> Vec<String> {
    fields.iter().map(|f| (*f).to_owned()).collect()
}

fn read(name: &str, kept: &[&str]) -> Read {
    Read { object: ObjectId::new("v1/ConfigMap".parse().unwrap(), "a", name), fields: fields(kept) }
}

fn query(namespace: &str, selector: &str, kept: &[&str]) -> Query {
    let kind = "v1/ConfigMap".parse().unwrap();
    Query { kind, namespace: namespace.into(), selector: selector.parse().unwrap(), fields: fields(kept) }
}

fn fired(dependencies: &Dependencies, delta: &Delta) -> Vec<String> {
    let wakes = dependencies.wakes(&Cluster::local(), delta);
    let mut names: Vec<_> = wakes.iter().map(|w| w.key.object.name.to_string()).collect();
    names.sort();
    names
}

#[test]
fn what_was_read_wakes_when_it_appears_changes_or_goes() {
    let mut dependencies = Dependencies::default();
    dependencies.set(&reader("h"), &[read("c", &[])], &[]);
    let (one, two, other) = (entry("c", 1, json!({})), entry("c", 2, json!({})), entry("d", 1, json!({})));
    for delta in [changed(None, Some(&one)), changed(Some(&one), Some(&two)), changed(Some(&two), None)] {
        assert_eq!(fired(&dependencies, &delta), ["h"]);
    }
    assert!(fired(&dependencies, &changed(None, Some(&other))).is_empty());
}

#[test]
fn only_what_was_kept_of_an_object_wakes() {
    let mut dependencies = Dependencies::default();
    dependencies.set(&reader("v"), &[read("c", &["/data/v"])], &[]);
    dependencies.set(&reader("same"), &[read("c", &["data.same"]), read("c", &["/data/absent"])], &[]);
    dependencies.set(&reader("both"), &[read("c", &["data.same"]), read("c", &["/data/v"])], &[]);
    dependencies.set(&reader("whole"), &[read("c", &["data.same"]), read("c", &[]), read("c", &["data.same"])], &[]);
    let (one, two) = (entry("c", 1, json!({})), entry("c", 2, json!({})));
    assert_eq!(fired(&dependencies, &changed(Some(&one), Some(&two))), ["both", "v", "whole"]);
    assert_eq!(fired(&dependencies, &changed(Some(&two), None)), ["both", "same", "v", "whole"]);
    let recreated = entry("c", 3, json!({ "uid": "another" }));
    assert_eq!(fired(&dependencies, &changed(Some(&two), Some(&recreated))), ["both", "same", "v", "whole"]);
}

#[test]
fn a_list_wakes_when_an_object_begins_or_ceases_to_match_or_changes_while_it_does() {
    let mut dependencies = Dependencies::default();
    dependencies.set(&reader("web"), &[], &[query("a", "app=web", &[])]);
    dependencies.set(&reader("not-web"), &[], &[query("a", "app!=web", &[])]);
    dependencies.set(&reader("all"), &[], &[query("a", "", &[])]);
    dependencies.set(&reader("everywhere"), &[], &[query("", "app=web", &[])]);
    dependencies.set(&reader("elsewhere"), &[], &[query("b", "app=web", &[])]);
    let (web, newer, db) = (labelled("c", 1, "web"), labelled("c", 2, "web"), labelled("c", 3, "db"));
    let everybody = ["all", "everywhere", "not-web", "web"];
    assert_eq!(fired(&dependencies, &changed(None, Some(&web))), ["all", "everywhere", "web"]);
    assert_eq!(fired(&dependencies, &changed(Some(&web), Some(&newer))), ["all", "everywhere", "web"]);
    assert_eq!(fired(&dependencies, &changed(Some(&newer), Some(&db))), everybody);
    assert_eq!(fired(&dependencies, &changed(Some(&db), Some(&web))), everybody);
    assert_eq!(fired(&dependencies, &changed(Some(&web), None)), ["all", "everywhere", "web"]);
    assert_eq!(fired(&dependencies, &changed(None, Some(&db))), ["all", "not-web"]);
}

#[test]
fn what_was_not_kept_of_a_list_wakes_only_by_membership() {
    let mut dependencies = Dependencies::default();
    dependencies.set(&reader("names"), &[], &[query("a", "app=web", &["/data/same"])]);
    dependencies.set(&reader("values"), &[], &[query("a", "app=web", &["/data/v"])]);
    let (web, newer, db) = (labelled("c", 1, "web"), labelled("c", 2, "web"), labelled("c", 3, "db"));
    assert_eq!(fired(&dependencies, &changed(Some(&web), Some(&newer))), ["values"]);
    assert_eq!(fired(&dependencies, &changed(Some(&newer), Some(&db))), ["names", "values"]);
}

#[test]
fn what_is_no_longer_read_no_longer_wakes_and_nothing_is_left_of_it() {
    let mut dependencies = Dependencies::default();
    dependencies.set(&reader("h"), &[read("c", &[]), read("d", &[])], &[query("a", "app=web", &[]), query("a", "", &["/x"])]);
    dependencies.add(&reader("h"), &read("e", &[]));
    dependencies.set(&reader("h"), &[read("d", &[])], &[query("a", "app=db", &[])]);
    for gone in [entry("c", 1, json!({})), entry("e", 1, json!({})), labelled("f", 1, "web")] {
        assert!(fired(&dependencies, &changed(None, Some(&gone))).is_empty());
    }
    assert_eq!(fired(&dependencies, &changed(None, Some(&entry("d", 1, json!({}))))), ["h"]);
    assert_eq!(fired(&dependencies, &changed(None, Some(&labelled("f", 1, "db")))), ["h"]);
    dependencies.set(&reader("h"), &[], &[]);
    assert!(dependencies.objects.is_empty() && dependencies.lists.is_empty() && dependencies.read.is_empty());
}

#[test]
fn an_own_write_wakes_everybody_but_its_author() {
    let mut dependencies = Dependencies::default();
    dependencies.set(&reader("author"), &[read("c", &[])], &[query("a", "", &[])]);
    dependencies.set(&reader("other"), &[read("c", &[])], &[query("a", "", &[])]);
    dependencies.set(&reader("lister"), &[], &[query("a", "", &[])]);
    let found = Found::OwnWrite(reader("author"));
    let delta = Delta::Changed { old: None, new: Some(entry("c", 1, json!({}))), found };
    assert_eq!(fired(&dependencies, &delta), ["lister", "other"]);
}

#[test]
fn whoever_read_in_a_scope_is_found_by_it() {
    let mut dependencies = Dependencies::default();
    dependencies.set(&reader("object"), &[read("c", &[])], &[]);
    dependencies.set(&reader("list"), &[], &[query("a", "app=web", &[])]);
    dependencies.set(&reader("elsewhere"), &[], &[query("b", "", &[])]);
    let found = |kind: &str, namespace| {
        let keys = dependencies.readers_in(&Scope::new(Cluster::local(), kind.parse().unwrap(), namespace));
        let mut names: Vec<String> = keys.iter().map(|key| key.object.name.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!(found("v1/ConfigMap", "a"), ["list", "object"]);
    assert_eq!(found("v1/ConfigMap", ""), ["elsewhere", "list", "object"]);
    assert!(found("v1/Secret", "a").is_empty());
}

/// `cargo test --lib -- a_dependency_costs --nocapture` prints what ARCHITECTURE.md says. Other tests run beside this one, so
/// the bound is coarse.
#[test]
fn a_dependency_costs_less_than_a_kilobyte() {
    const KEYS: usize = 5_000;
    const READS: usize = 10;
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    };
    let (mut measured, mut kept) = (Vec::new(), Vec::new());
    for shared in [false, true] {
        let mut dependencies = Dependencies::default();
        let before = resident();
        for n in 0..KEYS {
            let name = |k: usize| if shared { format!("c{k}") } else { format!("c{n}-{k}") };
            let reads: Vec<Read> = (0..READS).map(|k| read(&name(k), &[])).collect();
            dependencies.set(&reader(&format!("h{n}")), &reads, &[]);
        }
        measured.push(resident().saturating_sub(before) / (KEYS * READS));
        assert_eq!(dependencies.read.len(), KEYS);
        // Or the second would be made of the memory of the first.
        kept.push(dependencies);
    }
    println!("bytes per dependency: {} on objects of one's own, {} on shared ones", measured[0], measured[1]);
    assert!(measured.iter().all(|bytes| *bytes < 1024), "{measured:?}");
}
