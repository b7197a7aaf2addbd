//! The account of a caller: a token bucket that may be in debt.

use std::time::{Duration, Instant};

/// The longest time that a debt takes to be paid back. The planner may be wrong by any factor; how long a statement
/// really takes is bounded by its timeout.
const DEBT: f64 = 300.0;

/// How many seconds' worth a burst is by default.
const BURST: f64 = 10.0;

/// How an account fills.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// Units a second.
    per_second: f64,
    /// The most that it has, in units.
    burst: f64,
}

impl Rate {
    /// Units a second, and the most units; ten seconds' worth, if that is not said.
    pub(super) fn new(per_second: u64, burst: Option<u64>) -> Self {
        let per_second = per_second as f64;
        Self { per_second, burst: burst.map_or(per_second * BURST, |burst| burst as f64) }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Account {
    /// Units that are left; less than nothing is a debt.
    units: f64,
    at: Instant,
}

impl Account {
    /// Of a caller that has spent nothing.
    pub(super) fn full(rate: Rate, now: Instant) -> Self {
        Self { units: rate.burst, at: now }
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.units = (self.units + passed * rate.per_second).min(rate.burst);
        self.at = now;
    }

    /// Whether anything is left; the time until something is otherwise.
    pub(super) fn admits(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.fill(rate, now);
        if self.units > 0.0 {
            return Ok(());
        }
        Err(Duration::from_secs_f64(-self.units / rate.per_second))
    }

    /// Takes units, more than are left, too.
    pub(super) fn spend(&mut self, rate: Rate, now: Instant, units: f64) {
        self.fill(rate, now);
        self.units = (self.units - units).max(-DEBT * rate.per_second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_statement_may_cost_more_than_a_burst_and_the_debt_is_paid_back() {
        let (rate, now) = (Rate::new(10, Some(20)), Instant::now());
        let mut account = Account::full(rate, now);
        assert!(account.admits(rate, now).is_ok());
        account.spend(rate, now, 50.0);
        assert_eq!(account.admits(rate, now), Err(Duration::from_secs(3)));
        assert_eq!(account.admits(rate, now + Duration::from_secs(2)), Err(Duration::from_secs(1)));
        assert!(account.admits(rate, now + Duration::from_secs(4)).is_ok());
        // An hour later there is no more than a burst.
        let later = now + Duration::from_secs(3600);
        account.spend(rate, later, 20.0);
        assert!(account.admits(rate, later).is_err());
    }

    #[test]
    fn no_estimate_takes_for_ever_to_be_paid_back() {
        let (rate, now) = (Rate::new(1, None), Instant::now());
        let mut account = Account::full(rate, now);
        account.spend(rate, now, 1e300);
        assert_eq!(account.admits(rate, now), Err(Duration::from_secs(300)));
    }
}
