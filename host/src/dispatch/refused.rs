//! Reads that an account was refused: they are dependencies too, but no watch tells when a right is granted. So whoever was
//! refused is remembered, and its account asked again, until it may; then the key runs.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use super::Shared;
use crate::{
    identity::Access,
    names::{Account, Key, PluginId},
    watch::Reason,
};

/// An answer is believed for the recheck period; it is looked at so often within one, which costs no request.
const LOOKS: u32 = 4;
const SHORTEST: Duration = Duration::from_millis(250);

type Refusal = (Account, Access);

/// What each key was refused in its last run.
#[derive(Debug, Default)]
pub struct Refused(Mutex<HashMap<Key, HashSet<Refusal>>>);

impl Refused {
    pub fn put(&self, key: &Key, account: &Account, access: Access) {
        self.0.lock().entry(key.clone()).or_default().insert((account.clone(), access));
    }

    /// The key runs again, is gone, or was woken.
    pub fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }

    fn forget_plugins(&self, keep: impl Fn(&PluginId) -> bool) {
        self.0.lock().retain(|key, _| keep(&key.plugin));
    }

    /// Each once, however many keys were refused it.
    fn all(&self) -> HashSet<Refusal> {
        self.0.lock().values().flatten().cloned().collect()
    }

    /// Takes out the keys that waited for this.
    fn granted(&self, refusal: &Refusal) -> BTreeSet<Key> {
        let mut refused = self.0.lock();
        refused.extract_if(|_, of| of.contains(refusal)).map(|(key, _)| key).collect()
    }
}

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let pause = (shared.options.recheck / LOOKS).max(SHORTEST);
    loop {
        tokio::time::sleep(pause).await;
        shared.state.refused.forget_plugins(|plugin| shared.state.catalog.get(plugin).is_some());
        for refusal in shared.state.refused.all() {
            let (account, access) = &refusal;
            if shared.api.can(account, access).await.is_ok_and(|may| may) {
                for key in shared.state.refused.granted(&refusal) {
                    shared.work.wake(key, Reason::Dependency);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Cluster, ObjectId};

    fn key(name: &str) -> Key {
        let object = ObjectId::new("demo.reef.dev/v1/Hello".parse().unwrap(), "a", name);
        Key { plugin: PluginId::new("a", "p"), cluster: Cluster::local(), object }
    }

    fn access(verb: &'static str) -> Access {
        let (group, resource, namespace) = ("".into(), "configmaps".into(), "a".into());
        Access { verb, group, resource, subresource: "", namespace, name: None }
    }

    #[test]
    fn a_right_that_was_granted_names_everybody_who_waited_for_it_once() {
        let (refused, account) = (Refused::default(), Account::new("a", "p"));
        for (name, verb) in [("one", "get"), ("two", "get"), ("two", "list"), ("three", "list")] {
            refused.put(&key(name), &account, access(verb));
        }
        assert_eq!(refused.all().len(), 2);
        refused.forget(&key("one"));
        let granted = |verb| refused.granted(&(account.clone(), access(verb)));
        assert_eq!(granted("get"), BTreeSet::from([key("two")]));
        assert!(granted("get").is_empty());
        assert_eq!(granted("list"), BTreeSet::from([key("three")]));
        refused.put(&key("four"), &account, access("get"));
        refused.forget_plugins(|_| false);
        assert!(refused.all().is_empty());
    }
}
