//! Roles, database and rights: one idempotent run at every promotion, so that there is no
//! bootstrap whose interruption would leave half of them.

use tokio_postgres::Client;

use crate::api::names::PostgresNames;
use crate::contract::pod::SOCKET_DIR;
use crate::postgres::{ConnectError, Connection, describe, ident, literal, over_socket};

/// The functions that `pg_rewind` calls on its source, for a role that is no superuser.
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_catalog.pg_ls_dir(text, boolean, boolean)",
    "pg_catalog.pg_stat_file(text, boolean)",
    "pg_catalog.pg_read_binary_file(text)",
    "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// For every session here: nothing that a tenant put into its database is found by a name
/// without schema, nothing waits for ever, and nothing waits for a replica that is not there.
const SESSION: &str = "SET search_path = pg_catalog; SET lock_timeout = '5s'; SET statement_timeout = '60s'; \
                       SET synchronous_commit = local; SET client_min_messages = warning;";

/// Why something could not be ensured.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A statement failed.
    #[error("ensuring {what}: {}", describe(source))]
    Statement {
        /// What was to be ensured.
        what: String,
        /// The cause.
        source: tokio_postgres::Error,
    },
    /// Vault holds something else.
    #[error("ensuring login {user}: what Vault holds for it is not a SCRAM verifier")]
    NotAVerifier {
        /// The role.
        user: String,
    },
}

/// A connection as superuser for statements that change nothing twice.
///
/// # Errors
/// If the server is not there.
pub async fn connect(database: &str) -> Result<Connection, EnsureError> {
    let connection = over_socket(SOCKET_DIR, database, "servicedb agent").await?;
    execute(&connection.client, "the session", SESSION).await?;
    Ok(connection)
}

/// What replicas need before the first of them asks.
///
/// # Errors
/// If the server refuses.
pub async fn replication(client: &Client) -> Result<(), EnsureError> {
    let mut statements = String::new();
    for (role, options) in
        [(PostgresNames::REPLICATOR, "LOGIN REPLICATION"), (PostgresNames::REWINDER, "LOGIN NOINHERIT")]
    {
        if !has_role(client, role).await? {
            statements += &format!("CREATE ROLE {role} {options};");
        }
    }
    for function in REWIND_FUNCTIONS {
        statements += &format!("GRANT EXECUTE ON FUNCTION {function} TO {};", PostgresNames::REWINDER);
    }
    statements += &format!(
        "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; GRANT CONNECT ON DATABASE postgres TO {};\
         REVOKE CONNECT ON DATABASE template1 FROM PUBLIC;",
        PostgresNames::REWINDER
    );
    execute(client, "the replication roles", &statements).await
}

/// Everything; what is wrong with single extensions is returned, since the rest serves.
///
/// # Errors
/// If the server is not there or refuses.
pub async fn everything(names: &PostgresNames, extensions: &[String]) -> Result<Vec<String>, EnsureError> {
    let connection = connect("postgres").await?;
    let client = &connection.client;
    replication(client).await?;
    own_records(client).await?;
    group_roles(client, names).await?;
    database(client, names).await?;
    drop(connection);

    let connection = connect(&names.database).await?;
    contents(&connection.client, names).await?;
    let mut problems = Vec::new();
    for extension in extensions {
        // Where an extension goes that names no schema itself; one transaction, so that the
        // path is what it was also when this fails.
        let create = format!(
            "SET search_path = public; CREATE EXTENSION IF NOT EXISTS {}; SET search_path = pg_catalog",
            ident(extension)
        );
        if let Err(error) =
            execute(&connection.client, &format!("spec.postgres.extensions, {extension}"), &create).await
        {
            problems.push(error.to_string());
        }
    }
    Ok(problems)
}

/// Where the agent keeps what it must know without Vault.
async fn own_records(client: &Client) -> Result<(), EnsureError> {
    let statements = "\
        CREATE SCHEMA IF NOT EXISTS servicedb;
        CREATE TABLE IF NOT EXISTS servicedb.credentials (
            only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
            generation bigint NOT NULL,
            rotated_at timestamptz NOT NULL
        );";
    execute(client, "the agent's own records", statements).await
}

async fn group_roles(client: &Client, names: &PostgresNames) -> Result<(), EnsureError> {
    for role in [names.owner(), names.app()] {
        if !has_role(client, &role).await? {
            execute(client, &role, &format!("CREATE ROLE {} NOLOGIN", ident(&role))).await?;
        }
    }
    Ok(())
}

