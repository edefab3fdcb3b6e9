//! Pull secrets: which credentials are for which image, by the rules of the kubelet.
//!
//! A key of a docker config is a host, maybe with `*` in its parts, maybe with a path: it matches images below it. The keys are
//! in reverse order of their text, so that the longer of two that begin alike comes first, and all that match are tried.
//! Credential helpers that a config names are never run: a tenant writes it.

use std::collections::BTreeMap;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;

use super::{reference::Reference, registry::Credential};
use crate::{
    identity::{Actor, Api, ApiError, Lane},
    names::Account,
};

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    #[error("spec.source.oci.pullSecrets: there is no Secret {0}: create it with `kubectl create secret docker-registry`")]
    Missing(String),
    #[error(
        "spec.source.oci.pullSecrets: ServiceAccount {account} may not read Secret {name}: add to its Role the rule {{apiGroups: [\"\"], \
         resources: [\"secrets\"], resourceNames: [\"{name}\"], verbs: [\"get\"]}}"
    )]
    Forbidden { account: Account, name: String },
    #[error("spec.source.oci.pullSecrets: Secret {name} is no pull secret: {why}")]
    Unusable { name: String, why: &'static str },
    #[error("spec.source.oci.pullSecrets: Secret {name} cannot be read: {message}")]
    Unread { name: String, message: String },
}

impl KeyringError {
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Forbidden { .. } => "MissingRights",
            _ => "PullSecret",
        }
    }
}

/// The credentials of several configs. Its keys and values are never printed.
#[derive(Default)]
pub struct Keyring(Vec<(Key, Credential)>);

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("keys", &self.0.len()).finish()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    host: String,
    path: String,
}

#[derive(Deserialize)]
struct Auths {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

#[derive(Deserialize)]
struct Secret {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

impl Keyring {
    /// Reads the Secrets as this account. One that cannot be read is an error, not a pull without it.
    pub async fn read(api: &Api, account: &Account, secrets: &[String]) -> Result<Self, KeyringError> {
        let mut keyring = Self::default();
        for name in secrets {
            let path = format!("/api/v1/namespaces/{}/secrets/{name}", account.namespace);
            let request = http::Request::get(path).body(Vec::new());
            let unread = |message| KeyringError::Unread { name: name.clone(), message };
            let request = request.map_err(|e| unread(e.to_string()))?;
            let body =
                api.send(&Actor::Account(account.clone()), Lane::Requests, request).await.map_err(|error| match error {
                    error if error.is_not_found() => KeyringError::Missing(name.clone()),
                    ApiError::Refused(_) if error.is_forbidden() => {
                        KeyringError::Forbidden { account: account.clone(), name: name.clone() }
                    }
                    error => unread(error.to_string()),
                })?;
            // What does not decode is not printed: it is a secret.
            let secret: Secret = serde_json::from_slice(&body).map_err(|_| unread("it does not decode".into()))?;
            keyring.add_secret(&secret).map_err(|why| KeyringError::Unusable { name: name.clone(), why })?;
        }
        Ok(keyring)
    }

    /// Of the text of a `~/.docker/config.json`.
    pub fn of_config(text: &[u8]) -> Result<Self, &'static str> {
        let mut keyring = Self::default();
        let config: Auths = serde_json::from_slice(text).map_err(|_| "it is not a docker config in JSON")?;
        keyring.add(config.auths)?;
        Ok(keyring)
    }

    fn add_secret(&mut self, secret: &Secret) -> Result<(), &'static str> {
        let data = |key: &str| secret.data.get(key).map(|text| LENIENT.decode(text));
        match &*secret.kind {
            "kubernetes.io/dockerconfigjson" => {
                let text = data(".dockerconfigjson")
                    .ok_or("its data has no `.dockerconfigjson`")?
                    .map_err(|_| "its data is not base64")?;
                let config: Auths =
                    serde_json::from_slice(&text).map_err(|_| "`.dockerconfigjson` is not a docker config in JSON")?;
                self.add(config.auths)
            }
            "kubernetes.io/dockercfg" => {
                let text = data(".dockercfg").ok_or("its data has no `.dockercfg`")?.map_err(|_| "its data is not base64")?;
                self.add(serde_json::from_slice(&text).map_err(|_| "`.dockercfg` is not a docker config in JSON")?)
            }
            _ => Err("its type is neither kubernetes.io/dockerconfigjson nor kubernetes.io/dockercfg"),
        }
    }

