//! Roles, database and rights: one idempotent run at every promotion, so that there is no
//! bootstrap whose interruption would leave half of them.

use tokio_postgres::Client;

use super::extensions::{self, Places, Unmet, scheduler};
use super::statement::{EnsureError, execute};
use crate::api::names::PostgresNames;
use crate::contract::clients;
use crate::contract::extension::{CRON, Extension};
use crate::contract::pod::SOCKET_DIR;
use crate::postgres::{Connection, ident, literal, over_socket};

/// The functions that `pg_rewind` calls on its source, for a role that is no superuser.
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_catalog.pg_ls_dir(text, boolean, boolean)",
    "pg_catalog.pg_stat_file(text, boolean)",
    "pg_catalog.pg_read_binary_file(text)",
    "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// For every session here: a name without a schema never resolves to an object of the tenant, no
/// statement waits forever, and none waits for a replica that is absent.
const SESSION: &str = "SET search_path = pg_catalog; SET lock_timeout = '5s'; SET statement_timeout = '60s'; \
                       SET synchronous_commit = local; SET client_min_messages = warning;";

/// The maximum number of the reader's sessions: those that a tenant's code keeps busy take no
/// connections from others.
const READERS: i32 = 10;
/// The maximum number of the sessions that read statistics: the agent's two, and those of people.
const MONITORS: i32 = 8;
/// The maximum number of the sessions that run a team's queries: one works, others may be ending.
const QUERIERS: i32 = 4;
/// The room for temporary files of such a session. Only a superuser may change the setting.
const QUERY_FILES: &str = "256MB";
/// The maximum number of the maintaining login's sessions: one works, one removes what a broken-off one left.
const MAINTAINERS: i32 = 4;
/// The columns of the planner's statistics from which the size of an index is estimated: widths, and no values.
const WIDTHS: &str = "starelid, staattnum, stainherit, stanullfrac, stawidth";
/// The relations of the ledger.
const LEDGER: [&str; 2] = ["migrations", "revision"];

/// A connection as superuser, for idempotent statements.
///
/// # Errors
/// If the server does not run or refuses.
pub async fn connect(database: &str) -> Result<Connection, EnsureError> {
    connect_at(SOCKET_DIR, database).await
}

/// The same at a socket in another folder.
///
/// # Errors
/// If the server does not run or refuses.
pub async fn connect_at(socket: &str, database: &str) -> Result<Connection, EnsureError> {
    let connection = over_socket(socket, database, "servicedb agent").await?;
    // The owner of a database may set another role for every session in it.
    execute(&connection.client, "the session", "SET ROLE NONE").await?;
    execute(&connection.client, "the session", SESSION).await?;
    Ok(connection)
}

/// Creates the roles and rights that the first replica needs.
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

/// Ensures roles, database, rights and extensions. Single extensions that are not as declared are returned,
/// since the rest serves. `application_creates` is whether no migrations are declared: the application then creates its
/// own schema.
///
/// In the tenant's database a superuser only changes catalogs, and runs no code of the tenant; statements
/// that read the tenant's objects, or could run its code, have another login.
///
/// # Errors
/// If the server does not run or refuses.
pub async fn everything(
    socket: &str,
    names: &PostgresNames,
    declared: &[Extension],
    found: &Places,
    application_creates: bool,
) -> Result<Unmet, EnsureError> {
    let connection = connect_at(socket, "postgres").await?;
    let client = &connection.client;
    replication(client).await?;
    own_records(client).await?;
    group_roles(client, names).await?;
    let declares_cron = declared.iter().any(|extension| extension.name == CRON);
    scheduler::keep_login(client, names, declares_cron).await?;
    local_logins(client, names).await?;
    statement_statistics(client).await?;
    database(client, names).await?;
    scheduler::keep_unlogged(client, names, declares_cron).await?;
    drop(connection);

    let connection = connect_at(socket, &names.database).await?;
    contents(&connection.client, names, application_creates).await?;
    locales(&connection.client).await?;
    extensions::install(&connection.client, socket, names, declared, found).await
}

