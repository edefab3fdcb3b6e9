//! The policy as an admin writes it, validated: which rule is a namespace's, and what it lets in. Pure: the files that it
//! names were read by `file`.

use serde::Deserialize;

use super::{
    key::{Key, KeyError},
    pattern::{NamespacePattern, RepositoryPattern},
    subject::{Origin, Pin, Subject},
};
use crate::trust::TrustError;

const API_VERSION: &str = "reef.dev/v1alpha1";
const KIND: &str = "TrustPolicy";

/// The file, as YAML.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a trust policy")]
pub struct Text {
    pub api_version: String,
    pub kind: String,
    #[serde(default)]
    pub keys: Vec<KeyText>,
    pub rules: Vec<RuleText>,
}

/// Exactly one of `pem` and `file`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a key")]
pub struct KeyText {
    pub name: String,
    #[serde(default)]
    pub pem: Option<String>,
    #[serde(default)]
    pub file: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a rule")]
pub struct RuleText {
    pub namespaces: Vec<NamespacePattern>,
    #[serde(default)]
    pub repositories: Vec<RepositoryPattern>,
    #[serde(default)]
    pub files: Unsigned,
    #[serde(default)]
    pub config_maps: Unsigned,
    #[serde(default)]
    pub signature: Need<true>,
    #[serde(default)]
    pub digest: Need<false>,
    #[serde(default)]
    pub keys: Vec<String>,
}

/// What a rule says of a source that cannot carry a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Unsigned {
    #[default]
    Refused,
    /// Allowed where the Plugin pins the digest.
    Pinned,
    Allowed,
}

/// Whether something must be there; what holds if nothing is said stands in the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Need<const DEFAULT: bool> {
    Required,
    Optional,
}

impl<const DEFAULT: bool> Default for Need<DEFAULT> {
    fn default() -> Self {
        if DEFAULT { Self::Required } else { Self::Optional }
    }
}

/// A valid policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    rules: Vec<Rule>,
}

/// One rule, with its keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    namespaces: Vec<NamespacePattern>,
    repositories: Vec<RepositoryPattern>,
    files: Unsigned,
    config_maps: Unsigned,
    digest: Need<false>,
    /// Any one of them suffices; none: a signature is not asked for.
    pub keys: Vec<Key>,
}

/// Why a file is no policy. Each sentence names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("{0}")]
    Yaml(String),
    #[error("it is `{found}`, not a policy: begin it with `apiVersion: {API_VERSION}` and `kind: {KIND}`")]
    Kind { found: String },
    #[error("keys[{name}]: {error}")]
    Key { name: String, error: KeyError },
    #[error("keys[{name}]: {message}")]
    KeyPlace { name: String, message: String },
    #[error("keys: the name `{0}` is given twice: each key has a name of its own")]
    KeyTwice(String),
    #[error("rules[{rule}].namespaces is empty: name a namespace, or write `\"*\"` for all that no other rule names")]
    NoNamespaces { rule: usize },
    #[error("rules[{rule}].namespaces: rules[{other}] speaks of `{pattern}` already: keep it in one of the two")]
    NamespaceTwice { rule: usize, other: usize, pattern: NamespacePattern },
    #[error("rules[{rule}].keys: there is no key `{key}`: add it to `keys`, or correct the name")]
    NoSuchKey { rule: usize, key: String },
    #[error(
        "rules[{rule}].keys is empty, but a signature is required: name keys, or write `signature: optional` to load what nobody signed"
    )]
    NoKeys { rule: usize },
    #[error("rules[{rule}].keys is of no use with `signature: optional`: require the signature, or leave the keys out")]
    UselessKeys { rule: usize },
}

impl Text {
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        // The parser's sentence goes on with a drawing of the place.
        let unreadable =
            |error: serde_norway::Error| PolicyError::Yaml(error.to_string().lines().next().unwrap_or_default().to_owned());
        let parsed: Self = serde_norway::from_str(text).map_err(unreadable)?;
        if (parsed.api_version.as_str(), parsed.kind.as_str()) != (API_VERSION, KIND) {
            return Err(PolicyError::Kind { found: format!("{} {}", parsed.api_version, parsed.kind) });
        }
        Ok(parsed)
    }

    /// `pem` finds the PEM text of a key that stands in a file.
    pub fn into_policy(self, pem: impl Fn(&str) -> Result<String, String>) -> Result<Policy, PolicyError> {
        let mut keys: Vec<Key> = Vec::new();
        for key in self.keys {
            if keys.iter().any(|known| *known.name == *key.name) {
                return Err(PolicyError::KeyTwice(key.name));
            }
            keys.push(read(key, &pem)?);
        }
        let rules = self.rules.into_iter().enumerate().map(|(index, rule)| Rule::new(index, rule, &keys));
        let rules: Vec<Rule> = rules.collect::<Result<_, _>>()?;
        each_pattern_once(&rules)?;
        Ok(Policy { rules })
    }
}

