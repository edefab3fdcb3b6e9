//! The import `reads`: one object of the cluster, or the news that there is none; or all that match a selector.
//!
//! ```wit
//! get: func(object: object-ref, fields: list<string>) -> result<option<object>, error>;
//! %list: func(query: query) -> result<list<object>, error>;
//! ```
//!
//! Each call passes the grant, is written down as a dependency, is answered by a [`Reads`], and is cut down to the fields
//! that were asked for. What a guest can make the host hold is capped.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::Hash,
    sync::Arc,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::Deserialize;

use super::{Grant, bindings::reef::plugin::reads as wit, project::project};
use crate::{
    contract::{Query, Read, ReadError},
    names::{Kind, ObjectId},
};

/// Calls of one reconcile, repeated ones included.
pub const MAX_READS: usize = 2000;
/// Fields of one call.
pub const MAX_FIELDS: usize = 64;
/// Namespaces of one list.
pub const MAX_NAMESPACES: usize = 64;
/// Bytes of one answer, after its fields were picked. More than etcd holds of one object by default.
pub const MAX_ANSWER: usize = 4 << 20;

/// Whoever answers reads: the hub, or a record of what was there.
pub trait Reads: Send + Sync {
    /// The object as JSON text without `metadata.managedFields`, or none if there is none. May keep more than `fields`.
    fn get<'a>(&'a self, object: &'a ObjectId, fields: &'a [String]) -> BoxFuture<'a, Result<Option<Bytes>, ReadError>>;

    /// All objects that match, in the same form, in the order of namespace and name.
    fn list<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Vec<Bytes>, ReadError>>;
}

/// Answers from a map: a recorded reconcile, or the files of a test. What it does not hold does not exist.
#[derive(Debug, Clone, Default)]
pub struct Recorded(pub HashMap<ObjectId, Result<Option<Bytes>, ReadError>>);

impl Reads for Recorded {
    fn get<'a>(&'a self, object: &'a ObjectId, _fields: &'a [String]) -> BoxFuture<'a, Result<Option<Bytes>, ReadError>> {
        Box::pin(std::future::ready(self.0.get(object).cloned().unwrap_or(Ok(None))))
    }

    fn list<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Vec<Bytes>, ReadError>> {
        let there = |id: &ObjectId| id.kind == query.kind && (query.namespace.is_empty() || id.namespace == query.namespace);
        let answers = self.0.iter().filter(|(id, _)| there(id));
        let found = answers.filter_map(|(id, answer)| Some((id, answer.clone().transpose()?)));
        let mut found: Vec<_> = found.filter(|(_, answer)| answer.as_ref().map_or(true, |b| selected(b, query))).collect();
        found.sort_by_key(|(id, _)| (*id).clone());
        Box::pin(std::future::ready(found.into_iter().map(|(_, answer)| answer).collect()))
    }
}

fn selected(object: &Bytes, query: &Query) -> bool {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Labelled {
        metadata: Metadata,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Metadata {
        labels: Option<HashMap<String, String>>,
    }
    let labels = serde_json::from_slice::<Labelled>(object).unwrap_or_default().metadata.labels.unwrap_or_default();
    query.selector.matches(|label| labels.get(label).map(String::as_str))
}

/// Ends a call that read from a cache which is not complete.
#[derive(Debug, thiserror::Error)]
#[error("the cache of {0} is not complete yet")]
pub struct CacheIncomplete(pub Kind);

/// The reads of one reconcile: who answers, and what was asked so far.
pub struct Reader {
    grant: Arc<Grant>,
    backend: Arc<dyn Reads>,
    made: Made,
    calls: usize,
    failed: bool,
    waiting: Option<Asked>,
}

/// What was read, each once, in the order of the first time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Made {
    pub objects: Vec<Read>,
    pub lists: Vec<Query>,
}

/// What is being asked for.
pub enum Asked {
    Object(ObjectId),
    List(Query),
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(object) => object.fmt(f),
            Self::List(query) => query.fmt(f),
        }
    }
}

