//! Reading PostgreSQL's catalogues.

use std::sync::Arc;

use serde::Deserialize;
use tokio_postgres::Client;

use super::steady::{STEADY, Steady};
use super::{Catalog, ForeignKey, Function, Table};
use crate::problem::Problem;

/// Startup options of the connection that reads: an empty search path qualifies the names of types and defaults. To compile
/// what runs once takes longer than to run it.
pub const SETTINGS: &str = "-c search_path= -c statement_timeout=30s -c default_transaction_read_only=on \
                            -c idle_session_timeout=0 -c datestyle=ISO -c jit=off";

/// Tables and views with all that belongs to them, one row of JSON each. Of the bits of `tgtype`, 1 is FOR EACH ROW, 2
/// BEFORE and 64 INSTEAD OF: a trigger AFTER a row is there only for rows that are reported.
const TABLES: &str = "\
SELECT pg_catalog.row_to_json(t)::pg_catalog.text FROM (
 SELECT n.nspname AS schema, c.relname AS name, c.relkind AS kind, c.relrowsecurity AS row_security,
  pg_catalog.obj_description(c.oid, 'pg_class') AS comment,
  pg_catalog.pg_relation_is_updatable(c.oid, true) AS events,
  c.relkind <> 'r' OR c.relhasrules OR c.relhassubclass OR EXISTS (SELECT FROM pg_catalog.pg_trigger g
   WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND (g.tgtype & 67) <> 1) AS intercepts,
  CASE WHEN c.relkind = 'p' THEN pg_catalog.pg_get_partkeydef(c.oid) END AS partitioning,
  (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
     'name', a.attname, 'sql_type', pg_catalog.format_type(a.atttypid, a.atttypmod),
     'base', coalesce(b.typname, y.typname), 'category', coalesce(b.typcategory, y.typcategory),
     'domain', y.typtype = 'd', 'required', a.attnotnull OR y.typnotnull,
     'default', CASE WHEN a.attgenerated = '' THEN coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid), y.typdefault) END,
     'generated', a.attgenerated <> '', 'identity', a.attidentity,
     'length', CASE WHEN a.atttypmod > 4 AND y.typname IN ('varchar', 'bpchar') THEN a.atttypmod - 4 END,
     'ordering', (SELECT s.nspname FROM pg_catalog.pg_opclass o
      JOIN pg_catalog.pg_am m ON m.oid = o.opcmethod AND m.amname = 'btree'
      JOIN pg_catalog.pg_amop p ON p.amopfamily = o.opcfamily AND p.amoplefttype = o.opcintype
       AND p.amoprighttype = o.opcintype AND p.amopstrategy = 1
      JOIN pg_catalog.pg_operator w ON w.oid = p.amopopr JOIN pg_catalog.pg_namespace s ON s.oid = w.oprnamespace
      WHERE o.opcdefault AND o.opcintype = (
       WITH RECURSIVE u AS (SELECT y.oid, y.typtype, y.typbasetype UNION ALL
        SELECT v.oid, v.typtype, v.typbasetype FROM u JOIN pg_catalog.pg_type v ON u.typtype = 'd' AND v.oid = u.typbasetype)
       SELECT u.oid FROM u WHERE u.typtype <> 'd')),
     'values', (SELECT pg_catalog.json_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e
                WHERE e.enumtypid = coalesce(b.oid, y.oid)),
     'comment', pg_catalog.col_description(c.oid, a.attnum)) ORDER BY a.attnum), '[]')
   FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
   LEFT JOIN pg_catalog.pg_type b ON y.typtype = 'd' AND b.oid = y.typbasetype
   LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
   WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
  (SELECT coalesce(pg_catalog.json_agg(a.attname ORDER BY k.place), '[]') FROM pg_catalog.pg_constraint p
   CROSS JOIN LATERAL pg_catalog.unnest(p.conkey) WITH ORDINALITY AS k(attnum, place)
   JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
   WHERE p.conrelid = c.oid AND p.contype = 'p') AS primary_key,
  (SELECT coalesce(pg_catalog.json_agg(u.columns), '[]') FROM (
    SELECT (SELECT pg_catalog.json_agg(a.attname) FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum = ANY (p.conkey)) AS columns
    FROM pg_catalog.pg_constraint p WHERE p.conrelid = c.oid AND p.contype = 'u') u) AS unique,
  (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('name', ic.relname, 'unique', i.indisunique,
     'fields', (SELECT pg_catalog.json_agg(pg_catalog.pg_get_indexdef(i.indexrelid, s, true) ORDER BY s)
                FROM pg_catalog.generate_series(1, i.indnkeyatts) AS s)) ORDER BY ic.relname), '[]')
   FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
   WHERE i.indrelid = c.oid AND i.indisvalid) AS indexes,
  (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
     'definition', pg_catalog.pg_get_constraintdef(p.oid),
     'columns', (SELECT coalesce(pg_catalog.json_agg(a.attname), '[]') FROM pg_catalog.pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum = ANY (p.conkey))) ORDER BY p.conname), '[]')
   FROM pg_catalog.pg_constraint p WHERE p.conrelid = c.oid AND p.contype = 'c') AS checks
 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'v', 'm', 'f', 'p') AND NOT c.relispartition) t";

