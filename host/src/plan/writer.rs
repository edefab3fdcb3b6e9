//! The one door through which tenants' objects are written.
//!
//! In shadow mode it stays shut: what would be written is noted. Else every request is made as the plugin's account and under its
//! field manager; before each write the gate is asked, and each answer enters the hub, so that the next reconcile sees it. What to
//! write is decided elsewhere.

use std::sync::Arc;

use http::{Method, Request, header::CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Applier, Author, Mode, Pass, Written,
    complete::Wanted,
    failure::{Class, Doing, Failed},
    json::insert,
    shadow::{self, Says},
    verb::{Conflicts, Propagation},
};
use crate::{
    identity::{Actor, ApiError, Lane, Resource},
    names::{Key, ObjectId},
    watch::Entry,
};

const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

pub(super) struct Writer<'a> {
    applier: &'a Applier,
    author: &'a Author,
    /// Who writes: the key that its own writes do not wake.
    key: &'a Key,
    pass: Pass,
    actor: Actor,
    /// The field manager's name in the API.
    pub manager: String,
    /// Requests that were sent to write something, accepted or not.
    pub writes: u32,
    /// What they were, as far as they were accepted; in shadow mode, what would have been sent.
    pub written: Vec<Written>,
}

/// What a request is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub resource: &'a Resource,
    pub id: &'a ObjectId,
    pub subresource: Option<&'a str>,
}

impl<'a> Target<'a> {
    pub fn new(resource: &'a Resource, id: &'a ObjectId) -> Self {
        Self { resource, id, subresource: None }
    }

    pub fn status(resource: &'a Resource, id: &'a ObjectId) -> Self {
        Self { resource, id, subresource: Some("status") }
    }

    /// The object, or the part of it that is written.
    pub fn of(wanted: &'a Wanted) -> Self {
        let subresource = wanted.subresource.as_ref().map(|one| &*one.name);
        Self { resource: &wanted.resource, id: &wanted.id, subresource }
    }
}

/// A request that writes, and what RBAC calls it.
type What<'a> = (Target<'a>, &'static str);

/// A request that was not accepted: what the API server said, if it was asked, and what that means.
#[derive(Debug)]
pub(super) struct Refusal {
    error: Option<Box<ApiError>>,
    failed: Box<Failed>,
}

impl Refusal {
    /// Field and message of each cause that the API server gives.
    pub fn causes(&self) -> &[(String, String)] {
        match self.error.as_deref() {
            Some(ApiError::Refused(status)) => &status.causes,
            _ => &[],
        }
    }

    /// It was not sent at all, because nothing is written.
    pub fn is_shadowed(&self) -> bool {
        self.failed.class == Class::Shadowed
    }

    pub fn is(&self, what: impl Fn(&ApiError) -> bool) -> bool {
        self.error.as_deref().is_some_and(what)
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        *refusal.failed
    }
}

/// How a deletion went.
pub(super) enum Deletion {
    Gone,
    /// Marked; finalizers or a grace period hold it.
    Going,
}

impl<'a> Writer<'a> {
    pub fn new(applier: &'a Applier, author: &'a Author, key: &'a Key, pass: Pass) -> Self {
        let actor = Actor::Plugin { plugin: author.plugin.clone(), account: author.account.clone() };
        let manager = format!("reef:{}", author.field_manager);
        Self { applier, author, key, pass, actor, manager, writes: 0, written: Vec::new() }
    }

    /// Creates what must not be there yet. A field that the server does not know is refused, as in an apply.
    pub async fn create(&mut self, target: Target<'_>, object: &Value) -> Result<Entry, Refusal> {
        let path = target.resource.path(&target.id.namespace, None, target.subresource);
        let uri = format!("{path}?fieldManager={}&fieldValidation=Strict", escape(&self.manager));
        self.write((target, "create"), Says::Object(object), request(Method::POST, &uri, JSON, object)).await
    }

    /// Server-side apply that takes over what others own of the fields it carries.
    pub async fn apply(&mut self, target: Target<'_>, object: &Value) -> Result<Entry, Refusal> {
        let path = target.resource.path(&target.id.namespace, Some(&target.id.name), target.subresource);
        let uri = format!("{path}?fieldManager={}&force=true&fieldValidation=Strict", escape(&self.manager));
        self.write((target, "patch"), Says::Object(object), request(Method::PATCH, &uri, APPLY, object)).await
    }

