//! The contract's words as plain data: request, plan, failure, report, read, manifest.
//!
//! The sandbox translates between these and the WIT; `plan`, `watch` and `dispatch` know only these.
//! It knows neither Wasm nor Kubernetes' client. `wit/` is where each word is explained.

pub mod manifest;
pub mod selector;

use std::{fmt, sync::Arc, time::Duration};

pub use manifest::Manifest;
pub use selector::Selector;

use crate::names::{Kind, ObjectId};

/// What a plugin is asked.
#[derive(Debug, Clone)]
pub struct Request {
    pub key: ObjectId,
    /// The object as JSON text, without `metadata.managedFields`.
    pub object: String,
    /// `spec.settings` of the plugin, as JSON text.
    pub settings: String,
    /// Milliseconds since the Unix epoch.
    pub now: u64,
    pub seed: u64,
    /// Failures in a row before this call.
    pub attempt: u32,
}

/// What should be true; still as the plugin said it, nothing validated.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub writes: Vec<Write>,
    pub report: Report,
    pub after: Option<Duration>,
    pub partial: bool,
    pub done: bool,
    /// JSON text; `{}` says none.
    pub extensions: String,
}

/// A verb, an object and options; the last two as JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub verb: String,
    pub object: String,
    pub options: String,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// JSON text. Absent: the status stays as it is.
    pub status: Option<String>,
    pub conditions: Vec<Condition>,
    pub events: Vec<Event>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub name: String,
    pub status: Truth,
    pub reason: String,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    /// As Kubernetes writes it in a condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `Normal` or `Warning`.
    pub severity: String,
    pub reason: String,
    pub message: String,
}

/// Why a plugin made no plan. Nothing is written but the report.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    pub kind: FailureKind,
    pub reason: String,
    pub message: String,
    pub after: Option<Duration>,
    pub report: Report,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Something went wrong: back off.
    Retry,
    /// Nothing is wrong, something is not there yet: no error is counted.
    Wait,
    /// Useless to try before the object, or something that was read, changes.
    Terminal,
}

/// One object that a reconcile read: a dependency of its key, whether or not the object existed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Read {
    pub object: ObjectId,
    /// Paths that were kept; empty keeps all. Only what is kept wakes.
    pub fields: Vec<String>,
}

/// A list that a reconcile read: which objects match, and what was kept of them, is a dependency of its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Query {
    pub kind: Kind,
    /// Empty: all namespaces, or a cluster-scoped kind.
    pub namespace: Arc<str>,
    pub selector: Selector,
    /// Paths that were kept; empty keeps all. Only what is kept wakes.
    pub fields: Vec<String>,
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, namespace, selector) = (&self.kind, &self.namespace, &self.selector);
        match namespace.is_empty() {
            true => write!(f, "{kind} `{selector}`"),
            false => write!(f, "{kind} `{selector}` in namespace {namespace}"),
        }
    }
}

/// What a read may answer when it does not answer an object or a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadError {
    Forbidden(String),
    UnknownKind(String),
    TooLarge(String),
    Other(String),
    /// The cache of this kind is not complete: the host ends the call and repeats it later, uncounted.
    NotSynced(Kind),
}
