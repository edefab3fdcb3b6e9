//! Which names a rule speaks of: namespaces by name or glob, repositories by path. Pure, and exact: what a pattern
//! matches can be read off it without knowing a library.

use std::fmt;

use serde::{Deserialize, de};

use crate::names::Malformed;

/// A namespace, or a glob of them: `*` stands for any number of characters, also none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NamespacePattern(String);

impl NamespacePattern {
    pub fn matches(&self, namespace: &str) -> bool {
        glob(&self.0, namespace)
    }

    /// An exact name beats every glob; of globs the one with more characters that are none of `*`.
    pub fn weight(&self) -> (bool, usize) {
        (!self.0.contains('*'), self.0.chars().filter(|c| *c != '*').count())
    }
}

/// Repositories of a registry: `registry.example:5000/team/plugins/**`.
///
/// It is compared segment by segment. In a segment of the path `*` stands for any number of characters but `/`; a last segment
/// `**` stands for one segment or more. The registry is a name with its port, or `*.` and a domain, or `*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RepositoryPattern {
    registry: String,
    /// Without the last one if that is `**`.
    segments: Vec<String>,
    is_open: bool,
}

impl RepositoryPattern {
    /// `registry` with its port, where it has one; `repository` without tag or digest.
    pub fn matches(&self, registry: &str, repository: &str) -> bool {
        let path: Vec<&str> = repository.split('/').collect();
        let fits = if self.is_open { path.len() > self.segments.len() } else { path.len() == self.segments.len() };
        fits && self.is_of(registry) && self.segments.iter().zip(path).all(|(pattern, segment)| glob(pattern, segment))
    }

    fn is_of(&self, registry: &str) -> bool {
        match self.registry.strip_prefix('*') {
            None => self.registry.eq_ignore_ascii_case(registry),
            Some(domain) => {
                let end = registry.len().saturating_sub(domain.len());
                registry.len() > domain.len() && registry.get(end..).is_some_and(|end| end.eq_ignore_ascii_case(domain))
            }
        }
    }
}

/// `*` stands for any number of characters. The first piece begins the text, the last one ends it, and those between are
/// found in turn, each as early as it gets: that finds a way if there is one.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let mut pieces = rest.split('*').peekable();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return left.ends_with(piece);
        }
        let Some(at) = left.find(piece) else { return false };
        left = left.get(at + piece.len()..).unwrap_or_default();
    }
    true
}

impl TryFrom<String> for NamespacePattern {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '*';
        if text.is_empty() || text.len() > 63 || !text.chars().all(known) {
            let fix = "write a namespace, or a glob of a-z, 0-9, `-` and `*`, as in `team-a`, `team-*` or `*`";
            return Err(Malformed::new("namespace", &text, fix));
        }
        Ok(Self(text))
    }
}

impl TryFrom<String> for RepositoryPattern {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        let refuse = |fix| Err(Malformed::new("repository", &text, fix));
        let Some((registry, path)) = text.split_once('/') else {
            return refuse(
                "write registry and path, as in `registry.example/team/plugin`; all of a registry is `registry.example/**`",
            );
        };
        if text.contains("://") || text.contains('@') {
            return refuse("write it without scheme, user and digest, as in `registry.example/team/plugin`");
        }
        let mut segments: Vec<String> = path.split('/').map(str::to_owned).collect();
        let is_open = segments.last().is_some_and(|last| last == "**");
        if is_open {
            segments.pop();
        }
        if segments.iter().any(|segment| segment.contains("**")) {
            return refuse("`**` may only be its last segment, as in `registry.example/team/**`");
        }
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-*".contains(c);
        if segments.iter().any(|segment| segment.is_empty() || !segment.chars().all(known)) {
            return refuse("write each segment of the path with a-z, 0-9, `.`, `_`, `-` and `*`, and without a tag");
        }
        // A star anywhere else, as in `registry.example*`, would also match `registry.example.evil.example`.
        let host = registry.strip_prefix("*.").unwrap_or(if registry == "*" { "a" } else { registry });
        let is_host = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
        if host.is_empty() || !host.chars().all(is_host) {
            return refuse(
                "begin it with a registry and its port, with `*.` and a domain, or with `*`, as in `*.registry.example/**`",
            );
        }
        Ok(Self { registry: registry.to_owned(), segments, is_open })
    }
}

