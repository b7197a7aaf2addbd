//! Counts the sessions of this instance that still use the login that was replaced last: when no instance
//! has any, the next rotation interrupts none.

use std::time::Duration;

use super::desired::{self, DesiredState};
use super::environment::Environment;
use super::report::Reporter;
use crate::contract::pod::SOCKET_DIR;
use crate::contract::report::OldSessions;
use crate::postgres::over_socket;

/// Interval between two counts.
const INTERVAL: Duration = Duration::from_secs(10);
/// Timeout of a count.
const PATIENCE: Duration = Duration::from_secs(5);

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
    loop {
        tokio::time::sleep(INTERVAL).await;
        let desired = desired::first(&mut state).await;
        let names = environment.names.postgres(&desired.database);
        // An even generation replaced the login of the odd ones, and vice versa.
        let (odd, even) = (names.login(1), names.login(2));
        let counted = tokio::time::timeout(PATIENCE, async {
            let connection = over_socket(SOCKET_DIR, "postgres", "servicedb agent").await.ok()?;
            let row = connection.client.query_opt(QUERY, &[&odd, &even]).await.ok()??;
            Some(OldSessions { generation: row.get(0), count: row.get(1) })
        });
        let counted = counted.await.ok().flatten();
        reporter.update(|report| report.old_sessions = counted);
    }
}
