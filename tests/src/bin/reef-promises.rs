//! Writes `docs/promises.md`: every promise, and the tests whose doc comments say that they show it.
//!
//! A promise with neither a test nor a reason is an error, and so is a test that names a promise that does not exist.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use reef_tests::paths;
use serde::Deserialize;

/// Generates docs/promises.md from tests/promises.yaml and the tests' doc comments.
#[derive(Parser)]
struct Args {
    /// Write nothing; fail if the file differs from what would be written
    #[arg(long)]
    check: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Family {
    family: String,
    promises: Vec<Promise>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Promise {
    id: String,
    says: String,
    /// Why there is no test, or what the tests leave out.
    missing: Option<String>,
}

/// A test function that names promises.
#[derive(Debug, PartialEq, Eq)]
struct Test {
    name: String,
    /// Relative to the checkout.
    file: String,
    ids: Vec<String>,
    breaks: Option<String>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reef-promises: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let checkout = paths::checkout();
    let families: Vec<Family> = serde_norway::from_str(&fs::read_to_string(checkout.join("tests/promises.yaml"))?)?;
    let tests = tests(&checkout)?;
    check_ids(&families, &tests)?;
    let page = page(&families, &tests);
    let path = checkout.join("docs/promises.md");
    if !args.check {
        fs::create_dir_all(checkout.join("docs"))?;
        return Ok(fs::write(&path, page)?);
    }
    if fs::read_to_string(&path).ok().as_deref() != Some(&page) {
        bail!("docs/promises.md is not what the tests say: run `make generate` and commit it");
    }
    Ok(())
}

fn tests(checkout: &Path) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for root in ["host/src", "host/tests", "plugin-sdk/src", "plugin-sdk/tests", "tests/src", "tests/tests"] {
        for path in rust_files(&checkout.join(root))? {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let file = path.strip_prefix(checkout)?.display().to_string();
            tests.extend(tests_of(&file, &text).with_context(|| format!("in {file}"))?);
        }
    }
    tests.sort_by(|a, b| (&a.file, &a.name).cmp(&(&b.file, &b.name)));
    Ok(tests)
}

fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return Ok(files) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// Finds `/// Promises: Q1, C1`, an optional `/// Breaks it: …`, and the function below them.
fn tests_of(file: &str, text: &str) -> Result<Vec<Test>> {
    let (mut tests, mut ids, mut breaks) = (Vec::new(), Vec::new(), None);
    for line in text.lines().map(str::trim) {
        if let Some(list) = line.strip_prefix("/// Promises:") {
            ids = list.split(',').map(|id| id.trim().trim_end_matches('.').to_owned()).collect();
        } else if let Some(words) = line.strip_prefix("/// Breaks it:") {
            breaks = Some(words.trim().to_owned());
        } else if let Some(rest) = line.trim_start_matches("async ").strip_prefix("fn ").filter(|_| !ids.is_empty()) {
            let name = rest.split(['(', '<']).next().unwrap_or(rest).to_owned();
            tests.push(Test { name, file: file.to_owned(), ids: std::mem::take(&mut ids), breaks: breaks.take() });
        } else if !(ids.is_empty() || line.starts_with("///") || line.starts_with("#[")) {
            bail!("`Promises: {}` stands above no test, but above `{line}`", ids.join(", "));
        }
    }
    Ok(tests)
}

fn check_ids(families: &[Family], tests: &[Test]) -> Result<()> {
    let promises: BTreeMap<&str, &Promise> = families.iter().flat_map(|f| &f.promises).map(|p| (&*p.id, p)).collect();
    for test in tests {
        if let Some(id) = test.ids.iter().find(|id| !promises.contains_key(id.as_str())) {
            bail!("{} in {} names the promise `{id}`, which tests/promises.yaml does not have", test.name, test.file);
        }
    }
    let shown = |id: &str| tests.iter().any(|test| test.ids.iter().any(|shown| shown == id));
    match promises.values().find(|promise| promise.missing.is_none() && !shown(&promise.id)) {
        Some(promise) => bail!("no test shows {}: write one, or give the reason as `missing` in tests/promises.yaml", promise.id),
        None => Ok(()),
    }
}

fn page(families: &[Family], tests: &[Test]) -> String {
    let all: Vec<&Promise> = families.iter().flat_map(|family| &family.promises).collect();
    let shown = |promise: &Promise| tests.iter().any(|test| test.ids.contains(&promise.id));
    let whole = all.iter().filter(|promise| shown(promise) && promise.missing.is_none()).count();
    let part = all.iter().filter(|promise| shown(promise) && promise.missing.is_some()).count();
    let mut page = format!(
        "<!-- Generated by `make generate` from tests/promises.yaml and the tests' doc comments. -->\n# Promises\n\n\
         What Reef promises, and the tests that show it: {whole} of {} are shown, {part} more in part.\n",
        all.len()
    );
    for family in families {
        let _ = write!(page, "\n## {}\n\n| id | promise | shown by | not shown yet |\n|---|---|---|---|\n", family.family);
        for promise in &family.promises {
            let mine: Vec<String> = tests.iter().filter(|test| test.ids.contains(&promise.id)).map(link).collect();
            let missing = promise.missing.as_deref().unwrap_or_default();
            let _ = writeln!(page, "| {} | {} | {} | {missing} |", promise.id, promise.says, mine.join("<br>"));
        }
    }
    page
}

fn link(test: &Test) -> String {
    let breaks = test.breaks.as_ref().map(|words| format!(" (broken by {words})")).unwrap_or_default();
    format!("[{}](../{}){breaks}", test.name.replace('_', " "), test.file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_found_below_its_promises() {
        let text = "/// Promises: Q1, C1\n/// Breaks it: two at once.\n#[test]\nfn one_at_a_time() {\n}\n\nfn other() {}\n";
        let found = tests_of("x.rs", text).unwrap();
        let ids = vec!["Q1".to_owned(), "C1".to_owned()];
        let breaks = Some("two at once.".to_owned());
        assert_eq!(found, [Test { name: "one_at_a_time".into(), file: "x.rs".into(), ids, breaks }]);
    }

    #[test]
    fn promises_that_belong_to_no_test_are_refused() {
        assert!(tests_of("x.rs", "/// Promises: Q1\nstruct X;\n").is_err());
    }

    #[test]
    fn a_promise_needs_a_test_or_a_reason() {
        let yaml = |end: &str| format!("[{{ family: Queue, promises: [{{ id: Q1, says: never twice{end} }}] }}]");
        let families = |end: &str| -> Vec<Family> { serde_norway::from_str(&yaml(end)).unwrap() };
        assert!(check_ids(&families(""), &[]).unwrap_err().to_string().contains("no test shows Q1"));
        assert!(check_ids(&families(", missing: not built"), &[]).is_ok());
        let test = Test { name: "t".into(), file: "x.rs".into(), ids: vec!["Q2".into()], breaks: None };
        assert!(check_ids(&families(", missing: not built"), &[test]).unwrap_err().to_string().contains("`Q2`"));
    }
}
