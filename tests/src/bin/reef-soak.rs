//! `make soak`: two plugins, 200 objects, five minutes of seeded edits and faults, ten kills of the host.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use clap::Parser;
use reef_tests::{
    soak::{Report, Soak},
    world::World,
};

/// Edits, faults and kills by seed; in the end everything must be as if nothing had been.
#[derive(Parser)]
struct Args {
    /// A number replays a run; by default another one each time
    #[arg(long, env = "SEED", default_value = "")]
    seed: String,
    /// Objects, over both plugins
    #[arg(long, default_value_t = 200)]
    objects: usize,
    /// How long, in seconds
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// How often the host is killed
    #[arg(long, default_value_t = 10)]
    kills: u64,
    /// How many faults have to take effect at least
    #[arg(long, default_value_t = 500)]
    faults: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_secs());
    let seed = match args.seed.as_str() {
        "" => now(),
        text => match text.parse() {
            Ok(seed) => seed,
            Err(error) => {
                eprintln!("reef-soak: the seed `{text}` is no number: {error}");
                return ExitCode::FAILURE;
            }
        },
    };
    println!("SEED={seed}");
    match run(&args, seed) {
        Ok(report) => {
            print(&report);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}\nreplay it with: make soak SEED={seed}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args, seed: u64) -> Result<Report> {
    let soak =
        Soak { seed, objects: args.objects, time: Duration::from_secs(args.seconds), kills: args.kills, faults: args.faults };
    tokio::runtime::Runtime::new()?.block_on(async {
        let world = World::start(&|line| eprintln!("{line}")).await?;
        let scene = world.scene("soak").await?;
        soak.run(&scene).await
    })
}

fn print(report: &Report) {
    for (fault, count) in &report.faults {
        println!("{count:6}  {fault}");
    }
    println!("{:6}  faults took effect, of {} requests and what their watches told", report.total(), report.requests);
    println!("{:6}  edits and deletions", report.edits);
    println!("{:6}  kills of the host", report.kills);
    println!("{:6.1}  seconds from the last fault until everything was as wanted", report.settled.as_secs_f64());
    println!("final state as after a clean run, no orphan; then {} reconciles with 0 writes", report.reconciles);
}
