//! Golden files: what a component is expected to answer to a case, as YAML that people read and review.

use std::{fs, path::Path};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use similar::TextDiff;

use crate::{
    cli::output,
    contract::{Condition, Event, Failure, FailureKind, Plan, Query, Read, Report, Write, manifest::Reconciles},
    names::Span,
    plan::{judge, judge_report},
    sandbox::{Ended, Outcome},
};

/// What came of a case, and what it depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Golden {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan: Option<Planned>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<Failed>,
    /// `v1/Secret namespace/name`, or `v1/Secret namespace?selector` for a list, and the fields that were kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    reads: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Planned {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    writes: Vec<Written>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<Said>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    events: Vec<Told>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    /// The plan is partial; what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pending: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    done: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Failed {
    kind: String,
    reason: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<Said>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    events: Vec<Told>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    verb: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    options: Value,
    object: Value,
}

/// A condition as it will stand in the status.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    #[serde(rename = "type")]
    name: String,
    status: String,
    reason: String,
    message: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    severity: String,
    reason: String,
    message: String,
}

impl Golden {
    /// The answer of one call. An error: a host would carry out none of it.
    pub fn of(outcome: Outcome, entry: &Reconciles, cleanup: bool, status: bool) -> Result<Self, String> {
        let reads = outcome.reads.iter().map(read_of).chain(outcome.lists.iter().map(list_of)).collect();
        let (plan, failure) = match outcome.result {
            Ok(plan) => {
                let pending = judge(&plan, entry, cleanup, status).map_err(|why| format!("its plan is invalid: {why}"))?;
                (Some(planned(plan, pending)?), None)
            }
            Err(Ended::Failure(failure)) => {
                judge_report(&failure.report, entry, status).map_err(|why| format!("its report is invalid: {why}"))?;
                (None, Some(failed(failure)?))
            }
            Err(Ended::Trapped { reason, message }) => return Err(format!("it was stopped: {reason}: {message}")),
            Err(Ended::NotSynced(kind)) => return Err(format!("{kind} could not be read")),
        };
        Ok(Self { plan, failure, reads })
    }

    /// Only what the call was shown can be deleted.
    pub fn deletes_what_was_read(&self, was_shown: impl Fn(&Value) -> bool) -> Result<(), String> {
        let writes = self.plan.iter().flat_map(|plan| &plan.writes);
        match writes.filter(|write| write.verb == "delete").find(|write| !was_shown(&write.object)) {
            None => Ok(()),
            Some(write) => {
                let text = |pointer: &str| write.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
                Err(format!(
                    "its plan is invalid: it deletes {}/{} `{}`, which this call has not read, and only what was read can be \
                     deleted: `get` it, or `list` it, and pass on what that returned",
                    text("/apiVersion"),
                    text("/kind"),
                    text("/metadata/name")
                ))
            }
        }
    }

    fn text(&self) -> anyhow::Result<String> {
        Ok(serde_norway::to_string(self)?)
    }
}

/// What is expected; none, if there is no such file.
pub fn read(path: &Path) -> anyhow::Result<Option<Golden>> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let golden = serde_norway::from_str(&text);
            golden.context("it is no golden file: mend it, or have `reef test --update` write it anew").map(Some)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("cannot read it"),
    }
}

pub fn write(path: &Path, golden: &Golden) -> anyhow::Result<()> {
    let text = format!("# What the component is expected to answer. `reef test --update` writes it.\n{}", golden.text()?);
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The lines that differ, with some around them.
pub fn difference(path: &str, expected: &Golden, answered: &Golden) -> anyhow::Result<String> {
    let (expected, answered) = (expected.text()?, answered.text()?);
    let diff = TextDiff::from_lines(expected.as_str(), answered.as_str());
    let lines = diff.unified_diff().context_radius(3).header(path, "what the component answers").to_string();
    let coloured = |line: &str| match line.as_bytes().first() {
        Some(b'+') => output::good(line),
        Some(b'-') => output::bad(line),
        _ => line.to_owned(),
    };
    Ok(lines.lines().map(|line| format!("  {}\n", coloured(line))).collect())
}

fn planned(plan: Plan, pending: Option<String>) -> Result<Planned, String> {
    Ok(Planned {
        writes: plan.writes.iter().map(written).collect::<Result<_, _>>()?,
        status: status(&plan.report)?,
        conditions: plan.report.conditions.iter().map(said).collect(),
        events: plan.report.events.iter().map(told).collect(),
        after: plan.after.map(|after| Span(after).to_string()),
        pending,
        done: plan.done,
    })
}

fn failed(failure: Failure) -> Result<Failed, String> {
    let kind = match failure.kind {
        FailureKind::Retry => "retry",
        FailureKind::Wait => "wait",
        FailureKind::Terminal => "terminal",
    };
    Ok(Failed {
        kind: kind.to_owned(),
        reason: failure.reason,
        message: failure.message,
        after: failure.after.map(|after| Span(after).to_string()),
        status: status(&failure.report)?,
        conditions: failure.report.conditions.iter().map(said).collect(),
        events: failure.report.events.iter().map(told).collect(),
    })
}

fn written(write: &Write) -> Result<Written, String> {
    let options = match write.options.trim() {
        "" | "{}" => Value::Null,
        options => json(options)?,
    };
    Ok(Written { verb: write.verb.clone(), options, object: json(&write.object)? })
}

fn status(report: &Report) -> Result<Option<Value>, String> {
    report.status.as_deref().map(json).transpose()
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("its answer is not JSON: {error}"))
}

