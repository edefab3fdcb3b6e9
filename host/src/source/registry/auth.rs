//! Who we are towards a registry: the challenge of a 401, and the token that it asks for.
//!
//! The dance is Docker's: the registry names a token service, which may live on another host, and that service gets the
//! credentials. Nobody else does. Every answer is capped, since a tenant chooses the registry.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Uri, header};
use http_auth::ChallengeParser;
use http_body_util::Full;
use serde::Deserialize;

use super::{RegistryError, refused, wire};
use crate::names::Memory;

const LARGEST_TOKEN: Memory = Memory(64 << 10);

/// What a registry, or its token service, is told.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub enum Credential {
    #[default]
    Anonymous,
    Basic {
        user: String,
        password: String,
    },
    /// For the token service alone, instead of a password.
    Identity(String),
    /// For the registry itself, without asking any service.
    Bearer(String),
}

/// Never what it is.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(…)",
            Self::Identity(_) => "Identity(…)",
            Self::Bearer(_) => "Bearer(…)",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Pull,
    Push,
}

#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

/// What to answer to this 401, if there is anything.
pub(super) async fn answer(
    wire: &wire::Wire,
    registry: &Uri,
    headers: &HeaderMap,
    credential: &Credential,
    scope: (&str, Operation),
) -> Result<Option<HeaderValue>, RegistryError> {
    match (challenge(headers), credential) {
        (_, Credential::Bearer(token)) => Ok(secret(&format!("Bearer {token}"))),
        (Some(Challenge::Basic), Credential::Basic { user, password }) => Ok(secret(&basic(user, password))),
        (Some(Challenge::Bearer { realm, service }), _) => {
            token(wire, registry, &realm, service.as_deref(), credential, scope).await.map(Some)
        }
        _ => Ok(None),
    }
}

fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let texts = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let mut basic = None;
    for text in texts {
        for found in ChallengeParser::new(text).filter_map(Result::ok) {
            let parameter = |name: &str| {
                let value = found.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                value.map(|(_, value)| value.to_unescaped())
            };
            if found.scheme.eq_ignore_ascii_case("bearer") {
                return Some(Challenge::Bearer { realm: parameter("realm")?, service: parameter("service") });
            }
            if found.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
        }
    }
    basic
}

async fn token(
    wire: &wire::Wire,
    registry: &Uri,
    realm: &str,
    service: Option<&str>,
    credential: &Credential,
    (repository, operation): (&str, Operation),
) -> Result<HeaderValue, RegistryError> {
    let what = "the token";
    let realm = checked_realm(registry, realm)?;
    let actions = if operation == Operation::Push { "pull,push" } else { "pull" };
    let mut fields = vec![("scope", format!("repository:{repository}:{actions}"))];
    fields.extend(service.map(|service| ("service", service.to_owned())));
    let request = match credential {
        Credential::Identity(token) => {
            fields.extend([("grant_type", "refresh_token".to_owned()), ("client_id", "reef".to_owned())]);
            fields.push(("refresh_token", token.clone()));
            Request::post(&realm)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Full::new(Bytes::from(form(&fields))))
        }
        _ => {
            let separator = if realm.query().is_some() { '&' } else { '?' };
            let mut request = Request::get(format!("{realm}{separator}{}", form(&fields)));
            if let Credential::Basic { user, password } = credential
                && let Some(value) = secret(&basic(user, password))
            {
                request = request.header(header::AUTHORIZATION, value);
            }
            request.body(Full::default())
        }
    };
    let host = wire::host(&realm);
    let malformed = |message: String| RegistryError::Malformed {
        host: host.clone(),
        what: "the answer of the token service".into(),
        message,
    };
    let request = request.map_err(|e| malformed(e.to_string()))?;
    let response = wire.send(what, request).await?;
    if !response.status().is_success() {
        // Redirects included: credentials go to the service that the registry has named and to nobody else.
        return Err(refused(wire, &host, "the request for a token", response).await);
    }
    let body = wire.read(&host, what, response, wire::Size::Small(LARGEST_TOKEN)).await?;
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(&body).map_err(|e| malformed(e.to_string()))?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| malformed("it holds no token".into()))?;
    secret(&format!("Bearer {token}")).ok_or_else(|| malformed("its token is not a header's value".into()))
}

/// A password never goes over the wire in the clear because a registry that speaks TLS asks for it.
fn checked_realm(registry: &Uri, realm: &str) -> Result<Uri, RegistryError> {
    let (host, what) = (wire::host(registry), "the token service that the registry names".to_owned());
    let uri: Uri = realm.parse().map_err(|_| RegistryError::Malformed {
        host: host.clone(),
        what: what.clone(),
        message: "its realm is not an address".into(),
    })?;
    let why = match uri.scheme_str() {
        Some("https") => None,
        Some("http") if registry.scheme_str() == Some("http") => None,
        Some("http") => Some("it is plain http, and the registry is not"),
        _ => Some("its realm is not an http address"),
    };
    let why = why.or(uri.authority().is_some_and(|a| a.as_str().contains('@')).then_some("its realm holds a password"));
    match why {
        None => Ok(uri),
        Some(why) => Err(RegistryError::Redirected { host, what, to: wire::host(&uri), why }),
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A header that is not printed and not put into HTTP/2's tables.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn form(fields: &[(&str, String)]) -> String {
    let escaped = |text: &str| -> String {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
    };
    fields.iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Option<Challenge> {
        challenge(&HeaderMap::from_iter([(header::WWW_AUTHENTICATE, value.parse().unwrap())]))
    }

    #[test]
    fn a_bearer_challenge_is_preferred_and_a_basic_one_understood() {
        let bearer = Challenge::Bearer { realm: "https://auth.example/token".into(), service: Some("registry".into()) };
        assert_eq!(of(r#"Bearer realm="https://auth.example/token",service="registry",scope="x""#), Some(bearer));
        assert_eq!(of(r#"Basic realm="x""#), Some(Challenge::Basic));
        assert_eq!(of("Negotiate"), None);
    }

    #[test]
    fn a_registry_over_tls_cannot_have_passwords_sent_in_the_clear() {
        let tls: Uri = "https://registry.example".parse().unwrap();
        let plain: Uri = "http://localhost:5000".parse().unwrap();
        assert!(checked_realm(&tls, "https://auth.example/token").is_ok());
        assert!(checked_realm(&plain, "http://localhost:5001/token").is_ok());
        for wrong in ["http://auth.example/token", "file:///etc/passwd", "https://user:pw@auth.example/", "/token"] {
            assert!(checked_realm(&tls, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn forms_are_escaped_and_credentials_never_printed() {
        assert_eq!(form(&[("scope", "repository:a/b:pull".into())]), "scope=repository%3Aa%2Fb%3Apull");
        let credential = Credential::Basic { user: "jane".into(), password: "hunter2".into() };
        assert_eq!(format!("{credential:?}"), "Basic(…)");
    }
}
