//! The time as Kubernetes writes it.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

/// `2026-01-01T00:00:00Z`, as in conditions.
pub fn seconds() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2026-01-01T00:00:00.000000Z`, as in events.
pub fn micros() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// How long ago that was; nothing if it is yet to come.
pub fn elapsed(since: Timestamp) -> Duration {
    Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_have_the_lengths_that_kubernetes_writes() {
        assert_eq!(super::seconds().len(), "2026-01-01T00:00:00Z".len());
        assert_eq!(super::micros().len(), "2026-01-01T00:00:00.000000Z".len());
    }
}
