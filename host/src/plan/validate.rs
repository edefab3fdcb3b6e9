//! Whether a plan's writes may be carried out at all: decided for the whole plan before anything is written.
//!
//! Pure. Every refusal is a sentence that names the write, the field, its value, and what to do instead.

mod fields;

use std::{collections::HashMap, sync::Arc};

use serde_json::{Map, Value};

use self::fields::{check_metadata, check_name, check_patched_metadata, check_string_data, check_subresource};
use super::{
    Owner, Seen,
    complete::{Wanted, complete},
    json::is_blank,
    verb::Verb,
};
use crate::{
    contract::{Write, manifest::Reconciles},
    identity::{Resource, Subresource},
    names::{Kind, ObjectId},
};

/// More writes than this in one plan are a mistake.
const MAX_WRITES: usize = 500;
/// No API server stores more in one object.
const MAX_OBJECT: usize = 1_572_864;
/// All objects of a plan together.
const MAX_PLAN: usize = 16 * 1_048_576;

/// Says what is wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// A write as the plugin said it, well-formed but not yet placed.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Counted from one, as people do.
    number: usize,
    pub verb: Verb,
    pub kind: Kind,
    pub name: String,
    pub namespace: Option<String>,
    pub object: Map<String, Value>,
}

impl Draft {
    fn invalid(&self, said: impl std::fmt::Display) -> Invalid {
        Invalid(format!("write {} ({} `{}`): {said}", self.number, self.kind, self.name))
    }
}

/// First half: everything that can be told without knowing how the kinds are served.
pub fn drafts(writes: &[Write], entry: &Reconciles) -> Result<Vec<Draft>, Invalid> {
    if writes.len() > MAX_WRITES {
        return Err(Invalid(format!("the plan has {} writes: at most {MAX_WRITES} are carried out", writes.len())));
    }
    let size: usize = writes.iter().map(|write| write.object.len()).sum();
    if size > MAX_PLAN {
        return Err(Invalid(format!("the plan's objects have {size} bytes: at most {MAX_PLAN} are carried out")));
    }
    writes.iter().enumerate().map(|(i, write)| draft(i + 1, write, entry)).collect()
}

/// Second half: places and completes what is to be written, now that it is known how the kinds are served.
pub fn wanted(
    drafts: Vec<Draft>,
    owner: &Owner,
    seen: &Seen,
    mark: &str,
    resources: &HashMap<Kind, Arc<Resource>>,
) -> Result<Vec<Wanted>, Invalid> {
    let mut all: Vec<Wanted> = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let resource = resources.get(&draft.kind).ok_or_else(|| draft.invalid("the API server serves no such kind"))?;
        let namespace = place(&draft, owner, resource)?;
        let id = ObjectId::new(draft.kind.clone(), &namespace, &draft.name);
        let subresource = subresource(&draft, &id, owner, resource)?.cloned();
        if matches!(draft.verb, Verb::Delete { .. }) && !seen.has(owner, &id) {
            return Err(draft.invalid(
                "this call has not read it, and only what was read can be deleted: `get` it, or `list` it, and pass on what that \
                 returned",
            ));
        }
        let same = |c: &Wanted| c.id.kind.same_group_kind(&id.kind) && c.id.namespace == id.namespace && c.id.name == id.name;
        if all.iter().any(same) {
            return Err(draft.invalid("the plan has this object twice: merge the two writes or rename one"));
        }
        all.push(complete(draft, resource.clone(), subresource, &namespace, owner, mark));
    }
    Ok(all)
}

