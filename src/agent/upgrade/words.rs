//! Stored words of text search. PostgreSQL 18 has later stemmers than 17, and reduces some words differently: a
//! `tsvector` that was stored before has the former word, and a search for it finds nothing. Nothing reports it: neither
//! `pg_upgrade` nor a version in the catalog. Which language a column has is not recorded, so every one is named.

use super::named::Named;
use super::private::{connect, databases};
use crate::postgres::describe;

/// Tables and materialized views with a column of words, and indexes on an expression of them. A partition is left out:
/// its table is named. `pg_get_indexdef` would miss a tenant's function around `to_tsvector`; the type of the operator
/// class does not.
const QUERY: &str = "
    WITH found AS MATERIALIZED (
        SELECT c.relkind IN ('i', 'I') AS is_index,
               pg_catalog.format('%I.%I', n.nspname, c.relname) COLLATE pg_catalog.\"C\" AS name
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' AND NOT c.relispartition
          AND (c.relkind IN ('r', 'p', 'm')
               AND EXISTS (SELECT FROM pg_catalog.pg_attribute a
                           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                             AND a.atttypid = 'pg_catalog.tsvector'::pg_catalog.regtype)
               OR EXISTS (SELECT FROM pg_catalog.pg_index x,
                                      ROWS FROM (pg_catalog.unnest(x.indkey::pg_catalog.int2[]),
                                                 pg_catalog.unnest(x.indclass::pg_catalog.oid[])) AS u (attribute, class)
                                      JOIN pg_catalog.pg_opclass o ON o.oid = u.class
                          WHERE x.indexrelid = c.oid AND u.attribute = 0
                            AND o.opcintype = 'pg_catalog.tsvector'::pg_catalog.regtype))
    )
    SELECT ARRAY(SELECT name FROM found WHERE NOT is_index ORDER BY 1 LIMIT 3),
           (SELECT pg_catalog.count(*) FROM found WHERE NOT is_index),
           ARRAY(SELECT name FROM found WHERE is_index ORDER BY 1 LIMIT 3),
           (SELECT pg_catalog.count(*) FROM found WHERE is_index)";
/// Characters of a warning that are kept: it is a part of a Job's termination message, which has 4096 bytes.
const LONGEST: usize = 800;

/// The warnings for the databases of the private server, which is of a version before 18.
///
/// # Errors
/// If it refuses.
pub async fn warnings() -> Result<Vec<String>, String> {
    let mut warnings = Vec::new();
    for database in databases().await? {
        let connection = connect(&database).await?;
        let row = connection.client.query_one(QUERY, &[]).await;
        let row = row.map_err(|error| format!("the database {database}: {}", describe(&error)))?;
        let tables = Named { names: row.get(0), count: row.get(1) };
        let indexes = Named { names: row.get(2), count: row.get(3) };
        warnings.extend(warning(&tables, &indexes));
    }
    Ok(warnings)
}

fn warning(tables: &Named, indexes: &Named) -> Option<String> {
    let of_tables = (tables.count > 0).then(|| format!("update every row with a stored tsvector ({tables})"));
    let of_indexes = (indexes.count > 0).then(|| format!("reindex {indexes}"));
    let remedies: Vec<_> = of_tables.into_iter().chain(of_indexes).collect();
    let warning = format!(
        "PostgreSQL 18 stems some words differently, and a search may miss those that were stored before: after the \
         upgrade, {} (docs/upgrades.md: after an upgrade)",
        remedies.join(", and ")
    );
    (!remedies.is_empty()).then(|| warning.chars().take(LONGEST).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str], count: i64) -> Named {
        Named { names: names.iter().map(|&name| name.to_owned()).collect(), count }
    }

    #[test]
    fn tables_are_to_be_updated_and_indexes_rebuilt() {
        let (none, tables, indexes) = (named(&[], 0), named(&["public.article"], 4), named(&["public.by_word"], 1));
        assert_eq!(warning(&none, &none), None);
        let both = warning(&tables, &indexes).unwrap_or_default();
        let wanted = "after the upgrade, update every row with a stored tsvector (public.article and 3 more), and \
                      reindex public.by_word (docs";
        assert!(both.contains(wanted), "{both}");
        let indexes = warning(&none, &indexes).unwrap_or_default();
        assert!(indexes.contains("after the upgrade, reindex public.by_word (docs"), "{indexes}");
        let tables = warning(&tables, &none).unwrap_or_default();
        assert!(tables.contains("tsvector (public.article and 3 more) (docs"), "{tables}");
    }
}
