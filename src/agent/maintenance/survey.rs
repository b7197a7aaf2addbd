//! Reads what may be due: from catalogs and statistics alone, as the monitoring login. No relation of the tenant is
//! read, and none is locked. The numbers of rows are PostgreSQL's own estimates.

use tokio_postgres::{Client, Row};

use super::plan::{Cause, Found, Size};
use crate::agent::extensions::IS_GUARDED;

/// A share of the age at which autovacuum must freeze a table, from which a window does it before.
const FREEZE_FROM: &str = "0.6";

/// Relations that are looked after: not those of other sessions, nor of a schema that a person has closed.
const TABLES: &str = "pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
    WHERE c.relpersistence <> 't' AND NOT c.relisshared AND n.nspname <> 'pg_toast'
      AND has_schema_privilege('servicedb_maintainer', n.oid, 'USAGE')";

/// `ANALYZE` and `REINDEX` run index expressions as the owner of the table: never on a table of a superuser.
const OF_NO_SUPERUSER: &str = "NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = c.relowner)";

const NAME: &str = "format('%I.%I', n.nspname, c.relname)";

/// The error of a survey.
type Failure = tokio_postgres::Error;

/// Reads everything that may be due. Indexes whose unused part is less than `bloat_percent` are left out.
///
/// # Errors
/// If the server refuses.
pub async fn read(client: &Client, bloat_percent: u8) -> Result<Vec<Found>, Failure> {
    let mut found = extensions(client).await?;
    found.extend(leftovers(client).await?);
    found.extend(old(client).await?);
    found.extend(unvacuumed(client).await?);
    found.extend(unanalyzed(client).await?);
    found.extend(bloated(client, bloat_percent).await?);
    Ok(found)
}

async fn query(
    client: &Client,
    sql: &str,
    parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    read: impl Fn(&Row) -> Result<Cause, Failure>,
) -> Result<Vec<Found>, Failure> {
    let rows = client.query(sql, parameters).await?;
    rows.iter().map(|row| Ok(Found { object: row.try_get(0)?, cause: read(row)? })).collect()
}

async fn extensions(client: &Client) -> Result<Vec<Found>, Failure> {
    let sql = "SELECT format('%I', e.extname), e.extversion, v.default_version
               FROM pg_extension e JOIN pg_available_extensions v ON v.name = e.extname
               WHERE v.default_version <> e.extversion LIMIT 100";
    query(client, sql, &[], |row| Ok(Cause::OtherVersion { from: row.try_get(1)?, to: row.try_get(2)? })).await
}

/// Invalid indexes that a `REINDEX CONCURRENTLY` left, by four signs: the name that PostgreSQL gives to such a copy,
/// a valid index of the same table with the same definition and the name's beginning, that it is invalid, and that no
/// session has a lock on the table that such a rebuild has. An index of another name that a broken-off
/// `CREATE INDEX CONCURRENTLY` left is its author's.
const LEFTOVERS: &str = "\
    SELECT format('%I.%I', n.nspname, c.relname),
           (SELECT format('%I.%I', n.nspname, b.relname)
            FROM pg_index y JOIN pg_class b ON b.oid = y.indexrelid
            WHERE y.indrelid = x.indrelid AND y.indexrelid <> x.indexrelid AND y.indisvalid AND b.relam = c.relam
              AND starts_with(b.relname::text, regexp_replace(c.relname::text, '_cc(new|old)[0-9]*$', ''))
              AND y.indkey::text = x.indkey::text AND y.indclass::text = x.indclass::text
              AND y.indcollation::text = x.indcollation::text AND y.indoption::text = x.indoption::text
              AND pg_get_expr(y.indexprs, y.indrelid) IS NOT DISTINCT FROM pg_get_expr(x.indexprs, x.indrelid)
              AND pg_get_expr(y.indpred, y.indrelid) IS NOT DISTINCT FROM pg_get_expr(x.indpred, x.indrelid)
            LIMIT 1) AS original
    FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT x.indisvalid AND c.relkind = 'i' AND c.relname ~ '_cc(new|old)[0-9]*$' AND n.nspname <> 'pg_toast'
      AND NOT EXISTS (
          SELECT FROM pg_locks l
          WHERE l.locktype = 'relation' AND l.relation IN (x.indexrelid, x.indrelid) AND l.pid <> pg_backend_pid()
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                           'AccessExclusiveLock'))";

/// The same, as what is due.
///
/// # Errors
/// If the server refuses.
pub async fn leftovers(client: &Client) -> Result<Vec<Found>, Failure> {
    let sql = format!("SELECT * FROM ({LEFTOVERS}) found WHERE original IS NOT NULL LIMIT 100");
    query(client, &sql, &[], |row| Ok(Cause::LeftoverOf(row.try_get(1)?))).await
}

