//! Vault's database secrets engine in the server: the functions with which it makes, renews and removes short-lived
//! logins, the clients that it may make them for, and its two logins, which may call these functions and nothing else. The
//! password of a login is set where it is proved (`agent::credentials`).

use std::collections::BTreeMap;

use tokio_postgres::Client;

use super::memberships;
use super::short_lived::TOLERANCE_SECONDS;
use crate::agent::ensure::{connection_limit, has_role, statement_timeout};
use crate::agent::statement::{EnsureError, execute};
use crate::api::names::PostgresNames;
use crate::contract::clients;
use crate::postgres::{ident, literal};

const WHAT: &str = "the logins of Vault's database secrets engine";
/// The functions, which check each argument: whoever controls Vault's engine gets logins of these clients, and no more.
const FUNCTIONS: &str = include_str!("short_lived_functions.sql");
/// With their arguments, as `GRANT` names them.
const SIGNATURES: [(&str, &str); 3] = [
    (PostgresNames::MAKE_LOGIN, "(text, text, text, timestamptz)"),
    (PostgresNames::RENEW_LOGIN, "(text, text, timestamptz)"),
    (PostgresNames::REMOVE_LOGIN, "(text)"),
];
/// The maximum number of logins of a client at a time.
const MOST: i32 = 500;
/// The maximum age of a session of Vault's: it closes them after 300 seconds. One that is kept open could keep locks.
const SESSION_AGE: &str = "600 s";

/// A client that Vault makes logins for: a row of `servicedb.short_lived`, from which the functions know it.
#[derive(Debug, PartialEq)]
struct Row {
    /// The role with its rights.
    role: String,
    /// The role whose members are admitted.
    admitted_by: String,
    connection_limit: i32,
    statement_timeout: Option<String>,
    /// For how long a login may be valid from now on.
    longest_seconds: f64,
    most: i32,
}

impl Row {
    fn of(client: &clients::Client, names: &PostgresNames) -> Option<(String, Self)> {
        let lifetimes = client.dynamic()?;
        let row = Self {
            role: names.client(&client.name),
            admitted_by: names.clients(),
            connection_limit: connection_limit(client),
            statement_timeout: statement_timeout(client),
            longest_seconds: lifetimes.max_ttl_seconds as f64 + TOLERANCE_SECONDS,
            most: MOST,
        };
        Some((client.name.clone(), row))
    }

    fn insert(&self, client: &str) -> String {
        let timeout = self.statement_timeout.as_deref().map_or("NULL".to_owned(), literal);
        format!(
            "INSERT INTO servicedb.short_lived VALUES ({}, {}, {}, {}, {timeout}, {}, {});",
            literal(client),
            literal(&self.role),
            literal(&self.admitted_by),
            self.connection_limit,
            self.longest_seconds,
            self.most
        )
    }
}

/// Keeps the clients that Vault may make logins for as declared; without one, its logins are refused, and the functions
/// gone. Nothing is written that is so already. The roles of the clients exist before. The logins themselves stay, as the
/// gateway's. Returns whether Vault makes other logins from now on than before.
///
/// # Errors
/// If the server refuses.
pub async fn keep(client: &Client, names: &PostgresNames, declared: &[&clients::Client]) -> Result<bool, EnsureError> {
    let wanted: BTreeMap<String, Row> = declared.iter().filter_map(|client| Row::of(client, names)).collect();
    if wanted.is_empty() {
        return close(client).await.map(|()| false);
    }
    leave_all(client).await?;
    let has_changed = rows(client).await? != wanted;
    if has_changed {
        execute(client, "the clients with short-lived logins", &replacement(&wanted)).await?;
    }
    let query = format!(
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
         WHERE usename::text = ANY ($1) AND backend_start < pg_catalog.now() - interval '{SESSION_AGE}'"
    );
    client.query(&query, &[&PostgresNames::ENGINES.as_slice()]).await.map(|_| has_changed).map_err(failed)
}

