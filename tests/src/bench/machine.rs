//! On what the figures were taken.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::Result;
use k8s_openapi::jiff::Timestamp;

use super::record::Setting;
use crate::{paths, tools};

/// The machine, the programs and the checkout as they are now.
pub fn setting() -> Result<Setting> {
    let when = Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string();
    let profile = std::env::current_exe()?.parent().and_then(|dir| Some(dir.file_name()?.to_string_lossy().into_owned()));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    Ok(Setting {
        when,
        commit: commit(),
        machine: machine(),
        versions: versions()?,
        profile: profile.unwrap_or_default(),
        load: load.split(' ').next().unwrap_or_default().to_owned(),
    })
}

fn commit() -> String {
    let checkout = paths::checkout();
    let checkout = checkout.to_string_lossy();
    let commit = output("git", &["-C", &checkout, "rev-parse", "--short=12", "HEAD"]);
    let changed = output("git", &["-C", &checkout, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs"]);
    match (commit.is_empty(), changed.is_empty()) {
        (true, _) => "unknown".into(),
        (false, true) => commit,
        (false, false) => format!("{commit}+"),
    }
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")).map_or("", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let gib = kib.map_or(0.0, |kib| kib / 1024.0 / 1024.0);
    format!("{cores} cores of {model}, {gib:.0} GiB, Linux {}", kernel.trim())
}

fn versions() -> Result<BTreeMap<String, String>> {
    let tools = tools::locate(&|line| eprintln!("{line}"))?;
    let mut versions = BTreeMap::new();
    for tool in [&tools.etcd, &tools.kube_apiserver] {
        versions.insert(tool.name.to_owned(), number(&tool.version));
    }
    versions.insert("rustc".into(), number(&output("rustc", &["--version"])));
    let checkout = paths::checkout();
    let peers = checkout.join("tests/peers");
    let lock = fs::read_to_string(peers.join("kube-rs/Cargo.lock")).unwrap_or_default();
    let kube = lock.split("[[package]]").find_map(|package| package.trim_start().strip_prefix("name = \"kube\"\nversion = \""));
    versions.insert("kube-rs".into(), kube.and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned());
    let module = fs::read_to_string(peers.join("controller-runtime/go.mod")).unwrap_or_default();
    let version = module.lines().find_map(|line| line.trim().strip_prefix("sigs.k8s.io/controller-runtime v"));
    versions.insert("controller-runtime".into(), version.unwrap_or_default().to_owned());
    versions.insert("Go".into(), output("go", &["env", "GOVERSION"]).trim_start_matches("go").to_owned());
    versions.retain(|_, version| !version.is_empty());
    Ok(versions)
}

/// The first word with a number in it.
fn number(said: &str) -> String {
    let word = said.split_whitespace().find(|word| word.contains('.') && word.contains(|c: char| c.is_ascii_digit()));
    word.unwrap_or(said).trim_start_matches('v').to_owned()
}

/// What a program prints; nothing if it is not there or fails.
fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).trim().to_owned()
}
