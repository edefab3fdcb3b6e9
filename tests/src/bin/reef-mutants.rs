//! Breaks Reef on purpose: each patch in `tests/mutants/` is a small defect, and the test that it names must turn red.
//!
//! The patches are applied one after the other to a copy of the checkout, which shares the build directory. First the named
//! tests run on the copy as it is, and must be green there. While a mutant is tested on a real API server, the next one is built.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output, Stdio},
    sync::{Mutex, PoisonError, mpsc},
    thread,
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

/// Mutants that are tested at once, beside one that is built: their tests mostly wait.
const AT_ONCE: usize = 2;

/// Seconds that a test waits for what a mutant may keep from happening. Unpatched, it is there in a fraction of that.
const HANG_BOUND: &str = "30";

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
    let copy = Copy::of_checkout()?;
    let copy = copy.dir.as_path();
    let mut tests: BTreeMap<Suite, Vec<&str>> = BTreeMap::new();
    for mutant in &mutants {
        git_apply(copy, &mutant.patch, &["--check"]).with_context(|| format!("{} does not apply", mutant.name))?;
        tests.entry(Suite::of(&mutant.test).with_context(|| mutant.name.clone())?).or_default().push(&mutant.test);
    }
    if args.check {
        println!("{} mutants apply, and each names a test that exists", mutants.len());
        return Ok(());
    }
    println!("the unpatched tree: {} tests", tests.values().map(Vec::len).sum::<usize>());
    let mut unpatched = String::new();
    for (suite, names) in &tests {
        let verdict = suite.run(copy, names)?;
        for name in names {
            ensure!(verdict.passed(name), "{name} is not green on the unpatched tree:\n{}", verdict.output);
        }
        unpatched += &verdict.output;
    }
    let (pipelined, alone): (Vec<&Mutant>, Vec<&Mutant>) =
        mutants.iter().partition(|mutant| promises(&mutant.test, &unpatched).is_some());
    let mut survivors = side_by_side(copy, &pipelined, &unpatched)?;
    for mutant in alone {
        let verdict = patched(copy, mutant, || Suite::of(&mutant.test)?.run(copy, &[&mutant.test]));
        survivors.extend(judge(mutant, verdict));
    }
    ensure!(survivors.is_empty(), "{} of {} mutants were not caught: {}", survivors.len(), mutants.len(), survivors.join(", "));
    println!("all {} mutants were caught", mutants.len());
    Ok(())
}

/// Builds one after the other, and tests those that are built meanwhile. The names of those that were not caught.
fn side_by_side(copy: &Path, mutants: &[&Mutant], unpatched: &str) -> Result<Vec<String>> {
    let (built, queue) = mpsc::sync_channel::<(&Mutant, Bench)>(1);
    let (queue, survivors) = (Mutex::new(queue), Mutex::new(Vec::new()));
    let report = |mutant: &Mutant, verdict: Result<Verdict>| {
        survivors.lock().unwrap_or_else(PoisonError::into_inner).extend(judge(mutant, verdict));
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((mutant, bench)) = next else { return };
                    report(mutant, bench.run(copy, &mutant.test));
                }
            });
        }
        for mutant in mutants {
            let bench = patched(copy, mutant, || {
                let program = promises(&mutant.test, unpatched).context("it is tested by itself")?;
                Bench::build(copy, &program)
            });
            match bench {
                Ok(bench) => ensure!(built.send((mutant, bench)).is_ok(), "nobody tests any more"),
                Err(error) => report(mutant, Err(error)),
            }
        }
        drop(built);
        anyhow::Ok(())
    })?;
    Ok(survivors.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn patched<T>(copy: &Path, mutant: &Mutant, run: impl FnOnce() -> Result<T>) -> Result<T> {
    git_apply(copy, &mutant.patch, &[])?;
    let outcome = run();
    git_apply(copy, &mutant.patch, &["--reverse"])?;
    outcome
}

/// Says how it went, and by what it was caught. The name of one that was not.
fn judge(mutant: &Mutant, verdict: Result<Verdict>) -> Option<String> {
    let verdict = verdict.and_then(|verdict| {
        ensure!(verdict.ran(), "it does not compile:\n{}", verdict.output);
        Ok(verdict)
    });
    match verdict {
        Ok(verdict) if verdict.failed(&mutant.test) => {
            println!("caught    {} ({}): {}", mutant.name, mutant.says, verdict.words());
            return None;
        }
        Ok(_) => println!("SURVIVED  {} ({}): {} stayed green", mutant.name, mutant.says, mutant.test),
        Err(error) => println!("UNUSABLE  {}: {error:#}", mutant.name),
    }
    Some(mutant.name.clone())
}

/// The promises' own program, if a test belongs to it and knows the host only as another program: then the unpatched tree's is
/// taken, which is minutes of compilation.
fn promises(test: &str, unpatched: &str) -> Option<PathBuf> {
    if !matches!(Suite::of(test), Ok(Suite::Integration(target)) if target == "promises")
        || IN_PROCESS.iter().any(|module| unpatched.contains(&format!("{module}::{test}")))
    {
        return None;
    }
    let line = unpatched.lines().find(|line| line.contains("Running tests/promises"))?;
    Some(line.split_once('(')?.1.trim_end_matches(')').into())
}

/// A build directory of its own, in which all but `reef` is the unpatched tree's.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn build(copy: &Path, promises: &Path) -> Result<Self> {
        // With a test beside it, so that dependencies are built with the features that they have anyway.
        let built = cargo(copy, &["build", "--workspace", "--locked", "--bin", "reef", "--test", "sandbox"])?;
        ensure!(built.status.success(), "it does not compile:\n{}", Verdict::of(&built).output);
        let target = paths::target()?;
        let dir = tempfile::tempdir_in(&target)?;
        let debug = dir.path().join("debug");
        fs::create_dir_all(debug.join("deps"))?;
        fs::copy(target.join("debug/reef"), debug.join("reef"))?;
        for program in ["reef-testbed", "reef-demo"] {
            fs::hard_link(target.join("debug").join(program), debug.join(program))?;
        }
        fs::hard_link(copy.join(promises), debug.join("deps/promises"))?;
        std::os::unix::fs::symlink(target.join("components"), dir.path().join("components"))?;
        Ok(Self { dir })
    }

    fn run(&self, copy: &Path, name: &str) -> Result<Verdict> {
        let mut test = Command::new(self.dir.path().join("debug/deps/promises"));
        test.arg(name).current_dir(copy.join("tests")).env("CARGO_MANIFEST_DIR", copy.join("tests"));
        let ran = test.env("REEF_HANG_BOUND", HANG_BOUND).stdin(Stdio::null()).output().context("cannot run the promises")?;
        let mut verdict = Verdict::of(&ran);
        if !ran.status.success() {
            verdict.output += "process didn't exit successfully";
        }
        Ok(verdict)
    }
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

