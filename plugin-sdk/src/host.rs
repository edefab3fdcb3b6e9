//! The other side: bindings to the host's imports and to the one export, and the translation into the words of this crate.
//!
//! Only a component has it. Whatever is not called vanishes from the component's imports: keep it free of dynamic dispatch.

use std::{cell::Cell, time::Duration};

use bindings::{
    exports::reef::plugin::reconciler::{Failure, Plan, Report, Request, Write},
    reef::plugin::{reads, types},
};

use crate::{
    context::{Context, parse_kind},
    entry::Entry,
    error::{Error, Result},
    plan::Finished,
    report,
};

#[allow(missing_docs, clippy::all, clippy::restriction, unsafe_code, reason = "generated")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "plugin",
        pub_export_macro: true,
        default_bindings_module: "plugin_sdk::__private::bindings",
    });
}

/// One call, from the export of the component.
pub fn enter(request: Request, entry: Entry) -> Result<Plan, Failure> {
    crate::log::install();
    let Request { key, object, settings, now, seed, attempt, .. } = request;
    let cx = Context { reads: Reads, namespace: key.namespace, settings, now, attempt, random: Cell::new(seed) };
    let kind = format!("{}/{}", key.api_version, key.kind);
    entry(&kind, object, &cx).and_then(|plan| plan.finish()).map(plan).map_err(failure)
}

/// The backend of a component's [`Context`].
#[derive(Debug)]
pub(crate) struct Reads;

impl Reads {
    pub fn get(&self, kind: &str, namespace: &str, name: &str, fields: &[&str]) -> Result<Option<String>> {
        let (api_version, kind) = parse_kind(kind)?;
        let object = types::ObjectRef {
            api_version: api_version.into(),
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
        };
        reads::get(&object, &owned(fields)).map_err(refused)
    }

    pub fn list(&self, kind: &str, namespace: &str, selector: &str, fields: &[&str]) -> Result<Vec<String>> {
        let (api_version, kind) = parse_kind(kind)?;
        let namespaces = if namespace.is_empty() { Vec::new() } else { vec![namespace.into()] };
        let (api_version, kind, selector) = (api_version.into(), kind.into(), selector.into());
        reads::list(&reads::Query { api_version, kind, namespaces, selector, fields: owned(fields) }).map_err(refused)
    }
}

fn owned(fields: &[&str]) -> Vec<String> {
    fields.iter().map(|field| (*field).into()).collect()
}

/// A right can be lent and a kind installed at any time, and the host wakes who asked; so both are no reason to give up.
fn refused(error: reads::Error) -> Error {
    match error {
        reads::Error::Forbidden(message) => Error::retry(message).reason("Forbidden"),
        reads::Error::UnknownKind(message) => Error::wait(message).reason("UnknownKind").after(Duration::from_secs(30)),
        reads::Error::TooLarge(message) => Error::terminal(message).reason("TooLarge"),
        reads::Error::Other(message) => Error::retry(message).reason("ReadFailed"),
    }
}

fn plan(plan: Finished) -> Plan {
    let write = |write: crate::plan::Write| {
        let options = write.options();
        Write { verb: write.verb.into(), object: write.object, options }
    };
    Plan {
        writes: plan.writes.into_iter().map(write).collect(),
        report: reported(plan.report),
        after: plan.after.map(millis),
        partial: plan.pending.is_some(),
        done: plan.done,
        extensions: plan.pending.map_or_else(none, |pending| extensions(&pending)),
    }
}

fn extensions(pending: &str) -> String {
    serde_json::to_string(&serde_json::json!({ "pending": pending })).unwrap_or_else(|_| none())
}

fn failure(error: Error) -> Failure {
    let failure = error.into_failure();
    Failure {
        kind: failure.class.as_str().into(),
        reason: failure.reason,
        message: failure.message,
        after: failure.after.map(millis),
        report: reported(failure.report),
        extensions: none(),
    }
}

fn reported(report: report::Report) -> Report {
    let condition = |condition: report::Condition| types::Condition {
        name: condition.name,
        status: match condition.status {
            "True" => types::Truth::Yes,
            "False" => types::Truth::No,
            _ => types::Truth::Unknown,
        },
        reason: condition.reason,
        message: condition.message,
    };
    let event =
        |event: report::Event| types::Event { severity: event.severity.into(), reason: event.reason, message: event.message };
    Report {
        status: report.status,
        conditions: report.conditions.into_iter().map(condition).collect(),
        events: report.events.into_iter().map(event).collect(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn none() -> String {
    "{}".into()
}
