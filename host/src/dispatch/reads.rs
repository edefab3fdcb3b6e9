//! What `reads` answers in a running host: the hub's copy, as far as the plugin's ServiceAccount may see it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;

use super::live::Live;
use crate::{
    capability::reads::Reads,
    contract::{Read, ReadError},
    identity::{Access, Api, ApiError, Resource},
    names::{Account, Key, ObjectId},
    watch::{Hub, Scope, SyncState},
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
}

impl Reads for HubReads {
    fn get<'a>(&'a self, object: &'a ObjectId, fields: &'a [String]) -> BoxFuture<'a, Result<Option<Bytes>, ReadError>> {
        Box::pin(self.read(object, fields))
    }
}

impl HubReads {
    async fn read(&self, object: &ObjectId, fields: &[String]) -> Result<Option<Bytes>, ReadError> {
        // First the dependency, then the read: a change in between wakes the key once too often, never once too few.
        let read = Read { object: object.clone(), fields: fields.to_vec() };
        self.hub.add_read(&self.key, &read);
        let scope = self.scope(object);
        self.synced(&scope, object).await?;
        self.allowed(object).await?;
        match self.hub.get(&scope, &object.namespace, &object.name) {
            Ok(entry) => Ok(entry.map(|entry| entry.bytes.clone())),
            Err(_) => Err(ReadError::NotSynced(object.kind.clone())),
        }
    }

    /// Secrets are watched one by one, each with the plugin's own right; everything else by namespace, shared.
    fn scope(&self, object: &ObjectId) -> Scope {
        let scope = Scope::new(self.key.cluster.clone(), object.kind.clone(), &object.namespace);
        if object.kind.is_secret() {
            Scope { only: Some((self.account.clone(), object.name.clone())), ..scope }
        } else {
            scope
        }
    }

    async fn synced(&self, scope: &Scope, object: &ObjectId) -> Result<(), ReadError> {
        let mut state = self.live.reading(&self.hub, scope, &self.account);
        let filled = state.wait_for(|state| *state != SyncState::Pending);
        let known = tokio::time::timeout(FILLING, filled).await.map(|state| state.map(|state| state.clone()));
        match known {
            Ok(Ok(SyncState::Synced)) => Ok(()),
            Ok(Ok(SyncState::Failed { forbidden: true, message })) => Err(ReadError::Forbidden(message)),
            Ok(Ok(SyncState::Failed { .. })) => Err(self.unknown(object).await),
            _ => Err(ReadError::NotSynced(object.kind.clone())),
        }
    }

    /// A kind that does not exist is an answer; anything else that keeps a cache from being complete is not.
    async fn unknown(&self, object: &ObjectId) -> ReadError {
        match self.api.resource(&object.kind).await {
            Err(error @ ApiError::UnknownKind(_)) => ReadError::UnknownKind(error.to_string()),
            _ => ReadError::NotSynced(object.kind.clone()),
        }
    }

    /// The copy is shared, so what fills it says nothing about who may see it.
    async fn allowed(&self, object: &ObjectId) -> Result<(), ReadError> {
        let resource = self.api.resource(&object.kind).await.map_err(|_| ReadError::NotSynced(object.kind.clone()))?;
        let access = access(&resource, "get", "", &object.namespace, Some(&object.name));
        match self.api.can(&self.account, &access).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ReadError::Forbidden(format!(
                "ServiceAccount {} may not get {} in namespace {}: add the rule to its Role",
                self.account, resource.plural, object.namespace
            ))),
            Err(error) if error.is_forbidden() => Err(ReadError::Forbidden(error.to_string())),
            Err(_) => Err(ReadError::NotSynced(object.kind.clone())),
        }
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
