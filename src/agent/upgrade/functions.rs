//! Takes the functions of a tenant from the superuser's sessions of an upgrade. `pg_upgrade` restores a schema as the
//! superuser, and PostgreSQL evaluates a function meanwhile: of a generated column, of a partition key, of a check, of a
//! domain in statistics. In the copy that is upgraded each function of a role that is no superuser therefore runs as its
//! owner, and may only read, so that it creates no other one. What it was is kept with the function, through the dump,
//! and comes back before the upgraded database is used.

/// Makes the functions of roles that are no superusers run as their owners, and read only. For a copy alone.
///
/// A function that is not volatile may neither change nor create anything, and neither may one that it calls, as all of
/// them are such. Procedures are left: only `CALL` runs one, which such a function may not.
pub const DISARM: &str = "\
    UPDATE pg_catalog.pg_proc SET
        proconfig = pg_catalog.array_append(
            (SELECT pg_catalog.array_agg(c ORDER BY n) FROM pg_catalog.unnest(proconfig) WITH ORDINALITY AS u (c, n)
             WHERE c NOT LIKE 'servicedb.upgrade=%'),
            'servicedb.upgrade=' || CASE WHEN prosecdef THEN 'd' ELSE 'i' END || provolatile::text),
        prosecdef = true,
        provolatile = CASE provolatile WHEN 'v' THEN 's' ELSE provolatile END
    WHERE prokind IN ('f', 'w')
      AND NOT (SELECT a.rolsuper FROM pg_catalog.pg_authid a WHERE a.oid = proowner)";

/// Gives them back what they were, in the upgraded database.
pub const RESTORE: &str = "\
    UPDATE pg_catalog.pg_proc SET
        prosecdef = kept.value LIKE 'd%',
        provolatile = pg_catalog.substr(kept.value, 2, 1)::pg_catalog.\"char\",
        proconfig = (SELECT pg_catalog.array_agg(c ORDER BY n)
                     FROM pg_catalog.unnest(proconfig) WITH ORDINALITY AS u (c, n)
                     WHERE c NOT LIKE 'servicedb.upgrade=%')
    FROM (SELECT p.oid, pg_catalog.split_part(c, '=', 2) AS value
          FROM pg_catalog.pg_proc p, pg_catalog.unnest(p.proconfig) AS c WHERE c LIKE 'servicedb.upgrade=%') AS kept
    WHERE kept.oid = pg_proc.oid";

/// The functions of tenants' and extensions' schemas, and how they run, as one text.
pub const FINGERPRINT: &str = "\
    SELECT pg_catalog.count(*) || ' functions, ' || pg_catalog.md5(coalesce(pg_catalog.string_agg(f.line, ',' ORDER BY f.line), ''))
    FROM (SELECT pg_catalog.concat_ws(' ', n.nspname, p.proname, p.pronargs, p.prosecdef, p.provolatile)
                     COLLATE pg_catalog.\"C\" AS line
          FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
          WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema') AS f";
