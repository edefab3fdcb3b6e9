//! `make bench`: figures of Reef beside those of its peers, into `docs/performance.md` and `docs/performance.json`.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use reef_tests::bench::{self, Options};

/// Measures Reef, and what it is compared with, on this machine.
#[derive(Parser)]
struct Args {
    /// What to measure, by the promise's id, as in `P9`; all, if none is named
    wanted: Vec<String>,
    /// Small numbers and one round, to see that it works; the page goes into the target directory
    #[arg(long)]
    quick: bool,
    /// Where performance.md and performance.json are written instead
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Args { wanted, quick, out } = Args::parse();
    let ended = out.map_or_else(|| bench::default_out(quick), Ok).and_then(|out| bench::run(&Options { wanted, quick, out }));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reef-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
