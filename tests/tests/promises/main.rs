//! Reef's promises, each shown on a real API server with the real `reef` binary: one module per family.
//!
//! A test names the promises that it shows in its doc comment; `docs/promises.md` is generated from them.

mod bed;