/// Ensures the functions, and that the logins exist and may call them. No login is opened by that.
///
/// # Errors
/// If the server refuses.
pub async fn prepare(client: &Client) -> Result<(), EnsureError> {
    let mut create = String::new();
    for login in PostgresNames::ENGINES {
        if !has_role(client, login).await? {
            create += &format!("CREATE ROLE {login} NOLOGIN NOINHERIT;");
        }
    }
    let (functions, logins) = (SIGNATURES.map(|(name, types)| format!("{name}{types}")), PostgresNames::ENGINES);
    let (functions, logins) = (functions.join(", "), logins.join(", "));
    let statements = format!(
        "BEGIN; {create} {FUNCTIONS}
         REVOKE ALL ON FUNCTION {functions} FROM PUBLIC;
         GRANT EXECUTE ON FUNCTION {functions} TO {logins};
         GRANT USAGE ON SCHEMA servicedb TO {logins};
         GRANT CONNECT ON DATABASE postgres TO {logins};
         COMMIT;"
    );
    execute(client, "the functions for short-lived logins", &statements).await
}

/// Takes a client from those that Vault may make logins for. A login that Vault is about to make is one that the caller
/// does not find yet, so a session of Vault's with a transaction that may have seen the client ends.
///
/// # Errors
/// If the server refuses, or such a session does not end in time.
pub async fn forget(client: &Client, name: &str) -> Result<(), EnsureError> {
    let what = format!("the end of short-lived logins of the client {name}");
    execute(client, &what, &format!("DELETE FROM servicedb.short_lived WHERE client = {}", literal(name))).await?;
    // A transaction that begins now does not see the client. `track_activities` is off for these sessions: only the lock
    // that each transaction has on itself shows one.
    let query = "SELECT pg_catalog.pg_terminate_backend(a.pid, 2000) FROM pg_catalog.pg_stat_activity a
                 WHERE a.usename::text = ANY ($1)
                   AND EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.pid = a.pid AND l.locktype = 'virtualxid')";
    let rows = client.query(query, &[&PostgresNames::ENGINES.as_slice()]).await.map_err(failed)?;
    for row in rows {
        if !row.try_get::<_, bool>(0).map_err(failed)? {
            return Err(EnsureError::TooLong { what });
        }
    }
    Ok(())
}

/// Refuses a login of Vault's, and ends its sessions; nothing is written if it is refused already.
///
/// # Errors
/// If the server refuses.
pub async fn refuse(client: &Client, login: &str) -> Result<(), EnsureError> {
    let query = "SELECT EXISTS (SELECT FROM pg_catalog.pg_authid
                                WHERE rolname = $1 AND (rolcanlogin OR rolcreaterole OR rolpassword IS NOT NULL))";
    let is_open: bool = client.query_one(query, &[&login]).await.and_then(|row| row.try_get(0)).map_err(failed)?;
    if is_open {
        let statement = format!("ALTER ROLE {} NOLOGIN NOCREATEROLE PASSWORD NULL", ident(login));
        execute(client, WHAT, &statement).await?;
    }
    let query = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = $1";
    client.query(query, &[&login]).await.map(drop).map_err(failed)
}

/// Refuses both logins, takes the functions away, and forgets the clients.
async fn close(client: &Client) -> Result<(), EnsureError> {
    let functions = SIGNATURES.map(|(name, types)| format!("{name}{types}"));
    let query = "SELECT pg_catalog.to_regprocedure($1) IS NOT NULL
                        OR EXISTS (SELECT FROM servicedb.short_lived)
                        OR EXISTS (SELECT FROM pg_catalog.pg_authid WHERE rolname = ANY ($2) AND rolcanlogin)";
    let is_open = client.query_one(query, &[&functions[0], &PostgresNames::ENGINES.as_slice()]).await;
    let is_open: bool = is_open.and_then(|row| row.try_get(0)).map_err(failed)?;
    if !is_open {
        return Ok(());
    }
    leave_all(client).await?;
    for login in PostgresNames::ENGINES {
        refuse(client, login).await?;
    }
    let drop: String = functions.iter().map(|function| format!("DROP FUNCTION IF EXISTS {function};")).collect();
    // The last step: a run that is interrupted before it is repeated.
    execute(client, WHAT, &format!("BEGIN; DELETE FROM servicedb.short_lived; {drop} COMMIT;")).await?;
    tracing::info!(
        "no client has short-lived logins any more: the logins of Vault's database secrets engine are refused"
    );
    Ok(())
}

