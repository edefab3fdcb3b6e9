//! What a command is waiting for, on stderr: in one line that changes on a terminal, in a line for each change elsewhere.

use std::{
    io::{IsTerminal as _, Write as _},
    pin::pin,
    time::{Duration, Instant},
};

use super::output;

const TURNS: [&str; 4] = ["|", "/", "-", "\\"];

pub struct Progress {
    terminal: bool,
    turn: usize,
    /// What was said last.
    waiting: String,
}

impl Progress {
    pub fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), turn: 0, waiting: String::new() }
    }

    /// Something is done; this line stays.
    pub fn done(&mut self, text: &str) {
        self.clear();
        self.put(&format!("{text}\n"));
    }

    /// What is waited for just now.
    pub fn waits(&mut self, text: &str) {
        if self.terminal {
            self.turn = self.turn.wrapping_add(1);
            let turn = TURNS.get(self.turn % TURNS.len()).copied().unwrap_or_default();
            // One line, however wide the terminal is.
            let line: String = text.chars().take(110).collect();
            self.put(&format!("\r\x1b[2K{} {line}", output::bold(turn)));
        } else if self.waiting != text {
            self.put(&format!("waiting: {text}\n"));
        }
        text.clone_into(&mut self.waiting);
    }

    /// Nothing is waited for any more.
    pub fn clear(&mut self) {
        if self.terminal && !self.waiting.is_empty() {
            self.put("\r\x1b[2K");
        }
        self.waiting.clear();
    }

    /// Shows what is under way, unless it is done in a moment, until it is.
    pub async fn during<T>(&mut self, text: &str, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let mut work = pin!(work);
        loop {
            match tokio::time::timeout(LOOK, &mut work).await {
                Ok(done) => {
                    self.clear();
                    return done;
                }
                Err(_) if self.terminal => self.waits(&format!("{text}, {} s", began.elapsed().as_secs())),
                Err(_) => self.waits(text),
            }
        }
    }

    fn put(&self, text: &str) {
        let mut err = anstream::stderr();
        // Nobody has to read it.
        let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Between two looks at what is waited for.
pub const LOOK: Duration = Duration::from_millis(250);
