//! `make bench`: figures, each beside the same thing done by a peer, natively or barely, in the same run.
//!
//! A *bench* measures a few *contenders* round by round, taking turns; a round gives each contender a `Row` of figures. `record`
//! keeps the rounds with machine, versions and commit, `page` shows medians and ratios. `rooms` measures single rooms of the
//! host by its example `bench-rooms`; the others start whole operators (`contender`) on a real API server (`stage`) and take
//! times and counts from its audit log: `drain` (P9, P11) and `pace` (P10), with `floor` as what no operator can beat; `cold` (P4)
//! starts hosts with plugins from a registry.

mod cold;
mod contender;
mod drain;
mod floor;
mod machine;
mod pace;
mod page;
mod record;
mod rooms;
mod stage;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;

use self::record::{Bench, Book, Row};
use crate::paths;

/// What to measure and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Ids of promises, as in `P9`; empty: all.
    pub wanted: Vec<String>,
    /// Small numbers, one round, nothing written into `docs/`: to see that it works.
    pub quick: bool,
    /// Where the book (`performance.json`) and its page (`performance.md`) are.
    pub out: PathBuf,
}

/// How large a measurement is.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    pub rounds: usize,
    /// Single calls whose time is taken.
    pub calls: usize,
    /// Of counting calls.
    pub seconds: f64,
    pub keys: usize,
    /// In the cache.
    pub config_maps: usize,
    /// That an operator finds when it starts.
    pub hellos: usize,
    /// For how long objects are created at each pace.
    pub pace_seconds: u64,
    /// That a host starts with.
    pub plugins: usize,
}

impl Scale {
    fn new(quick: bool) -> Self {
        if quick {
            return Self {
                rounds: 1,
                calls: 500,
                seconds: 0.3,
                keys: 20_000,
                config_maps: 1_000,
                hellos: 100,
                pace_seconds: 3,
                plugins: 5,
            };
        }
        Self {
            rounds: 5,
            calls: 20_000,
            seconds: 3.0,
            keys: 500_000,
            config_maps: 20_000,
            hellos: 2_000,
            pace_seconds: 10,
            plugins: 200,
        }
    }
}

/// Measures what is wanted; what was measured earlier and is not wanted now stays in the book.
pub fn run(options: &Options) -> Result<()> {
    let scale = Scale::new(options.quick);
    let wanted = wanted(options)?;
    let setting = machine::setting()?;
    let file = options.out.join("performance.json");
    fs::create_dir_all(&options.out).with_context(|| format!("cannot create {}", options.out.display()))?;
    let mut book = Book::load(&file)?;
    let runtime = Runtime::new()?;
    for bench in wanted {
        eprintln!("{}: {}", bench.ids.join(", "), bench.title);
        let rounds = runtime.block_on((bench.run)(scale)).with_context(|| bench.ids.join(", "))?;
        let record = record::Record::new(bench, setting.clone(), options.quick, rounds);
        println!("{}", page::section(&record));
        book.put(record);
        // After each, so that a failure later loses nothing.
        book.save(&file)?;
        fs::write(options.out.join("performance.md"), page::page(&book))?;
    }
    println!("written: {} and performance.json beside it", options.out.join("performance.md").display());
    Ok(())
}

fn wanted(options: &Options) -> Result<Vec<&'static Bench>> {
    let all = [&rooms::SANDBOX, &cold::BENCH, &rooms::CACHE, &rooms::QUEUE, &drain::BENCH, &pace::BENCH];
    for id in &options.wanted {
        let known: Vec<&str> = all.iter().flat_map(|bench| bench.ids).copied().collect();
        ensure!(known.contains(&id.as_str()), "no bench measures {id}; there are {}", known.join(", "));
    }
    let is_wanted =
        |bench: &&Bench| options.wanted.is_empty() || bench.ids.iter().any(|id| options.wanted.iter().any(|w| w == id));
    Ok(all.into_iter().filter(is_wanted).collect())
}

/// All rounds of a bench: in each, one row per contender.
pub type Rounds = Vec<Vec<Row>>;

/// `docs/` of the checkout; for a quick run, which is no measurement, a place in the target directory.
pub fn default_out(quick: bool) -> Result<PathBuf> {
    Ok(if quick { paths::target()?.join("bench-quick") } else { paths::checkout().join("docs") })
}

/// What takes long should say so.
fn say(line: &str) {
    eprintln!("  {line}");
}
