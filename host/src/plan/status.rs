//! What a status has to become: the plugin's fields, its conditions and the host's, merged with what is live.
//!
//! Pure; the clock is passed in. One server-side apply carries all of it, so whatever our manager owns and nobody says
//! this time is said again as it is, or the API server would take it away.

use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use super::{cover, json::same, report::Reported, schema::Conditions};
use crate::{
    contract::{Condition, Truth},
    watch::{Entry, Operation},
};

/// Longer messages of the host's are cut: people read them.
const MAX_MESSAGE: usize = 4096;
const UNSPECIFIED: &str = "Unspecified";

/// The status as it is.
#[derive(Debug, Clone, Default)]
pub struct Live {
    status: Value,
    /// `f:status` of our manager's entry for the status.
    owned: Value,
}

impl Live {
    /// Fails when the status is nested too deeply to be looked at.
    pub fn of(entry: &Entry, manager: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Top<'a> {
            #[serde(borrow)]
            status: Option<&'a RawValue>,
        }
        let top: Top<'_> = serde_json::from_slice(&entry.bytes).map_err(|e| e.to_string())?;
        let status = match top.status {
            Some(raw) => serde_json::from_str(raw.get()).map_err(|e| format!("its status does not decode: {e}"))?,
            None => Value::Null,
        };
        let ours =
            |m: &&crate::watch::Managed| *m.manager == *manager && *m.subresource == *"status" && m.operation == Operation::Apply;
        let fields: Value =
            entry.managers.iter().find(ours).and_then(|m| serde_json::from_str(&m.fields).ok()).unwrap_or_default();
        let owned = fields.get("f:status").cloned().unwrap_or_default();
        Ok(Self { status, owned })
    }

    /// Whether the condition stands at this status already.
    pub fn stands_at(&self, name: &str, status: Truth) -> bool {
        self.condition(name).is_some_and(|live| live.get("status") == Some(&status.as_str().into()))
    }

    pub fn has(&self, name: &str) -> bool {
        self.condition(name).is_some()
    }

    fn condition(&self, name: &str) -> Option<&Value> {
        self.conditions().iter().find(|live| live.get("type") == Some(&name.into()))
    }

    fn conditions(&self) -> &[Value] {
        self.status.get("conditions").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The conditions that our manager owns, and still by their status: who changes that has taken them over.
    fn own_conditions(&self) -> Vec<Value> {
        let Some(owned) = self.owned.get("f:conditions") else { return Vec::new() };
        match cover::extract(&Value::Array(self.conditions().to_vec()), owned) {
            Value::Array(own) => own.into_iter().filter(|c| c.get("status").is_some()).collect(),
            _ => Vec::new(),
        }
    }
}

/// The host's own condition, cut to what people read.
pub fn host_condition(name: &str, status: Truth, reason: &str, message: &str) -> Condition {
    let mut message = message.to_string();
    if message.len() > MAX_MESSAGE {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        message.push('…');
    }
    Condition { name: name.into(), status, reason: reason.into(), message }
}

/// The status to apply, or `None` when the live one says it already and we own exactly it.
pub fn merge(
    live: &Live,
    said: &Reported,
    host: &Condition,
    shape: &Conditions,
    generation: Option<i64>,
    now: &str,
) -> Option<Value> {
    let mut wanted = match &said.status {
        Some(status) => status.clone(),
        None => kept_fields(live),
    };
    let conditions: Vec<Value> = match shape {
        Conditions::Absent => Vec::new(),
        _ => said.conditions.iter().chain([host]).map(|c| written(c, live, shape, generation, now)).collect(),
    };
    match shape {
        Conditions::Absent => {}
        Conditions::Map(_) => {
            wanted.insert("conditions".into(), merged(live.own_conditions(), conditions).into());
        }
        Conditions::Atomic(_) => {
            if is_said(&wanted, live)
                && conditions.iter().all(|c| live.conditions().iter().any(|l| cover::agrees(c, l, &Value::Null)))
            {
                return None;
            }
            wanted.insert("conditions".into(), merged(live.conditions().to_vec(), conditions).into());
            return Some(Value::Object(wanted));
        }
    }
    let wanted = Value::Object(wanted);
    let in_order = cover::missing(&wanted, &live.owned).is_none()
        && cover::extra(&wanted, &live.owned).is_none()
        && cover::agrees(&wanted, &live.status, &live.owned);
    (!in_order).then_some(wanted)
}

/// Where the list belongs to nobody in particular, the fields beside it are judged without it.
fn is_said(wanted: &Map<String, Value>, live: &Live) -> bool {
    let wanted = Value::Object(wanted.clone());
    let mut owned = live.owned.clone();
    if let Some(owned) = owned.as_object_mut() {
        owned.remove("f:conditions");
    }
    cover::missing(&wanted, &owned).is_none()
        && cover::extra(&wanted, &owned).is_none()
        && cover::agrees(&wanted, &live.status, &owned)
}

