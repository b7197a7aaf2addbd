//! The watchdog. Patroni detaches the postmaster, so a dead or hung Patroni leaves a primary
//! that goes on writing after its lease; another member may then be promoted beside it. The
//! agent looks at Patroni all the time, and stops PostgreSQL before the lease can pass on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::desired::DesiredState;
use super::patroni::process::{Handle, Order};
use super::patroni::rest::{Rest, RestError, Status};
use super::postmaster;
use crate::contract::patroni::timings;

/// How often Patroni is asked while nothing changes.
const CALM: Duration = Duration::from_secs(2);
/// How often while something does.
const BUSY: Duration = Duration::from_millis(50);
/// A member that may not accept writes has this many leases' time before its silent Patroni
/// is started again.
const PATIENCE: u32 = 4;

/// Patroni as the watchdog last saw it; none while it does not answer.
pub type Seen = watch::Receiver<Option<Status>>;

/// Asks to look at Patroni often, because something is changing; cheap to clone.
#[derive(Clone)]
pub struct Attention {
    busy: watch::Sender<bool>,
    now: std::sync::Arc<Notify>,
}

impl Attention {
    /// Whether to look often from now on.
    pub fn set_busy(&self, busy: bool) {
        if self.busy.send_replace(busy) != busy && busy {
            self.now.notify_one();
        }
    }

    fn interval(&self) -> Duration {
        if *self.busy.borrow() { BUSY } else { CALM }
    }
}

/// Starts to watch Patroni.
pub fn start(patroni: Handle, desired: DesiredState) -> (Seen, Attention) {
    let (seen, receiver) = watch::channel(None);
    let attention = Attention { busy: watch::Sender::new(true), now: std::sync::Arc::new(Notify::new()) };
    tokio::spawn(run(patroni, desired, seen, attention.clone()));
    (receiver, attention)
}

async fn run(patroni: Handle, desired: DesiredState, seen: watch::Sender<Option<Status>>, attention: Attention) {
    let mut lease = Lease::new();
    let mut last_answer = Instant::now();
    let mut look = Box::pin(look_after(Duration::ZERO));
    let mut limits = Limits { now: limit(&desired), before: Instant::now() };
    loop {
        let limit = limits.next(limit(&desired), Instant::now());
        tokio::select! {
            result = &mut look => {
                match result {
                    Ok(status) => {
                        lease.sign(&status, Instant::now(), SystemTime::now());
                        lease.lapse(&status, postmaster::may_accept_writes(), limit, Instant::now());
                        last_answer = Instant::now();
                        seen.send_if_modified(|before| {
                            let visible = Some(Status { dcs_last_seen: None, ..status });
                            let changed = *before != visible;
                            *before = visible;
                            changed
                        });
                    }
                    Err(error) => {
                        // Should it be started anew, it has to take the lease first.
                        lease.forget();
                        if seen.send_replace(None).is_some() {
                            tracing::warn!(%error, "Patroni has fallen silent");
                        }
                    }
                }
                look = Box::pin(look_after(attention.interval()));
            }
            // In half of the time a hung Patroni can be started again and renew the lease, and
            // PostgreSQL goes on.
            () = tokio::time::sleep_until(last_answer + limit / 2) => {
                if postmaster::may_accept_writes() {
                    tracing::warn!("Patroni does not answer; starting it again before its lease ends");
                    patroni.order(Order::Restart).await;
                }
                last_answer = Instant::now() + limit;
            }
            () = attention.now.notified() => look = Box::pin(look_after(Duration::ZERO)),
            () = tokio::time::sleep_until(lease.last_sign + limit) => {
                let writable = postmaster::may_accept_writes();
                if writable {
                    tracing::error!(
                        seconds = limit.as_secs(),
                        "no sign that Patroni keeps the lease: stopping PostgreSQL before another member is promoted"
                    );
                    postmaster::stop_at_once().await;
                }
                if writable || lease.last_sign.elapsed() >= limit * PATIENCE {
                    patroni.order(Order::Restart).await;
                    lease.last_sign = Instant::now();
                } else {
                    // Nothing to protect: look again soon, since it may become a primary.
                    tokio::time::sleep(BUSY).await;
                }
            }
        }
    }
}

async fn look_after(wait: Duration) -> Result<Status, RestError> {
    tokio::time::sleep(wait).await;
    // Made anew each time, so that renewed certificates need no notice.
    Rest::new()?.status().await
}

fn limit(desired: &DesiredState) -> Duration {
    let seconds = desired.borrow().as_ref().map_or(15, |desired| {
        let (ttl, loop_wait, _) = timings(desired);
        ttl - loop_wait
    });
    Duration::from_secs(seconds)
}

/// How long Patroni may give no sign. A longer time counts only once Patroni has certainly taken
/// it up: what is desired comes to the lease later.
struct Limits {
    now: Duration,
    before: Instant,
}

/// How long that takes at most.
const TAKEN_UP: Duration = Duration::from_secs(60);

