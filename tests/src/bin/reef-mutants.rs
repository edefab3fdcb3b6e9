//! Breaks Reef on purpose: each patch in `tests/mutants/` is a small defect, and the test that it names must turn red.
//!
//! The patches are applied one after the other to a copy of the checkout, which shares the build directory. First the named
//! tests run on the copy as it is, and must be green there.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use reef_tests::paths;

/// Applies each mutant of tests/mutants/, and checks that its test turns red.
#[derive(Parser)]
struct Args {
    /// Only mutants whose file name contains one of these
    names: Vec<String>,

    /// Only look at the patches: do they apply, does each name a test that exists
    #[arg(long)]
    check: bool,
}

/// Modules of the promises that have the hub in their own process.
const IN_PROCESS: [&str; 1] = ["mirror"];

struct Mutant {
    name: String,
    patch: PathBuf,
    /// The test that must fail, by its name or the end of its path.
    test: String,
    says: String,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reef-mutants: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let mut mutants = read(&paths::checkout().join("tests/mutants"))?;
    mutants.retain(|mutant| args.names.is_empty() || args.names.iter().any(|name| mutant.name.contains(name)));
    ensure!(!mutants.is_empty(), "no mutant has such a name");
    let copy = tempfile::tempdir()?;
    copy_checkout(copy.path())?;
    let mut tests: BTreeMap<Suite, Vec<&str>> = BTreeMap::new();
    for mutant in &mutants {
        git_apply(copy.path(), &mutant.patch, &["--check"]).with_context(|| format!("{} does not apply", mutant.name))?;
        tests.entry(Suite::of(&mutant.test).with_context(|| mutant.name.clone())?).or_default().push(&mutant.test);
    }
    if args.check {
        println!("{} mutants apply, and each names a test that exists", mutants.len());
        return Ok(());
    }
    println!("the unpatched tree: {} tests", tests.values().map(Vec::len).sum::<usize>());
    let mut unpatched = String::new();
    for (suite, names) in &tests {
        let verdict = suite.run(copy.path(), names)?;
        for name in names {
            ensure!(verdict.passed(name), "{name} is not green on the unpatched tree:\n{}", verdict.output);
        }
        unpatched += &verdict.output;
    }
    let survivors: Vec<&str> = mutants
        .iter()
        .filter_map(|mutant| match survives(copy.path(), mutant, &unpatched) {
            Ok(None) => {
                println!("caught    {} ({})", mutant.name, mutant.says);
                None
            }
            Ok(Some(why)) => {
                println!("SURVIVED  {} ({}): {why}", mutant.name, mutant.says);
                Some(&*mutant.name)
            }
            Err(error) => {
                println!("UNUSABLE  {}: {error:#}", mutant.name);
                Some(&*mutant.name)
            }
        })
        .collect();
    ensure!(survivors.is_empty(), "{} of {} mutants were not caught: {}", survivors.len(), mutants.len(), survivors.join(", "));
    println!("all {} mutants were caught", mutants.len());
    Ok(())
}

/// Why nobody noticed; `None` if its test did.
fn survives(copy: &Path, mutant: &Mutant, unpatched: &str) -> Result<Option<String>> {
    git_apply(copy, &mutant.patch, &[])?;
    let verdict = Suite::of(&mutant.test).and_then(|suite| suite.run_patched(copy, &mutant.test, unpatched));
    git_apply(copy, &mutant.patch, &["--reverse"])?;
    let verdict = verdict?;
    ensure!(verdict.ran(), "it does not compile:\n{}", verdict.output);
    Ok((!verdict.failed(&mutant.test)).then(|| format!("{} stayed green", mutant.test)))
}

fn read(dir: &Path) -> Result<Vec<Mutant>> {
    let mut mutants = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let patch = entry?.path();
        if patch.extension().is_none_or(|end| end != "patch") {
            continue;
        }
        let text = fs::read_to_string(&patch)?;
        let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let line = |word: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(&format!("# {word}: ")));
            found.map(str::to_owned).with_context(|| format!("{name}: there is no line `# {word}: …`"))
        };
        mutants.push(Mutant { test: line("test")?, says: line("says")?, name, patch });
    }
    mutants.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(mutants)
}

