//! A model of an API server, as far as the host talks to one: discovery, reviews, tokens, leases, lists, watches, creates,
//! patches, server-side apply, deletes and garbage collection. It serves requests at the seam below `identity`, in virtual
//! time, and goes wrong when it is told to. What it answers is compared with recorded answers of a real one.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use reef::identity::{Body, Connection, Open};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, service_fn};

use super::{
    fields::{self, Owners},
    random::Random,
};

/// Plural, namespace, name.
type Id = (String, String, String);

struct Stored {
    object: Value,
    owners: Owners,
}

struct Event {
    version: u64,
    kind: &'static str,
    plural: String,
    object: Value,
}

/// How often what goes wrong, in percent of the requests of tenants.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub refused: u64,
    /// After the change was made.
    pub answer_lost: u64,
    /// Milliseconds, at most.
    pub latency: u64,
}

pub struct State {
    objects: BTreeMap<Id, Stored>,
    log: Vec<Event>,
    version: u64,
    /// Versions up to this are compacted.
    oldest: u64,
    uids: u64,
    pub faults: Faults,
    /// No request is answered.
    pub away: bool,
    random: Random,
    /// Watches of an earlier number end.
    cut: u64,
    /// Requests by tenants to change something that got through.
    pub writes: Vec<String>,
    /// Owners that a tenant's write is under way for.
    writing: HashMap<String, u32>,
    /// What must never happen, and did.
    pub wrong: Vec<String>,
}

#[derive(Clone)]
pub struct Server {
    pub state: Arc<Mutex<State>>,
    news: watch::Sender<u64>,
}

type Answer = Result<(u16, Value), BoxError>;

fn status(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let failure = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": code });
    (code, failure)
}

struct Asked {
    method: Method,
    path: Vec<String>,
    query: HashMap<String, String>,
    content: String,
    body: Vec<u8>,
    tenant: bool,
}

impl Asked {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    fn changes(&self) -> bool {
        self.method != Method::GET && !self.path.iter().any(|part| part.starts_with("self") || part == "token")
    }
}

