//! Whether what a manager owns, as its `fieldsV1` says, is still what a plan says.
//!
//! Plan and `fieldsV1` are walked side by side, without a schema: `f:` is a field, `k:` the list item with these keys,
//! `v:` the member of a set, `.` the thing itself, and `{}` covers all that is below. Whoever changes a value of ours
//! takes it out of our `fieldsV1`, and whoever adds a field does not: so this sees every change of what we said, and
//! nothing else. Values are never compared, so defaults, normal forms and webhooks make no difference. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::json::{is_blank, same};

type Fields = Map<String, Value>;

/// The first field of the plan that the manager does not own. `None`: it owns all of it.
pub fn missing(plan: &Value, owned: &Value) -> Option<String> {
    match owned.as_object() {
        Some(owned) if !owned.is_empty() => not_owned(plan, owned),
        // Below the root, `{}` covers everything; at the root it says that nothing is owned.
        _ => (!is_blank(plan)).then(|| ".".to_string()),
    }
}

/// The first field that the manager owns and the plan does not have. `None`: there is none.
pub fn extra(plan: &Value, owned: &Value) -> Option<String> {
    not_planned(plan, owned.as_object()?)
}

fn not_owned(plan: &Value, owned: &Fields) -> Option<String> {
    if owned.is_empty() || is_blank(plan) {
        return None;
    }
    match plan {
        Value::Object(fields) => fields.iter().filter(|(_, value)| !is_blank(value)).find_map(|(key, value)| {
            match owned.get(&format!("f:{key}")) {
                Some(below) => not_owned(value, below.as_object()?).map(|rest| format!(".{key}{rest}")),
                None => Some(format!(".{key}")),
            }
        }),
        Value::Array(items) => {
            let members = Member::all(owned);
            let paired = pair(items, &members);
            items.iter().enumerate().find_map(|(i, item)| match paired.get(&i) {
                Some(member) => not_owned(item, member.below?).map(|rest| format!("[{i}]{rest}")),
                None => Some(format!("[{i}]")),
            })
        }
        _ => None,
    }
}

fn not_planned(plan: &Value, owned: &Fields) -> Option<String> {
    let fields = owned.iter().filter_map(|(key, below)| Some((key.strip_prefix("f:")?, below)));
    for (key, below) in fields {
        let rest = match plan.get(key) {
            Some(value) => below.as_object().and_then(|below| not_planned(value, below)),
            None => Some(String::new()),
        };
        if let Some(rest) = rest {
            return Some(format!(".{key}{rest}"));
        }
    }
    let members = Member::all(owned);
    let items = plan.as_array().map_or(&[][..], Vec::as_slice);
    let paired = pair(items, &members);
    let planned: BTreeSet<&str> = paired.values().map(|member| member.key).collect();
    if let Some(member) = members.iter().find(|member| !planned.contains(member.key)) {
        return Some(format!("[{}]", member.key));
    }
    items.iter().enumerate().find_map(|(i, item)| {
        let below = paired.get(&i)?.below?;
        not_planned(item, below).map(|rest| format!("[{i}]{rest}"))
    })
}

/// What of a live value the manager owns, as it would have to be applied again to stay as it is.
pub fn extract(live: &Value, owned: &Value) -> Value {
    let Some(fields) = owned.as_object().filter(|fields| !fields.is_empty()) else { return live.clone() };
    match live {
        Value::Object(object) => {
            let keep = |(key, value): (&String, &Value)| Some((key.clone(), extract(value, fields.get(&format!("f:{key}"))?)));
            Value::Object(object.iter().filter_map(keep).collect())
        }
        Value::Array(items) => {
            let members = Member::all(fields);
            let keep = |item: &Value| {
                let member = members.iter().find(|member| member.lacked_by(item) == Some(0))?;
                Some(member.below.map_or_else(|| item.clone(), |below| extract(item, &Value::Object(below.clone()))))
            };
            Value::Array(items.iter().filter_map(keep).collect())
        }
        scalar => scalar.clone(),
    }
}

/// Whether the live value says what is wanted, where our manager owns exactly that. The live one may say more: others'
/// fields, and defaults.
pub fn agrees(wanted: &Value, live: &Value, owned: &Value) -> bool {
    let fields = owned.as_object();
    match (wanted, live) {
        (Value::Object(wanted), live) => wanted.iter().all(|(key, value)| {
            let below = fields.and_then(|fields| fields.get(&format!("f:{key}"))).unwrap_or(&Value::Null);
            match live.get(key) {
                Some(live) => agrees(value, live, below),
                None => is_blank(value),
            }
        }),
        (Value::Array(wanted), Value::Array(live)) => {
            let members = fields.map(Member::all).unwrap_or_default();
            if members.is_empty() {
                return wanted.len() == live.len() && wanted.iter().zip(live).all(|(w, l)| agrees(w, l, &Value::Null));
            }
            wanted.iter().all(|item| {
                let Some(member) = members.iter().find(|member| member.lacked_by(item).is_some()) else { return false };
                let below = member.below.map_or(Value::Null, |below| Value::Object(below.clone()));
                live.iter().any(|live| member.lacked_by(live) == Some(0) && agrees(item, live, &below))
            })
        }
        (wanted, live) => same(wanted, live),
    }
}

