//! The only door to the outside: reads, settings, time and chance.
//!
//! It knows nothing of where reads are answered: in a component that is the host, natively [`Fake`](crate::Fake).

use std::{
    cell::Cell,
    time::{Duration, SystemTime},
};

use serde::{
    Serialize,
    de::{DeserializeOwned, IgnoredAny},
};

use crate::{
    error::{Error, Result},
    object::{Object, split_kind},
    time::Timestamp,
};

#[cfg(not(target_family = "wasm"))]
use crate::fake::Reads;
#[cfg(target_family = "wasm")]
use crate::host::Reads;

/// What a reconcile function may ask. Whatever it reads becomes a dependency: when that changes, comes to exist or goes,
/// the function runs again.
///
/// ```
/// use plugin_sdk::prelude::*;
///
/// fn reconcile(app: Object<Value>, cx: &Context) -> Result<Plan> {
///     let Some(secret) = cx.get("v1/Secret", app.namespace(), "database")? else {
///         return Err(Error::wait("the Secret `database` is not there yet"));
///     };
///     let config = app.child("v1/ConfigMap", json!({ "data": { "user": secret.at("/data/user") } }));
///     Ok(Plan::new().own(config))
/// }
///
/// let cluster = Context::fake();
/// let error = cluster.run(reconcile, "{ metadata: { name: a, namespace: n } }").unwrap_err();
/// assert!(error.is_wait());
/// assert_eq!(cluster.reads(), ["v1/Secret n/database"]);
/// ```
#[derive(Debug)]
pub struct Context {
    pub(crate) reads: Reads,
    /// Of the object that is reconciled.
    pub(crate) namespace: String,
    /// JSON text.
    pub(crate) settings: String,
    /// Milliseconds since the Unix epoch.
    pub(crate) now: u64,
    pub(crate) attempt: u32,
    pub(crate) random: Cell<u64>,
}

impl Context {
    /// One object, or none if there is none; both are dependencies. The namespace of a cluster-scoped object is `""`.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// # fn reconcile(app: Object<Value>, cx: &Context) -> Result<Plan> {
    /// let style = cx.get("v1/ConfigMap", app.namespace(), "style")?;
    /// let color = style.as_ref().and_then(|style| style.at("/data/color").as_str()).unwrap_or("blue");
    /// # assert_eq!(color, "blue"); Ok(Plan::new()) }
    /// # Context::fake().run(reconcile, "{ metadata: { name: a } }").unwrap();
    /// ```
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<Object>> {
        self.get_fields(kind, namespace, name, &[])
    }

    /// The same, but of the object only identity and these fields, by JSON pointer (`/status/phase`): nothing else of it
    /// wakes, and nothing else is carried over.
    pub fn get_fields(&self, kind: &str, namespace: &str, name: &str, fields: &[&str]) -> Result<Option<Object>> {
        self.reads.get(kind, namespace, name, fields)?.map(Object::decode).transpose()
    }

    /// What is there of a child that is about to be planned: whatever [`Plan::own`](crate::Plan::own) takes. It must say its
    /// namespace, as what [`Object::child`] returns does.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// # fn reconcile(app: Object<Value>, cx: &Context) -> Result<Plan> {
    /// let web = app.child("apps/v1/Deployment", json!({ "spec": { "replicas": 2 } }));
    /// let ready = cx.read(&web)?.is_some_and(|live| live.is_observed() && live.at("/status/readyReplicas") == 2);
    /// # Ok(Plan::new().own(web).status(json!({ "ready": ready }))) }
    /// # let cluster = Context::fake();
    /// # cluster.run(reconcile, "{ metadata: { name: a, namespace: n } }").unwrap();
    /// # assert_eq!(cluster.reads(), ["apps/v1/Deployment n/a"]);
    /// ```
    pub fn read(&self, child: &impl Serialize) -> Result<Option<Object>> {
        let named: Object<IgnoredAny> = Object::decode(serde_json::to_string(child)?)?;
        self.get(&named.kind(), named.namespace(), named.name())
    }

    /// All objects of a kind that a label selector matches (`app=web,tier notin (db,cache)`, as kubectl takes it; `""` is
    /// all), in the namespace of the object that is reconciled, in the order of their names. Of a cluster-scoped kind, or for a
    /// cluster-scoped object, in all namespaces. Which objects match is a dependency too. [`Object::typed`] decodes them.
    ///
    /// ```
    /// use plugin_sdk::prelude::*;
    ///
    /// #[derive(Deserialize)]
    /// struct Port { port: u16 }
    ///
    /// fn reconcile(app: Object<Value>, cx: &Context) -> Result<Plan> {
    ///     let ports = cx.list("net.example/v1/Port", "app=web")?.into_iter().map(Object::typed::<Port, Value>);
    ///     let ports = ports.collect::<Result<Vec<_>>>()?;
    ///     Ok(Plan::new().status(json!({ "ports": ports.iter().map(|port| port.spec.port).collect::<Vec<_>>() })))
    /// }
    ///
    /// let cluster = Context::fake().with("
    ///     apiVersion: net.example/v1
    ///     kind: Port
    ///     metadata: { name: http, namespace: shop, labels: { app: web } }
    ///     spec: { port: 80 }
    /// ");
    /// let plan = cluster.run(reconcile, "{ metadata: { name: a, namespace: shop } }").unwrap();
    /// assert_eq!(plan.status.unwrap()["ports"], json!([80]));
    /// ```
    pub fn list(&self, kind: &str, selector: &str) -> Result<Vec<Object>> {
        self.list_fields(kind, selector, &[])
    }