impl Server {
    pub fn new(seed: u64) -> Self {
        let state = State {
            objects: BTreeMap::new(),
            log: Vec::new(),
            version: 100,
            oldest: 0,
            uids: 0,
            faults: Faults::default(),
            away: false,
            random: Random(seed),
            cut: 0,
            writes: Vec::new(),
            writing: HashMap::new(),
            wrong: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), news: watch::Sender::new(0) }
    }

    /// Connections of one host, with or without its own identity. They break for good when the host is dead.
    pub fn open(&self, tenant: bool, dead: &CancellationToken) -> Open {
        let (server, dead) = (self.clone(), dead.clone());
        Arc::new(move |_| {
            let (server, dead) = (server.clone(), dead.clone());
            let serve = service_fn(move |request| {
                let (server, dead) = (server.clone(), dead.clone());
                async move {
                    tokio::select! {
                        biased;
                        () = dead.cancelled() => Err("the host is dead".into()),
                        answer = server.serve(request, tenant) => answer,
                    }
                }
            });
            Connection::new(serve)
        })
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (answer, version) = {
            let mut state = self.state.lock().unwrap();
            (change(&mut state), state.version)
        };
        self.news.send_replace(version);
        answer
    }

    /// As somebody who is neither a host nor a tenant.
    pub fn ask(&self, method: &str, target: &str, content: &str, body: &Value) -> (u16, Value) {
        let asked = parse(method.parse().unwrap(), target, content, body.to_string().into_bytes(), false);
        self.change(|state| state.answer(&asked))
    }

    pub fn cut_watches(&self) {
        self.change(|state| state.cut += 1);
    }

    async fn serve(self, request: Request<Full<Bytes>>, tenant: bool) -> Result<Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes().to_vec();
        let content = parts.headers.get("content-type").map(|v| v.to_str().unwrap_or_default()).unwrap_or_default();
        let asked = parse(parts.method, &parts.uri.to_string(), content, body, tenant);
        if asked.query.get("watch").is_some_and(|watch| watch == "true" || watch == "1") {
            self.delay().await?;
            return Ok(self.watch(&asked));
        }
        let (code, answer) = self.answer(&asked).await?;
        let mut response = Response::new(Full::new(Bytes::from(answer.to_string())).map_err(BoxError::from).boxed());
        *response.status_mut() = StatusCode::from_u16(code)?;
        if code == 429 {
            response.headers_mut().insert("retry-after", "1".parse()?);
        }
        Ok(response)
    }

    async fn delay(&self) -> Result<(), BoxError> {
        let latency = {
            let mut state = self.state.lock().unwrap();
            let most = state.faults.latency;
            if most == 0 { 0 } else { state.random.below(most) }
        };
        tokio::time::sleep(Duration::from_millis(latency)).await;
        if self.state.lock().unwrap().away {
            return Err("connection refused".into());
        }
        Ok(())
    }

    async fn answer(&self, asked: &Asked) -> Answer {
        let _writing = (asked.tenant && asked.changes()).then(|| Writing::begin(self, asked));
        self.delay().await?;
        let fault = {
            let mut state = self.state.lock().unwrap();
            let (faults, dice) = (state.faults, state.random.below(100));
            (asked.tenant && dice < faults.refused, asked.tenant && dice >= 100 - faults.answer_lost)
        };
        if fault.0 {
            let which = self.state.lock().unwrap().random.below(4);
            return match which {
                0 => Ok(status(429, "TooManyRequests", "too many requests")),
                1 => Ok(status(500, "InternalError", "etcdserver: request timed out")),
                2 => Ok(status(503, "ServiceUnavailable", "apiserver not ready")),
                _ => Err("connection reset".into()),
            };
        }
        let answer = self.change(|state| state.answer(asked));
        self.delay().await?;
        if fault.1 && asked.changes() { Err("connection reset".into()) } else { Ok(answer) }
    }

    fn watch(&self, asked: &Asked) -> Response<Body> {
        let (plural, namespace, only) = (asked.plural(), asked.namespace(), asked.only());
        let mut at: u64 = asked.query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        let (server, mut news) = (self.clone(), self.news.subscribe());
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<Result<Frame<Bytes>, BoxError>>();
        let number = self.state.lock().unwrap().cut;
        let seconds = asked.query.get("timeoutSeconds").and_then(|v| v.parse().ok()).unwrap_or(300);
        let line =
            |kind: &str, object: &Value| Ok(Frame::data(Bytes::from(format!("{}\n", json!({ "type": kind, "object": object })))));
        let initial = asked.query.get("sendInitialEvents").is_some_and(|v| v == "true");
        let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
        tokio::spawn(async move {
            if initial {
                let (objects, version) = server.state.lock().unwrap().list(&plural, &namespace, only.as_deref());
                at = version;
                objects.iter().for_each(|object| drop(sender.send(line("ADDED", object))));
                let done = json!({ "metadata": { "resourceVersion": version.to_string(),
                    "annotations": { "k8s.io/initial-events-end": "true" } } });
                let _ = sender.send(line("BOOKMARK", &done));
            }
            let mut bookmark = tokio::time::Instant::now() + Duration::from_secs(60);
            loop {
                {
                    let state = server.state.lock().unwrap();
                    if state.cut > number || state.away {
                        let _ = sender.send(Err("connection reset".into()));
                        return;
                    }
                    if at < state.oldest {
                        let _ = sender.send(line("ERROR", &status(410, "Expired", "too old resource version").1));
                        return;
                    }
                    for event in state.log.iter().filter(|event| event.version > at && event.plural == plural) {
                        let metadata = &event.object["metadata"];
                        let there = namespace.is_empty() || metadata["namespace"] == *namespace;
                        if there && only.as_ref().is_none_or(|name| metadata["name"] == **name) {
                            let _ = sender.send(line(event.kind, &event.object));
                        }
                    }
                    at = at.max(state.version);
                }
                let now = tokio::time::Instant::now();
                if now >= end || sender.is_closed() {
                    return;
                }
                if now >= bookmark {
                    bookmark = now + Duration::from_secs(60);
                    let _ = sender.send(line("BOOKMARK", &json!({ "metadata": { "resourceVersion": at.to_string() } })));
                }
                tokio::select! {
                    _ = news.changed() => {}
                    () = tokio::time::sleep_until(bookmark.min(end)) => {}
                    () = sender.closed() => return,
                }
            }
        });
        let frames =
            futures::stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|frame| (frame, receiver)) });
        Response::new(StreamBody::new(frames).boxed())
    }
}