/// Ensures the pooler's login, with the function that returns a login's verifier to it alone; without a pooler,
/// that there is neither. Both are in the database `postgres`, where no tenant can connect.
///
/// The function honours `NOLOGIN` and `VALID UNTIL`, as PostgreSQL does for its own logins, and never returns the
/// verifier of a superuser or of a role for replication.
///
/// # Errors
/// If the server does not run or refuses.
pub async fn pooler(socket: &str, is_declared: bool) -> Result<(), EnsureError> {
    let connection = connect_at(socket, "postgres").await?;
    let client = &connection.client;
    let (role, function) = (PostgresNames::POOLER, PostgresNames::POOLER_FUNCTION);
    let exists = has_role(client, role).await?;
    if !is_declared {
        let statements = format!("DROP FUNCTION IF EXISTS {function}(text); ALTER ROLE {role} NOLOGIN;");
        return if exists { execute(client, "the removal of the pooler's login", &statements).await } else { Ok(()) };
    }
    own_records(client).await?;
    let create = if exists { String::new() } else { format!("CREATE ROLE {role} NOLOGIN;") };
    let statements = format!(
        "BEGIN; {create}
         CREATE OR REPLACE FUNCTION {function}(login text) RETURNS TABLE (usename text, passwd text)
         LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog
         AS $$
             SELECT rolname::text, rolpassword FROM pg_catalog.pg_authid
             WHERE rolname = login AND rolcanlogin AND NOT rolsuper AND NOT rolreplication
               AND (rolvaliduntil IS NULL OR rolvaliduntil > pg_catalog.now())
               AND rolpassword LIKE 'SCRAM-SHA-256$%'
         $$;
         REVOKE ALL ON FUNCTION {function}(text) FROM PUBLIC;
         GRANT USAGE ON SCHEMA servicedb TO {role};
         GRANT EXECUTE ON FUNCTION {function}(text) TO {role};
         GRANT CONNECT ON DATABASE postgres TO {role};
         ALTER ROLE {role} LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
             CONNECTION LIMIT -1 PASSWORD NULL VALID UNTIL 'infinity';
         ALTER ROLE {role} RESET ALL;
         COMMIT;"
    );
    execute(client, "the pooler's login", &statements).await
}

/// Ensures the extensions only: another attempt at those that [`everything`] could not create.
///
/// # Errors
/// If the server does not run or refuses.
pub async fn declared_extensions(
    socket: &str,
    names: &PostgresNames,
    declared: &[Extension],
) -> Result<Unmet, EnsureError> {
    let connection = connect_at(socket, &names.database).await?;
    extensions::install(&connection.client, socket, names, declared, &Places::new()).await
}

/// The table of the agent's records that must be readable without Vault.
async fn own_records(client: &Client) -> Result<(), EnsureError> {
    let statements = "\
        CREATE SCHEMA IF NOT EXISTS servicedb;
        CREATE TABLE IF NOT EXISTS servicedb.credentials (
            only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
            generation bigint NOT NULL,
            rotated_at timestamptz NOT NULL
        );
        ALTER TABLE servicedb.credentials ADD COLUMN IF NOT EXISTS logins text;
        CREATE TABLE IF NOT EXISTS servicedb.clients (
            client     text PRIMARY KEY,
            account    text NOT NULL,
            generation bigint NOT NULL DEFAULT 0,
            rotated_at timestamptz,
            logins     text,
            granted    text[] NOT NULL DEFAULT '{}',
            removed_at timestamptz
        );
        ALTER TABLE servicedb.clients ADD COLUMN IF NOT EXISTS admitted_at timestamptz;
        CREATE TABLE IF NOT EXISTS servicedb.short_lived (
            client            text PRIMARY KEY,
            role              text NOT NULL,
            admitted_by       text NOT NULL,
            connection_limit  integer NOT NULL,
            statement_timeout text,
            longest_seconds   double precision NOT NULL,
            most              integer NOT NULL
        );";
    execute(client, "the agent's own records", statements).await
}

/// The statistics of statements, of all databases: in `postgres`, where no tenant sees them. The library is
/// preloaded in every server of the database image.
async fn statement_statistics(client: &Client) -> Result<(), EnsureError> {
    let what = "the statistics of statements";
    let available = client
        .query_opt("SELECT 1 FROM pg_catalog.pg_available_extensions WHERE name = 'pg_stat_statements'", &[])
        .await
        .map_err(|source| EnsureError::Statement { what: what.to_owned(), source })?;
    if available.is_none() {
        return Ok(());
    }
    let statements = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA public;
                      ALTER EXTENSION pg_stat_statements UPDATE;";
    execute(client, what, statements).await
}

