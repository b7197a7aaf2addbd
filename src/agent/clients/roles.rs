//! The roles of clients that have a login of their own: the role with a client's rights, and the removal of clients that
//! are no longer declared.
//!
//! The table `servicedb.clients` has a row for each of them before the first of its roles exists, so that none is
//! forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio_postgres::Client;

use super::{engine, gateway, short_lived};
use crate::agent::ensure::{self, has_limits, has_role, limits};
use crate::agent::statement::{EnsureError, execute};
use crate::api::names::PostgresNames;
use crate::contract::clients;
use crate::postgres::{ident, literal};

/// How long the end of a removed client's sessions is waited for.
const END: Duration = Duration::from_secs(2);
/// Interval between two looks.
const POLL: Duration = Duration::from_millis(50);

/// Nothing by an attribute.
const NO_ATTRIBUTES: &str = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS";

/// A row of `servicedb.clients`.
struct Row {
    client: String,
    account: String,
    /// Seconds since its removal.
    removed_for: Option<f64>,
}

/// The result of an admission.
#[derive(Debug)]
pub struct Admission {
    /// The clients that are not admitted, and why: roles of their names may be another one's, or have its sessions. So they
    /// get no rights, no login and no place at the gateway.
    pub kept_out: BTreeMap<String, EnsureError>,
    /// Whether nothing is left to do.
    pub is_complete: bool,
}

/// Ensures the role of each declared client. A client of another ServiceAccount, or one that was removed and is declared
/// again, has new logins: the former ones are refused, and their sessions end. One that cannot be admitted now keeps back
/// no other.
///
/// # Errors
/// If the server does not tell which clients it has.
pub async fn admit(
    client: &Client,
    names: &PostgresNames,
    declared: &[clients::Client],
) -> Result<Admission, EnsureError> {
    let mut admission = Admission { kept_out: BTreeMap::new(), is_complete: true };
    if declared.is_empty() {
        return Ok(admission);
    }
    let known = rows(client).await?;
    let roles = states(client, names, declared).await?;
    let all = names.clients();
    if !roles.contains_key(&all) {
        execute(client, &all, &format!("CREATE ROLE {} NOLOGIN", ident(&all))).await?;
    }
    // The refusals first: the end of sessions may take long.
    for wanted in declared {
        let cleared = match (in_the_way(names, &known, wanted), row_of(&known, wanted)) {
            (Some(other), _) => {
                let (name, other) = (&wanted.name, &other.client);
                let what = format!("the client {name}, whose roles have names of the removed client {other}");
                Err(EnsureError::TooLong { what })
            }
            (None, Some(row)) if !row.is_of(wanted) => refuse(client, names, &wanted.name).await,
            (None, _) => Ok(()),
        };
        if let Err(error) = cleared {
            admission.keep_out(wanted, error);
        }
    }
    for wanted in declared {
        if admission.kept_out.contains_key(&wanted.name) {
            continue;
        }
        let row = row_of(&known, wanted);
        let Err(error) = ensure_roles(client, names, wanted, row, &roles).await else { continue };
        // One that was admitted before has its role still.
        if row.is_some_and(|row| row.is_of(wanted)) && roles.contains_key(&names.client(&wanted.name)) {
            tracing::warn!(%error, client = wanted.name, "the roles of a client are not as declared; retrying");
            admission.is_complete = false;
        } else {
            admission.keep_out(wanted, error);
        }
    }
    Ok(admission)
}

impl Admission {
    fn keep_out(&mut self, client: &clients::Client, error: EnsureError) {
        tracing::warn!(%error, client = client.name, "a client cannot be admitted, and has no access; retrying");
        self.kept_out.insert(client.name.clone(), error);
        self.is_complete = false;
    }
}

impl Row {
    /// Whether it is the row of this client, and not of one before it that had the same name.
    fn is_of(&self, client: &clients::Client) -> bool {
        self.client == client.name && self.account == client.service_account && self.removed_for.is_none()
    }
}

