//! The test bed: a real control plane, the real `reef` binary, and what a test needs to ask them questions.
//!
//! `tools` finds or builds the servers, `supervisor` makes sure that they never outlive a test, `control_plane` starts them,
//! `cluster` talks to the API server as its admin, `proxy` spoils what the host asks it, `registry`
//! starts a real registry, `scripted` is one that misbehaves, `node` is a cluster that runs pods, `audit` reads what everybody did, `host`
//! runs `reef host`, and `world` gives each test a namespace of its own on one shared control plane. `demo` is what `make demo`
//! shows, `bench` what `make bench` measures, `e2e` what `make e2e` goes through. Nothing here knows the host's code: it sees what a user sees.

#![allow(clippy::indexing_slicing, reason = "a JSON value is indexed by key, and answers null for one that it has not")]

pub mod audit;
pub mod bench;
pub mod certificates;
pub mod cluster;
pub mod control_plane;
pub mod cosign;
pub mod demo;
pub mod e2e;
pub mod host;
pub mod node;
pub mod paths;
pub mod proxy;
pub mod random;
pub mod registry;
pub mod scripted;
pub mod soak;
pub mod state;
pub mod supervisor;
pub mod tools;
pub mod webhook;
pub mod world;
