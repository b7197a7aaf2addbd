//! The logins that Vault has in a server: its own two, and the short-lived ones that it made.

use tokio_postgres::Client;

use crate::api::names::PostgresNames;
use crate::postgres::describe;

/// Their names.
///
/// # Errors
/// PostgreSQL's.
pub async fn read(client: &Client) -> Result<Vec<String>, String> {
    let query = "SELECT rolname::text FROM pg_catalog.pg_roles
                 WHERE rolname = ANY ($1) OR pg_catalog.starts_with(rolname::text, $2::text)";
    let rows = client.query(query, &[&PostgresNames::ENGINES.as_slice(), &PostgresNames::SHORT_LIVED]).await;
    Ok(rows.map_err(|error| describe(&error))?.iter().map(|row| row.get(0)).collect())
}
