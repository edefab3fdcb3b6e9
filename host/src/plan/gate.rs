//! The leadership gate: asked before every write.
//!
//! A reconcile belongs to the term in which its object was read. Whoever leads again after a break has read anew, so a
//! plan of an earlier term is dropped even if the gate is open.

use std::sync::Arc;

/// The term in which the gate was open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass(pub u64);

/// Somebody else leads, or nobody: nothing may be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this host does not lead")]
pub struct Closed;

/// Cheap and never blocking: it is asked before each single write.
pub type Gate = Arc<dyn Fn() -> Result<Pass, Closed> + Send + Sync>;
