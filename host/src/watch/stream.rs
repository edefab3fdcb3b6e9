//! The I/O of one watch: read what is there, follow what happens, and try again, for as long as somebody looks.
//!
//! It runs as one of the subscribers. When that one is refused or leaves, the next takes over where it was. What pages
//! and events mean is decided in `replica`.

mod backoff;
mod session;

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch::Receiver, time::timeout};

use self::{
    backoff::Backoff,
    session::{End, Lessons, Session},
};
use super::{HubOptions, Shared, Why, registry::Watch};
use crate::identity::Actor;

/// So many refusals in a row take away what was served. A server that has just started does not know its rules yet, and
/// refuses everybody for a moment.
const SURE: u32 = 4;
/// A scope that found no room tries again after this at the latest: it may have become smaller.
const FULL: Duration = Duration::from_secs(60);

/// Runs until it is aborted, when the last subscriber has left.
pub async fn follow(shared: Arc<Shared>, watch: Arc<Watch>) {
    let mut tries = Tries::new(&shared.options);
    loop {
        let mut lenders = watch.lenders.subscribe();
        let lender = tries.choose(&lenders.borrow_and_update());
        let Some(lender) = lender else {
            // The last one has left: it ends in a moment.
            wait(&mut lenders, shared.options.backoff.1).await;
            continue;
        };
        let mut session = Session { shared: &shared, watch: &watch, lender: &lender, lessons: tries.lessons, established: None };
        let end = tokio::select! {
            end = session.run() => Some(end),
            _ = lenders.wait_for(|lenders| !lenders.contains(&lender)) => None,
        };
        tries.learn(&session);
        if let Some(end) = end {
            tries.after(&shared, &watch, &lender, end, &mut lenders).await;
        }
    }
}

/// Waits, but not past a new subscriber, who may be allowed what others are not.
async fn wait(lenders: &mut Receiver<Vec<Actor>>, time: Duration) {
    let _ = timeout(time, lenders.changed()).await;
}

/// What earlier sessions have taught.
struct Tries {
    backoff: Backoff,
    /// Whether the last session got somewhere, so that its end is no failure.
    well: bool,
    /// Lenders that were refused since the last success.
    refused: Vec<Actor>,
    /// How often all of them were, in a row.
    refusals: u32,
    /// Failures in a row, times at which the server was away not counted.
    failed: u32,
    lessons: Lessons,
}

impl Tries {
    fn new(options: &HubOptions) -> Self {
        let (backoff, lessons) = (Backoff::new(options.backoff), Lessons::default());
        Self { backoff, well: false, refused: Vec::new(), refusals: 0, failed: 0, lessons }
    }

    /// One that was not refused; if all were, the first again, for rights change.
    fn choose(&mut self, lenders: &[Actor]) -> Option<Actor> {
        let other = lenders.iter().find(|lender| !self.refused.contains(lender));
        if other.is_none() {
            self.refused.clear();
        }
        other.or(lenders.first()).cloned()
    }

    fn learn(&mut self, session: &Session<'_>) {
        self.well = session.was_well() && !session.watch.must_list();
        self.lessons = session.lessons;
        if self.well {
            (self.lessons.paged, self.lessons.unpaged) = (false, false);
            self.backoff.reset();
            self.refused.clear();
            (self.refusals, self.failed) = (0, 0);
        }
    }

    async fn after(&mut self, shared: &Shared, watch: &Watch, lender: &Actor, end: End, lenders: &mut Receiver<Vec<Actor>>) {
        let mut pause = Duration::ZERO;
        match end {
            End::Closed if self.well => return,
            End::Refused(message) => {
                self.refused.push(lender.clone());
                if lenders.borrow().iter().any(|lender| !self.refused.contains(lender)) {
                    tracing::debug!(kind = %watch.scope.kind, namespace = %watch.scope.namespace, ?lender, error = message, "refused; another account takes over");
                    return;
                }
                self.refusals += 1;
                if self.refusals < SURE && watch.is_readable() {
                    late(watch, message);
                } else {
                    report(watch, &message);
                    watch.withdraw(message, Why::Forbidden);
                }
            }
            End::Missing(message) => {
                report(watch, &message);
                watch.withdraw(message, Why::Missing);
            }
            End::Full { bytes, message } => {
                report(watch, &message);
                watch.withdraw(message, Why::Full);
                tokio::select! {
                    () = shared.registry.room_for(bytes) => {}
                    () = wait(lenders, FULL) => {}
                }
            }
            End::Again(message) => {
                tracing::info!(kind = %watch.scope.kind, namespace = %watch.scope.namespace, reason = message, "reading anew");
                watch.start_over();
                if self.well {
                    return;
                }
                self.failed += 1;
            }
            End::Away(message) => late(watch, message),
            End::Busy(message, time) => {
                pause = time;
                late(watch, message);
            }
            End::Closed => self.failed(watch, "the API server closed the watch at once".into()),
            End::Failed(message) | End::Unstreamed(message) => self.failed(watch, message),
        }
        wait(lenders, self.backoff.next().max(pause)).await;
    }

    /// Resuming where it was is right after a cut, but a server that fails again and again may need a fresh start.
    fn failed(&mut self, watch: &Watch, message: String) {
        self.failed += 1;
        if self.failed.is_multiple_of(3) {
            watch.start_over();
        }
        late(watch, message);
    }
}

fn late(watch: &Watch, message: String) {
    report(watch, &message);
    watch.is_late(message);
}

/// Once for each new message: a server that is away for long says the same again and again.
fn report(watch: &Watch, message: &str) {
    let (kind, namespace) = (&watch.scope.kind, &watch.scope.namespace);
    if watch.last_error().as_deref() == Some(message) {
        tracing::debug!(%kind, %namespace, error = message, "still not watched");
    } else {
        tracing::warn!(%kind, %namespace, error = message, "not watched; trying again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lender_that_was_refused_is_asked_again_when_there_is_no_other() {
        let lender = |name| Actor::Account(crate::names::Account::new("a", name));
        let (one, two) = (lender("one"), lender("two"));
        let mut tries = Tries::new(&HubOptions::default());
        assert_eq!(tries.choose(&[one.clone(), two.clone()]), Some(one.clone()));
        tries.refused.push(one.clone());
        assert_eq!(tries.choose(&[one.clone(), two.clone()]), Some(two));
        assert_eq!(tries.choose(std::slice::from_ref(&one)), Some(one));
        assert_eq!(tries.choose(&[]), None);
    }
}
