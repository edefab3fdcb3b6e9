//! One Kubernetes object, with a spec and a status of the author's types.
//!
//! Only metadata, spec and status are decoded; the rest is looked up on demand. It knows nothing of where it comes from.

use std::{cell::OnceCell, collections::BTreeMap, marker::PhantomData};

use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned};
use serde_json::{Map, Value, value::RawValue};

use crate::{
    error::{Error, Result},
    report::Condition,
    time::Timestamp,
};

/// One Kubernetes object as it was read.
///
/// ```
/// use plugin_sdk::prelude::*;
///
/// #[derive(Deserialize)]
/// struct Shop { domain: String }
///
/// fn reconcile(shop: Object<Shop>, cx: &Context) -> Result<Plan> {
///     let web = shop.child("apps/v1/Deployment", json!({ "metadata": { "name": format!("{}-web", shop.name()) } }));
///     let ready = cx.read(&web)?.is_some_and(|d| d.is_observed() && d.at("/status/readyReplicas") == 1);
///     Ok(Plan::new().own(web).status(json!({ "url": format!("https://{}", shop.spec.domain), "ready": ready })))
/// }
/// # Context::fake().run(reconcile, "{ metadata: { name: a }, spec: { domain: a.example } }").unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct Object<Spec = Value, Status = Value> {
    /// Name, labels and the like.
    pub metadata: Metadata,
    /// What the user wants. A kind without a spec has `()` or `Value` here.
    pub spec: Spec,
    api_version: String,
    kind: String,
    text: String,
    whole: OnceCell<Value>,
    status: PhantomData<fn() -> Status>,
}

/// The part of `.metadata` that every plugin may need; for the rest there is [`Object::at`].
///
/// ```
/// # use plugin_sdk::prelude::*;
/// # fn reconcile(app: Object<Value>, _cx: &Context) -> Result<Plan> {
/// let Metadata { name, generation, .. } = &app.metadata;
/// tracing::debug!(name, generation, "reconciling");
/// # Ok(Plan::new()) }
/// # Context::fake().run(reconcile, "{ metadata: { name: a } }").unwrap();
/// ```
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Unique among the objects of its kind, in its namespace.
    pub name: String,
    /// Empty for a cluster-scoped object.
    pub namespace: String,
    /// Another one when the object is deleted and made again.
    pub uid: String,
    /// Another one after each change.
    pub resource_version: String,
    /// Counts the changes of the spec.
    pub generation: i64,
    /// For selectors.
    pub labels: BTreeMap<String, String>,
    /// For everything else that people and programs note on objects.
    pub annotations: BTreeMap<String, String>,
    /// Who has to finish before the object goes.
    pub finalizers: Vec<String>,
    /// RFC 3339, see [`created`](Object::created).
    pub creation_timestamp: Option<String>,
    /// RFC 3339. There is one while the object is being deleted.
    pub deletion_timestamp: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(borrow)]
    spec: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Reported<Status> {
    status: Option<Status>,
}

impl<Spec: DeserializeOwned, Status> Object<Spec, Status> {
    /// From JSON text. A spec that does not decode is a terminal error: only a change of the object can help.
    pub(crate) fn decode(text: String) -> Result<Self> {
        let envelope: Envelope<'_> = serde_json::from_str(&text).map_err(|error| undecodable("the object", &error))?;
        let spec = serde_json::from_str(envelope.spec.map_or("null", RawValue::get))
            .map_err(|error| undecodable(&format!("spec of {} {}", envelope.kind, envelope.metadata.name), &error))?;
        let Envelope { api_version, kind, metadata, .. } = envelope;
        Ok(Self { metadata, spec, api_version, kind, text, whole: OnceCell::new(), status: PhantomData })
    }
}

/// As it was read, so that it can be passed on to [`Plan::delete`](crate::Plan::delete).
impl<Spec, Status> Serialize for Object<Spec, Status> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.whole().serialize(serializer)
    }
}

fn undecodable(what: &str, error: &serde_json::Error) -> Error {
    // The position counts from the start of a part that nobody sees.
    let position = format!(" at line {} column {}", error.line(), error.column());
    let error = error.to_string();
    let cause = error.strip_suffix(&position).unwrap_or(&error);
    Error::terminal(format!("{what} does not decode: {cause}")).reason("InvalidSpec")
}