async fn group_roles(client: &Client, names: &PostgresNames) -> Result<(), EnsureError> {
    for role in [names.owner(), names.app(), PostgresNames::AUDIT.to_owned()] {
        if !has_role(client, &role).await? {
            execute(client, &role, &format!("CREATE ROLE {} NOLOGIN", ident(&role))).await?;
        }
    }
    Ok(())
}

/// The logins of the local socket. A tenant's code that runs as one of them may change the role's
/// settings and its password, which are reset here; the password has no use, since these roles are rejected
/// over TCP.
async fn local_logins(client: &Client, names: &PostgresNames) -> Result<(), EnsureError> {
    let mut statements = String::new();
    let (monitor, maintainer) = (PostgresNames::MONITOR, PostgresNames::MAINTAINER);
    let queries = PostgresNames::QUERIES;
    for (role, limit) in [
        (PostgresNames::READER, READERS),
        (PostgresNames::AS_OWNER, -1),
        (monitor, MONITORS),
        (maintainer, MAINTAINERS),
        (queries, QUERIERS),
    ] {
        if !has_role(client, role).await? {
            statements += &format!("CREATE ROLE {role};");
        }
        // Inheritance is a property of the member.
        let inherit = if [monitor, maintainer].contains(&role) { "INHERIT" } else { "NOINHERIT" };
        statements += &format!(
            "ALTER ROLE {role} LOGIN {inherit} NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
                 CONNECTION LIMIT {limit} PASSWORD NULL VALID UNTIL 'infinity';
             ALTER ROLE {role} RESET ALL;"
        );
    }
    statements += &format!("ALTER ROLE {queries} SET temp_file_limit = '{QUERY_FILES}';");
    // Servicedb's own work is no work of the service. People work as the owner, and a team's queries are its own.
    for role in [PostgresNames::READER, monitor, maintainer] {
        statements += &format!("ALTER ROLE {role} SET pgaudit.log = 'none';");
    }
    let owner = ident(&names.owner());
    statements += &format!("GRANT {owner} TO {};", PostgresNames::AS_OWNER);
    statements += &format!("GRANT pg_monitor TO {monitor}; GRANT CONNECT ON DATABASE postgres TO {monitor};");
    // `pg_maintain` alone reaches no table: its schema needs USAGE, which the owner has.
    statements += &format!("GRANT {owner} TO {maintainer};");
    // PostgreSQL has it since version 17.
    if has_role(client, "pg_maintain").await? {
        statements += &format!("GRANT pg_maintain TO {maintainer};");
    }
    execute(client, "the local logins", &statements).await
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
         GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {app};
         GRANT CONNECT ON DATABASE {database} TO {reader}, {as_owner}, {monitor}, {queries}, {maintainer};
         ALTER ROLE {reader} IN DATABASE {database} RESET ALL;
         ALTER ROLE {as_owner} IN DATABASE {database} RESET ALL;
         ALTER ROLE {monitor} IN DATABASE {database} RESET ALL;
         ALTER ROLE {queries} IN DATABASE {database} RESET ALL;
         ALTER ROLE {maintainer} IN DATABASE {database} RESET ALL;",
        queries = PostgresNames::QUERIES,
        maintainer = PostgresNames::MAINTAINER,
        monitor = PostgresNames::MONITOR,
        reader = PostgresNames::READER,
        as_owner = PostgresNames::AS_OWNER,
    );
    execute(client, &what, &rights).await
}

