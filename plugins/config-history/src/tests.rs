//! The function by itself: no cluster, no Wasm.

use plugin_sdk::{Fake, Planned};

use super::*;

crd_test!("../crd.yaml", "../sample.yaml", spec: ConfigHistory, status: Status);

/// What `Context::fake()` says of the time.
const NOW: u64 = 1_700_000_000;

fn history(spec: &str) -> String {
    format!("{{ kind: ConfigHistory, metadata: {{ name: h, namespace: n }}, spec: {{ selector: app=web, {spec} }} }}")
}

fn config(name: &str, text: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "text": text },
        "metadata": { "name": name, "namespace": "n", "labels": { "app": "web" } } })
}

fn run(cluster: &Fake, spec: &str) -> Planned {
    cluster.run(reconcile, &history(spec)).unwrap()
}

/// Edits a source, runs, and carries out the plan.
fn edit(cluster: Fake, text: &str, spec: &str) -> (Fake, Planned) {
    let cluster = cluster.with_object(config("web", text));
    let plan = run(&cluster, spec);
    (cluster.with_applied(&plan), plan)
}

/// The texts that are kept.
fn texts(cluster: &Fake) -> Vec<String> {
    let copies = cluster.context("n").unwrap().list(CONFIG, "demo.reef.dev/config-history=h").unwrap();
    let number = |copy: &Object| copy.annotation("demo.reef.dev/version").unwrap().parse::<u64>().unwrap();
    let mut copies: Vec<_> = copies.iter().map(|copy| (number(copy), copy.at("/data/text").as_str().unwrap().into())).collect();
    copies.sort();
    copies.into_iter().map(|(_, text)| text).collect()
}

#[test]
fn a_version_is_copied_whole_without_the_labels_of_its_source() {
    let mut binary = config("web", "one");
    binary["binaryData"] = json!({ "b": "AA==" });
    let plan = run(&Context::fake().with_object(binary), "keep: 2");
    let [write] = &plan.writes[..] else { panic!("{plan:?}") };
    assert_eq!((write.verb, &write.options), ("create", &json!({ "keep": true })));
    let copy = &write.object;
    assert_eq!(copy["metadata"]["labels"], json!({ "demo.reef.dev/config-history": "h" }));
    assert_eq!((&copy["data"], &copy["binaryData"]), (&json!({ "text": "one" }), &json!({ "b": "AA==" })));
    assert_eq!((&copy["immutable"], &copy["metadata"]["namespace"]), (&json!(true), &json!("n")));
    assert_eq!(plan.status, Some(json!({ "sources": 1, "versions": 1, "lastSnapshot": "2023-11-14T22:13:20Z" })));
    assert_eq!(plan.events.len(), 1);
    assert_eq!((plan.condition("UpToDate"), plan.after), (Some("True"), None));
}

#[test]
fn three_edits_with_two_kept_leave_the_last_two_and_then_nothing_happens() {
    let mut cluster = Context::fake();
    for text in ["one", "two", "three"] {
        let plan;
        (cluster, plan) = edit(cluster, text, "keep: 2");
        assert_eq!((plan.created().len(), plan.events.len()), (1, 1));
    }
    assert_eq!(texts(&cluster), ["two", "three"]);
    let plan = run(&cluster, "keep: 2");
    assert!(plan.writes.is_empty() && plan.events.is_empty(), "{plan:?}");
    assert_eq!(plan.status.unwrap()["versions"], 2);
}

#[test]
fn the_old_one_goes_only_when_the_new_one_is_there() {
    let (cluster, _) = edit(Context::fake(), "one", "keep: 1");
    let (_, plan) = edit(cluster, "two", "keep: 1");
    assert_eq!(plan.writes.iter().map(|write| write.verb).collect::<Vec<_>>(), ["create", "delete"]);
}

#[test]
fn what_comes_back_is_the_last_version_again_and_not_kept_twice() {
    let (cluster, _) = edit(Context::fake(), "one", "keep: 2");
    let (cluster, _) = edit(cluster, "two", "keep: 2");
    let (cluster, plan) = edit(cluster, "one", "keep: 2");
    assert_eq!((plan.created(), plan.deleted(), plan.events.len()), (vec![], vec![], 1));
    assert_eq!(texts(&cluster), ["two", "one"]);
    assert!(run(&cluster, "keep: 2").writes.is_empty());
    let (cluster, _) = edit(cluster, "three", "keep: 2");
    assert_eq!(texts(&cluster), ["one", "three"]);
}

#[test]
fn of_one_source_there_is_at_most_one_version_in_the_time_and_then_the_one_that_is_there() {
    let spec = "every: 1m";
    let (cluster, first) = edit(Context::fake(), "one", spec);
    assert_eq!(first.created().len(), 1);
    let at = |cluster: Fake, seconds: u64| cluster.with_now(Duration::from_secs(NOW + seconds));
    let (cluster, early) = edit(at(cluster, 20), "two", spec);
    assert!(early.writes.is_empty() && early.events.is_empty(), "{early:?}");
    assert_eq!(early.after, Some(Duration::from_secs(40)));
    assert_eq!(
        (early.condition("UpToDate"), early.message("UpToDate")),
        (Some("False"), "changed ConfigMaps wait until 2023-11-14T22:14:20Z")
    );
    let (cluster, later) = edit(at(cluster, 30), "three", spec);
    assert_eq!((later.status, later.conditions), (early.status, early.conditions), "what is said does not change with time");
    let (cluster, due) = edit(at(cluster, 60), "three", spec);
    assert_eq!((due.created().len(), due.after), (1, None));
    assert_eq!(texts(&cluster), ["one", "three"]);
    // Another source has a time of its own.
    let plan = run(&at(cluster, 61).with_object(config("other", "x")), spec);
    assert_eq!(plan.created().len(), 1);
}

