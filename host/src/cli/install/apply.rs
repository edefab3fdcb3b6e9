//! The objects of an installation on their way into the cluster: looked for, asked about, applied.

use std::time::Duration;

use anyhow::{anyhow, bail};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::package::{Part, Piece};
use crate::{
    cli::{
        cluster::{Cluster, Meant, called, kind_of, text_at, told},
        made, output,
        progress::{LOOK, Progress},
    },
    identity::{ApiError, Resource},
    names::Kind,
};

/// How long an API server may take to serve a kind that it was told of.
const ESTABLISHED: Duration = Duration::from_secs(30);

/// What was found where each object is to be.
pub struct Found {
    places: Vec<Place>,
}

struct Place {
    piece: Piece,
    resource: std::sync::Arc<Resource>,
    /// What is there.
    before: Option<Value>,
}

/// What became of an object, or would.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Applied {
    kind: String,
    namespace: String,
    name: String,
    result: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Created,
    Changed,
    Unchanged,
    /// It is there, and this user may not change it.
    Kept,
}

impl Found {
    /// Refuses what somebody else has made. `whose`: namespace and name of the Plugin.
    pub async fn look(cluster: &Cluster, pieces: Vec<Piece>, whose: (&str, &str)) -> anyhow::Result<Self> {
        let mut places = Vec::new();
        for mut piece in pieces {
            let (object, kind) = (&piece.object, kind_of(&piece.object));
            let resource = cluster.resource(&kind).await?;
            let (namespace, name) = (text_at(object, "/metadata/namespace"), text_at(object, "/metadata/name"));
            let before = match cluster.get(&resource, namespace, name).await {
                Ok(before) => before,
                // Of a CRD, that it is served says enough.
                Err(error) if error.is_forbidden() && piece.part == Part::Crd => None,
                Err(error) => return Err(told(object, &error, "")),
            };
            match (&before, piece.part) {
                (None, Part::Crd) => made::label_crd(&mut piece.object),
                (Some(before), Part::Crd) if made::is_ours(before) => made::label_crd(&mut piece.object),
                (Some(before), part) if part != Part::Crd && !made::is_for(before, whose.0, whose.1) => {
                    return Err(foreign(&piece, before, whose.1));
                }
                _ => {}
            }
            places.push(Place { piece, resource, before });
        }
        Ok(Self { places })
    }

    /// Has the API server say what it would do with each object.
    pub async fn try_all(&self, cluster: &Cluster) -> anyhow::Result<Vec<Applied>> {
        let mut all = Vec::new();
        for place in &self.places {
            match place.apply(cluster, Meant::DryRun).await {
                // The role that it binds is not there yet.
                Err(error) if error.is_not_found() && place.piece.object.get("roleRef").is_some() && !no_namespace(&error) => {
                    all.push(place.applied(Outcome::Created));
                }
                Err(error) => return Err(place.refused(&error)),
                Ok(outcome) => all.push(place.applied(outcome)),
            }
        }
        Ok(all)
    }

    pub async fn apply_all(&self, cluster: &Cluster, progress: &mut Progress) -> anyhow::Result<Vec<Applied>> {
        let mut all = Vec::new();
        for place in &self.places {
            progress.waits(&called(&place.piece.object));
            let outcome = match place.apply(cluster, Meant::Really).await {
                Ok(outcome) => outcome,
                Err(error) => return Err(half_done(&all, &place.refused(&error))),
            };
            all.push(place.applied(outcome));
            if place.piece.part == Part::Crd {
                established(cluster, place).await.map_err(|error| half_done(&all, &error))?;
            }
        }
        progress.clear();
        Ok(all)
    }
}

impl Place {
    async fn apply(&self, cluster: &Cluster, meant: Meant) -> Result<Outcome, ApiError> {
        let after = match cluster.apply(&self.resource, &self.piece.object, meant).await {
            Err(error) if error.is_forbidden() && self.piece.part == Part::Crd && self.is_served(cluster).await => {
                return Ok(Outcome::Kept);
            }
            after => after?,
        };
        let version = |object: &Value| text_at(object, "/metadata/resourceVersion").to_owned();
        Ok(match &self.before {
            None => Outcome::Created,
            Some(before) if version(before) == version(&after) => Outcome::Unchanged,
            Some(_) => Outcome::Changed,
        })
    }

    fn applied(&self, result: Outcome) -> Applied {
        let text = |pointer: &str| text_at(&self.piece.object, pointer).to_owned();
        Applied { kind: text("/kind"), namespace: text("/metadata/namespace"), name: text("/metadata/name"), result }
    }