/// A write of a tenant is under way; two at once for one owner would be two runs of one key.
struct Writing(Server, String);

impl Writing {
    fn begin(server: &Server, asked: &Asked) -> Self {
        let name =
            asked.name().map_or_else(|| asked.json()["metadata"]["name"].as_str().unwrap_or_default().into(), str::to_owned);
        let mut state = server.state.lock().unwrap();
        let running = state.writing.entry(name.clone()).or_default();
        *running += 1;
        // Events are told beside, and of any name.
        if *running > 1 && asked.plural() != "events" {
            state.wrong.push(format!("two writes for {name} at once: its key runs twice"));
        }
        Self(server.clone(), name)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap();
        if let Some(running) = state.writing.get_mut(&self.1) {
            *running -= 1;
        }
    }
}

fn parse(method: Method, target: &str, content: &str, body: Vec<u8>, tenant: bool) -> Asked {
    let target = target.strip_prefix("http://api").unwrap_or(target);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let plain = |text: &str| text.replace("%3D", "=").replace("%3A", ":").replace("%2F", "/");
    let pairs = query.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name.to_owned(), plain(value)));
    let path = path.split('/').skip(1).map(str::to_owned).collect();
    Asked { method, path, query: pairs.collect(), content: content.into(), body, tenant }
}

impl Asked {
    /// What is behind the group and version.
    fn rest(&self) -> &[String] {
        &self.path[if self.path[0] == "api" { 2 } else { 3 }.min(self.path.len())..]
    }

    fn place(&self) -> (&str, &[String]) {
        match self.rest() {
            [word, namespace, rest @ ..] if word == "namespaces" && !rest.is_empty() => (namespace, rest),
            rest => ("", rest),
        }
    }

    fn plural(&self) -> String {
        self.place().1.first().cloned().unwrap_or_default()
    }

    fn namespace(&self) -> String {
        self.place().0.into()
    }

    fn name(&self) -> Option<&str> {
        self.place().1.get(1).map(String::as_str)
    }

    fn subresource(&self) -> &str {
        self.place().1.get(2).map_or("", String::as_str)
    }

    fn only(&self) -> Option<String> {
        self.query.get("fieldSelector")?.strip_prefix("metadata.name=").map(str::to_owned)
    }
}

