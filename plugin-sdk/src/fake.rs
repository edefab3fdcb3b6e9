//! A cluster in memory, so that `cargo test` needs neither Kubernetes nor Wasm.
//!
//! Objects from YAML in, a plan out. It answers reads and remembers them; it applies nothing and knows no host.

mod planned;
mod selector;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    path::Path,
    rc::Rc,
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    context::{Context, parse_kind},
    entry::Function,
    error::{Error, Result},
    object::Object,
};

pub use planned::{Planned, Written};

/// A cluster in memory, from [`Context::fake`].
///
/// ```
/// use plugin_sdk::prelude::*;
///
/// fn reconcile(app: Object<Value>, cx: &Context) -> Result<Plan> {
///     let user = cx.get("v1/Secret", app.namespace(), "db")?.map(|db| db.at("/data/user").clone());
///     Ok(Plan::new().own(app.child("v1/ConfigMap", json!({ "data": { "user": user } }))))
/// }
///
/// let cluster = Context::fake().with("
///     apiVersion: v1
///     kind: Secret
///     metadata: { name: db, namespace: shop }
///     data: { user: cm9vdA== }
/// ");
/// let plan = cluster.run(reconcile, "{ metadata: { name: web, namespace: shop } }").unwrap();
/// assert_eq!(plan.owned("v1/ConfigMap", "web")["data"]["user"], "cm9vdA==");
/// assert_eq!(cluster.reads(), ["v1/Secret shop/db"]);
/// ```
#[derive(Debug, Default)]
pub struct Fake {
    reads: Reads,
    settings: Option<Value>,
    now: u64,
    attempt: u32,
}

impl Context {
    /// An empty cluster for native tests. See [`Fake`].
    pub fn fake() -> Fake {
        // Some fixed time, so that a plan that uses it can be compared.
        Fake { now: 1_700_000_000_000, ..Fake::default() }
    }
}

impl Fake {
    /// Puts objects into the cluster: one or more YAML (or JSON) documents. Text that is no object fails the test that runs
    /// on it, see [`run`](Fake::run).
    #[must_use]
    pub fn with(self, yaml: &str) -> Self {
        self.reads.add(yaml);
        self
    }

    /// Puts the objects of a YAML file into the cluster; the path is relative to the package.
    #[must_use]
    pub fn with_file(self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        match std::fs::read_to_string(path) {
            Ok(yaml) => self.with(&yaml),
            Err(error) => self.broken(format!("cannot read {}: {error}", path.display())),
        }
    }

    /// Puts one object into the cluster: a `json!`, a typed one, or what an earlier plan says of a child.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// fn reconcile(app: Object<Value>, cx: &Context) -> Result<Plan> {
    ///     let web = app.child("apps/v1/Deployment", json!({ "spec": { "replicas": 1 } }));
    ///     let ready = cx.read(&web)?.is_some_and(|live| live.at("/status/readyReplicas") == 1);
    ///     Ok(Plan::new().own(web).condition(Condition::when("Ready", ready, "Counted", "")))
    /// }
    ///
    /// let first = Context::fake().run(reconcile, "{ metadata: { name: a } }").unwrap();
    /// let mut live = first.owned("apps/v1/Deployment", "a").clone();
    /// live["status"] = json!({ "readyReplicas": 1 });
    /// let second = Context::fake().with_object(live).run(reconcile, "{ metadata: { name: a } }").unwrap();
    /// assert_eq!((first.condition("Ready"), second.condition("Ready")), (Some("False"), Some("True")));
    /// ```
    #[must_use]
    pub fn with_object(self, object: impl Serialize) -> Self {
        match serde_json::to_string(&object) {
            Ok(json) => self.with(&json),
            Err(error) => self.broken(format!("this is no Kubernetes object: {error}")),
        }
    }

    /// Puts into the cluster what a plan writes, as the host would, so that a test can go on from there: what it creates, owns
    /// or applies is there as planned (what a controller had said of it in `status` stays), what it patches is merged, what it
    /// deletes is gone. It prunes nothing, and the reconciled object itself is the test's.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// fn reconcile(app: Object<Value>, cx: &Context) -> Result<Plan> {
    ///     let once = app.child("v1/ConfigMap", json!({ "data": { "made": "once" } }));
    ///     Ok(if cx.read(&once)?.is_some() { Plan::new() } else { Plan::new().create(once).keep() })
    /// }
    ///
    /// let cluster = Context::fake();
    /// let first = cluster.run(reconcile, "{ metadata: { name: a } }").unwrap();
    /// assert_eq!(first.created(), ["v1/ConfigMap a"]);
    /// let second = cluster.with_applied(&first).run(reconcile, "{ metadata: { name: a } }").unwrap();
    /// assert!(second.writes.is_empty());
    /// ```
    #[must_use]
    pub fn with_applied(self, plan: &Planned) -> Self {
        self.reads.apply(&plan.writes);
        self
    }