    /// Server-side apply by a manager of its own, beside others.
    pub async fn share(
        &mut self,
        target: Target<'_>,
        manager: &str,
        object: &Value,
        conflicts: Conflicts,
    ) -> Result<Entry, Refusal> {
        let path = target.resource.path(&target.id.namespace, Some(&target.id.name), target.subresource);
        let force = conflicts == Conflicts::Forced;
        let uri = format!("{path}?fieldManager={}&force={force}&fieldValidation=Strict", escape(manager));
        self.write((target, "patch"), Says::Shared(object, manager), request(Method::PATCH, &uri, APPLY, object)).await
    }

    /// JSON patch. `manager` is whose the changed fields become.
    pub async fn patch(&mut self, target: Target<'_>, manager: &str, operations: &Value) -> Result<Entry, Refusal> {
        let path = target.resource.path(&target.id.namespace, Some(&target.id.name), target.subresource);
        let uri = format!("{path}?fieldManager={}", escape(manager));
        self.write((target, "patch"), Says::Operations(operations), request(Method::PATCH, &uri, JSON_PATCH, operations)).await
    }

    /// JSON merge patch. A field that the server does not know is refused, as in an apply. The answer is the object, or the
    /// part of it that was patched.
    pub async fn merge(&mut self, target: Target<'_>, manager: &str, patch: &Value) -> Result<Entry, Refusal> {
        let path = target.resource.path(&target.id.namespace, Some(&target.id.name), target.subresource);
        let uri = format!("{path}?fieldManager={}&fieldValidation=Strict", escape(manager));
        self.write((target, "patch"), Says::Patch(patch), request(Method::PATCH, &uri, MERGE_PATCH, patch)).await
    }