async fn database(client: &Client, names: &PostgresNames) -> Result<(), EnsureError> {
    let (database, owner, app) = (ident(&names.database), ident(&names.owner()), ident(&names.app()));
    let what = format!("database {}", names.database);
    let found = client
        .query_opt("SELECT 1 FROM pg_catalog.pg_database WHERE datname = $1", &[&names.database])
        .await
        .map_err(|source| EnsureError::Statement { what: what.clone(), source })?;
    if found.is_none() {
        let create = format!("CREATE DATABASE {database} OWNER {owner} TEMPLATE template0 ENCODING 'UTF8'");
        execute(client, &what, &create).await?;
    }
    let rights = format!(
        "ALTER DATABASE {database} OWNER TO {owner};
         ALTER DATABASE {database} ALLOW_CONNECTIONS true;
         REVOKE ALL ON DATABASE {database} FROM PUBLIC;
         GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {app};"
    );
    execute(client, &what, &rights).await
}

/// Rights inside of the database. The ledger's schema is made here, so that the application
/// never had a right to it.
async fn contents(client: &Client, names: &PostgresNames) -> Result<(), EnsureError> {
    let (owner, app, ledger) = (ident(&names.owner()), ident(&names.app()), PostgresNames::LEDGER_SCHEMA);
    let statements = format!(
        "BEGIN;
         REVOKE ALL ON SCHEMA public FROM PUBLIC;
         GRANT USAGE ON SCHEMA public TO {app};
         CREATE SCHEMA IF NOT EXISTS {ledger} AUTHORIZATION {owner};
         REVOKE ALL ON SCHEMA {ledger} FROM PUBLIC, {app};
         ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT USAGE ON SCHEMAS TO {app};
         ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {app};
         ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO {app};
         ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT EXECUTE ON FUNCTIONS TO {app};
         COMMIT;"
    );
    execute(client, &format!("rights in database {}", names.database), &statements).await
}

/// Begins a transaction that leaves no statement in any log. It is a message of its own, and
/// so is its COMMIT: the server decides on a whole message, by what holds before it whether to
/// log it as a statement, by what holds after it whether to log it as a slow one.
const UNLOGGED: &str = "BEGIN; SET LOCAL log_statement = 'none'; SET LOCAL log_min_duration_statement = -1; \
                        SET LOCAL log_min_duration_sample = -1; SET LOCAL log_transaction_sample_rate = 0; \
                        SET LOCAL log_duration = off; SET LOCAL log_min_error_statement = 'panic'; \
                        SET LOCAL pgaudit.log = 'none'; SET LOCAL pg_stat_statements.track_utility = off;";

/// What kind of login a role is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginKind {
    /// Acts as the application's role from the start.
    Application,
    /// May become the owner, and is nothing by itself.
    Migrator,
}

/// Sets a login's stored verifier, making the role if need be; the same statement again
/// changes nothing. The statement is kept out of the server's log, whatever it is set to log.
///
/// # Errors
/// If the server refuses.
pub async fn login(
    client: &Client,
    names: &PostgresNames,
    kind: LoginKind,
    user: &str,
    verifier: &str,
) -> Result<(), EnsureError> {
    // A text of another shape would be taken for a password and hashed.
    if !verifier.starts_with("SCRAM-SHA-256$") {
        return Err(EnsureError::NotAVerifier { user: user.to_owned() });
    }
    let (role, database) = (ident(user), ident(&names.database));
    let (group, inherit) = match kind {
        LoginKind::Application => (ident(&names.app()), "TRUE"),
        LoginKind::Migrator => (ident(&names.owner()), "FALSE"),
    };
    let what = format!("login {user}");
    execute(client, &what, UNLOGGED).await?;
    let mut statements = String::new();
    if !has_role(client, user).await? {
        statements += &format!("CREATE ROLE {role} NOLOGIN;");
    }
    statements += &format!(
        "ALTER ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD {};
         GRANT {group} TO {role} WITH INHERIT {inherit}, SET TRUE;
         GRANT CONNECT ON DATABASE {database} TO {role};",
        literal(verifier)
    );
    if kind == LoginKind::Application {
        // One for this database alone would hold over it.
        statements += &format!(
            "ALTER ROLE {role} SET role = {}; ALTER ROLE {role} IN DATABASE {database} RESET role;",
            literal(&names.app())
        );
    }
    execute(client, &what, &statements).await?;
    execute(client, &what, "COMMIT").await
}

async fn has_role(client: &Client, role: &str) -> Result<bool, EnsureError> {
    client
        .query_opt("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1", &[&role])
        .await
        .map(|row| row.is_some())
        .map_err(|source| EnsureError::Statement { what: format!("role {role}"), source })
}

async fn execute(client: &Client, what: &str, statements: &str) -> Result<(), EnsureError> {
    let result = client.batch_execute(statements).await;
    if result.is_err() {
        // A failed transaction would swallow what comes next.
        let _ = client.batch_execute("ROLLBACK").await;
    }
    result.map_err(|source| EnsureError::Statement { what: what.to_owned(), source })
}
