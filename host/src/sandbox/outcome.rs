//! How a call ended, in words: plan, failure, or why the guest was stopped.
//!
//! Everything that Wasmtime can say is translated here, once. It knows nothing of queues and retries.

use std::time::Duration;

use wasmtime::{PoolConcurrencyLimitError, Trap};
use wasmtime_wasi::I32Exit;

use super::{
    call::{ANSWER_BYTES, Usage},
    engine::MAX_STACK,
    limits::Exceeded,
};
use crate::{
    capability::{
        bindings::{
            exports::reef::plugin::reconciler as wit,
            reef::plugin::types::{Event as WitEvent, Truth as WitTruth},
        },
        log::Journal,
        reads::CacheIncomplete,
    },
    contract::{Condition, Event, Failure, FailureKind, Plan, Query, Read, Report, Truth, Write},
    names::{Kind, Memory},
};

/// What came of one call.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub result: Result<Plan, Ended>,
    /// The dependencies of the key from now on, also when there is no plan.
    pub reads: Vec<Read>,
    pub lists: Vec<Query>,
    /// Some read got no answer: nothing may be pruned.
    pub read_failed: bool,
    pub usage: Usage,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// The plugin says so itself.
    Failure(Failure),
    /// It was stopped. The reason is CamelCase, for conditions; the message names limit, value and field, or the panic.
    Trapped { reason: &'static str, message: String },
    /// It read from a cache that is not complete yet: repeated later, and not counted.
    NotSynced(Kind),
}

/// What the guest answered.
pub fn answered(answer: Result<wit::Plan, wit::Failure>) -> Result<Plan, Ended> {
    match answer {
        Ok(answered) => Ok(plan(answered)),
        Err(answered) => Err(failure(answered)),
    }
}

/// Why the guest did not answer.
pub fn stopped(error: &wasmtime::Error, journal: &Journal) -> Ended {
    if let Some(CacheIncomplete(kind)) = error.downcast_ref() {
        return Ended::NotSynced(kind.clone());
    }
    if let Some(exceeded) = error.downcast_ref::<Exceeded>() {
        return trapped(limit(exceeded), exceeded.to_string());
    }
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return trapped("Exited", format!("it called exit({code}); return a plan or an error instead"));
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return trapped("HostBusy", "this host has no room for another instance; it is tried again later".to_owned());
    }
    match error.downcast_ref::<Trap>() {
        Some(trap) => trap_ended(*trap, journal),
        None => garbage(error),
    }
}

/// The deadline passed while the guest waited, or while it ran.
pub fn late(deadline: crate::names::Span, waiting: Option<String>) -> Ended {
    let cause = waiting.map_or_else(String::new, |object| format!(", waiting for {object}"));
    let fix = "raise spec.limits.deadline or do less in one reconcile";
    trapped("DeadlineExceeded", format!("it was not done within spec.limits.deadline = {deadline}{cause}; {fix}"))
}

fn trapped(reason: &'static str, message: String) -> Ended {
    Ended::Trapped { reason, message }
}

fn limit(exceeded: &Exceeded) -> &'static str {
    match exceeded {
        Exceeded::Cpu(_) => "CPULimitExceeded",
        Exceeded::Memory { .. } | Exceeded::Growth { .. } => "MemoryLimitExceeded",
        Exceeded::Table { .. } => "TableLimitExceeded",
    }
}

fn trap_ended(trap: Trap, journal: &Journal) -> Ended {
    if let Some(message) = journal.panic() {
        return trapped("Panicked", message);
    }
    match trap {
        Trap::UnreachableCodeReached => match journal.last_words() {
            Some(said) => trapped("Panicked", said),
            None => trapped("Trapped", "it gave up (`unreachable`) without a message; look into the plugin's log".to_owned()),
        },
        Trap::StackOverflow => {
            let size = Memory(MAX_STACK as u64);
            trapped("StackOverflow", format!("its call stack of {size} is full; look for a recursion that does not end"))
        }
        Trap::MemoryOutOfBounds => trapped(
            "Trapped",
            "it reached outside of its memory; look for a recursion that does not end, or for unsafe code".to_owned(),
        ),
        Trap::StringOutOfBounds
        | Trap::ListOutOfBounds
        | Trap::InvalidDiscriminant
        | Trap::InvalidChar
        | Trap::UnalignedPointer => trapped("InvalidAnswer", format!("what it passed to the host is broken: {}", what(trap))),
        other => trapped("Trapped", format!("it trapped: {}", what(other))),
    }
}

fn what(trap: Trap) -> String {
    let text = trap.to_string();
    text.strip_prefix("wasm trap: ").unwrap_or(&text).to_owned()
}

/// Neither a limit nor a trap: what the guest passed to the host could not be read.
fn garbage(error: &wasmtime::Error) -> Ended {
    let text = format!("{error:#}");
    // Wasmtime keeps the type of this error to itself.
    if text.contains("fuel allocated for hostcalls") {
        let most = Memory(ANSWER_BYTES as u64);
        return trapped("AnswerTooLarge", format!("it passed more than {most} to the host at once; split the plan or log less"));
    }
    trapped("InvalidAnswer", format!("what it passed to the host is broken: {text}"))
}

fn plan(plan: wit::Plan) -> Plan {
    Plan {
        writes: plan.writes.into_iter().map(|w| Write { verb: w.verb, object: w.object, options: w.options }).collect(),
        report: report(plan.report),
        after: plan.after.map(Duration::from_millis),
        partial: plan.partial,
        done: plan.done,
        extensions: plan.extensions,
    }
}

fn failure(failure: wit::Failure) -> Ended {
    let kind = match failure.kind.as_str() {
        "retry" => FailureKind::Retry,
        "wait" => FailureKind::Wait,
        "terminal" => FailureKind::Terminal,
        other => {
            let shown: String = other.chars().take(40).flat_map(char::escape_debug).collect();
            let message = format!("its failure is of kind `{shown}`; `retry`, `wait` and `terminal` are known to this host");
            return trapped("InvalidAnswer", message);
        }
    };
    Ended::Failure(Failure {
        kind,
        reason: failure.reason,
        message: failure.message,
        after: failure.after.map(Duration::from_millis),
        report: report(failure.report),
    })
}

fn report(report: wit::Report) -> Report {
    Report {
        status: report.status,
        conditions: report.conditions.into_iter().map(condition).collect(),
        events: report.events.into_iter().map(event).collect(),
    }
}

fn condition(condition: wit::Condition) -> Condition {
    let status = match condition.status {
        WitTruth::Yes => Truth::True,
        WitTruth::No => Truth::False,
        WitTruth::Unknown => Truth::Unknown,
    };
    Condition { name: condition.name, status, reason: condition.reason, message: condition.message }
}

fn event(event: WitEvent) -> Event {
    Event { severity: event.severity, reason: event.reason, message: event.message }
}
