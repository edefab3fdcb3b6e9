//! The functions by themselves: no cluster, no Wasm.

mod backups;
mod databases;