/// With the TOAST table, which `VACUUM` processes with its table.
async fn old(client: &Client) -> Result<Vec<Found>, Failure> {
    let sql = format!(
        "WITH limits AS (
             SELECT current_setting('autovacuum_freeze_max_age')::int8 AS xid,
                    current_setting('autovacuum_multixact_freeze_max_age')::int8 AS multixact
         ), tables AS MATERIALIZED (
             SELECT {NAME} AS name,
                    greatest(age(c.relfrozenxid), (SELECT age(t.relfrozenxid) FROM pg_class t
                                                   WHERE t.oid = c.reltoastrelid))::int8 AS xid,
                    greatest(mxid_age(c.relminmxid), (SELECT mxid_age(t.relminmxid) FROM pg_class t
                                                      WHERE t.oid = c.reltoastrelid))::int8 AS multixact
             FROM {TABLES} AND c.relkind IN ('r', 'm') AND c.relfrozenxid <> '0'
         )
         SELECT name, t.xid > {FREEZE_FROM} * l.xid, t.xid, l.xid, t.multixact, l.multixact
         FROM tables t, limits l WHERE t.xid > {FREEZE_FROM} * l.xid OR t.multixact > {FREEZE_FROM} * l.multixact
         ORDER BY greatest(t.xid, t.multixact) DESC LIMIT 200"
    );
    query(client, &sql, &[], |row| {
        let is_xid: bool = row.try_get(1)?;
        let (of, at) = if is_xid { ("transaction ids", 2) } else { ("multixacts", 4) };
        Ok(Cause::Age { of, age: row.try_get(at)?, limit: row.try_get(at + 1)? })
    })
    .await
}

/// Autovacuum comes at a fifth of the rows.
async fn unvacuumed(client: &Client) -> Result<Vec<Found>, Failure> {
    let sql = format!(
        "SELECT {NAME}, s.n_dead_tup, s.n_ins_since_vacuum, s.n_live_tup
         FROM {TABLES} AND c.relkind IN ('r', 'm')
           AND (s.n_dead_tup > greatest(1000, 0.05 * s.n_live_tup)
                OR s.n_ins_since_vacuum > greatest(10000, 0.1 * s.n_live_tup))
         ORDER BY s.n_dead_tup DESC LIMIT 200"
    );
    query(client, &sql, &[], |row| {
        Ok(Cause::Unvacuumed { dead: row.try_get(1)?, inserted: row.try_get(2)?, live: row.try_get(3)? })
    })
    .await
}

/// Autovacuum comes at a tenth of the rows, and never for the statistics of a partitioned table as a whole.
async fn unanalyzed(client: &Client) -> Result<Vec<Found>, Failure> {
    let sql = format!(
        "SELECT {NAME}, EXISTS (SELECT FROM pg_statistic t WHERE t.starelid = c.oid), coalesce(s.n_mod_since_analyze, 0)
         FROM {TABLES} AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND {OF_NO_SUPERUSER}
           AND CASE c.relkind
               WHEN 'p' THEN coalesce(s.last_analyze, '-infinity') < now() - '7 days'::interval
                             AND EXISTS (SELECT FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhrelid
                                         WHERE i.inhparent = c.oid AND p.reltuples > 0)
               WHEN 'r' THEN s.n_mod_since_analyze > greatest(1000, 0.05 * s.n_live_tup)
                             OR (s.n_live_tup >= 1000 AND coalesce(s.last_analyze, s.last_autoanalyze) IS NULL
                                 AND NOT EXISTS (SELECT FROM pg_statistic t WHERE t.starelid = c.oid))
               WHEN 'm' THEN s.n_mod_since_analyze > greatest(1000, 0.05 * s.n_live_tup)
               ELSE false END
         ORDER BY s.n_mod_since_analyze DESC NULLS LAST LIMIT 200"
    );
    query(client, &sql, &[], |row| Ok(Cause::Unanalyzed { has_statistics: row.try_get(1)?, changed: row.try_get(2)? }))
        .await
}

