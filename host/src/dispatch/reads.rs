//! What `reads` answers in a running host: the hub's copy, as far as the plugin's ServiceAccount may see it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::{live::Live, refused::Refused};
use crate::{
    capability::reads::Reads,
    contract::{Query, Read, ReadError},
    identity::{Access, Api, Resource},
    names::{Account, Key, Kind, ObjectId},
    watch::{Entry, Gap, Hub, NotSynced, Private, Scope, SyncState, Why},
};

/// How long a read waits for a cache that is being filled, before the run ends and is repeated.
const FILLING: Duration = Duration::from_secs(2);

/// Answers the reads of one reconcile.
pub struct HubReads {
    pub api: Api,
    pub hub: Hub,
    pub live: Arc<Live>,
    pub account: Account,
    pub key: Key,
    pub refused: Arc<Refused>,
    pub seen: Mutex<Answers>,
}

/// What was answered: each object that was asked for by name, there or not, and each of a list.
pub type Answers = HashMap<ObjectId, Option<Arc<Entry>>>;

impl Reads for HubReads {
    fn get<'a>(&'a self, object: &'a ObjectId, fields: &'a [String]) -> BoxFuture<'a, Result<Option<Bytes>, ReadError>> {
        Box::pin(self.object(object, fields))
    }

    fn list<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Vec<Bytes>, ReadError>> {
        Box::pin(self.listed(query))
    }
}

impl HubReads {
    async fn object(&self, object: &ObjectId, fields: &[String]) -> Result<Option<Bytes>, ReadError> {
        // First the dependency, then the read: a change in between wakes the key once too often, never once too few.
        self.hub.add_read(&self.key, &Read { object: object.clone(), fields: fields.to_vec() });
        let scope = self.scope(&object.kind, &object.namespace, Some(&object.name));
        self.synced(&scope).await?;
        self.allowed("get", &object.kind, &object.namespace, Some(&object.name)).await?;
        let found = self.hub.get(&scope, &object.namespace, &object.name).map_err(unreadable)?;
        self.seen.lock().insert(object.clone(), found.clone());
        Ok(found.map(|entry| entry.bytes.clone()))
    }

    async fn listed(&self, query: &Query) -> Result<Vec<Bytes>, ReadError> {
        self.hub.add_list(&self.key, query);
        let scope = self.scope(&query.kind, &query.namespace, None);
        self.synced(&scope).await?;
        self.allowed("list", &query.kind, &query.namespace, None).await?;
        let found = self.hub.list(&scope, &query.selector).map_err(unreadable)?;
        self.seen.lock().extend(found.iter().map(|entry| (entry.id.clone(), Some(Arc::clone(entry)))));
        Ok(found.iter().map(|entry| entry.bytes.clone()).collect())
    }

    /// Secrets are watched one by one, or as the plugin lists them, each with its own right; everything else by namespace,
    /// shared.
    fn scope(&self, kind: &Kind, namespace: &str, name: Option<&Arc<str>>) -> Scope {
        let private = kind.is_secret().then(|| Private { account: self.account.clone(), name: name.cloned() });
        Scope { private, ..Scope::new(self.key.cluster.clone(), kind.clone(), namespace) }
    }

    async fn synced(&self, scope: &Scope) -> Result<(), ReadError> {
        let mut state = self.live.reading(&self.hub, scope, &self.account);
        let filled = state.wait_for(|state| *state != SyncState::Pending);
        let known = tokio::time::timeout(FILLING, filled).await.map(|state| state.map(|state| state.clone()));
        match known {
            Ok(Ok(SyncState::Synced)) => Ok(()),
            Ok(Ok(SyncState::Failed { why, message })) => Err(match why {
                Why::Forbidden => ReadError::Forbidden(message),
                Why::Missing => ReadError::UnknownKind(message),
                Why::Full => ReadError::Other(message),
                Why::Unwell => ReadError::NotSynced(scope.kind.clone()),
            }),
            _ => Err(ReadError::NotSynced(scope.kind.clone())),
        }
    }

    /// The copy is shared, so what fills it says nothing about who may see it. No watch tells when a right is granted, so a
    /// no is remembered until it is a yes.
    async fn allowed(&self, verb: &'static str, kind: &Kind, place: &str, name: Option<&Arc<str>>) -> Result<(), ReadError> {
        let resource = self.api.resource(kind).await.map_err(|_| ReadError::NotSynced(kind.clone()))?;
        let access = access(&resource, verb, "", place, name);
        let refusal = match self.api.can(&self.account, &access).await {
            Ok(true) => return Ok(()),
            Ok(false) => {
                let (role, place) = match place {
                    "" => ("ClusterRole", "the cluster".to_owned()),
                    namespace => ("Role", format!("namespace {namespace}")),
                };
                let (account, resource) = (&self.account, &resource.plural);
                format!("ServiceAccount {account} may not {verb} {resource} in {place}: add the rule to its {role}")
            }
            Err(error) if error.is_forbidden() => error.to_string(),
            Err(_) => return Err(ReadError::NotSynced(kind.clone())),
        };
        self.refused.put(&self.key, &self.account, access);
        Err(ReadError::Forbidden(refusal))
    }
}

/// A cache that is being filled is waited for; what will not decode tomorrow either is told.
fn unreadable(error: NotSynced) -> ReadError {
    match error.gap {
        Gap::Quarantined => ReadError::Other(error.to_string()),
        Gap::Filling | Gap::Unreadable => ReadError::NotSynced(error.kind),
    }
}

pub(super) fn access(
    resource: &Resource,
    verb: &'static str,
    subresource: &'static str,
    namespace: &str,
    name: Option<&Arc<str>>,
) -> Access {
    Access {
        verb,
        group: resource.kind.group.clone(),
        resource: resource.plural.clone(),
        subresource,
        namespace: namespace.into(),
        name: name.cloned(),
    }
}
