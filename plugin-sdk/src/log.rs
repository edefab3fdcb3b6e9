//! From `tracing`, and from a panic, to the host's log.
//!
//! `println!` needs nothing here: it goes to WASI's standard output, which the host reads as log lines too. Spans are not
//! kept: the host adds plugin, object and reconcile id to every line.

use std::{fmt, panic::PanicHookInfo};

use tracing::{Event, Level, Metadata, Subscriber, field, span};

use crate::host::bindings::reef::plugin::log;

/// Once per instance, before the author's code runs.
pub fn install() {
    std::panic::set_hook(Box::new(panicked));
    // Another one cannot be set before this; if it were, it would be the author's wish.
    let _ = tracing::subscriber::set_global_default(Bridge);
}

fn panicked(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("a panic without a message");
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    log::log(log::Level::Error, message, &[("panic".into(), "true".into()), ("location".into(), location)]);
}

struct Bridge;

impl Subscriber for Bridge {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        log::log(level(*event.metadata().level()), &line.message, &line.fields);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn level(level: Level) -> log::Level {
    match level {
        Level::ERROR => log::Level::Error,
        Level::WARN => log::Level::Warn,
        Level::INFO => log::Level::Info,
        Level::DEBUG => log::Level::Debug,
        Level::TRACE => log::Level::Trace,
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: Vec<(String, String)>,
}

impl field::Visit for Line {
    fn record_str(&mut self, field: &field::Field, value: &str) {
        match field.name() {
            "message" => self.message = value.into(),
            name => self.fields.push((name.into(), value.into())),
        }
    }

    fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
