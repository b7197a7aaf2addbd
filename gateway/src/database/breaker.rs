//! A breaker in front of the database: after several failed connections in a row, requests fail at once, and one at a
//! time tries again. Errors of statements do not count.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Failures in a row that open it.
const FAILURES: u32 = 5;
/// How long it stays open before one request tries.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Until when no request tries.
    until: Option<Instant>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Breaker {
    state: Mutex<State>,
}

impl Breaker {
    /// Whether a connection may be tried now; the time to wait otherwise.
    pub fn allows(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.lock();
        match state.until {
            Some(until) if now < until => Err(until - now),
            Some(_) => {
                // This request tries; the next one only after another pause.
                state.until = Some(now + PAUSE);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A connection was made, or answered.
    pub fn succeeded(&self) {
        *self.lock() = State::default();
    }

    /// A connection could not be made.
    pub fn failed(&self, now: Instant) {
        let mut state = self.lock();
        state.failures += 1;
        if state.failures >= FAILURES {
            state.until = Some(now + PAUSE);
        }
    }

    /// Whether requests fail at once.
    pub fn is_open(&self, now: Instant) -> bool {
        self.lock().until.is_some_and(|until| now < until)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_failures_in_a_row_and_lets_one_try() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 1..FAILURES {
            breaker.failed(now);
        }
        assert!(breaker.allows(now).is_ok());
        breaker.failed(now);
        assert!(breaker.allows(now).is_err());
        let later = now + PAUSE;
        assert!(breaker.allows(later).is_ok(), "one tries");
        assert!(breaker.allows(later).is_err(), "and only one");
        breaker.succeeded();
        assert!(breaker.allows(later).is_ok());
    }

    #[test]
    fn a_success_between_failures_keeps_it_closed() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..3 * FAILURES {
            breaker.failed(now);
            breaker.succeeded();
        }
        assert!(!breaker.is_open(now));
    }
}
