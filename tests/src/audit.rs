//! What everybody did, as the API server's audit log tells it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cluster::{Cluster, HANG_BOUND};

/// One request. Timestamps are the API server's, RFC 3339 with microseconds, so they compare as text.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    #[serde(rename = "requestURI")]
    pub uri: String,
    pub verb: String,
    pub stage: String,
    pub user: User,
    #[serde(default)]
    pub user_agent: String,
    #[serde(default)]
    pub object_ref: Object,
    #[serde(default)]
    pub response_status: Status,
    pub request_received_timestamp: String,
    pub stage_timestamp: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct User {
    pub username: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Object {
    pub api_group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    pub code: u16,
}

impl Request {
    /// Create, update, patch or delete, no-ops and refusals included, except leases, access reviews and token requests.
    pub fn is_write(&self) -> bool {
        let changes = matches!(&*self.verb, "create" | "update" | "patch" | "delete" | "deletecollection");
        let lease = self.object_ref.api_group == "coordination.k8s.io" && self.object_ref.resource == "leases";
        let review = matches!(&*self.object_ref.api_group, "authorization.k8s.io" | "authentication.k8s.io");
        let token = self.object_ref.resource == "serviceaccounts" && self.object_ref.subresource == "token";
        changes && !lease && !review && !token
    }

    /// By the host's own user or by a tenant's ServiceAccount; not by the admin, nor by Kubernetes itself.
    pub fn is_by_reef(&self) -> bool {
        let user = &self.user.username;
        let tenant = user.starts_with("system:serviceaccount:") && !user.starts_with("system:serviceaccount:kube-system:");
        tenant || user == crate::control_plane::HOST_USER
    }

    /// `patch v1 configmaps ns/name/status by user: 200`, for failure messages.
    pub fn line(&self) -> String {
        let object = &self.object_ref;
        let parts = [&object.namespace, &object.name, &object.subresource].map(String::as_str).join("/");
        let (user, code, at) = (&self.user.username, self.response_status.code, &self.request_received_timestamp);
        format!("{at} {} {} {parts} by {user}: {code} ({})", self.verb, object.resource, self.user_agent)
    }
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

pub struct AuditLog {
    path: PathBuf,
}

impl AuditLog {
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf() }
    }

    /// Now: everything that was answered before is before the mark.
    pub async fn mark(&self, cluster: &Cluster) -> Result<Mark> {
        let word = format!("/version?mark={}", std::process::id());
        let from = self.len()?;
        let request = http::Request::get(&word).body(Vec::new())?;
        cluster.client().request_text(request).await?;
        let end = std::time::Instant::now() + HANG_BOUND;
        loop {
            if self.since(Mark(from))?.iter().any(|request| request.uri == word) {
                return Ok(Mark(self.len()?));
            }
            if std::time::Instant::now() > end {
                bail!("the audit log {} does not show our own request", self.path.display());
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Everything from a mark to the end of the log, each request once: when it was answered, or for a watch when it began.
    pub fn since(&self, mark: Mark) -> Result<Vec<Request>> {
        let bytes = std::fs::read(&self.path).with_context(|| format!("cannot read {}", self.path.display()))?;
        let from = usize::try_from(mark.0)?;
        let new = bytes.get(from..).unwrap_or_default();
        // The last line may be half written.
        let whole = new.iter().rposition(|byte| *byte == b'\n').and_then(|end| new.get(..end)).unwrap_or_default();
        let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let requests: Result<Vec<Request>, _> = lines.map(serde_json::from_slice).collect();
        let once = |request: &Request| (request.verb == "watch") == (request.stage == "ResponseStarted");
        Ok(requests.context("the audit log has a line that is not an event")?.into_iter().filter(once).collect())
    }

    /// The whole log.
    pub fn all(&self) -> Result<Vec<Request>> {
        self.since(Mark(0))
    }

    /// What Reef wrote in a namespace since a mark.
    pub fn writes(&self, mark: Mark, namespace: &str) -> Result<Vec<Request>> {
        let mut requests = self.since(mark)?;
        requests.retain(|request| request.is_write() && request.is_by_reef() && request.object_ref.namespace == namespace);
        Ok(requests)
    }

    fn len(&self) -> Result<u64> {
        Ok(std::fs::metadata(&self.path).with_context(|| format!("cannot read {}", self.path.display()))?.len())
    }
}