/// Foreign keys between tables of these schemas.
const KEYS: &str = "\
SELECT pg_catalog.row_to_json(t)::pg_catalog.text FROM (
 SELECT k.conname AS name,
  pg_catalog.json_build_array(fn.nspname, f.relname) AS from, pg_catalog.json_build_array(tn.nspname, t.relname) AS to,
  (SELECT pg_catalog.json_agg(a.attname ORDER BY u.place) FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY AS u(attnum, place)
   JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum) AS from_columns,
  (SELECT pg_catalog.json_agg(a.attname ORDER BY u.place) FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY AS u(attnum, place)
   JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum) AS to_columns,
  EXISTS (SELECT FROM pg_catalog.pg_constraint q WHERE q.conrelid = k.conrelid AND q.contype IN ('p', 'u')
          AND q.conkey <@ k.conkey) AS unique
 FROM pg_catalog.pg_constraint k
 JOIN pg_catalog.pg_class f ON f.oid = k.conrelid JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace
 JOIN pg_catalog.pg_class t ON t.oid = k.confrelid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
 WHERE k.contype = 'f' AND NOT f.relispartition AND NOT t.relispartition
  AND fn.nspname = ANY ($1) AND tn.nspname = ANY ($1)
 ORDER BY k.conname) t";

/// Functions that a request can call.
const FUNCTIONS: &str = "\
SELECT pg_catalog.row_to_json(t)::pg_catalog.text FROM (
 SELECT n.nspname AS schema, p.proname AS name, pg_catalog.obj_description(p.oid, 'pg_proc') AS comment,
  p.provolatile = 'v' AS volatile, p.proretset AS set,
  pg_catalog.format_type(p.prorettype, NULL) AS result, r.typtype AS result_kind,
  CASE WHEN rc.relkind IN ('r', 'v', 'm', 'p', 'f') AND rn.nspname = ANY ($1)
       THEN pg_catalog.json_build_array(rn.nspname, rc.relname) END AS returns,
  (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
     'name', coalesce(p.proargnames[u.place], 'column' || u.place), 'sql_type', pg_catalog.format_type(u.type, NULL),
     'base', coalesce(b.typname, y.typname), 'category', y.typcategory, 'domain', y.typtype = 'd', 'required', false,
     'generated', false, 'identity', '') ORDER BY u.place), '[]')
   FROM pg_catalog.unnest(p.proallargtypes) WITH ORDINALITY AS u(type, place)
   JOIN pg_catalog.pg_type y ON y.oid = u.type LEFT JOIN pg_catalog.pg_type b ON y.typtype = 'd' AND b.oid = y.typbasetype
   WHERE p.proargmodes[u.place] IN ('o', 'b', 't')) AS columns,
  (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
     'name', coalesce(p.proargnames[i.place], ''), 'sql_type', pg_catalog.format_type(i.type, NULL),
     'required', i.input <= p.pronargs - p.pronargdefaults, 'variadic', i.mode = 'v') ORDER BY i.place), '[]')
   FROM (SELECT u.place, u.type, coalesce(p.proargmodes[u.place], 'i') AS mode,
           pg_catalog.count(*) FILTER (WHERE coalesce(p.proargmodes[u.place], 'i') IN ('i', 'b', 'v')) OVER (ORDER BY u.place) AS input
         FROM pg_catalog.unnest(coalesce(p.proallargtypes, p.proargtypes::pg_catalog.oid[])) WITH ORDINALITY AS u(type, place)) i
   WHERE i.mode IN ('i', 'b', 'v')) AS arguments
 FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 JOIN pg_catalog.pg_type r ON r.oid = p.prorettype
 LEFT JOIN pg_catalog.pg_class rc ON rc.oid = r.typrelid LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = rc.relnamespace
 WHERE n.nspname = ANY ($1) AND p.prokind = 'f'
  AND NOT (r.typname IN ('trigger', 'event_trigger', 'internal', 'language_handler', 'fdw_handler'))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                  AND d.objid = p.oid AND d.deptype = 'e')) t";