impl Limits {
    fn next(&mut self, desired: Duration, at: Instant) -> Duration {
        if desired <= self.now {
            (self.now, self.before) = (desired, at);
        } else if at.duration_since(self.before) >= TAKEN_UP {
            self.now = desired;
        }
        self.now
    }
}

/// What is known of the lease's age.
struct Lease {
    last_sign: Instant,
    /// Whether this Patroni held the lease when PostgreSQL could be written to last.
    led: bool,
    /// Since when it says that it does not, while PostgreSQL still can.
    lapsed: Option<Instant>,
}

/// How long PostgreSQL may accept writes after Patroni itself says that its lease is over: one
/// that works ends it at once.
const LAPSED: Duration = Duration::from_secs(1);

impl Lease {
    fn new() -> Self {
        Self { last_sign: Instant::now(), led: false, lapsed: None }
    }

    fn forget(&mut self) {
        (self.led, self.lapsed) = (false, None);
    }

    /// An answer is a sign of when Patroni last reached the API server, or, while it goes on
    /// without in failsafe mode, of now.
    fn sign(&mut self, status: &Status, now: Instant, clock: SystemTime) {
        let age = match status.dcs_last_seen {
            _ if status.failsafe_mode_is_active => Duration::ZERO,
            Some(seconds) => {
                let since_1970 = clock.duration_since(UNIX_EPOCH).unwrap_or_default();
                since_1970.saturating_sub(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
            }
            None => return,
        };
        if let Some(sign) = now.checked_sub(age) {
            self.last_sign = self.last_sign.max(sign);
        }
    }

    /// Patroni reaches the API server also when it answers a request of ours, and that is no sign
    /// that it still keeps the lease: one that held it, and says that it is over, gives none.
    fn lapse(&mut self, status: &Status, writable: bool, limit: Duration, now: Instant) {
        if status.leads || status.failsafe_mode_is_active || !writable {
            // In failsafe mode it does not call itself the leader while it tries to renew.
            let keeps = self.led && writable && status.failsafe_mode_is_active;
            (self.led, self.lapsed) = (status.leads || keeps, None);
        } else if self.led {
            let since = *self.lapsed.get_or_insert(now);
            let end = (since + LAPSED).checked_sub(limit).unwrap_or(since);
            self.last_sign = self.last_sign.min(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(dcs_last_seen: Option<i64>, failsafe: bool) -> Status {
        Status { dcs_last_seen, failsafe_mode_is_active: failsafe, ..Status::default() }
    }

    #[test]
    fn a_longer_lease_counts_once_patroni_has_it() {
        let start = Instant::now();
        let (short, long) = (Duration::from_secs(15), Duration::from_secs(30));
        let mut limits = Limits { now: short, before: start };
        assert_eq!(limits.next(short, start), short);
        assert_eq!(limits.next(long, start + Duration::from_secs(59)), short);
        assert_eq!(limits.next(long, start + Duration::from_secs(60)), long);
        assert_eq!(limits.next(short, start + Duration::from_secs(61)), short, "a shorter one at once");
    }

    #[test]
    fn a_stale_answer_is_no_sign_of_life() {
        let start = Instant::now();
        let now = start + Duration::from_secs(10);
        let clock = UNIX_EPOCH + Duration::from_secs(1000);
        let mut lease = Lease { last_sign: start, ..Lease::new() };
        lease.sign(&status(Some(997), false), now, clock);
        assert_eq!(lease.last_sign, start + Duration::from_secs(7));
        lease.sign(&status(Some(900), false), now, clock);
        assert_eq!(lease.last_sign, start + Duration::from_secs(7), "an older sign takes nothing back");
        lease.sign(&status(None, false), now, clock);
        assert_eq!(lease.last_sign, start + Duration::from_secs(7));
        lease.sign(&status(Some(900), true), now, clock);
        assert_eq!(lease.last_sign, now, "failsafe: all members agree to go on");
    }

    #[test]
    fn what_patroni_says_after_its_lease_is_no_sign() {
        let (start, limit) = (Instant::now() + Duration::from_secs(60), Duration::from_secs(15));
        let second = Duration::from_secs(1);
        let leads = |leads| Status { leads, ..Status::default() };
        let mut lease = Lease { last_sign: start, ..Lease::new() };
        lease.lapse(&leads(false), true, limit, start);
        assert_eq!(lease.last_sign, start, "it has yet to take the lease");
        lease.lapse(&leads(true), true, limit, start);
        lease.lapse(&leads(false), false, limit, start);
        assert_eq!(lease.last_sign, start, "it has handed the lead over");
        lease.lapse(&leads(true), true, limit, start);
        for later in 0..3 {
            lease.last_sign = start + second * later;
            lease.lapse(&leads(false), true, limit, start + second * later);
            assert_eq!(lease.last_sign + limit, start + second, "PostgreSQL ends a second after the lease");
        }
    }
}