    fn broken(self, why: String) -> Self {
        self.reads.0.borrow_mut().wrong = Some(why);
        self
    }

    /// `spec.settings` of the plugin.
    #[must_use]
    pub fn with_settings(mut self, settings: Value) -> Self {
        self.settings = Some(settings);
        self
    }

    /// What [`Context::attempt`] says.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// What [`Context::now`] says, as time since the Unix epoch.
    #[must_use]
    pub fn with_now(mut self, since_epoch: Duration) -> Self {
        self.now = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Calls a function with an object from YAML (or JSON), just as the host would: a spec that does not decode and a plan
    /// that is no plan are errors here too.
    pub fn run<Spec: DeserializeOwned, Status>(&self, function: Function<Spec, Status>, object: &str) -> Result<Planned> {
        let object = documents(object)?.pop().ok_or_else(|| Error::terminal("there is no object in the YAML"))?;
        let itself = key(&object);
        let object: Object<Spec, Status> = Object::decode(object.to_string())?;
        let context = self.context(object.namespace())?;
        self.reads.0.borrow_mut().seen = BTreeSet::from([itself]);
        let namespace = object.namespace().to_owned();
        let planned = Planned::new(function(object, &context)?.finish()?)?;
        self.deletions_are_read(&planned, &namespace)?;
        Ok(planned)
    }

    fn deletions_are_read(&self, plan: &Planned, namespace: &str) -> Result<()> {
        let seen = &self.reads.0.borrow().seen;
        for write in plan.writes.iter().filter(|write| write.verb == "delete") {
            let (kind, its_namespace, name) = key(&write.object);
            let at = |namespace: &str| seen.contains(&(kind.clone(), namespace.into(), name.clone()));
            if !at(&its_namespace) && !at(namespace) {
                let fix = "`get` it, or `list` it, and pass on what that returned";
                let said = format!(
                    "the plan deletes {kind} `{name}`, which this call has not read, and only what was read can be deleted"
                );
                return Err(Error::terminal(format!("{said}: {fix}")).reason("InvalidPlan"));
            }
        }
        Ok(())
    }

    /// A context for calling a function by hand, for an object in this namespace.
    pub fn context(&self, namespace: &str) -> Result<Context> {
        if let Some(wrong) = self.reads.0.borrow().wrong.clone() {
            return Err(Error::terminal(wrong));
        }
        Ok(Context {
            reads: self.reads.clone(),
            namespace: namespace.into(),
            settings: self.settings.as_ref().map_or_else(|| "{}".into(), Value::to_string),
            now: self.now,
            attempt: self.attempt,
            random: Cell::new(1),
        })
    }

    /// What was read so far, in order: `v1/Secret namespace/name`, or `v1/Secret namespace?selector` for a list.
    pub fn reads(&self) -> Vec<String> {
        self.reads.0.borrow().asked.clone()
    }
}

/// The backend of a native [`Context`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Reads(Rc<RefCell<World>>);

#[derive(Debug, Default)]
struct World {
    /// By kind, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    asked: Vec<String>,
    /// What the present call was asked about by name, there or not, and what it was given in lists.
    seen: BTreeSet<(String, String, String)>,
    /// What could not be taken in, said when it matters.
    wrong: Option<String>,
}

impl Reads {
    fn add(&self, yaml: &str) {
        let mut world = self.0.borrow_mut();
        match documents(yaml) {
            Ok(objects) => world.objects.extend(objects.into_iter().map(|object| (key(&object), object))),
            Err(error) => world.wrong = Some(error.to_string()),
        }
    }

    fn apply(&self, writes: &[Written]) {
        let objects = &mut self.0.borrow_mut().objects;
        for Written { verb, object, .. } in writes {
            let key = key(object);
            match (*verb, objects.get_mut(&key)) {
                ("delete", _) => drop(objects.remove(&key)),
                ("create", Some(_)) | ("patch", None) => {}
                ("patch", Some(live)) => merge(live, object),
                (_, live) => {
                    let status = live.and_then(|live| live.get("status").cloned());
                    let mut object = object.clone();
                    if let (Some(status), Value::Object(object)) = (status, &mut object) {
                        object.insert("status".into(), status);
                    }
                    objects.insert(key, object);
                }
            }
        }
    }