impl<Spec, Status> Object<Spec, Status> {
    /// The same object with a spec and a status of other types: what was read comes as `Object<Value, Value>`. A spec that does
    /// not decode is a terminal error.
    pub fn typed<OtherSpec: DeserializeOwned, OtherStatus>(self) -> Result<Object<OtherSpec, OtherStatus>> {
        Object::decode(self.text)
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// Empty for a cluster-scoped object.
    pub fn namespace(&self) -> &str {
        &self.metadata.namespace
    }

    /// `metadata.uid`: another one when the object is deleted and made again.
    pub fn uid(&self) -> &str {
        &self.metadata.uid
    }

    /// `apps/v1/Deployment`, as in `plugin!` and in [`child`](Object::child).
    pub fn kind(&self) -> String {
        format!("{}/{}", self.api_version, self.kind)
    }

    /// The value of a label.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// # fn reconcile(app: Object<Value>, _cx: &Context) -> Result<Plan> {
    /// ensure!(app.label("example.com/tier") != Some("retired"), "metadata.labels: the tier `retired` is not served any more");
    /// # Ok(Plan::new()) }
    /// # Context::fake().run(reconcile, "{ metadata: { name: a } }").unwrap();
    /// ```
    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata.labels.get(key).map(String::as_str)
    }

