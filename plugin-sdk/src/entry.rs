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

/// A plain function is one: nobody needs to implement this.
#[diagnostic::on_unimplemented(
    message = "this is not a reconcile function",
    label = "write `fn reconcile(object: Object<Spec>, cx: &Context) -> Result<Plan>`, with `Spec: Deserialize`"
)]
pub trait Reconcile<Spec, Status> {
    fn call(&self, object: Object<Spec, Status>, cx: &Context) -> Result<Plan>;
}

impl<F, Spec, Status> Reconcile<Spec, Status> for F
where
    F: Fn(Object<Spec, Status>, &Context) -> Result<Plan>,
{
    fn call(&self, object: Object<Spec, Status>, cx: &Context) -> Result<Plan> {
        self(object, cx)
    }
}

/// A kind without cleanup. An object that is going away needs nothing of us then: its children go with it.
pub fn reconcile<Spec: DeserializeOwned, Status>(
    reconcile: impl Reconcile<Spec, Status>,
    object: String,
    cx: &Context,
) -> Result<Plan> {
    let object = Object::decode(object)?;
    if object.is_deleting() { Ok(Plan::done()) } else { reconcile.call(object, cx) }
}

/// A kind with cleanup; its two functions may read the spec as different types.
pub fn cleanup<Spec: DeserializeOwned, Status, S: DeserializeOwned, T>(
    reconcile: impl Reconcile<Spec, Status>,
    cleanup: impl Reconcile<S, T>,
    object: String,
    cx: &Context,
) -> Result<Plan> {
    let metadata: Object<IgnoredAny> = Object::decode(object)?;
    if metadata.is_deleting() { cleanup.call(metadata.cast()?, cx) } else { reconcile.call(metadata.cast()?, cx) }
}

/// The host asks only for kinds of the manifest, so this is its error.
pub fn unknown_kind(kind: &str) -> Error {
    Error::terminal(format!("this plugin does not reconcile {kind}: its manifest names the kinds")).reason("UnknownKind")
}
