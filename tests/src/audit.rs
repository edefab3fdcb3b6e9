//! What everybody did, as the API server's audit log tells it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use crate::cluster::{Cluster, hang_bound};

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
    /// Empty for a request whose credentials say nothing any more: a token of a deleted account, say.
    #[serde(default)]
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

    /// When the API server began with it.
    fn received(&self) -> Result<Timestamp> {
        let time = &self.request_received_timestamp;
        time.parse().with_context(|| format!("the audit log has a request that was received at `{time}`"))
    }

    /// `patch v1 configmaps ns/name/status by user: 200`, for failure messages.
    pub fn line(&self) -> String {
        let object = &self.object_ref;
        let parts = [&object.namespace, &object.name, &object.subresource].map(String::as_str).join("/");
        let (user, code, at) = (&self.user.username, self.response_status.code, &self.request_received_timestamp);
        format!("{at} {} {} {parts} by {user}: {code} ({})", self.verb, object.resource, self.user_agent)
    }
}

/// A place in the log, and when it was taken by the API server's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    from: u64,
    at: Timestamp,
}

impl Mark {
    const BEGIN: Self = Self { from: 0, at: Timestamp::UNIX_EPOCH };
}

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
        let end = std::time::Instant::now() + hang_bound();
        loop {
            let ours = self.since(Mark { from, ..Mark::BEGIN })?.into_iter().find(|request| request.uri == word);
            if let Some(ours) = ours {
                return Ok(Mark { from: self.len()?, at: ours.received()? });
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
        let from = usize::try_from(mark.from)?;
        // A line that was half written at the mark belongs to before it.
        let begins = bytes.get(..from).is_none_or(|before| before.last().is_none_or(|byte| *byte == b'\n'));
        let rest = bytes.get(from..).unwrap_or_default();
        let skip = if begins { 0 } else { rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1) };
        let new = rest.get(skip..).unwrap_or_default();
        // The last line may be half written.
        let whole = new.iter().rposition(|byte| *byte == b'\n').and_then(|end| new.get(..end)).unwrap_or_default();
        let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let requests: Result<Vec<Request>, _> = lines.map(serde_json::from_slice).collect();
        let once = |request: &Request| (request.verb == "watch") == (request.stage == "ResponseStarted");
        Ok(requests.context("the audit log has a line that is not an event")?.into_iter().filter(once).collect())
    }

    /// The whole log.
    pub fn all(&self) -> Result<Vec<Request>> {
        self.since(Mark::BEGIN)
    }

    /// What Reef wrote in a namespace since a mark. What was under way at the mark was begun before it, by a host that may be dead
    /// by now: it is answered later, and no write since.
    pub fn writes(&self, mark: Mark, namespace: &str) -> Result<Vec<Request>> {
        let mut writes = Vec::new();
        for request in self.since(mark)? {
            let ours = request.is_write() && request.is_by_reef() && request.object_ref.namespace == namespace;
            if ours && request.received()? >= mark.at {
                writes.push(request);
            }
        }
        Ok(writes)
    }

    fn len(&self) -> Result<u64> {
        Ok(std::fs::metadata(&self.path).with_context(|| format!("cannot read {}", self.path.display()))?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_was_under_way_at_a_mark_is_not_one_since() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |name: &str, received: &str| {
            let request = serde_json::json!({ "requestURI": name, "verb": "create", "stage": "ResponseComplete",
                "user": { "username": crate::control_plane::HOST_USER }, "objectRef": { "namespace": "a" },
                "requestReceivedTimestamp": received, "stageTimestamp": "2026-01-01T00:00:09Z" });
            format!("{request}\n")
        };
        let before = write("before", "2026-01-01T00:00:01.500000Z");
        std::fs::write(file.path(), before + &write("since", "2026-01-01T00:00:02.500000Z")).unwrap();
        let mark = Mark { from: 0, at: "2026-01-01T00:00:02Z".parse().unwrap() };
        let writes = AuditLog::new(file.path()).writes(mark, "a").unwrap();
        assert_eq!(writes.iter().map(|write| &*write.uri).collect::<Vec<_>>(), ["since"]);
    }

    #[test]
    fn a_line_that_is_half_written_at_a_mark_or_at_the_end_is_no_line_yet() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = |name: &str| {
            let request = serde_json::json!({ "requestURI": name, "verb": "get", "stage": "ResponseComplete",
                "user": { "username": "somebody" }, "requestReceivedTimestamp": "", "stageTimestamp": "" });
            format!("{request}\n")
        };
        let (one, two, three) = (line("one"), line("two"), line("three"));
        let log = AuditLog::new(file.path());
        let names = |mark: usize| -> Vec<String> {
            log.since(Mark { from: mark as u64, ..Mark::BEGIN }).unwrap().into_iter().map(|request| request.uri).collect()
        };
        std::fs::write(file.path(), format!("{one}{two}{}", &three[..9])).unwrap();
        assert_eq!(names(0), ["one", "two"]);
        assert_eq!(names(one.len()), ["two"]);
        assert_eq!(names(one.len() + 5), Vec::<String>::new());
        std::fs::write(file.path(), format!("{one}{two}{three}")).unwrap();
        assert_eq!(names(one.len() + 5), ["three"]);
    }
}
