//! Startup options of Servicedb's own sessions. A tenant sets defaults for sessions in
//! `spec.postgres.parameters`, by `ALTER DATABASE … SET` and by `ALTER ROLE … SET`; a startup option
//! takes precedence over all of them, from the first query on, and `RESET ALL` returns to it.
//!
//! Servicedb's sessions never inherit a setting that could cancel or end them, refuse their writes,
//! or change their role or the objects that names resolve to.

/// For every login, including the application's: no option needs a superuser. A part that needs a
/// timeout sets it itself. A base backup receives WAL on a connection of its own, which a starved machine may
/// leave without an answer for longer than the short timeout by which a lost standby is noticed.
macro_rules! any_login {
    () => {
        "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 \
         -c idle_session_timeout=0 -c transaction_timeout=0 -c default_transaction_read_only=off \
         -c default_transaction_isolation=read\\ committed -c default_transaction_deferrable=off \
         -c row_security=on -c wal_sender_timeout=60s"
    };
}

/// For every login; a proof must fail where the application's own login would, so the settings that
/// decide that (`role`, `local_preload_libraries`) are not included.
pub const ANY_LOGIN: &str = any_login!();

/// For the migrator: a library that cannot be loaded would prevent its login, and a team needs a
/// migration to revert such a setting.
pub const MIGRATOR: &str = concat!(any_login!(), " -c local_preload_libraries=");

/// For the sessions that read the ledger, which the tenant owns: unqualified names resolve to
/// `pg_catalog` only, and the server notices that its client is gone.
pub const READER: &str = concat!(
    any_login!(),
    " -c local_preload_libraries= -c search_path=pg_catalog -c role=none -c client_min_messages=error \
     -c client_connection_check_interval=1s"
);

/// For the session that reads statistics in a tenant's database: no object of the tenant is found by an unqualified
/// name, and neither a lock nor a slow catalog holds it for long.
pub const MONITOR: &str = concat!(
    any_login!(),
    " -c local_preload_libraries= -c search_path=pg_catalog -c role=none -c client_min_messages=error \
     -c client_connection_check_interval=1s -c statement_timeout=4s -c lock_timeout=500ms -c jit=off \
     -c max_parallel_workers_per_gather=0"
);

/// For the sessions that run a team's own queries for metrics. Names resolve as they do for the application, since the
/// text of the queries is the team's. What they change in their session ends with their transaction.
pub const QUERIES: &str = concat!(
    any_login!(),
    " -c local_preload_libraries= -c role=none -c client_min_messages=error -c client_connection_check_interval=1s \
     -c default_transaction_read_only=on -c statement_timeout=2s -c lock_timeout=500ms \
     -c idle_in_transaction_session_timeout=10s -c jit=off -c max_parallel_workers_per_gather=0"
);

/// For the sessions that maintain a tenant's database: gently, one process at a time, and without waiting for a
/// replica. A statement has the limit that its session sets.
pub const MAINTAINER: &str = concat!(
    any_login!(),
    " -c local_preload_libraries= -c search_path=pg_catalog -c role=none -c client_min_messages=error \
     -c client_connection_check_interval=1s -c lock_timeout=5s -c jit=off -c synchronous_commit=local \
     -c max_parallel_workers_per_gather=0 -c max_parallel_maintenance_workers=0 -c vacuum_cost_delay=2ms \
     -c vacuum_cost_limit=2000"
);

/// For users who log in as the superuser: a tenant's setting neither prevents the login nor changes
/// the role.
pub const PERSON: &str =
    concat!(any_login!(), " -c session_preload_libraries= -c local_preload_libraries= -c role=none");

/// For the superuser's sessions of the agent and of Patroni, which share a cluster, and in part a
/// database, with a tenant. Statements are limited in time, so that an agent never waits forever;
/// values have the output format that their readers expect.
pub const SUPERUSER: &str = concat!(
    any_login!(),
    " -c statement_timeout=60s -c lock_timeout=5s -c role=none -c search_path=pg_catalog \
     -c session_replication_role=origin -c session_preload_libraries= -c local_preload_libraries= \
     -c client_min_messages=warning -c standard_conforming_strings=on -c default_table_access_method=heap \
     -c jit=off -c quote_all_identifiers=off -c DateStyle=ISO,MDY -c IntervalStyle=postgres -c TimeZone=UTC \
     -c bytea_output=hex -c extra_float_digits=1 -c pgaudit.log=none"
);

/// For the sessions in which a standby receives WAL; other settings do not apply to them. PostgreSQL
/// limits such a connection string to 1023 bytes, including the values that it adds (`MAXCONNINFO`).
pub const WAL_RECEIVER: &str = "-c statement_timeout=0 -c idle_session_timeout=0";

/// Options as the value of a parameter in a connection string, quotes included.
pub fn in_conninfo(options: &str) -> String {
    format!("'{}'", options.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The same options for a server before PostgreSQL 17, which has no `transaction_timeout`.
pub fn before_17(options: &str) -> String {
    options.replace(" -c transaction_timeout=0", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(options: &str) -> Vec<&str> {
        options.split("-c ").filter_map(|option| option.split_once('=')).map(|(name, _)| name).collect()
    }

    #[test]
    fn each_setting_that_could_end_or_refuse_a_session_is_forced() {
        for options in [ANY_LOGIN, MIGRATOR, READER, MONITOR, QUERIES, MAINTAINER, PERSON, SUPERUSER] {
            for name in [
                "statement_timeout",
                "lock_timeout",
                "idle_in_transaction_session_timeout",
                "idle_session_timeout",
                "transaction_timeout",
                "default_transaction_read_only",
                "default_transaction_isolation",
                "default_transaction_deferrable",
                "row_security",
            ] {
                assert!(names(options).contains(&name), "{name}");
            }
        }
        for name in ["role", "search_path", "session_replication_role", "session_preload_libraries"] {
            assert!(names(SUPERUSER).contains(&name), "{name}");
            assert!(!names(MIGRATOR).contains(&name), "{name}: belongs to the team, or needs a superuser");
        }
        assert!(!names(ANY_LOGIN).contains(&"local_preload_libraries"), "a proof would hide that no login works");
    }

    #[test]
    fn in_a_connection_string_the_server_gets_the_same_options() {
        let config: tokio_postgres::Config = format!("options={}", in_conninfo(ANY_LOGIN)).parse().expect("a string");
        assert_eq!(config.get_options(), Some(ANY_LOGIN));
    }

    #[test]
    fn options_are_separated_by_spaces_that_are_not_escaped() {
        for options in [ANY_LOGIN, MIGRATOR, READER, MONITOR, QUERIES, MAINTAINER, PERSON, SUPERUSER] {
            let rest = options.replace("\\ ", "");
            assert!(rest.split(' ').all(|word| word == "-c" || word.contains('=')), "{rest}");
            assert!(!options.contains("  "), "{options}");
        }
    }
}
