//! What should be true: writes in order, what people get to see, when to run again.
//!
//! A plan is data. It knows nothing of what is there now; the host validates it as a whole and writes what differs.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

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
    /// By name, see `wit/options.schema.json`.
    pub options: Map<String, Value>,
}

#[cfg(any(test, target_family = "wasm"))]
impl Write {
    /// The options as JSON text.
    pub fn options(&self) -> String {
        serde_json::to_string(&self.options).unwrap_or_else(|_| "{}".into())
    }
}

/// What happens to the children of an object that [`Plan::delete`] deletes. See [`Plan::propagation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// The object goes at once, then its children. What happens if nothing is said.
    Background,
    /// Its children go first; until then the object is there and on its way out.
    Foreground,
    /// Its children stay, with no owner.
    Orphan,
}

impl Propagation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
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

    /// A JSON merge patch: identity and the fields to merge, `null` for a field that is to go. For objects that are somebody
    /// else's: nothing else of them is touched, and nothing is taken back when it leaves the plan. An object that already says
    /// so is left alone; one that is not there is waited for. Of `metadata` it may change labels and annotations. Its kind
    /// stands under `owns` or `writes`.
    ///
    /// ```
    /// use plugin_sdk::prelude::*;
    ///
    /// fn reconcile(pause: Object<Value>, _cx: &Context) -> Result<Plan> {
    ///     let held = json!({ "apiVersion": "batch/v1", "kind": "CronJob",
    ///         "metadata": { "name": pause.spec["job"] }, "spec": { "suspend": true } });
    ///     Ok(Plan::new().patch(held))
    /// }
    /// # let plan = Context::fake().run(reconcile, "{ metadata: { name: a }, spec: { job: nightly } }").unwrap();
    /// # assert_eq!(plan.written("patch", "batch/v1/CronJob", "nightly")["spec"]["suspend"], true);
    /// ```
    pub fn patch(self, object: impl Serialize) -> Self {
        self.write("patch", &object)
    }

    /// Gone. Only what this call has read can be deleted, by [`Context::get`](crate::Context::get) or one of a
    /// [`list`](crate::Context::list), so pass on what that returned: only this very object is deleted, not another one that
    /// has its name by then. What is gone already, or is on its way, is in order. Its kind stands under `owns` or `writes`.
    ///
    /// ```
    /// use plugin_sdk::prelude::*;
    ///
    /// fn reconcile(history: Object<Value>, cx: &Context) -> Result<Plan> {
    ///     let versions = cx.list_fields("v1/ConfigMap", "app=history", &["/metadata/creationTimestamp"])?;
    ///     Ok(Plan::new().delete_all(versions.iter().take(versions.len().saturating_sub(3))))
    /// }
    /// # let version = |n: u8| format!("{{ apiVersion: v1, kind: ConfigMap, metadata: {{ name: v{n}, labels: {{ app: history }} }} }}");
    /// # let cluster = (1..=4).fold(Context::fake(), |cluster, n| cluster.with(&version(n)));
    /// # let plan = cluster.run(reconcile, "{ metadata: { name: a } }").unwrap();
    /// # assert_eq!(plan.deleted(), ["v1/ConfigMap v1"]);
    /// ```
    pub fn delete(mut self, object: impl Serialize) -> Self {
        match serde_json::to_value(&object) {
            Ok(object) => self.write("delete", &identity(&object)),
            Err(error) => {
                self.fail("delete", &error);
                self
            }
        }
    }

    /// Several objects, each as by [`delete`](Plan::delete), in their order. An `Option` is none or one of them.
    pub fn delete_all<T: Serialize>(self, objects: impl IntoIterator<Item = T>) -> Self {
        objects.into_iter().fold(self, Self::delete)
    }

    fn write(mut self, verb: &'static str, object: &impl Serialize) -> Self {
        match serde_json::to_string(object) {
            Ok(object) => self.writes.push(Write { verb, object, options: Map::new() }),
            Err(error) => self.fail(verb, &error),
        }
        self
    }

    fn fail(&mut self, what: &str, error: &serde_json::Error) {
        let message = format!("the value given to {what} is no JSON: {error}");
        self.broken.get_or_insert(Error::terminal(message).reason("InvalidPlan"));
    }

    /// Sets an option of the last write, which has to be one that it goes with.
    fn option(mut self, name: &str, said: &str, verbs: &[&str], value: Value) -> Self {
        let wrong = match self.writes.last_mut() {
            None => format!("{said}() stands before any write: put it behind the one that it is about"),
            Some(write) if !verbs.contains(&write.verb) => {
                format!("{said}() stands behind {}(): it goes with {}()", write.verb, verbs.join("() and "))
            }
            Some(write) => {
                write.options.insert(name.into(), value);
                return self;
            }
        };
        self.broken.get_or_insert(Error::terminal(wrong).reason("InvalidPlan"));
        self
    }

    /// About the last `own` or `create`: no owner reference; left behind when it would be pruned or the owner goes. What is
    /// owned is applied and repaired all the same, as long as the plan has it.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// # fn reconcile(db: Object<Value>, _cx: &Context) -> Result<Plan> {
    /// let volume = db.child("v1/PersistentVolumeClaim", json!({ "spec": { "accessModes": ["ReadWriteOnce"] } }));
    /// Ok(Plan::new().own(volume).keep())
    /// # }
    /// # let plan = Context::fake().run(reconcile, "{ metadata: { name: a } }").unwrap();
    /// # assert_eq!(plan.writes[0].options, json!({ "keep": true }));
    /// ```
    pub fn keep(self) -> Self {
        self.option("keep", "keep", &["own", "create"], true.into())
    }

    /// About the last `apply`: takes fields from other managers.
    pub fn force(self) -> Self {
        self.option("force", "force", &["apply"], true.into())
    }

    /// About the last `patch` or `delete`: only while the object has this resourceVersion, as [`Metadata`](crate::Metadata) of
    /// what was read says it. If it has another by then, the function runs again with what is there now.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// # fn reconcile(claim: Object<Value>, cx: &Context) -> Result<Plan> {
    /// // Takes the first that is free, and only as long as it is.
    /// let mut free = cx.list("v1/ConfigMap", "pool=web,!taken")?;
    /// let Some(seat) = free.pop() else { return Err(Error::wait("all seats are taken")) };
    /// let mine = json!({ "apiVersion": "v1", "kind": "ConfigMap",
    ///     "metadata": { "name": seat.name(), "labels": { "taken": claim.name() } } });
    /// Ok(Plan::new().patch(mine).if_version(&seat.metadata.resource_version))
    /// # }
    /// # let cluster = Context::fake().with("{ apiVersion: v1, kind: ConfigMap, metadata: { name: a, resourceVersion: '7', labels: { pool: web } } }");
    /// # let plan = cluster.run(reconcile, "{ metadata: { name: x } }").unwrap();
    /// # assert_eq!(plan.writes[0].options, json!({ "if-version": "7" }));
    /// ```
    pub fn if_version(self, resource_version: impl Into<String>) -> Self {
        self.option("if-version", "if_version", &["patch", "delete"], Value::String(resource_version.into()))
    }

    /// About the last `apply` or `patch`: writes this subresource instead of the object, such as `status` or `scale`, and nothing
    /// beside it. `apiVersion` and `kind` are those of the object that has it; a scale says `spec.replicas`, whatever the kind.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// let web = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" }, "spec": { "replicas": 0 } });
    /// let plan = Plan::new().patch(web).subresource("scale");
    /// ```
    pub fn subresource(self, name: impl Into<String>) -> Self {
        self.option("subresource", "subresource", &["apply", "patch"], Value::String(name.into()))
    }

    /// About the last `delete`: what happens to the object's own children.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// # fn reconcile(old: Object<Value>, cx: &Context) -> Result<Plan> {
    /// Ok(match cx.get("apps/v1/ReplicaSet", old.namespace(), "web")? {
    ///     Some(web) => Plan::new().delete(web).propagation(Propagation::Orphan),
    ///     None => Plan::new(),
    /// })
    /// # }
    /// # let cluster = Context::fake().with("{ apiVersion: apps/v1, kind: ReplicaSet, metadata: { name: web } }");
    /// # let plan = cluster.run(reconcile, "{ metadata: { name: x } }").unwrap();
    /// # assert_eq!(plan.writes[0].options, json!({ "propagation": "Orphan" }));
    /// ```
    pub fn propagation(self, propagation: Propagation) -> Self {
        self.option("propagation", "propagation", &["delete"], propagation.as_str().into())
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
        let plan = Plan::new().own(json!({})).create(json!({})).keep().apply(json!({})).force().subresource("status");
        let plan = plan.patch(json!({})).if_version("7").delete(json!({})).propagation(Propagation::Foreground);
        let plan = plan.finish().unwrap();
        let said: Vec<_> = plan.writes.iter().map(|w| (w.verb, w.options())).collect();
        let said: Vec<_> = said.iter().map(|(verb, options)| (*verb, options.as_str())).collect();
        assert_eq!(
            said,
            [
                ("own", "{}"),
                ("create", r#"{"keep":true}"#),
                ("apply", r#"{"force":true,"subresource":"status"}"#),
                ("patch", r#"{"if-version":"7"}"#),
                ("delete", r#"{"propagation":"Foreground"}"#),
            ]
        );
    }

    #[test]
    fn an_option_before_any_write_or_behind_one_that_has_it_not_is_named() {
        let error = |plan: Plan| {
            let error = plan.finish().unwrap_err();
            assert!(error.is_terminal(), "{error}");
            error.to_string()
        };
        assert!(error(Plan::new().keep().own(json!({}))).starts_with("keep() stands before any write"));
        let own = || Plan::new().own(json!({}));
        assert_eq!(error(own().force()), "force() stands behind own(): it goes with apply()");
        assert_eq!(error(own().if_version("7")), "if_version() stands behind own(): it goes with patch() and delete()");
        assert!(error(own().subresource("status")).contains("it goes with apply() and patch()"));
        assert!(error(own().propagation(Propagation::Orphan)).contains("it goes with delete()"));
        assert!(error(own().patch(json!({})).keep()).contains("it goes with own() and create()"));
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
