//! Published tables that could not be changed after an upgrade. From 18 on, PostgreSQL refuses UPDATE and DELETE of a
//! published table whose replica identity has a generated column that its publications do not publish, and the
//! publications of 17 publish none. `pg_upgrade` does not check it.

use super::named::Named;
use super::private::{connect, databases};
use crate::postgres::describe;

/// The tables by PostgreSQL 18's own conditions (`RelationBuildPublicationDesc`): the identity is the whole row, or an
/// index with a generated column; a publication of changes has the table, its schema, or a table that it is a partition
/// of.
const QUERY: &str = "
    WITH identified AS MATERIALIZED (
        SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) COLLATE pg_catalog.\"C\" AS name
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384
          AND EXISTS (SELECT FROM pg_catalog.pg_attribute a
                      WHERE a.attrelid = c.oid AND a.attgenerated = 's' AND NOT a.attisdropped
                        AND (c.relreplident = 'f'
                             OR EXISTS (SELECT FROM pg_catalog.pg_index x
                                        WHERE x.indrelid = c.oid
                                          AND a.attnum = ANY ((x.indkey::pg_catalog.int2[])[0:x.indnkeyatts - 1])
                                          AND CASE c.relreplident WHEN 'd' THEN x.indisprimary
                                                                  WHEN 'i' THEN x.indisreplident
                                                                  ELSE false END)))
    ), published AS MATERIALIZED (
        SELECT i.name FROM identified i
        WHERE EXISTS (
            SELECT FROM pg_catalog.pg_publication p
            WHERE (p.pubupdate OR p.pubdelete)
              AND (p.puballtables
                   OR EXISTS (SELECT FROM (SELECT i.oid AS oid
                                           UNION ALL
                                           SELECT a.relid FROM pg_catalog.pg_partition_ancestors(i.oid) AS a) AS f
                                          JOIN pg_catalog.pg_class r ON r.oid = f.oid
                              WHERE EXISTS (SELECT FROM pg_catalog.pg_publication_rel m
                                            WHERE m.prpubid = p.oid AND m.prrelid = r.oid)
                                 OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace m
                                            WHERE m.pnpubid = p.oid AND m.pnnspid = r.relnamespace))))
    )
    SELECT ARRAY(SELECT name FROM published ORDER BY 1 LIMIT 3), (SELECT pg_catalog.count(*) FROM published)";

/// Checks each database of the private server, which is of a version before 18.
///
/// # Errors
/// The tables that could not be changed afterwards, and what to do.
pub async fn check() -> Result<(), String> {
    for database in databases().await? {
        let connection = connect(&database).await?;
        let row = connection.client.query_one(QUERY, &[]).await;
        let row = row.map_err(|error| format!("the database {database}: {}", describe(&error)))?;
        let tables = Named { names: row.get(0), count: row.get(1) };
        if tables.count > 0 {
            return Err(refusal(&database, &tables));
        }
    }
    Ok(())
}

fn refusal(database: &str, tables: &Named) -> String {
    format!(
        "the database {database}: PostgreSQL 18 would refuse every UPDATE and DELETE of {tables}, because they are \
         published and their replica identity has a generated column. Set another one (ALTER TABLE … REPLICA IDENTITY \
         DEFAULT, with a primary key of other columns), or drop them from their publications, and request the upgrade \
         again (docs/upgrades.md: what stops an upgrade)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_names_tables_and_the_way_out_within_the_limit_of_a_job() {
        // The longest names.
        let names = (0..3).map(|n| format!("{}.{}{n}", "s".repeat(63), "t".repeat(62))).collect();
        let message = refusal(&"d".repeat(63), &Named { names, count: 8 });
        assert!(message.contains("t2 and 5 more, because they are published"), "{message}");
        assert!(message.contains("REPLICA IDENTITY DEFAULT"), "{message}");
        assert!(message.chars().count() < 900, "{}", message.chars().count());
    }
}
