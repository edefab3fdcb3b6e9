//! What goes wrong with a registry, by consequence: each with the sentence that its reader needs.

use std::time::Duration;

use crate::names::{Digest, Memory, Span};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// No connection, or one that broke: worth another try.
    #[error("the registry {host} does not answer: {message}")]
    Unreachable { host: String, message: String },
    /// It began, and did not come to an end: worth another try.
    #[error("{what} of {host} did not come within {after}: is the registry overloaded, or the network slow?")]
    Slow { host: String, what: String, after: Span },
    /// It answered, and the answer is no.
    #[error("{}", refusal(host, what, *status, said))]
    Refused { host: String, what: String, status: u16, said: String, retry_after: Option<Duration> },
    /// More bytes than anybody needs. Nothing of it was kept.
    #[error("{what} of {host} is larger than {cap}, the most that is read")]
    TooLarge { host: String, what: String, cap: Memory },
    /// Other bytes than were asked for. Nothing of it was kept.
    #[error("{what} of {host} is {found}, not {wanted}: the registry, or something before it, does not give what was asked for")]
    WrongDigest { host: String, what: String, wanted: Digest, found: Digest },
    /// It sends elsewhere where that is not followed.
    #[error("{what} of {host}: the registry redirects to `{to}`, which is not followed: {why}")]
    Redirected { host: String, what: String, to: String, why: &'static str },
    /// An answer that makes no sense.
    #[error("{what} of {host} makes no sense: {message}")]
    Malformed { host: String, what: String, message: String },
    /// The host's own configuration of this registry cannot be used.
    #[error("{0}")]
    Misconfigured(String),
}

impl RegistryError {
    /// CamelCase, for conditions.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "RegistryUnreachable",
            Self::Slow { .. } => "RegistrySlow",
            Self::TooLarge { .. } => "TooLarge",
            Self::WrongDigest { .. } => "WrongDigest",
            Self::Redirected { .. } => "Redirected",
            Self::Malformed { .. } => "RegistryAnswer",
            Self::Misconfigured(_) => "Misconfigured",
            Self::Refused { status, .. } => match status {
                401 => "Unauthorized",
                403 => "Forbidden",
                404 => "NotFound",
                429 => "Throttled",
                _ => "RegistryError",
            },
        }
    }

    /// The code of the answer, if there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// For how long the registry asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether other credentials may have another answer. Many registries say 404 of what one may not see.
    pub fn is_about_credentials(&self) -> bool {
        matches!(self.status(), Some(401 | 403 | 404))
    }
}

fn refusal(host: &str, what: &str, status: u16, said: &str) -> String {
    let advice = match status {
        401 => {
            "credentials are missing or wrong: name a pull secret for this registry (spec.source.oci.pullSecrets), or log in (`docker login`, --username)"
        }
        403 => "these credentials may not: ask the registry's owner for the right to it",
        404 => "there is no such thing, or these credentials may not see it: is the name spelt right, and was it pushed?",
        429 => "too many requests: it is asked again later",
        500.. => "the registry has failed: it is asked again later",
        _ => "this is not an answer that the protocol knows",
    };
    let said = if said.is_empty() { String::new() } else { format!(" (`{said}`)") };
    format!("{host} answers {status}{said} to {what}: {advice}")
}
