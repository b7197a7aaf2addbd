//! Exponential backoff with jitter, so that a fleet does not retry at the same time.

use std::time::Duration;

use rand::Rng;

/// The delay after a number of consecutive failures: `first` after one, doubled with each further
/// one, at most `longest`.
pub fn delay(failures: u32, first: Duration, longest: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    first.saturating_mul(1 << doublings).min(longest)
}

/// Four to six fifths of a duration, so that a fleet does not act at the same time.
pub fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::rng().random_range(0.8..1.2))
}

/// The backoff of one activity.
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// A backoff of about `first` after a failure, doubled up to about `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The delay after one more failure.
    pub fn step(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        jittered(delay(self.failures, self.first, self.longest))
    }

    /// Sleeps after one more failure.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.step()).await;
    }

    /// Resets after a success: the delay after the next failure is `first` again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_delay_doubles_and_is_bounded() {
        let longest = SECOND * 60;
        assert_eq!(delay(1, SECOND, longest), SECOND);
        assert_eq!(delay(3, SECOND, longest), SECOND * 4);
        assert_eq!(delay(u32::MAX, SECOND, longest), longest);
    }

    #[test]
    fn waits_grow_to_the_longest_and_start_anew() {
        let mut backoff = Backoff::new(SECOND, SECOND * 4);
        let waits: Vec<_> = (0..5).map(|_| backoff.step()).collect();
        let about = |wait: Duration, wanted: Duration| wait >= wanted.mul_f64(0.8) && wait < wanted.mul_f64(1.2);
        assert!(about(waits[0], SECOND) && about(waits[1], SECOND * 2) && about(waits[4], SECOND * 4), "{waits:?}");
        backoff.reset();
        assert!(about(backoff.step(), SECOND));
    }
}
