//! Whether a report may be written: status, conditions and events of a plan or a failure.
//!
//! Pure. Checked together with the plan's writes, before anything is written.

use serde_json::{Map, Value};

use super::{
    json::drop_nulls,
    schema::Conditions,
    validate::{Invalid, parse_object},
};
use crate::{
    contract::{Condition, Event, Report},
    identity::Resource,
    names::Kind,
};

const MAX_STATUS: usize = 1_048_576;
const MAX_CONDITIONS: usize = 50;
const MAX_EVENTS: usize = 20;
/// What `metav1.Condition` allows.
const MAX_NAME: usize = 316;
const MAX_REASON: usize = 1024;
const MAX_MESSAGE: usize = 32_768;

/// A report as it may be written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reported {
    /// The fields of `.status` that the plugin decides. `None`: the status stays as it is.
    pub status: Option<Map<String, Value>>,
    pub conditions: Vec<Condition>,
    pub events: Vec<Event>,
}

/// Where a report goes.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub kind: &'a Kind,
    /// Whether the kind has a status subresource.
    pub status: bool,
    /// `None` where it need not be known: the report has no conditions.
    pub conditions: Option<&'a Conditions>,
    /// The name of the host's own condition.
    pub host_condition: &'a str,
}

impl<'a> Place<'a> {
    pub fn new(resource: &'a Resource, conditions: Option<&'a Conditions>, host_condition: &'a str) -> Self {
        Self { kind: &resource.kind, status: resource.status, conditions, host_condition }
    }
}

pub fn check(report: &Report, place: Place<'_>) -> Result<Reported, Invalid> {
    Ok(Reported {
        status: status(report, place).map_err(Invalid)?,
        conditions: conditions(report, place).map_err(Invalid)?,
        events: events(report).map_err(Invalid)?,
    })
}

fn status(report: &Report, place: Place<'_>) -> Result<Option<Map<String, Value>>, String> {
    let Some(text) = &report.status else { return Ok(None) };
    if text.len() > MAX_STATUS {
        return Err(format!("the status has {} bytes: at most {MAX_STATUS} are written", text.len()));
    }
    let mut status = parse_object(text).map_err(|said| format!("the status {said}"))?;
    if !place.status {
        return Err(format!("there is a status, and {} has no status subresource: leave it out", place.kind));
    }
    if status.contains_key("conditions") {
        return Err("status.conditions is set: say each condition with `condition(..)`, they are merged by name".into());
    }
    status.retain(|_, value| !value.is_null());
    status.values_mut().for_each(drop_nulls);
    Ok(Some(status))
}

fn conditions(report: &Report, place: Place<'_>) -> Result<Vec<Condition>, String> {
    let said = &report.conditions;
    if said.len() > MAX_CONDITIONS {
        return Err(format!("there are {} conditions: at most {MAX_CONDITIONS} are written", said.len()));
    }
    if let Some(first) = said.first()
        && (!place.status || place.conditions == Some(&Conditions::Absent))
    {
        return Err(format!(
            "there is a condition `{}`, and {} has no conditions in its status: leave it out, or add \
             `status.conditions` to the schema",
            first.name, place.kind
        ));
    }
    for (i, condition) in said.iter().enumerate() {
        check_condition(condition, place.host_condition)?;
        if said.iter().take(i).any(|other| other.name == condition.name) {
            return Err(format!("condition `{}` is said twice: say it once", condition.name));
        }
    }
    Ok(said.clone())
}

fn check_condition(condition: &Condition, host_condition: &str) -> Result<(), String> {
    let Condition { name, reason, message, .. } = condition;
    if name == host_condition {
        return Err(format!(
            "condition `{name}` is the host's own: choose another name, or rename the host's with `condition` in the manifest"
        ));
    }
    if !is_condition_name(name) {
        return Err(format!("condition `{name}`: use letters, digits, `-`, `_` and `.`, as in `Ready`"));
    }
    if !reason.is_empty() && !is_reason(reason) {
        return Err(format!("condition `{name}` has the reason `{reason}`: use one word of letters and digits, as in `NotReady`"));
    }
    if message.len() > MAX_MESSAGE {
        return Err(format!("condition `{name}` has a message of {} bytes: at most {MAX_MESSAGE} are written", message.len()));
    }
    Ok(())
}