/// A `k:` or `v:` entry of a list.
struct Member<'a> {
    key: &'a str,
    which: Which,
    below: Option<&'a Fields>,
}

enum Which {
    Keys(Fields),
    Value(Value),
}

impl<'a> Member<'a> {
    fn all(owned: &'a Fields) -> Vec<Self> {
        let member = |(key, below): (&'a String, &'a Value)| {
            let which = match key.split_at_checked(2)? {
                ("k:", keys) => Which::Keys(serde_json::from_str(keys).ok()?),
                ("v:", value) => Which::Value(serde_json::from_str(value).ok()?),
                _ => return None,
            };
            Some(Self { key, which, below: below.as_object() })
        };
        owned.iter().filter_map(member).collect()
    }

    /// How many of the keys the item lacks; `None` when it is another item. A key that it lacks is a default of the
    /// server, as `protocol` is of a port.
    fn lacked_by(&self, item: &Value) -> Option<usize> {
        match &self.which {
            Which::Value(value) => same(item, value).then_some(0),
            Which::Keys(keys) => keys.iter().try_fold(0, |lacks, (key, value)| match item.get(key) {
                None => Some(lacks + 1),
                Some(has) => same(has, value).then_some(lacks),
            }),
        }
    }
}

/// Which item is which member. Items that say all keys choose first: of the ports `53` and `53 UDP`, the first must not
/// be taken for the second.
fn pair<'a, 'm>(items: &[Value], members: &'m [Member<'a>]) -> BTreeMap<usize, &'m Member<'a>> {
    let mut claims: Vec<(usize, usize, usize)> = Vec::new();
    for (i, item) in items.iter().enumerate() {
        claims.extend(members.iter().enumerate().filter_map(|(m, member)| Some((member.lacked_by(item)?, i, m))));
    }
    claims.sort_unstable();
    let (mut paired, mut taken) = (BTreeMap::new(), BTreeSet::new());
    for (_, i, m) in claims {
        if let Some(member) = members.get(m)
            && !paired.contains_key(&i)
            && taken.insert(m)
        {
            paired.insert(i, member);
        }
    }
    paired
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Recorded from a kube-apiserver 1.36: plans, and what it wrote down after a POST, after an apply, and after
    /// somebody else had changed a value of the plan.
    fn recorded() -> BTreeMap<String, BTreeMap<String, Value>> {
        let mut recorded: BTreeMap<String, BTreeMap<String, Value>> =
            serde_json::from_str(include_str!("recorded.json")).unwrap();
        for case in recorded.values_mut() {
            let plan = case.get_mut("plan").unwrap().as_object_mut().unwrap();
            plan.remove("apiVersion");
            plan.remove("kind");
            let metadata = plan.get_mut("metadata").unwrap().as_object_mut().unwrap();
            metadata.remove("name");
            metadata.remove("namespace");
        }
        recorded
    }

    #[test]
    fn after_an_apply_everything_is_covered_and_nothing_is_extra() {
        for (kind, case) in recorded() {
            assert_eq!(missing(&case["plan"], &case["apply"]), None, "{kind}");
            assert_eq!(extra(&case["plan"], &case["apply"]), None, "{kind}");
        }
    }

    #[test]
    fn after_a_post_everything_is_covered_but_zero_values_that_the_server_drops() {
        for (kind, case) in recorded() {
            let expected = (kind == "deployment").then(|| ".spec.paused".to_string());
            assert_eq!(missing(&case["plan"], &case["update"]), expected, "{kind}");
        }
    }

    #[test]
    fn a_foreign_change_and_a_foreign_removal_are_seen() {
        let recorded = recorded();
        let drift = |kind: &str| missing(&recorded[kind]["plan"], &recorded[kind]["drift"]);
        assert_eq!(drift("deployment").as_deref(), Some(".spec.template.spec.containers[0].image"));
        assert_eq!(drift("configmap").as_deref(), Some(".data.text"));
    }

    #[test]
    fn a_field_that_left_the_plan_is_extra() {
        let mut recorded = recorded();
        let case = recorded.get_mut("deployment").unwrap();
        let (plan, apply) = (case["plan"].clone(), &case["apply"]);
        let without = |path: &str, index: usize| {
            let mut plan = plan.clone();
            plan.pointer_mut(path).unwrap().as_array_mut().unwrap().remove(index);
            extra(&plan, apply)
        };
        assert!(without("/spec/template/spec/containers/0/env", 0).unwrap().contains("\"A\""));
        assert!(without("/spec/template/spec/containers/0/ports", 0).unwrap().contains("80"));
        let mut plan = plan.clone();
        plan["spec"].as_object_mut().unwrap().remove("replicas");
        assert_eq!(extra(&plan, apply).as_deref(), Some(".spec.replicas"));
    }

    #[test]
    fn a_renamed_list_item_is_both() {
        let recorded = recorded();
        let case = &recorded["deployment"];
        let mut plan = case["plan"].clone();
        plan["spec"]["template"]["spec"]["containers"][0]["env"][0]["name"] = json!("Z");
        assert_eq!(missing(&plan, &case["apply"]).as_deref(), Some(".spec.template.spec.containers[0].env[0]"));
        assert!(extra(&plan, &case["apply"]).unwrap().contains("\"A\""));
    }

    #[test]
    fn an_item_without_a_defaulted_key_is_not_taken_for_the_one_that_says_it() {
        let owned = json!({"f:ports": {"k:{\"port\":53,\"protocol\":\"UDP\"}": {".": {}, "f:port": {}, "f:protocol": {}}}});
        let plan = json!({"ports": [{"port": 53}, {"port": 53, "protocol": "UDP"}]});
        assert_eq!(missing(&plan, &owned).as_deref(), Some(".ports[0]"));
    }

    #[test]
    fn sets_are_matched_by_value() {
        let owned = json!({"f:metadata": {"f:finalizers": {".": {}, "v:\"a\"": {}, "v:\"b\"": {}}}});
        let plan = |items: &[&str]| json!({"metadata": {"finalizers": items}});
        assert_eq!(missing(&plan(&["b", "a"]), &owned), None);
        assert_eq!(extra(&plan(&["b", "a"]), &owned), None);
        assert_eq!(missing(&plan(&["a", "c"]), &owned).as_deref(), Some(".metadata.finalizers[1]"));
        assert_eq!(extra(&plan(&["a"]), &owned).as_deref(), Some(".metadata.finalizers[v:\"b\"]"));
    }

    #[test]
    fn blanks_need_no_cover_and_an_atomic_field_covers_all_below() {
        let owned = json!({"f:spec": {"f:selector": {}}});
        let plan = json!({"spec": {"selector": {"a": {"b": [1]}}, "list": [], "map": {"x": {}}, "nil": null}});
        assert_eq!((missing(&plan, &owned), extra(&plan, &owned)), (None, None));
    }

    #[test]
    fn what_we_own_is_extracted_and_nothing_else() {
        let live = json!({"ours": 1, "theirs": 2, "deep": {"a": 1, "b": 2}, "whole": {"x": [1]},
            "list": [{"type": "A", "status": "True", "foreign": 1}, {"type": "B", "status": "True"}]});
        let owned = json!({"f:ours": {}, "f:gone": {}, "f:deep": {"f:b": {}}, "f:whole": {},
            "f:list": {"k:{\"type\":\"A\"}": {".": {}, "f:type": {}, "f:status": {}}}});
        let expected = json!({"ours": 1, "deep": {"b": 2}, "whole": {"x": [1]}, "list": [{"type": "A", "status": "True"}]});
        assert_eq!(extract(&live, &owned), expected);
        assert_eq!(missing(&expected, &owned), None);
        assert!(agrees(&expected, &live, &owned));
    }

    #[test]
    fn agreement_is_about_what_is_wanted() {
        let owned = json!({"f:n": {}, "f:atomic": {}, "f:set": {"v:1": {}, "v:2": {}}});
        let agree = |wanted: Value, live: Value| agrees(&wanted, &live, &owned);
        assert!(agree(json!({"n": 1.0}), json!({"n": 1, "other": 2})));
        assert!(!agree(json!({"n": 1}), json!({"n": 2})));
        assert!(!agree(json!({"n": 1}), json!({})));
        assert!(agree(json!({"set": [2]}), json!({"set": [1, 2]})));
        assert!(agree(json!({"atomic": [{"a": 1}]}), json!({"atomic": [{"a": 1, "default": true}]})));
        assert!(!agree(json!({"atomic": []}), json!({"atomic": [1]})));
    }

    #[test]
    fn who_owns_nothing_covers_nothing() {
        assert!(missing(&json!({"a": 1}), &json!({})).is_some());
        assert!(missing(&json!({"a": 1}), &Value::Null).is_some());
    }
}