/// The part of the object that is written, if it is not the object itself; the API server would drop what is written of
/// another part.
fn subresource<'a>(
    draft: &Draft,
    id: &ObjectId,
    owner: &Owner,
    resource: &'a Resource,
) -> Result<Option<&'a Subresource>, Invalid> {
    let Some(name) = draft.verb.subresource() else {
        let status = resource.status && draft.object.get("status").is_some_and(|status| !is_blank(status));
        return match draft.verb {
            Verb::Delete { .. } => Ok(None),
            Verb::Patch { .. } | Verb::Apply { .. } if status => {
                Err(draft.invalid("`status` is a subresource of its own: leave it out, or write it alone with `subresource`"))
            }
            _ if status => Err(draft.invalid("`status` is written by whoever reconciles the object: leave it out")),
            _ => Ok(None),
        };
    };
    if name == "status" && *id == owner.entry.id {
        return Err(draft.invalid("the status of the reconciled object is reported with the plan: say it with `status(..)`"));
    }
    check_subresource(name, &draft.object).map_err(|said| draft.invalid(said))?;
    let all = &resource.subresources;
    all.iter().find(|one| *one.name == *name).map(Some).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|one| &*one.name).collect();
        let has = if names.is_empty() { "none that can be written".into() } else { names.join(", ") };
        draft.invalid(format_args!("option `subresource` is `{name}`, and {} has {has}", draft.kind))
    })
}

/// The namespace of an object. Of a child it is that of its owner: the garbage collector follows owner references only
/// within one, or up to the cluster.
fn place(draft: &Draft, owner: &Owner, resource: &Resource) -> Result<String, Invalid> {
    let own = if owner.resource.namespaced { &owner.entry.id.namespace } else { &owner.key.plugin.namespace };
    let said = draft.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    match (resource.namespaced, said) {
        (true, Some(other)) if *other != **own => Err(draft.invalid(format_args!(
            "metadata.namespace is `{other}`: a plugin writes in its own namespace, so leave it out or write `{own}`"
        ))),
        (true, _) => Ok(own.to_string()),
        (false, Some(other)) => {
            Err(draft.invalid(format_args!("metadata.namespace is `{other}`: {} has no namespaces, leave it out", draft.kind)))
        }
        (false, None) if owner.resource.namespaced && draft.verb.is_child() => Err(draft.invalid(format_args!(
            "a cluster-scoped object cannot be the child of the namespaced {}: the garbage collector would delete it at \
             once; own it from a cluster-scoped object, or `apply` it",
            owner.entry.id
        ))),
        (false, None) => Ok(String::new()),
    }
}

fn draft(number: usize, write: &Write, entry: &Reconciles) -> Result<Draft, Invalid> {
    let invalid = |said: String| Invalid(format!("write {number}: {said}"));
    let verb = Verb::parse(&write.verb, &write.options).map_err(invalid)?;
    if write.object.len() > MAX_OBJECT {
        return Err(invalid(format!(
            "its object has {} bytes: an API server stores at most {MAX_OBJECT}; split it into several",
            write.object.len()
        )));
    }
    let object = parse_object(&write.object).map_err(|said| invalid(format!("its object {said}")))?;
    let text = |pointer: &[&str]| text_at(&object, pointer).map_err(invalid);
    let api_version = text(&["apiVersion"])?;
    let kind = text(&["kind"])?;
    if object.get("metadata").and_then(|m| m.get("generateName")).is_some() {
        return Err(invalid("metadata.generateName is set: an object needs a `metadata.name` that is the same each time".into()));
    }
    let name = text(&["metadata", "name"])?;
    let kind: Kind = format!("{api_version}/{kind}").parse().map_err(|e| invalid(format!("{e}")))?;
    let namespace = match object.get("metadata").and_then(|m| m.get("namespace")) {
        None | Some(Value::Null) => None,
        Some(Value::String(namespace)) => Some(namespace.clone()),
        Some(other) => return Err(invalid(format!("metadata.namespace is `{other}`: write a string or leave it out"))),
    };
    let draft = Draft { number, verb, kind, name, namespace, object };
    check(&draft, entry).map_err(|said| draft.invalid(said))?;
    Ok(draft)
}

