//! How long a database pod may take to stop, and how that time is divided: the operator gives the
//! pod a grace period, of which the agent makes use.
//!
//! A shutdown writes every dirty page, of which `shared_buffers` bounds the number. A primary writes
//! them in a checkpoint before the shutdown, while clients can still write; the checkpoint at the
//! shutdown, during which nobody can, then has little left.

use std::collections::BTreeMap;
use std::time::Duration;

use super::setting::{BLOCK, MB, size_in};

/// The grace period of a database with PostgreSQL's default of `shared_buffers`.
pub const SHORTEST_GRACE: u64 = 60;
/// The longest, in seconds.
const LONGEST_GRACE: u64 = 3600;
/// Grace periods are multiples of this, so that a small change of the setting changes no pod.
const STEP: u64 = 30;
/// PostgreSQL's default of `shared_buffers`.
const DEFAULT_BUFFERS: u64 = 128 * MB;
/// Bytes that a slow disk writes in a second, page by page.
const SLOW_DISK: u64 = 16 * MB;
/// Seconds for the shutdown itself and the leader's handing over.
const SHUTDOWN: u64 = 45;
/// Seconds that are left to end what does not end by itself.
const REST: u64 = 5;

/// The grace period of the pods, in seconds, by the parameters of PostgreSQL.
pub fn grace_seconds(parameters: &BTreeMap<String, String>) -> u64 {
    let buffers = size_in(parameters, "shared_buffers", BLOCK).unwrap_or(DEFAULT_BUFFERS);
    let needed = buffers.div_ceil(SLOW_DISK).saturating_add(SHUTDOWN + REST);
    needed.div_ceil(STEP).saturating_mul(STEP).clamp(SHORTEST_GRACE, LONGEST_GRACE)
}

/// How an agent divides the grace period that its pod has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Division {
    /// For the checkpoint before the shutdown.
    pub checkpoint: Duration,
    /// Until PostgreSQL must have shut down, from the beginning.
    pub shutdown: Duration,
}

impl Division {
    /// By the seconds that the pod has; none if it is not being deleted, or nobody says.
    pub fn of(grace: Option<u64>) -> Self {
        // What may end after two seconds has no time for a checkpoint before the shutdown.
        let unhurried = grace.filter(|grace| *grace >= SHORTEST_GRACE);
        let checkpoint =
            unhurried.map_or(Duration::from_millis(200), |grace| Duration::from_secs(grace - SHUTDOWN - REST));
        let shutdown = grace.map_or(SHUTDOWN, |grace| grace.saturating_sub(REST).max(1));
        Self { checkpoint, shutdown: Duration::from_secs(shutdown) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grace(shared_buffers: &str) -> u64 {
        grace_seconds(&[("shared_buffers".to_owned(), shared_buffers.to_owned())].into())
    }

    #[test]
    fn the_grace_period_follows_what_a_checkpoint_may_have_to_write() {
        assert_eq!(grace_seconds(&BTreeMap::new()), 60);
        assert_eq!(grace("16384"), 60, "128 MB in pages");
        assert_eq!(grace("160MB"), 60);
        assert_eq!(grace("512MB"), 90);
        assert_eq!(grace("8GB"), 570);
        assert_eq!(grace("1TB"), 3600);
        assert_eq!(grace("lots"), 60, "PostgreSQL refuses it");
    }

    #[test]
    fn a_checkpoint_and_a_shutdown_fit_into_the_grace_period() {
        let seconds = Duration::from_secs;
        assert_eq!(Division::of(Some(60)), Division { checkpoint: seconds(10), shutdown: seconds(55) });
        assert_eq!(Division::of(Some(570)), Division { checkpoint: seconds(520), shutdown: seconds(565) });
        assert_eq!(Division::of(Some(30)).shutdown, seconds(25), "a person's own grace period");
        assert_eq!(Division::of(Some(0)).shutdown, seconds(1));
        assert!(Division::of(Some(30)).checkpoint < seconds(1));
        assert_eq!(Division::of(None).shutdown, seconds(45), "the container alone is ended");
    }
}
