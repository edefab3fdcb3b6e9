//! Reef: a Kubernetes operator host that runs many small reconcilers, each a sandboxed WebAssembly component.
//!
//! The rooms stand in the order in which data flows through them; `ARCHITECTURE.md` walks through one reconcile.

pub mod names;
pub mod config;
pub mod contract;
pub mod identity;
pub mod source;
pub mod catalog;
pub mod watch;
pub mod queue;
pub mod capability;
pub mod sandbox;
pub mod plan;
pub mod leader;
pub mod metrics;
pub mod admin;
pub mod status;
pub mod dispatch;
pub mod cli;
