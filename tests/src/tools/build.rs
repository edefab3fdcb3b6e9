//! Builds a tool from its pinned, checksummed Go module into the cache, once per module version, whoever asks.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::{Progress, Wanted};
use crate::paths;

/// How often a long build says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Where the built binary is, or will be. The name holds everything that decides over its content.
pub fn place(wanted: Wanted) -> Result<PathBuf> {
    let module = module(wanted);
    let mut hash = Sha256::new();
    let files: &[&str] = if wanted.module == "pod" { &["go.mod", "main.go"] } else { &["go.mod", "go.sum"] };
    for file in files {
        let path = module.join(file);
        hash.update(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    hash.update(std::env::consts::ARCH);
    let digest: String = hex::encode(hash.finalize()).chars().take(16).collect();
    let dir = format!("{}-{}-{digest}", wanted.module, pinned_version(wanted)?);
    Ok(super::cache()?.join(dir).join(wanted.name))
}

fn module(wanted: Wanted) -> PathBuf {
    paths::checkout().join("tests/tools").join(wanted.module)
}

/// The version that `go.mod` pins the tool's own module to, as in `v1.36.3`.
fn pinned_version(wanted: Wanted) -> Result<String> {
    if wanted.module == "pod" {
        return Ok("v1.0.0".into());
    }
    let path = module(wanted).join("go.mod");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let owner = text.lines().map(str::trim).filter(|line| !line.contains("=>")).find_map(|line| {
        let (name, version) = line.split_once(' ')?;
        let ours = wanted.package == name || wanted.package.starts_with(&format!("{name}/"));
        (ours && version.starts_with('v')).then(|| version.split(' ').next().unwrap_or(version).to_owned())
    });
    owner.with_context(|| format!("{} does not require the module of {}", path.display(), wanted.package))
}

pub fn build(wanted: Wanted, progress: Progress) -> Result<PathBuf> {
    let place = place(wanted)?;
    let dir = place.parent().context("the cache has no directory")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let lock = File::create(dir.join(format!(".{}.lock", wanted.name)))?;
    if lock.try_lock().is_err() {
        progress(&format!("waiting for another run that is building {}", wanted.name));
        lock.lock()?;
    }
    if !place.is_file() {
        compile(wanted, dir, &place, progress)?;
    }
    Ok(place)
}

/// Compiles beside the place and renames, so that nobody ever sees half a binary.
fn compile(wanted: Wanted, dir: &Path, place: &Path, progress: Progress) -> Result<()> {
    require_go(wanted)?;
    let version = pinned_version(wanted)?;
    let expected = match wanted.module {
        "kubernetes" => "up to 5 minutes on two cores the first time",
        "cosign-v2" | "cosign-v3" => "some 5 minutes on two cores the first time",
        "distribution" | "helm" | "containerd" => "about three minutes on two cores the first time",
        _ => "about a minute",
    };
    progress(&format!("building {} {version} from source, {expected}, then it is cached in {}", wanted.name, dir.display()));
    let scratch = tempfile::Builder::new().prefix(".build-").tempdir_in(dir)?;
    let output = scratch.path().join(wanted.name);
    let start = Instant::now();
    run(go_build(wanted, &version, &output), wanted, progress)?;
    fs::rename(&output, place)?;
    progress(&format!("built {} {version} in {}", wanted.name, elapsed(start)));
    Ok(())
}

fn require_go(wanted: Wanted) -> Result<()> {
    if Command::new("go").arg("version").output().is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    bail!(
        "`{name}` is neither in KUBEBUILDER_ASSETS nor on PATH, and Go is not there to build it: install Go 1.21 or newer (https://go.dev/dl), or put {name} on PATH",
        name = wanted.name
    )
}

fn go_build(wanted: Wanted, version: &str, output: &Path) -> Command {
    let mut flags = "-s -w".to_owned();
    if wanted.module == "kubernetes" {
        let mut numbers = version.trim_start_matches('v').split('.');
        let (major, minor) = (numbers.next().unwrap_or("1"), numbers.next().unwrap_or("0"));
        let set = "-X k8s.io/component-base/version.git";
        flags += &format!(" {set}Version={version} {set}Major={major} {set}Minor={minor}");
    }
    if wanted.module.starts_with("cosign") {
        flags += &format!(" -X sigs.k8s.io/release-utils/version.gitVersion={version}");
    }
    if wanted.module == "crane" {
        flags += &format!(" -X github.com/google/go-containerregistry/cmd/crane/cmd.Version={version}");
    }
    if wanted.module == "helm" {
        flags += &format!(" -X helm.sh/helm/v4/internal/version.version={version}");
    }
    if wanted.module == "containerd" {
        flags += &format!(" -X github.com/containerd/containerd/v2/version.Version={version}");
    }
    if wanted.module == "cni" {
        flags += &format!(" -X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion={version}");
    }
    // Without the snapshotters that need libraries of their own.
    let tags = if wanted.module == "containerd" { "no_btrfs,no_zfs,no_devmapper" } else { "" };
    let mut command = Command::new("nice");
    command
        .args([
            "-n",
            "10",
            "go",
            "build",
            "-v",
            "-trimpath",
            "-buildvcs=false",
            "-mod=readonly",
            "-tags",
            tags,
            "-ldflags",
            &flags,
            "-o",
        ])
        .arg(output)
        .arg(wanted.package)
        .current_dir(module(wanted))
        .envs([("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "auto"), ("GOWORK", "off"), ("GOFLAGS", "")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Runs the build, says every few seconds how far it is, and shows the end of its output if it fails.
fn run(mut command: Command, wanted: Wanted, progress: Progress) -> Result<()> {
    let mut child = command.spawn().context("cannot run `nice go build`")?;
    let (lines, tail) = follow(&mut child);
    let start = Instant::now();
    let mut said = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if said.elapsed() >= HEARTBEAT {
            said = Instant::now();
            let packages = lines.load(Ordering::Relaxed);
            progress(&format!("still building {}: {}, {packages} packages so far", wanted.name, elapsed(start)));
        }
        thread::sleep(Duration::from_millis(100));
    };
    if !status.success() {
        let tail = tail.lock().map(|lines| lines.join("\n")).unwrap_or_default();
        bail!("building {} failed ({status}); `go build` said:\n{tail}", wanted.name);
    }
    Ok(())
}

/// Counts the lines that the build prints, one per package, and keeps the last ones.
fn follow(child: &mut Child) -> (Arc<AtomicUsize>, Arc<Mutex<Vec<String>>>) {
    let (lines, tail) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    if let Some(stderr) = child.stderr.take() {
        let (lines, tail) = (lines.clone(), tail.clone());
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.fetch_add(1, Ordering::Relaxed);
                if let Ok(mut tail) = tail.lock() {
                    tail.push(line);
                    let surplus = tail.len().saturating_sub(30);
                    tail.drain(..surplus);
                }
            }
        });
    }
    (lines, tail)
}

fn elapsed(start: Instant) -> String {
    let seconds = start.elapsed().as_secs();
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min {} s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::super::{ETCD, KUBE_APISERVER};
    use super::*;

    #[test]
    fn the_place_names_module_and_version() {
        let (etcd, api) = (place(ETCD).unwrap(), place(KUBE_APISERVER).unwrap());
        assert!(api.to_string_lossy().contains("/tools/kubernetes-v1."), "{}", api.display());
        assert!(etcd.to_string_lossy().contains("/tools/etcd-v3."), "{}", etcd.display());
        assert!(etcd.ends_with("etcd"));
    }
}
