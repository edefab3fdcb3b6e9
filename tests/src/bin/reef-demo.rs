//! `make demo`: a real control plane, the real host, real plugins, and what happened, measured.

use std::process::ExitCode;

use clap::Parser;
use reef_tests::demo;

/// Shows what Reef does, on a real etcd and kube-apiserver of its own.
#[derive(Parser)]
struct Args {
    /// Leave the control plane and the host running, and say how to use kubectl on them
    #[arg(long)]
    keep: bool,
    /// The process that stays: shows the demo to the one that was called with --keep, and then holds everything
    #[arg(long, hide = true)]
    stay: bool,
    /// Standard output ends on a terminal, although it is a pipe
    #[arg(long, hide = true)]
    terminal: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let screen = demo::Screen::new(args.terminal);
    let ended = if args.keep && !args.stay { demo::keep::launch(screen) } else { demo::show(screen, args.stay) };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nreef-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
