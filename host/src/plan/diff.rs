//! What has to happen so that a child is as planned, judged by what the cache says of it.
//!
//! Pure. An object is in order if its hash is the plan's and our manager still owns what the plan says; an object is ours
//! by proof: it carries the owner's uid and the plugin's mark. Everything else is a conflict, never a guess.

use serde_json::Value;

use super::{
    complete::{ADOPT, APPLIED, MARK, OWNER, Wanted},
    cover,
};
use crate::{
    names::ObjectId,
    watch::{Entry, Managed, Operation},
};

/// Whose child it is to be.
#[derive(Debug, Clone, Copy)]
pub struct Mine<'a> {
    pub owner: &'a ObjectId,
    pub owner_uid: &'a str,
    /// The plugin's field manager: the value of its mark.
    pub mark: &'a str,
    /// The field manager's name in the API.
    pub manager: &'a str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    InOrder,
    Create,
    /// Apply it by force. `convert`: first turn what our own create left behind into an apply's entry, or fields that
    /// left the plan would stay.
    Change {
        convert: bool,
    },
    /// It is on its way out, and must be gone before it can come again.
    Wait(String),
    Conflict(String),
}

pub fn step(child: &Wanted, live: Option<&Entry>, mine: Mine<'_>) -> Step {
    let Some(live) = live else { return Step::Create };
    if live.deleting {
        return Step::Wait(format!("{} is being deleted: it is made again when it is gone", child.id));
    }
    let adopted = live.annotation(ADOPT) == Some(mine.mark);
    if !is_proven(live, mine) && !adopted {
        return foreign(child, live, mine);
    }
    if let Some(said) = controlled(child, live, mine) {
        return Step::Conflict(said);
    }
    if live.annotation(APPLIED) == Some(&child.hash) && is_covered(child, live, mine) {
        return Step::InOrder;
    }
    Step::Change { convert: entry_of(live, mine.manager, Operation::Update).is_some() }
}

/// For an object that is only to exist: whatever is there is left as it is, unless it is on its way out.
pub fn existence(wanted: &Wanted, live: Option<&Entry>, mine: Mine<'_>) -> Step {
    match live {
        Some(live) if !live.deleting && !is_former(live, mine) => Step::InOrder,
        _ => step(wanted, live, mine),
    }
}

/// Whether an object is this owner's child: by uid, of an owner reference or of the annotation of what outlives its owner,
/// and by mark. A mark that was taken off is repaired as long as our
/// manager's entry is there to prove it.
fn is_proven(live: &Entry, mine: Mine<'_>) -> bool {
    let ours = |m: &Managed| *m.manager == *mine.manager && m.subresource.is_empty();
    (live.is_owned_by(mine.owner_uid) || live.annotation(OWNER) == Some(mine.owner_uid))
        && match live.label(MARK) {
            Some(mark) => mark == mine.mark,
            None => live.managers.iter().any(ours),
        }
}

fn foreign(child: &Wanted, live: &Entry, mine: Mine<'_>) -> Step {
    let id = &child.id;
    if is_former(live, mine) {
        return Step::Wait(format!("{id} is left over from an earlier {}: it is made again when it is gone", mine.owner));
    }
    let whose = match live.label(MARK) {
        Some(mark) if mark != mine.mark => format!("belongs to the plugin with field manager `{mark}`"),
        Some(_) if live.annotation(OWNER).is_some() => "was made to outlive another object, whose child it was".into(),
        _ => "is not a child of this object".into(),
    };
    let place = if id.namespace.is_empty() { String::new() } else { format!(" -n {}", id.namespace) };
    Step::Conflict(format!(
        "{id} exists already and {whose}: name the child differently, delete that object, or let the plugin take it over \
         with `kubectl annotate {} {}{place} {ADOPT}={}`",
        id.kind.kind.to_lowercase(),
        id.name,
        mine.mark
    ))
}

/// Says who else controls what is to become a child: the API server lets an object have one controller.
fn controlled(child: &Wanted, live: &Entry, mine: Mine<'_>) -> Option<String> {
    let other = live.owners.iter().find(|owner| owner.controller && *owner.uid != *mine.owner_uid)?;
    child.verb.is_child().then(|| {
        format!(
            "{} is controlled by {} `{}`, and an object has one controller: name the child differently, or have that one let go \
             of it",
            child.id, other.kind, other.name
        )
    })
}

/// Whether it was the child of an earlier owner of the same name: the garbage collector is about to take it.
fn is_former(live: &Entry, mine: Mine<'_>) -> bool {
    let former = |o: &crate::watch::Owner| o.kind.same_group_kind(&mine.owner.kind) && o.name == mine.owner.name;
    live.label(MARK) == Some(mine.mark)
        && !live.is_owned_by(mine.owner_uid)
        && live.owners.iter().any(|o| former(o) && *o.uid != *mine.owner_uid)
}