    fn add(&mut self, auths: BTreeMap<String, Entry>) -> Result<(), &'static str> {
        for (key, entry) in auths {
            // An entry without credentials stands for a helper or a store that is not asked.
            if let Some(credential) = entry.credential()? {
                self.0.push((Key::of(&key), credential));
            }
        }
        // Stable: of two configs with the same key, the first is tried first.
        self.0.sort_by(|(a, _), (b, _)| b.cmp(a));
        Ok(())
    }

    /// All that match, in the order in which they are tried. Empty: nobody has given any.
    pub fn matching(&self, reference: &Reference) -> Vec<Credential> {
        let mut found: Vec<Credential> = Vec::new();
        for (_, credential) in self.0.iter().filter(|(key, _)| key.matches(&reference.registry, &reference.repository)) {
            if !found.contains(credential) {
                found.push(credential.clone());
            }
        }
        found
    }

    /// For a mirror, which is another host: only what is meant for it.
    pub fn for_host(&self, host: &str, repository: &str) -> Credential {
        let matching = self.0.iter().find(|(key, _)| key.matches(host, repository));
        matching.map(|(_, credential)| credential.clone()).unwrap_or_default()
    }
}

impl Entry {
    fn credential(self) -> Result<Option<Credential>, &'static str> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(token) = given(self.registrytoken) {
            return Ok(Some(Credential::Bearer(token)));
        }
        if let Some(token) = given(self.identitytoken) {
            return Ok(Some(Credential::Identity(token)));
        }
        if let Some(auth) = given(self.auth) {
            let text = LENIENT.decode(auth.trim()).map_err(|_| "an `auth` in it is not base64")?;
            let text = String::from_utf8(text).map_err(|_| "an `auth` in it is not text")?;
            let (user, password) = text.split_once(':').ok_or("an `auth` in it is not `user:password`")?;
            return Ok(Some(Credential::Basic { user: user.into(), password: password.trim_end_matches('\0').into() }));
        }
        match (given(self.username), given(self.password)) {
            (Some(user), password) => Ok(Some(Credential::Basic { user, password: password.unwrap_or_default() })),
            _ => Ok(None),
        }
    }
}

impl Key {
    /// Scheme, and the version of the protocol at the beginning of the path, are no part of it.
    fn of(text: &str) -> Self {
        let text = text.strip_prefix("https://").or(text.strip_prefix("http://")).unwrap_or(text);
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let path = ["v1/", "v2/"].iter().find_map(|version| path.strip_prefix(version)).unwrap_or(path);
        let path = if matches!(path, "v1" | "v2") { "" } else { path };
        let host = match host.to_ascii_lowercase() {
            host if matches!(&*host, "index.docker.io" | "registry-1.docker.io") => "docker.io".into(),
            host => host,
        };
        Self { host, path: path.trim_end_matches('/').into() }
    }

    fn matches(&self, host: &str, repository: &str) -> bool {
        let split = |text: &str| -> (Vec<String>, Option<String>) {
            let (name, port) = match text.rsplit_once(':') {
                Some((name, port)) if !port.ends_with(']') => (name, Some(port.to_owned())),
                _ => (text, None),
            };
            (name.split('.').map(str::to_owned).collect(), port)
        };
        let ((pattern, port), (parts, their_port)) = (split(&self.host), split(host));
        port == their_port
            && pattern.len() == parts.len()
            && pattern.iter().zip(&parts).all(|(pattern, part)| glob(pattern.as_bytes(), part.as_bytes()))
            && repository.starts_with(&self.path)
    }
}