impl Reader {
    pub fn new(grant: Arc<Grant>, backend: Arc<dyn Reads>) -> Self {
        Self { grant, backend, made: Made::default(), calls: 0, failed: false, waiting: None }
    }

    /// Whether any read got no answer.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// What is being asked for right now.
    pub fn waiting(&self) -> Option<&Asked> {
        self.waiting.as_ref()
    }

    /// What was read.
    pub fn take(&mut self) -> Made {
        let Made { objects, lists } = std::mem::take(&mut self.made);
        Made { objects: once(objects), lists: once(lists) }
    }

    async fn answer(&mut self, object: ObjectId, fields: Vec<String>) -> Result<Option<String>, ReadError> {
        self.count(&fields)?;
        self.grant.read(&object).map_err(ReadError::Forbidden)?;
        // Written down before it is answered: what is forbidden or unknown today may be there tomorrow.
        self.made.objects.push(Read { object: object.clone(), fields: fields.clone() });
        self.waiting = Some(Asked::Object(object.clone()));
        let found = self.backend.get(&object, &fields).await;
        self.waiting = None;
        found?.map(|bytes| picked(&object, &bytes, &fields)).transpose()
    }

    async fn answer_list(&mut self, query: wit::Query) -> Result<Vec<String>, ReadError> {
        let wit::Query { api_version, kind, namespaces, selector, fields } = query;
        self.count(&fields)?;
        if namespaces.len() > MAX_NAMESPACES {
            let n = namespaces.len();
            return Err(ReadError::TooLarge(format!("one list may name {MAX_NAMESPACES} namespaces, not {n}")));
        }
        let kind = Kind::from_api_version(&api_version, &kind);
        let namespace = self.grant.list(&kind, &namespaces).map_err(ReadError::Forbidden)?;
        let selector = selector.parse().map_err(ReadError::Other)?;
        let query = Query { kind, namespace, selector, fields };
        self.made.lists.push(query.clone());
        self.waiting = Some(Asked::List(query.clone()));
        let found = self.backend.list(&query).await;
        self.waiting = None;
        all_picked(&query, found?)
    }

    /// What one reconcile may ask is bounded, and what it asks for must make sense.
    fn count(&mut self, fields: &[String]) -> Result<(), ReadError> {
        self.calls += 1;
        if self.calls > MAX_READS {
            return Err(ReadError::TooLarge(format!("one reconcile may read {MAX_READS} times: read less, or list")));
        }
        if fields.len() > MAX_FIELDS {
            let n = fields.len();
            return Err(ReadError::TooLarge(format!("one read may keep {MAX_FIELDS} fields, not {n}: keep their parent")));
        }
        project(b"{}", fields).map_err(ReadError::Other).map(drop)
    }
}

fn once<T: Clone + Eq + Hash>(mut made: Vec<T>) -> Vec<T> {
    if made.len() > 1 {
        let mut seen = HashSet::with_capacity(made.len());
        made.retain(|read| seen.insert(read.clone()));
    }
    made
}

fn all_picked(query: &Query, found: Vec<Bytes>) -> Result<Vec<String>, ReadError> {
    let (mut size, count) = (0, found.len());
    let mut all = Vec::with_capacity(count);
    for bytes in found {
        let kept = project(&bytes, &query.fields).map_err(ReadError::Other)?;
        size += kept.len();
        if size > MAX_ANSWER {
            let advice = if query.fields.is_empty() { "keep only some fields, or select less" } else { "select less" };
            return Err(ReadError::TooLarge(format!(
                "{count} objects {query} have more than {MAX_ANSWER} bytes, which is what one answer may have: {advice}"
            )));
        }
        all.push(String::from_utf8(kept).map_err(|_| ReadError::Other(format!("an object of {query} is not UTF-8 text")))?);
    }
    Ok(all)
}

fn picked(object: &ObjectId, bytes: &[u8], fields: &[String]) -> Result<String, ReadError> {
    let kept = project(bytes, fields).map_err(ReadError::Other)?;
    if kept.len() > MAX_ANSWER {
        let size = kept.len();
        return Err(ReadError::TooLarge(format!(
            "{object} has {size} bytes, one answer may have {MAX_ANSWER}: ask for fewer fields"
        )));
    }
    String::from_utf8(kept).map_err(|_| ReadError::Other(format!("{object} is not UTF-8 text")))
}

