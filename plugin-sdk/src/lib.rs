//! Write Kubernetes reconcilers as WebAssembly components for Reef.
//!
//! A reconciler is one function: it reads the world and returns a [`Plan`]. It has no way to write; the host applies the
//! plan, owns and repairs the children, and runs the function again when something that it read has changed.
//!
//! ```
//! use plugin_sdk::prelude::*;
//!
//! #[derive(Deserialize)]
//! struct Hello { text: String }
//!
//! fn reconcile(hello: Object<Hello>, _cx: &Context) -> Result<Plan> {
//!     let config = hello.child("v1/ConfigMap", json!({ "data": { "text": hello.spec.text } }));
//!     Ok(Plan::new().own(config).status(json!({ "ready": true })))
//! }
//!
//! plugin!(reconcile, for: "demo.reef.dev/v1/Hello", owns: ["v1/ConfigMap"]);
//!
//! # fn main() {
//! let cluster = Context::fake();
//! let plan = cluster.run(reconcile, "{ metadata: { name: hi }, spec: { text: Moin } }").unwrap();
//! assert_eq!(plan.owned("v1/ConfigMap", "hi")["data"]["text"], "Moin");
//! # }
//! ```
//!
//! The rooms: [`Object`] comes in, [`Context`] is the only door to the outside, [`Plan`] or [`Error`] goes out, and
//! [`plugin!`] makes a component of it. This crate knows the contract in `wit/` and never the host.

#![deny(missing_docs)]

mod check;
mod context;
#[cfg(not(target_family = "wasm"))]
mod crd;
mod digest;
mod entry;
mod error;
#[cfg(not(target_family = "wasm"))]
mod fake;
mod macros;
mod object;
mod plan;
mod report;
mod time;

#[cfg(target_family = "wasm")]
mod arena;
#[cfg(target_family = "wasm")]
mod host;
#[cfg(target_family = "wasm")]
mod log;

pub use context::{Context, Rng};
pub use digest::digest;
pub use error::{Error, Result};
#[cfg(not(target_family = "wasm"))]
pub use fake::{Fake, Planned, Written};
pub use object::{Metadata, Object};
pub use plan::{Plan, Propagation};
pub use report::{Condition, Event};
pub use time::{Interval, Timestamp};
pub use {serde, serde_json, tracing};

/// What a plugin needs, in one line: `use plugin_sdk::prelude::*;`.
pub mod prelude {
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::{Value, json};
    pub use tracing;

    #[cfg(not(target_family = "wasm"))]
    pub use crate::crd_test;
    pub use crate::{
        Condition, Context, Error, Event, Interval, Metadata, Object, Plan, Propagation, Result, Timestamp, digest, ensure,
        plugin,
    };
}

/// What `plugin!` expands to. Nothing here is part of the API.
#[doc(hidden)]
pub mod __private {
    pub use crate::check::{EXTRA, appears_once, copied, count, document, is_condition, is_dns_label, is_kind, same_group_kind};
    #[cfg(not(target_family = "wasm"))]
    pub use crate::crd::{Crd, Disagreement, agree, defaulted};
    pub use crate::entry::{Entry, cleanup, reconcile, unknown_kind};
    #[cfg(target_family = "wasm")]
    pub use crate::host::{bindings, enter};
}
