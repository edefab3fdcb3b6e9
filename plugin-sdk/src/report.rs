//! What people get to see: status, conditions, events.
//!
//! It knows nothing of how they are written; the host merges them into one request.

/// One entry of `.status.conditions`.
///
/// ```
/// use plugin_sdk::Condition;
/// let ready = Condition::no("Ready", "NoReplicas", "0 of 3 replicas are ready");
/// assert_eq!(ready.status, "False");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Becomes the condition's `type`, as in `Ready`.
    pub name: String,
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// CamelCase.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

impl Condition {
    /// It is so: `True`.
    pub fn yes(name: &str, reason: &str, message: impl Into<String>) -> Self {
        Self { name: name.into(), status: "True", reason: reason.into(), message: message.into() }
    }

    /// It is not so: `False`.
    pub fn no(name: &str, reason: &str, message: impl Into<String>) -> Self {
        Self { status: "False", ..Self::yes(name, reason, message) }
    }

    /// `True` if it holds, else `False`: for a condition that says the same either way, as "2 of 3 replicas are ready".
    ///
    /// ```
    /// # use plugin_sdk::Condition;
    /// let (ready, wanted) = (2, 3);
    /// let available = Condition::when("Available", ready > 0, "Counted", format!("{ready} of {wanted} replicas are ready"));
    /// assert_eq!(available.status, "True");
    /// ```
    pub fn when(name: &str, holds: bool, reason: &str, message: impl Into<String>) -> Self {
        if holds { Self::yes(name, reason, message) } else { Self::no(name, reason, message) }
    }

    /// Nobody can say: `Unknown`.
    pub fn unknown(name: &str, reason: &str, message: impl Into<String>) -> Self {
        Self { status: "Unknown", ..Self::yes(name, reason, message) }
    }

    /// Whether it is so: `True`. Of what was read, see [`Object::condition`](crate::Object::condition).
    ///
    /// ```
    /// # use plugin_sdk::Condition;
    /// assert!(Condition::yes("Ready", "Serving", "all replicas are ready").is_true());
    /// assert!(!Condition::unknown("Ready", "Lost", "the node does not answer").is_true());
    /// ```
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }
}

/// A Kubernetes event about the object that is reconciled. A steady state has none: the host writes each one.
///
/// ```
/// use plugin_sdk::Event;
/// let event = Event::warning("BackupFailed", "the bucket is full");
/// assert_eq!(event.severity, "Warning");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `Normal` or `Warning`.
    pub severity: &'static str,
    /// CamelCase.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

impl Event {
    /// Something went as it should.
    pub fn normal(reason: &str, message: impl Into<String>) -> Self {
        Self { severity: "Normal", reason: reason.into(), message: message.into() }
    }

    /// Somebody may want to look.
    pub fn warning(reason: &str, message: impl Into<String>) -> Self {
        Self { severity: "Warning", ..Self::normal(reason, message) }
    }
}

/// Goes with a plan as well as with an error.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Report {
    /// JSON text.
    pub status: Option<String>,
    pub conditions: Vec<Condition>,
    pub events: Vec<Event>,
}
