//! Retries while Vault or the database is unavailable.

use std::time::{Duration, Instant};

use rand::Rng;

use super::outcome::{Stopped, one_line};

/// How long Vault or the database may be unavailable before the run gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a run may lose the database in the middle of a file: a migration that crashes the
/// server must not do so repeatedly.
const MAX_LOST: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The limits of retrying.
pub struct Patience {
    since: Instant,
    next: Duration,
    lost: u32,
}

impl Patience {
    /// Starts now.
    pub fn new() -> Self {
        Self { since: Instant::now(), next: FIRST_PAUSE, lost: 0 }
    }

    /// After a connection that reached a file, the time restarts; losses of the connection in a file
    /// are counted over the whole run.
    pub fn worked(&mut self, applied: bool, lost_in_file: bool) {
        if applied || lost_in_file {
            (self.since, self.next) = (Instant::now(), FIRST_PAUSE);
        }
        self.lost += u32::from(lost_in_file);
    }

    /// The delay before the next attempt, if there is one.
    pub fn pause(&mut self, stopped: &Stopped) -> Option<Duration> {
        if !stopped.reconnect || self.since.elapsed() > PATIENCE || self.lost >= MAX_LOST {
            return None;
        }
        let pause = self.next.mul_f64(rand::rng().random_range(0.5..1.5));
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        Some(pause)
    }
}

/// Retries until it succeeds, within the limits for the error.
///
/// # Errors
/// The last attempt's error.
pub async fn insist<T>(mut attempt: impl AsyncFnMut() -> Result<T, Stopped>) -> Result<T, Stopped> {
    let mut patience = Patience::new();
    loop {
        let stopped = match attempt().await {
            Ok(done) => return Ok(done),
            Err(stopped) => stopped,
        };
        let Some(pause) = patience.pause(&stopped) else { return Err(stopped) };
        tracing::warn!(error = one_line(&stopped.failure), "retrying in {} ms", pause.as_millis());
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::conditions::reason;

    #[test]
    fn a_migration_that_takes_the_server_down_is_not_run_for_ever() {
        let mut patience = Patience::new();
        let lost = Stopped::unavailable(reason::NO_PRIMARY, "gone");
        let mut runs = 0;
        loop {
            runs += 1;
            patience.worked(false, true);
            let Some(pause) = patience.pause(&lost) else { break };
            assert!(pause <= LONGEST_PAUSE.mul_f64(1.5));
        }
        assert_eq!(runs, MAX_LOST);
    }

    #[test]
    fn a_refusal_is_not_tried_again() {
        let refused = Stopped::refused(reason::CHECKSUM_MISMATCH, None, "edited");
        assert_eq!(Patience::new().pause(&refused), None);
        assert_eq!(Patience::new().pause(&Stopped::interrupted()), None);
        assert!(Patience::new().pause(&Stopped::unavailable(reason::NO_PRIMARY, "")).is_some());
    }
}
