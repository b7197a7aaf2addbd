//! The versions of the predefined collations, with which the indexes were built. `pg_upgrade` takes those of other
//! collations and of databases along, but the predefined ones are initdb's, with the version of the new server's
//! libraries: an index that has the former order would not be told of.

use std::collections::BTreeMap;

use super::private::{connect, databases};
use crate::postgres::describe;

/// The statements that record the present versions, of the predefined collations that something depends on.
const PRESENT: &str = "\
    SELECT COALESCE(pg_catalog.string_agg(pg_catalog.format(
        'UPDATE pg_catalog.pg_collation SET collversion = %L WHERE collversion IS NOT NULL
             AND collnamespace = ''pg_catalog''::pg_catalog.regnamespace AND collname = %L AND collprovider = %L',
        c.collversion, c.collname, c.collprovider), ';'), '')
    FROM pg_catalog.pg_collation c
    WHERE c.collnamespace = 'pg_catalog'::pg_catalog.regnamespace AND c.collversion IS NOT NULL
      AND EXISTS (SELECT FROM pg_catalog.pg_depend d
                  WHERE d.refclassid = 'pg_catalog.pg_collation'::pg_catalog.regclass AND d.refobjid = c.oid)";

/// A statement for each database.
pub type Versions = BTreeMap<String, String>;

/// Reads the versions from the private server.
///
/// # Errors
/// If it refuses.
pub async fn read() -> Result<Versions, String> {
    let mut versions = Versions::new();
    for database in databases().await? {
        let connection = connect(&database).await?;
        let row = connection.client.query_one(PRESENT, &[]).await;
        let row = row.map_err(|error| format!("the database {database}: {}", describe(&error)))?;
        versions.insert(database, row.get(0));
    }
    Ok(versions)
}

/// Records them in the private server, which lets the superuser change catalogs.
///
/// # Errors
/// If it refuses.
pub async fn write(versions: &Versions) -> Result<(), String> {
    for (database, statements) in versions.iter().filter(|(_, statements)| !statements.is_empty()) {
        let connection = connect(database).await?;
        let written = connection.client.batch_execute(statements).await;
        written.map_err(|error| format!("the database {database}: {}", describe(&error)))?;
    }
    Ok(())
}
