//! The test bed's own promise: whatever happens to a test, nothing of its control plane is left.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reef_tests::paths;
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn a_killed_test_leaves_neither_processes_nor_files() {
    let (holder, dir) = hold_a_control_plane("killed-test");
    assert_eq!(processes_of(&dir, "kube-apiserver").len(), 1);
    drop(holder);
    wait_until("everything is gone", || processes_of(&dir, "").is_empty() && !dir.exists());
}

#[test]
fn servers_die_with_their_supervisor_too() {
    let (holder, dir) = hold_a_control_plane("killed-supervisor");
    let supervisor = processes_of(&dir, " supervise ");
    assert_eq!(supervisor.len(), 1);
    kill_process(Pid::from_raw(supervisor[0]).unwrap(), Signal::KILL).unwrap();
    wait_until("the servers are gone", || processes_of(&dir, "etcd").is_empty() && processes_of(&dir, "kube-").is_empty());
    drop(holder);
    fs::remove_dir_all(&dir).unwrap();
}

/// A process that stands for a test: it has started a control plane and keeps it.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn hold_a_control_plane(name: &str) -> (Holder, PathBuf) {
    let dir = std::env::temp_dir().join(format!("reef-bed-{}-{name}", std::process::id()));
    let testbed = paths::binary("reef-testbed").unwrap();
    let mut holder = Holder(Command::new(testbed).arg("hold").arg(&dir).stdout(Stdio::null()).spawn().unwrap());
    wait_until("the control plane serves", || {
        assert!(holder.0.try_wait().unwrap().is_none(), "the control plane did not start");
        dir.join("ready").exists()
    });
    (holder, dir)
}

/// Processes, zombies aside, whose command line names the directory and contains a word.
fn processes_of(dir: &Path, word: &str) -> Vec<i32> {
    let dir = dir.to_string_lossy();
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let matches = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(&*dir) && line.contains(word)
    };
    numbers.filter(matches).collect()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
