//! The leader's report of collations whose version has changed: an index that was built with the
//! former version may not find its rows, and may hold a duplicate.
//!
//! PostgreSQL records the version of the C library or of ICU with each collation and each database.
//! An image with other libraries has other versions.

use std::time::Duration;

use tokio_postgres::{Client, Row};

use super::reader;
use super::report::Reporter;
use crate::contract::pod::SOCKET_DIR;
use crate::contract::report::CollationReport;

/// Interval between two reads of the catalog. A version changes with the image; the interval is for the repair.
const INTERVAL: Duration = Duration::from_secs(30);

/// Collations that no object depends on are left out: there are some hundred, and opening each in
/// ICU takes the server a while. 100 is the collation that stands for the database's own. Names are
/// quoted as in a statement.
const QUERY: &str = "
    WITH used AS MATERIALIZED (
        SELECT DISTINCT refobjid AS oid FROM pg_catalog.pg_depend
        WHERE refclassid = 'pg_catalog.pg_collation'::pg_catalog.regclass
    ), known AS MATERIALIZED (
        SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.collname) AS name, c.collversion AS recorded,
               pg_catalog.pg_collation_actual_version(c.oid) AS actual
        FROM used JOIN pg_catalog.pg_collation c ON c.oid = used.oid
                  JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
        UNION ALL
        SELECT 100, NULL, d.datcollversion, pg_catalog.pg_database_collation_actual_version(d.oid)
        FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
    ), changed AS MATERIALIZED (
        SELECT * FROM known WHERE recorded <> actual ORDER BY name NULLS FIRST LIMIT 10
    ), indexes AS MATERIALIZED (
        SELECT changed.oid, pg_catalog.format('%I.%I', n.nspname, i.relname) AS name
        FROM changed, pg_catalog.pg_index x
             JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
             JOIN pg_catalog.pg_namespace n ON n.oid = i.relnamespace
        WHERE n.nspname <> 'pg_toast'
          AND (changed.oid = ANY (x.indcollation::pg_catalog.oid[])
               OR EXISTS (SELECT FROM pg_catalog.pg_depend d
                          WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = i.oid
                            AND d.refclassid = 'pg_catalog.pg_collation'::pg_catalog.regclass
                            AND d.refobjid = changed.oid))
    )
    SELECT name, recorded, actual,
           ARRAY(SELECT i.name FROM indexes i WHERE i.oid = changed.oid ORDER BY 1 LIMIT 10),
           (SELECT pg_catalog.count(*) FROM indexes i WHERE i.oid = changed.oid)
    FROM changed ORDER BY name NULLS FIRST";

/// Keeps the report current, as long as it is polled.
pub async fn follow(database: &str, reporter: &Reporter) {
    let mut fails = false;
    loop {
        match reader::read(SOCKET_DIR, database, "servicedb collations", changed).await {
            Ok(changed) => {
                reporter.update(|report| report.collations = Some(changed));
                fails = false;
            }
            Err(error) if fails => tracing::debug!(%error, database, "the collations' versions still cannot be read"),
            Err(error) => {
                tracing::warn!(%error, database, "the collations' versions cannot be read; retrying");
                fails = true;
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The collations of this database whose version differs from the one recorded, at most ten.
///
/// # Errors
/// If the server refuses.
pub async fn changed(client: &Client) -> Result<Vec<CollationReport>, tokio_postgres::Error> {
    client.query(QUERY, &[]).await?.iter().map(report).collect()
}

fn report(row: &Row) -> Result<CollationReport, tokio_postgres::Error> {
    Ok(CollationReport {
        name: row.try_get(0)?,
        recorded: row.try_get(1)?,
        actual: row.try_get(2)?,
        indexes: row.try_get(3)?,
        index_count: row.try_get(4)?,
    })
}
