//! Reads with the version of what they read: where the caller knows an answer of this version, they are not carried out.

use std::collections::BTreeMap;

use super::Statement;
use crate::catalog::STATE;

/// A text that two statements have in common only if they see the same rows.
///
/// A snapshot names the transactions whose effects it sees, by numbers that a server never gives twice: two equal ones see
/// the same. It may give them twice after it has lost what was not written to disk, so a server that was started again, or
/// that has recovered from a crash (which is when it drops its statistics), is another one. The settings of the session are
/// those of the configuration that it has loaded; those of its caller, and those that the database gave it at its start, are
/// in the key of an answer.
const SNAPSHOT: &str = "pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.concat_ws('/', \
     pg_catalog.pg_current_snapshot(), pg_catalog.pg_postmaster_start_time(), pg_catalog.pg_conf_load_time(), \
     pg_catalog.pg_stat_get_bgwriter_stat_reset_time()), 'UTF8')), 'base64')";

/// A read with its version as the last column, in its own snapshot. It has a row more than the read, of nulls and the
/// version, if the read has none, and if the version is the `known` one: then the read is not carried out, though its rights are
/// checked.
///
/// There is no version on a replica, whose snapshots name no transactions, and where a collection is not as the catalogue
/// has it.
pub fn versioned(read: &Statement, known: &str) -> Statement {
    // An empty text is no version, and unlike a null it differs from an absent one.
    let mut parameters = read.parameters.clone();
    parameters.push(Some(known.to_owned()));
    let states: BTreeMap<u32, &str> = read.reads.iter().map(|table| (table.oid, table.state.as_str())).collect();
    let states = states.into_iter().map(|(oid, state)| {
        let state = state.replace('\'', "''");
        format!(" AND (SELECT {STATE} FROM pg_catalog.pg_class c WHERE c.oid = {oid}) = '{state}'")
    });
    let states: String = states.collect();
    let version = format!("CASE WHEN NOT pg_catalog.pg_is_in_recovery(){states} THEN {SNAPSHOT} END");
    // Each OFFSET keeps a part for itself: the version is computed once, and the condition, in which the read has no part, is
    // tested once, before the read begins.
    let sql = format!(
        "SELECT r.*, s.v FROM (SELECT {version} AS v OFFSET 0) AS s LEFT JOIN LATERAL \
         (SELECT q.* FROM ({}) AS q WHERE s.v IS DISTINCT FROM ${} OFFSET 0) AS r ON true",
        read.sql,
        parameters.len()
    );
    Statement { sql, parameters, versioned: true, ..read.clone() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalog::Steady;
    use crate::sql::Charge;

    #[test]
    fn each_collection_is_compared_once_and_the_known_version_comes_last() {
        let table = |oid: u32| {
            let (schema, name, state) = ("public".to_owned(), "a".to_owned(), format!("r t f {oid}:1"));
            Arc::new(Steady { schema, name, oid, state, fault: None })
        };
        let reads = vec![table(7), table(5), table(7)];
        let read =
            Statement { reads, parameters: vec![Some("x".to_owned())], ..Statement::plain("SELECT $1", Charge::Plan) };
        let found = versioned(&read, "");
        assert_eq!(found.parameters, [Some("x".to_owned()), Some(String::new())]);
        assert!(
            found.versioned
                && found.sql.contains("(SELECT $1) AS q")
                && found.sql.ends_with("IS DISTINCT FROM $2 OFFSET 0) AS r ON true")
        );
        assert_eq!(found.sql.matches("c.oid = 7) = 'r t f 7:1'").count(), 1);
        assert_eq!(found.sql.matches("c.oid = 5) = 'r t f 5:1'").count(), 1);
    }
}
