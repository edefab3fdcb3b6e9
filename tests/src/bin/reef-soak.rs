//! `make soak`: of each subject 200 objects, five minutes of seeded edits and faults, ten kills of the host.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use reef_tests::{
    control_plane::Setup,
    soak::{Hellos, Report, Soak, Websites},
    world::World,
};

/// Edits, faults and kills by seed; in the end everything must be as if nothing had been.
#[derive(Parser)]
struct Args {
    /// What is soaked
    #[arg(value_enum, default_values_t = [Subject::Hellos, Subject::Websites])]
    subjects: Vec<Subject>,
    /// A number replays a run; by default another one each time
    #[arg(long, env = "SEED", default_value = "")]
    seed: String,
    /// Objects of each subject
    #[arg(long, default_value_t = 200)]
    objects: usize,
    /// How long each, in seconds
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// How often the host is killed
    #[arg(long, default_value_t = 10)]
    kills: u64,
    /// How many faults have to take effect at least
    #[arg(long, default_value_t = 500)]
    faults: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Subject {
    /// Two plugins with one child for each object
    Hellos,
    /// One with up to four, and Deployments that report
    Websites,
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
    for subject in &args.subjects {
        let name = subject.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        println!("{name}:");
        match run(&args, *subject, seed) {
            Ok(report) => print(&report),
            Err(error) => {
                eprintln!("{error:#}\nreplay it with: make soak SOAK={name} SEED={seed}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn run(args: &Args, subject: Subject, seed: u64) -> Result<Report> {
    let soak =
        Soak { seed, objects: args.objects, time: Duration::from_secs(args.seconds), kills: args.kills, faults: args.faults };
    tokio::runtime::Runtime::new()?.block_on(async {
        let setup = Setup { no_rollouts: true, ..Setup::default() };
        let world = World::start_with(&|line| eprintln!("{line}"), setup).await?;
        let scene = world.scene("soak").await?;
        match subject {
            Subject::Hellos => soak.run::<Hellos>(&scene).await,
            Subject::Websites => soak.run::<Websites>(&scene).await,
        }
    })
}

fn print(report: &Report) {
    for (fault, count) in &report.faults {
        println!("{count:6}  {fault}");
    }
    println!("{:6}  faults took effect, of {} requests and what their watches told", report.total(), report.requests);
    for (edit, count) in &report.edits {
        println!("{count:6}  {edit}");
    }
    println!("{:6}  kills of the host", report.kills);
    println!(
        "{:6.1}  seconds from the last edit until everything was as wanted, while the faults went on",
        report.settled.as_secs_f64()
    );
    println!(
        "{:6}  objects in the end, all as after a clean run, no orphan; then {} reconciles with 0 writes",
        report.objects, report.reconciles
    );
}
