//! Counts the sessions of this instance: by client, and those that still use the login that was replaced last. When no
//! instance has any of these, the next rotation interrupts none.

use std::time::Duration;

use tokio::time::Instant;

use super::clients::count::{self, Logins};
use super::desired::{self, DesiredState};
use super::environment::Environment;
use super::report::Reporter;
use crate::contract::clients::Sessions;
use crate::contract::pod::SOCKET_DIR;
use crate::contract::report::OldSessions;
use crate::postgres::over_socket;

/// Interval between two counts.
const INTERVAL: Duration = Duration::from_secs(10);
/// Timeout of a count.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a report of the first session of a client, or of the end of its last, waits at most for the next.
const FIRST_OR_LAST: Duration = Duration::from_secs(60);
/// How long another number waits.
const NUMBER: Duration = Duration::from_secs(300);

/// The generation is the last promoted one, which replicas have by replication. A server without one has no
/// table.
const QUERY: &str = "\
SELECT generation,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity
        WHERE backend_type = 'client backend'
          AND usename = CASE WHEN generation % 2 = 0 THEN $1 ELSE $2 END)
FROM servicedb.credentials";

/// Counts from now on.
pub async fn follow(environment: Environment, mut state: DesiredState, reporter: Reporter) {
    let mut pace = Pace::default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let desired = desired::first(&mut state).await;
        let names = environment.names.postgres(&desired.database);
        let logins = Logins::of(&names, &desired.clients);
        // An even generation replaced the login of the odd ones, and vice versa.
        let (odd, even) = (names.login(1), names.login(2));
        let counted = tokio::time::timeout(PATIENCE, async {
            let connection = over_socket(SOCKET_DIR, "postgres", "servicedb agent").await.ok()?;
            let sessions = count::read(&connection.client, &logins).await.ok();
            let row = connection.client.query_opt(QUERY, &[&odd, &even]).await.ok().flatten();
            Some((row.map(|row| OldSessions { generation: row.get(0), count: row.get(1) }), sessions))
        });
        let (old, sessions) = counted.await.ok().flatten().unwrap_or_default();
        let told = pace.told(sessions, Instant::now());
        reporter.update(|report| {
            report.old_sessions = old;
            report.sessions = told;
        });
    }
}

/// Bounds how often a count changes the report, since each change is a write of the pod and of the resource's status.
#[derive(Default)]
struct Pace {
    told: Option<Sessions>,
    since: Option<Instant>,
}

impl Pace {
    /// What the report has after this count.
    fn told(&mut self, counted: Option<Sessions>, now: Instant) -> Option<Sessions> {
        let patience = if who(&self.told) == who(&counted) { NUMBER } else { FIRST_OR_LAST };
        if counted != self.told && self.since.is_none_or(|since| now.duration_since(since) >= patience) {
            self.told = counted;
            self.since = Some(now);
        }
        self.told.clone()
    }
}

/// The declared clients, and whether each has a session.
fn who(sessions: &Option<Sessions>) -> Option<(bool, Vec<(&str, bool)>)> {
    let sessions = sessions.as_ref()?;
    let clients = sessions.clients.iter().map(|(name, count)| (name.as_str(), *count > 0)).collect();
    Some((sessions.shared > 0, clients))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(shared: i64, bot: i64) -> Option<Sessions> {
        Some(Sessions { shared, clients: [("bot".to_owned(), bot)].into() })
    }

    #[test]
    fn a_number_that_changes_at_each_count_is_reported_once_in_five_minutes() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        let mut changes = 0;
        let mut last = None;
        for round in 0..360 {
            let told = pace.told(counted(round % 7 + 1, 1), begin + INTERVAL * u32::try_from(round).expect("small"));
            changes += u32::from(told != last);
            last = told;
        }
        assert_eq!(changes, 12, "in an hour");
    }

    #[test]
    fn the_first_session_and_the_end_of_the_last_are_reported_within_a_minute() {
        let (mut pace, begin) = (Pace::default(), Instant::now());
        assert_eq!(pace.told(counted(4, 0), begin), counted(4, 0), "the first count at once");
        assert_eq!(pace.told(counted(4, 1), begin + Duration::from_secs(50)), counted(4, 0));
        assert_eq!(pace.told(counted(4, 1), begin + Duration::from_secs(60)), counted(4, 1));
        assert_eq!(pace.told(counted(9, 2), begin + Duration::from_secs(200)), counted(4, 1));
        assert_eq!(pace.told(counted(9, 0), begin + Duration::from_secs(200)), counted(9, 0), "with the other numbers");
        assert_eq!(pace.told(None, begin + Duration::from_secs(230)), counted(9, 0));
        assert_eq!(pace.told(None, begin + Duration::from_secs(260)), None, "a server that does not answer");
    }
}
