//! Clones a replica again that can no longer catch up: PostgreSQL cannot read its files, or it lacks
//! WAL that the leader has removed. Patroni would retry forever. The leader is cloned only while
//! another instance leads and answers; otherwise nothing is changed, and the cause is reported.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::damage;
use super::environment::Environment;
use super::patroni::rest::{Rest, RestError};
use super::report::{Area, Reporter};
use super::server::{Facts, FactsWatch, Refusal, RefusalWatch};
use super::wal_on_leader;
use crate::api::conditions::reason;
use crate::backoff::Backoff;
use crate::contract::pod::{PGDATA, SOCKET_DIR};
use crate::postgres::over_socket;

/// Interval between two checks.
const INTERVAL: Duration = Duration::from_secs(5);
/// The number of consecutive checks that must find a fault: files come and go while Patroni works.
const SIGHTINGS: u32 = 3;
/// The pause between a clone and the next, until one streams: the leader's files may be damaged, too.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(1800);

/// A fault that keeps an instance from serving.
#[derive(Clone, Debug, PartialEq)]
enum Fault {
    /// Its files cannot be read, with the cause.
    Files(String),
    /// PostgreSQL runs and refuses every session for another reason: its message.
    Sessions(String),
    /// The leader has removed WAL that it lacks.
    Wal,
}

/// A fault, as one check found it.
struct Finding {
    fault: Fault,
    /// Of a refused session: when it was refused.
    refused_at: Option<Instant>,
}

impl Finding {
    fn from(refusal: Refusal) -> Self {
        let fault = if refusal.of_files { Fault::Files(refusal.message) } else { Fault::Sessions(refusal.message) };
        Self { fault, refused_at: Some(refusal.at) }
    }
}

impl From<Fault> for Finding {
    fn from(fault: Fault) -> Self {
        Self { fault, refused_at: None }
    }
}

/// Counts the consecutive checks that found a fault.
#[derive(Default)]
struct Sightings {
    count: u32,
    /// The refusal that was counted last: sessions are tried less often than this is checked, and one
    /// refused session is one sighting.
    counted: Option<Instant>,
}

impl Sightings {
    /// Returns the count with the finding of one more check.
    fn count(&mut self, finding: Option<&Finding>) -> u32 {
        match finding {
            None => self.count = 0,
            Some(Finding { refused_at: Some(at), .. }) if self.counted.is_some_and(|counted| *at <= counted) => {}
            Some(Finding { refused_at, .. }) => {
                self.count = self.count.saturating_add(1);
                self.counted = refused_at.or(self.counted);
            }
        }
        self.count
    }

    /// Starts again. A refusal that was counted stays counted.
    fn reset(&mut self) {
        self.count = 0;
    }
}

/// The response to a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// It may be over in a moment.
    Wait,
    /// It is reported.
    Report,
    /// It is reported, and the leader is cloned.
    Clone,
}

/// Decides on the response. `leader` is whether another instance leads and answers; `pausing` is whether
/// the last clone is too recent.
fn step(fault: &Fault, sightings: u32, leader: bool, pausing: bool) -> Step {
    if sightings < SIGHTINGS {
        return Step::Wait;
    }
    match fault {
        Fault::Sessions(_) => Step::Report,
        _ if leader && !pausing => Step::Clone,
        _ => Step::Report,
    }
}

/// Checks the instance from now on.
pub async fn follow(environment: Environment, server: FactsWatch, refusals: RefusalWatch, reporter: Reporter) {
    let Environment { pod, names, .. } = environment;
    let mut sightings = Sightings::default();
    let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut pause_until: Option<Instant> = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        if server.borrow().as_ref().is_some_and(|facts| !facts.is_cut_off()) {
            pauses.reset();
            sightings.reset();
            pause_until = None;
            continue;
        }
        let leader = leader(&pod).await;
        let finding = find(&server, &refusals, leader.as_ref()).await;
        let count = sightings.count(finding.as_ref());
        let Some(Finding { fault, .. }) = finding else { continue };
        let pausing = pause_until.is_some_and(|until| Instant::now() < until);
        let step = step(&fault, count, leader.is_some(), pausing);
        if step == Step::Wait {
            continue;
        }
        let message = message((pod.as_str(), names.namespace.as_str()), &fault, leader.as_ref());
        if fault != Fault::Wal {
            reporter.trouble(Area::Server, Some((reason::CRASH_LOOP, message.clone())));
        }
        if step == Step::Clone {
            tracing::warn!("{message}");
            match async { Rest::patient()?.reinitialise().await }.await {
                Ok(()) => {
                    sightings.reset();
                    pause_until = Some(Instant::now() + pauses.step());
                }
                Err(error) => tracing::warn!(%error, "Patroni does not clone the leader; retrying"),
            }
        }
    }
}

fn message((pod, namespace): (&str, &str), fault: &Fault, leader: Option<&Leader>) -> String {
    let remedy = match leader {
        Some(leader) => format!("it is cloned from {}, which leads", leader.name),
        None => "no other instance leads and answers, so nothing is changed (docs/operations.md: CrashLoop)".to_owned(),
    };
    match fault {
        Fault::Files(cause) => format!("PostgreSQL of {pod} cannot read its data directory: {cause}; {remedy}"),
        Fault::Wal => format!("{pod} lacks WAL that the leader has removed; {remedy}"),
        Fault::Sessions(refusal) => {
            format!(
                "PostgreSQL of {pod} runs and refuses every session: {refusal}; see kubectl logs {pod} -n {namespace} \
                 -c database"
            )
        }
    }
}