    /// The value of an annotation.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// # fn reconcile(app: Object<Value>, _cx: &Context) -> Result<Plan> {
    /// if app.annotation("example.com/paused") == Some("true") {
    ///     return Err(Error::wait("paused by the annotation example.com/paused"));
    /// }
    /// # Ok(Plan::new()) }
    /// # Context::fake().run(reconcile, "{ metadata: { name: a } }").unwrap();
    /// ```
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.get(key).map(String::as_str)
    }

    /// Whether somebody has deleted it and finalizers still hold it.
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Anything in the object, by JSON pointer: `at("/status/readyReplicas")`. `Value::Null` if it is not there.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// # fn reconcile(app: Object<Value>, cx: &Context) -> Result<Plan> {
    /// let web = cx.get("apps/v1/Deployment", app.namespace(), app.name())?;
    /// let ready = web.as_ref().and_then(|web| web.at("/status/readyReplicas").as_u64()).unwrap_or(0);
    /// // A `/` in a key is written `~1`.
    /// let page = web.as_ref().map(|web| web.at("/metadata/annotations/example.com~1page"));
    /// # Ok(Plan::new().status(json!({ "ready": ready, "page": page }))) }
    /// # Context::fake().run(reconcile, "{ metadata: { name: a } }").unwrap();
    /// ```
    pub fn at(&self, pointer: &str) -> &Value {
        const NOTHING: &Value = &Value::Null;
        self.whole().pointer(pointer).unwrap_or(NOTHING)
    }

    fn whole(&self) -> &Value {
        self.whole.get_or_init(|| serde_json::from_str(&self.text).unwrap_or_default())
    }

    /// What was reported last, decoded when it is asked for. None before the first report, and none if it does not decode as
    /// `Status` any more: a status can always be computed afresh.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// #[derive(Serialize, Deserialize)]
    /// struct Status { runs: u32 }
    ///
    /// fn reconcile(app: Object<Value, Status>, _cx: &Context) -> Result<Plan> {
    ///     let runs = app.status().map_or(0, |status| status.runs);
    ///     Ok(Plan::new().status(Status { runs }))
    /// }
    /// # let plan = Context::fake().run(reconcile, "{ metadata: { name: a }, status: { runs: 3 } }").unwrap();
    /// # assert_eq!(plan.status.unwrap()["runs"], 3);
    /// ```
    pub fn status(&self) -> Option<Status>
    where
        Status: DeserializeOwned,
    {
        serde_json::from_str::<Reported<Status>>(&self.text).ok()?.status
    }

    /// One of the conditions that the object reports, as others left it; none if it does not. What is neither `True` nor `False`
    /// is `Unknown`.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// fn reconcile(app: Object<Value>, cx: &Context) -> Result<Plan> {
    ///     let database = cx.get("example.dev/v1/Database", app.namespace(), "main")?;
    ///     match database.and_then(|database| database.condition("Ready")) {
    ///         Some(ready) if ready.is_true() => Ok(Plan::new()),
    ///         Some(ready) => Err(Error::wait(format!("the Database is not ready: {}", ready.message))),
    ///         None => Err(Error::wait("the Database says nothing yet")),
    ///     }
    /// }
    /// # let database = "{ apiVersion: example.dev/v1, kind: Database, metadata: { name: main }, status: { conditions: [{ type: Ready, status: 'False', message: starting }] } }";
    /// # let error = Context::fake().with(database).run(reconcile, "{ metadata: { name: a } }").unwrap_err();
    /// # assert_eq!(error.to_string(), "the Database is not ready: starting");
    /// ```
    pub fn condition(&self, name: &str) -> Option<Condition> {
        let conditions = self.at("/status/conditions").as_array()?;
        let text = |condition: &Value, field: &str| condition.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let found = conditions.iter().find(|condition| text(condition, "type") == name)?;
        let status = match &*text(found, "status") {
            "True" => "True",
            "False" => "False",
            _ => "Unknown",
        };
        Some(Condition { name: name.into(), status, reason: text(found, "reason"), message: text(found, "message") })
    }

    /// When the object came to be, by the API server's clock; none in a test that does not say so.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// # fn reconcile(trial: Object<Value>, cx: &Context) -> Result<Plan> {
    /// let Some(created) = trial.created() else { return Ok(Plan::new()) };
    /// let ends = created + Interval(std::time::Duration::from_secs(30 * 86_400));
    /// let over = cx.until(ends).is_zero();
    /// Ok(Plan::new().condition(Condition::when("Expired", over, "Trial", format!("it ends at {ends}"))).after(cx.until(ends)))
    /// # }
    /// # let object = "{ metadata: { name: a, creationTimestamp: '2023-11-01T00:00:00Z' } }";
    /// # let plan = Context::fake().run(reconcile, object).unwrap();
    /// # assert_eq!(plan.message("Expired"), "it ends at 2023-12-01T00:00:00Z");
    /// ```
    pub fn created(&self) -> Option<Timestamp> {
        self.metadata.creation_timestamp.as_deref()?.parse().ok()
    }

    /// Whether the object's own controller has seen its present spec (`status.observedGeneration` is
    /// `metadata.generation`): before that, the rest of the status speaks of an older one.
    ///
    /// A plan that changes a child does not change what this run has read of it: what was read before may be observed and
    /// still not be what is planned.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// # fn reconcile(app: Object<Value>, cx: &Context) -> Result<Plan> {
    /// let web = app.child("apps/v1/Deployment", json!({ "spec": { "replicas": 2 } }));
    /// let ready = cx.read(&web)?.is_some_and(|live| {
    ///     live.is_observed() && live.at("/spec/replicas") == 2 && live.at("/status/readyReplicas") == 2
    /// });
    /// # Ok(Plan::new().own(web).status(json!({ "ready": ready }))) }
    /// # Context::fake().run(reconcile, "{ metadata: { name: a } }").unwrap();
    /// ```
    pub fn is_observed(&self) -> bool {
        self.at("/status/observedGeneration").as_i64() == Some(self.metadata.generation)
    }

    /// An object to give to [`Plan::own`](crate::Plan::own): `body` with the kind, and with this object's name and namespace
    /// where it does not say others.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// # fn reconcile(hello: Object<Value>, _cx: &Context) -> Result<Plan> {
    /// let config = hello.child("v1/ConfigMap", json!({ "data": { "text": "hi" } }));
    /// let extra = hello.child("v1/Secret", json!({ "metadata": { "name": format!("{}-key", hello.name()) } }));
    /// # Ok(Plan::new().own(config).own(extra)) }
    /// # Context::fake().run(reconcile, "{ metadata: { name: a } }").unwrap();
    /// ```
    pub fn child(&self, kind: &str, body: Value) -> Value {
        let (api_version, kind) = split_kind(kind);
        let mut metadata = Map::new();
        metadata.insert("name".into(), self.name().into());
        if !self.namespace().is_empty() {
            metadata.insert("namespace".into(), self.namespace().into());
        }
        let mut child = Map::new();
        child.insert("apiVersion".into(), api_version.into());
        child.insert("kind".into(), kind.into());
        child.insert("metadata".into(), metadata.into());
        merge(&mut child, body);
        Value::Object(child)
    }

    /// The same object with other types, as for what was read: `Object<DeploymentSpec, DeploymentStatus>`.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// #[derive(Deserialize)]
    /// struct Database { port: u16 }
    ///
    /// fn reconcile(app: Object<Value>, cx: &Context) -> Result<Plan> {
    ///     let Some(database) = cx.get("example.dev/v1/Database", app.namespace(), "main")? else {
    ///         return Err(Error::wait("the Database `main` is not there yet"));
    ///     };
    ///     let database: Object<Database> = database.cast()?;
    ///     Ok(Plan::new().status(json!({ "port": database.spec.port })))
    /// }
    /// # let cluster = Context::fake().with("{ apiVersion: example.dev/v1, kind: Database, metadata: { name: main }, spec: { port: 5432 } }");
    /// # assert_eq!(cluster.run(reconcile, "{ metadata: { name: a } }").unwrap().status.unwrap()["port"], 5432);
    /// ```
    pub fn cast<S: DeserializeOwned, T>(&self) -> Result<Object<S, T>> {
        Object::decode(self.text.clone())
    }

    /// The object as JSON text, as it was read.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// `metadata` of the body is merged field by field, everything else taken as it is.