/// What git knows of, as it is now.
fn copy_checkout(to: &Path) -> Result<()> {
    let checkout = paths::checkout();
    let listed = output(
        Command::new("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(&checkout),
    )?;
    for file in listed.split('\0').filter(|file| !file.is_empty()) {
        let (source, target) = (checkout.join(file), to.join(file));
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::symlink_metadata(&source) {
            Ok(meta) if meta.is_symlink() => std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?,
            Ok(_) => drop(fs::copy(&source, &target)?),
            // Deleted, but not committed yet.
            Err(_) => {}
        }
    }
    Ok(())
}

fn git_apply(dir: &Path, patch: &Path, flags: &[&str]) -> Result<()> {
    // A directory that is no repository: git then takes the patch as it is.
    let mut git = Command::new("git");
    // One line of context is enough to find the place, and survives changes nearby.
    git.args(["apply", "--whitespace=nowarn", "-C1"]).args(flags).arg(patch).current_dir(dir).env("GIT_CEILING_DIRECTORIES", "/");
    output(&mut git).map(drop)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

struct Verdict {
    output: String,
}

impl Verdict {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { output: format!("{}\n{}", text(&output.stdout), text(&output.stderr)) }
    }

    fn ran(&self) -> bool {
        self.output.contains("running ")
    }

    fn has(&self, test: &str, end: &str) -> bool {
        self.output
            .lines()
            .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(end))
            .any(|name| name.trim_end().ends_with(test))
    }

    fn passed(&self, test: &str) -> bool {
        self.has(test, "... ok")
    }

    fn failed(&self, test: &str) -> bool {
        // One that ended the process has not come so far as to say FAILED.
        self.has(test, "... FAILED") || (!self.passed(test) && self.output.contains("process didn't exit successfully"))
    }
}

/// Which of cargo's targets has a test: building only that makes a mutant cheap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Suite {
    Unit,
    Integration(String),
    /// The plugins' own tests, without a cluster: no component is built here.
    Plugins,
}

impl Suite {
    /// By where in the sources there is a function of this name.
    fn of(test: &str) -> Result<Self> {
        let function = test.rsplit("::").next().unwrap_or(test);
        let mut grep = Command::new("git");
        grep.args(["grep", "--untracked", "-l", &format!("fn {function}("), "--", "*.rs"]).current_dir(paths::checkout());
        let found = output(&mut grep).with_context(|| format!("there is no test `{test}`"))?;
        let file = Path::new(found.lines().next().unwrap_or_default());
        let parts: Vec<_> = file.iter().map(|part| part.to_string_lossy()).collect();
        Ok(match &*parts {
            [plugins, ..] if plugins == "plugins" => Self::Plugins,
            [_, src, ..] if src == "src" => Self::Unit,
            [_, tests, target, ..] if tests == "tests" => Self::Integration(target.trim_end_matches(".rs").to_owned()),
            _ => bail!("`{test}` is in {}, which belongs to no target", file.display()),
        })
    }

    fn run(&self, dir: &Path, names: &[&str]) -> Result<Verdict> {
        let plugins = paths::target()?.join("plugins").display().to_string();
        let target: &[&str] = match self {
            Self::Unit => &["--lib"],
            Self::Integration(name) => &["--test", name],
            Self::Plugins => &["--manifest-path", "plugins/Cargo.toml", "--target-dir", &plugins],
        };
        // The `reef` program first: the integration tests run it, and cargo does not know that they do. With a test beside it,
        // so that dependencies are built with the features that they have anyway.
        if matches!(self, Self::Integration(_)) {
            let built = cargo(dir, &[&["build", "--workspace", "--locked", "--bin", "reef"], target].concat())?;
            if !built.status.success() {
                return Ok(Verdict::of(&built));
            }
        }
        let ran = cargo(dir, &[&["test", "--workspace", "--locked", "--no-fail-fast"], target, &["--"], names].concat())?;
        Ok(Verdict::of(&ran))
    }

    /// The same for one that is patched. The promises' own program is minutes of compilation, and knows the host only as another
    /// program, so the one of the unpatched tree is taken.
    fn run_patched(&self, dir: &Path, name: &str, unpatched: &str) -> Result<Verdict> {
        let program = match self {
            Self::Integration(target) if !IN_PROCESS.iter().any(|module| unpatched.contains(&format!("{module}::{name}"))) => {
                let line = unpatched.lines().find(|line| line.contains(&format!("Running tests/{target}")));
                line.and_then(|line| Some(line.split_once('(')?.1.trim_end_matches(')').to_owned()))
            }
            _ => None,
        };
        let Some(program) = program.filter(|_| *self == Self::Integration("promises".to_owned())) else {
            return self.run(dir, &[name]);
        };
        let built = cargo(dir, &["build", "--workspace", "--locked", "--bin", "reef", "--test", "sandbox"])?;
        if !built.status.success() {
            return Ok(Verdict::of(&built));
        }
        let program = dir.join(program);
        let mut test = Command::new(&program);
        test.arg(name).current_dir(dir.join("tests")).env("CARGO_MANIFEST_DIR", dir.join("tests")).stdin(Stdio::null());
        let ran = test.output().with_context(|| format!("cannot run {}", program.display()))?;
        let mut verdict = Verdict::of(&ran);
        if !ran.status.success() {
            verdict.output += "process didn't exit successfully";
        }
        Ok(verdict)
    }
}

fn cargo(dir: &Path, args: &[&str]) -> Result<Output> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // A build script down there looks at this variable, which says where our own checkout is: all would be built anew.
    cargo.args(args).current_dir(dir).env_remove("CARGO_MANIFEST_DIR").stdin(Stdio::null()).output().context("cannot run cargo")
}
