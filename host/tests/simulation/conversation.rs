//! What the host and people say to an API server in a simulation, and what stays of the answers when chance is taken out of
//! them. The real server's answers are in `recorded.json`: a test among the promises asks a real server and compares, and a
//! test beside the simulation asks the model. Knows neither; both include this file.

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub const NAMESPACE: &str = "team-a";

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

pub struct Request {
    pub method: &'static str,
    pub target: String,
    pub content: &'static str,
    pub body: Value,
}

fn request(method: &'static str, target: impl Into<String>, content: &'static str, body: Value) -> Request {
    Request { method, target: target.into(), content, body }
}

fn hello(text: &str) -> Value {
    json!({ "apiVersion": "demo.reef.dev/v1", "kind": "Hello", "metadata": { "name": "a" }, "spec": { "text": text } })
}

/// The child of the Hello of this uid.
fn child(owner: &Value, data: Value) -> Value {
    let reference = json!({ "apiVersion": "demo.reef.dev/v1", "kind": "Hello", "name": "a", "uid": owner, "controller": true });
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": data,
        "metadata": { "name": "a", "labels": { "reef.dev/plugin": "hello" }, "ownerReferences": [reference] },
    })
}

fn said(status: &str) -> Value {
    let condition = json!({ "type": "Ready", "status": status, "reason": "Said", "message": "so",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1 });
    json!({ "apiVersion": "demo.reef.dev/v1", "kind": "Hello", "metadata": { "name": "a" },
        "status": { "text": "one", "conditions": [condition] } })
}

/// The entry of `hello` in `managedFields`, and where it is.
fn entry_of_create(object: &Value) -> (usize, Value) {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let found = entries.enumerate().find(|(_, entry)| entry["manager"] == "reef:hello" && entry["operation"] == "Update");
    found.map(|(at, entry)| (at, entry.clone())).unwrap_or_default()
}

/// One object's life and its child's, and everything that goes wrong on the way. Each answer is described by what was asked.
pub async fn converse(namespace: &str, mut ask: impl AsyncFnMut(Request) -> (u16, Value)) -> Vec<(String, u16, Value)> {
    let hellos = format!("/apis/demo.reef.dev/v1/namespaces/{namespace}/hellos");
    let configs = format!("/api/v1/namespaces/{namespace}/configmaps");
    let (one, its) = (format!("{hellos}/a"), format!("{configs}/a"));
    let people = "fieldManager=people";
    let (ours, forced) = ("fieldManager=reef:hello", "fieldManager=reef:hello&force=true");
    let mut answers = Vec::new();
    let mut tell = async |what: &str, request: Request| {
        let (code, answer) = ask(request).await;
        answers.push((what.to_owned(), code, answer.clone()));
        answer
    };
    tell("what is not there", request("GET", &one, "", Value::Null)).await;
    let owner = tell("a Hello is made", request("POST", format!("{hellos}?{people}"), JSON, hello("one"))).await;
    let uid = owner["metadata"]["uid"].clone();
    tell("made twice", request("POST", format!("{hellos}?{people}"), JSON, hello("one"))).await;
    let make = |text: &str| child(&uid, json!({ "text": text }));
    let made = tell("a child is made", request("POST", format!("{configs}?{ours}"), JSON, make("one"))).await;

    let (at, _) = entry_of_create(&made);
    let convert = |uid: &Value| {
        json!([
            { "op": "test", "path": "/metadata/uid", "value": uid },
            { "op": "test", "path": format!("/metadata/managedFields/{at}/manager"), "value": "reef:hello" },
            { "op": "replace", "path": format!("/metadata/managedFields/{at}/operation"), "value": "Apply" },
        ])
    };
    let patch = |body: Value| request("PATCH", format!("{its}?{ours}"), JSON_PATCH, body);
    tell("a test of a JSON patch that does not hold", patch(convert(&json!("another")))).await;
    tell("a create becomes an apply", patch(convert(&made["metadata"]["uid"]))).await;
    let apply = |body: Value| request("PATCH", format!("{its}?{forced}"), APPLY, body);
    let two = tell("an apply changes a value", apply(make("two"))).await;
    let same = tell("an apply that changes nothing", apply(make("two"))).await;
    answers_agree(&two, &same);
    tell("an apply with one field more", apply(child(&uid, json!({ "text": "two", "more": "1" })))).await;
    tell("an apply with one field less", apply(make("two"))).await;
    let drift = json!({ "data": { "text": "theirs", "theirs": "1" } });
    tell("somebody changes it", request("PATCH", format!("{its}?{people}"), MERGE, drift)).await;
    let unforced = request("PATCH", format!("{its}?{ours}"), APPLY, make("two"));
    tell("an apply that is not forced", unforced).await;
    tell("it is taken back", apply(make("two"))).await;
    tell("an apply by another manager", request("PATCH", format!("{its}?fieldManager=other&force=true"), APPLY, make("two")))
        .await;
    tell("what both had, one no longer says", apply(child(&uid, json!({})))).await;
    let mut elsewhere = make("two");
    elsewhere["metadata"]["uid"] = json!("another");
    tell("an apply to another uid", apply(elsewhere)).await;
    let stale = json!({ "metadata": { "resourceVersion": "1" }, "data": { "text": "late" } });
    tell("a patch of a version that is past", request("PATCH", format!("{its}?{people}"), MERGE, stale)).await;

    let report = |status: &str| request("PATCH", format!("{one}/status?{forced}"), APPLY, said(status));
    tell("a status is applied", report("True")).await;
    tell("once more", report("True")).await;
    tell("a condition turns", report("False")).await;
    tell("an edit", request("PATCH", format!("{one}?{people}"), MERGE, json!({ "spec": { "text": "two" } }))).await;
    tell("an edit of a status that is not asked for", request("PATCH", format!("{one}?{people}"), MERGE, said("True"))).await;
    tell("all of them", request("GET", &hellos, "", Value::Null)).await;
    tell("one by its name", request("GET", format!("{configs}?fieldSelector=metadata.name%3Da"), "", Value::Null)).await;

    let options = |uid: &Value| json!({ "kind": "DeleteOptions", "apiVersion": "v1", "preconditions": { "uid": uid } });
    tell("a deletion of another uid", request("DELETE", &its, JSON, options(&json!("another")))).await;
    tell("a deletion", request("DELETE", &its, JSON, options(&made["metadata"]["uid"]))).await;
    tell("a second one", request("DELETE", &its, JSON, options(&made["metadata"]["uid"]))).await;
    let mut gone = make("two");
    gone["metadata"]["uid"] = made["metadata"]["uid"].clone();
    tell("an apply to a uid that is gone", apply(gone)).await;
    tell("an apply makes what is not there", apply(make("three"))).await;
    let hold = json!({ "metadata": { "finalizers": ["reef.dev/hello"] } });
    tell("a finalizer", request("PATCH", format!("{one}?{people}"), MERGE, hold)).await;
    tell("a deletion that is held", request("DELETE", &one, JSON, json!({}))).await;
    tell("a second one that is held", request("DELETE", &one, JSON, json!({}))).await;
    tell("a status of what is on its way out", report("True")).await;
    tell("it is let go", request("PATCH", format!("{one}?{people}"), MERGE, json!({ "metadata": { "finalizers": null } }))).await;
    tell("it is gone", request("GET", &one, "", Value::Null)).await;
    answers
}

