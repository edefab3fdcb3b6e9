//! Which objects of a plugin fail now, and why; a part of the plugin's status.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::{
    catalog::crd::{Failing, FailingObject},
    names::{Key, ObjectId, PluginId},
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
        let count = u32::try_from(mine().count()).unwrap_or(u32::MAX);
        let objects = mine().take(NAMED).map(|((_, object), (reason, message))| FailingObject {
            kind: object.kind.to_string(),
            name: object.name.to_string(),
            reason: reason.clone(),
            message: message.clone(),
        });
        (count > 0).then(|| Failing { count, objects: objects.collect() })
    }
}
