//! The unused part of the largest tables, measured with `pgstattuple_approx` at the end of a run, and kept beside the
//! history: it is read once a window, and a new primary knows it. Nothing is done about it: only `VACUUM FULL`, which
//! locks a table, would make it smaller.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::agent::extensions::IS_GUARDED;
use crate::agent::statement::{EnsureError, execute};

/// How many tables are measured: the largest, as `VACUUM` and `ANALYZE` last saw them.
const TABLES: i64 = 20;
/// The smallest table that is, in pages.
const SMALLEST: i32 = 128;
/// The longest measurement of one table.
const LONGEST: Duration = Duration::from_secs(60);

/// The result of a measurement.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Bloat {
    /// When it ended.
    pub measured_at: Timestamp,
    /// The tables.
    pub tables: Vec<TableBloat>,
}

/// The unused part of a table.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TableBloat {
    /// Its name with its schema, quoted as in a statement.
    pub table: String,
    /// Its size, without indexes and TOAST, in bytes.
    pub bytes: i64,
    /// The bytes that are free.
    pub free: i64,
    /// The bytes of dead rows.
    pub dead: i64,
}

/// Measures, until this time at the latest. Pages of which all rows are visible to all are counted by the free space
/// map, and not read. None if the database does not have `pgstattuple` in a schema in which only a superuser can create
/// objects.
///
/// # Errors
/// If the server refuses.
pub async fn measure(client: &Client, until: Timestamp) -> Result<Option<Bloat>, tokio_postgres::Error> {
    let sql = format!(
        "SELECT format('%I', n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
         WHERE e.extname = 'pgstattuple' AND {IS_GUARDED}"
    );
    let Some(row) = client.query_opt(&sql, &[]).await? else { return Ok(None) };
    let schema: String = row.try_get(0)?;
    let sql = "SELECT c.oid, format('%I.%I', n.nspname, c.relname)
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am a ON a.oid = c.relam
               WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND a.amname = 'heap' AND c.relpages >= $1
                 AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
               ORDER BY c.relpages DESC, c.oid LIMIT $2";
    let chosen = client.query(sql, &[&SMALLEST, &TABLES]).await?;
    let sql = format!(
        "SELECT table_len, approx_free_space, dead_tuple_len FROM {schema}.pgstattuple_approx($1::oid::regclass)"
    );
    let mut bloat = Bloat::default();
    for row in chosen {
        let (oid, table): (u32, String) = (row.try_get(0)?, row.try_get(1)?);
        let left = Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default().min(LONGEST);
        if left.is_zero() {
            break;
        }
        let limit = format!("SET statement_timeout = {}", left.as_millis() + 1);
        client.batch_execute(&limit).await?;
        // A table that is locked, gone, or takes too long is left out.
        match client.query_one(&sql, &[&oid]).await {
            Ok(row) => {
                let (bytes, free, dead) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                bloat.tables.push(TableBloat { table, bytes, free, dead });
            }
            Err(error) if error.as_db_error().is_some() => {
                tracing::debug!(%error, table, "the bloat of a table cannot be measured");
            }
            Err(error) => return Err(error),
        }
    }
    bloat.measured_at = Timestamp::now();
    Ok(Some(bloat))
}

/// The last measurement of a database; none before the first. The connection is to the database `postgres`, as that of
/// the history.
///
/// # Errors
/// If the server refuses.
pub async fn read(client: &Client, database: &str) -> Result<Option<Bloat>, EnsureError> {
    let statement =
        "CREATE TABLE IF NOT EXISTS servicedb.table_bloat (database text PRIMARY KEY, entry jsonb NOT NULL)";
    execute(client, WHAT, statement).await?;
    let sql = "SELECT entry::text FROM servicedb.table_bloat WHERE database = $1";
    let Some(row) = client.query_opt(sql, &[&database]).await.map_err(failed)? else { return Ok(None) };
    // One that another version wrote, and that cannot be read, is measured again in the next window.
    Ok(serde_json::from_str(row.try_get(0).map_err(failed)?).ok())
}

/// Keeps a measurement.
///
/// # Errors
/// If the server refuses.
pub async fn keep(client: &Client, database: &str, bloat: &Bloat) -> Result<(), EnsureError> {
    let sql = "INSERT INTO servicedb.table_bloat (database, entry) VALUES ($1, $2::text::jsonb)
               ON CONFLICT (database) DO UPDATE SET entry = excluded.entry";
    client.execute(sql, &[&database, &serde_json::json!(bloat).to_string()]).await.map_err(failed)?;
    Ok(())
}

const WHAT: &str = "the bloat of tables";

fn failed(source: tokio_postgres::Error) -> EnsureError {
    EnsureError::Statement { what: WHAT.to_owned(), source }
}
