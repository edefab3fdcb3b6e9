//! The name of an artifact: `registry/repository:tag@digest`, read as Docker and Kubernetes read it. Pure.
//!
//! What is meant is decided here once, so that what a policy allows, what a pull secret matches and what is fetched are
//! the same place.

use std::{fmt, str::FromStr};

use crate::names::{Digest, Malformed};

/// Where a name without a registry leads, as everywhere else.
const DOCKER: &str = "docker.io";
const LONGEST_TAG: usize = 128;
const LONGEST_REPOSITORY: usize = 255;

/// Which manifest of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Version {
    Tag(String),
    Digest(Digest),
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// An artifact in a registry. With both a tag and a digest, the digest decides and the tag is for people.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Host and port, as in `registry.example:5000`.
    pub registry: String,
    /// As in `team/hello`.
    pub repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    pub fn version(&self) -> Version {
        match (self.digest, &self.tag) {
            (Some(digest), _) => Version::Digest(digest),
            (None, Some(tag)) => Version::Tag(tag.clone()),
            (None, None) => Version::Tag("latest".into()),
        }
    }

    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The tag that was written, if one was.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The same repository, and exactly this manifest.
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// `registry/repository`: what pull secrets and policies match.
    pub fn place(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The host that serves it: Docker's registry does not live where it is called.
    pub fn host(&self) -> &str {
        if self.registry == DOCKER { "registry-1.docker.io" } else { &self.registry }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let fail = |fix| Malformed::new("image", text, fix);
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                let digest = digest.parse().map_err(|_| fail("behind `@` stands `sha256:` and 64 lowercase hex digits"))?;
                (name, Some(digest))
            }
            None => (text, None),
        };
        // A colon behind the last slash is a tag's; one before it is a port's.
        let (place, tag) = match name.rsplit_once(':') {
            Some((place, tag)) if !tag.contains('/') => (place, Some(tag)),
            _ => (name, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(fail("a tag is up to 128 of A-Z, a-z, 0-9, `_`, `.` and `-`, and begins with none of the last two"));
        }
        let (registry, repository) = split(place);
        if !is_host(&registry) {
            return Err(fail("before the first `/` stands the registry's host, as in `registry.example:5000/team/hello:1.2.0`"));
        }
        if repository.len() > LONGEST_REPOSITORY || !repository.split('/').all(is_component) {
            return Err(fail(
                "write registry, repository in lower case, and tag or digest, as in `registry.example/team/hello:1.2.0`",
            ));
        }
        Ok(Self { registry, repository, tag: tag.map(Into::into), digest })
    }
}

/// Docker's rule: the first part is a host if it looks like one.
fn split(place: &str) -> (String, String) {
    match place.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => {
            let host = host.to_ascii_lowercase();
            let host = if host == "index.docker.io" { DOCKER.into() } else { host };
            let rest = if host == DOCKER && !rest.contains('/') { format!("library/{rest}") } else { rest.into() };
            (host, rest)
        }
        Some(_) => (DOCKER.into(), place.into()),
        None => (DOCKER.into(), format!("library/{place}")),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let address = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let named = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.split('.').all(label),
    };
    named && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= LONGEST_TAG && tag.starts_with(word) && tag.chars().all(|c| word(c) || c == '.' || c == '-')
}

/// Lower case letters and digits, with single separators in between.
fn is_component(part: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(inner)
        && part.ends_with(inner)
        && part.chars().all(|c| inner(c) || "._-".contains(c))
        && !part.contains("..")
        && !part.contains("___")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_name_is_read_as_docker_reads_it() {
        for (text, registry, repository, version) in [
            ("registry.example/team/hello:1.2.0", "registry.example", "team/hello", "1.2.0"),
            ("localhost:5000/hello", "localhost:5000", "hello", "latest"),
            ("localhost/a:b", "localhost", "a", "b"),
            ("127.0.0.1:5000/a/b/c:x_y-z.1", "127.0.0.1:5000", "a/b/c", "x_y-z.1"),
            ("[::1]:5000/a", "[::1]:5000", "a", "latest"),
            ("REGISTRY.example/a", "registry.example", "a", "latest"),
            ("hello", "docker.io", "library/hello", "latest"),
            ("team/hello:2", "docker.io", "team/hello", "2"),
            ("index.docker.io/hello", "docker.io", "library/hello", "latest"),
        ] {
            let found: Reference = text.parse().unwrap();
            let version = Version::Tag(version.into());
            assert_eq!((&*found.registry, &*found.repository, found.version()), (registry, repository, version), "{text}");
        }
        assert_eq!("hello".parse::<Reference>().unwrap().host(), "registry-1.docker.io");
    }

    #[test]
    fn a_digest_decides_over_a_tag_and_stays_in_the_text() {
        let text = format!("registry.example/hello:1@{HEX}");
        let found: Reference = text.parse().unwrap();
        assert_eq!(found.version(), Version::Digest(HEX.parse().unwrap()));
        assert_eq!(found.to_string(), text);
        assert_eq!(found.pinned(HEX.parse().unwrap()).to_string(), format!("registry.example/hello@{HEX}"));
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_fix() {
        for (text, part) in [
            ("", "registry.example/team/hello"),
            ("https://registry.example/hello", "registry's host"),
            ("registry.example/Hello", "lower case"),
            ("registry.example/a/../b", "lower case"),
            ("registry.example/a//b", "lower case"),
            ("registry.example/a?x=1", "lower case"),
            ("registry.example:99999/a", "registry's host"),
            ("user@registry.example/a", "behind `@`"),
            ("registry.example/a:-x", "a tag is"),
            ("registry.example/a@sha256:12", "behind `@`"),
            ("registry.example/a@sha512:12", "behind `@`"),
            ("-registry.example/a", "registry's host"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
