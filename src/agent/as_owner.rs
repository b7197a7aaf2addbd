//! Statements as the owner of the database, in a session that never had a superuser's rights: what they evaluate may be
//! the tenant's code.

use std::time::Duration;

use tokio::time::timeout;

use super::statement::{EnsureError, execute};
use crate::api::names::PostgresNames;
use crate::postgres::bounded_over_socket;

/// Timeout of a statement.
const PATIENCE: Duration = Duration::from_secs(70);
/// The maximum size of the server's answer, in bytes.
const SIZE: usize = 1 << 20;

/// Runs a statement as the owner of the database.
///
/// # Errors
/// If the server refuses, or does not answer in time.
pub async fn as_owner(socket: &str, names: &PostgresNames, what: &str, statement: &str) -> Result<(), EnsureError> {
    as_owner_in(socket, names, "pg_catalog", what, statement).await
}

/// The same with another search path: schemas and commas.
///
/// # Errors
/// If the server refuses, or does not answer in time.
pub async fn as_owner_in(
    socket: &str,
    names: &PostgresNames,
    path: &str,
    what: &str,
    statement: &str,
) -> Result<(), EnsureError> {
    let options = format!(
        "-c role={} -c search_path={path} -c statement_timeout=60s -c lock_timeout=5s -c synchronous_commit=local \
         -c default_transaction_read_only=off -c idle_session_timeout=0 -c client_min_messages=error \
         -c client_connection_check_interval=1s",
        names.owner()
    );
    let run = async {
        let (user, name) = (PostgresNames::AS_OWNER, "servicedb agent");
        let connection = bounded_over_socket(socket, &names.database, user, name, &options, SIZE).await?;
        execute(&connection.client, what, statement).await
    };
    timeout(PATIENCE, run).await.unwrap_or_else(|_| Err(EnsureError::TooLong { what: what.to_owned() }))
}