fn is_condition_name(name: &str) -> bool {
    let word = |text: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let edge = |c: char| c.is_ascii_alphanumeric();
        !text.is_empty() && text.bytes().all(inner) && text.starts_with(edge) && text.ends_with(edge)
    };
    name.len() <= MAX_NAME && name.split('/').count() <= 2 && name.split('/').all(word)
}

/// As `metav1.Condition` wants it.
pub fn is_reason(reason: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b',' | b':');
    reason.len() <= MAX_REASON
        && reason.starts_with(|c: char| c.is_ascii_alphabetic())
        && reason.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && reason.bytes().all(inner)
}

fn events(report: &Report) -> Result<Vec<Event>, String> {
    if report.events.len() > MAX_EVENTS {
        return Err(format!("there are {} events: at most {MAX_EVENTS} are written", report.events.len()));
    }
    for Event { severity, reason, .. } in &report.events {
        if !matches!(severity.as_str(), "Normal" | "Warning") {
            return Err(format!("event `{reason}` has the severity `{severity}`: use `Normal` or `Warning`"));
        }
        if reason.is_empty() || reason.len() > 128 {
            return Err(format!("an event has the reason `{reason}`: use one word of at most 128 characters, as in `Scaled`"));
        }
    }
    Ok(report.events.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Truth;

    fn place<'a>(kind: &'a Kind, conditions: &'a Conditions) -> Place<'a> {
        Place { kind, status: true, conditions: Some(conditions), host_condition: "Reconciled" }
    }

    fn condition(name: &str, reason: &str) -> Condition {
        Condition { name: name.into(), status: Truth::True, reason: reason.into(), message: String::new() }
    }

    fn with_status(status: &str) -> Report {
        Report { status: Some(status.into()), ..Report::default() }
    }

    fn with_conditions(conditions: &[Condition]) -> Report {
        Report { conditions: conditions.to_vec(), ..Report::default() }
    }

    fn with_event(severity: &str, reason: &str) -> Report {
        let event = Event { severity: severity.into(), reason: reason.into(), message: String::new() };
        Report { events: vec![event], ..Report::default() }
    }

    #[test]
    fn a_good_report_passes_without_its_nulls() {
        let kind = "demo.reef.dev/v1/Hello".parse().unwrap();
        let map = Conditions::Map(None);
        let mut report = with_status(r#"{"ready":true,"at":null,"in":{"x":null}}"#);
        report.conditions = vec![condition("Ready", ""), condition("example.com/Seen", "WasSeen")];
        let reported = check(&report, place(&kind, &map)).unwrap();
        assert_eq!(serde_json::to_string(&reported.status).unwrap(), r#"{"in":{},"ready":true}"#);
        assert_eq!(reported.conditions.len(), 2);
    }

    #[test]
    fn each_defect_is_named() {
        let kind: Kind = "demo.reef.dev/v1/Hello".parse().unwrap();
        let map = Conditions::Map(None);
        let said = |report: &Report| check(report, place(&kind, &map)).unwrap_err().0;
        assert!(said(&with_status("[]")).contains("the status is an array"));
        assert!(said(&with_status(r#"{"conditions":[]}"#)).contains("status.conditions is set"));
        assert!(said(&with_conditions(&[condition("Reconciled", "")])).contains("the host's own"));
        assert!(said(&with_conditions(&[condition("not good", "")])).contains("`not good`"));
        assert!(said(&with_conditions(&[condition("Ready", "no way")])).contains("`no way`"));
        assert!(said(&with_conditions(&[condition("A", ""), condition("A", "")])).contains("said twice"));
        assert!(said(&with_event("Info", "X")).contains("use `Normal` or `Warning`"));
        assert!(said(&with_event("Normal", "")).contains("one word"));
    }

    #[test]
    fn where_there_is_no_place_for_them_status_and_conditions_are_refused() {
        let kind: Kind = "v1/ConfigMap".parse().unwrap();
        let absent = Conditions::Absent;
        let none = Place { status: false, ..place(&kind, &absent) };
        assert!(check(&with_status("{}"), none).unwrap_err().0.contains("no status subresource"));
        assert!(check(&with_conditions(&[condition("Ready", "")]), place(&kind, &absent)).unwrap_err().0.contains("no conditions"));
        assert!(check(&Report::default(), none).is_ok());
    }
}
