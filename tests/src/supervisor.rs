//! Keeps servers from outliving the test that started them, however the test ends.
//!
//! `Supervisor` starts a child process (`reef-testbed supervise`, in `warden`) that holds the reading end of a pipe from here. The
//! child owns the directory and starts every server. When the pipe closes, by drop, exit or `kill -9`, it kills every server
//! and removes the directory. Messages are JSON lines in both directions.

pub mod warden;

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::paths;

/// A server to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Server {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Takes standard output and standard error, appended.
    pub log: PathBuf,
}

impl Server {
    fn inside(self, pid: i32) -> Self {
        let enter = [format!("--target={pid}"), "--net".into(), "--mount".into(), "--pid".into(), "--".into()];
        let program = self.program.display().to_string();
        let args = enter.into_iter().chain([program]).chain(self.args).collect();
        Self { program: "nsenter".into(), args, ..self }
    }
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub code: Option<i32>,
    pub signal: Option<i32>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Start { id: u64, server: Server },
    Signal { id: u64, signal: i32 },
    Afterwards { server: Server },
}

#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Ready,
    Started { id: u64, pid: i32 },
    Refused { id: u64, reason: String },
    Exited { id: u64, exit: Exit },
}

#[derive(Debug, Clone)]
enum State {
    Starting,
    Running { pid: i32 },
    Refused(String),
    Ended { pid: i32, exit: Exit },
}

#[derive(Default)]
struct Board {
    servers: Mutex<HashMap<u64, State>>,
    changed: Condvar,
}

/// The test's end of the pipe. Dropping it ends everything and waits until it has ended.
pub struct Supervisor {
    dir: PathBuf,
    child: Mutex<Child>,
    orders: Mutex<Option<ChildStdin>>,
    board: Arc<Board>,
    next: AtomicU64,
    /// Whose namespaces servers start in.
    inside: OnceLock<i32>,
}

/// A server that runs, or ran, under a supervisor.
#[derive(Clone)]
pub struct Process {
    supervisor: Arc<Supervisor>,
    id: u64,
    pid: i32,
}

impl Supervisor {
    /// `dir` must not exist: it is made, and removed at the end.
    pub fn start(dir: &Path) -> Result<Arc<Self>> {
        let mut child = Command::new(paths::binary("reef-testbed")?)
            .arg("supervise")
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the supervisor")?;
        let orders = child.stdin.take();
        let replies = BufReader::new(child.stdout.take().context("the supervisor has no output")?);
        let board = Arc::new(Board::default());
        let replies = expect_ready(replies, dir)?;
        let listener = board.clone();
        thread::spawn(move || listener.listen(replies));
        let (child, orders) = (Mutex::new(child), Mutex::new(orders));
        Ok(Arc::new(Self { dir: dir.to_path_buf(), child, orders, board, next: AtomicU64::new(1), inside: OnceLock::new() }))
    }

    /// The directory that lives as long as this supervisor.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The supervisor's own process id.
    pub fn pid(&self) -> u32 {
        lock(&self.child).id()
    }

    /// From now on, servers start in the network, mount and process namespaces of this process.
    pub fn enter(&self, pid: i32) -> Result<()> {
        self.inside.set(pid).ok().context("servers start in the namespaces of another process already")
    }

    /// Runs this when every server has ended, before the directory goes: for what is left of them elsewhere.
    pub fn afterwards(&self, server: Server) -> Result<()> {
        self.order(&Order::Afterwards { server })
    }

    pub fn spawn(self: &Arc<Self>, server: Server) -> Result<Process> {
        let server = match self.inside.get() {
            Some(pid) => server.inside(*pid),
            None => server,
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let program = server.program.clone();
        self.board.set(id, State::Starting);
        self.order(&Order::Start { id, server })?;
        match self.board.wait(id, Duration::from_secs(30), |state| !matches!(state, State::Starting)) {
            Some(State::Running { pid } | State::Ended { pid, .. }) => Ok(Process { supervisor: self.clone(), id, pid }),
            Some(State::Refused(reason)) => bail!("cannot start {}: {reason}", program.display()),
            _ => bail!("cannot start {}: the supervisor does not answer", program.display()),
        }
    }

    fn order(&self, order: &Order) -> Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        let mut orders = lock(&self.orders);
        let pipe = orders.as_mut().context("the supervisor has been told to end")?;
        pipe.write_all(&line).context("the supervisor is gone")
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        lock(&self.orders).take();
        // Without a supervisor there is nothing left to wait for.
        let _ = lock(&self.child).wait();
    }
}

impl Process {
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal, unless the server has ended.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        self.supervisor.order(&Order::Signal { id: self.id, signal: signal.as_raw() })
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        self.wait_exit(Duration::ZERO)
    }

    /// Waits until it has ended, at most `bound`.
    pub fn wait_exit(&self, bound: Duration) -> Option<Exit> {
        match self.supervisor.board.wait(self.id, bound, |state| matches!(state, State::Ended { .. })) {
            Some(State::Ended { exit, .. }) => Some(exit),
            _ => None,
        }
    }

    /// `kill -9`, and gone when this returns.
    pub fn kill(&self) -> Result<()> {
        self.signal(rustix::process::Signal::KILL)?;
        self.wait_exit(Duration::from_secs(30)).map(drop).context("a killed process does not go away")
    }
}

impl Board {
    fn set(&self, id: u64, state: State) {
        lock(&self.servers).insert(id, state);
        self.changed.notify_all();
    }

    fn wait(&self, id: u64, bound: Duration, done: impl Fn(&State) -> bool) -> Option<State> {
        let end = Instant::now() + bound;
        let mut servers = lock(&self.servers);
        loop {
            let state = servers.get(&id).filter(|state| done(state)).cloned();
            let left = end.saturating_duration_since(Instant::now());
            if state.is_some() || left.is_zero() {
                return state;
            }
            servers = self.changed.wait_timeout(servers, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn listen(&self, replies: BufReader<ChildStdout>) {
        for line in replies.lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(Reply::Started { id, pid }) => self.set(id, State::Running { pid }),
                Ok(Reply::Refused { id, reason }) => self.set(id, State::Refused(reason)),
                Ok(Reply::Exited { id, exit }) => {
                    let pid = match lock(&self.servers).get(&id) {
                        Some(State::Running { pid }) => *pid,
                        _ => 0,
                    };
                    self.set(id, State::Ended { pid, exit });
                }
                Ok(Reply::Ready) | Err(_) => {}
            }
        }
    }
}

/// Waits for the first reply; an end instead has its reason on standard error.
fn expect_ready(mut replies: BufReader<ChildStdout>, dir: &Path) -> Result<BufReader<ChildStdout>> {
    let mut line = String::new();
    replies.read_line(&mut line)?;
    match serde_json::from_str(&line) {
        Ok(Reply::Ready) => Ok(replies),
        _ => bail!("the supervisor could not take the directory {}", dir.display()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
