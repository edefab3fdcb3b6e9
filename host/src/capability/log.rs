//! The import `log`, and a guest's stdout and stderr: lines in the host's log, with plugin and object beside them.
//!
//! ```wit
//! log: func(level: level, message: string, fields: list<tuple<string, string>>);
//! ```
//!
//! A reconcile has a budget of lines and bytes. What is beyond it is dropped, and one line says how much that was.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use super::bindings::reef::plugin::{log as wit, types};
use crate::names::{ObjectId, PluginId};

/// Lines of one reconcile.
pub const MAX_LINES: u32 = 100;
/// Bytes of one line; a longer one is cut.
pub const MAX_LINE: usize = 2048;
/// Bytes of all fields of one line.
const MAX_FIELD_BYTES: usize = 1024;
/// The last lines of stderr, kept to explain a trap.
const LAST_WORDS: usize = 4;

/// What one reconcile says. Clones share it.
#[derive(Clone)]
pub struct Journal(Arc<Mutex<Inner>>);

struct Inner {
    plugin: PluginId,
    object: ObjectId,
    lines: u32,
    dropped: u64,
    panic: Option<String>,
    last_words: VecDeque<String>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Which of the two standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Journal {
    pub fn new(plugin: PluginId, object: ObjectId) -> Self {
        let (last_words, stdout, stderr) = (VecDeque::new(), Vec::new(), Vec::new());
        Self(Arc::new(Mutex::new(Inner { plugin, object, lines: 0, dropped: 0, panic: None, last_words, stdout, stderr })))
    }

    /// One line of the import.
    pub fn line(&self, level: wit::Level, message: &str, fields: &[(String, String)]) {
        let mut inner = self.0.lock();
        if level == wit::Level::Error && fields.iter().any(|(name, value)| name == "panic" && value == "true") {
            inner.panic = Some(clean(message, MAX_LINE));
        }
        inner.emit(level, message, fields);
    }

    /// Bytes that a guest wrote to a standard stream: whole lines are logged, the rest waits for its end.
    pub fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut inner = self.0.lock();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let (piece, ended) = piece.strip_suffix(b"\n").map_or((piece, false), |line| (line, true));
            let room = MAX_LINE + 1;
            let partial = inner.partial(stream);
            partial.extend_from_slice(piece.get(..room.saturating_sub(partial.len()).min(piece.len())).unwrap_or_default());
            if ended {
                inner.end_line(stream);
            }
        }
    }

    /// The reconcile is over: what was begun is logged, and how much was dropped.
    pub fn finish(&self) {
        let mut inner = self.0.lock();
        inner.end_line(Stream::Stdout);
        inner.end_line(Stream::Stderr);
        let dropped = std::mem::take(&mut inner.dropped);
        if dropped > 0 {
            let message = format!("{dropped} more lines were dropped: one reconcile may log {MAX_LINES}");
            inner.print(wit::Level::Warn, &message, "");
        }
    }

    /// The message of a panic, if the guest logged one.
    pub fn panic(&self) -> Option<String> {
        self.0.lock().panic.clone()
    }

    /// The last lines on stderr, without what a Rust runtime always adds.
    pub fn last_words(&self) -> Option<String> {
        let inner = self.0.lock();
        let said: Vec<&str> =
            inner.last_words.iter().map(String::as_str).filter(|line| !line.is_empty() && !line.starts_with("note: ")).collect();
        (!said.is_empty()).then(|| said.join(" "))
    }
}

impl Inner {
    fn partial(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn end_line(&mut self, stream: Stream) {
        let bytes = std::mem::take(self.partial(stream));
        if bytes.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(&bytes);
        if stream == Stream::Stderr {
            if self.last_words.len() == LAST_WORDS {
                self.last_words.pop_front();
            }
            self.last_words.push_back(clean(&text, MAX_LINE));
        }
        let level = if stream == Stream::Stderr { wit::Level::Warn } else { wit::Level::Info };
        let name = if stream == Stream::Stderr { "stderr" } else { "stdout" };
        self.emit(level, &text, &[("stream".to_owned(), name.to_owned())]);
    }

    fn emit(&mut self, level: wit::Level, message: &str, fields: &[(String, String)]) {
        if self.lines >= MAX_LINES {
            self.dropped += 1;
            return;
        }
        self.lines += 1;
        self.print(level, &clean(message, MAX_LINE), &written(fields));
    }

    fn print(&self, level: wit::Level, message: &str, fields: &str) {
        macro_rules! print {
            ($($name:ident => $level:ident),*) => {
                match level {
                    $(wit::Level::$name => tracing::event!(
                        target: "reef::plugin", tracing::Level::$level,
                        plugin = %self.plugin, object = %self.object, fields, "{message}"
                    ),)*
                }
            };
        }
        print!(Error => ERROR, Warn => WARN, Info => INFO, Debug => DEBUG, Trace => TRACE);
    }
}

/// Fields as `name=value`, values in quotes; cut where they become too much.
fn written(fields: &[(String, String)]) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        let separator = if text.is_empty() { "" } else { " " };
        let field = format!("{separator}{}={:?}", clean(name, 64), cut(value, MAX_FIELD_BYTES).0);
        if text.len() + field.len() > MAX_FIELD_BYTES {
            text.push('…');
            break;
        }
        text.push_str(&field);
    }
    text
}

