//! What a lease says, and what follows from it: pure functions over a record and the clock.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use tokio::time::Instant;

use super::LeaderOptions;

/// The next thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There is no lease.
    Create,
    /// Nobody holds it, or its holder has said nothing for too long.
    Take,
    /// It is ours.
    Renew,
    /// Somebody else's, until then at least.
    Wait { until: Instant },
}

/// `observed_at`: when this process saw the record for the first time as it is. The times inside the record are another
/// machine's clock and are never compared with ours.
pub(super) fn decide(record: Option<&LeaseSpec>, observed_at: Instant, now: Instant, me: &str, ours: Duration) -> Step {
    let Some(record) = record else { return Step::Create };
    match record.holder_identity.as_deref().unwrap_or_default() {
        "" => Step::Take,
        holder if holder == me => Step::Renew,
        _ => {
            let seconds = record.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
            let until = observed_at + seconds.map_or(ours, Duration::from_secs);
            if until <= now { Step::Take } else { Step::Wait { until } }
        }
    }
}

/// The spec by which we hold the lease from now on.
pub(super) fn held(before: Option<&LeaseSpec>, options: &LeaderOptions, now: Timestamp) -> LeaseSpec {
    let mut spec = before.cloned().unwrap_or_default();
    if spec.holder_identity.as_deref() != Some(&options.identity) {
        spec.lease_transitions = Some(before.map_or(0, |b| b.lease_transitions.unwrap_or(0).saturating_add(1)));
        spec.acquire_time = Some(MicroTime(now));
    }
    spec.holder_identity = Some(options.identity.to_string());
    spec.lease_duration_seconds = Some(whole_seconds(options.lease));
    spec.renew_time = Some(MicroTime(now));
    spec
}

/// The spec by which nobody holds it, and nobody waits.
pub(super) fn released(before: &LeaseSpec, now: Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(String::new()),
        lease_duration_seconds: Some(1),
        renew_time: Some(MicroTime(now)),
        acquire_time: Some(MicroTime(now)),
        ..before.clone()
    }
}

/// Rounded up: others may wait longer than we hold, never shorter.
fn whole_seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i32::MAX)
}

/// Where a lease was seen, and when it was first seen to say what it says.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) lease: Option<Lease>,
    pub(super) at: Instant,
}

impl Observed {
    pub(super) fn spec(&self) -> Option<&LeaseSpec> {
        self.lease.as_ref().and_then(|l| l.spec.as_ref())
    }

    /// Takes over what was seen now. Only what the record says starts the waiting anew: a label does not.
    pub(super) fn see(&mut self, lease: Option<Lease>) {
        if lease.as_ref().and_then(|l| l.spec.as_ref()) != self.spec() {
            self.at = Instant::now();
        }
        self.lease = lease;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Duration = Duration::from_secs(15);

    fn record(holder: &str, seconds: Option<i32>) -> LeaseSpec {
        LeaseSpec { holder_identity: Some(holder.into()), lease_duration_seconds: seconds, ..LeaseSpec::default() }
    }

    #[test]
    fn a_lease_is_taken_when_it_was_seen_unchanged_for_as_long_as_it_says() {
        let seen = Instant::now();
        let theirs = record("them", Some(20));
        let after = |seconds| decide(Some(&theirs), seen, seen + Duration::from_secs(seconds), "me", OURS);
        assert_eq!(after(0), Step::Wait { until: seen + Duration::from_secs(20) });
        assert!(matches!(after(19), Step::Wait { .. }));
        assert_eq!(after(20), Step::Take);
    }

    #[test]
    fn a_lease_is_created_renewed_and_taken_from_nobody() {
        let now = Instant::now();
        assert_eq!(decide(None, now, now, "me", OURS), Step::Create);
        assert_eq!(decide(Some(&record("me", Some(1))), now, now, "me", OURS), Step::Renew);
        assert_eq!(decide(Some(&record("", Some(1))), now, now, "me", OURS), Step::Take);
        assert_eq!(decide(Some(&LeaseSpec::default()), now, now, "me", OURS), Step::Take);
    }

    #[test]
    fn a_record_without_a_duration_is_given_ours() {
        let now = Instant::now();
        for seconds in [None, Some(-1)] {
            assert_eq!(decide(Some(&record("them", seconds)), now, now, "me", OURS), Step::Wait { until: now + OURS });
        }
    }

    #[test]
    fn transitions_count_holders_and_not_renewals() {
        let options = LeaderOptions { lease: Duration::from_millis(1500), ..LeaderOptions::new("ns", "reef") };
        let first = held(None, &options, Timestamp::UNIX_EPOCH);
        assert_eq!(first.lease_transitions, Some(0));
        assert_eq!(first.lease_duration_seconds, Some(2));
        let later = Timestamp::from_second(5).unwrap();
        let renewed = held(Some(&first), &options, later);
        assert_eq!((renewed.lease_transitions, renewed.acquire_time.clone()), (Some(0), first.acquire_time.clone()));
        assert_eq!(renewed.renew_time, Some(MicroTime(later)));
        let free = released(&renewed, later);
        assert_eq!((free.holder_identity.as_deref(), free.lease_duration_seconds), (Some(""), Some(1)));
        assert_eq!(held(Some(&free), &options, later).lease_transitions, Some(1));
    }

    #[test]
    fn a_label_does_not_prolong_a_lease() {
        let old = Instant::now() - Duration::from_secs(5);
        let lease = Lease { spec: Some(record("them", Some(15))), ..Lease::default() };
        let mut observed = Observed { lease: Some(lease.clone()), at: old };
        let mut labelled = lease.clone();
        labelled.metadata.resource_version = Some("2".into());
        observed.see(Some(labelled));
        assert_eq!(observed.at, old);
        observed.see(Some(Lease { spec: Some(record("others", Some(15))), ..lease }));
        assert!(observed.at > old);
    }
}
