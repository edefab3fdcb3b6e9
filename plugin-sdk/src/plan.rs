//! What should be true: writes in order, what people get to see, when to run again.
//!
//! A plan is data. It knows nothing of what is there now; the host validates it as a whole and writes what differs.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    error::{Error, Result},
    report::{Condition, Event, Report},
};

/// What should be true about the object and its children.
///
/// Every object may be any `impl Serialize` with `apiVersion`, `kind` and `metadata.name`: `json!`, what
/// [`Object::child`](crate::Object::child) returns, or a typed Kubernetes object.
///
/// ```
/// use plugin_sdk::prelude::*;
/// use std::time::Duration;
///
/// fn reconcile(shop: Object<Value>, _cx: &Context) -> Result<Plan> {
///     let cart = shop.child("v1/ConfigMap", json!({ "data": { "currency": "EUR" } }));
///     Ok(Plan::new()
///         .own(cart)
///         .status(json!({ "phase": "Open" }))
///         .condition(Condition::yes("Ready", "Open", "the shop is open"))
///         .after(Duration::from_secs(3600)))
/// }
/// # Context::fake().run(reconcile, "{ metadata: { name: a } }").unwrap();
/// ```
#[derive(Debug, Default)]
#[must_use = "a plan does nothing unless it is returned"]
pub struct Plan {
    writes: Vec<Write>,
    report: Report,
    after: Option<Duration>,
    pending: Option<String>,
    done: bool,
    /// What went wrong while it was put together: it becomes the answer.
    broken: Option<Error>,
}

#[derive(Debug)]
pub(crate) struct Write {
    pub verb: &'static str,
    /// JSON text.
    pub object: String,
    pub keep: bool,
    pub force: bool,
}

impl Write {
    /// The options as JSON text, see `wit/options.schema.json`.
    pub fn options(&self) -> &'static str {
        match (self.keep, self.force) {
            (false, false) => "{}",
            (true, false) => r#"{"keep":true}"#,
            (false, true) => r#"{"force":true}"#,
            (true, true) => r#"{"keep":true,"force":true}"#,
        }
    }
}

/// A plan whose every object could be serialized.
#[derive(Debug)]
pub(crate) struct Finished {
    pub writes: Vec<Write>,
    pub report: Report,
    pub after: Option<Duration>,
    pub pending: Option<String>,
    pub done: bool,
}

impl Plan {
    /// Nothing to write. Returned like this, it says that the object has no children any more.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cleanup only: nothing is left to do, the finalizer can go.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// fn tidy_up(bucket: Object<Value>, cx: &Context) -> Result<Plan> {
    ///     match cx.get("v1/Pod", bucket.namespace(), "uploader")? {
    ///         Some(_) => Err(Error::wait("the uploader is still running")),
    ///         None => Ok(Plan::done()),
    ///     }
    /// }
    /// # assert!(Context::fake().run(tidy_up, "{ metadata: { name: a } }").unwrap().done);
    /// ```
    pub fn done() -> Self {
        Self { done: true, ..Self::default() }
    }

    /// A child: applied, owned, repaired, and deleted once a later complete plan no longer has it.
    pub fn own(self, object: impl Serialize) -> Self {
        self.write("own", &object)
    }

    /// Several children, each as by [`own`](Plan::own), in their order. An `Option` is none or one of them.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// # fn reconcile(shop: Object<Value>, _cx: &Context) -> Result<Plan> {
    /// let tills = (1..=2).map(|n| shop.child("v1/ConfigMap", json!({ "metadata": { "name": format!("till-{n}") } })));
    /// let sign = (shop.spec["open"] == true).then(|| shop.child("v1/Service", json!({ "spec": { "ports": [{ "port": 80 }] } })));
    /// Ok(Plan::new().own_all(tills).own_all(sign))
    /// # }
    /// # let plan = Context::fake().run(reconcile, "{ metadata: { name: a }, spec: { open: false } }").unwrap();
    /// # assert_eq!(plan.children(), ["v1/ConfigMap till-1", "v1/ConfigMap till-2"]);
    /// ```
    pub fn own_all<T: Serialize>(self, objects: impl IntoIterator<Item = T>) -> Self {
        objects.into_iter().fold(self, Self::own)
    }

    /// A shared object: applied under a field manager of this plugin and the reconciled object; a field that another manager
    /// has with another value is a conflict, unless [`force`](Plan::force) follows; never deleted. What is no longer said of it
    /// goes, what leaves the plan as a whole stays. Its kind stands under `owns` or `writes`.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// let shared = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "tills" }, "data": { "web": "open" } });
    /// let plan = Plan::new().apply(shared);
    /// ```
    pub fn apply(self, object: impl Serialize) -> Self {
        self.write("apply", &object)
    }

    /// Exists from now on: created if absent, never changed, whoever made it. Owned, and deleted once a later complete plan no
    /// longer has it, unless [`keep`](Plan::keep) follows.
    pub fn create(self, object: impl Serialize) -> Self {
        self.write("create", &object)
    }