/// After an apply our manager owns exactly the plan. After our create it owns that and the server's defaults.
fn is_covered(child: &Wanted, live: &Entry, mine: Mine<'_>) -> bool {
    let plan = child.without_identity();
    let applied = entry_of(live, mine.manager, Operation::Apply);
    match (applied, entry_of(live, mine.manager, Operation::Update)) {
        (Some(applied), None) => cover::missing(&plan, &applied).is_none() && cover::extra(&plan, &applied).is_none(),
        (None, Some(created)) => {
            let differs = || match serde_json::from_slice(&live.bytes) {
                Ok(live) => cover::differs(&plan, &created, &live),
                Err(_) => true,
            };
            cover::missing(&plan, &created).is_none() && !(cover::is_doubtful(&plan, &created) && differs())
        }
        _ => false,
    }
}

/// Whether what this manager applied to a subresource is still what the plan says. No annotation says which plan it was, so
/// values are compared with `part`, the subresource as it is. `fieldsV1` speaks of the object: only the status is there what
/// it is in the subresource.
pub fn is_part_in_order(wanted: &Wanted, subresource: &str, live: &Entry, part: &Value, manager: &str) -> bool {
    let Some(applied) = part_of(live, manager, subresource, Operation::Apply) else { return false };
    let plan = wanted.without_identity();
    if subresource != "status" {
        return cover::agrees(&plan, part, &Value::Null);
    }
    cover::missing(&plan, &applied).is_none() && cover::extra(&plan, &applied).is_none() && cover::agrees(&plan, part, &applied)
}

/// Whether what this manager applied to a shared object is still what the plan says.
pub fn is_shared_in_order(wanted: &Wanted, live: &Entry, mark: &str, manager: &str) -> bool {
    let Some(applied) = entry_of(live, manager, Operation::Apply) else { return false };
    let plan = wanted.without_identity();
    live.annotation(mark) == Some(&wanted.hash)
        && cover::missing(&plan, &applied).is_none()
        && cover::extra(&plan, &applied).is_none()
}

fn entry_of(live: &Entry, manager: &str, operation: Operation) -> Option<Value> {
    part_of(live, manager, "", operation)
}