    pub fn get(&self, kind: &str, namespace: &str, name: &str, fields: &[&str]) -> Result<Option<String>> {
        parse_kind(kind)?;
        let mut world = self.0.borrow_mut();
        world.asked.push(format!("{kind} {namespace}/{name}"));
        world.seen.insert((kind.into(), namespace.into(), name.into()));
        let object = world.objects.get(&(kind.into(), namespace.into(), name.into()));
        object.map(|object| kept(object, fields)).transpose()
    }

    pub fn list(&self, kind: &str, namespace: &str, selector: &str, fields: &[&str]) -> Result<Vec<String>> {
        parse_kind(kind)?;
        let mut world = self.0.borrow_mut();
        world.asked.push(format!("{kind} {namespace}?{selector}"));
        let terms = selector::parse(selector)?;
        let wanted = |(key, object): &(&(String, String, String), &Value)| {
            key.0 == kind && (namespace.is_empty() || key.1 == namespace) && terms.iter().all(|term| term.matches(object))
        };
        let found: Vec<_> = world.objects.iter().filter(wanted).map(|(key, object)| (key.clone(), object.clone())).collect();
        world.seen.extend(found.iter().map(|(key, _)| key.clone()));
        found.iter().map(|(_, object)| kept(object, fields)).collect()
    }
}

/// A JSON merge patch.
fn merge(live: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *live = patch.clone();
        return;
    };
    if !live.is_object() {
        *live = Value::Object(Map::new());
    }
    let Value::Object(live) = live else { return };
    for (field, value) in fields {
        match value {
            Value::Null => drop(live.remove(field)),
            value => merge(live.entry(field.clone()).or_insert(Value::Null), value),
        }
    }
}

/// The object as JSON text, with identity and these fields only; no fields keep everything.
fn kept(object: &Value, fields: &[&str]) -> Result<String> {
    if fields.is_empty() {
        return Ok(object.to_string());
    }
    let identity = ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace", "/metadata/uid"];
    let mut out = Value::Object(Map::new());
    for pointer in identity.iter().chain(fields) {
        let Some(path) = pointer.strip_prefix('/') else {
            let fix = "write a JSON pointer, as in `/data/text`";
            return Err(Error::terminal(format!("`{pointer}` is no path to a field: {fix}")).reason("ReadFailed"));
        };
        let path: Vec<String> = path.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
        copy(object, &mut out, &path);
    }
    Ok(out.to_string())
}

/// A path that leads into a list keeps the whole list.
fn copy(from: &Value, to: &mut Value, path: &[String]) {
    let (Some((first, rest)), Value::Object(fields)) = (path.split_first(), from) else {
        *to = from.clone();
        return;
    };
    if let (Some(value), Value::Object(out)) = (fields.get(first), to) {
        let there = out.contains_key(first);
        let mut inner = if there { out[first].take() } else { Value::Object(Map::new()) };
        let leads_somewhere = rest.is_empty() || value.is_object() || value.is_array();
        if leads_somewhere {
            copy(value, &mut inner, rest);
        }
        if leads_somewhere || there {
            out.insert(first.clone(), inner);
        }
    }
}

fn documents(yaml: &str) -> Result<Vec<Value>> {
    let no_object = |cause: String| Error::terminal(format!("this YAML is no Kubernetes object: {cause}:\n{yaml}"));
    let mut objects = Vec::new();
    for document in serde_norway::Deserializer::from_str(yaml) {
        match Value::deserialize(document).map_err(|error| no_object(error.to_string()))? {
            Value::Null => {}
            object if object.is_object() => objects.push(object),
            other => return Err(no_object(format!("it is `{other}`"))),
        }
    }
    Ok(objects)
}