/// Text that stays on its line: control characters are escaped, and what is too long is cut and says so.
fn clean(text: &str, most: usize) -> String {
    let (kept, is_cut) = cut(text, most);
    let mut out = String::with_capacity(kept.len());
    for c in kept.chars() {
        if c.is_control() {
            out.extend(c.escape_debug());
        } else {
            out.push(c);
        }
    }
    if is_cut {
        out.push('…');
    }
    out
}

/// At most so many bytes of the text, ending between two characters, and whether anything is missing.
fn cut(text: &str, most: usize) -> (&str, bool) {
    let end = text.floor_char_boundary(most);
    (text.get(..end).unwrap_or_default(), end < text.len())
}

impl types::Host for Journal {}

impl wit::Host for Journal {
    fn log(&mut self, level: wit::Level, message: String, fields: Vec<(String, String)>) -> wasmtime::Result<()> {
        self.line(level, &message, &fields);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::names::Kind;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What the host's log holds after `say`, line by line.
    fn logged(say: impl FnOnce(&Journal)) -> (Journal, Vec<String>) {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .with_max_level(tracing::Level::TRACE)
            .finish();
        let journal =
            Journal::new(PluginId::new("team-a", "hello"), ObjectId::new(Kind::new("", "v1", "ConfigMap"), "team-a", "x"));
        tracing::subscriber::with_default(subscriber, || {
            say(&journal);
            journal.finish();
        });
        let text = String::from_utf8(written.0.lock().clone()).unwrap();
        (journal, text.lines().map(str::to_owned).collect())
    }

    #[test]
    fn a_line_names_plugin_and_object_and_carries_its_fields() {
        let (_, lines) = logged(|journal| journal.line(wit::Level::Debug, "hi", &[("n".into(), "a b".into())]));
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        for part in ["DEBUG", "reef::plugin", "hi", "team-a/hello", "v1/ConfigMap team-a/x", "n=", "a b"] {
            assert!(line.contains(part), "{part} is missing in {line}");
        }
    }

    /// Promises: S1
    /// Breaks it: a log without a limit.
    #[test]
    fn a_flood_is_cut_and_counted() {
        let (_, lines) = logged(|journal| {
            for _ in 0..MAX_LINES + 900 {
                journal.line(wit::Level::Info, &"x".repeat(100_000), &[("k".into(), "v".repeat(100_000))]);
            }
        });
        assert_eq!(lines.len(), MAX_LINES as usize + 1);
        assert!(lines.iter().all(|line| line.len() < MAX_LINE + MAX_FIELD_BYTES + 500));
        assert!(lines.last().unwrap().contains("900 more lines were dropped"), "{lines:?}");
    }

    #[test]
    fn a_message_cannot_fake_a_second_line() {
        let (_, lines) = logged(|journal| journal.line(wit::Level::Info, "one\ntwo\x1b[31m", &[("a\nb".into(), "c\nd".into())]));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(!lines[0].contains('\x1b'));
    }

    #[test]
    fn streams_are_logged_line_by_line() {
        let (journal, lines) = logged(|journal| {
            journal.write(Stream::Stderr, b"thread 'main' panicked at src/lib.rs:1:2:\nno ");
            journal.write(Stream::Stdout, b"fine");
            journal.write(Stream::Stderr, b"luck\nnote: run with RUST_BACKTRACE=1\n\n");
            journal.write(Stream::Stdout, &[b'x'; 100_000]);
        });
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines[1].contains("no luck") && lines[3].contains("finexxx"));
        assert_eq!(journal.last_words().unwrap(), "thread 'main' panicked at src/lib.rs:1:2: no luck");
    }

    #[test]
    fn the_message_of_a_panic_is_kept() {
        let (journal, _) = logged(|journal| {
            journal.line(wit::Level::Error, "before", &[]);
            journal.line(wit::Level::Error, "went wrong", &[("panic".into(), "true".into())]);
            journal.line(wit::Level::Error, "after", &[]);
        });
        assert_eq!(journal.panic().unwrap(), "went wrong");
    }
}
