//! The supervising process itself: starts servers on order, and when the pipe on standard input closes, ends all and tidies up.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufRead, Write},
    os::unix::{fs::DirBuilderExt, process::CommandExt, process::ExitStatusExt},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use super::{Exit, Order, Reply, Server};

/// Process ids of servers that have not been reaped yet: as long as one is here, its number cannot be anybody else's.
type Alive = Arc<Mutex<HashMap<u64, Pid>>>;

/// The body of `reef-testbed supervise DIR`. Returns when the pipe has closed and nothing is left.
pub fn supervise(dir: &Path) -> Result<()> {
    // Signals meant for the test's terminal must not end the one who cleans up after it.
    let _ = rustix::process::setsid();
    fs::DirBuilder::new().mode(0o700).create(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let alive = Alive::default();
    let mut reapers = Vec::new();
    let mut afterwards = Vec::new();
    reply(&Reply::Ready);
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(Order::Start { id, server }) => reapers.extend(start(id, &server, &alive)),
            Ok(Order::Signal { id, signal }) => send(&alive, id, signal),
            Ok(Order::Afterwards { server }) => afterwards.push(server),
            Err(error) => eprintln!("reef-testbed: an order that cannot be read: {error}"),
        }
    }
    end_all(&alive);
    for reaper in reapers {
        let _ = reaper.join();
    }
    for server in afterwards {
        let ended = spawn(&server).and_then(|mut child| Ok(child.wait()?));
        if !ended.is_ok_and(|status| status.success()) {
            eprintln!("reef-testbed: {} did not tidy up: {}", server.program.display(), server.log.display());
        }
    }
    fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))
}

fn start(id: u64, server: &Server, alive: &Alive) -> Option<JoinHandle<()>> {
    match spawn(server) {
        Ok(child) => {
            let pid = Pid::from_child(&child);
            locked(alive).insert(id, pid);
            reply(&Reply::Started { id, pid: pid.as_raw_nonzero().get() });
            let alive = alive.clone();
            Some(thread::spawn(move || reap(id, pid, child, &alive)))
        }
        Err(error) => {
            reply(&Reply::Refused { id, reason: format!("{error:#}") });
            None
        }
    }
}

/// Each server leads a process group, so that its own children go with it. Through `leash`, it also dies with this process.
fn spawn(server: &Server) -> Result<Child> {
    let log = File::options().create(true).append(true).open(&server.log);
    let log = log.with_context(|| format!("cannot open its log {}", server.log.display()))?;
    let child = Command::new(std::env::current_exe()?)
        .arg("leash")
        .arg(&server.program)
        .args(&server.args)
        .envs(server.env.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()?;
    Ok(child)
}

/// The body of `reef-testbed leash PROGRAM ARGS`: becomes the program, which is killed when its parent dies.
pub fn leash(program: &Path, args: &[String]) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let error = Command::new(program).args(args).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

/// Waits for the end without reaping, takes the number off the list, and only then lets the kernel reuse it.
fn reap(id: u64, pid: Pid, mut child: Child, alive: &Alive) {
    while let Err(rustix::io::Errno::INTR) =
        rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
    {}
    if let Some(group) = locked(alive).remove(&id) {
        // Whatever the server started and left behind.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
    if let Ok(status) = child.wait() {
        reply(&Reply::Exited { id, exit: Exit { code: status.code(), signal: status.signal() } });
    }
}

fn send(alive: &Alive, id: u64, signal: i32) {
    let alive = locked(alive);
    if let (Some(pid), Some(signal)) = (alive.get(&id), Signal::from_named_raw(signal)) {
        let _ = rustix::process::kill_process(*pid, signal);
    }
}

fn end_all(alive: &Alive) {
    for pid in locked(alive).values() {
        let _ = rustix::process::kill_process_group(*pid, Signal::KILL);
    }
}

/// Tells the test. When it is gone, nobody listens, and the closing pipe says the rest.
fn reply(reply: &Reply) {
    if let Ok(mut line) = serde_json::to_vec(reply) {
        line.push(b'\n');
        let mut out = io::stdout().lock();
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}

fn locked(alive: &Alive) -> std::sync::MutexGuard<'_, HashMap<u64, Pid>> {
    alive.lock().unwrap_or_else(PoisonError::into_inner)
}
