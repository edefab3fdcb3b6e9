//! Which objects of a plugin fail now, and why; a part of the plugin's status.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    catalog::crd::{Failing, FailingObject},
    names::{Key, ObjectId, PluginId, Span},
    queue::{Braked, Why},
};

/// How many are named in the status.
const NAMED: usize = 10;

/// Reason and message of the last failure of each object, until it succeeds or goes.
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<PluginId, OfPlugin>>);

#[derive(Debug, Default)]
struct OfPlugin {
    objects: BTreeMap<ObjectId, (String, String)>,
    news: watch::Sender<()>,
}

impl Failures {
    pub fn put(&self, key: &Key, reason: &str, message: &str) {
        let said = (reason.to_owned(), message.to_owned());
        let mut plugins = self.0.lock();
        let plugin = plugins.entry(key.plugin.clone()).or_default();
        if plugin.objects.insert(key.object.clone(), said.clone()) != Some(said) {
            plugin.news.send_replace(());
        }
    }

    pub fn clear(&self, key: &Key) {
        if let Some(plugin) = self.0.lock().get_mut(&key.plugin)
            && plugin.objects.remove(&key.object).is_some()
        {
            plugin.news.send_replace(());
        }
    }

    /// Changes whenever [`Failures::of`] this plugin does.
    pub fn news(&self, plugin: &PluginId) -> watch::Receiver<()> {
        self.0.lock().entry(plugin.clone()).or_default().news.subscribe()
    }

    /// Something else about the plugin is news.
    pub fn nudge(&self, plugin: &PluginId) {
        if let Some(plugin) = self.0.lock().get(plugin) {
            plugin.news.send_replace(());
        }
    }

    pub fn forget(&self, plugin: &PluginId) {
        self.0.lock().remove(plugin);
    }

    /// None if nothing fails.
    pub fn of(&self, plugin: &PluginId) -> Option<Failing> {
        let plugins = self.0.lock();
        let failures = &plugins.get(plugin).filter(|plugin| !plugin.objects.is_empty())?.objects;
        let objects = failures.iter().take(NAMED).map(|(object, (reason, message))| FailingObject {
            kind: object.kind.to_string(),
            name: object.name.to_string(),
            reason: reason.clone(),
            message: message.clone(),
        });
        Some(Failing { count: i32::try_from(failures.len()).unwrap_or(i32::MAX), objects: objects.collect() })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Cluster, Kind};

    fn key(plugin: &str, object: &str) -> Key {
        let kind = Kind::new("demo.reef.dev", "v1", "Hello");
        Key { plugin: PluginId::new("a", plugin), cluster: Cluster::local(), object: ObjectId::new(kind, "a", object) }
    }

    #[test]
    fn only_what_changes_is_news_and_only_to_its_plugin() {
        let failures = Failures::default();
        let (mut mine, mut other) = (failures.news(&PluginId::new("a", "mine")), failures.news(&PluginId::new("a", "other")));
        let is_news = |news: &mut watch::Receiver<()>| {
            let changed = news.has_changed().unwrap();
            news.mark_unchanged();
            changed
        };
        failures.put(&key("mine", "x"), "Broken", "why");
        assert!(is_news(&mut mine) && !is_news(&mut other));
        failures.put(&key("mine", "x"), "Broken", "why");
        failures.clear(&key("mine", "y"));
        assert!(!is_news(&mut mine));
        failures.put(&key("mine", "x"), "Broken", "why else");
        assert!(is_news(&mut mine));
        failures.clear(&key("mine", "x"));
        assert!(is_news(&mut mine) && failures.of(&PluginId::new("a", "mine")).is_none());
    }

    #[test]
    fn all_are_counted_and_ten_are_named() {
        let failures = Failures::default();
        for n in 0..12 {
            failures.put(&key("mine", &format!("x{n}")), "Broken", "why");
        }
        failures.put(&key("other", "x"), "Broken", "why");
        let failing = failures.of(&PluginId::new("a", "mine")).unwrap();
        assert_eq!((failing.count, failing.objects.len()), (12, 10));
    }
}
