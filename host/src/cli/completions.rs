//! `reef completions`: what a shell needs to complete the commands.

use clap::Args;
use clap_complete::Shell;

use super::output;

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell, as in `source <(reef completions bash)`.
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &CompletionsArgs, mut command: clap::Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "reef", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