    /// The same, but of each object only identity and these fields, by JSON pointer (`/status/phase`): of an object that goes
    /// on matching nothing else wakes, and many more fit into one answer.
    pub fn list_fields(&self, kind: &str, selector: &str, fields: &[&str]) -> Result<Vec<Object>> {
        self.reads.list(kind, &self.namespace, selector, fields)?.into_iter().map(Object::decode).collect()
    }

    /// `spec.settings` of the plugin. What does not decode is a terminal error with the reason `InvalidSettings`.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// #[derive(Deserialize, Default)]
    /// #[serde(default)]
    /// struct Settings { image: String }
    ///
    /// fn reconcile(_: Object<Value>, cx: &Context) -> Result<Plan> {
    ///     let settings: Settings = cx.settings()?;
    ///     Ok(Plan::new().status(json!({ "image": settings.image })))
    /// }
    /// # let cluster = Context::fake().with_settings(json!({ "image": "web:1" }));
    /// # assert_eq!(cluster.run(reconcile, "{ metadata: { name: a } }").unwrap().status.unwrap()["image"], "web:1");
    /// ```
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.settings).map_err(|error| {
            Error::terminal(format!("spec.settings of the plugin does not decode: {error}")).reason("InvalidSettings")
        })
    }

    /// The time of the request, the same during the whole call. In a status it is a [`Timestamp`](crate::Timestamp); one that
    /// changes with every call makes every call a write.
    pub fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.now)
    }

    /// How long it is until then; zero if that has passed. For [`Plan::after`](crate::Plan::after).
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// fn reconcile(report: Object<Value>, cx: &Context) -> Result<Plan> {
    ///     let wait = cx.until("2023-11-15T00:00:00Z".parse()?);
    ///     Ok(if wait.is_zero() { Plan::new().event(Event::normal("Due", "it is time")) } else { Plan::new().after(wait) })
    /// }
    /// # let plan = Context::fake().run(reconcile, "{ metadata: { name: a } }").unwrap();
    /// # assert_eq!(plan.after, Some(std::time::Duration::from_secs(6400)));
    /// ```
    pub fn until(&self, time: Timestamp) -> Duration {
        time.0.duration_since(self.now()).unwrap_or_default()
    }

    /// Chance for jitter and unstable choices, seeded by the request. Never for keys or passwords: the seed is recorded.
    pub fn rng(&self) -> Rng<'_> {
        Rng(&self.random)
    }

    /// Failures in a row before this call.
    ///
    /// ```
    /// # use plugin_sdk::prelude::*;
    /// # fn reconcile(_: Object<Value>, cx: &Context) -> Result<Plan> {
    /// if cx.attempt() > 3 {
    ///     return Err(Error::terminal("given up after three failures"));
    /// }
    /// # Ok(Plan::new()) }
    /// # assert!(Context::fake().with_attempt(4).run(reconcile, "{ metadata: { name: a } }").is_err());
    /// ```
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}

/// See [`Context::rng`].
///
/// ```
/// # use plugin_sdk::prelude::*;
/// # use std::time::Duration;
/// # fn reconcile(_: Object<Value>, cx: &Context) -> Result<Plan> {
/// // Once an hour, but not all objects at once.
/// Ok(Plan::new().after(cx.rng().jitter(Duration::from_secs(3600))))
/// # }
/// # Context::fake().run(reconcile, "{ metadata: { name: a } }").unwrap();
/// ```
#[derive(Debug)]
pub struct Rng<'a>(&'a Cell<u64>);

impl Rng<'_> {
    /// Any number. SplitMix64: small, and good enough for what it may be used for.
    pub fn next_u64(&mut self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number less than `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64().checked_rem(bound).unwrap_or(0)
    }

    /// `around`, a tenth more or less.
    pub fn jitter(&mut self, around: Duration) -> Duration {
        let tenth = u64::try_from(around.as_millis() / 10).unwrap_or(u64::MAX / 4);
        around.saturating_sub(Duration::from_millis(tenth)) + Duration::from_millis(self.below(tenth * 2 + 1))
    }
}

/// apiVersion and kind of `apps/v1/Deployment`; a typo is terminal.
pub(crate) fn parse_kind(kind: &str) -> Result<(&str, &str)> {
    if crate::check::is_kind(kind) {
        Ok(split_kind(kind))
    } else {
        let fix = "write group/version/Kind, or version/Kind in the core group, as in `apps/v1/Deployment` or `v1/ConfigMap`";
        Err(Error::terminal(format!("`{kind}` is no kind: {fix}")).reason("InvalidKind"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_repeats_with_its_seed_and_jitter_stays_within_a_tenth() {
        let draw = |seed| Rng(&Cell::new(seed)).next_u64();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let state = Cell::new(7);
        for _ in 0..1000 {
            let wait = Rng(&state).jitter(Duration::from_secs(10)).as_millis();
            assert!((9_000..=11_000).contains(&wait), "{wait}");
        }
        assert_eq!(Rng(&state).below(0), 0);
    }
}
