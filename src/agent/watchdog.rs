//! The watchdog. Patroni detaches the postmaster, so a dead or hung Patroni leaves a primary
//! that continues to write after its lease; another member may then be promoted beside it. The
//! agent queries Patroni regularly, and stops PostgreSQL before the lease can pass to another member. A single
//! instance continues while Patroni's record proves that there is none ([`super::lone`]).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::desired::{self, DesiredState};
use super::lone::{Lone, Reader};
use super::patroni::process::{Handle, Request};
use super::patroni::rest::{Rest, RestError, Status};
use super::postmaster;
use crate::contract::patroni::timings;

/// Interval between two queries while nothing changes.
const CALM: Duration = Duration::from_secs(2);
/// The same while the role changes.
const BUSY: Duration = Duration::from_millis(50);
/// The silent Patroni of a member that may not accept writes is restarted after this many durations of a
/// lease.
const PATIENCE: u32 = 4;

/// The last known status of Patroni; none while it does not answer.
pub type StatusWatch = watch::Receiver<Option<Status>>;

/// Requests frequent queries of Patroni, because the role is changing; cheap to clone.
#[derive(Clone)]
pub struct Attention {
    busy: watch::Sender<bool>,
    now: std::sync::Arc<Notify>,
}

impl Attention {
    /// Sets whether Patroni is queried frequently from now on.
    pub fn set_busy(&self, busy: bool) {
        if self.busy.send_replace(busy) != busy && busy {
            self.now.notify_one();
        }
    }

    fn interval(&self) -> Duration {
        if *self.busy.borrow() { BUSY } else { CALM }
    }
}

/// Starts the watchdog.
pub fn start(patroni: Handle, desired: DesiredState, reader: Reader) -> (StatusWatch, Attention) {
    let (sender, receiver) = watch::channel(None);
    let attention = Attention { busy: watch::Sender::new(true), now: std::sync::Arc::new(Notify::new()) };
    tokio::spawn(run(patroni, desired, reader, sender, attention.clone()));
    (receiver, attention)
}

async fn run(
    patroni: Handle,
    desired: DesiredState,
    mut reader: Reader,
    sender: watch::Sender<Option<Status>>,
    attention: Attention,
) {
    let mut lease = Lease::new();
    let mut lone = Lone::default();
    let mut last_answer = Instant::now();
    let mut last_restart = Instant::now();
    let mut query = Box::pin(query_after(Duration::ZERO));
    let mut limits = Limits { now: limit(&desired), before: Instant::now() };
    loop {
        let limit = limits.next(limit(&desired), Instant::now());
        // The lease certainly has the duration of a single instance's.
        let single = desired::is_single(&desired) && limit == self::limit(&desired);
        lone.settle(single, lease.lapsed, lease.last_sign, limit, Instant::now());
        reader.want(single && lone.is_due(lease.last_sign, limit, Instant::now()) && postmaster::may_accept_writes());
        let due = lone.deadline(lease.last_sign, limit);
        let silent_until = last_answer + patience(limit, single, lone.is_proved(lease.last_sign));
        let stale_until = last_restart.max(lease.last_sign) + 2 * limit;
        tokio::select! {
            // An answer that is there counts before a time that has passed: this process may have had no CPU time.
            biased;
            (asked, result) = &mut query => {
                match result {
                    Ok(status) => {
                        lease.sign(&status, asked, Instant::now(), SystemTime::now());
                        lease.lapse(&status, postmaster::may_accept_writes(), limit, Instant::now());
                        last_answer = Instant::now();
                        sender.send_if_modified(|before| {
                            let visible = Some(Status { dcs_last_seen: None, ..status });
                            let changed = *before != visible;
                            *before = visible;
                            changed
                        });
                    }
                    Err(error) => {
                        // A restarted Patroni has to take the lease first.
                        lease.forget();
                        if sender.send_replace(None).is_some() {
                            tracing::warn!(%error, "Patroni no longer answers");
                        }
                    }
                }
                query = Box::pin(query_after(attention.interval()));
            }
            reading = reader.reading() => {
                // One from before that is no news.
                if lone.receive(reading, lease.last_sign + limit / 2) {
                    tracing::warn!(
                        seconds = lease.last_sign.elapsed().as_secs(),
                        "Patroni has not renewed the lease; PostgreSQL continues, since no other member may lead"
                    );
                }
            }
            () = attention.now.notified() => query = Box::pin(query_after(Duration::ZERO)),
            () = tokio::time::sleep_until(due) => {
                let writable = postmaster::may_accept_writes();
                // An agent that ran has tried to read it for half of the limit, unless Patroni itself has ended that.
                let had_no_time = is_late(due) || lone.is_untried(lease.last_sign, limit) || lease.lapsed.is_some();
                if writable && single && had_no_time && lone.grant(Instant::now()) {
                    tracing::warn!("Patroni has not renewed the lease; reading whether another member may lead");
                    continue;
                }
                if writable {
                    tracing::error!(
                        seconds = limit.as_secs(),
                        "Patroni has not renewed the lease: stopping PostgreSQL before another member is promoted"
                    );
                    postmaster::stop_at_once().await;
                }
                if writable || lease.last_sign.elapsed() >= limit * PATIENCE {
                    patroni.request(Request::Restart).await;
                    lease.last_sign = Instant::now();
                } else {
                    // There is no primary to stop; it is queried again soon, since this may become one.
                    tokio::time::sleep(BUSY).await;
                }
            }
            // In the rest of the time a hung Patroni can be restarted and renew the lease, and PostgreSQL
            // continues.
            () = tokio::time::sleep_until(silent_until) => {
                if single && is_late(silent_until) {
                    last_answer = Instant::now();
                    continue;
                }
                if postmaster::may_accept_writes() {
                    tracing::warn!("Patroni does not answer; restarting it before its lease ends");
                    patroni.request(Request::Restart).await;
                    last_restart = Instant::now();
                }
                last_answer = Instant::now() + limit;
            }
            // It answers, and its loop hangs.
            () = tokio::time::sleep_until(stale_until), if single => {
                if !is_late(stale_until) && postmaster::may_accept_writes() {
                    tracing::warn!("Patroni does not renew the lease; restarting it");
                    patroni.request(Request::Restart).await;
                }
                last_restart = Instant::now();
            }
        }
    }
}

