//! From a request to the author's function: decode, choose between reconcile and cleanup, call.
//!
//! `plugin!` writes the list of kinds; everything that does not depend on it is here. It knows neither host nor fake.

use serde::de::{DeserializeOwned, IgnoredAny};

use crate::{
    context::Context,
    error::{Error, Result},
    object::Object,
    plan::Plan,
};

/// What `plugin!` makes of all functions of a component: by kind, with the object as JSON text.
pub type Entry = fn(kind: &str, object: String, cx: &Context) -> Result<Plan>;

/// What an author writes. A pointer, not a trait: then a function that does not fit is told what it should look like.
pub type Function<Spec, Status> = fn(Object<Spec, Status>, &Context) -> Result<Plan>;

/// A kind without cleanup. An object that is going away needs nothing of us then: its children go with it.
pub fn reconcile<Spec: DeserializeOwned, Status>(
    reconcile: Function<Spec, Status>,
    object: String,
    cx: &Context,
) -> Result<Plan> {
    let object = Object::decode(object)?;
    if object.is_deleting() { Ok(Plan::done()) } else { reconcile(object, cx) }
}

/// A kind with cleanup; its two functions may read the spec as different types.
pub fn cleanup<Spec: DeserializeOwned, Status, S: DeserializeOwned, T>(
    reconcile: Function<Spec, Status>,
    cleanup: Function<S, T>,
    object: String,
    cx: &Context,
) -> Result<Plan> {
    let metadata: Object<IgnoredAny> = Object::decode(object)?;
    if metadata.is_deleting() { cleanup(metadata.cast()?, cx) } else { reconcile(metadata.cast()?, cx) }
}

/// The host asks only for kinds of the manifest, so this is its error.
pub fn unknown_kind(kind: &str) -> Error {
    Error::terminal(format!("this plugin does not reconcile {kind}: its manifest names the kinds")).reason("UnknownKind")
}