/// The row with a client's name.
fn row_of<'a>(known: &'a [Row], client: &clients::Client) -> Option<&'a Row> {
    known.iter().find(|row| row.client == client.name)
}

/// The client, which is still there, that has a role of a name of this one's roles.
fn in_the_way<'a>(names: &PostgresNames, known: &'a [Row], client: &clients::Client) -> Option<&'a Row> {
    let roles = roles_of(names, &client.name);
    let has_one = |row: &&Row| roles_of(names, &row.client).iter().any(|role| roles.contains(role));
    known.iter().filter(|row| row.client != client.name).find(has_one)
}

/// Ensures the row and the roles of one client. Sessions of the one before it, whose logins are refused, end first.
async fn ensure_roles(
    client: &Client,
    names: &PostgresNames,
    wanted: &clients::Client,
    row: Option<&Row>,
    roles: &BTreeMap<String, State>,
) -> Result<(), EnsureError> {
    let (name, role) = (&wanted.name, names.client(&wanted.name));
    let what = format!("the client {name}");
    if !row.is_some_and(|row| row.is_of(wanted)) {
        if row.is_some() {
            end_sessions(client, names, name).await?;
        }
        let (key, account) = (literal(name), literal(&wanted.service_account));
        let statement = format!(
            "INSERT INTO servicedb.clients (client, account, admitted_at)
             VALUES ({key}, {account}, pg_catalog.clock_timestamp())
             ON CONFLICT (client) DO UPDATE SET account = excluded.account, admitted_at = excluded.admitted_at,
                                                removed_at = NULL, generation = 0, rotated_at = NULL, logins = NULL"
        );
        execute(client, &what, &statement).await?;
    }
    // Nothing is written that is so already: a catalog's row would have a new version each time.
    let state = roles.get(&role);
    if state.is_none_or(|state| !state.is_group) {
        let create = if state.is_none() { format!("CREATE ROLE {};", ident(&role)) } else { String::new() };
        let statements =
            format!("BEGIN; {create} ALTER ROLE {} NOLOGIN {NO_ATTRIBUTES} PASSWORD NULL; COMMIT;", ident(&role));
        execute(client, &what, &statements).await?;
    }
    for login in logins(names, name) {
        if roles.get(&login).is_some_and(|state| state.has_attributes) {
            let statement = format!("ALTER ROLE {} {NO_ATTRIBUTES}", ident(&login));
            execute(client, &what, &statement).await?;
        }
        if roles.get(&login).is_some_and(|state| !has_limits(state.limit, &state.settings, wanted)) {
            execute(client, &what, &limits(&ident(&login), &ident(&names.database), wanted)).await?;
        }
    }
    Ok(())
}

/// A role as the server has it.
struct State {
    /// Whether it can neither log in nor do anything by an attribute.
    is_group: bool,
    /// Whether it can do something by an attribute.
    has_attributes: bool,
    limit: i32,
    settings: Vec<String>,
}

async fn states(
    client: &Client,
    names: &PostgresNames,
    declared: &[clients::Client],
) -> Result<BTreeMap<String, State>, EnsureError> {
    let mut roles = vec![names.clients()];
    for client in declared {
        roles.extend(roles_of(names, &client.name));
    }
    let query = "SELECT r.rolname::text,
                        NOT (r.rolcanlogin OR r.rolsuper OR r.rolcreatedb OR r.rolcreaterole OR r.rolreplication
                             OR r.rolbypassrls OR r.rolpassword IS NOT NULL),
                        r.rolconnlimit, COALESCE(s.setconfig, '{}'),
                        r.rolsuper OR r.rolcreatedb OR r.rolcreaterole OR r.rolreplication OR r.rolbypassrls
                 FROM pg_catalog.pg_authid r
                 LEFT JOIN pg_catalog.pg_db_role_setting s ON s.setrole = r.oid AND s.setdatabase = 0
                 WHERE r.rolname = ANY ($1)";
    let failed = |source| EnsureError::Statement { what: "the roles of clients".to_owned(), source };
    let read = |row: &tokio_postgres::Row| {
        let (limit, settings, has_attributes) = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
        let state = State { is_group: row.try_get(1)?, has_attributes, limit, settings };
        Ok((row.try_get(0)?, state))
    };
    let rows = client.query(query, &[&roles]).await;
    rows.and_then(|rows| rows.iter().map(read).collect()).map_err(failed)
}

