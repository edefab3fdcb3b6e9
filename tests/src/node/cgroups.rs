//! One cgroup in each hierarchy, below which the kubelet puts those of its pods.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    control_plane::Network,
    paths,
    supervisor::{Server, Supervisor},
};

/// Without these, no process can be put below a cgroup of this hierarchy.
const CPUSET: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// They go when everything has ended.
pub fn make(supervisor: &Arc<Supervisor>, network: Network) -> Result<()> {
    let name = network.cgroup();
    supervisor.afterwards(Server {
        program: paths::binary("reef-testbed")?,
        args: vec!["sweep".into(), name.clone()],
        env: Vec::new(),
        log: supervisor.dir().join("sweep.log"),
    })?;
    for hierarchy in hierarchies()? {
        hand_down(&hierarchy);
        let cgroup = hierarchy.join(&name);
        fs::create_dir(&cgroup).with_context(|| format!("cannot make the cgroup {}", cgroup.display()))?;
        for file in CPUSET.iter().filter(|file| hierarchy.join(file).is_file()) {
            fs::write(cgroup.join(file), fs::read(hierarchy.join(file))?)?;
        }
    }
    Ok(())
}

/// Version 2 has one hierarchy, in which controllers are handed down one by one. What cannot be had, the kubelet names.
fn hand_down(hierarchy: &Path) {
    let controllers = fs::read_to_string(hierarchy.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = fs::write(hierarchy.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// The body of `reef-testbed sweep NAME`. The kernel takes its time with processes that have been killed.
pub fn sweep(name: &str) -> Result<()> {
    let end = Instant::now() + super::HANG_BOUND;
    for hierarchy in hierarchies()? {
        let cgroup = hierarchy.join(name);
        while let Err(error) = remove(&cgroup) {
            if Instant::now() > end {
                bail!("{} does not go: {error}", cgroup.display());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// From the innermost outwards; the files go with their cgroups.
fn remove(cgroup: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(cgroup) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}

/// Where they are mounted, of both versions.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mounts.lines().filter_map(mounted_hierarchy).collect())
}

/// `35 24 0:30 / /sys/fs/cgroup/memory rw,relatime shared:15 - cgroup cgroup rw,memory`
fn mounted_hierarchy(line: &str) -> Option<PathBuf> {
    let (mount, kind) = line.split_once(" - ")?;
    let kind = kind.split(' ').next()?;
    matches!(kind, "cgroup" | "cgroup2").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let line = |kind: &str| format!("35 24 0:30 / /sys/fs/cgroup/x rw,relatime shared:15 - {kind} none rw");
        for kind in ["cgroup", "cgroup2"] {
            assert_eq!(mounted_hierarchy(&line(kind)), Some("/sys/fs/cgroup/x".into()));
        }
        assert_eq!(mounted_hierarchy(&line("tmpfs")), None);
    }
}