fn merge(child: &mut Map<String, Value>, body: Value) {
    let Value::Object(body) = body else { return };
    for (key, value) in body {
        match (child.get_mut(&key), value) {
            (Some(Value::Object(into)), Value::Object(fields)) if key == "metadata" => into.extend(fields),
            (_, value) => {
                child.insert(key, value);
            }
        }
    }
}

/// `apps/v1/Deployment` is apiVersion `apps/v1` and kind `Deployment`.
pub(crate) fn split_kind(kind: &str) -> (&str, &str) {
    kind.rsplit_once('/').unwrap_or(("", kind))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Deserialize, Debug)]
    struct Hello {
        text: String,
    }

    fn decode<S: DeserializeOwned>(value: Value) -> Result<Object<S>> {
        Object::decode(value.to_string())
    }

    #[test]
    fn a_typed_object_has_its_metadata_and_everything_else_on_demand() {
        let hello: Object<Hello> = decode(json!({
            "apiVersion": "demo.reef.dev/v1", "kind": "Hello",
            "metadata": { "name": "a", "namespace": "n", "generation": 2, "labels": { "l": "1" }, "managedFields": [] },
            "spec": { "text": "hi" }, "status": { "observedGeneration": 2 }, "extra": [7],
        }))
        .unwrap();
        assert_eq!((hello.name(), hello.namespace(), hello.kind().as_str()), ("a", "n", "demo.reef.dev/v1/Hello"));
        assert_eq!((hello.spec.text.as_str(), hello.label("l"), hello.annotation("l")), ("hi", Some("1"), None));
        assert_eq!((hello.at("/extra/0"), hello.at("/none")), (&json!(7), &Value::Null));
        assert!(hello.is_observed() && !hello.is_deleting());
    }

    #[test]
    fn a_spec_that_does_not_decode_is_terminal_and_named() {
        let error = decode::<Hello>(json!({ "kind": "Hello", "metadata": { "name": "a" }, "spec": { "text": 3 } })).unwrap_err();
        assert!(error.is_terminal());
        assert_eq!(error.to_string(), "spec of Hello a does not decode: invalid type: integer `3`, expected a string");
        assert!(decode::<Hello>(json!({ "metadata": {} })).is_err());
    }

    #[test]
    fn a_kind_without_a_spec_decodes_and_a_status_of_an_older_version_counts_as_none() {
        assert!(decode::<()>(json!({ "kind": "ConfigMap", "data": {} })).is_ok());
        let old: Object<Value, Hello> = Object::decode(json!({ "status": { "texts": [] } }).to_string()).unwrap();
        assert!(old.status().is_none());
        let new: Object<Value, Hello> = Object::decode(json!({ "status": { "text": "a" } }).to_string()).unwrap();
        assert_eq!(new.status().unwrap().text, "a");
    }

    #[test]
    fn a_child_gets_name_and_namespace_unless_it_says_others() {
        let owner: Object = decode(json!({ "metadata": { "name": "a", "namespace": "n" } })).unwrap();
        let child = owner.child("apps/v1/Deployment", json!({ "metadata": { "labels": { "x": "y" } }, "spec": {} }));
        assert_eq!(
            child,
            json!({ "apiVersion": "apps/v1", "kind": "Deployment", "spec": {},
                    "metadata": { "name": "a", "namespace": "n", "labels": { "x": "y" } } })
        );
        assert_eq!(owner.child("v1/Secret", json!({ "metadata": { "name": "b" } }))["metadata"]["name"], "b");
    }
}