/// What the removal of clients leaves to do.
#[derive(Debug, Default, PartialEq)]
pub struct Removal {
    /// How long until the next grace ends.
    pub again_in: Option<Duration>,
    /// Whether all was done that was due.
    pub is_complete: bool,
}

/// Removes the clients that are no longer declared: their logins are refused at once, their sessions end after the grace,
/// then their roles go; what they own after all becomes that of a role without rights. One whose roles cannot be dropped now, because others have
/// locked a table that it has rights on, keeps back nothing else.
///
/// # Errors
/// If the server does not tell which clients it has.
pub async fn remove(
    client: &Client,
    socket: &str,
    names: &PostgresNames,
    declared: &[clients::Client],
    rules: clients::Rules,
) -> Result<Removal, EnsureError> {
    let wanted: BTreeSet<&str> = declared.iter().map(|client| client.name.as_str()).collect();
    let taken: BTreeSet<String> = declared.iter().flat_map(|client| roles_of(names, &client.name)).collect();
    let mut removal = Removal { again_in: None, is_complete: true };
    let gone: Vec<_> = rows(client).await?.into_iter().filter(|row| !wanted.contains(row.client.as_str())).collect();
    // All of them first: the end of sessions and roles may take long.
    for row in gone.iter().filter(|row| row.removed_for.is_none()) {
        match refuse(client, names, &row.client).await {
            Ok(()) => tracing::info!(client = row.client, "the client is no longer declared: its logins are refused"),
            Err(error) => {
                tracing::warn!(%error, client = row.client, "the logins of a removed client are not refused; retrying");
                removal.is_complete = false;
            }
        }
    }
    for row in &gone {
        let left = rules.session_grace_seconds as f64 - row.removed_for.unwrap_or(0.0);
        // A new client whose roles have the same names does not wait, and does not get the rights of this one.
        let is_in_the_way = roles_of(names, &row.client).iter().any(|role| taken.contains(role));
        if left > 0.0 && !is_in_the_way {
            let left = Duration::from_secs_f64(left);
            removal.again_in = Some(removal.again_in.map_or(left, |next| next.min(left)));
            continue;
        }
        let ended = async {
            // An agent of an earlier version may have refused the logins alone.
            gateway::leave(client, &names.client(&row.client)).await?;
            end_sessions(client, names, &row.client).await?;
            drop_roles(client, socket, names, &row.client).await
        };
        match ended.await {
            Ok(()) => tracing::info!(client = row.client, "the client's roles are removed"),
            Err(error) => {
                tracing::warn!(%error, client = row.client, "a removed client's roles cannot be dropped; retrying");
                removal.is_complete = false;
            }
        }
    }
    Ok(removal)
}

/// All roles of a client.
fn roles_of(names: &PostgresNames, client: &str) -> [String; 3] {
    let [a, b] = logins(names, client);
    [a, b, names.client(client)]
}

/// Both logins of a client.
fn logins(names: &PostgresNames, client: &str) -> [String; 2] {
    [names.client_login(client, 1), names.client_login(client, 2)]
}

async fn rows(client: &Client) -> Result<Vec<Row>, EnsureError> {
    let query = "SELECT client, account, EXTRACT(epoch FROM pg_catalog.now() - removed_at)::float8
                 FROM servicedb.clients ORDER BY client";
    let rows = client.query(query, &[]).await;
    let failed = |source| EnsureError::Statement { what: "the table servicedb.clients".to_owned(), source };
    let read = |row: &tokio_postgres::Row| {
        Ok(Row { client: row.try_get(0)?, account: row.try_get(1)?, removed_for: row.try_get(2)? })
    };
    rows.and_then(|rows| rows.iter().map(read).collect()).map_err(failed)
}

