//! Everything that a guest can reach outside of its sandbox, one import per file.
//!
//! A reconcile's powers are the fields of [`Powers`], all on one screen. The bindings are generated from `wit/`;
//! [`grant`] decides what may be asked for, [`reads`] answers it, [`log`] writes lines into the host's log, [`wasi`] is
//! the inert rest that language runtimes pull in. It knows no Kubernetes client.

pub mod grant;
pub mod log;
pub mod project;
pub mod reads;
pub mod wasi;

use std::sync::Arc;

use wasmtime::component::{HasData, Linker};

pub use self::{
    grant::Grant,
    reads::{Reads, Recorded},
};
use self::{log::Journal, reads::Reader, wasi::Inert};
use crate::{contract::Request, names::PluginId};

/// The generated glue: the only place where the WIT's words become Rust types.
pub mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "plugin",
        imports: {
            "reef:plugin/log": trappable,
            default: async | trappable,
        },
        exports: { default: async },
    });
}

/// What one reconcile may reach. Made for one call, gone with it.
pub struct Powers {
    pub reads: Reader,
    pub journal: Journal,
    pub wasi: Inert,
}

impl Powers {
    pub fn new(request: &Request, plugin: &PluginId, grant: Arc<Grant>, reads: Arc<dyn Reads>) -> Self {
        let journal = Journal::new(plugin.clone(), request.key.clone());
        let wasi = Inert::new(request.now, request.seed, journal.clone());
        Self { reads: Reader::new(grant, reads), journal, wasi }
    }
}

/// A store's data that carries [`Powers`].
pub trait HasPowers: Send + 'static {
    fn powers(&mut self) -> &mut Powers;
}

struct ReadsOf;

impl HasData for ReadsOf {
    type Data<'a> = &'a mut Reader;
}

struct JournalOf;

impl HasData for JournalOf {
    type Data<'a> = &'a mut Journal;
}

/// Links every import that this host offers.
pub fn add_to_linker<T: HasPowers>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    bindings::reef::plugin::types::add_to_linker::<T, JournalOf>(linker, |data| &mut data.powers().journal)?;
    bindings::reef::plugin::reads::add_to_linker::<T, ReadsOf>(linker, |data| &mut data.powers().reads)?;
    bindings::reef::plugin::log::add_to_linker::<T, JournalOf>(linker, |data| &mut data.powers().journal)?;
    wasi::add_to_linker(linker)
}