/// Rights inside the database. The ledger's schema is created here, so that the application never has a
/// right to it. The owner may have dropped `public`.
///
/// An application that creates its own schema owns the objects in it, and the owner of the database is
/// its member: migrations that are declared later can change it. Its rights then stay until a
/// migration revokes them, since a service may create at each start.
async fn contents(client: &Client, names: &PostgresNames, application_creates: bool) -> Result<(), EnsureError> {
    let (owner, app, ledger) = (ident(&names.owner()), ident(&names.app()), PostgresNames::LEDGER_SCHEMA);
    let (reader, monitor) = (PostgresNames::READER, PostgresNames::MONITOR);
    let what = format!("rights in database {}", names.database);
    let failed = |source| EnsureError::Statement { what: what.clone(), source };
    let present = client
        .query(
            "SELECT 'public' FROM pg_catalog.pg_namespace WHERE nspname = 'public'
             UNION ALL
             SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = ANY ($2) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')",
            &[&ledger, &LEDGER.as_slice()],
        )
        .await
        .map_err(failed)?;
    let mut statements = format!(
        "BEGIN;
         CREATE SCHEMA IF NOT EXISTS {ledger} AUTHORIZATION {owner};
         REVOKE ALL ON SCHEMA {ledger} FROM PUBLIC, {app};
         GRANT USAGE ON SCHEMA {ledger} TO {reader};
         GRANT SELECT ({WIDTHS}) ON pg_catalog.pg_statistic TO {monitor};
         ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {ledger} GRANT SELECT ON TABLES TO {reader};
         ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT USAGE ON SCHEMAS TO {app};
         ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {app};
         ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT USAGE, SELECT, UPDATE ON SEQUENCES TO {app};
         ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT EXECUTE ON FUNCTIONS TO {app};"
    );
    if application_creates {
        statements += &format!("GRANT {app} TO {owner}; GRANT CREATE ON DATABASE {} TO {app};", ident(&names.database));
    }
    for row in present {
        match row.try_get::<_, &str>(0).map_err(failed)? {
            "public" => {
                statements +=
                    &format!("REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO {app};");
                if application_creates {
                    statements += &format!("GRANT CREATE ON SCHEMA public TO {app};");
                }
            }
            // In a database that is older than the reader.
            relation => statements += &format!("GRANT SELECT ON {ledger}.{} TO {reader};", ident(relation)),
        }
    }
    execute(client, &what, &(statements + "COMMIT;")).await
}

/// The collations of the image's locales (`COLLATE "en_US.utf8"`), for a database that was initialised by an
/// image without them. initdb imports them otherwise.
async fn locales(client: &Client) -> Result<(), EnsureError> {
    let statement = "\
        SELECT pg_catalog.pg_import_system_collations('pg_catalog'::pg_catalog.regnamespace)
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_collation WHERE collname = 'en_US.utf8'
                          AND collnamespace = 'pg_catalog'::pg_catalog.regnamespace)";
    execute(client, "the collations of the image's locales", statement).await
}

/// Begins a transaction that leaves no statement in any log, whatever the spec, a database or a
/// library configures. It is a message of its own, and so is its COMMIT: the server decides for each
/// message as a whole, by the settings before it whether to log it as a statement, and by
/// those after it whether to log it as a slow one.
///
/// `log_min_messages` alone suppresses every message below PANIC: statements, durations, parse trees
/// (`debug_print_…`), statistics, errors, lock waits, `pgaudit`, `auto_explain`. `track_activities`
/// keeps the statement out of the activity that another session's deadlock report and the
/// postmaster's report of a crash quote. The others apply in case a library raises the level.
pub const UNLOGGED: &str = "BEGIN; SET LOCAL log_min_messages = 'panic'; SET LOCAL client_min_messages = 'error'; \
                        SET LOCAL track_activities = off; \
                        SET LOCAL log_statement = 'none'; SET LOCAL log_min_duration_statement = -1; \
                        SET LOCAL log_min_duration_sample = -1; SET LOCAL log_transaction_sample_rate = 0; \
                        SET LOCAL log_duration = off; SET LOCAL log_min_error_statement = 'panic'; \
                        SET LOCAL debug_print_parse = off; SET LOCAL debug_print_rewritten = off; \
                        SET LOCAL debug_print_plan = off; \
                        SET LOCAL pgaudit.log = 'none'; SET LOCAL pg_stat_statements.track_utility = off;";

/// The kind of a login.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LoginKind<'a> {
    /// Acts as the application's role from the start.
    Application,
    /// May become the owner, and has no rights of its own.
    Migrator,
    /// Acts as the role of this client from the start.
    Client(&'a clients::Client),
}