/// A text that is another one after every change of what the other statements read.
const FINGERPRINT: &str = "\
SELECT pg_catalog.concat_ws(' ',
 (SELECT pg_catalog.concat(pg_catalog.count(*), ':', pg_catalog.sum(pg_catalog.hashtextextended(c.oid || ' ' || c.xmin::pg_catalog.text, 0)))
  FROM pg_catalog.pg_class c WHERE c.relnamespace = s.all),
 (SELECT pg_catalog.concat(pg_catalog.count(*), ':', pg_catalog.sum(pg_catalog.hashtextextended(a.attrelid || ' ' || a.attnum || ' ' || a.xmin::pg_catalog.text, 0)))
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid WHERE c.relnamespace = s.all AND a.attnum > 0),
 (SELECT pg_catalog.concat(pg_catalog.count(*), ':', pg_catalog.sum(pg_catalog.hashtextextended(k.oid || ' ' || k.xmin::pg_catalog.text, 0)))
  FROM pg_catalog.pg_constraint k WHERE k.connamespace = s.all),
 (SELECT pg_catalog.concat(pg_catalog.count(*), ':', pg_catalog.sum(pg_catalog.hashtextextended(t.oid || ' ' || t.xmin::pg_catalog.text, 0)))
  FROM pg_catalog.pg_type t WHERE t.typnamespace = s.all),
 (SELECT pg_catalog.concat(pg_catalog.count(*), ':', pg_catalog.sum(pg_catalog.hashtextextended(p.oid || ' ' || p.xmin::pg_catalog.text, 0)))
  FROM pg_catalog.pg_proc p WHERE p.pronamespace = s.all),
 (SELECT pg_catalog.concat(pg_catalog.count(*), ':', pg_catalog.sum(pg_catalog.hashtextextended(d.oid || ' ' || d.xmin::pg_catalog.text, 0)))
  FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_class c ON c.oid = d.adrelid WHERE c.relnamespace = s.all),
 (SELECT pg_catalog.concat(pg_catalog.count(*), ':', pg_catalog.sum(pg_catalog.hashtextextended(g.oid || ' ' || g.xmin::pg_catalog.text, 0)))
  FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid WHERE c.relnamespace = s.all AND NOT g.tgisinternal),
 (SELECT pg_catalog.concat(pg_catalog.count(*), ':', pg_catalog.sum(pg_catalog.hashtextextended(p.oid || ' ' || p.xmin::pg_catalog.text, 0)))
  FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid WHERE c.relnamespace = s.all),
 (SELECT pg_catalog.concat(pg_catalog.count(*), ':', pg_catalog.sum(pg_catalog.hashtextextended(e.oid || ' ' || e.xmin::pg_catalog.text, 0)))
  FROM pg_catalog.pg_enum e),
 (SELECT pg_catalog.concat(pg_catalog.count(*), ':', pg_catalog.sum(pg_catalog.hashtextextended(o.objoid || ' ' || o.objsubid || ' ' || o.xmin::pg_catalog.text, 0)))
  FROM pg_catalog.pg_description o JOIN pg_catalog.pg_class c ON c.oid = o.objoid WHERE c.relnamespace = s.all))
FROM (SELECT n.oid AS all FROM pg_catalog.pg_namespace n WHERE n.nspname = ANY ($1)) s ORDER BY s.all";

/// A text that is another one after every change of these schemas.
///
/// # Errors
/// Any error of the server.
pub async fn fingerprint(client: &Client, schemas: &[String]) -> Result<String, tokio_postgres::Error> {
    let rows = client.query(FINGERPRINT, &[&schemas]).await?;
    Ok(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n"))
}

/// Reads the catalogue of these schemas.
///
/// # Errors
/// Any error of the server.
pub async fn read(client: &Client, schemas: &[String]) -> Result<Catalog, Problem> {
    // Before the rest: a change in between is found by the next look.
    let fingerprint = fingerprint(client, schemas).await?;
    let mut catalog = Catalog { schemas: schemas.to_vec(), fingerprint, ..Catalog::default() };
    for table in rows::<Table>(client, TABLES, schemas).await? {
        catalog.tables.insert(table.key(), table);
    }
    for steady in rows::<Steady>(client, STEADY, schemas).await? {
        let key = (steady.schema.clone(), steady.name.clone());
        if let Some(table) = catalog.tables.get_mut(&key) {
            table.steady = Some(Arc::new(steady));
        }
    }
    catalog.keys = rows::<ForeignKey>(client, KEYS, schemas).await?;
    for function in rows::<Function>(client, FUNCTIONS, schemas).await? {
        catalog.functions.entry((function.schema.clone(), function.name.clone())).or_default().push(function);
    }
    Ok(catalog)
}

async fn rows<T: for<'de> Deserialize<'de>>(client: &Client, sql: &str, schemas: &[String]) -> Result<Vec<T>, Problem> {
    let rows = client.query(sql, &[&schemas]).await?;
    let read = |row: &tokio_postgres::Row| {
        serde_json::from_str(row.get(0)).map_err(|error| {
            tracing::error!(%error, "the catalogue has a row that the gateway does not understand");
            Problem::new(http::StatusCode::INTERNAL_SERVER_ERROR, "SDB900", "the schema could not be read")
        })
    };
    rows.iter().map(read).collect()
}