    /// A JSON merge patch: identity and the fields to merge.
    pub fn patch(self, object: impl Serialize) -> Self {
        self.write("patch", &object)
    }

    /// Gone. Only what this call has read can be deleted; of the object only its identity matters.
    pub fn delete(mut self, object: impl Serialize) -> Self {
        match serde_json::to_value(&object) {
            Ok(object) => self.write("delete", &identity(&object)),
            Err(error) => {
                self.fail("delete", &error);
                self
            }
        }
    }

    fn write(mut self, verb: &'static str, object: &impl Serialize) -> Self {
        match serde_json::to_string(object) {
            Ok(object) => self.writes.push(Write { verb, object, keep: false, force: false }),
            Err(error) => self.fail(verb, &error),
        }
        self
    }

    fn fail(&mut self, what: &str, error: &serde_json::Error) {
        let message = format!("the value given to {what} is no JSON: {error}");
        self.broken.get_or_insert(Error::terminal(message).reason("InvalidPlan"));
    }

    fn last(&mut self, option: &str) -> Option<&mut Write> {
        if self.writes.is_empty() {
            let message = format!("{option}() stands before any write: put it behind the one that it is about");
            self.broken.get_or_insert(Error::terminal(message).reason("InvalidPlan"));
        }
        self.writes.last_mut()
    }

    /// About the last `own` or `create`: no owner reference; left behind when it would be pruned or the owner goes.
    pub fn keep(mut self) -> Self {
        if let Some(write) = self.last("keep") {
            write.keep = true;
        }
        self
    }

    /// About the last `apply`: takes fields from other managers.
    pub fn force(mut self) -> Self {
        if let Some(write) = self.last("force") {
            write.force = true;
        }
        self
    }

    /// The fields of `.status` that this plugin decides, conditions aside. Without it, the status stays as it is.
    pub fn status(mut self, status: impl Serialize) -> Self {
        match serde_json::to_string(&status) {
            Ok(status) => self.report.status = Some(status),
            Err(error) => self.fail("status", &error),
        }
        self
    }

    /// Conditions that are not listed stay. `Reconciled` belongs to the host.
    pub fn condition(mut self, condition: Condition) -> Self {
        self.report.conditions.push(condition);
        self
    }

    /// Tells people of something that has happened. A steady state has no events.
    pub fn event(mut self, event: Event) -> Self {
        self.report.events.push(event);
        self
    }

    /// Run again after this time even if nothing changes. Rarely needed: whatever was read wakes the object anyway.
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = Some(delay);
        self
    }

    /// Not everything is decided yet: what is here is applied, nothing is pruned, and people see what it waits for.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// let plan = Plan::new().pending("waiting for the database");
    /// ```
    pub fn pending(mut self, waits_for: impl Into<String>) -> Self {
        self.pending = Some(waits_for.into());
        self
    }

    pub(crate) fn finish(self) -> Result<Finished> {
        match self.broken {
            Some(error) => Err(error),
            None => {
                let Self { writes, report, after, pending, done, .. } = self;
                Ok(Finished { writes, report, after, pending, done })
            }
        }
    }
}

/// What names an object, and nothing else.
fn identity(object: &Value) -> Value {
    let field = |pointer: &str| object.pointer(pointer).filter(|value| !value.is_null());
    let mut metadata = json!({ "name": field("/metadata/name") });
    if let (Some(namespace), Value::Object(metadata)) = (field("/metadata/namespace"), &mut metadata) {
        metadata.insert("namespace".into(), namespace.clone());
    }
    json!({ "apiVersion": field("/apiVersion"), "kind": field("/kind"), "metadata": metadata })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_about_the_last_write() {
        let plan = Plan::new().own(json!({})).create(json!({})).keep().apply(json!({})).force().finish().unwrap();
        let said: Vec<_> = plan.writes.iter().map(|w| (w.verb, w.options())).collect();
        assert_eq!(said, [("own", "{}"), ("create", r#"{"keep":true}"#), ("apply", r#"{"force":true}"#)]);
    }

    #[test]
    fn an_option_before_any_write_is_named() {
        let error = Plan::new().keep().own(json!({})).finish().unwrap_err();
        assert!(error.is_terminal() && error.to_string().starts_with("keep() stands before any write"), "{error}");
    }

    #[test]
    fn what_is_no_json_fails_the_plan_and_not_the_process() {
        let tuples = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(Plan::new().own(tuples).finish().unwrap_err().to_string().contains("own"));
    }

    #[test]
    fn a_delete_says_identity_only() {
        let object = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "a", "uid": "1" }, "data": {} });
        let plan = Plan::new().delete(object).finish().unwrap();
        let said: Value = serde_json::from_str(&plan.writes[0].object).unwrap();
        assert_eq!(said, json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "a" } }));
    }
}