#[test]
fn copies_are_no_sources_whatever_the_selector_says() {
    let all = "{ kind: ConfigHistory, metadata: { name: h, namespace: n }, spec: { selector: '!legacy' } }";
    let cluster = Context::fake().with_object(config("web", "one"));
    let first = cluster.run(reconcile, all).unwrap();
    let cluster = cluster.with_applied(&first);
    let again = cluster.run(reconcile, all).unwrap();
    assert!(again.writes.is_empty(), "{again:?}");
    assert_eq!(again.status.unwrap()["sources"], 1);
    let of_another = all.replace("name: h", "name: i");
    assert_eq!(
        cluster.run(reconcile, &of_another).unwrap().created().len(),
        1,
        "the source, and not the copies of the other history"
    );
}

#[test]
fn a_copy_that_somebody_deleted_comes_back_only_if_it_is_the_present_version() {
    let (cluster, first) = edit(Context::fake(), "one", "keep: 3");
    let (cluster, second) = edit(cluster, "two", "keep: 3");
    let without = |cluster: Fake, plan: &Planned| {
        let mut delete = plan.clone();
        delete.writes[0].verb = "delete";
        cluster.with_applied(&delete)
    };
    let cluster = without(cluster, &first);
    assert!(run(&cluster, "keep: 3").writes.is_empty());
    let cluster = without(cluster, &second);
    assert_eq!(run(&cluster, "keep: 3").created(), second.created());
}

#[test]
fn a_name_that_somebody_else_has_is_told_and_left_alone() {
    let cluster = Context::fake().with_object(config("web", "one"));
    let name = run(&cluster, "").created()[0].trim_start_matches("v1/ConfigMap ").to_owned();
    let mut foreign = config(&name, "mine");
    foreign["metadata"]["labels"] = json!({});
    let plan = run(&cluster.with_object(foreign), "");
    assert!(plan.writes.is_empty() && plan.events.is_empty());
    assert!(plan.message("UpToDate").starts_with(&format!("there is a ConfigMap {name}")), "{plan:?}");
}

#[test]
fn many_at_once_come_in_batches_with_an_event_each() {
    let cluster = (0..50).fold(Context::fake(), |cluster, n| cluster.with_object(config(&format!("web-{n}"), "x")));
    let (mut cluster, mut events) = (cluster, 0);
    for left in [30, 10, 0] {
        let plan = run(&cluster, "");
        assert_eq!((plan.after.is_some(), plan.condition("UpToDate") == Some("True")), (left > 0, left == 0));
        events += plan.events.len();
        cluster = cluster.with_applied(&plan);
    }
    assert_eq!(events, 50);
    assert!(run(&cluster, "").writes.is_empty());
}

#[test]
fn fewer_to_keep_takes_away_at_once_also_from_a_source_that_is_gone() {
    let mut cluster = Context::fake();
    for text in ["one", "two", "three"] {
        (cluster, _) = edit(cluster, text, "keep: 3");
    }
    cluster =
        cluster.with_object(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "web", "namespace": "n" } }));
    let plan = run(&cluster, "keep: 1");
    assert_eq!((plan.deleted().len(), plan.condition("UpToDate")), (2, Some("False")));
    assert_eq!(texts(&cluster.with_applied(&plan)), ["three"]);
}

#[test]
fn a_long_name_still_makes_a_valid_one() {
    let long = format!("{}.{}", "a".repeat(219), "b".repeat(33));
    let plan = run(&Context::fake().with_object(config(&long, "one")), "");
    let name = plan.writes[0].object["metadata"]["name"].as_str().unwrap();
    assert!(name.len() <= 253 && name.starts_with("aaa") && !name.contains(".-"), "{name}");
}

#[test]
fn a_deleted_history_leaves_its_copies_or_takes_them_along() {
    let (cluster, _) = edit(Context::fake(), "one", "");
    let (cluster, _) = edit(cluster, "two", "");
    let kept = cluster.run(cleanup, &history("retain: true")).unwrap();
    assert!(kept.done && kept.writes.is_empty());
    let gone = cluster.run(cleanup, &history("retain: false")).unwrap();
    assert!(gone.done);
    assert_eq!(gone.deleted().len(), 2);
    assert!(texts(&cluster.with_applied(&gone)).is_empty());
}

#[test]
fn more_copies_than_a_plan_can_delete_go_in_several() {
    let copy = |n: u32| {
        let labels = json!({ "demo.reef.dev/config-history": "h" });
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": format!("c{n}"), "namespace": "n", "labels": labels } })
    };
    let cluster = (0..401).fold(Context::fake(), |cluster, n| cluster.with_object(copy(n)));
    let first = cluster.run(cleanup, &history("retain: false")).unwrap();
    assert!(!first.done && first.after.is_some());
    let second = cluster.with_applied(&first).run(cleanup, &history("retain: false")).unwrap();
    assert_eq!((second.done, second.deleted().len()), (true, 1));
}
