//! Delays: how long after a failure, and by how much they are spread so that keys that came together part.

use std::time::Duration;

/// Delay before the n-th retry in a row: `base` × 2ⁿ⁻¹, at most `cap`, ± 20 %.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Default 0.2 s.
    pub base: Duration,
    /// Default 2 min.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(200), cap: Duration::from_secs(120) }
    }
}

impl Backoff {
    pub(super) fn delay(&self, failures: u16, jitter: &mut Jitter) -> Duration {
        doubled(self.base, failures.saturating_sub(1)).min(self.cap).mul_f64(jitter.within(0.8, 1.2))
    }
}

/// `base` × 2ⁿ, as far as that can be told.
pub(super) fn doubled(base: Duration, n: u16) -> Duration {
    base.saturating_mul(1 << n.min(20))
}

/// Random factors (splitmix64). Enough to spread keys; nothing secret depends on it.
#[derive(Debug)]
pub(super) struct Jitter(pub(super) u64);

impl Jitter {
    pub(super) fn within(&mut self, least: f64, most: f64) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        least + (most - least) * f64::from((z >> 32) as u32) / f64::from(u32::MAX)
    }
}
