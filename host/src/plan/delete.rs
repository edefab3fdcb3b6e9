//! Deletions that a plan asks for: of what the call has read, and of nothing else.
//!
//! The uid of what was read is the precondition, so an object that has taken its name since is left alone. What is gone, or
//! on its way, is in order: a deletion that finalizers hold is not repeated.

use std::{collections::HashMap, sync::Arc};

use super::{Owner, Run, complete::Wanted, failure::Failed, verb::Propagation, writer::Target};
use crate::{names::ObjectId, watch::Entry};

/// What a call was given to see, beside the object that it reconciles.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// What was read by name, there or not, and what was in a list.
    pub objects: HashMap<ObjectId, Option<Arc<Entry>>>,
    /// Some read got no answer.
    pub failed: bool,
}

impl Seen {
    /// The object as it was read; `None` twice over: it was not read.
    pub(super) fn of<'a>(&'a self, owner: &'a Owner, id: &ObjectId) -> Option<Option<&'a Entry>> {
        if *id == owner.entry.id {
            return Some(Some(&owner.entry));
        }
        self.objects.get(id).map(Option::as_deref)
    }

    pub(super) fn has(&self, owner: &Owner, id: &ObjectId) -> bool {
        self.of(owner, id).is_some()
    }
}

impl Run<'_> {
    pub(super) async fn remove(
        &mut self,
        wanted: &Wanted,
        version: Option<&str>,
        propagation: Propagation,
    ) -> Result<(), Failed> {
        let id = &wanted.id;
        let Some(live) = self.cached(wanted)? else { return Ok(()) };
        is_the_one(self.seen.of(self.owner, id).flatten(), &live).map_err(Failed::superseded)?;
        if live.deleting {
            return Ok(());
        }
        self.check_version(wanted, &live, version)?;
        tracing::info!(object = %id, owner = %self.owner.entry.id, "deleted as planned");
        self.writer.delete(Target::of(wanted), &live.uid, version, propagation).await?;
        Ok(())
    }
}

/// Whether what is there is what was read.
fn is_the_one(read: Option<&Entry>, live: &Entry) -> Result<(), String> {
    match read {
        Some(read) if read.uid == live.uid => Ok(()),
        Some(_) => Err(format!("{} is another one than was read", live.id)),
        None => Err(format!("{} came to be after it was read", live.id)),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::owner, *};

    #[test]
    fn what_was_read_is_known_there_or_not_and_so_is_the_object_itself() {
        let (owner, id) = (owner(), super::super::tests::child("a").id);
        assert!(!Seen::default().has(&owner, &id) && Seen::default().has(&owner, &owner.entry.id));
        let seen = Seen { objects: [(id.clone(), None)].into(), failed: false };
        assert_eq!(seen.of(&owner, &id), Some(None));
    }

    #[test]
    fn another_object_of_the_same_name_is_not_the_one_that_was_read() {
        let read = (*owner().entry).clone();
        let other = Entry { uid: "u2".into(), ..read.clone() };
        assert_eq!(is_the_one(Some(&read), &read), Ok(()));
        assert!(is_the_one(Some(&read), &other).unwrap_err().contains("another one than was read"));
        assert!(is_the_one(None, &read).unwrap_err().contains("came to be after it was read"));
    }
}
