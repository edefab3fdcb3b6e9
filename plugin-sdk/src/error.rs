//! Why there is no plan: typed, so that the host knows whether and when to try again.
//!
//! An error may carry status, conditions and events: nothing else is written.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::report::{Condition, Event, Report};

/// `Result<Plan>` is what a reconcile function returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why there is no plan.
///
/// `?` on any other error makes a [`retry`](Error::retry) of it. Errors of [`Context`](crate::Context) and a spec that does
/// not decode are classified already.
///
/// ```
/// use plugin_sdk::prelude::*;
/// use std::time::Duration;
///
/// fn port(text: &str) -> Result<u16> {
///     ensure!(!text.is_empty(), "spec.port is empty: give a number from 1 to 65535");   // terminal
///     Ok(text.parse()?)                                                                   // retry
/// }
///
/// let error = Error::wait("the database has no address yet").after(Duration::from_secs(5));
/// assert_eq!(error.to_string(), "the database has no address yet");
/// assert!(port("").unwrap_err().is_terminal());
/// assert!(port("x").unwrap_err().is_retry());
/// ```
pub struct Error(Box<Failure>);

/// Boxed, so that `Result<Plan>` stays small on the stack.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub class: Class,
    pub reason: String,
    pub message: String,
    pub after: Option<Duration>,
    pub report: Report,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Retry,
    Wait,
    Terminal,
}

impl Class {
    #[cfg_attr(not(target_family = "wasm"), expect(dead_code, reason = "only the glue to the host speaks text"))]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Wait => "wait",
            Self::Terminal => "terminal",
        }
    }
}

impl Error {
    /// Something went wrong: the host backs off and tries again. The reason is `Error`.
    pub fn retry(message: impl Into<String>) -> Self {
        Self::new(Class::Retry, "Error", message.into())
    }

    /// Nothing is wrong, something is not there yet: no error is counted. What was read wakes the object; add
    /// [`after`](Error::after) for what cannot. The reason is `Waiting`.
    pub fn wait(message: impl Into<String>) -> Self {
        Self::new(Class::Wait, "Waiting", message.into())
    }

    /// Useless to try before the object, or something that was read, changes. The reason is `Invalid`.
    pub fn terminal(message: impl Into<String>) -> Self {
        Self::new(Class::Terminal, "Invalid", message.into())
    }

    fn new(class: Class, reason: &str, message: String) -> Self {
        Self(Box::new(Failure { class, reason: reason.into(), message, after: None, report: Report::default() }))
    }

    /// The CamelCase reason that the host's condition shows.
    #[must_use]
    pub fn reason(mut self, reason: &str) -> Self {
        self.0.reason = reason.into();
        self
    }

    /// When to try next, instead of the host's backoff.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.0.after = Some(delay);
        self
    }

    /// The fields of `.status` to write although there is no plan. What does not serialize is left out.
    #[must_use]
    pub fn status(mut self, status: impl Serialize) -> Self {
        self.0.report.status = serde_json::to_string(&status).ok();
        self
    }

    /// A condition to write although there is no plan; those that are not listed stay.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// let error = Error::terminal("spec.size is 0: give at least 1")
    ///     .reason("InvalidSize")
    ///     .condition(Condition::no("Ready", "InvalidSize", "spec.size is 0"));
    /// # assert_eq!(error.conditions()[0].name, "Ready");
    /// ```
    #[must_use]
    pub fn condition(mut self, condition: Condition) -> Self {
        self.0.report.conditions.push(condition);
        self
    }

    /// Tells people of something that has happened.
    #[must_use]
    pub fn event(mut self, event: Event) -> Self {
        self.0.report.events.push(event);
        self
    }

    /// Whether it is a [`retry`](Error::retry).
    pub fn is_retry(&self) -> bool {
        self.0.class == Class::Retry
    }

    /// Whether it is a [`wait`](Error::wait).
    pub fn is_wait(&self) -> bool {
        self.0.class == Class::Wait
    }

    /// Whether it is [`terminal`](Error::terminal).
    pub fn is_terminal(&self) -> bool {
        self.0.class == Class::Terminal
    }

    /// The conditions that it carries, for tests.
    pub fn conditions(&self) -> &[Condition] {
        &self.0.report.conditions
    }

    #[cfg_attr(not(target_family = "wasm"), expect(dead_code, reason = "only the glue to the host takes it apart"))]
    pub(crate) fn into_failure(self) -> Failure {
        *self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A foreign error is a retry; its message names its causes too.
impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            message.push_str(": ");
            message.push_str(&inner.to_string());
            cause = inner.source();
        }
        Self::retry(message)
    }
}

/// Ends the reconcile with a terminal [`Error`] unless the condition holds: the object is wrong, and only a change of it
/// can help.
///
/// ```
/// use plugin_sdk::prelude::*;
/// fn check(replicas: u32) -> Result<()> {
///     ensure!(replicas <= 9, "spec.replicas is {replicas}: at most 9 are supported");
///     Ok(())
/// }
/// assert_eq!(check(10).unwrap_err().to_string(), "spec.replicas is 10: at most 9 are supported");
/// ```
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return ::core::result::Result::Err($crate::Error::terminal(::std::format!($($message)+)));
        }
    };
}