/// `*` is any text, `?` any character; linear, since who writes the pattern may be anybody.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(expected) if expected == byte || *expected == b'?' => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keyring(keys: &[&str]) -> Keyring {
        let auths: serde_json::Map<_, _> =
            keys.iter().map(|key| ((*key).to_owned(), json!({ "username": key, "password": "x" }))).collect();
        Keyring::of_config(json!({ "auths": auths }).to_string().as_bytes()).unwrap()
    }

    fn users(keys: &[&str], image: &str) -> Vec<String> {
        let found = keyring(keys).matching(&image.parse().unwrap());
        found.into_iter().map(|c| if let Credential::Basic { user, .. } = c { user } else { unreachable!() }).collect()
    }

    #[test]
    fn the_longest_key_comes_first_and_all_that_match_are_tried() {
        let keys = ["registry.example", "https://registry.example/team", "registry.example/team/hello", "other.example"];
        assert_eq!(
            users(&keys, "registry.example/team/hello:1"),
            ["registry.example/team/hello", "https://registry.example/team", "registry.example"]
        );
        assert_eq!(users(&keys, "registry.example/you"), ["registry.example"]);
        assert_eq!(users(&keys, "registry.example:5000/team/hello"), Vec::<String>::new());
    }

    #[test]
    fn a_star_stands_for_one_part_of_the_host() {
        let keys = ["*.registry.example", "*.*.example", "*-eu.registry.example"];
        assert_eq!(users(&keys, "a-eu.registry.example/x"), ["*.registry.example", "*.*.example", "*-eu.registry.example"]);
        assert_eq!(users(&keys, "a.b.registry.example/x"), Vec::<String>::new());
    }

    #[test]
    fn docker_hub_is_known_by_all_of_its_names() {
        assert_eq!(users(&["https://index.docker.io/v1/"], "team/hello"), ["https://index.docker.io/v1/"]);
        assert_eq!(users(&["docker.io"], "hello"), ["docker.io"]);
    }

    #[test]
    fn helpers_are_never_run_and_both_kinds_of_secret_are_read() {
        let helper =
            json!({ "auths": { "registry.example": {} }, "credsStore": "evil", "credHelpers": { "registry.example": "evil" } });
        assert!(Keyring::of_config(helper.to_string().as_bytes()).unwrap().0.is_empty());
        let auth = json!({ "registry.example": { "auth": LENIENT.encode("jane:a:b") } });
        for (kind, key, text) in [
            ("kubernetes.io/dockerconfigjson", ".dockerconfigjson", json!({ "auths": auth.clone() })),
            ("kubernetes.io/dockercfg", ".dockercfg", auth.clone()),
        ] {
            let secret = Secret { kind: kind.into(), data: [(key.to_owned(), LENIENT.encode(text.to_string()))].into() };
            let mut keyring = Keyring::default();
            keyring.add_secret(&secret).unwrap();
            let found = keyring.matching(&"registry.example/x".parse().unwrap());
            assert_eq!(found, [Credential::Basic { user: "jane".into(), password: "a:b".into() }]);
        }
        let opaque = Secret { kind: "Opaque".into(), data: BTreeMap::new() };
        assert!(Keyring::default().add_secret(&opaque).unwrap_err().contains("dockerconfigjson"));
    }

    #[test]
    fn a_mirror_gets_only_what_is_meant_for_it() {
        let keyring = keyring(&["registry.example"]);
        assert_eq!(keyring.for_host("mirror.example", "x"), Credential::Anonymous);
        assert_ne!(keyring.for_host("registry.example", "x"), Credential::Anonymous);
    }

    #[test]
    fn a_pattern_of_many_stars_takes_no_time() {
        assert!(!glob(&b"*a".repeat(2000), &b"a".repeat(1999)));
        assert!(glob(b"a*c?", b"abbcd") && !glob(b"a", b"ab") && glob(b"*", b""));
    }
}
