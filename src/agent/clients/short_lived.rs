//! Short-lived logins: Vault makes and removes them. The leader removes those that Vault could not, because it was sealed,
//! or because the database was restored; and those of clients that are no longer declared so.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use crate::agent::ensure::{self, has_role};
use crate::agent::statement::{EnsureError, execute};
use crate::api::names::PostgresNames;
use crate::contract::clients;
use crate::postgres::ident;

/// For how long after the end of its validity Vault has the time to remove a login, in seconds.
const LEEWAY_SECONDS: f64 = 120.0;

/// A short-lived login.
struct Login {
    name: String,
    /// Whether it may log in, and has not been invalid for long.
    is_alive: bool,
}

/// The names of a client's logins.
///
/// # Errors
/// If the server refuses.
pub async fn of(client: &Client, name: &str) -> Result<Vec<String>, EnsureError> {
    let prefix = PostgresNames::short_lived_prefix(name);
    Ok(with_prefix(client, &prefix).await?.into_iter().map(|login| login.name).collect())
}

/// Removes the logins that are invalid, and those of clients that have none; returns whether all are gone. Their sessions
/// end within seconds, on all instances (see `sessions`): a session without a role is ended.
///
/// # Errors
/// If the server does not tell which logins it has.
pub async fn remove(
    client: &Client,
    socket: &str,
    names: &PostgresNames,
    declared: &[clients::Client],
) -> Result<bool, EnsureError> {
    let wanted: BTreeSet<&str> =
        declared.iter().filter(|client| client.dynamic().is_some()).map(|client| client.name.as_str()).collect();
    let mut is_complete = true;
    for Login { name, is_alive } in with_prefix(client, PostgresNames::SHORT_LIVED).await? {
        if is_alive && PostgresNames::client_of_short_lived(&name).is_some_and(|client| wanted.contains(client)) {
            continue;
        }
        match drop_login(client, socket, names, &name).await {
            Ok(()) => tracing::info!(login = name, "a short-lived login is removed"),
            Err(error) => {
                tracing::warn!(%error, login = name, "a short-lived login cannot be removed; retrying");
                is_complete = false;
            }
        }
    }
    Ok(is_complete)
}

async fn with_prefix(client: &Client, prefix: &str) -> Result<Vec<Login>, EnsureError> {
    let query = "SELECT rolname::text,
                        rolcanlogin AND COALESCE(
                            rolvaliduntil > pg_catalog.now() - pg_catalog.make_interval(secs => $2::float8), false)
                 FROM pg_catalog.pg_roles WHERE pg_catalog.starts_with(rolname::text, $1::text) ORDER BY rolname";
    let failed = |source| EnsureError::Statement { what: "the short-lived logins".to_owned(), source };
    let read = |row: &tokio_postgres::Row| Ok(Login { name: row.try_get(0)?, is_alive: row.try_get(1)? });
    let rows = client.query(query, &[&prefix, &LEEWAY_SECONDS]).await;
    rows.and_then(|rows| rows.iter().map(read).collect()).map_err(failed)
}

/// Ownership, rights and roles are catalogs: nothing of the tenant runs.
async fn drop_login(client: &Client, socket: &str, names: &PostgresNames, login: &str) -> Result<(), EnsureError> {
    let (what, role) = (format!("the removal of the login {login}"), ident(login));
    if execute(client, &what, &format!("DROP ROLE IF EXISTS {role}")).await.is_ok() {
        return Ok(());
    }
    // It owns something, or has a right of its own, by somebody's hand: that goes to nobody, as of a removed client.
    execute(client, &what, &format!("ALTER ROLE {role} NOLOGIN PASSWORD NULL")).await?;
    let nobody = names.clients();
    if !has_role(client, &nobody).await? {
        execute(client, &what, &format!("CREATE ROLE {} NOLOGIN", ident(&nobody))).await?;
    }
    let tenant = ensure::connect_at(socket, &names.database).await?;
    let leave = format!(
        "BEGIN; SET LOCAL lock_timeout = '1s'; REASSIGN OWNED BY {role} TO {}; DROP OWNED BY {role}; COMMIT;",
        ident(&nobody)
    );
    execute(&tenant.client, &what, &leave).await?;
    execute(client, &what, &format!("BEGIN; DROP OWNED BY {role}; DROP ROLE {role}; COMMIT;")).await
}
