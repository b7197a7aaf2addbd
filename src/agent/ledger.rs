//! The leader's report of the migrations' ledger: read at each notification of a change, and at
//! an interval. The ledger is the tenant's, so the session that reads it is bounded
//! ([`super::reader`]), and the result is the tenant's own statement about its schema.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::{Client, Row};

use super::reader::{self, ReadError};
use super::report::Reporter;
use crate::api::names::PostgresNames;
use crate::api::{MigrationRecord, MigrationState, SchemaVersion};
use crate::contract::migration::LEDGER_CHANNEL;
use crate::contract::pod::SOCKET_DIR;
use crate::contract::report::{LedgerReport, Report};
use crate::postgres::{ConnectError, listen};

/// Interval between two reads without a notification.
const INTERVAL: Duration = Duration::from_secs(10);
/// The pause between two reads, however many notifications come.
const PAUSE: Duration = Duration::from_millis(50);

/// Keeps the report current, as long as it is polled.
///
/// # Errors
/// If the server ends the connection for the notifications.
pub async fn follow(database: &str, reporter: &Reporter) -> Result<(), ConnectError> {
    let name = "servicedb agent";
    // This session only waits, and runs no code of the tenant.
    let (_listener, mut changes) = listen(SOCKET_DIR, database, PostgresNames::READER, name, LEDGER_CHANNEL).await?;
    let mut fails = false;
    loop {
        let next = Instant::now() + PAUSE;
        match look(SOCKET_DIR, database).await {
            Ok(ledger) => {
                reporter.update(|report| replace(report, ledger));
                fails = false;
            }
            // A migration may hold a lock on it until the next read.
            Err(error) if fails => tracing::debug!(%error, "the ledger still cannot be read"),
            Err(error) => {
                tracing::warn!(%error, "the ledger cannot be read; the report keeps the last known one");
                fails = true;
            }
        }
        sleep_until(next).await;
        tokio::select! {
            message = changes.recv() => if message.is_none() { return Ok(()) },
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Reports the ledger that was read; none would mean that it was never read. A migration may have created a collection of the
/// gateway's cache: which of them are missing is unknown until the next look for them.
fn replace(report: &mut Report, ledger: LedgerReport) {
    if report.ledger.as_ref() != Some(&ledger) {
        report.ledger = Some(ledger);
        report.uncached = None;
    }
}

/// Reads the ledger once; without a ledger every value is none or zero.
///
/// # Errors
/// If it cannot be read within the bounds.
pub async fn look(socket: &str, database: &str) -> Result<LedgerReport, ReadError> {
    reader::read(socket, database, "servicedb ledger", read).await
}

/// Every value has a type and a length of PostgreSQL's own, whatever the columns are.
async fn read(client: &Client) -> Result<LedgerReport, tokio_postgres::Error> {
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let exists = "SELECT pg_catalog.to_regclass('servicedb.migrations') IS NOT NULL";
    if !client.query_one(exists, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(LedgerReport::default());
    }
    // A ledger of an earlier version has numbers alone.
    let columns = "SELECT count(*) = 2 FROM pg_attribute WHERE attrelid = to_regclass('servicedb.migrations')
                   AND attname IN ('version_text', 'ordinal')";
    let (text, ordinal) = if client.query_one(columns, &[]).await?.try_get::<_, bool>(0)? {
        ("COALESCE(version_text::text, version::text)", "COALESCE(ordinal::text, lpad(version::text, 20, '0'))")
    } else {
        ("version::text", "lpad(version::text, 20, '0')")
    };
    let head = client
        .query_one(
            &format!(
                "SELECT count(*) FILTER (WHERE status::text = 'completed'), count(*) FILTER (WHERE status::text = 'failed'),
                    (SELECT \"left\"({text}, 200) FROM servicedb.migrations
                     WHERE status::text = 'completed' AND NOT ({text} LIKE 'R\\_\\_%' AND {ordinal} LIKE '~%') ORDER BY {ordinal} COLLATE \"C\" DESC LIMIT 1),
                    (SELECT \"left\"(revision::text, 200) FROM servicedb.revision LIMIT 1),
                    (SELECT \"left\"(to_jsonb(r) ->> 'version', 200) FROM servicedb.revision r LIMIT 1),
                    count(*) FILTER (WHERE status::text <> 'completed'),
                    (SELECT \"left\"(to_jsonb(r) ->> 'source', 4000) FROM servicedb.revision r LIMIT 1)
             FROM servicedb.migrations"
            ),
            &[],
        )
        .await?;
    let rows = client
        .query(
            &format!(
                "SELECT \"left\"({text}, 200), \"left\"(name::text, 255), \"left\"(status::text, 20),
                    (EXTRACT(epoch FROM started_at::timestamptz) * 1000000)::int8, duration_ms::int8,
                    \"left\"(error::text, 500)
             FROM servicedb.migrations ORDER BY {ordinal} COLLATE \"C\" DESC LIMIT 20"
            ),
            &[],
        )
        .await?;
    Ok(LedgerReport {
        applied: head.try_get(0)?,
        failed: head.try_get(1)?,
        version: head.try_get::<_, Option<String>>(2)?.map(SchemaVersion::new),
        revision: head.try_get(3)?,
        // Through JSON, since a ledger of an earlier version has no such column.
        tool_version: head.try_get(4)?,
        pending: head.try_get(5)?,
        // It is the tenant's; what is not readable is none.
        source: head.try_get::<_, Option<String>>(6)?.and_then(|json| serde_json::from_str(&json).ok()),
        recent: rows.iter().map(record).collect::<Result<_, _>>()?,
    })
}

fn record(row: &Row) -> Result<MigrationRecord, tokio_postgres::Error> {
    let started_at: Option<i64> = row.try_get(3)?;
    Ok(MigrationRecord {
        version: SchemaVersion::new(row.try_get::<_, String>(0)?),
        name: row.try_get(1)?,
        state: state(row.try_get(2)?),
        started_at: started_at.and_then(|at| Timestamp::from_microsecond(at).ok()).map(Time),
        duration_ms: row.try_get(4)?,
        error: row.try_get(5)?,
    })
}

fn state(status: &str) -> MigrationState {
    match status {
        "completed" => MigrationState::Completed,
        "failed" => MigrationState::Failed,
        "executing" => MigrationState::Executing,
        _ => MigrationState::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_ledger_makes_the_missing_collections_unknown() {
        let mut report = Report::starting("uid".to_owned(), Timestamp::UNIX_EPOCH);
        replace(&mut report, LedgerReport::default());
        report.uncached = Some(vec!["films".to_owned()]);
        replace(&mut report, LedgerReport::default());
        assert!(report.uncached.is_some(), "the same ledger");
        let applied = LedgerReport { applied: 1, ..LedgerReport::default() };
        replace(&mut report, applied.clone());
        assert_eq!((report.ledger, report.uncached), (Some(applied), None));
    }
}