/// The size that a B-tree needs, estimated from the number of its rows and the width of its columns: a row takes its
/// columns, aligned, a header of 8 bytes and a pointer of 4; a page has 8152 bytes for them, up to the fill factor.
/// Duplicates share their key in a real index, so one with many of them seems less bloated than it is.
///
/// `REINDEX CONCURRENTLY` knows no index of an exclusion constraint, and catalogs are autovacuum's.
async fn bloated(client: &Client, percent: u8) -> Result<Vec<Found>, Failure> {
    let sql = format!(
        "WITH indexes AS MATERIALIZED (
             SELECT i.oid, x.indrelid, x.indkey, format('%I.%I', n.nspname, i.relname) AS name,
                    i.relpages::int8 * 8192 AS bytes, i.reltuples::float8 AS rows,
                    coalesce((SELECT substr(o, 12)::float8 FROM unnest(i.reloptions) o WHERE o LIKE 'fillfactor=%'), 90)
                        / 100 AS filled
             FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid
                  JOIN pg_namespace n ON n.oid = i.relnamespace JOIN pg_am a ON a.oid = i.relam
             WHERE a.amname = 'btree' AND i.relkind = 'i' AND i.relpersistence = 'p' AND i.relpages >= 128
               AND i.reltuples >= 0 AND x.indisvalid AND x.indislive AND NOT x.indisexclusion
               AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND {OF_NO_SUPERUSER}
               AND has_schema_privilege('servicedb_maintainer', n.oid, 'USAGE')
         ), estimated AS MATERIALIZED (
             SELECT i.oid, i.name, i.bytes, i.rows,
                    (8192 * (2 + ceil(1.02 * i.rows * (12 + 8 * ceil(sum(w.width) / 8)) / (8152 * i.filled))))::int8
                        AS needed
             FROM indexes i CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
                  LEFT JOIN LATERAL (
                      SELECT ((1 - t.stanullfrac) * t.stawidth)::float8 AS width FROM pg_statistic t
                      WHERE t.starelid = CASE WHEN k.attnum = 0 THEN i.oid ELSE i.indrelid END
                        AND t.staattnum = CASE WHEN k.attnum = 0 THEN k.position ELSE k.attnum END
                      ORDER BY t.stainherit LIMIT 1) w ON true
             GROUP BY i.oid, i.name, i.bytes, i.rows, i.filled
             -- Without statistics of a column nothing can be estimated.
             HAVING bool_and(w.width IS NOT NULL)
         )
         SELECT name, bytes, needed, rows FROM estimated
         WHERE needed < bytes * (1 - $1::float8 / 100) ORDER BY bytes - needed DESC LIMIT 500"
    );
    query(client, &sql, &[&f64::from(percent)], |row| {
        let (bytes, needed, rows) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        Ok(Cause::Bloat(Size { bytes, needed, rows, measured: false }))
    })
    .await
}

/// Measures an index with `pgstatindex`, if the database has `pgstattuple` in a schema in which only a superuser can
/// create objects. It reads the whole index.
///
/// # Errors
/// If the server refuses.
pub async fn measure(client: &Client, index: &str, size: &Size) -> Result<Option<Size>, Failure> {
    let sql = format!(
        "SELECT format('%I', n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
         WHERE e.extname = 'pgstattuple' AND {IS_GUARDED}"
    );
    let Some(row) = client.query_opt(&sql, &[]).await? else { return Ok(None) };
    let schema: String = row.try_get(0)?;
    let sql = format!(
        "SELECT s.index_size, s.avg_leaf_density,
                coalesce((SELECT substr(o, 12)::float8 FROM unnest(c.reloptions) o WHERE o LIKE 'fillfactor=%'), 90)
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
              LATERAL {schema}.pgstatindex(c.oid::regclass) s WHERE {NAME} = $1"
    );
    let Some(row) = client.query_opt(&sql, &[&index]).await? else { return Ok(None) };
    let (bytes, density, filled): (i64, f64, f64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    // An index without rows has no density.
    let needed = if density.is_finite() { (bytes as f64 * (density / filled).min(1.0)) as i64 } else { 2 * 8192 };
    Ok(Some(Size { bytes, needed, measured: true, rows: size.rows }))
}

/// The size of a relation, with the indexes of a table, and its rows as PostgreSQL estimates them; none if it cannot be
/// read. Its name is compared, and not resolved: that would need rights on its schema.
pub async fn size(client: &Client, relation: &str) -> Option<(i64, f64)> {
    let sql = format!(
        "SELECT pg_total_relation_size(c.oid), c.reltuples::float8
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {NAME} = $1"
    );
    let row = client.query_opt(&sql, &[&relation]).await.ok()??;
    Some((row.try_get(0).ok()?, row.try_get(1).ok()?))
}

/// A transaction for which a rebuild of an index would wait.
///
/// # Errors
/// If the server refuses.
pub async fn long_transaction(client: &Client, seconds: i64) -> Result<Option<String>, Failure> {
    let sql = "SELECT usename::text, extract(epoch FROM now() - xact_start)::int8 FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()
                 AND backend_type IN ('client backend', 'pg_cron') AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL)
                 AND extract(epoch FROM now() - xact_start)::int8 > $1
               ORDER BY xact_start LIMIT 1";
    let Some(row) = client.query_opt(sql, &[&seconds]).await? else { return Ok(None) };
    let (login, seconds): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Some(format!("a transaction of {login} has been open for {seconds} s, and a rebuild would wait for it")))
}
