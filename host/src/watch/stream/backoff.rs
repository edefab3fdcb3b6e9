//! How long to wait before the next try, and chance, so that many that failed together do not come back together.

use std::time::Duration;

pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new((first, most): (Duration, Duration)) -> Self {
        Self { first, most, next: first }
    }

    /// Half to all of a time that doubles.
    pub fn next(&mut self) -> Duration {
        let time = self.next;
        self.next = (time * 2).min(self.most);
        spread(time / 2)
    }

    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A random time from this to twice this.
pub fn spread(time: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    time.saturating_add(time.mul_f64(f64::from(random) / f64::from(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_are_spread() {
        let mut backoff = Backoff::new((Duration::from_millis(100), Duration::from_millis(400)));
        for expected in [100, 200, 400, 400] {
            let time = backoff.next().as_millis();
            assert!((expected / 2..=expected).contains(&time), "{time} is not within {expected}");
        }
        backoff.reset();
        assert!(backoff.next().as_millis() <= 100);
    }
}
