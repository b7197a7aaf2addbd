//! How long to wait before the next try.

use std::time::Duration;

use rand::Rng;

/// The first wait after a failure; it doubles with each.
const FIRST: Duration = Duration::from_millis(500);

/// The wait after so many failures in a row.
pub fn backoff(failures: u32, longest: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    FIRST.saturating_mul(1 << doublings).min(longest)
}

/// From four fifths to six fifths of a time, so that a fleet does not come at once.
pub fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::rng().random_range(0.8..1.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(60);

    #[test]
    fn backoff_doubles_and_is_bounded() {
        assert_eq!(backoff(1, LONGEST), FIRST);
        assert_eq!(backoff(3, LONGEST), FIRST * 4);
        assert_eq!(backoff(u32::MAX, LONGEST), LONGEST);
    }
}
