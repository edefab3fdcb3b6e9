//! Which objects of a plugin fail now, and why; a part of the plugin's status.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::{
    catalog::crd::{Failing, FailingObject},
    names::{Key, ObjectId, PluginId, Span},
    queue::{Braked, Why},
};

/// How many are named in the status.
const NAMED: usize = 10;

/// Reason and message of the last failure of each object, until it succeeds or goes.
#[derive(Debug, Default)]
pub struct Failures(Mutex<BTreeMap<(PluginId, ObjectId), (String, String)>>);

impl Failures {
    /// Whether that is news.
    pub fn put(&self, key: &Key, reason: &str, message: &str) -> bool {
        let said = (reason.to_owned(), message.to_owned());
        self.0.lock().insert((key.plugin.clone(), key.object.clone()), said.clone()) != Some(said)
    }

    /// Whether it had failed.
    pub fn clear(&self, key: &Key) -> bool {
        self.0.lock().remove(&(key.plugin.clone(), key.object.clone())).is_some()
    }

    pub fn forget(&self, plugin: &PluginId) {
        self.0.lock().retain(|(of, _), _| of != plugin);
    }

    /// None if nothing fails.
    pub fn of(&self, plugin: &PluginId) -> Option<Failing> {
        let failures = self.0.lock();
        let mine = || failures.iter().filter(|((of, _), _)| of == plugin);
        let count = i32::try_from(mine().count()).unwrap_or(i32::MAX);
        let objects = mine().take(NAMED).map(|((_, object), (reason, message))| FailingObject {
            kind: object.kind.to_string(),
            name: object.name.to_string(),
            reason: reason.clone(),
            message: message.clone(),
        });
        (count > 0).then(|| Failing { count, objects: objects.collect() })
    }
}

/// The objects that fail, and behind them those that are slowed down.
pub(super) fn with_braked(failing: Option<Failing>, braked: &[Braked]) -> Option<Failing> {
    let mut all = failing.unwrap_or(Failing { count: 0, objects: Vec::new() });
    all.count = all.count.saturating_add(i32::try_from(braked.len()).unwrap_or(i32::MAX));
    let room = NAMED.saturating_sub(all.objects.len());
    all.objects.extend(braked.iter().take(room).map(|braked| {
        let object = &braked.key.object;
        let (reason, message) = said(braked);
        FailingObject { kind: object.kind.to_string(), name: object.name.to_string(), reason: reason.into(), message }
    }));
    (all.count > 0).then_some(all)
}

/// The delay is left out where it still grows: a message that changes is a write.
fn said(braked: &Braked) -> (&'static str, String) {
    match braked.why {
        Why::Repeats => (
            "Fighting",
            "it writes the same again and again: its plan changes to and fro, or somebody undoes what it writes. It is slowed \
             down, to one run in two minutes in the end. Look at who else writes these fields: `kubectl get --show-managed-fields`"
                .to_owned(),
        ),
        Why::Busy => (
            "RunsHot",
            format!(
                "its plan is another one each time, and each wakes it again, or it asks to run again within {}. It is slowed \
                 down, to one run in ten seconds in the end. Leave times and random values out of the plan",
                Span(crate::queue::HURRY)
            ),
        ),
    }
}