/// The fields of the status that our manager owns, conditions aside.
fn kept_fields(live: &Live) -> Map<String, Value> {
    if live.owned.as_object().is_none_or(Map::is_empty) {
        return Map::new();
    }
    match cover::extract(&live.status, &live.owned) {
        Value::Object(mut kept) => {
            kept.remove("conditions");
            kept
        }
        _ => Map::new(),
    }
}

/// `base` with the conditions of `said` in the place of those of the same type, or behind them.
fn merged(mut base: Vec<Value>, said: Vec<Value>) -> Vec<Value> {
    for condition in said {
        let name = condition.get("type").cloned();
        match base.iter_mut().find(|other| other.get("type") == name.as_ref()) {
            Some(other) => *other = condition,
            None => base.push(condition),
        }
    }
    base
}

/// A condition as Kubernetes writes it, as far as the schema has its fields. The time of transition stays while the
/// status does.
fn written(said: &Condition, live: &Live, shape: &Conditions, generation: Option<i64>, now: &str) -> Value {
    let status = Value::from(said.status.as_str());
    let before = live.condition(&said.name).filter(|live| live.get("status").is_some_and(|before| same(before, &status)));
    let since = before.and_then(|live| live.get("lastTransitionTime")).filter(|t| t.is_string());
    let reason = if said.reason.is_empty() { UNSPECIFIED } else { &said.reason };
    let mut fields = Map::new();
    let mut put = |field: &str, value: Value| {
        if shape.takes(field) {
            fields.insert(field.into(), value);
        }
    };
    put("type", said.name.as_str().into());
    put("status", status);
    if let Some(generation) = generation {
        put("observedGeneration", generation.into());
    }
    put("lastTransitionTime", since.cloned().unwrap_or_else(|| now.into()));
    put("reason", reason.into());
    put("message", said.message.as_str().into());
    Value::Object(fields)
}

