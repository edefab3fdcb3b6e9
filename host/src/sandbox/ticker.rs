//! The epoch clock: interrupts guests that run, and stands still while none does.
//!
//! A tick costs next to nothing, but a thread that wakes a thousand times a second costs about 3 % of a core: so it parks
//! when no guest has run for some ticks.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, Thread},
    time::Duration,
};

use wasmtime::{Engine, EngineWeak};

/// How long a guest runs before others get their turn.
pub const TICK: Duration = Duration::from_millis(1);

/// Ticks without a guest before the thread parks: waking it costs more than a few idle ticks.
const LINGER: u32 = 10;

#[derive(Default)]
struct Shared {
    running: AtomicUsize,
    parked: AtomicBool,
    stopped: AtomicBool,
}

/// The thread that ticks. It ends when this is dropped.
pub struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

/// A guest is running while this lives.
pub struct Running<'a>(&'a Shared);

impl Ticker {
    pub fn start(engine: &Engine) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (state, engine) = (shared.clone(), engine.weak());
        let handle = thread::Builder::new().name("epoch".into()).spawn(move || tick(&state, &engine))?;
        Ok(Self { shared, thread: handle.thread().clone() })
    }

    /// Counts a guest as running; wakes the thread if it is parked.
    pub fn enter(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, SeqCst);
        if self.shared.parked.load(SeqCst) {
            self.thread.unpark();
        }
        Running(&self.shared)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, SeqCst);
        self.thread.unpark();
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

fn tick(shared: &Shared, engine: &EngineWeak) {
    let mut idle = 0;
    while !shared.stopped.load(SeqCst) {
        thread::sleep(TICK);
        let Some(engine) = engine.upgrade() else { return };
        engine.increment_epoch();
        idle = if shared.running.load(SeqCst) == 0 { idle + 1 } else { 0 };
        if idle >= LINGER {
            park(shared);
            idle = 0;
        }
    }
}

/// Whoever enters after `parked` is set unparks; whoever entered before is seen in `running`.
fn park(shared: &Shared) {
    shared.parked.store(true, SeqCst);
    while shared.running.load(SeqCst) == 0 && !shared.stopped.load(SeqCst) {
        thread::park();
    }
    shared.parked.store(false, SeqCst);
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn it_parks_when_nothing_runs_and_wakes_for_the_next_guest() {
        let engine = Engine::default();
        let ticker = Ticker::start(&engine).unwrap();
        let wait = |parked: bool| {
            let started = Instant::now();
            while ticker.shared.parked.load(SeqCst) != parked {
                assert!(started.elapsed() < Duration::from_secs(10), "parked must become {parked}");
                thread::yield_now();
            }
        };
        for _ in 0..20 {
            wait(true);
            let running = ticker.enter();
            wait(false);
            drop(running);
        }
    }
}