fn check(draft: &Draft, entry: &Reconciles) -> Result<(), String> {
    draft.verb.check_kind(&draft.kind, entry)?;
    check_name(&draft.kind, &draft.name)?;
    let metadata = draft.object.get("metadata").and_then(Value::as_object);
    match (&draft.verb, metadata) {
        // Of what is to be deleted only identity matters.
        (Verb::Delete { .. }, _) | (_, None) => return Ok(()),
        (Verb::Patch { .. }, Some(metadata)) => {
            check_patched_metadata(metadata)?;
            let identity = |field: &String| matches!(field.as_str(), "apiVersion" | "kind" | "metadata");
            if draft.object.keys().all(identity) && !metadata.contains_key("labels") && !metadata.contains_key("annotations") {
                return Err("a patch says beside identity which fields to merge: add them".into());
            }
        }
        (_, Some(metadata)) => check_metadata(metadata)?,
    }
    if draft.kind.is_secret() {
        check_string_data(draft.object.get("stringData"))?;
    }
    Ok(())
}

fn text_at(object: &Map<String, Value>, path: &[&str]) -> Result<String, String> {
    let value = path.split_first().and_then(|(first, rest)| rest.iter().try_fold(object.get(*first)?, |v, key| v.get(key)));
    match value {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        None | Some(Value::Null | Value::String(_)) => Err(format!("its object has no {}: add it", path.join("."))),
        Some(other) => Err(format!("its object has {}: {other}: write a string", path.join("."))),
    }
}

