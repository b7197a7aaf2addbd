//! The state of the instance, derived from PostgreSQL's and Patroni's.

use super::patroni::rest::Status;
use super::probes::Readiness;
use super::server::Facts;
use crate::contract::report::{Phase, Report, Role};

/// A smaller lag counts as none.
const NO_LAG: u64 = 1 << 20;

/// The state of the instance, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    server: Option<Facts>,
    patroni: Option<Status>,
    leads: bool,
    /// Of a replica that does not stream: the bytes that it lacks.
    lag: Option<u64>,
    maximum_lag: u64,
    standbys: Vec<String>,
    /// Whether new connections are not answered, or nothing can be committed.
    stalled: bool,
}

impl State {
    /// Sets the states of PostgreSQL and Patroni. While Patroni does not answer, the role is kept: the
    /// watchdog ends that in time. It is also kept in failsafe mode, in which Patroni does not report
    /// itself as the leader while it tries to renew its lease.
    pub fn update(&mut self, server: Option<Facts>, patroni: Option<Status>) {
        if let Some(status) = &patroni {
            self.leads = status.leads || (self.leads && status.failsafe_mode_is_active);
        }
        self.server = server;
        self.patroni = patroni.or_else(|| self.patroni.take());
    }

    /// Sets the lag of a replica that does not stream, and the maximum.
    pub fn set_lag(&mut self, lag: Option<u64>, maximum: u64) {
        self.lag = lag;
        self.maximum_lag = maximum.max(NO_LAG);
    }

    /// Sets the synchronous standbys, in case this is the primary.
    pub fn set_standbys(&mut self, standbys: Vec<String>) {
        self.standbys = standbys;
    }

    /// Sets whether PostgreSQL stands still, which open connections do not show.
    pub fn set_stall(&mut self, stalled: bool) {
        self.stalled = stalled;
    }

    /// Of a replica: the bytes that it lacks.
    fn lag(&self) -> Option<u64> {
        let facts = self.server.as_ref().filter(|facts| facts.in_recovery)?;
        facts.lag_bytes.or(self.lag)
    }

    /// The role, once PostgreSQL runs; none between two roles.
    pub fn role(&self) -> Option<Role> {
        match &self.server {
            Some(facts) if facts.in_recovery => Some(Role::Replica),
            Some(_) if self.leads => Some(Role::Primary),
            _ => None,
        }
    }

    /// Whether PostgreSQL accepts writes, and Patroni does not report the lease yet: Patroni is queried
    /// frequently then.
    pub fn is_between_roles(&self) -> bool {
        self.server.is_some() && self.role().is_none()
    }

    /// The answer to the readiness probe.
    pub fn readiness(&self) -> Readiness {
        match (&self.server, self.role()) {
            (None, _) => Some("PostgreSQL does not answer"),
            _ if self.stalled => Some("PostgreSQL stands still: it answers no new connection, or cannot write"),
            (Some(_), None) => Some("PostgreSQL answers, and Patroni does not hold the lease yet"),
            (Some(_), Some(Role::Replica)) if self.lag().is_some_and(|lag| lag > self.maximum_lag) => {
                Some("the replica is further behind than spec.replication.maximumLagBytes")
            }
            (Some(_), Some(_)) => None,
        }
    }

    /// Writes the state into a report.
    pub fn write(&self, report: &mut Report) {
        // One that stands still serves nobody as the primary, although it keeps its lease.
        report.role = self.role().filter(|_| !self.stalled);
        if let Some(facts) = &self.server {
            report.phase = Phase::Running;
            report.empty_volume = false;
            report.postgres_version = Some(facts.version.clone());
            report.system_identifier = Some(facts.system_identifier.clone());
        } else {
            report.phase = Phase::StartingPostgres;
        }
        report.postgres_started_at = self.server.as_ref().and_then(|facts| facts.started_at);
        report.lag_bucket_bytes = self.lag().map(bucket);
        report.streaming = self.server.as_ref().is_some_and(|facts| facts.lag_bytes.is_some());
        report.synchronous_standbys.clone_from(&self.standbys);
        if let Some(status) = &self.patroni {
            report.timeline = status.timeline.or(report.timeline);
            report.restart_pending = status.pending_restart;
            report.primary_restarts_first = status.primary_restarts_first();
        }
        if self.role() != Some(Role::Primary) {
            // Only the leader reports these.
            report.credentials = None;
            report.ledger = None;
            report.collations = None;
            report.archive = None;
            report.second_archive = None;
            report.uncached = None;
            report.synchronous_standbys.clear();
        }
    }
}