/// From now on nobody logs in as the client, or becomes its role as the gateway: sessions that end stay ended.
async fn refuse(client: &Client, names: &PostgresNames, name: &str) -> Result<(), EnsureError> {
    gateway::leave(client, &names.client(name)).await?;
    let what = format!("the logins of the client {name}");
    // Vault makes no others from now on.
    engine::forget(client, name).await?;
    let mut statements = String::from("BEGIN;");
    for login in short_lived::of(client, name).await? {
        statements += &format!("ALTER ROLE {} NOLOGIN PASSWORD NULL;", ident(&login));
    }
    for login in logins(names, name) {
        if has_role(client, &login).await? {
            // A login may set parameters for itself: whoever gets it next does not inherit them.
            let (role, database) = (ident(&login), ident(&names.database));
            statements += &format!(
                "ALTER ROLE {role} NOLOGIN PASSWORD NULL; ALTER ROLE {role} RESET ALL;
                 ALTER ROLE {role} IN DATABASE {database} RESET ALL;"
            );
        }
    }
    let removed = "UPDATE servicedb.clients SET removed_at = pg_catalog.now() WHERE removed_at IS NULL AND client = ";
    execute(client, &what, &format!("{statements} {removed} {}; COMMIT;", literal(name))).await
}

async fn end_sessions(client: &Client, names: &PostgresNames, name: &str) -> Result<(), EnsureError> {
    let what = format!("the end of the sessions of the client {name}");
    let failed = |source| EnsureError::Statement { what: what.clone(), source };
    // The gateway's sessions for a caller have the name of its role.
    let query = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
                 WHERE usename = ANY ($1) OR usename = $2 AND application_name = $3
                       OR pg_catalog.starts_with(usename::text, $4::text)";
    let (ours, prefix) = (logins(names, name), PostgresNames::short_lived_prefix(name));
    let deadline = tokio::time::Instant::now() + END;
    loop {
        let role = names.client(name);
        let found = client.query(query, &[&ours.as_slice(), &PostgresNames::GATEWAY, &role, &prefix]).await;
        let found = found.map_err(failed)?;
        if found.is_empty() {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            return Err(EnsureError::TooLong { what });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Ownership, rights and roles are catalogs: nothing of the tenant runs.
async fn drop_roles(client: &Client, socket: &str, names: &PostgresNames, name: &str) -> Result<(), EnsureError> {
    let what = format!("the removal of the client {name}");
    let mut roles = Vec::new();
    for role in roles_of(names, name) {
        if has_role(client, &role).await? {
            roles.push(ident(&role));
        }
    }
    roles.extend(short_lived::of(client, name).await?.iter().map(|login| ident(login)));
    if !roles.is_empty() {
        // Not to the owner of the database: a function or an index that it has made would run with that one's rights.
        let (roles, nobody) = (roles.join(", "), ident(&names.clients()));
        if !has_role(client, &names.clients()).await? {
            execute(client, &what, &format!("CREATE ROLE {nobody} NOLOGIN")).await?;
        }
        let tenant = ensure::connect_at(socket, &names.database).await?;
        // Who uses a table with a row policy of the client waits behind this.
        let leave = format!(
            "BEGIN; SET LOCAL lock_timeout = '1s'; REASSIGN OWNED BY {roles} TO {nobody}; DROP OWNED BY {roles}; COMMIT;"
        );
        execute(&tenant.client, &what, &leave).await?;
        execute(client, &what, &format!("BEGIN; DROP OWNED BY {roles}; DROP ROLE {roles}; COMMIT;")).await?;
    }
    // A session outlives its role: one of the gateway that was about to begin when the role was taken from it would serve
    // the next client of this name, as a role that is gone. Before the row goes, so that a failure is tried again.
    end_sessions(client, names, name).await?;
    execute(client, &what, &format!("DELETE FROM servicedb.clients WHERE client = {}", literal(name))).await
}