impl State {
    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(plural.into(), namespace.into(), name.into())).map(|stored| &stored.object)
    }

    pub fn all(&self, plural: &str) -> Vec<Value> {
        self.list(plural, "", None).0
    }

    /// Whoever continues from before now has to begin anew.
    pub fn compact(&mut self) {
        self.oldest = self.version;
    }

    /// As the garbage collector: what has owners, but none that is there, goes.
    pub fn collect(&mut self) {
        let uids: HashSet<String> = self.objects.values().map(|stored| uid(&stored.object["metadata"])).collect();
        let is_orphan = |stored: &Stored| {
            let owners = stored.object["metadata"]["ownerReferences"].as_array();
            owners.is_some_and(|owners| !owners.is_empty() && owners.iter().all(|owner| !uids.contains(&uid(owner))))
        };
        let orphans: Vec<Id> = self.objects.iter().filter(|(_, stored)| is_orphan(stored)).map(|(id, _)| id.clone()).collect();
        orphans.iter().for_each(|orphan| drop(self.delete(orphan, &Value::Null)));
    }

    fn list(&self, plural: &str, namespace: &str, only: Option<&str>) -> (Vec<Value>, u64) {
        let wanted =
            |(p, ns, name): &Id| p == plural && (namespace.is_empty() || ns == namespace) && only.is_none_or(|o| o == name);
        let found = self.objects.iter().filter(|(id, _)| wanted(id)).map(|(_, stored)| stored.object.clone());
        (found.collect(), self.version)
    }

    fn answer(&mut self, asked: &Asked) -> (u16, Value) {
        if asked.path[0] == "openapi" {
            return openapi(asked);
        }
        if let [name] = asked.rest()
            && let Some(review) = review(name)
        {
            return (201, review);
        }
        if asked.rest().is_empty() {
            return discovery(&asked.path.join("/"));
        }
        if asked.tenant && asked.changes() {
            let body = String::from_utf8_lossy(&asked.body);
            self.writes.push(format!("{} {} {body}", asked.method, asked.path.join("/")));
        }
        let id = (asked.plural(), asked.namespace(), asked.name().unwrap_or_default().to_owned());
        match (asked.method.as_str(), asked.name(), asked.subresource()) {
            ("POST", Some(_), "token") => {
                let seconds = asked.json()["spec"]["expirationSeconds"].clone();
                (201, json!({ "spec": { "expirationSeconds": seconds }, "status": { "token": "t" } }))
            }
            ("POST", None, _) if asked.plural() == "events" => (201, asked.json()),
            ("POST", None, _) => self.create(id, asked),
            ("GET", None, _) => {
                let (items, version) = self.list(&asked.plural(), &asked.namespace(), asked.only().as_deref());
                (200, json!({ "metadata": { "resourceVersion": version.to_string() }, "items": items }))
            }
            ("GET", Some(_), _) => match self.objects.get(&id) {
                Some(stored) => (200, stored.object.clone()),
                None => not_found(&id),
            },
            ("DELETE", Some(_), _) => self.delete(&id, &asked.json()),
            ("PUT" | "PATCH", Some(_), _) => self.patch(id, asked),
            _ => status(405, "MethodNotAllowed", "the model does not know this request"),
        }
    }

    fn create(&mut self, mut id: Id, asked: &Asked) -> (u16, Value) {
        let mut object = asked.json();
        id.2 = object["metadata"]["name"].as_str().unwrap_or_default().into();
        if self.objects.contains_key(&id) {
            return status(409, "AlreadyExists", &format!("{} \"{}\" already exists", id.0, id.2));
        }
        object.as_object_mut().unwrap().remove("status");
        let mut owners = Owners::new();
        fields::updated(&mut owners, (manager(asked), "Update", ""), &json!({}), &object);
        (201, self.store(id, object, owners, "ADDED"))
    }

    fn patch(&mut self, id: Id, asked: &Asked) -> (u16, Value) {
        let status_only = asked.subresource() == "status";
        let sub = if status_only { "status" } else { "" };
        let body = asked.json();
        let Some(stored) = self.objects.get(&id) else {
            if asked.content.contains("apply-patch") && !status_only && body["metadata"]["uid"].is_null() {
                let mut owners = Owners::new();
                let object = fields::apply(&mut owners, (manager(asked), "Apply", ""), &bare(&body), &body);
                return (201, self.store(id, object, owners, "ADDED"));
            }
            if asked.content.contains("apply-patch") && !status_only {
                return status(
                    409,
                    "Conflict",
                    "uid mismatch: the provided object specified a uid, and no existing object was found",
                );
            }
            return not_found(&id);
        };
        let (live, mut owners) = (stored.object.clone(), stored.owners.clone());
        if asked.content.contains("json-patch") {
            let mut object = live.clone();
            if let Err(said) = json_patch(&mut object, &body) {
                return status(422, "Invalid", &said);
            }
            let owners = fields::owners(&object["metadata"]["managedFields"]);
            return (200, self.store(id, object, owners, "MODIFIED"));
        }
        let precondition = |name: &str| body["metadata"][name].as_str().is_some_and(|wanted| live["metadata"][name] != wanted);
        if precondition("resourceVersion") {
            return status(409, "Conflict", "the object has been modified; please apply your changes to the latest version");
        }
        if precondition("uid") {
            return status(422, "Invalid", "metadata.uid: field is immutable");
        }
        let mut said = body.clone();
        let other = if status_only { "metadata" } else { "status" };
        said.as_object_mut().unwrap().remove(other);
        let object = if asked.content.contains("apply-patch") {
            let forced = asked.query.get("force").is_some_and(|force| force == "true");
            if !forced && fields::conflicts(&owners, &(manager(asked), "Apply", sub), &live, &said) {
                return status(409, "Conflict", "Apply failed with a conflict");
            }
            fields::apply(&mut owners, (manager(asked), "Apply", sub), &live, &said)
        } else {
            let mut object = live.clone();
            if asked.method == Method::PUT {
                replace(&mut object, &said)
            } else {
                merge(&mut object, &said)
            }
            fields::updated(&mut owners, (manager(asked), "Update", sub), &live, &object);
            object
        };
        let metadata = &object["metadata"];
        if !metadata["deletionTimestamp"].is_null() && metadata["finalizers"].as_array().is_none_or(Vec::is_empty) {
            let mut last = object.clone();
            last["metadata"]["managedFields"] = fields::managed(&owners, object["apiVersion"].as_str().unwrap_or_default());
            self.remove(&id);
            return (200, last);
        }
        (200, self.store(id, object, owners, "MODIFIED"))
    }

    fn delete(&mut self, id: &Id, options: &Value) -> (u16, Value) {
        let Some(stored) = self.objects.get(id) else { return not_found(id) };
        let uid = stored.object["metadata"]["uid"].clone();
        if options["preconditions"]["uid"].as_str().is_some_and(|wanted| uid != wanted) {
            return status(409, "Conflict", "the uid in the precondition does not match");
        }
        if stored.object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty()) {
            return (200, self.mark_deleted(id));
        }
        self.remove(id);
        (
            200,
            json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": { "name": id.2, "kind": id.0, "uid": uid } }),
        )
    }

    /// It goes when its last finalizer does.
    fn mark_deleted(&mut self, id: &Id) -> Value {
        let Some(Stored { object, owners }) = self.objects.get(id) else { return Value::Null };
        let (mut object, owners) = (object.clone(), owners.clone());
        if object["metadata"]["deletionTimestamp"].is_null() {
            let generation = object["metadata"]["generation"].as_i64().map(|generation| generation + 1);
            let metadata = object["metadata"].as_object_mut().unwrap();
            metadata.insert("deletionTimestamp".into(), json!("2026-01-01T00:00:00Z"));
            metadata.insert("deletionGracePeriodSeconds".into(), json!(0));
            metadata.extend(generation.map(|generation| ("generation".into(), json!(generation))));
            return self.store(id.clone(), object, owners, "MODIFIED");
        }
        object
    }

    fn remove(&mut self, id: &Id) {
        if let Some(Stored { mut object, .. }) = self.objects.remove(id) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.log.push(Event { version: self.version, kind: "DELETED", plural: id.0.clone(), object });
        }
    }

    /// A change that changes nothing is none.
    fn store(&mut self, id: Id, mut object: Value, owners: Owners, kind: &'static str) -> Value {
        let before = self.objects.get(&id);
        let api_version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.insert("namespace".into(), json!(id.1));
        metadata.insert("managedFields".into(), fields::managed(&owners, &api_version));
        if before.is_some_and(|before| before.object == object) {
            return object;
        }
        let spec_changed = before.is_none_or(|before| before.object["spec"] != object["spec"]);
        let metadata = object["metadata"].as_object_mut().unwrap();
        self.version += 1;
        metadata.insert("resourceVersion".into(), json!(self.version.to_string()));
        if before.is_none() {
            self.uids += 1;
            metadata.insert("uid".into(), json!(format!("uid-{}", self.uids)));
            metadata.insert("creationTimestamp".into(), json!("2026-01-01T00:00:00Z"));
        }
        if id.0 != "configmaps" && spec_changed {
            let generation = metadata.get("generation").and_then(Value::as_i64).unwrap_or(0) + 1;
            metadata.insert("generation".into(), json!(generation));
        }
        self.log.push(Event { version: self.version, kind, plural: id.0.clone(), object: object.clone() });
        self.objects.insert(id, Stored { object: object.clone(), owners });
        object
    }
}

