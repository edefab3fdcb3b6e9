//! Reef: a Kubernetes operator host that runs many small reconcilers, each a sandboxed WebAssembly component.
//!
//! The rooms stand in the order in which data flows through them; `ARCHITECTURE.md` walks through one reconcile.

pub mod admin;
pub mod capability;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod contract;
pub mod dispatch;
pub mod event;
pub mod finalizer;
pub mod identity;
pub mod leader;
mod memory;
pub mod metrics;
pub mod names;
pub mod plan;
pub mod queue;
pub mod rbac;
pub mod sandbox;
pub mod source;
pub mod status;
pub mod trust;
pub mod watch;

#[cfg(test)]
mod tidy;
