//! What a node needs of the machine, as sentences that say what to do.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

/// Programs that are not built here, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 6] = [
    ("runc", "runc"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
];

/// What is mounted over inside of the node.
const HIDDEN: [&str; 4] = ["/run", "/var/run", "/var/log", "/var/lib"];

/// Whether it can be had here; where runc is.
pub fn check() -> Result<PathBuf> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "a node needs root, for namespaces, mounts and cgroups: run this as root on a Linux machine of your own, or give the tests a kubeconfig of a cluster that is there"
    );
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| find(program).is_none()).collect();
    if !missing.is_empty() {
        let programs: Vec<_> = missing.iter().map(|(program, _)| format!("`{program}`")).collect();
        let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
        packages.dedup();
        bail!(
            "a node needs {}, which PATH does not have: `apt install --no-install-recommends {}` brings that on Debian",
            programs.join(", "),
            packages.join(" ")
        );
    }
    find("runc").context("runc has gone")
}

/// Whether it can be in this directory.
pub fn place(dir: &Path) -> Result<()> {
    for hidden in HIDDEN {
        ensure!(!dir.starts_with(hidden), "a node cannot live in {}: {hidden} is another one inside of it", dir.display());
    }
    Ok(())
}

fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file())
}