fn uid(of: &Value) -> String {
    of["uid"].as_str().unwrap_or_default().into()
}

fn not_found(id: &Id) -> (u16, Value) {
    status(404, "NotFound", &format!("{} \"{}\" not found", id.0, id.2))
}

fn manager(asked: &Asked) -> String {
    asked.query.get("fieldManager").cloned().unwrap_or_else(|| "somebody".into())
}

/// What has an identity and nothing else.
fn bare(body: &Value) -> Value {
    json!({ "apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": { "name": body["metadata"]["name"] } })
}

fn replace(object: &mut Value, said: &Value) {
    for (key, value) in said.as_object().into_iter().flatten().filter(|(key, _)| *key != "metadata") {
        object[key] = value.clone();
    }
}

fn merge(object: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            merge(object.as_object_mut().unwrap().entry(key).or_insert(Value::Null), value);
        }
    }
}

fn json_patch(object: &mut Value, operations: &Value) -> Result<(), String> {
    for operation in operations.as_array().into_iter().flatten() {
        let path = operation["path"].as_str().unwrap_or_default();
        match operation["op"].as_str().unwrap_or_default() {
            "test" if object.pointer(path) == Some(&operation["value"]) => {}
            "test" => return Err(format!("testing value {path} failed")),
            "replace" => *object.pointer_mut(path).ok_or_else(|| format!("{path} is missing"))? = operation["value"].clone(),
            "remove" => {
                let (parent, last) = path.rsplit_once('/').unwrap_or_default();
                let list =
                    object.pointer_mut(parent).and_then(Value::as_array_mut).ok_or_else(|| format!("{parent} is no list"))?;
                list.remove(last.parse::<usize>().map_err(|e| e.to_string())?);
            }
            other => return Err(format!("the model does not know the operation {other}")),
        }
    }
    Ok(())
}