/// How long Patroni may not answer until it is restarted: so that it can renew the lease in the rest of the limit. A
/// single instance has more time: a Patroni without CPU time would only begin again, and where no other member may
/// lead nothing is urgent.
fn patience(limit: Duration, single: bool, proved: bool) -> Duration {
    match (single, proved) {
        (false, _) => limit / 2,
        (true, false) => limit * 2 / 3,
        (true, true) => limit,
    }
}

/// Whether this process acts on a time so long after it that it had no CPU time itself: silence until then proves
/// nothing.
fn is_late(due: Instant) -> bool {
    due.elapsed() > CALM
}

/// The answer, and when it was asked for.
async fn query_after(wait: Duration) -> (Instant, Result<Status, RestError>) {
    tokio::time::sleep(wait).await;
    let asked = Instant::now();
    // A new client each time, so that renewed certificates need no reload.
    (asked, async { Rest::new()?.status().await }.await)
}

fn limit(desired: &DesiredState) -> Duration {
    let seconds = desired.borrow().as_ref().map_or(15, |desired| {
        let (ttl, loop_wait, _) = timings(desired);
        ttl - loop_wait
    });
    Duration::from_secs(seconds)
}

/// How long Patroni may give no sign of a renewal. A longer time counts only once Patroni's lease certainly
/// has it: the desired state reaches the lease later.
struct Limits {
    now: Duration,
    /// When the desired state last had it.
    before: Instant,
}

/// The maximum time until the lease has the desired duration.
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

/// The age of the lease, as far as it is known.
struct Lease {
    /// The last sign that the lease was valid.
    last_sign: Instant,
    /// Whether this Patroni held the lease when PostgreSQL last accepted writes.
    led: bool,
    /// Since when Patroni reports no lease while PostgreSQL accepts writes.
    lapsed: Option<Instant>,
}

/// How long PostgreSQL may accept writes after Patroni itself reports that its lease is over: a Patroni
/// that works stops it at once.
const LAPSED: Duration = Duration::from_secs(1);

impl Lease {
    fn new() -> Self {
        Self { last_sign: Instant::now(), led: false, lapsed: None }
    }

    fn forget(&mut self) {
        (self.led, self.lapsed) = (false, None);
    }

    /// An answer is a sign from the time at which Patroni last reached the API server, or, in failsafe mode,
    /// from the time at which it was asked: the answer may have waited for this process.
    fn sign(&mut self, status: &Status, asked: Instant, now: Instant, clock: SystemTime) {
        let age = match status.dcs_last_seen {
            _ if status.failsafe_mode_is_active => now.duration_since(asked),
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

    /// Patroni reaches the API server also when it answers a request of the agent, which is no sign that it
    /// still renews the lease: a Patroni that held it, and reports that it is over, gives no sign.
    fn lapse(&mut self, status: &Status, writable: bool, limit: Duration, now: Instant) {
        if status.leads || status.failsafe_mode_is_active || !writable {
            // In failsafe mode it does not report itself as the leader while it tries to renew.
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
    fn only_a_single_instance_waits_longer_for_an_answer() {
        let (short, long) = (Duration::from_secs(15), Duration::from_secs(30));
        assert_eq!(patience(short, false, false), Duration::from_millis(7500));
        assert_eq!(patience(long, true, false), Duration::from_secs(20));
        assert_eq!(patience(long, true, true), long);
    }

    #[test]
    fn a_stale_answer_is_no_sign_of_life() {
        let start = Instant::now();
        let now = start + Duration::from_secs(10);
        let clock = UNIX_EPOCH + Duration::from_secs(1000);
        let mut lease = Lease { last_sign: start, ..Lease::new() };
        lease.sign(&status(Some(997), false), now, now, clock);
        assert_eq!(lease.last_sign, start + Duration::from_secs(7));
        lease.sign(&status(Some(900), false), now, now, clock);
        assert_eq!(lease.last_sign, start + Duration::from_secs(7), "an older sign changes nothing");
        lease.sign(&status(None, false), now, now, clock);
        assert_eq!(lease.last_sign, start + Duration::from_secs(7));
        let asked = start + Duration::from_secs(8);
        lease.sign(&status(Some(900), true), asked, now, clock);
        assert_eq!(lease.last_sign, asked, "failsafe: all members agreed that it continues");
    }

    #[test]
    fn an_answer_after_the_lease_is_no_sign() {
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