impl fmt::Display for NamespacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.is_open.then_some("**");
        let path: Vec<&str> = self.segments.iter().map(String::as_str).chain(open).collect();
        write!(f, "{}/{}", self.registry, path.join("/"))
    }
}

impl<'de> Deserialize<'de> for NamespacePattern {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.try_into().map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for RepositoryPattern {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.try_into().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(pattern: &str) -> RepositoryPattern {
        RepositoryPattern::try_from(pattern.to_owned()).unwrap()
    }

    #[test]
    fn a_namespace_is_named_or_globbed_and_the_more_exact_one_weighs_more() {
        let of = |text: &str| NamespacePattern::try_from(text.to_owned()).unwrap();
        for (pattern, yes, no) in [
            ("team-a", "team-a", "team-ab"),
            ("team-*", "team-", "team"),
            ("*-prod", "a-prod", "a-prod-b"),
            ("a*b*c", "a-b-b-c", "a-c-b"),
            ("a*ba", "aba", "ab"),
            ("*", "anything", ""),
        ] {
            assert!(of(pattern).matches(yes), "{pattern} {yes}");
            assert!(!of(pattern).matches(no) || no.is_empty(), "{pattern} {no}");
        }
        assert!(!of("a*a").matches("a"), "a star takes no character twice");
        assert!(of("a").weight() > of("aaaaaaa*").weight() && of("team-*").weight() > of("t*").weight());
        assert!(of("t*").weight() > of("*").weight());
        for wrong in ["", "Team", "a b", "a/b"] {
            assert!(NamespacePattern::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_repository_is_compared_segment_by_segment() {
        for (pattern, registry, path, matches) in [
            ("registry.example/team/plugin", "registry.example", "team/plugin", true),
            ("registry.example/team/plugin", "Registry.Example", "team/plugin", true),
            ("registry.example/team/plugin", "registry.example", "team/plugin-2", false),
            ("registry.example/team/plugin", "registry.example:5000", "team/plugin", false),
            ("registry.example:5000/team/plugin", "registry.example:5000", "team/plugin", true),
            ("registry.example/team/**", "registry.example", "team/a", true),
            ("registry.example/team/**", "registry.example", "team/a/b", true),
            ("registry.example/team/**", "registry.example", "team", false),
            ("registry.example/team/**", "registry.example", "team-b/a", false),
            ("registry.example/team/*", "registry.example", "team/a/b", false),
            ("registry.example/team-*/plugin", "registry.example", "team-a/plugin", true),
            ("registry.example/team-*/plugin", "registry.example", "team-a/b/plugin", false),
            ("registry.example/**", "registry.example", "a", true),
            ("*.example/**", "registry.example", "a", true),
            ("*.example/**", ".example", "a", false),
            ("*.example/**", "registry.example.evil", "a", false),
            ("*/team/**", "anywhere:1", "team/a", true),
        ] {
            assert_eq!(repository(pattern).matches(registry, path), matches, "{pattern} {registry}/{path}");
            assert_eq!(repository(pattern).to_string(), pattern);
        }
    }

    #[test]
    fn what_could_be_misread_is_refused_with_the_right_form() {
        for (wrong, part) in [
            ("registry.example", "`registry.example/**`"),
            ("https://registry.example/a", "without scheme"),
            ("registry.example/a@sha256:0", "and digest"),
            ("registry.example/a:1", "without a tag"),
            ("registry.example/**/a", "last segment"),
            ("registry.example*/a", "`*.` and a domain"),
            ("registry.example//a", "each segment"),
            ("registry.example/Team/a", "each segment"),
            ("*./a", "begin it with a registry"),
        ] {
            let error = RepositoryPattern::try_from(wrong.to_owned()).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(wrong), "{error}");
        }
    }
}
