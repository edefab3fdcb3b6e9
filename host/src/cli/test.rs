//! `reef test`: a plugin's native tests, then its component against recorded cases, in the sandbox of the host and with its
//! limits, but without a cluster.

mod case;
mod cluster;
mod golden;

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueHint};

use self::{case::Case, golden::Golden};
use super::{build, cargo::Crate, component::Component, inspect, output};
use crate::{
    rbac::kinds::Kinds,
    sandbox::{Loaded, Sandbox, SandboxOptions},
};

#[derive(Debug, Args)]
pub struct TestArgs {
    /// The directory of the plugin's crate; the cases are in its testdata/.
    #[arg(default_value = ".", value_hint = ValueHint::DirPath)]
    path: PathBuf,
    /// Run only the cases whose names contain this.
    filter: Option<String>,
    /// Write the golden files anew, with what the component answers now.
    #[arg(long)]
    update: bool,
    /// Test this component; nothing is built, and no native tests are run.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    component: Option<PathBuf>,
    /// Show on stderr what the component logs.
    #[arg(long)]
    logs: bool,
}

pub fn run(args: &TestArgs) -> anyhow::Result<()> {
    let cases = case::find(&args.path.join("testdata"), args.filter.as_deref())?;
    let component = match &args.component {
        Some(file) => Component::read(file)?,
        None => {
            let plugin = Crate::at(&args.path)?;
            plugin.test()?;
            build::built(&plugin)?.0
        }
    };
    if args.logs {
        show_logs()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answers = runtime.block_on(answers(&component, &cases))?;
    output::print(&format!("\ntesting {} against {} cases\n", component.path.display(), cases.len()))?;
    let mut failed = Failed::default();
    for (case, answer) in cases.iter().zip(answers) {
        let (word, detail) = verdict(case, answer, args.update, &mut failed)?;
        output::print(&format!("case {} ... {word}\n{detail}", case.name))?;
    }
    failed.sentence(cases.len())
}

fn show_logs() -> anyhow::Result<()> {
    let lines = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let started = lines.with_env_filter("reef::plugin=trace").with_target(false).without_time().try_init();
    started.map_err(|error| anyhow!("the log does not start: {error}"))
}

/// What the component answers to each case, or why that is no answer. An error: it cannot be asked.
async fn answers(component: &Component, cases: &[Case]) -> anyhow::Result<Vec<Result<Golden, String>>> {
    let dir = tempfile::Builder::new().prefix("reef-test-").tempdir().context("there is no place for the compiled component")?;
    let options = SandboxOptions {
        cache_dir: dir.path().to_owned(),
        in_flight: 1,
        reef_binary: std::env::current_exe().context("cannot find this program, which compiles components")?,
        ..SandboxOptions::default()
    };
    let sandbox = Sandbox::new(options)?;
    let shown = component.path.display();
    let loaded = sandbox.load(component.digest, component.bytes.clone().into()).await;
    let loaded = loaded.map_err(|error| anyhow!("{shown}: a host would not load it: {error}"))?;
    let kinds = Kinds::with_crds(&inspect::crds(loaded.crds())?);
    // All are understood before the first is run.
    let asked = cases.iter().map(|case| case.asked(loaded.manifest(), &kinds).with_context(|| case.path.display().to_string()));
    let asked = asked.collect::<anyhow::Result<Vec<_>>>()?;
    let mut answers = Vec::with_capacity(asked.len());
    for asked in asked {
        answers.push(answer(&sandbox, &loaded, asked).await);
    }
    Ok(answers)
}

async fn answer(sandbox: &Sandbox, loaded: &Loaded, asked: case::Asked) -> Result<Golden, String> {
    let case::Asked { request, call, cluster, cleanup, status } = asked;
    let entry = call.grant.entry.clone();
    let namespace = call.plugin.namespace.clone();
    let outcome = sandbox.reconcile(loaded, request, call).await;
    let golden = Golden::of(outcome, &entry, cleanup, status)?;
    golden.deletes_what_was_read(|write| cluster.has_shown(write, &namespace))?;
    Ok(golden)
}

/// Cases that failed, by what helps.
#[derive(Default)]
struct Failed {
    /// A golden file says something else, or is not there.
    differ: usize,
    /// There was no answer.
    broken: usize,
}

impl Failed {
    fn sentence(&self, of: usize) -> anyhow::Result<()> {
        let fix = "if the new answers are right, `reef test --update` writes them";
        match (self.differ, self.broken) {
            (0, 0) => Ok(()),
            (differ, 0) => bail!("{differ} of {of} cases are not as their golden files say; {fix}"),
            (0, broken) => bail!("{broken} of {of} cases failed: the component gave no answer that a host would carry out"),
            (differ, broken) => bail!(
                "{broken} of {of} cases failed: the component gave no answer that a host would carry out; {differ} more are not as \
                 their golden files say: {fix}"
            ),
        }
    }
}

/// One word, and lines below it.
fn verdict(case: &Case, answer: Result<Golden, String>, update: bool, failed: &mut Failed) -> anyhow::Result<(String, String)> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(sentence) => {
            failed.broken += 1;
            return Ok((output::bad("failed"), format!("  {sentence}\n")));
        }
    };
    let golden = case.golden.display();
    let before = match golden::read(&case.golden) {
        Ok(before) => before,
        Err(_) if update => None,
        Err(error) => return Err(error.context(golden.to_string())),
    };
    match before {
        Some(before) if before == answer => Ok((output::good("ok"), String::new())),
        _ if update => {
            golden::write(&case.golden, &answer)?;
            Ok((output::good("updated"), String::new()))
        }
        Some(before) => {
            failed.differ += 1;
            Ok((output::bad("differs"), golden::difference(&golden.to_string(), &before, &answer)?))
        }
        None => {
            failed.differ += 1;
            Ok((output::bad("has no golden file"), format!("  there is no {golden}: `reef test --update` writes it\n")))
        }
    }
}
