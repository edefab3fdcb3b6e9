//! What the condition `Ready` says of what runs.

use super::Steward;
use crate::{
    catalog::crd::{Mode, Plugin},
    names::{Digest, Kind},
    queue::Slowed,
    status::{Said, Truth},
    watch::{SyncState, Why},
};

impl Steward {
    /// Ready: a revision runs, and every cache that it needs is complete.
    pub(super) fn judge(&mut self, plugin: &Plugin, wanted: Option<Digest>, said: &mut Said) {
        self.scopes.clear();
        let Some(running) = self.shared.state.catalog.get(&self.id) else {
            return said.put("Ready", Truth::False, &said.first_trouble(), "nothing runs: see the other conditions");
        };
        said.runs(&running.revision, &running.loaded.former());
        said.came_from(plugin, self.origin.of(running.revision.digest));
        said.failing(self.shared.failing(&self.id));
        let mut unread = None;
        for (kind, state) in running.loaded.states() {
            let known = state.borrow().clone();
            unread = unread.or_else(|| unreadable(&kind, &known));
            self.scopes.push((state, known));
        }
        match (unread, said.trouble()) {
            // A restart is no news.
            (Some(("Syncing", _)), None) if said.stays_ready(plugin) => {}
            (Some((reason, message)), _) => said.put("Ready", Truth::False, reason, &message),
            (None, None) => self.reconciling(plugin, said),
            // An API server that has too much to do does not say what an account may do, either.
            (None, Some(_)) if said.is_unasked() && said.was_ready(plugin) => self.reconciling(plugin, said),
            (None, Some((reason, message))) if wanted == Some(running.revision.digest) => {
                said.put("Ready", Truth::False, &reason, &message)
            }
            (None, Some((reason, message))) => {
                let digest = running.revision.digest.short();
                said.put(
                    "Ready",
                    Truth::True,
                    "LastGood",
                    &format!("{digest} runs on; the new one does not: {reason}: {message}"),
                );
            }
        }
    }

    fn reconciling(&self, plugin: &Plugin, said: &mut Said) {
        match self.shared.work.slowed(&self.id) {
            None if plugin.spec.mode == Mode::Shadow => {
                let message = "reconciling in shadow: nothing is written, and the log tells what would be";
                said.put("Ready", Truth::True, "Ready", message);
            }
            None => said.put("Ready", Truth::True, "Ready", "reconciling"),
            Some(slowed) => said.put("Ready", Truth::True, "Throttled", &throttled(&slowed)),
        }
    }
}

/// Why a scope keeps a plugin from being ready.
fn unreadable(kind: &Kind, state: &SyncState) -> Option<(&'static str, String)> {
    match state {
        SyncState::Synced => None,
        SyncState::Pending => Some(("Syncing", format!("{kind} is being read"))),
        SyncState::Failed { message, why: Why::Forbidden } => Some(("Forbidden", format!("{kind} cannot be read: {message}"))),
        SyncState::Failed { message, why: Why::Full } => Some(("CacheFull", message.clone())),
        SyncState::Failed { message, .. } => Some(("CannotRead", format!("{kind} cannot be read: {message}"))),
    }
}

/// Without numbers that change by the second: each would be a write, to an API server that has too much to do.
fn throttled(slowed: &Slowed) -> String {
    format!("fewer objects are reconciled at once, because the API server has turned requests away: {}", slowed.said)
}
