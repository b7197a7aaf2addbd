//! Collects the statistics that an upgrade does not keep: those on expressions and on several columns. By the login that
//! maintains, not by the superuser: `ANALYZE` evaluates the expressions, which are a tenant's code.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::agent::maintenance::session::{Session, WorkError};
use crate::agent::report::Reporter;

/// The tables that have such statistics, and whose expressions are no superuser's.
const TABLES: &str = "\
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_'
      AND n.nspname <> 'information_schema' AND has_schema_privilege(n.oid, 'USAGE')
      AND NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = c.relowner)
      AND (EXISTS (SELECT FROM pg_statistic_ext s WHERE s.stxrelid = c.oid)
           OR EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND 0 = ANY (x.indkey::int2[])))
    ORDER BY c.relpages";
/// How many times it is tried: the roles are ensured soon after the start.
const ATTEMPTS: usize = 30;
/// The pause between two attempts.
const RETRY: Duration = Duration::from_secs(5);
/// The longest time for a table.
const LONGEST: SignedDuration = SignedDuration::from_hours(1);

/// Collects them once this instance leads. What fails is left to a later `ANALYZE`.
pub async fn collect(socket: &str, database: &str, reporter: &Reporter) {
    reporter.leads().await;
    for _ in 0..ATTEMPTS {
        match attempt(socket, database).await {
            Ok(tables) => {
                tracing::info!(tables, "the statistics on expressions and several columns were collected");
                return;
            }
            Err(error) => tracing::debug!(%error, "the statistics cannot be collected yet; retrying"),
        }
        tokio::time::sleep(RETRY).await;
    }
    tracing::warn!("statistics on expressions and several columns are missing after the upgrade: run ANALYZE");
}

/// Analyzes the tables; returns how many. One that fails keeps no other one back.
///
/// # Errors
/// If there is no session, or the tables cannot be read.
pub async fn attempt(socket: &str, database: &str) -> Result<usize, WorkError> {
    let session = Session::maintainer(socket, database).await?;
    let tables = session.client().query(TABLES, &[]).await?;
    let mut analyzed = 0;
    for row in tables {
        let table: String = row.try_get(0)?;
        let until = Timestamp::now() + LONGEST;
        match session.run(&format!("ANALYZE {table}"), until, std::future::pending()).await {
            Ok(()) => analyzed += 1,
            Err(error) => tracing::warn!(%error, table, "the statistics of a table are missing after the upgrade"),
        }
    }
    Ok(analyzed)
}
