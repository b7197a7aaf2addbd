//! What stored expressions use: operators of extensions and tenants, and parameters of functions. `pg_upgrade` takes
//! definitions over as text, and the new server reads it with an empty `search_path`. `JOIN … USING`, `IS DISTINCT FROM`
//! and `CASE … WHEN` have no place for an operator's schema, so two `citext` are compared as `text`; a parameter is
//! written as `function.parameter`, which is a column where the body has a table of that name. A view, a policy, a
//! check, a generated column, a trigger or a function then does something else, without an error.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use super::named::Named;

/// Objects with what they use: operators as their dependencies have them, which PostgreSQL derives from the parsed form
/// and keeps of all but its own, and parameters as the parsed bodies have them. Without foreign keys, whose operators are
/// those of the index, and whose names in partitions are chosen anew; and without what a session had for itself in the
/// copied database, which `pg_dump` leaves out.
const QUERY: &str = "
    SELECT f.type || ' ' || f.identity, u.type || ' ' || u.identity
    FROM pg_catalog.pg_depend d
         CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid) AS f
         CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.refclassid, d.refobjid, 0) AS u
    WHERE d.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass AND d.deptype IN ('n', 'a')
      AND d.classid <> ALL ('{pg_catalog.pg_amop,pg_catalog.pg_operator}'::pg_catalog.regclass[])
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint c
                      WHERE d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND c.oid = d.objid
                        AND c.contype = 'f')
      AND f.identity !~ '\\mpg_temp(_[0-9]+)?[.]' AND u.identity IS NOT NULL
    UNION
    SELECT f.type || ' ' || f.identity, 'parameter ' || m[1]
    FROM pg_catalog.pg_proc p
         CROSS JOIN LATERAL pg_catalog.regexp_matches(p.prosqlbody::pg_catalog.text,
                                                      '[{]PARAM :paramkind 0 :paramid ([0-9]+)', 'g') AS m
         CROSS JOIN LATERAL pg_catalog.pg_identify_object('pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, 0) AS f
    WHERE p.prosqlbody IS NOT NULL AND p.oid >= 16384 AND f.identity !~ '\\mpg_temp(_[0-9]+)?[.]'";
/// How many objects a message names.
const NAMED: usize = 3;
/// How much it has of each name, in characters: that of a function has its arguments.
const LONGEST: usize = 80;

/// Objects of one database, each with one of the things that it uses.
pub type Uses = BTreeSet<(String, String)>;

/// Those of a database of the private server.
///
/// # Errors
/// PostgreSQL's.
pub async fn read(client: &Client) -> Result<Uses, tokio_postgres::Error> {
    let rows = client.query(QUERY, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Compares the objects of a database before and after `pg_upgrade`.
///
/// # Errors
/// Those that do not use any more what they used, and what to do.
pub fn check(database: &str, before: &Uses, after: &Uses) -> Result<(), String> {
    let lost: Vec<_> = before.difference(after).collect();
    let Some((_, first)) = lost.first() else { return Ok(()) };
    let objects: BTreeSet<_> = lost.iter().map(|(object, _)| object).collect();
    let short = |text: &str| text.chars().take(LONGEST).collect::<String>();
    let names = objects.iter().take(NAMED).map(|object| short(object)).collect();
    let named = Named { names, count: i64::try_from(objects.len()).unwrap_or(i64::MAX) };
    Err(format!(
        "the database {database}: pg_upgrade takes definitions over as text, which would mean something else for {named}: \
         without {}. Write comparisons with their operator (JOIN … ON instead of USING, = instead of IS DISTINCT FROM and \
         CASE … WHEN), or, for a parameter, give the table an alias that is not the function's name, and request the \
         upgrade again (docs/upgrades.md: what stops an upgrade)",
        short(first)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(pairs: &[(&str, &str)]) -> Uses {
        pairs.iter().map(|(object, used)| ((*object).to_owned(), (*used).to_owned())).collect()
    }

    #[test]
    fn what_is_no_longer_used_stops_the_upgrade() {
        let equal = "operator public.=(public.citext,public.citext)";
        let before = uses(&[("policy own on public.mail", equal), ("function public.f(integer)", "parameter 1")]);
        assert_eq!(check("shop", &before, &before), Ok(()));
        let more =
            uses(&[("policy own on public.mail", equal), ("function public.f(integer)", "parameter 1"), ("a", "b")]);
        assert_eq!(check("shop", &before, &more), Ok(()), "a later version may record more");
        let message = check("shop", &before, &uses(&[("function public.f(integer)", "parameter 1")])).unwrap_err();
        assert!(
            message.contains("for policy own on public.mail: without operator public.=(public.citext"),
            "{message}"
        );
        let message = check("shop", &before, &Uses::new()).unwrap_err();
        assert!(message.contains("for function public.f(integer), policy own on public.mail: without"), "{message}");
    }

    #[test]
    fn the_refusal_fits_the_limit_of_a_job() {
        let objects: Vec<_> =
            (0..9).map(|n| (format!("rule {n} {}", "v".repeat(300)), "operator ".repeat(50))).collect();
        let message = check(&"d".repeat(63), &objects.into_iter().collect(), &Uses::new()).unwrap_err();
        assert!(message.contains(" and 6 more: without") && message.ends_with("stops an upgrade)"), "{message}");
        assert!(message.chars().count() < 900, "{}", message.chars().count());
    }
}
