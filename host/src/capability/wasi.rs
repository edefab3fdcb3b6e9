//! The inert rest: what the runtimes of Rust and Go pull in whether they need it or not.
//!
//! No files, no sockets, no HTTP, no environment, no arguments; time and randomness come from the request, so that a
//! reconcile stays a pure function. stdout and stderr go to the journal. Built when a guest first asks for it, since most
//! never do.

use std::time::Duration;

use bytes::Bytes;
use rand_core::{TryRng, utils};
use tokio::io::{AsyncWrite, sink};
use wasmtime::component::{HasData, Linker, ResourceTable};
use wasmtime_wasi::{
    HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView, async_trait,
    cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView},
    clocks::{WasiClocks, WasiClocksView},
    p2::{OutputStream, Pollable, StreamResult},
    random::{WasiRandom, WasiRandomView},
};

use super::{
    HasPowers,
    log::{Journal, Stream},
};

/// The interfaces of WASI 0.2 that are linked, and what each lets a plugin do. All others are refused before anything is
/// compiled.
pub const OFFERED: [(&str, &str); 18] = [
    ("wasi:cli/environment", "sees an empty environment and no arguments"),
    ("wasi:cli/exit", "ends its own call"),
    ("wasi:cli/stderr", "writes lines into the host's log"),
    ("wasi:cli/stdin", "reads an empty input"),
    ("wasi:cli/stdout", "writes lines into the host's log"),
    ("wasi:cli/terminal-input", "is told that there is no terminal"),
    ("wasi:cli/terminal-output", "is told that there is no terminal"),
    ("wasi:cli/terminal-stderr", "is told that there is no terminal"),
    ("wasi:cli/terminal-stdin", "is told that there is no terminal"),
    ("wasi:cli/terminal-stdout", "is told that there is no terminal"),
    ("wasi:clocks/monotonic-clock", "sees a clock that stands still, and sleeps up to its deadline"),
    ("wasi:clocks/wall-clock", "sees a clock that stands still at the time of the request"),
    ("wasi:io/error", "nothing: what goes wrong with its streams"),
    ("wasi:io/poll", "waits for its streams and clocks"),
    ("wasi:io/streams", "nothing: how input and output are carried"),
    ("wasi:random/insecure", "gets numbers that follow from the seed of the request"),
    ("wasi:random/insecure-seed", "gets numbers that follow from the seed of the request"),
    ("wasi:random/random", "gets numbers that follow from the seed of the request"),
];

/// Streams, pollables and the like that a guest may hold at once.
const MAX_RESOURCES: usize = 1024;
/// Bytes of one request for random ones.
const MAX_RANDOM: u64 = 64 << 10;

/// WASI for one reconcile.
pub struct Inert {
    now: Duration,
    seed: u64,
    journal: Journal,
    ctx: Option<WasiCtx>,
    table: ResourceTable,
}

impl Inert {
    /// `now` in milliseconds since the Unix epoch.
    pub fn new(now: u64, seed: u64, journal: Journal) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        Self { now: Duration::from_millis(now), seed, journal, ctx: None, table }
    }
}

fn build(now: Duration, seed: u64, journal: &Journal) -> WasiCtx {
    let mut secure = SplitMix(seed);
    let insecure = SplitMix(secure.next());
    let seed = u128::from(secure.next()) << 64 | u128::from(secure.next());
    WasiCtxBuilder::new()
        .stdout(Captured { stream: Stream::Stdout, journal: journal.clone() })
        .stderr(Captured { stream: Stream::Stderr, journal: journal.clone() })
        .wall_clock(Frozen(now))
        .monotonic_clock(Frozen(now))
        .secure_random(secure)
        .insecure_random(insecure)
        .insecure_random_seed(seed)
        .max_random_size(MAX_RANDOM)
        .build()
}

/// A clock that stands still. Sleeping still takes its time, up to the deadline of the call.
struct Frozen(Duration);