/// What git knows of, as it is now. In the cache, so that the next run compiles only what has changed since; and outside of the
/// build directory, where cargo would take its files for those of whatever checkout it builds next.
struct Copy {
    dir: PathBuf,
    _lock: fs::File,
}

impl Copy {
    fn of_checkout() -> Result<Self> {
        let (checkout, dir) = (paths::checkout(), paths::cache()?.join("mutants"));
        fs::create_dir_all(&dir)?;
        let lock = fs::File::create(dir.with_extension("lock"))?;
        lock.lock()?;
        let mut git = Command::new("git");
        git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(&checkout);
        let listed = output(&mut git)?;
        let listed: BTreeSet<PathBuf> = listed.split('\0').filter(|file| !file.is_empty()).map(PathBuf::from).collect();
        for file in &listed {
            put(&checkout.join(file), &dir.join(file))?;
        }
        for file in files(&dir, &dir)?.difference(&listed) {
            fs::remove_file(dir.join(file))?;
        }
        Ok(Self { dir, _lock: lock })
    }
}

/// All files below a directory, by their paths from there.
fn files(root: &Path, dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(root, &entry.path())?);
        } else {
            found.insert(entry.path().strip_prefix(root)?.to_owned());
        }
    }
    Ok(found)
}

/// What is the same is left alone, since cargo goes by modification times.
fn put(source: &Path, target: &Path) -> Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::symlink_metadata(source) {
        Ok(meta) if meta.is_symlink() => {
            let to = fs::read_link(source)?;
            if fs::read_link(target).ok().as_ref() != Some(&to) {
                drop(fs::remove_file(target));
                std::os::unix::fs::symlink(to, target)?;
            }
        }
        Ok(meta) => {
            let bytes = fs::read(source)?;
            if fs::read(target).ok().as_ref() != Some(&bytes) {
                fs::write(target, bytes)?;
                fs::set_permissions(target, meta.permissions())?;
            }
        }
        // Deleted, but not committed yet.
        Err(_) => drop(fs::remove_file(target)),
    }
    Ok(())
}

fn git_apply(dir: &Path, patch: &Path, flags: &[&str]) -> Result<()> {
    // A directory that is no repository: git then takes the patch as it is.
    let mut git = Command::new("git");
    // One line of context is enough to find the place, and survives changes nearby.
    git.args(["apply", "--whitespace=nowarn", "-C1"]).args(flags).arg(patch).current_dir(dir);
    git.env("GIT_CEILING_DIRECTORIES", dir.parent().unwrap_or(dir));
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

    /// What the test says: the first line after where it panicked.
    fn words(&self) -> &str {
        let mut lines = self.output.lines().skip_while(|line| !line.contains(" panicked at ")).skip(1);
        lines.next().unwrap_or("its process ended")
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
}

fn cargo(dir: &Path, args: &[&str]) -> Result<Output> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Our own crates without optimisation: a mutant costs mostly their compilation, a third of what it takes otherwise. And what
    // is built of the copy is not mistaken for what is built of the checkout.
    cargo.env("CARGO_PROFILE_DEV_OPT_LEVEL", "0");
    // A build script down there looks at this variable, which says where our own checkout is: all would be built anew.
    cargo.args(args).current_dir(dir).env_remove("CARGO_MANIFEST_DIR").stdin(Stdio::null()).output().context("cannot run cargo")
}