/// Rounds up to a power of two, so that the report does not change with every byte.
fn bucket(lag: u64) -> u64 {
    if lag < NO_LAG { 0 } else { lag.checked_next_power_of_two().unwrap_or(u64::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::backup::Nth;
    use crate::contract::report::ArchiveReport;

    fn facts(in_recovery: bool, lag_bytes: Option<u64>) -> Option<Facts> {
        let (version, system_identifier) = ("17.5".to_owned(), "7".to_owned());
        let (started_at, synchronous_standbys, lacks_standby, streams) = (None, vec![], false, false);
        Some(Facts {
            in_recovery,
            version,
            system_identifier,
            lag_bytes,
            started_at,
            synchronous_standbys,
            lacks_standby,
            streams,
        })
    }

    fn status(leads: bool) -> Option<Status> {
        Some(Status { leads, timeline: Some(2), ..Status::default() })
    }

    #[test]
    fn a_server_that_accepts_writes_without_a_lease_is_no_primary() {
        let mut state = State::default();
        assert!(state.readiness().is_some());
        state.update(facts(false, None), None);
        assert_eq!(state.role(), None);
        assert!(state.is_between_roles() && state.readiness().is_some());
        state.update(facts(false, None), status(true));
        assert_eq!((state.role(), state.readiness()), (Some(Role::Primary), None));
    }

    #[test]
    fn a_replica_that_is_too_far_behind_is_not_ready() {
        let mut state = State::default();
        state.update(facts(true, None), status(false));
        state.set_lag(None, 16 << 20);
        assert_eq!(state.readiness(), None, "a replica whose primary is gone serves reads");
        state.set_lag(Some(17 << 20), 16 << 20);
        assert!(state.readiness().is_some());
        state.update(facts(true, Some(0)), status(false));
        assert_eq!(state.readiness(), None, "it streams, so its own server knows the lag");
        state.update(facts(true, Some(17 << 20)), status(false));
        assert!(state.readiness().is_some());
        state.update(facts(false, None), status(true));
        assert_eq!(state.readiness(), None, "a primary has no lag");
    }

    #[test]
    fn a_silent_patroni_changes_no_role() {
        let mut state = State::default();
        state.update(facts(false, None), status(true));
        state.update(facts(false, None), None);
        assert_eq!(state.role(), Some(Role::Primary));
        state.update(facts(false, None), status(false));
        assert_eq!(state.role(), None);
    }

    #[test]
    fn failsafe_mode_keeps_a_leader_and_makes_none() {
        let failsafe = || Some(Status { failsafe_mode_is_active: true, ..Status::default() });
        let mut state = State::default();
        state.update(facts(false, None), failsafe());
        assert_eq!(state.role(), None, "it has not led");
        state.update(facts(false, None), status(true));
        state.update(facts(false, None), failsafe());
        assert_eq!((state.role(), state.readiness()), (Some(Role::Primary), None));
        state.update(facts(false, None), status(false));
        assert_eq!(state.role(), None);
    }

    #[test]
    fn one_that_stands_still_is_no_primary_and_not_ready() {
        let mut state = State::default();
        state.update(facts(false, None), status(true));
        let mut report = Report::starting("u".into(), Default::default());
        state.write(&mut report);
        assert_eq!(report.role, Some(Role::Primary));
        state.set_stall(true);
        state.write(&mut report);
        assert_eq!(report.role, None);
        assert!(state.readiness().is_some());
        assert_eq!(state.role(), Some(Role::Primary), "its lease is not over");
    }

    #[test]
    fn a_replica_reports_its_lag_and_nothing_of_the_leaders() {
        let mut state = State::default();
        state.update(facts(true, Some(3 << 20)), status(false));
        let mut report = Report::starting("u".into(), Default::default());
        report.ledger = Some(crate::contract::report::LedgerReport { applied: 1, ..Default::default() });
        report.uncached = Some(vec!["films".into()]);
        for nth in Nth::ALL {
            *report.archive_in_mut(nth) = Some(ArchiveReport { failure: Some("away".into()), ..Default::default() });
        }
        state.write(&mut report);
        assert_eq!(report.role, Some(Role::Replica));
        assert_eq!(report.lag_bucket_bytes, Some(4 << 20));
        // What a former leader says of a store would be its last word on it.
        assert!(Nth::ALL.into_iter().all(|nth| report.archive_in(nth).is_none()));
        assert_eq!((report.ledger, report.uncached, report.timeline), (None, None, Some(2)));
        assert_eq!(bucket(5), 0);
    }
}