impl HostWallClock for Frozen {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        self.0
    }
}

impl HostMonotonicClock for Frozen {
    fn resolution(&self) -> u64 {
        1_000_000
    }

    fn now(&self) -> u64 {
        0
    }
}

/// SplitMix64: the same numbers for the same seed in every release, which a replay needs.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl TryRng for SplitMix {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok((self.next() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        utils::fill_bytes_via_next_word(bytes, || self.try_next_u64())
    }
}

/// A standard stream that ends in the journal.
#[derive(Clone)]
struct Captured {
    stream: Stream,
    journal: Journal,
}

impl IsTerminal for Captured {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Captured {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Captured {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Captured {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.journal.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

impl WasiView for Inert {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let (now, seed, journal) = (self.now, self.seed, &self.journal);
        WasiCtxView { ctx: self.ctx.get_or_insert_with(|| build(now, seed, journal)), table: &mut self.table }
    }
}

struct TableOf;

impl HasData for TableOf {
    type Data<'a> = &'a mut ResourceTable;
}

/// Links [`OFFERED`].
pub fn add_to_linker<T: HasPowers>(l: &mut Linker<T>) -> wasmtime::Result<()> {
    use wasmtime_wasi::p2::bindings::{cli, clocks, random};
    use wasmtime_wasi_io::bindings::wasi::io;

    io::error::add_to_linker::<T, TableOf>(l, |t| &mut t.powers().wasi.table)?;
    io::poll::add_to_linker::<T, TableOf>(l, |t| &mut t.powers().wasi.table)?;
    io::streams::add_to_linker::<T, TableOf>(l, |t| &mut t.powers().wasi.table)?;
    clocks::wall_clock::add_to_linker::<T, WasiClocks>(l, |t| t.powers().wasi.clocks())?;
    clocks::monotonic_clock::add_to_linker::<T, WasiClocks>(l, |t| t.powers().wasi.clocks())?;
    random::random::add_to_linker::<T, WasiRandom>(l, |t| t.powers().wasi.random())?;
    random::insecure::add_to_linker::<T, WasiRandom>(l, |t| t.powers().wasi.random())?;
    random::insecure_seed::add_to_linker::<T, WasiRandom>(l, |t| t.powers().wasi.random())?;
    cli::exit::add_to_linker::<T, WasiCli>(l, |t| t.powers().wasi.cli())?;
    cli::environment::add_to_linker::<T, WasiCli>(l, |t| t.powers().wasi.cli())?;
    cli::stdin::add_to_linker::<T, WasiCli>(l, |t| t.powers().wasi.cli())?;
    cli::stdout::add_to_linker::<T, WasiCli>(l, |t| t.powers().wasi.cli())?;
    cli::stderr::add_to_linker::<T, WasiCli>(l, |t| t.powers().wasi.cli())?;
    cli::terminal_input::add_to_linker::<T, WasiCli>(l, |t| t.powers().wasi.cli())?;
    cli::terminal_output::add_to_linker::<T, WasiCli>(l, |t| t.powers().wasi.cli())?;
    cli::terminal_stdin::add_to_linker::<T, WasiCli>(l, |t| t.powers().wasi.cli())?;
    cli::terminal_stdout::add_to_linker::<T, WasiCli>(l, |t| t.powers().wasi.cli())?;
    cli::terminal_stderr::add_to_linker::<T, WasiCli>(l, |t| t.powers().wasi.cli())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promises: S6
    /// Breaks it: randomness from the machine.
    #[test]
    fn randomness_is_a_function_of_the_seed() {
        let numbers = |seed| {
            let mut rng = SplitMix(seed);
            let mut bytes = [0; 11];
            rng.try_fill_bytes(&mut bytes).unwrap();
            (rng.next(), bytes)
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        assert_eq!(SplitMix(0).next(), 0xE220_A839_7B1D_CDAF, "the published first number of seed 0");
    }
}