/// A JSON object, or how its text is none.
pub(super) fn parse_object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(format!("is {} and must be a JSON object", name_of(&other))),
        Err(error) if error.to_string().starts_with("recursion limit") => {
            Err(format!("is nested more than 127 levels deep (line {}, column {}): flatten it", error.line(), error.column()))
        }
        Err(error) => Err(format!("is not JSON: {error}")),
    }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{failure::tests::resource, tests::owner},
        *,
    };

    fn own(object: &str) -> Write {
        Write { verb: "own".into(), object: object.into(), options: "{}".into() }
    }

    fn owns() -> Vec<Kind> {
        ["v1/ConfigMap", "v1/Secret", "apps/v1/Deployment", "v1/Namespace"].map(|k| k.parse().unwrap()).to_vec()
    }

    fn refusal(writes: &[Write]) -> String {
        let mut resources = HashMap::new();
        for kind in owns() {
            let mut resource = resource(&kind.to_string(), "things");
            resource.namespaced = &*kind.kind != "Namespace";
            resource.status = &*kind.kind != "ConfigMap";
            resources.insert(kind, Arc::new(resource));
        }
        match drafts(writes, &super::super::tests::owning(&owns()))
            .and_then(|drafts| wanted(drafts, &owner(), &Seen::default(), "hello", &resources))
        {
            Ok(wanted) => panic!("this must be refused: {wanted:?}"),
            Err(invalid) => invalid.to_string(),
        }
    }

    fn config(metadata: Value) -> Write {
        own(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}).to_string())
    }

    #[test]
    fn a_refusal_names_the_write_the_field_its_value_and_the_fix() {
        let good = config(json!({"name": "a"}));
        assert_eq!(
            refusal(&[good, config(json!({"name": "b", "namespace": "other"}))]),
            "write 2 (v1/ConfigMap `b`): metadata.namespace is `other`: a plugin writes in its own namespace, so leave it out \
             or write `team-a`"
        );
    }

    #[test]
    fn each_defect_of_an_object_is_found() {
        let deep = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","x":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
        let cases = [
            (own("{\n  oops"), "line 2 column 3"),
            (own("[]"), "is an array"),
            (own("{}"), "no apiVersion"),
            (own(r#"{"apiVersion":"v1"}"#), "no kind"),
            (own(r#"{"apiVersion":"v1","kind":"ConfigMap"}"#), "no metadata.name"),
            (own(r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":3}}"#), "metadata.name: 3"),
            (own(r#"{"apiVersion":"v1","kind":"configmap","metadata":{"name":"a"}}"#), "kind `v1/configmap` is not valid"),
            (
                own(r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#),
                r#"add `owns: ["v1/Pod"]` to its `plugin!` line"#,
            ),
            (own(r#"{"apiVersion":"apps/v1beta1","kind":"Deployment","metadata":{"name":"a"}}"#), "another version"),
            (own(r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a","namespace":"b"}}"#), "has no namespaces"),
            (own(r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}}"#), "cluster-scoped"),
            (own(r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"},"status":{"x":1}}"#), "`status`"),
            (own(r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"stringData":{"x":1}}"#), "stringData"),
            (own(&deep), "nested more than 127 levels deep"),
            (config(json!({"generateName": "a-"})), "generateName"),
            (config(json!({"name": "A_b"})), "metadata.name is `A_b`"),
            (config(json!({"name": "a", "uid": "x"})), "metadata.uid is set"),
            (config(json!({"name": "a", "resourceVersion": "1"})), "metadata.resourceVersion is set"),
            (config(json!({"name": "a", "managedFields": []})), "metadata.managedFields is set"),
            (config(json!({"name": "a", "ownerReferences": []})), "the host adds the owner"),
            (config(json!({"name": "a", "labels": {"x": true}})), "`x: true`: write the value as a string"),
            (config(json!({"name": "a", "labels": {"reef.dev/plugin": "b"}})), "is the host's"),
            (config(json!({"name": "a", "annotations": [1]})), "an object of strings"),
        ];
        for (write, expected) in cases {
            let said = refusal(std::slice::from_ref(&write));
            assert!(said.contains(expected) && said.starts_with("write 1"), "{said}\nshould say {expected}");
        }
    }

    fn said_of(verb: &str, options: &str, object: Value) -> String {
        let mut whole = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
        whole.as_object_mut().unwrap().extend(object.as_object().unwrap().clone());
        refusal(&[Write { verb: verb.into(), object: whole.to_string(), options: options.into() }])
    }

    #[test]
    fn a_deletion_of_what_was_not_read_says_read_it_first() {
        let said = said_of("delete", "{}", json!({}));
        assert!(said.starts_with("write 1 (v1/ConfigMap `a`): this call has not read it, and only what was read"), "{said}");
    }

    #[test]
    fn a_patch_leaves_alone_what_holds_an_object_and_what_is_the_hosts() {
        let metadata = |mut metadata: Value| {
            metadata["name"] = "a".into();
            said_of("patch", "{}", json!({"metadata": metadata}))
        };
        for field in ["finalizers", "ownerReferences", "managedFields", "uid", "resourceVersion", "generateName"] {
            let said = metadata(json!({ field: null }));
            assert!(said.contains(&format!("metadata.{field}")), "{said}");
        }
        assert!(metadata(json!({"labels": {"reef.dev/plugin": null}})).contains("is the host's"));
        assert!(metadata(json!({"annotations": null})).contains("takes away everybody's"));
        assert!(said_of("patch", "{}", json!({})).contains("which fields to merge: add them"));
    }

    #[test]
    fn a_subresource_is_one_that_the_api_server_lets_be_patched_and_is_written_alone() {
        let said = |object: Value| said_of("apply", r#"{"subresource":"status"}"#, object);
        assert!(said(json!({"status": {}})).contains("is `status`, and v1/ConfigMap has none that can be written"));
        assert!(said(json!({"data": {}})).contains("`data` is set, which is no part of subresource `status`"));
        let labelled = json!({"metadata": {"name": "a", "labels": {}}, "status": {}});
        assert!(said(labelled).contains("metadata.labels is set, which is no part of"));
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "status": {"x": 1}});
        assert!(said_of("patch", "{}", deployment).contains("write it alone with `subresource`"));
    }

    #[test]
    fn the_same_object_twice_is_refused_even_across_versions() {
        let write = config(json!({"name": "a"}));
        assert!(refusal(&[write.clone(), write]).contains("write 2 (v1/ConfigMap `a`): the plan has this object twice"));
    }

    #[test]
    fn sizes_are_bounded() {
        let big =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "y".repeat(MAX_OBJECT)}});
        assert!(refusal(&[own(&big.to_string())]).contains("stores at most"));
        assert!(refusal(&vec![config(json!({"name": "a"})); MAX_WRITES + 1]).contains("at most 500"));
    }
}
