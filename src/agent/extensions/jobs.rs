//! The jobs of pg_cron in a copy of a database. They would do a second time, and from another place, what the source
//! does: they rest until a person has looked at them.

use tokio_postgres::Client;

use crate::agent::statement::{EnsureError, execute};
use crate::api::names::PostgresNames;
use crate::postgres::literal;

const WHAT: &str = "the jobs of the copied database";

/// Rests the jobs of a copied database that has its own names by now, if it has any.
///
/// # Errors
/// If the server refuses.
pub async fn rest(client: &Client, former: &PostgresNames, own: &PostgresNames) -> Result<(), EnsureError> {
    let query = "SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_cron')";
    let failed = |source| EnsureError::Statement { what: WHAT.to_owned(), source };
    if client.query_one(query, &[]).await.map_err(failed)?.try_get::<_, bool>(0).map_err(failed)? {
        execute(client, WHAT, &resting(former, own)).await?;
    }
    Ok(())
}

/// The statements that make all jobs inactive, and give those of the former owner the names of the copy. Jobs of roles
/// that do not exist are removed: the scheduler ends at the first of them, and so does each of its successors. A job
/// that has the copy's owner already was of such a role.
///
/// The triggers of the table are the library's, which is not loaded in a copy.
pub fn resting(former: &PostgresNames, own: &PostgresNames) -> String {
    let (former_owner, owner) = (literal(&former.owner()), literal(&own.owner()));
    let (former_database, database) = (literal(&former.database), literal(&own.database));
    format!(
        "BEGIN;
         SET LOCAL session_replication_role = replica;
         DELETE FROM cron.job j
         WHERE j.username <> {former_owner}
           AND (j.username = {owner}
                OR NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = j.username));
         UPDATE cron.job
         SET active = false,
             username = CASE username WHEN {former_owner} THEN {owner} ELSE username END,
             database = CASE database WHEN {former_database} THEN {database} ELSE database END;
         COMMIT"
    )
}
