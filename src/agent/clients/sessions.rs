//! Ends the sessions of removed clients on this instance. A replica learns of the removal by replication, and no new
//! session is admitted there; those that exist would last.

use std::time::{Duration, Instant};

use crate::agent::desired::{self, DesiredState};
use crate::agent::environment::Environment;
use crate::api::names::PostgresNames;
use crate::contract::pod::SOCKET_DIR;
use crate::postgres::over_socket;

/// Interval between two looks.
const INTERVAL: Duration = Duration::from_secs(3);
/// How long they are looked for after the last client: longer than any grace.
const AFTER_THE_LAST: Duration = Duration::from_secs(4200);
/// The same after the start of the agent.
const AFTER_START: Duration = Duration::from_secs(60);
/// Timeout of one.
const PATIENCE: Duration = Duration::from_secs(5);

/// A session outlives its role. Those that are older than the admission of their client are of another one of the same
/// name, or of before its removal. The primary of an earlier agent does not say when that was. Those of a short-lived login
/// that is refused, or has been invalid for long, could keep the leader from removing it.
///
/// Those of the data gateway ($3) have the login's name, and that of the client's role as their own. The gateway's answers
/// end without a grace, as they do on the primary.
const QUERY: &str = "\
SELECT pg_catalog.pg_terminate_backend(a.pid)
FROM pg_catalog.pg_stat_activity a LEFT JOIN pg_catalog.pg_authid r ON r.oid = a.usesysid
WHERE a.backend_type = 'client backend' AND a.usesysid IS NOT NULL
  AND (r.oid IS NULL
       OR (pg_catalog.starts_with(r.rolname::text, 'servicedb.')
           AND (NOT r.rolcanlogin OR COALESCE(r.rolvaliduntil <= pg_catalog.now() - interval '120 s', true)))
       OR EXISTS (
      SELECT FROM servicedb.clients c
      WHERE ((c.removed_at + pg_catalog.make_interval(secs => $1::float8) <= pg_catalog.now()
             OR a.backend_start < (pg_catalog.to_jsonb(c) ->> 'admitted_at')::timestamptz)
        AND (pg_catalog.starts_with(r.rolname::text, pg_catalog.format('servicedb.%s.', c.client))
             OR r.rolname = ANY (ARRAY[pg_catalog.format('%s_c_%s_a', $2::text, pg_catalog.replace(c.client, '-', '_')),
                                       pg_catalog.format('%s_c_%s_b', $2::text, pg_catalog.replace(c.client, '-', '_'))])))
         OR (r.rolname = $3 AND c.removed_at IS NOT NULL
             AND a.application_name = pg_catalog.format('%s_c_%s', a.datname, pg_catalog.replace(c.client, '-', '_')))))";

/// Ends them from now on.
pub async fn follow(environment: Environment, mut state: DesiredState) {
    let service = environment.names.name.replace('-', "_");
    // One may have been removed just before this agent started.
    let mut until = Instant::now() + AFTER_START;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let desired = desired::first(&mut state).await;
        if !desired.clients.is_empty() {
            until = Instant::now() + AFTER_THE_LAST;
        }
        if Instant::now() > until {
            continue;
        }
        let grace = desired.client_rules.session_grace_seconds as f64;
        let ended = tokio::time::timeout(PATIENCE, async {
            let connection = over_socket(SOCKET_DIR, "postgres", "servicedb agent").await.ok()?;
            connection
                .client
                .query(QUERY, &[&grace, &service, &PostgresNames::GATEWAY])
                .await
                .ok()
                .map(|rows| rows.len())
        });
        if let Ok(Some(ended @ 1..)) = ended.await {
            tracing::info!(ended, "sessions of removed clients are ended");
        }
    }
}
