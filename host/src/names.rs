//! The names of things: newtypes for kinds, keys, accounts, digests, versions and amounts.
//!
//! Everything here is plain data that parses and prints itself. It knows neither Kubernetes' client nor Wasm.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize, de};
use sha2::{Digest as _, Sha256};

/// What does not parse, and how it should look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{value}` is not valid: {fix}")]
pub struct Malformed {
    pub what: &'static str,
    pub value: String,
    pub fix: &'static str,
}

impl Malformed {
    pub(crate) fn new(what: &'static str, value: &str, fix: &'static str) -> Self {
        Self { what, value: value.chars().take(120).collect(), fix }
    }
}

/// A name as of a namespace or a plugin: a DNS label.
pub fn label(text: &str) -> Result<String, Malformed> {
    let fix = "use 1 to 63 of a-z, 0-9 and `-`, with a letter or digit at both ends, as in `my-plugin`";
    if is_label(text) && text.len() <= 63 { Ok(text.to_owned()) } else { Err(Malformed::new("name", text, fix)) }
}

/// A name as of most other objects: DNS labels with dots in between.
pub fn subdomain(text: &str) -> Result<String, Malformed> {
    let fix = "use 1 to 253 of a-z, 0-9, `-` and `.`, with a letter or digit at both ends, as in `my-plugin`";
    let fits = text.split('.').all(is_label) && text.len() <= 253;
    if fits { Ok(text.to_owned()) } else { Err(Malformed::new("name", text, fix)) }
}

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Group, version and kind, written `apps/v1/Deployment`, or `v1/ConfigMap` in the core group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    pub group: Arc<str>,
    pub version: Arc<str>,
    pub kind: Arc<str>,
}

impl Kind {
    pub fn new(group: &str, version: &str, kind: &str) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// From `apps/v1` and `Deployment`.
    pub fn from_api_version(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self::new(group, version, kind)
    }

    /// `apps/v1`, or `v1` in the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The same kind whatever the version: that is what an owner reference means.
    pub fn same_group_kind(&self, other: &Kind) -> bool {
        self.group == other.group && self.kind == other.kind
    }

    pub fn is_secret(&self) -> bool {
        self.group.is_empty() && &*self.kind == "Secret"
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.api_version(), self.kind)
    }
}

impl FromStr for Kind {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let fix = "write group/version/Kind, or version/Kind in the core group, as in `apps/v1/Deployment` or `v1/ConfigMap`";
        let parts: Vec<&str> = text.split('/').collect();
        let (group, version, kind) = match parts.as_slice() {
            [version, kind] => ("", *version, *kind),
            [group, version, kind] if !group.is_empty() => (*group, *version, *kind),
            _ => return Err(Malformed::new("kind", text, fix)),
        };
        let lower = |s: &str| s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-');
        let version_ok = version.starts_with('v') && version.len() > 1 && lower(version);
        let kind_ok = kind.starts_with(|c: char| c.is_ascii_uppercase()) && kind.bytes().all(|b| b.is_ascii_alphanumeric());
        if lower(group) && version_ok && kind_ok {
            Ok(Self::new(group, version, kind))
        } else {
            Err(Malformed::new("kind", text, fix))
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

/// Which Kubernetes cluster. One so far, but part of every key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cluster(Arc<str>);

impl Cluster {
    /// The cluster that the host's own kubeconfig names.
    pub fn local() -> Self {
        Self("local".into())
    }
}

/// Kind, namespace and name of one object; the namespace is empty for a cluster-scoped one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    pub kind: Kind,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectId {
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// Namespace and name of a `Plugin` resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PluginId {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl PluginId {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PluginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One unit of work: this plugin, this object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub plugin: PluginId,
    pub cluster: Cluster,
    pub object: ObjectId,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for plugin {}", self.object, self.plugin)
    }
}

/// A ServiceAccount.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Account {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The sha256 of some bytes, written `sha256:` and 64 lowercase hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 64 hex digits alone, as in file names.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// `sha256:` and the first twelve digits, for people.
    pub fn short(&self) -> String {
        self.to_string().chars().take(19).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let fail = || Malformed::new("digest", text, "write `sha256:` and 64 lowercase hex digits");
        let digits = text.strip_prefix("sha256:").filter(|d| !d.bytes().any(|b| b.is_ascii_uppercase())).ok_or_else(fail)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| fail())?;
        Ok(Self(bytes))
    }
}

/// An amount of memory in bytes, written as Kubernetes quantities are: `32Mi`, `64M`, `1Gi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory(pub u64);

impl FromStr for Memory {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let fail = || Malformed::new("memory", text, "write a whole number of bytes with Ki, Mi, Gi, k, M or G, as in `32Mi`");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor: u64 = match unit {
            "" => 1,
            "k" => 1000,
            "M" => 1000 * 1000,
            "G" => 1000 * 1000 * 1000,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            _ => return Err(fail()),
        };
        number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).map(Self).ok_or_else(fail)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "Gi"), (20, "Mi"), (10, "Ki")] {
            if self.0 >> shift > 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// A length of time, written `500ms`, `10s`, `5m` or `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let fail = || Malformed::new("duration", text, "write a whole number with ms, s, m or h, as in `500ms` or `10s`");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 60 * 60 * 1000,
            _ => return Err(fail()),
        };
        let millis = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(fail)?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        for (factor, unit) in [(60 * 60 * 1000, "h"), (60 * 1000, "m"), (1000, "s")] {
            if millis > 0 && millis.is_multiple_of(factor) {
                return write!(f, "{}{unit}", millis / factor);
            }
        }
        write!(f, "{millis}ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_print_as_they_parse() {
        for text in ["v1/ConfigMap", "apps/v1/Deployment", "demo.reef.dev/v1alpha1/Hello"] {
            assert_eq!(text.parse::<Kind>().unwrap().to_string(), text);
        }
        for text in ["ConfigMap", "v1/configmap", "/v1/ConfigMap", "apps/1/Deployment", "a/b/c/d", ""] {
            assert!(text.parse::<Kind>().is_err(), "{text} must not parse");
        }
    }

    #[test]
    fn names_are_dns_labels_some_of_them_with_dots() {
        for text in ["a", "my-plugin", "1"] {
            assert!(label(text).is_ok() && subdomain(text).is_ok(), "{text}");
        }
        for text in ["", "-a", "a-", "A", "a_b", "a b", &"a".repeat(254)] {
            assert!(label(text).is_err() && subdomain(text).is_err(), "{text}");
        }
        assert!(subdomain("a.b").is_ok() && label("a.b").is_err() && subdomain("a..b").is_err());
        assert!(label(&"a".repeat(64)).is_err());
    }

    #[test]
    fn amounts_print_as_they_parse() {
        for text in ["32Mi", "1Gi", "7", "500Ki"] {
            assert_eq!(text.parse::<Memory>().unwrap().to_string(), text);
        }
        for text in ["500ms", "10s", "5m", "2h", "0ms"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert!("10".parse::<Span>().is_err());
        assert!("99999999999999999999Gi".parse::<Memory>().is_err());
        assert!("-1Mi".parse::<Memory>().is_err());
    }

    #[test]
    fn a_digest_prints_as_it_parses_and_nothing_else_parses() {
        let digest = Digest::of(b"reef");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!(digest.hex().parse::<Digest>().is_err());
        assert!(digest.to_string().to_uppercase().parse::<Digest>().is_err());
    }
}
