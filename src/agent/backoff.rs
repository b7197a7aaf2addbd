//! Waiting longer after each failure, with jitter, so that a fleet does not retry in step.

use std::time::Duration;

use rand::Rng;

/// The waits of one activity.
pub struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits from `first` on, doubled up to `last`.
    pub fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, next: first }
    }

    /// How long to wait now: from half of the step to all of it.
    pub fn step(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.last);
        step.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Waits.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.step()).await;
    }

    /// After a success: the next failure waits `first` again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_last_and_start_anew() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, second * 4);
        let waits: Vec<_> = (0..5).map(|_| backoff.step()).collect();
        assert!(waits[0] <= second && waits[0] >= second / 2);
        assert!(waits[4] <= second * 4 && waits[4] >= second * 2);
        backoff.reset();
        assert!(backoff.step() <= second);
    }
}