/// The fault that keeps this instance from serving; none if none is known.
async fn find(server: &FactsWatch, refusals: &RefusalWatch, leader: Option<&Leader>) -> Option<Finding> {
    if server.borrow().as_ref().is_some_and(Facts::is_cut_off) {
        let oldest = leader?.oldest_wal;
        // It was down for so long that the leader gave up the slot for it.
        return end_of_wal().await.filter(|end| *end < oldest).map(|_| Fault::Wal.into());
    }
    let refusal: Option<Refusal> = refusals.borrow().clone();
    if let Some(refusal) = refusal {
        return Some(Finding::from(refusal));
    }
    if !is_down().await.unwrap_or(false) {
        return None;
    }
    damage::of(Path::new(PGDATA)).await.map(|cause| Fault::Files(cause).into())
}

/// Whether PostgreSQL does not run, or is only being started; false while it is cloned or rewound.
async fn is_down() -> Result<bool, RestError> {
    let status = Rest::new()?.status().await?;
    Ok(status.is_idle() || status.is_starting())
}

/// Another instance that leads.
struct Leader {
    name: String,
    /// The position from which on it has all WAL.
    oldest_wal: u64,
}

/// Whether another instance leads and answers, as [`leader`] finds it.
pub(super) async fn is_led(pod: &str) -> bool {
    leader(pod).await.is_some()
}

/// The instance that leads by Patroni's record, accepts a new session now and is no replica; none if
/// this one leads. With synchronous replication the leader has every acknowledged row (decision 0026),
/// so a clone loses nothing that only this instance has.
async fn leader(pod: &str) -> Option<Leader> {
    let query = async {
        let rest = Rest::new()?;
        if rest.status().await?.leads { Ok::<_, RestError>(None) } else { rest.leader().await }
    };
    let found = query.await.ok()??;
    let host = found.host.filter(|_| found.name != pod)?;
    match wal_on_leader::oldest(&host).await {
        Ok(oldest_wal) => Some(Leader { name: found.name, oldest_wal }),
        Err(problem) => {
            tracing::debug!(problem, leader = found.name, "the leader does not answer");
            None
        }
    }
}

/// The end of the WAL that this replica has, in bytes as LSNs count them; none while it still
/// replays some of it, or is hindered in that: it lacks nothing yet. The startup process
/// waits in one of these two ways when it has reached the end (PostgreSQL's "Wait Events").
async fn end_of_wal() -> Option<u64> {
    const QUERY: &str = "\
SELECT pg_catalog.pg_wal_lsn_diff(
         GREATEST(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn()), '0/0')::bigint
FROM pg_catalog.pg_stat_activity
WHERE backend_type = 'startup' AND wait_event IN ('RecoveryRetrieveRetryInterval', 'RecoveryWalStream')";
    let connection = over_socket(SOCKET_DIR, "postgres", "servicedb agent").await.ok()?;
    let row = connection.client.query_opt(QUERY, &[]).await.ok()??;
    u64::try_from(row.get::<_, Option<i64>>(0)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_needs_a_leader_that_answers_and_a_fault_that_stays() {
        let files = Fault::Files("global/pg_filenode.map is missing".to_owned());
        assert_eq!(step(&files, 2, true, false), Step::Wait);
        assert_eq!(step(&files, 3, true, false), Step::Clone);
        assert_eq!(step(&Fault::Wal, 3, true, false), Step::Clone);
        assert_eq!(step(&files, 3, false, false), Step::Report, "this may be the only copy");
        assert_eq!(step(&files, 3, true, true), Step::Report, "it was cloned a moment ago, and did not stream");
        let sessions = Fault::Sessions("a setting".to_owned());
        assert_eq!(step(&sessions, 9, true, false), Step::Report, "a clone would not help");
    }

    #[test]
    fn one_refused_session_is_one_sighting() {
        let refused = |at| Finding::from(Refusal { message: "could not open file".to_owned(), of_files: true, at });
        let (first, mut sightings) = (Instant::now(), Sightings::default());
        assert_eq!(sightings.count(Some(&refused(first))), 1);
        assert_eq!(sightings.count(Some(&refused(first))), 1, "no session was tried since");
        assert_eq!(sightings.count(Some(&refused(first))), 1);
        let second = first + INTERVAL;
        assert_eq!(sightings.count(Some(&refused(second))), 2);
        assert_eq!(sightings.count(Some(&Fault::Wal.into())), 3, "found by each check itself");
        assert_eq!(sightings.count(Some(&Fault::Wal.into())), 4);
        sightings.reset();
        assert_eq!(sightings.count(Some(&refused(second))), 0, "counted before the clone");
        assert_eq!(sightings.count(Some(&refused(second + INTERVAL))), 1);
        assert_eq!(sightings.count(None), 0);
    }

    #[test]
    fn the_message_names_the_instance_and_the_cause() {
        let files = Fault::Files("global/pg_filenode.map is missing".to_owned());
        let leader = Leader { name: "chat-db-0".to_owned(), oldest_wal: 0 };
        assert_eq!(
            message(("chat-db-2", "messaging"), &files, Some(&leader)),
            "PostgreSQL of chat-db-2 cannot read its data directory: global/pg_filenode.map is missing; it is cloned from \
             chat-db-0, which leads"
        );
        let pod = ("chat-db-0", "messaging");
        assert!(message(pod, &files, None).contains("nothing is changed"));
        let sessions = message(pod, &Fault::Sessions("a setting".to_owned()), None);
        assert!(sessions.ends_with("kubectl logs chat-db-0 -n messaging -c database"), "{sessions}");
    }
}
