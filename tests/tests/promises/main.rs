//! Reef's promises, each shown on a real API server with the real `reef` binary: one module per family.
//!
//! A test names the promises that it shows in its doc comment; `docs/promises.md` is generated from them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod bed;
mod cache;
mod chart;
mod commands;
mod config_history;
mod database;
mod examples;
mod faults;
mod hello;
mod identity;
mod leadership;
mod life;
mod model;
mod operability;
mod plan;
mod probe;
mod queue;
mod reader;
mod reads;
mod removal;
mod rights;
mod sandbox;
mod sources;
mod toolchains;
mod trust;
mod website;
