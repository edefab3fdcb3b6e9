//! The verb of a write with its options, as the published schema has them.
//!
//! Pure. What this host does not offer is refused with a sentence, never ignored.

use serde_json::{Map, Value};

use super::validate::parse_object;
use crate::{contract::manifest::Reconciles, names::Kind};

const VERBS: [&str; 5] = ["own", "apply", "create", "patch", "delete"];
const OPTIONS: [&str; 5] = ["keep", "force", "if-version", "subresource", "propagation"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// A child: applied, owned, repaired, pruned.
    Own,
    /// A shared object: applied beside others, never pruned.
    Apply(Conflicts),
    /// Exists from now on, and is never changed.
    Create(Fate),
}

/// What happens where another manager has a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflicts {
    Refused,
    Forced,
}

/// What becomes of an object that a later plan no longer has, or whose owner goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Pruned,
    Kept,
}

impl Verb {
    pub fn parse(verb: &str, options: &str) -> Result<Self, String> {
        let options =
            if options.trim().is_empty() { Map::new() } else { parse_object(options).map_err(|e| format!("options {e}"))? };
        match verb {
            "own" => none_but(&[], verb, &options).map(|()| Self::Own),
            "apply" => {
                none_but(&["force"], verb, &options)?;
                Ok(Self::Apply(if flag("force", &options)? { Conflicts::Forced } else { Conflicts::Refused }))
            }
            "create" => {
                none_but(&["keep"], verb, &options)?;
                Ok(Self::Create(if flag("keep", &options)? { Fate::Kept } else { Fate::Pruned }))
            }
            verb if VERBS.contains(&verb) => Err(format!("verb `{verb}` is not offered by this host yet")),
            verb => Err(format!("verb `{verb}` is unknown: use one of {}", VERBS.join(", "))),
        }
    }

    /// Whether the object becomes a child, with owner reference and mark.
    pub fn is_child(self) -> bool {
        matches!(self, Self::Own | Self::Create(Fate::Pruned))
    }

    /// Whether the manifest says that such an object may be written.
    pub fn check_kind(self, kind: &Kind, entry: &Reconciles) -> Result<(), String> {
        let (word, also) = if self.is_child() { ("own", &[][..]) } else { ("write", &entry.writes[..]) };
        let named = || entry.owns.iter().chain(also);
        if named().any(|named| named == kind) {
            return Ok(());
        }
        match named().find(|named| named.same_group_kind(kind)) {
            Some(other) => Err(format!("its manifest {word}s {other}, another version: use the same in both places")),
            None => {
                let kept =
                    if self == Self::Create(Fate::Pruned) { ", or say `.keep()` if it is to outlive the plan" } else { "" };
                Err(format!("its manifest does not {word} {kind}: add `{word}s: [\"{kind}\"]` to its `plugin!` line{kept}"))
            }
        }
    }
}

fn none_but(known: &[&str], verb: &str, options: &Map<String, Value>) -> Result<(), String> {
    match options.keys().find(|option| !known.contains(&option.as_str())) {
        None => Ok(()),
        Some(option) if OPTIONS.contains(&option.as_str()) => {
            Err(format!("option `{option}` of verb `{verb}` is not offered by this host: leave it out"))
        }
        Some(option) => Err(format!("option `{option}` is unknown: the options are {}", OPTIONS.join(", "))),
    }
}

fn flag(name: &str, options: &Map<String, Value>) -> Result<bool, String> {
    match options.get(name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(format!("option `{name}` is `{other}`: write true or false")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn verbs_and_options_that_are_not_offered_are_named() {
        assert_eq!(Verb::parse("own", ""), Ok(Verb::Own));
        assert_eq!(Verb::parse("apply", "{}"), Ok(Verb::Apply(Conflicts::Refused)));
        assert_eq!(Verb::parse("apply", r#"{"force":true}"#), Ok(Verb::Apply(Conflicts::Forced)));
        assert_eq!(Verb::parse("create", r#"{"keep":true}"#), Ok(Verb::Create(Fate::Kept)));
        let said = |verb: &str, options: &str| Verb::parse(verb, options).unwrap_err();
        assert_eq!(said("patch", "{}"), "verb `patch` is not offered by this host yet");
        assert!(said("adopt", "{}").contains("verb `adopt` is unknown"));
        assert!(said("own", r#"{"keep":true}"#).contains("option `keep` of verb `own` is not offered"));
        assert!(said("own", r#"{"kep":true}"#).contains("option `kep` is unknown"));
        assert!(said("apply", r#"{"force":1}"#).contains("write true or false"));
    }

    #[test]
    fn the_manifest_says_what_is_owned_and_what_else_is_written() {
        let entry = br#"{"for":"demo.reef.dev/v1/Hello","owns":["v1/ConfigMap"],"writes":["v1/Service"]}"#;
        let entry: Reconciles = serde_json::from_slice(entry).unwrap();
        let check = |verb: Verb, kind: &str| verb.check_kind(&kind.parse().unwrap(), &entry);
        let apply = Verb::Apply(Conflicts::Refused);
        assert_eq!(check(Verb::Own, "v1/ConfigMap"), Ok(()));
        assert_eq!(check(apply, "v1/ConfigMap"), Ok(()));
        assert_eq!(check(apply, "v1/Service"), Ok(()));
        assert_eq!(check(Verb::Create(Fate::Kept), "v1/Service"), Ok(()));
        assert!(check(Verb::Create(Fate::Pruned), "v1/Service").unwrap_err().contains("say `.keep()`"));
        assert!(check(Verb::Own, "v1/Service").unwrap_err().ends_with("add `owns: [\"v1/Service\"]` to its `plugin!` line"));
        assert!(check(apply, "v1/Pod").unwrap_err().ends_with("add `writes: [\"v1/Pod\"]` to its `plugin!` line"));
    }

    #[test]
    fn the_published_schema_has_the_same_verbs_and_options() {
        let schema: Value = serde_json::from_str(include_str!("../../../wit/options.schema.json")).unwrap();
        let (mut verbs, mut options) = (BTreeSet::new(), BTreeSet::new());
        for definition in schema["$defs"].as_object().unwrap().values() {
            if let Some(verb) = definition["properties"]["verb"]["const"].as_str() {
                verbs.insert(verb);
                options.extend(definition["properties"]["options"]["properties"].as_object().unwrap().keys().map(String::as_str));
            }
        }
        assert_eq!(verbs, BTreeSet::from(VERBS));
        assert_eq!(options, BTreeSet::from(OPTIONS));
    }
}
