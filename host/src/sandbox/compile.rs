//! Compiling is hostile work: it happens in a child process with little memory, little time and no way to anything else.
//!
//! The child is this same program (`reef compile`). The component comes in on stdin, native code goes out on stdout; it
//! has no files, no environment and no secrets. It dies with its parent, whose end of stdin stays open until it is done.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{ExitCode, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, nice, setrlimit};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    sync::Semaphore,
};

use super::{LoadError, engine};
use crate::names::{Memory, Span};

/// Native code of one component.
const MAX_CODE: u64 = 256 << 20;
/// What is kept of a compiler's complaint.
const MAX_COMPLAINT: u64 = 4096;
/// Compilations at once.
const AT_ONCE: usize = 2;

/// Starts compilers.
pub struct Compiler {
    program: PathBuf,
    timeout: Duration,
    memory: Memory,
    turns: Semaphore,
}

impl Compiler {
    pub fn new(program: PathBuf, timeout: Duration, memory: Memory) -> Self {
        Self { program, timeout, memory, turns: Semaphore::new(AT_ONCE) }
    }

    /// Native code for these bytes.
    pub async fn compile(&self, wasm: Bytes) -> Result<Vec<u8>, LoadError> {
        let _turn = self.turns.acquire().await;
        let child = self
            .start(wasm.len())
            .map_err(|error| LoadError::Io(format!("the compiler {} does not start: {error}", self.program.display())))?;
        // Dropping the child, as the timeout does, kills it.
        match tokio::time::timeout(self.timeout, finish(child, wasm)).await {
            Ok(Ok((status, code, complaint))) => self.judge(status, code, &complaint),
            Ok(Err(error)) => Err(LoadError::Io(format!("the compiler cannot be talked to: {error}"))),
            Err(_) => Err(self.too_long()),
        }
    }

    fn start(&self, length: usize) -> io::Result<Child> {
        let seconds = self.timeout.as_secs().max(1);
        Command::new(&self.program)
            .arg("compile")
            .args(["--length".to_owned(), length.to_string()])
            .args(["--memory".to_owned(), self.memory.0.to_string()])
            .args(["--cpu".to_owned(), seconds.to_string()])
            .env_clear()
            // Its allocator would reserve address space in advance, which is what the limit counts.
            .env("MIMALLOC_ARENA_RESERVE", "0")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }

    fn judge(&self, status: ExitStatus, code: Vec<u8>, complaint: &str) -> Result<Vec<u8>, LoadError> {
        if status.success() && !code.is_empty() && code.len() as u64 <= MAX_CODE {
            return Ok(code);
        }
        if status.success() {
            return Err(LoadError::Compile(format!("compiling it made more than {} of code: make it smaller", Memory(MAX_CODE))));
        }
        if status.code() == Some(REFUSED) {
            return Err(LoadError::Compile(format!("it does not compile: {complaint}")));
        }
        const CPU_LIMIT: i32 = 24;
        match status.signal() {
            Some(CPU_LIMIT) => Err(self.too_long()),
            // The allocator's words, and those of crates that are told of it.
            _ if ["memory allocation of", "OutOfMemory"].iter().any(|words| complaint.contains(words)) => {
                Err(LoadError::Compile(format!(
                    "compiling it takes more than {} of memory: make it smaller, or raise the host's compile memory",
                    self.memory
                )))
            }
            _ => Err(LoadError::Compile(format!("the compiler died of it ({status}): {complaint}"))),
        }
    }

    fn too_long(&self) -> LoadError {
        let timeout = Span(self.timeout);
        LoadError::Compile(format!(
            "compiling it takes longer than {timeout}: make it smaller, or raise the host's compile timeout"
        ))
    }
}

/// Feeds the child and collects what it says, all at once, since each pipe may fill up first.
async fn finish(mut child: Child, wasm: Bytes) -> io::Result<(ExitStatus, Vec<u8>, String)> {
    let missing = || io::Error::other("a pipe is missing");
    let mut stdin = child.stdin.take().ok_or_else(missing)?;
    let stdout = child.stdout.take().ok_or_else(missing)?;
    let stderr = child.stderr.take().ok_or_else(missing)?;
    let feed = async {
        // A child that dies early stops reading; its status says more than the broken pipe.
        let _ = stdin.write_all(&wasm).await;
        let _ = stdin.flush().await;
    };
    let ((), code, complaint) = tokio::join!(feed, capped(stdout, MAX_CODE), capped(stderr, MAX_COMPLAINT));
    let status = child.wait().await?;
    drop(stdin);
    let complaint = String::from_utf8_lossy(&complaint?).trim().escape_debug().to_string();
    Ok((status, code?, complaint))
}

/// At most one byte more than allowed; a child that writes on gets a broken pipe.
async fn capped(pipe: impl AsyncRead + Unpin, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.take(most + 1).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// The exit code that says: the component is at fault.
const REFUSED: i32 = 2;

/// The arguments of the hidden command `reef compile`.
#[derive(Debug, Clone, clap::Args)]
pub struct CompileArgs {
    /// Bytes of the component on stdin.
    #[arg(long)]
    length: u64,
    /// Bytes of address space.
    #[arg(long)]
    memory: u64,
    /// Seconds of processor time.
    #[arg(long)]
    cpu: u64,
}

/// The body of `reef compile`: one component from stdin, native code to stdout.
pub fn compile_main(args: &CompileArgs) -> ExitCode {
    let read = confine(args).and_then(|()| {
        let mut wasm = Vec::new();
        io::stdin().take(args.length).read_to_end(&mut wasm).map(|_| wasm)
    });
    let code = match read {
        Ok(wasm) => {
            die_with_parent();
            engine::compiler().and_then(|engine| engine.precompile_component(&wasm))
        }
        Err(error) => return complain(ExitCode::FAILURE, &error.to_string()),
    };
    match code.map(|code| io::stdout().write_all(&code)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => complain(ExitCode::FAILURE, &error.to_string()),
        Err(error) => complain(ExitCode::from(REFUSED as u8), &format!("{error:#}")),
    }
}

fn complain(code: ExitCode, sentence: &str) -> ExitCode {
    // Nobody is left to tell when stderr is gone too.
    let _ = writeln!(io::stderr(), "{sentence}");
    code
}

/// Gives up whatever compiling does not need.
fn confine(args: &CompileArgs) -> io::Result<()> {
    for (resource, most) in [
        (Resource::As, args.memory),
        (Resource::Cpu, args.cpu),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nofile, 16),
    ] {
        // One more for the hard limit, so that the signal of the soft one tells which it was.
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most.saturating_add(1)) })?;
    }
    // Guests that run come first; if that is not allowed, it is no reason not to compile.
    let _ = nice(10);
    Ok(())
}

/// The parent keeps stdin open while it waits: when it ends, so does the parent.
fn die_with_parent() {
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(1);
    });
}
