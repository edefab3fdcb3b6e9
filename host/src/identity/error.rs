//! What goes wrong between the host and an API server, by consequence.

use std::{fmt, time::Duration};

use http::HeaderMap;
use serde::Deserialize;

use crate::names::{Account, Kind};

#[derive(Debug, Clone, thiserror::Error)]
pub enum ApiError {
    /// The host may not ask for this account's tokens. Nothing happens until somebody lends it; the message has the commands.
    #[error("{message}")]
    NotLent { account: Account, message: String },
    /// The ServiceAccount does not exist. Nothing happens until somebody creates it.
    #[error("ServiceAccount {account} does not exist: create it with `kubectl create serviceaccount {} -n {}`", account.name, account.namespace)]
    NoAccount { account: Account },
    /// The API server answered, and the answer is no. Nothing was changed.
    #[error("{0}")]
    Refused(Status),
    /// The API server serves no such kind (yet).
    #[error("the API server serves no kind {0}: install its CustomResourceDefinition, or correct group, version and kind")]
    UnknownKind(Kind),
    /// No answer: whether a write happened is unknown.
    #[error("the API server does not answer: {0}")]
    Unreachable(String),
    /// An answer that makes no sense: whether a write happened is unknown.
    #[error("{0}")]
    Undecodable(String),
    /// The host's own configuration cannot be used. Useless to try again.
    #[error("{0}")]
    Misconfigured(String),
}

impl ApiError {
    /// The code of the answer, if there was one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused(status) => Some(status.code),
            _ => None,
        }
    }

    fn reason(&self) -> &str {
        match self {
            Self::Refused(status) => &status.reason,
            _ => "",
        }
    }

    /// This actor may not: 401, 403, or its account is not there or not lent.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::NotLent { .. } | Self::NoAccount { .. }) || matches!(self.code(), Some(401 | 403))
    }

    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// 409, but not because something exists already: a stale version, a foreign field, a failed precondition.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409) && !self.is_already_exists()
    }

    pub fn is_already_exists(&self) -> bool {
        self.code() == Some(409) && self.reason() == "AlreadyExists"
    }

    /// 410: the version to continue from is no longer there.
    pub fn is_gone(&self) -> bool {
        self.code() == Some(410)
    }

    /// 422, or 400: the same request will never be accepted.
    pub fn is_invalid(&self) -> bool {
        matches!(self.code(), Some(400 | 422))
    }

    /// Whether it says something of the API server rather than of the request: 429, 5xx, or no answer in time. Then, for
    /// how long it asks to be left alone.
    pub fn pushback(&self) -> Option<Option<Duration>> {
        match self {
            Self::Refused(status) if status.code == 429 || status.code >= 500 => Some(status.retry_after),
            Self::Unreachable(_) => Some(None),
            _ => None,
        }
    }

    /// What a metric calls it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotLent { .. } => "not_lent",
            Self::NoAccount { .. } => "no_account",
            Self::UnknownKind(_) => "unknown_kind",
            Self::Unreachable(_) => "unreachable",
            Self::Undecodable(_) => "undecodable",
            Self::Misconfigured(_) => "misconfigured",
            Self::Refused(status) => match status.code {
                400 | 422 => "invalid",
                401 => "unauthorized",
                403 => "forbidden",
                404 => "not_found",
                409 => "conflict",
                410 => "gone",
                429 => "throttled",
                500.. => "server",
                _ => "refused",
            },
        }
    }
}

/// What an API server says beside a code that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub code: u16,
    /// One word, as in `Forbidden`; empty when the answer had none.
    pub reason: String,
    pub message: String,
    pub retry_after: Option<Duration>,
    /// Field and message of each cause.
    pub causes: Vec<(String, String)>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reason.is_empty() {
            write!(f, "{} ({})", self.message, self.code)
        } else {
            write!(f, "{} ({} {})", self.message, self.code, self.reason)
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Wire {
    code: u16,
    reason: String,
    message: String,
    details: Option<Details>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    causes: Option<Vec<Cause>>,
    retry_after_seconds: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Cause {
    field: String,
    message: String,
}

impl Status {
    /// From the JSON text of a `Status` object, as in an answer or an `ERROR` event of a watch. `None` when it is none.
    pub fn parse(json: &[u8]) -> Option<Self> {
        let wire: Wire = serde_json::from_slice(json).ok()?;
        let details = wire.details.unwrap_or_default();
        let seconds = details.retry_after_seconds;
        let causes = details.causes.unwrap_or_default().into_iter().map(|c| (c.field, c.message)).collect();
        let retry_after = (seconds > 0).then(|| Duration::from_secs(seconds));
        Some(Self { code: wire.code, reason: wire.reason, message: wire.message, retry_after, causes })
    }

    /// From an answer, whatever its body is: a proxy in between may answer with a page or nothing.
    pub(super) fn of_answer(code: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let mut status = Self::parse(body).filter(|s| !s.message.is_empty()).unwrap_or_else(|| Self {
            code,
            reason: String::new(),
            message: String::from_utf8_lossy(body).trim().chars().take(300).collect(),
            retry_after: None,
            causes: Vec::new(),
        });
        status.code = code;
        if status.message.is_empty() {
            status.message = format!("the API server answered {code} and said no more");
        }
        let header = headers.get(http::header::RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        status.retry_after = status.retry_after.or(header.map(Duration::from_secs));
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_keeps_what_a_sentence_needs() {
        let body = br#"{"kind":"Status","status":"Failure","message":"Apply failed","reason":"Conflict","code":409,
            "details":{"causes":[{"reason":"FieldManagerConflict","message":"conflict with \"kubectl\"","field":".data.x"}]}}"#;
        let status = Status::of_answer(409, &HeaderMap::new(), body);
        assert_eq!(status.causes, [(".data.x".to_string(), "conflict with \"kubectl\"".to_string())]);
        assert_eq!(status.to_string(), "Apply failed (409 Conflict)");
        let error = ApiError::Refused(status);
        assert!(error.is_conflict() && !error.is_already_exists());
    }

    #[test]
    fn an_answer_that_is_no_status_is_still_a_sentence() {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "3".parse().unwrap());
        let status = Status::of_answer(429, &headers, b"<html>slow down</html>");
        assert_eq!((status.code, status.retry_after), (429, Some(Duration::from_secs(3))));
        assert!(status.to_string().contains("slow down"), "{status}");
        assert!(!Status::of_answer(502, &HeaderMap::new(), b"").to_string().is_empty());
    }
}