fn said(condition: &Condition) -> Said {
    let Condition { name, status, reason, message } = condition.clone();
    Said { name, status: status.as_str().to_owned(), reason, message }
}

fn told(event: &Event) -> Told {
    let Event { severity, reason, message } = event.clone();
    Told { severity, reason, message }
}

fn read_of(read: &Read) -> String {
    format!("{}{}", read.object, kept(&read.fields))
}

fn list_of(query: &Query) -> String {
    format!("{} {}?{}{}", query.kind, query.namespace, query.selector, kept(&query.fields))
}

fn kept(fields: &[String]) -> String {
    fields.iter().map(|field| format!(" {field}")).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::{
        contract::Truth,
        names::{Kind, Memory, ObjectId},
        sandbox::Usage,
    };

    fn entry() -> Reconciles {
        serde_json::from_value(json!({"for": "example.dev/v1/Banner", "owns": ["v1/ConfigMap"], "writes": ["v1/Pod"]})).unwrap()
    }

    fn write(verb: &str, kind: &str) -> Write {
        let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "a"}}).to_string();
        Write { verb: verb.into(), object, options: r#"{"keep":true}"#.into() }
    }

    fn outcome(result: Result<Plan, Ended>) -> Outcome {
        let usage = Usage { cpu: Duration::ZERO, wall: Duration::ZERO, memory: Memory(0) };
        let reads = vec![Read { object: ObjectId::new(Kind::new("", "v1", "Pod"), "n", "p"), fields: vec!["/spec".into()] }];
        let kind = Kind::new("", "v1", "Pod");
        let lists = vec![Query { kind, namespace: "n".into(), selector: "app=web".parse().unwrap(), fields: Vec::new() }];
        Outcome { result, reads, lists, read_failed: false, usage }
    }

    fn golden(plan: Plan) -> Result<Golden, String> {
        Golden::of(outcome(Ok(plan)), &entry(), false, true)
    }

    #[test]
    fn an_answer_is_what_its_file_says() {
        let condition =
            Condition { name: "Ready".into(), status: Truth::True, reason: "Fine".into(), message: "all: is well".into() };
        let report = Report { status: Some(r#"{"n":1.5}"#.into()), conditions: vec![condition], events: Vec::new() };
        let plan = Plan {
            writes: vec![write("own", "ConfigMap")],
            report,
            after: Some(Duration::from_millis(1500)),
            partial: true,
            extensions: r#"{"pending":"soon"}"#.into(),
            ..Plan::default()
        };
        let answered = golden(plan).unwrap();
        let text = "plan:\n  writes:\n  - verb: own\n    options:\n      keep: true\n    object:\n      apiVersion: v1\n      \
                    kind: ConfigMap\n      metadata:\n        name: a\n  status:\n    n: 1.5\n  conditions:\n  - type: Ready\n    \
                    status: 'True'\n    reason: Fine\n    message: 'all: is well'\n  after: 1500ms\n  pending: soon\nreads:\n\
                    - v1/Pod n/p /spec\n- v1/Pod n?app in (web)\n";
        assert_eq!(answered.text().unwrap(), text);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.golden.yaml");
        assert_eq!(read(&path).unwrap(), None);
        super::write(&path, &answered).unwrap();
        assert_eq!(read(&path).unwrap(), Some(answered));
        fs::write(&path, "plam: {}").unwrap();
        assert!(format!("{:#}", read(&path).unwrap_err()).contains("--update"));
    }

    #[test]
    fn a_failure_is_an_answer_and_a_trap_is_none() {
        let failure = Failure {
            kind: FailureKind::Wait,
            reason: "Waiting".into(),
            message: "for it".into(),
            after: None,
            report: Report::default(),
        };
        let answered = Golden::of(outcome(Err(Ended::Failure(failure))), &entry(), false, true).unwrap();
        assert!(answered.text().unwrap().starts_with("failure:\n  kind: wait\n  reason: Waiting\n  message: for it\n"));
        let trap = Ended::Trapped { reason: "Panicked", message: "the vault is empty".into() };
        let said = Golden::of(outcome(Err(trap)), &entry(), false, true).unwrap_err();
        assert_eq!(said, "it was stopped: Panicked: the vault is empty");
    }

    #[test]
    fn what_a_host_would_not_carry_out_is_no_answer() {
        let said = golden(Plan { writes: vec![write("own", "Secret")], ..Plan::default() }).unwrap_err();
        assert!(said.contains("its plan is invalid: write 1 (v1/Secret `a`)"), "{said}");
        assert!(golden(Plan { done: true, ..Plan::default() }).unwrap_err().contains("only a cleanup may"));
        let report = Report { status: Some("[]".into()), ..Report::default() };
        assert!(golden(Plan { report, ..Plan::default() }).unwrap_err().contains("the status"));
        let delete = Write { options: "{}".into(), ..write("delete", "Pod") };
        let plan = golden(Plan { writes: vec![delete], ..Plan::default() }).unwrap();
        assert!(plan.deletes_what_was_read(|_| false).unwrap_err().contains("deletes v1/Pod `a`, which this call has not read"));
        assert_eq!(plan.deletes_what_was_read(|_| true), Ok(()));
    }

    #[test]
    fn a_difference_shows_both_sides() {
        let expected = golden(Plan::default()).unwrap();
        let answered = golden(Plan { after: Some(Duration::from_secs(5)), ..Plan::default() }).unwrap();
        let shown = difference("x.golden.yaml", &expected, &answered).unwrap();
        assert!(shown.contains("-plan: {}") && shown.contains("+  after: 5s"), "{shown}");
    }
}