fn review(name: &str) -> Option<Value> {
    let status = match name {
        "selfsubjectreviews" => json!({ "userInfo": { "username": "reef-host" } }),
        "selfsubjectrulesreviews" => {
            let all = json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*", "*/*"] });
            json!({ "resourceRules": [all], "nonResourceRules": [], "incomplete": false })
        }
        "selfsubjectaccessreviews" => json!({ "allowed": true }),
        _ => return None,
    };
    Some(json!({ "status": status }))
}

fn discovery(path: &str) -> (u16, Value) {
    let kinds: &[(&str, &str)] = match path {
        "api/v1" => &[("configmaps", "ConfigMap"), ("serviceaccounts", "ServiceAccount")],
        "apis/reef.dev/v1alpha1" => &[("plugins", "Plugin"), ("plugins/status", "Plugin")],
        "apis/demo.reef.dev/v1" => &[("hellos", "Hello"), ("hellos/status", "Hello")],
        "apis/events.k8s.io/v1" => &[("events", "Event")],
        "apis/coordination.k8s.io/v1" => &[("leases", "Lease")],
        _ => return status(404, "NotFound", "the server could not find the requested resource"),
    };
    let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"];
    let resource = |(name, kind): &(&str, &str)| json!({ "name": name, "kind": kind, "namespaced": true, "verbs": verbs });
    (200, json!({ "resources": kinds.iter().map(resource).collect::<Vec<_>>() }))
}

fn openapi(asked: &Asked) -> (u16, Value) {
    if asked.path.join("/") != "openapi/v3/apis/demo.reef.dev/v1" {
        return status(404, "NotFound", "there is no such document");
    }
    let condition = json!({ "type": "object", "properties": { "type": {}, "status": {}, "reason": {}, "message": {},
        "lastTransitionTime": {}, "observedGeneration": {} } });
    let conditions = json!({ "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": condition });
    let hello = json!({
        "type": "object",
        "x-kubernetes-group-version-kind": [{ "group": "demo.reef.dev", "version": "v1", "kind": "Hello" }],
        "properties": { "status": { "type": "object", "properties": { "conditions": conditions } } },
    });
    (200, json!({ "components": { "schemas": { "dev.reef.demo.v1.Hello": hello } } }))
}