fn answers_agree(one: &Value, other: &Value) {
    assert_eq!(
        one["metadata"]["resourceVersion"], other["metadata"]["resourceVersion"],
        "an apply that changes nothing is a change"
    );
}

/// The answers without chance: times, uids and versions become what they are the how manieth of.
pub fn plain(namespace: &str, answers: &[(String, u16, Value)]) -> Value {
    let mut names = Names::default();
    let answers = answers.iter().map(|(what, code, answer)| json!({ "what": what, "code": code, "answer": names.plain(answer) }));
    let text = json!(answers.collect::<Vec<_>>()).to_string().replace(namespace, NAMESPACE);
    serde_json::from_str(&text).unwrap()
}

#[derive(Default)]
struct Names {
    uids: Vec<String>,
    versions: BTreeMap<String, usize>,
}

impl Names {
    fn plain(&mut self, answer: &Value) -> Value {
        if answer["kind"] == "Status" {
            return match answer["status"] == "Success" {
                true => json!({ "status": "Success" }),
                false => json!({ "reason": answer["reason"], "code": answer["code"] }),
            };
        }
        if let Some(items) = answer["items"].as_array() {
            return json!({ "items": items.iter().map(|item| self.object(item)).collect::<Vec<_>>() });
        }
        self.object(answer)
    }

    fn object(&mut self, object: &Value) -> Value {
        if let Some(uid) = object["metadata"]["uid"].as_str().filter(|uid| !self.uids.iter().any(|known| known == uid)) {
            self.uids.push(uid.to_owned());
        }
        let mut text = object.to_string();
        for (number, uid) in self.uids.iter().enumerate() {
            text = text.replace(uid, &format!("the uid {number}"));
        }
        let mut object: Value = serde_json::from_str(&text).unwrap();
        // Items of a list of a built-in kind do not say what they are.
        for field in ["apiVersion", "kind"] {
            object.as_object_mut().unwrap().remove(field);
        }
        let metadata = object["metadata"].as_object_mut().unwrap();
        for time in ["creationTimestamp", "deletionTimestamp"] {
            metadata.entry(time).and_modify(|at| *at = json!("a time"));
        }
        if let Some(Value::String(version)) = metadata.get_mut("resourceVersion") {
            let next = self.versions.len();
            *version = format!("the version {}", self.versions.entry(version.clone()).or_insert(next));
        }
        if let Some(Value::Array(entries)) = metadata.get_mut("managedFields") {
            for entry in entries.iter_mut() {
                entry["time"] = json!("a time");
                without_containers(&mut entry["fieldsV1"]);
            }
            entries.sort_by_key(|entry| format!("{}{}{}", entry["manager"], entry["operation"], entry["subresource"]));
        }
        object
    }
}

/// A map or list itself is a field too, which the host never looks at.
fn without_containers(fields: &mut Value) {
    if let Value::Object(map) = fields {
        map.remove(".");
        map.values_mut().for_each(without_containers);
    }
}