/// The body of the apply. The version is the precondition: a `uid` is not looked at by the status of custom resources.
pub fn body(entry: &Entry, status: Value) -> Value {
    let id = &entry.id;
    let mut metadata = json!({ "name": &*id.name, "resourceVersion": entry.resource_version.to_string() });
    if !id.namespace.is_empty() {
        super::json::insert(&mut metadata, "namespace", &id.namespace);
    }
    json!({ "apiVersion": id.kind.api_version(), "kind": &*id.kind.kind, "metadata": metadata, "status": status })
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEN: &str = "2026-01-01T00:00:00Z";
    const NOW: &str = "2026-02-02T00:00:00Z";

    fn map() -> Conditions {
        Conditions::Map(None)
    }

    fn live(status: Value, owned: Value) -> Live {
        Live { status, owned }
    }

    fn said(status: Option<Value>, conditions: &[(&str, Truth)]) -> Reported {
        let condition = |(name, status): &(&str, Truth)| Condition {
            name: (*name).into(),
            status: *status,
            reason: "R".into(),
            message: String::new(),
        };
        Reported {
            status: status.map(|s| s.as_object().unwrap().clone()),
            conditions: conditions.iter().map(condition).collect(),
            events: Vec::new(),
        }
    }

    fn good() -> Condition {
        host_condition("Reconciled", Truth::True, "Reconciled", "")
    }

    /// What the API server notes when this status is applied where conditions are a map.
    fn owned(status: &Value) -> Value {
        let mut owned = Map::new();
        for (key, value) in status.as_object().unwrap() {
            let below = match value {
                Value::Array(items) if key == "conditions" => items.iter().map(item).collect(),
                _ => Map::new(),
            };
            owned.insert(format!("f:{key}"), below.into());
        }
        owned.into()
    }

    fn item(condition: &Value) -> (String, Value) {
        let mut fields: Map<String, Value> =
            condition.as_object().unwrap().keys().map(|k| (format!("f:{k}"), json!({}))).collect();
        fields.insert(".".into(), json!({}));
        (format!("k:{}", json!({"type": condition["type"]})), fields.into())
    }

    fn condition(name: &str, status: &str, since: &str) -> Value {
        let reason = if name == "Reconciled" { "Reconciled" } else { "R" };
        json!({"type": name, "status": status, "observedGeneration": 1, "lastTransitionTime": since, "reason": reason, "message": ""})
    }

    #[test]
    fn the_first_status_carries_fields_and_all_conditions() {
        let wanted = merge(
            &Live::default(),
            &said(Some(json!({"ready": true})), &[("Ready", Truth::True)]),
            &good(),
            &map(),
            Some(1),
            NOW,
        );
        assert_eq!(
            wanted.unwrap(),
            json!({"ready": true, "conditions": [condition("Ready", "True", NOW), condition("Reconciled", "True", NOW)]})
        );
    }

    #[test]
    fn what_stands_already_is_not_written_again() {
        let status =
            json!({"ready": true, "conditions": [condition("Ready", "True", THEN), condition("Reconciled", "True", THEN)]});
        let mut seen = status.clone();
        seen["foreign"] = json!(1);
        seen["conditions"].as_array_mut().unwrap().push(condition("Theirs", "True", THEN));
        let live = live(seen, owned(&status));
        let report = said(Some(json!({"ready": true})), &[("Ready", Truth::True)]);
        assert_eq!(merge(&live, &report, &good(), &map(), Some(1), NOW), None);
        assert_eq!(merge(&live, &said(None, &[]), &good(), &map(), Some(1), NOW), None, "absent: all stays");
        assert!(merge(&live, &report, &good(), &map(), Some(2), NOW).is_some(), "another generation");
    }

    #[test]
    fn a_transition_has_a_new_time_and_everything_else_its_old_one() {
        let status =
            json!({"ready": true, "conditions": [condition("Ready", "True", THEN), condition("Reconciled", "True", THEN)]});
        let live = live(status.clone(), owned(&status));
        let wanted = merge(&live, &said(None, &[("Ready", Truth::False)]), &good(), &map(), Some(1), NOW).unwrap();
        assert_eq!(
            wanted,
            json!({"ready": true, "conditions": [condition("Ready", "False", NOW), condition("Reconciled", "True", THEN)]})
        );
    }

    #[test]
    fn fields_that_the_plugin_stops_saying_go_and_foreign_drift_is_repaired() {
        let status = json!({"a": 1, "b": 2, "conditions": [condition("Reconciled", "True", THEN)]});
        let seen = live(status.clone(), owned(&status));
        let wanted = merge(&seen, &said(Some(json!({"a": 1})), &[]), &good(), &map(), Some(1), NOW).unwrap();
        assert!(wanted.get("b").is_none() && wanted["a"] == json!(1));
        let mut drifted = owned(&status);
        drifted.as_object_mut().unwrap().remove("f:a");
        let seen = live(status, drifted);
        assert!(merge(&seen, &said(Some(json!({"a": 1, "b": 2})), &[]), &good(), &map(), Some(1), NOW).is_some());
    }

    #[test]
    fn a_condition_that_somebody_took_over_is_left_to_them() {
        let status = json!({"conditions": [condition("Ready", "True", THEN), condition("Reconciled", "True", THEN)]});
        let mut fields = owned(&status);
        fields["f:conditions"]["k:{\"type\":\"Ready\"}"].as_object_mut().unwrap().remove("f:status");
        let wanted = merge(&live(status, fields), &said(None, &[]), &good(), &map(), Some(1), NOW).unwrap();
        assert_eq!(wanted, json!({"conditions": [condition("Reconciled", "True", THEN)]}));
    }

    #[test]
    fn an_atomic_list_keeps_what_others_wrote_and_is_quiet_whoever_owns_it() {
        let theirs = condition("Theirs", "False", THEN);
        let shape = Conditions::Atomic(None);
        let before = live(json!({"conditions": [theirs]}), Value::Null);
        let wanted = merge(&before, &said(Some(json!({"x": 1})), &[]), &good(), &shape, Some(1), NOW).unwrap();
        assert_eq!(wanted, json!({"x": 1, "conditions": [theirs, condition("Reconciled", "True", NOW)]}));
        for owned in [json!({"f:x": {}, "f:conditions": {}}), json!({"f:x": {}})] {
            let after = live(wanted.clone(), owned);
            assert_eq!(merge(&after, &said(Some(json!({"x": 1})), &[]), &good(), &shape, Some(1), NOW), None);
        }
        let after = live(wanted, json!({"f:x": {}, "f:conditions": {}}));
        let failed = host_condition("Reconciled", Truth::False, "Conflict", "m");
        let wanted = merge(&after, &said(None, &[]), &failed, &shape, Some(1), NOW).unwrap();
        assert_eq!((wanted["x"].clone(), wanted["conditions"].as_array().unwrap().len()), (json!(1), 2));
    }

    #[test]
    fn without_conditions_in_the_schema_only_fields_are_written() {
        let absent = Conditions::Absent;
        let live = Live::default();
        assert_eq!(merge(&live, &said(None, &[]), &good(), &absent, Some(1), NOW), None);
        assert_eq!(merge(&live, &said(Some(json!({"a": 1})), &[]), &good(), &absent, None, NOW), Some(json!({"a": 1})));
    }

    #[test]
    fn only_fields_of_the_schema_are_written() {
        let fields = ["type", "status", "reason"].map(String::from).into();
        let wanted = merge(&Live::default(), &said(None, &[]), &good(), &Conditions::Map(Some(fields)), Some(1), NOW).unwrap();
        assert_eq!(wanted, json!({"conditions": [{"type": "Reconciled", "status": "True", "reason": "Reconciled"}]}));
    }
}
