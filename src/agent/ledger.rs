//! The leader's word on the migrations' ledger: read when it is notified of a change, and
//! from time to time.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tokio_postgres::Client;

use super::ensure::EnsureError;
use super::report::Reporter;
use crate::api::{MigrationRecord, MigrationState};
use crate::contract::migration::{LEDGER_CHANNEL, LEDGER_IS_GENUINE};
use crate::contract::pod::SOCKET_DIR;
use crate::contract::report::LedgerReport;
use crate::postgres::listen;

/// How often the ledger is read without a notification.
const INTERVAL: Duration = Duration::from_secs(10);
/// How much of an error's text goes into the report.
const ERROR_LENGTH: usize = 500;

/// Names are found in `pg_catalog` alone: here reads a superuser what is somebody else's.
const SESSION: &str = "SET search_path = pg_catalog; SET statement_timeout = '10s'; SET lock_timeout = '2s'";

/// Reports the ledger for as long as it is polled.
///
/// # Errors
/// If the server ends it.
pub async fn follow(database: &str, reporter: &Reporter) -> Result<(), EnsureError> {
    let (connection, mut changes) = listen(SOCKET_DIR, database, "servicedb agent", LEDGER_CHANNEL).await?;
    let client = &connection.client;
    client.batch_execute(SESSION).await.map_err(failed)?;
    loop {
        match read(client).await {
            // None would say that nobody has looked.
            Ok(ledger) => reporter.update(|report| report.ledger = Some(ledger.unwrap_or_default())),
            Err(error) if connection.is_closed() => return Err(failed(error)),
            Err(error) => {
                // A migration may hold a lock on it; the next look finds it.
                tracing::debug!(error = crate::postgres::describe(&error), "the ledger cannot be read now");
                client.batch_execute("ROLLBACK").await.map_err(failed)?;
            }
        }
        tokio::select! {
            message = changes.recv() => if message.is_none() { return Ok(()) },
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

fn failed(source: tokio_postgres::Error) -> EnsureError {
    EnsureError::Statement { what: "the report of the ledger".to_owned(), source }
}

async fn read(client: &Client) -> Result<Option<LedgerReport>, tokio_postgres::Error> {
    if !client.query_one(LEDGER_IS_GENUINE, &[]).await?.get::<_, bool>(0) {
        return Ok(None);
    }
    // Locked, it cannot be exchanged between the look and the reading.
    client
        .batch_execute("BEGIN READ ONLY; LOCK TABLE ONLY servicedb.migrations, servicedb.revision IN ACCESS SHARE MODE")
        .await?;
    let ledger =
        if client.query_one(LEDGER_IS_GENUINE, &[]).await?.get(0) { Some(read_locked(client).await?) } else { None };
    client.batch_execute("COMMIT").await?;
    Ok(ledger)
}

async fn read_locked(client: &Client) -> Result<LedgerReport, tokio_postgres::Error> {
    let head = client
        .query_one(
            "SELECT count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'failed'),
                    max(version) FILTER (WHERE status = 'completed'),
                    (SELECT revision FROM ONLY servicedb.revision LIMIT 1),
                    (SELECT pg_catalog.to_jsonb(r) ->> 'version' FROM ONLY servicedb.revision r LIMIT 1),
                    count(*) FILTER (WHERE status <> 'completed')
             FROM ONLY servicedb.migrations",
            &[],
        )
        .await?;
    let rows = client
        .query(
            "SELECT version, name, status, (EXTRACT(epoch FROM started_at) * 1000000)::bigint, duration_ms, error
             FROM ONLY servicedb.migrations ORDER BY version DESC LIMIT 20",
            &[],
        )
        .await?;
    Ok(LedgerReport {
        applied: head.get(0),
        failed: head.get(1),
        version: head.get(2),
        revision: head.get(3),
        // Through JSON, since a ledger of an earlier version has no such column.
        tool_version: head.get(4),
        pending: head.get(5),
        recent: rows
            .iter()
            .map(|row| MigrationRecord {
                version: row.get(0),
                name: row.get(1),
                state: state(row.get(2)),
                started_at: row.get::<_, Option<i64>>(3).and_then(|at| Timestamp::from_microsecond(at).ok()).map(Time),
                duration_ms: row.get(4),
                error: row.get::<_, Option<String>>(5).map(|error| error.chars().take(ERROR_LENGTH).collect()),
            })
            .collect(),
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
