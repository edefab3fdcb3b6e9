//! The verb of a write with its options, as the published schema has them.
//!
//! Pure. What this host does not offer is refused with a sentence, never ignored.

use serde_json::{Map, Value};

use super::validate::parse_object;
use crate::{contract::manifest::Reconciles, names::Kind};

/// Each verb with its options.
const VERBS: [(&str, &[&str]); 5] = [
    ("own", &["keep"]),
    ("apply", &["force", "subresource"]),
    ("create", &["keep"]),
    ("patch", &["if-version", "subresource"]),
    ("delete", &["if-version", "propagation"]),
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// A child: applied, owned, repaired, pruned.
    Own(Fate),
    /// A shared object: applied beside others, never pruned.
    Apply { conflicts: Conflicts, subresource: Option<String> },
    /// Exists from now on, and is never changed.
    Create(Fate),
    /// Some fields of an object that is there.
    Patch { if_version: Option<String>, subresource: Option<String> },
    /// Gone.
    Delete { if_version: Option<String>, propagation: Propagation },
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

/// What becomes of the children of an object that is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

impl Propagation {
    const ALL: [Self; 3] = [Self::Background, Self::Foreground, Self::Orphan];

    /// As Kubernetes calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

impl Verb {
    pub fn parse(verb: &str, options: &str) -> Result<Self, String> {
        let options =
            if options.trim().is_empty() { Map::new() } else { parse_object(options).map_err(|e| format!("options {e}"))? };
        check_options(verb, &options)?;
        let fate = || Ok::<_, String>(if flag("keep", &options)? { Fate::Kept } else { Fate::Pruned });
        match verb {
            "own" => Ok(Self::Own(fate()?)),
            "create" => Ok(Self::Create(fate()?)),
            "apply" => Ok(Self::Apply {
                conflicts: if flag("force", &options)? { Conflicts::Forced } else { Conflicts::Refused },
                subresource: text("subresource", &options)?,
            }),
            "patch" => Ok(Self::Patch { if_version: version(&options)?, subresource: text("subresource", &options)? }),
            _ => Ok(Self::Delete { if_version: version(&options)?, propagation: propagation(&options)? }),
        }
    }

    /// Whether the object becomes a child, with an owner reference.
    pub fn is_child(&self) -> bool {
        matches!(self, Self::Own(Fate::Pruned) | Self::Create(Fate::Pruned))
    }

    /// Whether the object is marked as the plugin's.
    pub fn is_marked(&self) -> bool {
        self.is_child() || *self == Self::Own(Fate::Kept)
    }

    /// The part of the object that is written instead of the object itself.
    pub fn subresource(&self) -> Option<&str> {
        match self {
            Self::Apply { subresource, .. } | Self::Patch { subresource, .. } => subresource.as_deref(),
            _ => None,
        }
    }

    /// Whether the manifest says that such an object may be written.
    pub fn check_kind(&self, kind: &Kind, entry: &Reconciles) -> Result<(), String> {
        let (word, also) = if self.is_marked() { ("own", &[][..]) } else { ("write", &entry.writes[..]) };
        let named = || entry.owns.iter().chain(also);
        if named().any(|named| named == kind) {
            return Ok(());
        }
        match named().find(|named| named.same_group_kind(kind)) {
            Some(other) => Err(format!("its manifest {word}s {other}, another version: use the same in both places")),
            None => {
                let kept =
                    if *self == Self::Create(Fate::Pruned) { ", or say `.keep()` if it is to outlive the plan" } else { "" };
                Err(format!("its manifest does not {word} {kind}: add `{word}s: [\"{kind}\"]` to its `plugin!` line{kept}"))
            }
        }
    }
}

fn check_options(verb: &str, options: &Map<String, Value>) -> Result<(), String> {
    let Some((_, known)) = VERBS.iter().find(|(name, _)| *name == verb) else {
        return Err(format!("verb `{verb}` is unknown: use one of {}", VERBS.map(|(name, _)| name).join(", ")));
    };
    let Some(option) = options.keys().find(|option| !known.contains(&option.as_str())) else { return Ok(()) };
    let verbs: Vec<&str> = VERBS.iter().filter(|(_, has)| has.contains(&option.as_str())).map(|(name, _)| *name).collect();
    if verbs.is_empty() {
        return Err(format!("option `{option}` is unknown: verb `{verb}` has {}", known.join(", ")));
    }
    Err(format!("option `{option}` does not go with verb `{verb}` but with {}: leave it out", verbs.join(" and ")))
}

fn flag(name: &str, options: &Map<String, Value>) -> Result<bool, String> {
    match options.get(name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(format!("option `{name}` is `{other}`: write true or false")),
    }
}

fn text(name: &str, options: &Map<String, Value>) -> Result<Option<String>, String> {
    match options.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
        Some(other) => Err(format!("option `{name}` is `{other}`: write a string that is not empty, or leave it out")),
    }
}

fn version(options: &Map<String, Value>) -> Result<Option<String>, String> {
    let version = text("if-version", options)?;
    match version.as_deref().map(str::parse::<u64>) {
        Some(Err(_)) => Err(format!(
            "option `if-version` is `{}`: write metadata.resourceVersion of what was read",
            version.unwrap_or_default()
        )),
        _ => Ok(version),
    }
}

fn propagation(options: &Map<String, Value>) -> Result<Propagation, String> {
    let Some(said) = text("propagation", options)? else { return Ok(Propagation::Background) };
    let all = Propagation::ALL;
    all.into_iter()
        .find(|one| one.as_str() == said)
        .ok_or_else(|| format!("option `propagation` is `{said}`: write one of {}", all.map(Propagation::as_str).join(", ")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn apply() -> Verb {
        Verb::Apply { conflicts: Conflicts::Refused, subresource: None }
    }

    #[test]
    fn verbs_take_their_options_and_no_others() {
        assert_eq!(Verb::parse("own", ""), Ok(Verb::Own(Fate::Pruned)));
        assert_eq!(Verb::parse("own", r#"{"keep":true}"#), Ok(Verb::Own(Fate::Kept)));
        assert_eq!(Verb::parse("apply", "{}"), Ok(apply()));
        let forced = Verb::Apply { conflicts: Conflicts::Forced, subresource: Some("status".into()) };
        assert_eq!(Verb::parse("apply", r#"{"force":true,"subresource":"status"}"#), Ok(forced));
        assert_eq!(Verb::parse("create", r#"{"keep":true}"#), Ok(Verb::Create(Fate::Kept)));
        let patch = Verb::Patch { if_version: Some("7".into()), subresource: None };
        assert_eq!(Verb::parse("patch", r#"{"if-version":"7"}"#), Ok(patch));
        let delete = |propagation| Ok(Verb::Delete { if_version: None, propagation });
        assert_eq!(Verb::parse("delete", "{}"), delete(Propagation::Background));
        assert_eq!(Verb::parse("delete", r#"{"propagation":"Orphan"}"#), delete(Propagation::Orphan));
    }

    #[test]
    fn what_is_wrong_with_a_verb_or_an_option_is_named() {
        let said = |verb: &str, options: &str| Verb::parse(verb, options).unwrap_err();
        assert!(said("adopt", "{}").contains("verb `adopt` is unknown: use one of own, apply"));
        assert_eq!(
            said("own", r#"{"if-version":"7"}"#),
            "option `if-version` does not go with verb `own` but with patch and delete: leave it out"
        );
        assert!(said("own", r#"{"kep":true}"#).contains("option `kep` is unknown: verb `own` has keep"));
        assert!(said("apply", r#"{"force":1}"#).contains("write true or false"));
        assert!(said("patch", r#"{"if-version":7}"#).contains("write a string"));
        assert!(said("patch", r#"{"if-version":"new"}"#).contains("resourceVersion of what was read"));
        assert!(said("delete", r#"{"propagation":"None"}"#).contains("one of Background, Foreground, Orphan"));
    }

    #[test]
    fn the_manifest_says_what_is_owned_and_what_else_is_written() {
        let entry = br#"{"for":"demo.reef.dev/v1/Hello","owns":["v1/ConfigMap"],"writes":["v1/Service"]}"#;
        let entry: Reconciles = serde_json::from_slice(entry).unwrap();
        let check = |verb: Verb, kind: &str| verb.check_kind(&kind.parse().unwrap(), &entry);
        let delete = || Verb::Delete { if_version: None, propagation: Propagation::Background };
        assert_eq!(check(Verb::Own(Fate::Pruned), "v1/ConfigMap"), Ok(()));
        assert_eq!(check(apply(), "v1/ConfigMap"), Ok(()));
        assert_eq!(check(apply(), "v1/Service"), Ok(()));
        assert_eq!(check(delete(), "v1/Service"), Ok(()));
        assert_eq!(check(Verb::Create(Fate::Kept), "v1/Service"), Ok(()));
        assert!(check(Verb::Create(Fate::Pruned), "v1/Service").unwrap_err().contains("say `.keep()`"));
        for fate in [Fate::Pruned, Fate::Kept] {
            let said = check(Verb::Own(fate), "v1/Service").unwrap_err();
            assert!(said.ends_with("add `owns: [\"v1/Service\"]` to its `plugin!` line"), "{said}");
        }
        for verb in [apply(), delete()] {
            assert!(check(verb, "v1/Pod").unwrap_err().ends_with("add `writes: [\"v1/Pod\"]` to its `plugin!` line"));
        }
    }

    #[test]
    fn the_published_schema_has_the_same_verbs_and_options() {
        let schema: Value = serde_json::from_str(include_str!("../../../wit/options.schema.json")).unwrap();
        let definitions = schema["$defs"].as_object().unwrap().values();
        let published: BTreeSet<(String, BTreeSet<String>)> = definitions
            .filter_map(|definition| {
                let options = definition["properties"]["options"]["properties"].as_object()?.keys().cloned().collect();
                Some((definition["properties"]["verb"]["const"].as_str()?.to_owned(), options))
            })
            .collect();
        let ours = VERBS.map(|(verb, options)| (verb.to_owned(), options.iter().map(ToString::to_string).collect()));
        assert_eq!(published, BTreeSet::from(ours));
        let propagation = serde_json::from_value::<Vec<String>>(schema["$defs"]["propagation"]["enum"].clone()).unwrap();
        assert_eq!(propagation, Propagation::ALL.map(Propagation::as_str));
    }
}
