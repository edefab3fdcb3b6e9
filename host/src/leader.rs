//! Leadership: one Lease in the cluster, and a gate in this process that every write passes.
//!
//! The rules are client-go's: a foreign record has expired when it was seen unchanged for as long as it says; every update
//! carries the version that was read. The gate does not wait to be told: it compares the clock with a deadline that was set
//! before the last successful renewal was sent, so it closes by itself while a renewal hangs, the process is stopped or
//! the machine sleeps. A lost lease ends nothing: the elector goes back to acquiring. It knows `identity` and no other room.

mod elector;
mod record;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{identity::Api, names::Span};

/// Which lease, as whom, and how often. The defaults of the durations are client-go's: 15, 10 and 2 seconds.
#[derive(Debug, Clone)]
pub struct LeaderOptions {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// Differs for every process: see [`unique_identity`].
    pub identity: Arc<str>,
    /// How long others wait for a leader that says nothing any more.
    pub lease: Duration,
    /// How long the gate stays open after a renewal.
    pub renew: Duration,
    /// Between two renewals, and between two tries.
    pub retry: Duration,
}

impl LeaderOptions {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: unique_identity().into(),
            lease: Duration::from_secs(15),
            renew: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }

    /// `lease > renew > 1.2 × retry > 0`: otherwise two leaders, or none, would be the rule.
    pub fn validate(&self) -> Result<(), Invalid> {
        let Self { lease, renew, retry, .. } = self;
        if self.identity.is_empty() {
            return Err(Invalid("the leader's identity is empty: give each process one of its own".into()));
        }
        if lease <= renew {
            let (lease, renew) = (Span(*lease), Span(*renew));
            return Err(Invalid(format!("lease duration {lease} must be longer than renew deadline {renew}")));
        }
        if *renew <= retry.mul_f64(1.2) || retry.is_zero() {
            let (renew, retry) = (Span(*renew), Span(*retry));
            return Err(Invalid(format!(
                "renew deadline {renew} must be longer than 1.2 times the retry period {retry}, and that above 0"
            )));
        }
        Ok(())
    }
}

/// Durations that do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

/// The name of the machine or pod, and something that no other process has.
pub fn unique_identity() -> String {
    let host = std::env::var("HOSTNAME").ok().or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    let host = host.map(|h| h.trim().to_string()).filter(|h| !h.is_empty()).unwrap_or_else(|| "reef".into());
    let random = getrandom::u64().unwrap_or_else(|_| now() ^ u64::from(std::process::id()));
    format!("{host}_{random:016x}")
}

/// One unbroken time of leading, counted in this process from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "term {}", self.0)
    }
}

/// Nothing may be written: another process leads, or this one cannot be sure any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this host does not lead: it holds no lease that it renewed in time")]
pub struct NotLeading;

/// A handle to the elector, which runs until [`Leader::release`], or until the last handle is dropped.
#[derive(Clone)]
pub struct Leader {
    gate: Arc<Gate>,
    ended: CancellationToken,
    stop: Arc<DropGuard>,
    stopping: CancellationToken,
}

impl Leader {
    /// Starts to acquire, and to renew.
    pub fn run(api: Api, options: LeaderOptions) -> Result<Self, Invalid> {
        options.validate()?;
        let gate = Arc::new(Gate::new());
        let (stopping, ended) = (CancellationToken::new(), CancellationToken::new());
        let elector = elector::Elector::new(api, options, gate.clone());
        tokio::spawn({
            let (stopping, ended) = (stopping.clone(), ended.clone().drop_guard());
            async move {
                elector.run(stopping).await;
                drop(ended);
            }
        });
        Ok(Self { gate, ended, stop: Arc::new(stopping.clone().drop_guard()), stopping })
    }

    /// Leads from the beginning to the end, without a lease: for a process that has made sure in another way that nobody else
    /// does what it does.
    pub fn alone() -> Self {
        let (stopping, ended) = (CancellationToken::new(), CancellationToken::new());
        ended.cancel();
        let gate = Arc::new(Gate::new());
        gate.open(u64::MAX);
        Self { gate, ended, stop: Arc::new(stopping.clone().drop_guard()), stopping }
    }

    /// Whether this process leads now, and since which term. Costs a look at the clock.
    pub fn gate(&self) -> Result<Term, NotLeading> {
        self.gate.pass().map(|(term, _)| term)
    }

