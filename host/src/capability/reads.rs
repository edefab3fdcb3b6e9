//! The import `reads`: one object of the cluster, or the news that there is none.
//!
//! ```wit
//! get: func(object: object-ref, fields: list<string>) -> result<option<object>, error>;
//! ```
//!
//! Each call passes the grant, is written down as a dependency, is answered by a [`Reads`], and is cut down to the fields
//! that were asked for. What a guest can make the host hold is capped.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use futures::future::BoxFuture;

use super::{Grant, bindings::reef::plugin::reads as wit, project::project};
use crate::{
    contract::{Read, ReadError},
    names::{Kind, ObjectId},
};

/// Calls of one reconcile, repeated ones included.
pub const MAX_READS: usize = 2000;
/// Fields of one call.
pub const MAX_FIELDS: usize = 64;
/// Bytes of one answer, after its fields were picked. More than etcd holds by default.
pub const MAX_ANSWER: usize = 4 << 20;

/// Whoever answers reads: the hub, or a record of what was there.
pub trait Reads: Send + Sync {
    /// The object as JSON text without `metadata.managedFields`, or none if there is none. May keep more than `fields`.
    fn get<'a>(&'a self, object: &'a ObjectId, fields: &'a [String]) -> BoxFuture<'a, Result<Option<Bytes>, ReadError>>;
}

/// Answers from a map: a recorded reconcile, or the files of a test. What it does not hold does not exist.
#[derive(Debug, Clone, Default)]
pub struct Recorded(pub HashMap<ObjectId, Result<Option<Bytes>, ReadError>>);

impl Reads for Recorded {
    fn get<'a>(&'a self, object: &'a ObjectId, _fields: &'a [String]) -> BoxFuture<'a, Result<Option<Bytes>, ReadError>> {
        Box::pin(std::future::ready(self.0.get(object).cloned().unwrap_or(Ok(None))))
    }
}

/// Ends a call that read from a cache which is not complete.
#[derive(Debug, thiserror::Error)]
#[error("the cache of {0} is not complete yet")]
pub struct CacheIncomplete(pub Kind);

/// The reads of one reconcile: who answers, and what was asked so far.
pub struct Reader {
    grant: Arc<Grant>,
    backend: Arc<dyn Reads>,
    made: Vec<Read>,
    calls: usize,
    failed: bool,
    waiting: Option<ObjectId>,
}

impl Reader {
    pub fn new(grant: Arc<Grant>, backend: Arc<dyn Reads>) -> Self {
        Self { grant, backend, made: Vec::new(), calls: 0, failed: false, waiting: None }
    }

    /// Whether any read got no answer.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// What is being asked for right now.
    pub fn waiting(&self) -> Option<&ObjectId> {
        self.waiting.as_ref()
    }

    /// What was read, each once, in the order of the first time.
    pub fn take(&mut self) -> Vec<Read> {
        let mut made = std::mem::take(&mut self.made);
        if made.len() > 1 {
            let mut seen = HashSet::with_capacity(made.len());
            made.retain(|read| seen.insert(read.clone()));
        }
        made
    }

    async fn answer(&mut self, object: ObjectId, fields: Vec<String>) -> Result<Option<String>, ReadError> {
        self.calls += 1;
        if self.calls > MAX_READS {
            return Err(ReadError::TooLarge(format!("one reconcile may read {MAX_READS} times: read less, or list")));
        }
        if fields.len() > MAX_FIELDS {
            let n = fields.len();
            return Err(ReadError::TooLarge(format!("one read may keep {MAX_FIELDS} fields, not {n}: keep their parent")));
        }
        self.grant.read(&object).map_err(ReadError::Forbidden)?;
        project(b"{}", &fields).map_err(ReadError::Other)?;
        // Written down before it is answered: what is forbidden or unknown today may be there tomorrow.
        self.made.push(Read { object: object.clone(), fields: fields.clone() });
        self.waiting = Some(object.clone());
        let found = self.backend.get(&object, &fields).await;
        self.waiting = None;
        found?.map(|bytes| picked(&object, &bytes, &fields)).transpose()
    }
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

    async fn list(&mut self, query: wit::Query) -> wasmtime::Result<Result<Vec<String>, wit::Error>> {
        self.failed = true;
        let kind = Kind::from_api_version(&query.api_version, &query.kind);
        Ok(Err(wit::Error::Other(format!("reads.list is not offered by this host yet: get each {kind} by its name"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::PluginId;

    fn reader(known: &[(&ObjectId, Result<Option<Bytes>, ReadError>)]) -> Reader {
        let entry = serde_json::from_slice(br#"{"for":"demo.reef.dev/v1/Hello","reads":["v1/ConfigMap"]}"#).unwrap();
        let grant = Grant { plugin: PluginId::new("team-a", "hello"), entry, cluster_scoped: Vec::new() };
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
        assert_eq!(reader.take(), [read(&a, &[]), read(&b, &[]), read(&a, &["/kind"])]);
        assert!(!reader.failed());
    }

    #[tokio::test]
    async fn what_the_grant_refuses_is_no_dependency_and_what_the_account_may_not_read_is_one() {
        let a = config_map("a");
        let forbidden = ReadError::Forbidden("may not".into());
        let mut reader = reader(&[(&a, Err(forbidden.clone()))]);
        let secret = ObjectId::new(Kind::new("", "v1", "Secret"), "team-a", "a");
        assert!(matches!(reader.answer(secret, vec![]).await, Err(ReadError::Forbidden(text)) if text.contains("reads: [")));
        assert!(reader.take().is_empty());
        assert_eq!(reader.answer(a, vec![]).await, Err(forbidden));
        assert_eq!(reader.take().len(), 1);
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
}
