//! The leader's word on the migrations' ledger: read when it is notified of a change, and
//! from time to time.
//!
//! The ledger is the tenant's, who may have put anything in its place, and reading it may run a
//! tenant's code: an index's expression, a view, a row policy. So it is read as a login that is no
//! superuser and may only read, in a session that ends with each look, and within bounds of time
//! and size. What it says is the tenant's own word on its own schema.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_postgres::{Client, Row};

use super::ensure;
use super::report::Reporter;
use crate::api::names::PostgresNames;
use crate::api::{MigrationRecord, MigrationState};
use crate::contract::migration::LEDGER_CHANNEL;
use crate::contract::pod::SOCKET_DIR;
use crate::contract::report::LedgerReport;
use crate::postgres::{ConnectError, Connection, bounded_over_socket, describe, immune, listen};

/// How often the ledger is read without a notification.
const INTERVAL: Duration = Duration::from_secs(10);
/// Between two reads, however many notifications come.
const PAUSE: Duration = Duration::from_millis(50);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many bytes the server may send in one look; twenty rows are some tens of thousands.
const SIZE: usize = 1 << 20;

/// The server's own timeouts spare it work; a tenant's code can change them, so they are no bound.
const TIMEOUTS: &str = " -c statement_timeout=4s -c lock_timeout=2s";

/// Why the ledger could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server's refusal, or an answer that is no ledger.
    #[error("reading the ledger: {}", describe(.0))]
    Statement(#[from] tokio_postgres::Error),
    /// No end.
    #[error("reading the ledger took longer than {} s", PATIENCE.as_secs())]
    TooLong,
}

/// Reports the ledger for as long as it is polled.
///
/// # Errors
/// If the server ends it.
pub async fn follow(database: &str, reporter: &Reporter) -> Result<(), ConnectError> {
    let name = "servicedb agent";
    // This session runs no code of anybody's: it waits.
    let (_listener, mut changes) = listen(SOCKET_DIR, database, PostgresNames::READER, name, LEDGER_CHANNEL).await?;
    let mut fails = false;
    loop {
        let next = Instant::now() + PAUSE;
        match look(SOCKET_DIR, database).await {
            Ok(ledger) => {
                // None would say that nobody has looked.
                reporter.update(|report| report.ledger = Some(ledger));
                fails = false;
            }
            // A migration may hold a lock on it; the next look finds it.
            Err(error) if fails => tracing::debug!(%error, "the ledger still cannot be read"),
            Err(error) => {
                tracing::warn!(%error, "the ledger cannot be read now; what was read last is reported on");
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

/// Reads the ledger once; without a ledger all of it is none or zero.
///
/// # Errors
/// If it cannot be read within the bounds.
pub async fn look(socket: &str, database: &str) -> Result<LedgerReport, LedgerError> {
    let (user, name) = (PostgresNames::READER, "servicedb ledger");
    let options = format!("{}{TIMEOUTS}", immune::READER);
    let connecting = bounded_over_socket(socket, database, user, name, &options, SIZE);
    let Ok(connection) = timeout(PATIENCE, connecting).await else { return Err(LedgerError::TooLong) };
    let Connection { client, .. } = &connection?;
    // Before any code of a tenant can run, or this were its word, too.
    let process = client.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await?.try_get(0)?;
    let result = match timeout(PATIENCE, read(client)).await {
        Ok(result) => result.map_err(LedgerError::from),
        Err(_) => Err(LedgerError::TooLong),
    };
    if result.is_err() {
        // What still runs there may ignore that nobody listens, and a request to cancel it.
        end(socket, process).await;
    }
    result
}

async fn end(socket: &str, process: i32) {
    let ended = timeout(PATIENCE, async {
        let connection = ensure::connect_at(socket, "postgres").await.map_err(|error| error.to_string())?;
        let statement = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
                         WHERE pid = $1 AND usename = $2";
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&process, &PostgresNames::READER];
        connection.client.query(statement, &parameters).await.map_err(|error| describe(&error))
    });
    if let Ok(Err(problem)) = ended.await {
        tracing::debug!(problem, process, "the session that read the ledger cannot be ended");
    }
}

/// Every value has a type and a length of PostgreSQL's own, whatever the columns are.
async fn read(client: &Client) -> Result<LedgerReport, tokio_postgres::Error> {
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let there = "SELECT pg_catalog.to_regclass('servicedb.migrations') IS NOT NULL";
    if !client.query_one(there, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(LedgerReport::default());
    }
    let head = client
        .query_one(
            "SELECT count(*) FILTER (WHERE status::text = 'completed'), count(*) FILTER (WHERE status::text = 'failed'),
                    max(version::int8) FILTER (WHERE status::text = 'completed'),
                    (SELECT \"left\"(revision::text, 200) FROM servicedb.revision LIMIT 1),
                    (SELECT \"left\"(to_jsonb(r) ->> 'version', 200) FROM servicedb.revision r LIMIT 1),
                    count(*) FILTER (WHERE status::text <> 'completed')
             FROM servicedb.migrations",
            &[],
        )
        .await?;
    let rows = client
        .query(
            "SELECT version::int8, \"left\"(name::text, 255), \"left\"(status::text, 20),
                    (EXTRACT(epoch FROM started_at::timestamptz) * 1000000)::int8, duration_ms::int8,
                    \"left\"(error::text, 500)
             FROM servicedb.migrations ORDER BY version::int8 DESC LIMIT 20",
            &[],
        )
        .await?;
    Ok(LedgerReport {
        applied: head.try_get(0)?,
        failed: head.try_get(1)?,
        version: head.try_get(2)?,
        revision: head.try_get(3)?,
        // Through JSON, since a ledger of an earlier version has no such column.
        tool_version: head.try_get(4)?,
        pending: head.try_get(5)?,
        recent: rows.iter().map(record).collect::<Result<_, _>>()?,
    })
}

fn record(row: &Row) -> Result<MigrationRecord, tokio_postgres::Error> {
    let started_at: Option<i64> = row.try_get(3)?;
    Ok(MigrationRecord {
        version: row.try_get(0)?,
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
