//! Running guests: from the bytes of a component to the outcome of one call.
//!
//! [`inspect`] reads what a component says of itself, [`compile`] turns it into native code in a child process, [`cache`]
//! keeps that code, [`load`] links it once per digest, [`call`] runs one reconcile in a fresh store, and [`outcome`] says
//! how it ended. [`engine`] and [`ticker`] are the machine beneath. It knows no Kubernetes client.

pub mod cache;
pub mod call;
pub mod compile;
pub mod engine;
pub mod inspect;
pub mod limits;
pub mod load;
pub mod outcome;
pub mod ticker;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use wasmtime::{Engine, component::Linker};

use self::{cache::Cache, compile::Compiler, ticker::Ticker};
pub use self::{
    call::{Call, Usage},
    compile::{CompileArgs, compile_main},
    inspect::Inspected,
    limits::Limits,
    load::{LoadError, Loaded},
    outcome::{Ended, Outcome},
};
use crate::{
    capability,
    contract::Request,
    names::{Digest, Memory},
};

/// How a host runs guests.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// Private directory of compiled code. Made if it is not there; nobody else may read it.
    pub cache_dir: PathBuf,
    /// Reconciles at once; more wait.
    pub in_flight: u32,
    /// Wall time that one compilation may take.
    pub compile_timeout: Duration,
    /// Address space that one compilation may use.
    pub compile_memory: Memory,
    /// The program whose `compile` command compiles: this one.
    pub reef_binary: PathBuf,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self {
            cache_dir: PathBuf::from("/var/cache/reef"),
            in_flight: 128,
            compile_timeout: Duration::from_secs(60),
            compile_memory: Memory(1 << 30),
            reef_binary: PathBuf::from("/proc/self/exe"),
        }
    }
}

/// Why there is no sandbox: the host cannot run.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("the WebAssembly engine does not start: {0}")]
    Engine(String),
    #[error(transparent)]
    Cache(#[from] cache::CacheError),
}

type Slot = Arc<tokio::sync::Mutex<Weak<Loaded>>>;

/// The engine, its clock, its pool and its compiled code. One per process.
pub struct Sandbox {
    engine: Engine,
    linker: Linker<call::State>,
    ticker: Ticker,
    pool: Semaphore,
    cache: Arc<Cache>,
    compiler: Compiler,
    loaded: Mutex<HashMap<Digest, Slot>>,
}

impl Sandbox {
    pub fn new(options: SandboxOptions) -> Result<Arc<Self>, SandboxError> {
        let failed = |error: wasmtime::Error| SandboxError::Engine(format!("{error:#}"));
        let engine = engine::runtime(options.in_flight).map_err(failed)?;
        let mut linker = Linker::new(&engine);
        capability::add_to_linker(&mut linker).map_err(failed)?;
        let cache = Arc::new(Cache::open(&options.cache_dir, &engine)?);
        Ok(Arc::new(Self {
            ticker: Ticker::start(&engine).map_err(|error| SandboxError::Engine(error.to_string()))?,
            linker,
            pool: Semaphore::new(options.in_flight as usize),
            cache,
            compiler: Compiler::new(options.reef_binary, options.compile_timeout, options.compile_memory),
            loaded: Mutex::default(),
            engine,
        }))
    }

    /// The component, ready to run. Compiled, cached and linked once per digest; whoever drops the last one unloads it.
    pub async fn load(&self, digest: Digest, wasm: Bytes) -> Result<Arc<Loaded>, LoadError> {
        let slot = self.slot(digest);
        let mut slot = slot.lock().await;
        if let Some(loaded) = slot.upgrade() {
            return Ok(loaded);
        }
        let loaded = Arc::new(self.load_afresh(digest, wasm).await?);
        *slot = Arc::downgrade(&loaded);
        Ok(loaded)
    }

    /// One per digest, so that two loads of one component do not compile it twice.
    fn slot(&self, digest: Digest) -> Slot {
        let mut loaded = self.loaded.lock();
        loaded.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|weak| weak.strong_count() > 0));
        loaded.entry(digest).or_default().clone()
    }

    /// Runs one reconcile in a fresh instance, under the limits of the call.
    pub async fn reconcile(&self, loaded: &Loaded, request: Request, call: Call) -> Outcome {
        // Never closed; without a permit the pool itself would refuse.
        let _permit = self.pool.acquire().await;
        call::run(&self.engine, &self.ticker, loaded, request, call).await
    }
}