/// Takes every membership from Vault's logins, and every role that is a member of one: they need none.
async fn leave_all(client: &Client) -> Result<(), EnsureError> {
    let mut statements = String::new();
    for login in PostgresNames::ENGINES {
        let found = memberships::read(client, login).await.map_err(failed)?;
        statements += &memberships::revocations(&found, login, |_| false).0;
    }
    if statements.is_empty() {
        return Ok(());
    }
    execute(client, WHAT, &format!("BEGIN; {statements} COMMIT;")).await
}

async fn rows(client: &Client) -> Result<BTreeMap<String, Row>, EnsureError> {
    let query = "SELECT client, role, admitted_by, connection_limit, statement_timeout, longest_seconds, most
                 FROM servicedb.short_lived";
    let read = |row: &tokio_postgres::Row| {
        let known = Row {
            role: row.try_get(1)?,
            admitted_by: row.try_get(2)?,
            connection_limit: row.try_get(3)?,
            statement_timeout: row.try_get(4)?,
            longest_seconds: row.try_get(5)?,
            most: row.try_get(6)?,
        };
        Ok((row.try_get(0)?, known))
    };
    client.query(query, &[]).await.and_then(|rows| rows.iter().map(read).collect()).map_err(failed)
}

fn replacement(wanted: &BTreeMap<String, Row>) -> String {
    let rows: String = wanted.iter().map(|(client, row)| row.insert(client)).collect();
    format!("BEGIN; DELETE FROM servicedb.short_lived; {rows} COMMIT;")
}

fn failed(source: tokio_postgres::Error) -> EnsureError {
    EnsureError::Statement { what: WHAT.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::Names;

    fn client(json: serde_json::Value) -> clients::Client {
        serde_json::from_value(json).expect("a client")
    }

    #[test]
    fn the_functions_know_a_client_with_its_limits_and_none_with_a_record() {
        let names = Names::new("messaging", "chat").postgres("chat_db");
        let access = serde_json::json!({"mode": "ReadOnly", "dynamic": {"ttlSeconds": 60, "maxTtlSeconds": 3600}});
        let mut limited = serde_json::json!({"name": "mail-bot", "generation": 1, "access": access});
        let (name, row) = Row::of(&client(limited.clone()), &names).expect("a row");
        assert_eq!((name.as_str(), row.role.as_str()), ("mail-bot", "chat_db_c_mail_bot"));
        assert_eq!((row.connection_limit, &row.statement_timeout), (-1, &None));
        assert_eq!(
            replacement(&BTreeMap::from([(name, row)])),
            "BEGIN; DELETE FROM servicedb.short_lived; INSERT INTO servicedb.short_lived VALUES ('mail-bot', \
             'chat_db_c_mail_bot', 'chat_db_clients', -1, NULL, 4200, 500); COMMIT;"
        );
        limited["connectionLimit"] = 3.into();
        limited["statementTimeoutSeconds"] = 20.into();
        let (_, row) = Row::of(&client(limited), &names).expect("a row");
        assert!(row.insert("mail-bot").contains("3, '20s', 4200, 500"), "{row:?}");
        let record = serde_json::json!({"name": "bot", "generation": 1, "access": {"mode": "ReadOnly"}});
        assert!(Row::of(&client(record), &names).is_none());
    }

    /// Each of them runs with all rights: what its caller controls changes nothing in it.
    #[test]
    fn each_function_has_a_search_path_of_its_own_and_those_names() {
        assert_eq!(FUNCTIONS.matches("CREATE OR REPLACE FUNCTION").count(), SIGNATURES.len());
        assert_eq!(
            FUNCTIONS.matches("SECURITY DEFINER\nSET search_path = pg_catalog, pg_temp").count(),
            SIGNATURES.len()
        );
        // Without it a backslash in a pattern is none.
        assert_eq!(FUNCTIONS.matches("SET standard_conforming_strings = on\nAS $body$").count(), SIGNATURES.len());
        assert!(!FUNCTIONS.contains('\\'));
        for (name, _) in SIGNATURES {
            assert!(FUNCTIONS.contains(&format!("FUNCTION {name}(")), "{name}");
        }
    }
}
