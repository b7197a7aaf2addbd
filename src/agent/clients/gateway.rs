//! The login of the data gateway: it has no rights of its own, and may become the roles of the clients that call it.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::Client;

use crate::agent::ensure::{self, has_role};
use crate::agent::statement::{EnsureError, execute};
use crate::api::names::PostgresNames;
use crate::contract::clients;
use crate::contract::desired::Gateway;
use crate::postgres::ident;

const WHAT: &str = "the gateway's login";
const ROLE: &str = PostgresNames::GATEWAY;
const LEDGER: &str = PostgresNames::LEDGER_SCHEMA;
/// How long the end of its sessions is waited for.
const END: Duration = Duration::from_secs(2);
/// Interval between two looks.
const POLL: Duration = Duration::from_millis(50);

/// Keeps the login as declared; without a gateway, that there is none. Nothing is written that is so already.
///
/// The roles of clients exist before. Rights, roles and memberships are catalogs: nothing of the tenant runs.
///
/// # Errors
/// If the server refuses.
pub async fn keep(
    client: &Client,
    socket: &str,
    names: &PostgresNames,
    (gateway, clients): (Option<Gateway>, &[clients::Client]),
) -> Result<(), EnsureError> {
    let exists = has_role(client, ROLE).await?;
    let Some(gateway) = gateway else {
        return if exists { remove(client, socket, names).await } else { Ok(()) };
    };
    let mut wanted: BTreeSet<String> = clients.iter().map(|client| names.client(&client.name)).collect();
    if gateway.shared {
        wanted.insert(names.app());
    }
    let found = memberships(client).await?;
    let (mut kept, mut statements) = (BTreeSet::new(), String::new());
    for Membership { role, is_exact } in found {
        if !wanted.contains(&role) {
            statements += &format!("REVOKE {} FROM {ROLE};", ident(&role));
        } else if is_exact {
            kept.insert(role);
        }
    }
    for role in wanted.difference(&kept) {
        statements += &format!("GRANT {} TO {ROLE} WITH ADMIN FALSE, INHERIT FALSE, SET TRUE;", ident(role));
    }
    let is_login = is_login(client, names).await?;
    if is_login && statements.is_empty() {
        return Ok(());
    }
    if !is_login {
        // The role without a login first: nobody logs in before it is as it has to be.
        let create = if exists { String::new() } else { format!("CREATE ROLE {ROLE} NOLOGIN;") };
        let database = ident(&names.database);
        execute(
            client,
            WHAT,
            &format!(
                "BEGIN; {create}
                 ALTER ROLE {ROLE} NOLOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
                     CONNECTION LIMIT -1 PASSWORD NULL VALID UNTIL 'infinity';
                 ALTER ROLE {ROLE} RESET ALL; ALTER ROLE {ROLE} IN DATABASE {database} RESET ALL;
                 GRANT CONNECT ON DATABASE {database} TO {ROLE}; COMMIT;"
            ),
        )
        .await?;
        show_ledger(socket, names).await?;
        statements += &format!("ALTER ROLE {ROLE} LOGIN;");
    }
    execute(client, WHAT, &format!("BEGIN; {statements} COMMIT;")).await
}

/// A role that the login is a member of.
struct Membership {
    role: String,
    /// Whether it may become the role, and has none of its rights before.
    is_exact: bool,
}

async fn memberships(client: &Client) -> Result<Vec<Membership>, EnsureError> {
    let query =
        "SELECT g.rolname::text, pg_catalog.bool_and(m.set_option AND NOT m.inherit_option AND NOT m.admin_option)
                 FROM pg_catalog.pg_auth_members m
                 JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
                 JOIN pg_catalog.pg_roles r ON r.oid = m.member
                 WHERE r.rolname = $1 GROUP BY g.rolname";
    let read = |row: &tokio_postgres::Row| Ok(Membership { role: row.try_get(0)?, is_exact: row.try_get(1)? });
    let rows = client.query(query, &[&ROLE]).await;
    rows.and_then(|rows| rows.iter().map(read).collect()).map_err(failed)
}

/// Whether the login is as it has to be, in the server: without a password, an attribute or a setting.
async fn is_login(client: &Client, names: &PostgresNames) -> Result<bool, EnsureError> {
    let query = "SELECT r.rolcanlogin AND NOT (r.rolinherit OR r.rolsuper OR r.rolcreatedb OR r.rolcreaterole
                            OR r.rolreplication OR r.rolbypassrls OR r.rolpassword IS NOT NULL)
                        AND pg_catalog.has_database_privilege(r.oid, $2, 'CONNECT')
                        AND NOT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s WHERE s.setrole = r.oid)
                 FROM pg_catalog.pg_authid r WHERE r.rolname = $1";
    let row = client.query_opt(query, &[&ROLE, &names.database]).await.map_err(failed)?;
    row.map_or(Ok(false), |row| row.try_get(0).map_err(failed))
}

/// Lets the gateway show the ledger of the migrations.
async fn show_ledger(socket: &str, names: &PostgresNames) -> Result<(), EnsureError> {
    let tenant = ensure::connect_at(socket, &names.database).await?;
    let owner = ident(&names.owner());
    let query = "SELECT pg_catalog.to_regclass($1) IS NOT NULL";
    let table = format!("{LEDGER}.migrations");
    let exists: bool =
        tenant.client.query_one(query, &[&table]).await.and_then(|row| row.try_get(0)).map_err(failed)?;
    let existing = if exists { format!("GRANT SELECT ON {table} TO {ROLE};") } else { String::new() };
    let statements = format!(
        "BEGIN; GRANT USAGE ON SCHEMA {LEDGER} TO {ROLE};
         ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {LEDGER} GRANT SELECT ON TABLES TO {ROLE};
         {existing} COMMIT;"
    );
    execute(&tenant.client, WHAT, &statements).await
}

/// Refuses further logins, ends the sessions, and removes the role.
async fn remove(client: &Client, socket: &str, names: &PostgresNames) -> Result<(), EnsureError> {
    execute(client, WHAT, &format!("ALTER ROLE {ROLE} NOLOGIN PASSWORD NULL;")).await?;
    let query = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = $1";
    let deadline = tokio::time::Instant::now() + END;
    while !client.query(query, &[&ROLE]).await.map_err(failed)?.is_empty() {
        if tokio::time::Instant::now() > deadline {
            return Err(EnsureError::TooLong { what: WHAT.to_owned() });
        }
        tokio::time::sleep(POLL).await;
    }
    // It owns nothing: a session becomes a caller's role before its first statement.
    let tenant = ensure::connect_at(socket, &names.database).await?;
    execute(&tenant.client, WHAT, &format!("DROP OWNED BY {ROLE};")).await?;
    execute(client, WHAT, &format!("BEGIN; DROP OWNED BY {ROLE}; DROP ROLE {ROLE}; COMMIT;")).await?;
    tracing::info!("the data gateway is no longer declared: its login is removed");
    Ok(())
}

fn failed(source: tokio_postgres::Error) -> EnsureError {
    EnsureError::Statement { what: WHAT.to_owned(), source }
}