fn part_of(live: &Entry, manager: &str, subresource: &str, operation: Operation) -> Option<Value> {
    let ours = |m: &&Managed| *m.manager == *manager && *m.subresource == *subresource && m.operation == operation;
    live.managers.iter().find(ours).map(|managed| serde_json::from_str(&managed.fields).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::{super::tests::owner, *};
    use crate::{
        contract::Write,
        plan::{complete::complete, failure::tests::resource, validate},
    };

    fn mine(owner: &crate::plan::Owner) -> Mine<'_> {
        Mine { owner: &owner.entry.id, owner_uid: &owner.entry.uid, mark: "hello", manager: "reef:hello" }
    }

    fn child() -> Wanted {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "1"}});
        let write = Write { verb: "own".into(), object: object.to_string(), options: String::new() };
        let draft =
            validate::drafts(&[write], &super::super::tests::owning(&["v1/ConfigMap".parse().unwrap()])).unwrap().remove(0);
        complete(draft, Arc::new(resource("v1/ConfigMap", "configmaps")), None, "team-a", &owner(), "hello")
    }

    fn owned(data: Value) -> Value {
        json!({"f:data": data, "f:metadata": {"f:annotations": {"f:reef.dev/applied": {}},
            "f:labels": {"f:reef.dev/plugin": {}}, "f:ownerReferences": {"k:{\"uid\":\"u1\"}": {}}}})
    }

    /// The child as the API server would serve it, with changes.
    fn live(operation: &str, fields: &Value, change: impl FnOnce(&mut Value)) -> Entry {
        let mut object = child().object;
        object["metadata"]["uid"] = json!("c1");
        object["metadata"]["resourceVersion"] = json!("7");
        object["metadata"]["managedFields"] = json!([{"manager": "reef:hello", "operation": operation, "fieldsV1": fields}]);
        change(&mut object);
        Entry::parse(object.to_string().as_bytes(), None).unwrap()
    }

    fn judge(live: &Entry) -> Step {
        step(&child(), Some(live), mine(&owner()))
    }

    #[test]
    fn what_is_absent_is_created() {
        assert_eq!(step(&child(), None, mine(&owner())), Step::Create);
    }

    #[test]
    fn what_we_applied_is_in_order_as_long_as_we_own_exactly_it() {
        let exact = owned(json!({"f:x": {}}));
        assert_eq!(judge(&live("Apply", &exact, |_| ())), Step::InOrder);
        assert_eq!(judge(&live("Apply", &owned(json!({"f:x": {}, "f:y": {}})), |_| ())), Step::Change { convert: false });
        assert_eq!(judge(&live("Apply", &owned(json!({})), |o| o["data"]["x"] = json!("2"))), Step::InOrder, "atomic");
        let mut drifted = exact.clone();
        drifted.as_object_mut().unwrap().remove("f:data");
        assert_eq!(judge(&live("Apply", &drifted, |_| ())), Step::Change { convert: false });
        let other_hash = |o: &mut Value| o["metadata"]["annotations"]["reef.dev/applied"] = json!("other");
        assert_eq!(judge(&live("Apply", &exact, other_hash)), Step::Change { convert: false });
    }

    #[test]
    fn what_we_created_is_in_order_with_defaults_and_converted_before_its_first_change() {
        let with_defaults = owned(json!({".": {}, "f:x": {}, "f:default": {}}));
        assert_eq!(judge(&live("Update", &with_defaults, |_| ())), Step::InOrder);
        assert_eq!(judge(&live("Update", &owned(json!({".": {}, "f:y": {}})), |_| ())), Step::Change { convert: true });
        assert_eq!(judge(&live("Update", &owned(json!({})), |_| ())), Step::InOrder, "atomic");
        let drift = |o: &mut Value| o["data"]["x"] = json!("2");
        assert_eq!(judge(&live("Update", &owned(json!({})), drift)), Step::Change { convert: true }, "all fields lost");
    }

    #[test]
    fn what_lost_all_its_managers_is_applied_again() {
        let reset = |o: &mut Value| o["metadata"]["managedFields"] = json!([]);
        assert_eq!(judge(&live("Apply", &json!({}), reset)), Step::Change { convert: false });
    }

    #[test]
    fn what_is_being_deleted_is_waited_for() {
        let deleting = |o: &mut Value| o["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(matches!(judge(&live("Apply", &owned(json!({"f:x": {}})), deleting)), Step::Wait(_)));
    }

    #[test]
    fn what_is_not_ours_by_uid_and_mark_is_a_conflict_that_says_how_to_adopt() {
        let fields = owned(json!({"f:x": {}}));
        let no_owner = live("Apply", &fields, |o| o["metadata"]["ownerReferences"] = json!([]));
        let Step::Conflict(said) = judge(&no_owner) else { panic!("a conflict") };
        assert!(said.contains("v1/ConfigMap team-a/a"), "{said}");
        assert!(said.contains("kubectl annotate configmap a -n team-a reef.dev/adopt=hello"), "{said}");
        let other = live("Apply", &fields, |o| o["metadata"]["labels"]["reef.dev/plugin"] = json!("other"));
        let Step::Conflict(said) = judge(&other) else { panic!("a conflict") };
        assert!(said.contains("field manager `other`"), "{said}");
        let adopted = live("Apply", &fields, |o| {
            o["metadata"]["ownerReferences"] = json!([]);
            o["metadata"]["annotations"]["reef.dev/adopt"] = json!("hello");
            o["metadata"]["managedFields"] = json!([]);
        });
        assert_eq!(judge(&adopted), Step::Change { convert: false });
    }

    #[test]
    fn what_another_one_controls_is_a_conflict_also_if_it_may_be_adopted() {
        let theirs = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "u7", "controller": true});
        let controlled = live("Apply", &owned(json!({"f:x": {}})), |o| {
            o["metadata"]["ownerReferences"] = json!([theirs]);
            o["metadata"]["annotations"]["reef.dev/adopt"] = json!("hello");
        });
        let Step::Conflict(said) = judge(&controlled) else { panic!("a conflict") };
        assert!(said.contains("is controlled by apps/v1/Deployment `web`, and an object has one controller"), "{said}");
    }

    #[test]
    fn what_outlives_its_owner_is_known_by_the_uid_in_its_annotation() {
        let kept = |uid: &str| {
            live("Apply", &owned(json!({"f:x": {}})), |o| {
                o["metadata"]["ownerReferences"] = json!([]);
                o["metadata"]["annotations"]["reef.dev/owner"] = json!(uid);
            })
        };
        assert_eq!(judge(&kept("u1")), Step::InOrder);
        let Step::Conflict(said) = judge(&kept("u0")) else { panic!("a conflict") };
        assert!(said.contains("was made to outlive another object"), "{said}");
    }

    #[test]
    fn a_mark_that_was_taken_off_is_put_back_if_our_manager_proves_it() {
        let mut fields = owned(json!({"f:x": {}}));
        fields["f:metadata"].as_object_mut().unwrap().remove("f:labels");
        let unmark = |o: &mut Value| o["metadata"]["labels"] = json!({});
        assert_eq!(judge(&live("Apply", &fields, unmark)), Step::Change { convert: false });
        let stranger = live("Apply", &fields, |o| {
            unmark(o);
            o["metadata"]["managedFields"] = json!([]);
        });
        assert!(matches!(judge(&stranger), Step::Conflict(_)));
    }

    #[test]
    fn a_child_of_the_former_owner_of_this_name_is_waited_for() {
        let former = |o: &mut Value| o["metadata"]["ownerReferences"][0]["uid"] = json!("u0");
        assert!(matches!(judge(&live("Apply", &owned(json!({"f:x": {}})), former)), Step::Wait(_)));
    }
}
