//! What a plan says, for a test to look into.

use std::time::Duration;

use serde_json::Value;

use super::key;
use crate::{
    error::Result,
    plan::Finished,
    report::{Condition, Event},
};

/// A plan to look into.
///
/// ```
/// # use plugin_sdk::prelude::*;
/// # fn reconcile(app: Object<Value>, _cx: &Context) -> Result<Plan> {
/// #     Ok(Plan::new().own(app.child("v1/ConfigMap", json!({ "data": { "a": "b" } }))).pending("the database"))
/// # }
/// let plan = Context::fake().run(reconcile, "{ metadata: { name: web } }").unwrap();
/// assert_eq!(plan.children(), ["v1/ConfigMap web"]);
/// assert_eq!(plan.owned("v1/ConfigMap", "web")["data"]["a"], "b");
/// assert_eq!(plan.pending.as_deref(), Some("the database"));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// In the order of the plan.
    pub writes: Vec<Written>,
    /// None if the status stays as it is.
    pub status: Option<Value>,
    /// In the order of the plan.
    pub conditions: Vec<Condition>,
    /// In the order of the plan.
    pub events: Vec<Event>,
    /// When to run again although nothing changed.
    pub after: Option<Duration>,
    /// What a partial plan waits for.
    pub pending: Option<String>,
    /// A cleanup has nothing left to do.
    pub done: bool,
}

/// One write of a plan.
///
/// ```
/// # use plugin_sdk::prelude::*;
/// # fn reconcile(app: Object<Value>, _cx: &Context) -> Result<Plan> {
/// #     Ok(Plan::new().own(app.child("v1/ConfigMap", json!({}))).keep())
/// # }
/// let plan = Context::fake().run(reconcile, "{ metadata: { name: web } }").unwrap();
/// assert_eq!((plan.writes[0].verb, &plan.writes[0].options), ("own", &json!({ "keep": true })));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// `own`, `apply`, `create`, `patch` or `delete`.
    pub verb: &'static str,
    /// Whole, or what the verb takes.
    pub object: Value,
    /// See `wit/options.schema.json`.
    pub options: Value,
}

impl Planned {
    pub(super) fn new(plan: Finished) -> Result<Self> {
        let written = |write: &crate::plan::Write| -> Result<Written> {
            let (object, options) = (serde_json::from_str(&write.object)?, Value::Object(write.options.clone()));
            Ok(Written { verb: write.verb, object, options })
        };
        let writes = plan.writes.iter().map(written).collect::<Result<_>>()?;
        let Finished { report, after, pending, done, .. } = plan;
        let status = report.status.map(|status| serde_json::from_str(&status)).transpose()?;
        let (conditions, events) = (report.conditions, report.events);
        Ok(Self { writes, status, conditions, events, after, pending, done })
    }

    /// What the plan owns, in its order: `apps/v1/Deployment web`.
    pub fn children(&self) -> Vec<String> {
        self.names("own")
    }

    /// What the plan has exist from now on, in its order: `batch/v1/Job first`.
    pub fn created(&self) -> Vec<String> {
        self.names("create")
    }

    /// What the plan deletes, in its order: `v1/ConfigMap old`.
    pub fn deleted(&self) -> Vec<String> {
        self.names("delete")
    }

    fn names(&self, verb: &str) -> Vec<String> {
        let written = self.writes.iter().filter(|write| write.verb == verb).map(|write| key(&write.object));
        written.map(|(kind, _, name)| format!("{kind} {name}")).collect()
    }

    /// The object that the plan owns under this name; `Value::Null` if there is none, so that a test reads
    /// `plan.owned("v1/ConfigMap", "a")["data"]["text"]`.
    pub fn owned(&self, kind: &str, name: &str) -> &Value {
        self.written("own", kind, name)
    }

    /// The object that the plan writes with this verb under this name; `Value::Null` if there is none.
    pub fn written(&self, verb: &str, kind: &str, name: &str) -> &Value {
        const NOTHING: &Value = &Value::Null;
        let wanted = |write: &&Written| {
            let (its_kind, _, its_name) = key(&write.object);
            write.verb == verb && its_kind == kind && its_name == name
        };
        self.writes.iter().find(wanted).map_or(NOTHING, |write| &write.object)
    }

    /// The sentence of a condition; empty if the plan does not speak of it.
    pub fn message(&self, name: &str) -> &str {
        self.conditions.iter().find(|condition| condition.name == name).map_or("", |condition| &condition.message)
    }

    /// `True`, `False` or `Unknown`; none if the plan does not speak of this condition.
    pub fn condition(&self, name: &str) -> Option<&'static str> {
        self.conditions.iter().find(|condition| condition.name == name).map(|condition| condition.status)
    }
}