    /// Deletes the object of this uid and, if one is given, of this resourceVersion.
    pub async fn delete(
        &mut self,
        target: Target<'_>,
        uid: &str,
        version: Option<&str>,
        propagation: Propagation,
    ) -> Result<Deletion, Refusal> {
        let uri = target.resource.path(&target.id.namespace, Some(&target.id.name), None);
        let mut preconditions = json!({ "uid": uid });
        if let Some(version) = version {
            insert(&mut preconditions, "resourceVersion", version);
        }
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions",
            "preconditions": preconditions, "propagationPolicy": propagation.as_str(),
        });
        let hub = &self.applier.hub;
        let _writing = hub.writing(self.key, target.id);
        let answer =
            match self.send_write((target, "delete"), Says::Deletion, request(Method::DELETE, &uri, JSON, &options)).await {
                Ok(answer) => answer,
                Err(refusal) => {
                    // Another one has its name by now, or it has only changed, or somebody on the way says no: a look at it tells.
                    let conflict = refusal.is(ApiError::is_conflict);
                    let gone = refusal.is(ApiError::is_not_found)
                        || (conflict && self.live(target).await?.is_none_or(|(now, _)| *now.uid != *uid));
                    if !gone {
                        return Err(refusal);
                    }
                    hub.record_deleted(target.id, uid, self.key);
                    return Ok(Deletion::Gone);
                }
            };
        match Entry::parse(&answer, Some(&target.id.kind)) {
            Ok(entry) if entry.deleting && *entry.uid == *uid => {
                hub.record(entry, self.key);
                Ok(Deletion::Going)
            }
            // A `Status`, or the object as it was last.
            _ => {
                hub.record_deleted(target.id, uid, self.key);
                Ok(Deletion::Gone)
            }
        }
    }

    /// Creates something of the host's making that no cache holds, as an event. It counts as a write all the same.
    pub async fn note(&mut self, target: Target<'_>, object: &Value) -> Result<(), Refusal> {
        let path = target.resource.path(&target.id.namespace, None, None);
        let uri = format!("{path}?fieldManager={}", escape(&self.manager));
        self.send_write((target, "create"), Says::Object(object), request(Method::POST, &uri, JSON, object)).await.map(|_| ())
    }

    /// The object, or the part of it, as it is at this moment, past all caches, as the API server's text. `None`: there is
    /// none.
    pub async fn live(&self, target: Target<'_>) -> Result<Option<(Entry, bytes::Bytes)>, Refusal> {
        let uri = target.resource.path(&target.id.namespace, Some(&target.id.name), target.subresource);
        let doing = self.doing(target, "get");
        match self.send(doing, request(Method::GET, &uri, JSON, &Value::Null)).await {
            Ok(answer) => Ok(Some((parsed(&answer, target)?, answer))),
            Err(refusal) if refusal.is(ApiError::is_not_found) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// A deletion that followed from a write was final.
    pub fn gone(&self, id: &ObjectId, uid: &str) {
        self.applier.hub.record_deleted(id, uid, self.key);
    }

    async fn write(&mut self, what: What<'_>, says: Says<'_>, request: Built) -> Result<Entry, Refusal> {
        let (hub, target) = (&self.applier.hub, what.0);
        let _writing = hub.writing(self.key, target.id);
        let answer = self.send_write(what, says, request).await?;
        let entry = parsed(&answer, target)?;
        // Of a part the answer may be of another kind, which no cache holds: `Scale`, say.
        if entry.id == *target.id {
            hub.record(entry.clone(), self.key);
        }
        Ok(entry)
    }

    async fn send_write(&mut self, what: What<'_>, says: Says<'_>, request: Built) -> Result<bytes::Bytes, Refusal> {
        let (target, verb) = what;
        let subresource = target.subresource.map(Into::into);
        let mut written = Written { verb, object: target.id.clone(), subresource, difference: None };
        if self.author.mode == Mode::Shadow {
            let fields = (&*self.manager, target.subresource.unwrap_or_default());
            let difference = shadow::difference(self.cached(target.id).as_deref(), says, fields);
            written.difference = Some(if target.id.kind.is_secret() { difference.without_secrets() } else { difference });
            self.written.push(written);
            return Err(Refusal { error: None, failed: Box::new(Failed::shadowed()) });
        }
        if (self.applier.gate)() != Ok(self.pass) {
            return Err(Refusal { error: None, failed: Box::new(Failed::not_leading()) });
        }
        self.writes += 1;
        let answer = self.send(self.doing(target, verb), request).await?;
        self.written.push(written);
        Ok(answer)
    }

    /// What is known to be there.
    fn cached(&self, id: &ObjectId) -> Option<Arc<Entry>> {
        let Author { owned, former, written, objects, .. } = self.author;
        let scope = owned.iter().chain(former).chain(written).chain(objects).find(|scope| scope.holds(id))?;
        self.applier.hub.get(scope, &id.namespace, &id.name).ok().flatten()
    }

    async fn send(&self, doing: Doing<'_>, request: Built) -> Result<bytes::Bytes, Refusal> {
        let answer = match request {
            Ok(request) => self.applier.api.send(&self.actor, Lane::Requests, request).await,
            Err(error) => Err(ApiError::Misconfigured(error.to_string())),
        };
        answer.map_err(|error| Refusal { failed: Box::new(doing.failed(&error)), error: Some(Box::new(error)) })
    }

    fn doing<'d>(&'d self, target: Target<'d>, verb: &'static str) -> Doing<'d> {
        Doing {
            verb,
            resource: target.resource,
            namespace: &target.id.namespace,
            name: &target.id.name,
            subresource: target.subresource,
            account: &self.author.account,
        }
    }
}

type Built = Result<Request<Vec<u8>>, http::Error>;

fn request(method: Method, uri: &str, content: &'static str, body: &Value) -> Built {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    Request::builder().method(method).uri(uri).header(CONTENT_TYPE, content).body(body)
}

fn parsed(answer: &[u8], target: Target<'_>) -> Result<Entry, Refusal> {
    Entry::parse(answer, Some(&target.id.kind)).map_err(|said| {
        let failed = Failed::undecodable(format!("the API server's answer for {} does not decode: {said}", target.id));
        Refusal { error: None, failed: Box::new(failed) }
    })
}

/// Managers are `reef:`, a DNS label, and what can stand in a path.
fn escape(manager: &str) -> String {
    manager.replace(':', "%3A").replace('/', "%2F")
}

/// Who wrote what, as far as finding our own entries needs it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ManagedEntry {
    #[serde(default)]
    pub manager: String,
    #[serde(default)]
    pub operation: String,
    #[serde(default)]
    pub subresource: String,
    /// RFC 3339.
    #[serde(default)]
    pub time: String,
    #[serde(default, rename = "fieldsV1")]
    pub fields: Value,
}

/// All entries of `metadata.managedFields`, in their order.
pub(super) fn managed_entries(object: &[u8]) -> Vec<ManagedEntry> {
    #[derive(Deserialize)]
    struct Top {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        #[serde(default)]
        managed_fields: Vec<ManagedEntry>,
    }
    serde_json::from_slice::<Top>(object).map(|top| top.metadata.managed_fields).unwrap_or_default()
}
