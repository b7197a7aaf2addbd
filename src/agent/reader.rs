//! Reads in the tenant's database. A read of a tenant's relation may run the tenant's code: an index's
//! expression, a view, a row policy. So the session has a login that is no superuser and may
//! only read, it ends with each read, and the client limits its time and size.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Client;

use super::ensure;
use crate::api::names::PostgresNames;
use crate::postgres::{ConnectError, Connection, bounded_over_socket, describe, immune};

/// Timeout of a read.
const PATIENCE: Duration = Duration::from_secs(5);
/// The maximum number of bytes that the server may send in one read; twenty rows of a ledger are some tens
/// of thousands.
const SIZE: usize = 1 << 20;

/// The server's own timeouts save it work; a tenant's code can change them, so they are no limit.
const TIMEOUTS: &str = " -c statement_timeout=4s -c lock_timeout=2s";

/// The error of a read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server refused, or its answer has an unexpected form.
    #[error("reading from the database failed: {}", describe(.0))]
    Statement(#[from] tokio_postgres::Error),
    /// The read did not end in time.
    #[error("reading from the database took longer than {} s", PATIENCE.as_secs())]
    TooLong,
}

/// Opens a session, reads, and ends it.
///
/// # Errors
/// If the read does not succeed within the limits.
pub async fn read<T>(
    socket: &str,
    database: &str,
    application_name: &str,
    read: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
) -> Result<T, ReadError> {
    let options = format!("{}{TIMEOUTS}", immune::READER);
    let connecting = bounded_over_socket(socket, database, PostgresNames::READER, application_name, &options, SIZE);
    let Ok(connection) = timeout(PATIENCE, connecting).await else { return Err(ReadError::TooLong) };
    let Connection { client, .. } = &connection?;
    // Before the tenant's code can run, which could change the answer.
    let process = client.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await?.try_get(0)?;
    let result = match timeout(PATIENCE, read(client)).await {
        Ok(result) => result.map_err(ReadError::from),
        Err(_) => Err(ReadError::TooLong),
    };
    if result.is_err() {
        // Code that still runs there may ignore both the end of its client and a request to cancel it.
        end(socket, process, PostgresNames::READER).await;
    }
    result
}

/// Ends a session of a login, whatever code runs in it.
pub async fn end(socket: &str, process: i32, login: &str) {
    let ended = timeout(PATIENCE, async {
        let connection = ensure::connect_at(socket, "postgres").await.map_err(|error| error.to_string())?;
        let statement = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
                         WHERE pid = $1 AND usename = $2";
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&process, &login];
        connection.client.query(statement, &parameters).await.map_err(|error| describe(&error))
    });
    if let Ok(Err(problem)) = ended.await {
        tracing::debug!(problem, process, login, "a session cannot be terminated");
    }
}