fn key(object: &Value) -> (String, String, String) {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let kind = format!("{}/{}", text("/apiVersion"), text("/kind"));
    (kind, text("/metadata/namespace"), text("/metadata/name"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Plan;

    fn listing(_: Object, cx: &Context) -> Result<Plan> {
        let names = |selector: &str| -> Result<Vec<String>> {
            Ok(cx.list("v1/Pod", selector)?.iter().map(|pod| pod.name().to_owned()).collect())
        };
        Ok(Plan::new().status(json!({
            "all": names("")?, "web": names("app=web")?, "not": names("app!=web")?, "has": names("app")?, "none": names("!app")?,
            "in": names("app in (db, x)")?, "notin": names("app notin (db),app")?
        })))
    }

    #[test]
    fn a_list_stays_in_the_namespace_and_takes_selectors() {
        let cluster = Context::fake().with(
            "{ apiVersion: v1, kind: Pod, metadata: { name: a, namespace: n, labels: { app: web } } }\n---\n\
             { apiVersion: v1, kind: Pod, metadata: { name: b, namespace: n, labels: { app: db } } }\n---\n\
             { apiVersion: v1, kind: Pod, metadata: { name: c, namespace: n } }\n---\n\
             { apiVersion: v1, kind: Pod, metadata: { name: d, namespace: other, labels: { app: web } } }\n",
        );
        let plan = cluster.run(listing, "metadata: { name: x, namespace: n }").unwrap();
        let lists = json!({ "all": ["a", "b", "c"], "web": ["a"], "not": ["b", "c"], "has": ["a", "b"], "none": ["c"],
            "in": ["b"], "notin": ["a"] });
        assert_eq!(plan.status, Some(lists));
        assert_eq!(cluster.reads()[1], "v1/Pod n?app=web");
    }

    #[test]
    fn only_the_fields_that_were_asked_for_are_there() {
        let cluster = Context::fake().with(
            "{ apiVersion: v1, kind: Pod, metadata: { name: a, namespace: n, labels: { app: web } }, \
               spec: { containers: [{ name: x }], nodeName: y }, status: { phase: Running } }",
        );
        let cx = cluster.context("n").unwrap();
        let pod =
            cx.get_fields("v1/Pod", "n", "a", &["/spec/containers/0/name", "/status/phase", "/status/none"]).unwrap().unwrap();
        assert_eq!(
            (pod.at("/spec"), pod.at("/status")),
            (&json!({ "containers": [{ "name": "x" }] }), &json!({ "phase": "Running" }))
        );
        assert_eq!((pod.name(), pod.label("app")), ("a", None));
        let pods = cx.list_fields("v1/Pod", "app=web", &["/spec/nodeName"]).unwrap();
        assert_eq!((pods[0].at("/spec"), pods[0].at("/status")), (&json!({ "nodeName": "y" }), &Value::Null));
        assert!(cx.list_fields("v1/Pod", "", &["spec"]).unwrap_err().to_string().contains("`spec` is no path"));
    }

    #[test]
    fn a_plan_that_deletes_what_it_has_not_read_is_none() {
        let old = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "old", "namespace": "n" } });
        let delete = |read: bool| -> Result<()> {
            let cluster = Context::fake();
            let context = cluster.context("n")?;
            if read {
                context.get("v1/Pod", "n", "old")?;
            }
            cluster.deletions_are_read(&Planned::new(Plan::new().delete(&old).finish()?)?, "n")
        };
        assert!(delete(true).is_ok());
        assert!(delete(false).unwrap_err().to_string().contains("deletes v1/Pod `old`, which this call has not read"));
    }

    #[test]
    fn settings_decode_or_are_named() {
        let read = |_: Object, cx: &Context| Ok(Plan::new().status(cx.settings::<BTreeMap<String, u8>>()?));
        let plan = Context::fake().with_settings(json!({ "size": 3 })).run(read, "metadata: {}").unwrap();
        assert_eq!(plan.status, Some(json!({ "size": 3 })));
        let error = Context::fake().with_settings(json!({ "size": "big" })).run(read, "metadata: {}").unwrap_err();
        assert!(error.is_terminal() && error.to_string().contains("spec.settings"), "{error}");
    }

    #[test]
    fn yaml_that_is_no_object_is_said_when_it_is_used() {
        let error = Context::fake().with("just text").run(listing, "metadata: {}").unwrap_err();
        assert!(error.to_string().contains("just text"), "{error}");
        assert!(Context::fake().run(listing, "").is_err());
    }

    #[test]
    fn a_kind_with_a_typo_is_refused_with_the_fix() {
        let read = |_: Object, cx: &Context| cx.get("ConfigMap", "n", "a").map(|_| Plan::new());
        let error = Context::fake().run(read, "metadata: {}").unwrap_err();
        assert!(error.to_string().contains("`ConfigMap` is no kind: write group/version/Kind"), "{error}");
    }
}