fn read(key: KeyText, pem: impl Fn(&str) -> Result<String, String>) -> Result<Key, PolicyError> {
    let KeyText { name, pem: inline, file } = key;
    let misplaced = |message: &str| PolicyError::KeyPlace { name: name.clone(), message: message.to_owned() };
    let text = match (inline, file) {
        (Some(inline), None) => inline,
        (None, Some(file)) => pem(&file).map_err(|message| misplaced(&message))?,
        _ => return Err(misplaced("give it either `pem`, the public key itself, or `file`, where it stands")),
    };
    Key::from_pem(&name, &text).map_err(|error| PolicyError::Key { name, error })
}

fn each_pattern_once(rules: &[Rule]) -> Result<(), PolicyError> {
    let patterns = rules.iter().enumerate().flat_map(|(index, rule)| rule.namespaces.iter().map(move |pattern| (index, pattern)));
    let patterns: Vec<(usize, &NamespacePattern)> = patterns.collect();
    for (at, (rule, pattern)) in patterns.iter().enumerate() {
        if let Some((other, _)) = patterns.iter().take(at).find(|(_, earlier)| earlier == pattern) {
            return Err(PolicyError::NamespaceTwice { rule: *rule, other: *other, pattern: (*pattern).clone() });
        }
    }
    Ok(())
}

impl Rule {
    fn new(index: usize, rule: RuleText, known: &[Key]) -> Result<Self, PolicyError> {
        if rule.namespaces.is_empty() {
            return Err(PolicyError::NoNamespaces { rule: index });
        }
        let find = |name: String| match known.iter().find(|key| *key.name == *name) {
            Some(key) => Ok(key.clone()),
            None => Err(PolicyError::NoSuchKey { rule: index, key: name }),
        };
        let keys: Vec<Key> = rule.keys.into_iter().map(find).collect::<Result<_, _>>()?;
        match rule.signature {
            // Whoever allows no repository has nothing that could be signed.
            Need::Required if keys.is_empty() && !rule.repositories.is_empty() => {
                return Err(PolicyError::NoKeys { rule: index });
            }
            Need::Optional if !keys.is_empty() => return Err(PolicyError::UselessKeys { rule: index }),
            _ => {}
        }
        let RuleText { namespaces, repositories, files, config_maps, digest, .. } = rule;
        Ok(Self { namespaces, repositories, files, config_maps, digest, keys })
    }

    /// Everything but the signature.
    pub fn allows(&self, subject: &Subject) -> Result<(), TrustError> {
        let is_allowed = match &subject.origin {
            Origin::Image(image) => self.repositories.iter().any(|known| known.matches(&image.registry, &image.repository)),
            Origin::File(_) => self.files != Unsigned::Refused,
            Origin::ConfigMap(_) => self.config_maps != Unsigned::Refused,
        };
        if !is_allowed {
            return Err(match &subject.origin {
                Origin::Image(image) => TrustError::RegistryNotAllowed {
                    image: image.to_string(),
                    rule: self.to_string(),
                    allowed: list(self.repositories.iter().map(ToString::to_string)),
                },
                origin => TrustError::SourceNotAllowed { origin: origin.to_string(), rule: self.to_string() },
            });
        }
        let must_pin = self.digest == Need::Required
            || match subject.origin {
                Origin::Image(_) => false,
                Origin::File(_) => self.files == Unsigned::Pinned,
                Origin::ConfigMap(_) => self.config_maps == Unsigned::Pinned,
            };
        match subject.pin {
            Pin::Loose if must_pin => Err(TrustError::DigestRequired { rule: self.to_string(), digest: subject.component }),
            _ => Ok(()),
        }
    }

    /// The better of the patterns that match, if one does.
    fn weight(&self, namespace: &str) -> Option<(bool, usize)> {
        self.namespaces.iter().filter(|pattern| pattern.matches(namespace)).map(NamespacePattern::weight).max()
    }
}

impl Policy {
    /// The rule with the most exact pattern for this namespace; of equals, the first one.
    pub fn rule(&self, namespace: &str) -> Result<&Rule, TrustError> {
        let weighed = self.rules.iter().enumerate().filter_map(|(index, rule)| Some((rule.weight(namespace)?, index, rule)));
        let best = weighed.max_by_key(|(weight, index, _)| (*weight, std::cmp::Reverse(*index)));
        best.map(|(_, _, rule)| rule).ok_or_else(|| TrustError::NoMatchingRule { namespace: namespace.to_owned() })
    }

    pub fn rules(&self) -> usize {
        self.rules.len()
    }
}

/// For people: the namespaces that it speaks of.
impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&list(self.namespaces.iter().map(ToString::to_string)))
    }
}

/// Some of them, in backticks.
pub fn list(items: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN: usize = 5;
    let more = items.len().saturating_sub(SHOWN);
    let shown: Vec<String> = items.take(SHOWN).map(|item| format!("`{item}`")).collect();
    match (shown.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => shown.join(", "),
        (false, more) => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests;
