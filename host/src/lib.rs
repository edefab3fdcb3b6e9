//! Reef: a Kubernetes operator host that runs many small reconcilers, each a sandboxed WebAssembly component.
//!
//! The rooms stand in the order in which data flows through them; `ARCHITECTURE.md` walks through one reconcile.

pub mod contract;
pub mod identity;
pub mod names;
pub mod plan;
pub mod watch;
