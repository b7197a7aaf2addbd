//! Which collections have answers that depend on nothing but the caller and the rows that a snapshot sees: only those may be
//! kept by the [`cache`](crate::cache).

use serde::Deserialize;

/// What the judgement about a table stands on, as an expression over `pg_class c`. A statement compares it within its own
/// snapshot: a policy that is newer than the catalogue is noticed.
macro_rules! state {
    () => {
        "pg_catalog.concat_ws(' ', c.relkind, c.relrowsecurity, c.relhassubclass, CASE WHEN c.relrowsecurity THEN \
         (SELECT pg_catalog.string_agg(pg_catalog.concat(p.oid, ':', p.xmin), ',' ORDER BY p.oid) \
         FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid) END)"
    };
}

/// See the macro.
pub(crate) const STATE: &str = state!();

/// All collections, one row of JSON each.
///
/// A policy is judged by its tree, in which functions, operators and types have numbers and constants are bytes: no text of
/// a user's is in it but the names of what a subquery reads, and subqueries are not among the nodes below. Functions are
/// PostgreSQL's own, since any other one can be replaced; a value of a type is read from text by a function that does not
/// know the time. Of SQL's own functions without parentheses, 0 to 8 are those of the time.
///
/// A type is unsteady in whatever it is a part of: a domain, an array, a range, a row. JSON of a value is made by the type's
/// cast to JSON, if there is one.
pub(super) const STEADY: &str = concat!(
    "WITH RECURSIVE parts(whole, part) AS (\
     SELECT y.oid, p.oid FROM pg_catalog.pg_type y CROSS JOIN LATERAL (VALUES (y.typbasetype), (y.typelem)) AS p(oid) WHERE p.oid <> 0 \
     UNION ALL SELECT p.oid, r.rngsubtype FROM pg_catalog.pg_range r CROSS JOIN LATERAL (VALUES (r.rngtypid), (r.rngmultitypid)) AS p(oid) \
     UNION ALL SELECT y.oid, a.atttypid FROM pg_catalog.pg_type y JOIN pg_catalog.pg_attribute a ON a.attrelid = y.typrelid \
      WHERE a.attnum > 0), unsteady(oid, why) AS (\
     SELECT 'pg_catalog.timetz'::pg_catalog.regtype::pg_catalog.oid, 'timetz, whose values are read by today''s offset' \
     UNION ALL SELECT m.oid, pg_catalog.concat(pg_catalog.format_type(m.oid, NULL), \
      ', whose text or JSON a function makes that is not immutable') \
      FROM (SELECT y.oid, y.typoutput FROM pg_catalog.pg_type y UNION ALL SELECT k.castsource, k.castfunc FROM pg_catalog.pg_cast k \
       WHERE k.casttarget = 'pg_catalog.json'::pg_catalog.regtype) AS m(oid, makes) \
      JOIN pg_catalog.pg_proc f ON f.oid = m.makes AND f.provolatile <> 'i' \
       AND f.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace \
     UNION SELECT p.whole, u.why FROM unsteady u JOIN parts p ON p.part = u.oid) \
     SELECT pg_catalog.row_to_json(t)::pg_catalog.text FROM (SELECT n.nspname AS schema, c.relname AS name, \
     c.oid::pg_catalog.int8 AS oid, ",
    state!(),
    " AS state, CASE \
     WHEN c.relkind = 'v' THEN 'it is a view' \
     WHEN c.relkind = 'f' THEN 'it is a foreign table' \
     WHEN c.relkind = 'p' OR c.relhassubclass THEN 'it has partitions or children' \
     WHEN EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN unsteady u ON u.oid = a.atttypid \
      WHERE a.attrelid = c.oid AND a.attnum > 0) \
     THEN (SELECT pg_catalog.concat('it has a column of the type ', pg_catalog.min(u.why)) FROM pg_catalog.pg_attribute a \
      JOIN unsteady u ON u.oid = a.atttypid WHERE a.attrelid = c.oid AND a.attnum > 0) \
     WHEN c.relrowsecurity THEN (SELECT pg_catalog.concat('its row policy \"', p.polname, \
      '\" may depend on more than the caller and the row: it has a subquery, or a function that is not PostgreSQL''s own and immutable') \
      FROM pg_catalog.pg_policy p CROSS JOIN LATERAL (SELECT p.polqual::pg_catalog.text AS tree) q \
      WHERE p.polrelid = c.oid AND p.polcmd IN ('r', '*') AND (\
       EXISTS (SELECT FROM pg_catalog.regexp_matches(q.tree, '\\{([A-Z]+)', 'g') AS m(found) WHERE m.found[1] <> ALL \
        ('{VAR,CONST,OPEXPR,FUNCEXPR,BOOLEXPR,NULLTEST,BOOLEANTEST,RELABELTYPE,COERCEVIAIO,SCALARARRAYOPEXPR,ARRAYEXPR,\
SQLVALUEFUNCTION,DISTINCTEXPR,NULLIFEXPR,CASE,CASEEXPR,WHEN,CASEWHEN,COALESCE,COALESCEEXPR}')) \
       OR q.tree ~ '\\{SQLVALUEFUNCTION :op [0-8] ' \
       OR EXISTS (SELECT FROM pg_catalog.regexp_matches(q.tree, ' :(?:op)?funcid ([0-9]+)', 'g') AS m(found) \
        LEFT JOIN pg_catalog.pg_proc f ON f.oid = m.found[1]::pg_catalog.oid \
        AND f.pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND (f.provolatile = 'i' OR f.proname = 'current_setting') \
        WHERE f.oid IS NULL) \
       OR EXISTS (SELECT FROM pg_catalog.regexp_matches(q.tree, ' :resulttype ([0-9]+)', 'g') AS m(found) \
        LEFT JOIN pg_catalog.pg_type y ON y.oid = m.found[1]::pg_catalog.oid \
        LEFT JOIN pg_catalog.pg_proc f ON f.oid = y.typinput \
        AND (f.provolatile = 'i' OR f.oid = 'pg_catalog.enum_in'::pg_catalog.regproc) WHERE f.oid IS NULL)) \
      ORDER BY p.polname LIMIT 1) END AS fault \
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'v', 'm', 'f', 'p') AND NOT c.relispartition) t"
);

/// The judgement about a collection.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Steady {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `pg_class.oid`.
    pub oid: u32,
    /// What the judgement stands on.
    pub state: String,
    /// Why its answers may depend on something else.
    pub fault: Option<String>,
}