impl LoginKind<'_> {
    /// The login of a generation.
    pub fn login(self, names: &PostgresNames, generation: i64) -> String {
        match self {
            Self::Application => names.login(generation),
            Self::Migrator => names.migrator_login(generation),
            Self::Client(client) => names.client_login(&client.name, generation),
        }
    }

    /// The role whose rights it has.
    pub fn role(self, names: &PostgresNames) -> String {
        match self {
            Self::Application => names.app(),
            Self::Migrator => names.owner(),
            Self::Client(client) => names.client(&client.name),
        }
    }
}

/// Sets a login's stored verifier, and creates the role if it is missing; idempotent. The statement is
/// kept out of the server's log, whatever the settings.
///
/// # Errors
/// If the server refuses.
pub async fn login(
    client: &Client,
    names: &PostgresNames,
    kind: LoginKind<'_>,
    user: &str,
    verifier: &str,
) -> Result<(), EnsureError> {
    // PostgreSQL would hash any other text as a password.
    if !verifier.starts_with("SCRAM-SHA-256$") {
        return Err(EnsureError::NotAVerifier { user: user.to_owned(), in_commands: names.in_commands().to_owned() });
    }
    let (role, database) = (ident(user), ident(&names.database));
    let group = ident(&kind.role(names));
    let inherit = if kind == LoginKind::Migrator { "FALSE" } else { "TRUE" };
    let limit = match kind {
        LoginKind::Client(client) => connection_limit(client),
        _ => -1,
    };
    let what = format!("login {user}");
    execute(client, &what, UNLOGGED).await?;
    let mut statements = String::new();
    if !has_role(client, user).await? {
        statements += &format!("CREATE ROLE {role} NOLOGIN;");
    }
    statements += &format!(
        "ALTER ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
         CONNECTION LIMIT {limit} VALID UNTIL 'infinity' PASSWORD {};
         GRANT {group} TO {role} WITH INHERIT {inherit}, SET TRUE;
         GRANT CONNECT ON DATABASE {database} TO {role};",
        literal(verifier)
    );
    if kind != LoginKind::Migrator {
        // A setting for this database only would take precedence.
        statements += &format!(
            "ALTER ROLE {role} SET role = {}; ALTER ROLE {role} IN DATABASE {database} RESET role;",
            literal(&kind.role(names))
        );
    }
    if let LoginKind::Client(client) = kind {
        statements += &format!("GRANT {} TO {role} WITH INHERIT FALSE, SET FALSE;", ident(&names.clients()));
        statements += &limits(&role, &database, client);
    }
    execute(client, &what, &statements).await?;
    execute(client, &what, "COMMIT").await
}

/// The limits of a client's login, which a change of the spec changes without new credentials.
pub fn limits(role: &str, database: &str, client: &clients::Client) -> String {
    let timeout = match statement_timeout(client) {
        Some(timeout) => format!("SET statement_timeout = '{timeout}'"),
        None => "RESET statement_timeout".to_owned(),
    };
    format!(
        "ALTER ROLE {role} CONNECTION LIMIT {}; ALTER ROLE {role} {timeout};
         ALTER ROLE {role} IN DATABASE {database} RESET statement_timeout;",
        connection_limit(client)
    )
}

/// Whether a login with this limit of its sessions, and these settings for all databases, has the limits of its client.
pub fn has_limits(limit: i32, settings: &[String], client: &clients::Client) -> bool {
    let timeout = settings.iter().find_map(|setting| setting.strip_prefix("statement_timeout="));
    limit == connection_limit(client) && timeout == statement_timeout(client).as_deref()
}

/// The limit of the sessions of a client's login, as PostgreSQL has it.
pub fn connection_limit(client: &clients::Client) -> i32 {
    client.connection_limit.unwrap_or(-1)
}

/// The timeout of its statements, as PostgreSQL has it; none: the server's.
pub fn statement_timeout(client: &clients::Client) -> Option<String> {
    client.statement_timeout_seconds.map(|seconds| format!("{seconds}s"))
}

/// Whether a role exists.
///
/// # Errors
/// If the server refuses.
pub async fn has_role(client: &Client, role: &str) -> Result<bool, EnsureError> {
    client
        .query_opt("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1", &[&role])
        .await
        .map(|row| row.is_some())
        .map_err(|source| EnsureError::Statement { what: format!("role {role}"), source })
}