impl wit::Host for Reader {
    async fn get(&mut self, object: wit::ObjectRef, fields: Vec<String>) -> wasmtime::Result<Result<Option<String>, wit::Error>> {
        let kind = Kind::from_api_version(&object.api_version, &object.kind);
        let id = ObjectId::new(kind, &object.namespace, &object.name);
        let answer = self.answer(id, fields).await;
        self.told(answer)
    }

    async fn list(&mut self, query: wit::Query) -> wasmtime::Result<Result<Vec<String>, wit::Error>> {
        let answer = self.answer_list(query).await;
        self.told(answer)
    }
}

impl Reader {
    fn told<T>(&mut self, answer: Result<T, ReadError>) -> wasmtime::Result<Result<T, wit::Error>> {
        self.failed |= answer.is_err();
        Ok(Err(match answer {
            Ok(found) => return Ok(Ok(found)),
            Err(ReadError::NotSynced(kind)) => return Err(CacheIncomplete(kind).into()),
            Err(ReadError::Forbidden(text)) => wit::Error::Forbidden(text),
            Err(ReadError::UnknownKind(text)) => wit::Error::UnknownKind(text),
            Err(ReadError::TooLarge(text)) => wit::Error::TooLarge(text),
            Err(ReadError::Other(text)) => wit::Error::Other(text),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::PluginId;

    fn reader(known: &[(&ObjectId, Result<Option<Bytes>, ReadError>)]) -> Reader {
        let entry = serde_json::from_slice(br#"{"for":"demo.reef.dev/v1/Hello","reads":["v1/ConfigMap"]}"#).unwrap();
        let grant = Grant { plugin: PluginId::new("team-a", "hello"), entry, cluster_scoped: Vec::new(), unknown: Vec::new() };
        let known = known.iter().map(|(id, answer)| ((*id).clone(), answer.clone())).collect();
        Reader::new(Arc::new(grant), Arc::new(Recorded(known)))
    }

    fn config_map(name: &str) -> ObjectId {
        ObjectId::new(Kind::new("", "v1", "ConfigMap"), "team-a", name)
    }

    #[tokio::test]
    async fn what_was_read_is_written_down_once_whether_it_exists_or_not() {
        let (a, b) = (config_map("a"), config_map("b"));
        let mut reader = reader(&[(&a, Ok(Some(Bytes::from_static(br#"{"kind":"ConfigMap","data":{"x":"y"}}"#))))]);
        assert!(reader.answer(a.clone(), vec![]).await.unwrap().is_some());
        assert_eq!(reader.answer(b.clone(), vec![]).await, Ok(None));
        assert_eq!(reader.answer(a.clone(), vec!["/kind".into()]).await, Ok(Some(r#"{"kind":"ConfigMap"}"#.into())));
        reader.answer(a.clone(), vec![]).await.unwrap();
        let read = |object: &ObjectId, fields: &[&str]| Read {
            object: object.clone(),
            fields: fields.iter().map(|f| (*f).to_owned()).collect(),
        };
        assert_eq!(reader.take().objects, [read(&a, &[]), read(&b, &[]), read(&a, &["/kind"])]);
        assert!(!reader.failed());
    }

    #[tokio::test]
    async fn what_the_grant_refuses_is_no_dependency_and_what_the_account_may_not_read_is_one() {
        let a = config_map("a");
        let forbidden = ReadError::Forbidden("may not".into());
        let mut reader = reader(&[(&a, Err(forbidden.clone()))]);
        let secret = ObjectId::new(Kind::new("", "v1", "Secret"), "team-a", "a");
        assert!(matches!(reader.answer(secret, vec![]).await, Err(ReadError::Forbidden(text)) if text.contains("reads: [")));
        assert_eq!(reader.take(), Made::default());
        assert_eq!(reader.answer(a, vec![]).await, Err(forbidden));
        assert_eq!(reader.take().objects.len(), 1);
    }

    #[tokio::test]
    async fn reads_fields_and_answers_are_capped() {
        let a = config_map("a");
        let huge = format!(r#"{{"kind":"ConfigMap","data":"{}"}}"#, "x".repeat(MAX_ANSWER));
        let mut reader = reader(&[(&a, Ok(Some(huge.into())))]);
        assert!(matches!(reader.answer(a.clone(), vec![]).await, Err(ReadError::TooLarge(_))));
        assert!(reader.answer(a.clone(), vec!["/kind".into()]).await.is_ok(), "fewer fields fit");
        let many = vec!["/a".to_owned(); MAX_FIELDS + 1];
        assert!(matches!(reader.answer(a.clone(), many).await, Err(ReadError::TooLarge(_))));
        for _ in 0..MAX_READS {
            let _ = reader.answer(config_map("b"), vec![]).await;
        }
        assert!(matches!(reader.answer(a, vec![]).await, Err(ReadError::TooLarge(text)) if text.contains("2000")));
    }

    fn labelled(name: &str, app: &str) -> (ObjectId, Result<Option<Bytes>, ReadError>) {
        let object =
            format!(r#"{{"kind":"ConfigMap","metadata":{{"name":"{name}","labels":{{"app":"{app}"}}}},"data":"{app}"}}"#);
        (config_map(name), Ok(Some(object.into())))
    }

    fn query(selector: &str, fields: &[&str]) -> wit::Query {
        let fields = fields.iter().map(|f| (*f).to_owned()).collect();
        wit::Query {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            namespaces: vec!["team-a".into()],
            selector: selector.into(),
            fields,
        }
    }

    #[tokio::test]
    async fn a_list_selects_projects_and_is_written_down_once() {
        let known = [labelled("b", "web"), labelled("a", "web"), labelled("c", "db")];
        let known: Vec<_> = known.iter().map(|(id, answer)| (id, answer.clone())).collect();
        let mut reader = reader(&known);
        let names = reader.answer_list(query("app=web", &["/metadata/name"])).await.unwrap();
        assert_eq!(names, ["a", "b"].map(|name| format!(r#"{{"kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#)));
        assert_eq!(reader.answer_list(query("app in (web)", &[])).await.unwrap().len(), 2);
        assert_eq!(reader.answer_list(query("app==web", &[])).await.unwrap().len(), 2);
        assert_eq!(reader.answer_list(query("none", &[])).await, Ok(Vec::new()));
        let made = reader.take();
        assert_eq!((made.objects.len(), made.lists.len()), (0, 3), "two of the four say the same");
        assert!(!reader.failed());
    }

    #[tokio::test]
    async fn a_list_that_makes_no_sense_or_does_not_fit_is_refused() {
        let huge: Vec<_> = (0..3).map(|n| labelled(&format!("o{n}"), &"x".repeat(MAX_ANSWER / 5))).collect();
        let known: Vec<_> = huge.iter().map(|(id, answer)| (id, answer.clone())).collect();
        let mut reader = reader(&known);
        let wrong = reader.answer_list(query("app web", &[])).await;
        assert!(matches!(wrong, Err(ReadError::Other(text)) if text.contains("`app web` is no part of a label selector")));
        let too_large = reader.answer_list(query("", &[])).await;
        assert!(matches!(too_large, Err(ReadError::TooLarge(text)) if text.contains("keep only some fields")));
        assert_eq!(reader.answer_list(query("", &["/metadata/name"])).await.unwrap().len(), 3);
        let many = wit::Query { namespaces: vec!["team-a".into(); MAX_NAMESPACES + 1], ..query("", &[]) };
        assert!(matches!(reader.answer_list(many).await, Err(ReadError::TooLarge(_))));
        let elsewhere = wit::Query { namespaces: vec!["team-b".into()], ..query("", &[]) };
        assert!(matches!(reader.answer_list(elsewhere).await, Err(ReadError::Forbidden(_))));
        assert_eq!(reader.take().lists.len(), 2, "what was refused before it was asked is no dependency");
    }
}