    fn refused(&self, error: &ApiError) -> anyhow::Error {
        if no_namespace(error) {
            let namespace = text_at(&self.piece.object, "/metadata/namespace");
            return anyhow!("there is no namespace {namespace}: create it with `kubectl create namespace {namespace}`");
        }
        let way_out = match self.piece.part {
            Part::Crd => "have the CRD updated by whoever applied it, or leave it as it is with --no-crds",
            Part::Rights => "have them give it up, or leave account and rights as they are with --no-rbac",
            Part::Component | Part::Plugin => "have them give it up, or install under another --name",
        };
        let said = told(&self.piece.object, error, way_out);
        if error.is_forbidden() && self.piece.part == Part::Rights {
            return anyhow!("{said}; have an admin apply what `reef inspect FILE --rbac` prints, and install with --no-rbac");
        }
        said
    }

    /// Whether the API server knows all versions of this CRD's kind.
    async fn is_served(&self, cluster: &Cluster) -> bool {
        for kind in kinds(&self.piece.object) {
            if cluster.resource(&kind).await.is_err() {
                return false;
            }
        }
        true
    }
}

fn no_namespace(error: &ApiError) -> bool {
    matches!(error, ApiError::Refused(status) if status.code == 404 && status.message.starts_with("namespaces \""))
}

/// The kinds that a CRD has served.
pub fn kinds(crd: &Value) -> Vec<Kind> {
    let versions = crd.pointer("/spec/versions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let served = versions.iter().filter(|version| version.get("served").and_then(Value::as_bool) != Some(false));
    let (group, kind) = (text_at(crd, "/spec/group"), text_at(crd, "/spec/names/kind"));
    served.map(|version| Kind::new(group, text_at(version, "/name"), kind)).collect()
}

/// Waits until the API server serves what the CRD defines.
async fn established(cluster: &Cluster, place: &Place) -> anyhow::Result<()> {
    let until = Instant::now() + ESTABLISHED;
    while !place.is_served(cluster).await {
        if Instant::now() > until {
            let crd = text_at(&place.piece.object, "/metadata/name");
            bail!("the API server does not serve the kinds of {crd}: `kubectl describe crd {crd}` says why");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

fn foreign(piece: &Piece, there: &Value, plugin: &str) -> anyhow::Error {
    let way_out = match piece.part {
        Part::Rights => "leave account and rights as they are with --no-rbac, choose another --service-account",
        Part::Crd | Part::Component | Part::Plugin => "choose another --name",
    };
    let whose = if made::is_ours(there) { "for another Plugin" } else { "by somebody else" };
    anyhow!(
        "{} is there already, and was made {whose}, not by an installation of `{plugin}`: {way_out}, or delete it first",
        called(&piece.object)
    )
}

fn half_done(applied: &[Applied], error: &anyhow::Error) -> anyhow::Error {
    let done: Vec<String> = applied.iter().filter(|one| one.is_new()).map(Applied::called).collect();
    match done.as_slice() {
        [] => anyhow!("{error}; nothing was changed"),
        done => anyhow!(
            "{error}; applied before that, and left: {}. Install again when it is mended, or take it away with `reef uninstall`",
            done.join(", ")
        ),
    }
}

impl Applied {
    fn called(&self) -> String {
        let place = if self.namespace.is_empty() { String::new() } else { format!("{}/", self.namespace) };
        format!("{} {place}{}", self.kind, self.name)
    }

    fn is_new(&self) -> bool {
        matches!(self.result, Outcome::Created | Outcome::Changed)
    }
}

/// A line for each.
pub fn said(applied: &[Applied]) -> String {
    let word = |outcome| match outcome {
        Outcome::Created => "created",
        Outcome::Changed => "changed",
        Outcome::Unchanged => "unchanged",
        Outcome::Kept => "kept (you may not change it)",
    };
    let rows: Vec<_> = applied.iter().map(|one| (one.called(), word(one.result))).collect();
    output::rows(&rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn applied(name: &str, result: Outcome) -> Applied {
        Applied { kind: "Role".into(), namespace: "a".into(), name: name.into(), result }
    }

    #[test]
    fn who_breaks_off_says_what_is_left() {
        let all = [applied("x", Outcome::Created), applied("y", Outcome::Unchanged), applied("z", Outcome::Changed)];
        let said = half_done(&all, &anyhow!("no")).to_string();
        assert!(said.starts_with("no; applied before that, and left: Role a/x, Role a/z."), "{said}");
        assert_eq!(half_done(&all[1..2], &anyhow!("no")).to_string(), "no; nothing was changed");
    }

    #[test]
    fn the_kinds_of_a_crd_are_its_served_versions() {
        let crd = json!({ "spec": { "group": "a.dev", "names": { "kind": "Box" },
            "versions": [{ "name": "v1", "served": true }, { "name": "v0", "served": false }] } });
        assert_eq!(kinds(&crd), ["a.dev/v1/Box".parse().unwrap()]);
    }
}