    /// How much longer the gate stays open if no renewal succeeds: what is to be written should be written within.
    pub fn remaining(&self) -> Result<Duration, NotLeading> {
        self.gate.pass().map(|(_, remaining)| remaining)
    }

    /// Tells when a term begins and ends. `None` may come a moment after the gate has closed, never before.
    pub fn changed(&self) -> watch::Receiver<Option<Term>> {
        self.gate.changed.subscribe()
    }

    /// Closes the gate, gives the lease back so that nobody waits for it to expire, and stops. To be called after the
    /// last write was answered.
    pub async fn release(&self) {
        self.stopping.cancel();
        self.ended.cancelled().await;
    }
}

impl fmt::Debug for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leader").field("term", &self.gate()).field("handles", &Arc::strong_count(&self.stop)).finish()
    }
}

/// Open until a deadline; written by the elector alone, read before every write.
#[derive(Debug)]
struct Gate {
    term: AtomicU64,
    /// In nanoseconds since boot; 0 is closed.
    deadline: AtomicU64,
    changed: watch::Sender<Option<Term>>,
}

impl Gate {
    fn new() -> Self {
        Self { term: AtomicU64::new(0), deadline: AtomicU64::new(0), changed: watch::Sender::new(None) }
    }

    fn pass(&self) -> Result<(Term, Duration), NotLeading> {
        let term = self.term.load(Ordering::SeqCst);
        let left = self.deadline.load(Ordering::SeqCst).checked_sub(now()).filter(|left| *left > 0).ok_or(NotLeading)?;
        // A deadline that belongs to the next term lets nobody through in the name of this one.
        if self.term.load(Ordering::SeqCst) != term {
            return Err(NotLeading);
        }
        Ok((Term(term), Duration::from_nanos(left)))
    }

    /// Open until `deadline`: a new term, unless it is still open.
    fn open(&self, deadline: u64) {
        if deadline <= now() {
            return;
        }
        if self.pass().is_err() {
            self.close();
            let term = self.term.fetch_add(1, Ordering::SeqCst) + 1;
            self.deadline.store(deadline, Ordering::SeqCst);
            self.changed.send_replace(Some(Term(term)));
        } else {
            self.deadline.store(deadline, Ordering::SeqCst);
        }
    }

    fn close(&self) {
        self.deadline.store(0, Ordering::SeqCst);
        self.changed.send_if_modified(|term| term.take().is_some());
    }
}

/// Nanoseconds since boot, sleep included: a machine that slept may no longer lead, and its monotonic clock did not notice.
fn now() -> u64 {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(clock);
    let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    seconds * 1_000_000_000 + nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn durations_that_do_not_fit_are_refused() {
        let good = LeaderOptions::new("ns", "reef");
        assert_eq!(good.validate(), Ok(()));
        let seconds = Duration::from_secs;
        assert!(LeaderOptions { lease: seconds(10), ..good.clone() }.validate().is_err());
        assert!(LeaderOptions { retry: seconds(9), ..good.clone() }.validate().is_err());
        assert!(LeaderOptions { retry: seconds(0), ..good.clone() }.validate().is_err());
        assert_ne!(unique_identity(), unique_identity());
    }

    #[test]
    fn a_gate_closes_by_itself_and_each_opening_is_a_new_term() {
        let gate = Gate::new();
        assert!(gate.pass().is_err());
        gate.open(now() + 60 * SECOND);
        gate.open(now() + 90 * SECOND);
        let (term, remaining) = gate.pass().unwrap();
        assert_eq!(term, Term(1), "renewed, not begun anew");
        assert!(remaining > Duration::from_secs(60));
        gate.deadline.store(now(), Ordering::SeqCst);
        assert_eq!(gate.pass(), Err(NotLeading));
        gate.open(now() + 60 * SECOND);
        assert_eq!(gate.pass().unwrap().0, Term(2));
        gate.close();
        assert_eq!(gate.pass(), Err(NotLeading));
        assert_eq!(*gate.changed.borrow(), None);
    }

    #[tokio::test]
    async fn who_is_alone_leads_until_the_end() {
        let leader = Leader::alone();
        assert_eq!(leader.gate(), Ok(Term(1)));
        assert_eq!(*leader.changed().borrow(), Some(Term(1)));
        leader.release().await;
    }

    #[test]
    fn a_renewal_that_comes_too_late_opens_nothing() {
        let gate = Gate::new();
        gate.open(now() - 1);
        assert_eq!(gate.pass(), Err(NotLeading));
        assert_eq!(*gate.changed.borrow(), None);
    }
}
