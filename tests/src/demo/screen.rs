//! What the demo prints: a line per step, and what it waits for whenever that takes more than a few seconds.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// How long nothing needs to be said.
const PATIENCE: Duration = Duration::from_secs(3);
/// Nor again for so long.
const AGAIN: Duration = Duration::from_secs(10);
const WIDTH: usize = 120;
/// Where the details begin.
const INDENT: usize = 54;

/// What came of a step.
pub struct Line {
    pub what: String,
    pub took: Duration,
    pub detail: String,
}

#[derive(Clone, Copy)]
pub struct Screen {
    /// Then there are colours, and what is waited for does not stay.
    terminal: bool,
}

impl Screen {
    /// `terminal` says so for a standard output that is only a pipe to one.
    pub fn new(terminal: bool) -> Self {
        Self { terminal: terminal || io::stdout().is_terminal() }
    }

    pub fn is_terminal(self) -> bool {
        self.terminal
    }

    pub fn say(self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{}{text}", if self.terminal { "\r\x1b[K" } else { "" })?;
        out.flush()
    }

    pub fn title(self, text: &str) -> io::Result<()> {
        if self.terminal { self.say(&format!("\x1b[1m{text}\x1b[0m\n")) } else { self.say(&format!("{text}\n")) }
    }

    /// `  1 Hello created → ConfigMap      12 ms   detail`
    pub fn line(self, number: &str, line: &Line) -> io::Result<()> {
        let Line { what, took, detail } = line;
        let took = format!("{:>8}", duration(*took));
        let took = if self.terminal { format!("\x1b[32m{took}\x1b[0m") } else { took };
        let detail = wrap(detail).join(&format!("\n{}", " ".repeat(INDENT)));
        self.say(&format!("{number:>2} {what:<40} {took}  {detail}"))
    }

    /// Something that goes by.
    pub fn note(self, text: &str) {
        // Nobody may be listening any more; that is no reason to fail.
        let _ = match self.terminal {
            true => write!(io::stdout(), "\r\x1b[K   … {text}").and_then(|()| io::stdout().flush()),
            false => writeln!(io::stdout(), "   … {text}"),
        };
    }

    /// Says what is being waited for, every few seconds, until it is there.
    pub async fn patience<T>(self, doing: &str, work: impl Future<Output = T>) -> T {
        futures::pin_mut!(work);
        let (began, mut pause) = (Instant::now(), PATIENCE);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(pause) => self.note(&format!("{doing} ({} s)", began.elapsed().as_secs())),
            }
            pause = AGAIN;
        }
    }
}

/// `8.3 ms`, `120 ms`, `3.4 s`
pub fn duration(span: Duration) -> String {
    match span.as_secs_f64() * 1000.0 {
        ms if ms < 9.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1000.0),
    }
}

/// Words into lines that fit beside the steps.
fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + word.chars().count() < WIDTH - INDENT => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
