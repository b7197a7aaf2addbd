//! pg_cron's scheduler: a process with a superuser's rights, with a session in the tenant's database that no option
//! protects, and jobs that run as the role that scheduled them, by PostgreSQL itself instead of a login.

use tokio_postgres::Client;

use crate::agent::statement::{EnsureError, execute};
use crate::api::names::PostgresNames;
use crate::contract::extension::CRON;
use crate::postgres::{ident, servers};

const WHAT: &str = "the scheduler of pg_cron";

/// Lets the jobs of the owner run: PostgreSQL starts none for a role without `LOGIN`. Nobody logs in as the owner all the
/// same: it has no password, and `pg_hba.conf` rejects it, since its sessions could set one.
///
/// # Errors
/// If the server refuses.
pub async fn keep_login(client: &Client, names: &PostgresNames, is_declared: bool) -> Result<(), EnsureError> {
    let owner = names.owner();
    let query = "SELECT rolcanlogin FROM pg_catalog.pg_roles WHERE rolname = $1";
    let row = client.query_one(query, &[&owner]).await.map_err(failed)?;
    if row.try_get::<_, bool>(0).map_err(failed)? == is_declared {
        return Ok(());
    }
    let login = if is_declared { "LOGIN" } else { "NOLOGIN" };
    execute(client, &owner, &format!("ALTER ROLE {} {login} PASSWORD NULL", ident(&owner))).await
}

/// Keeps the text of the owner's jobs, which may have a secret, out of the log: PostgreSQL adds it to an error. Only jobs
/// are sessions of the owner's own; whoever takes its role keeps the settings of the login.
///
/// # Errors
/// If the server refuses.
pub async fn keep_unlogged(client: &Client, names: &PostgresNames, is_declared: bool) -> Result<(), EnsureError> {
    let owner = names.owner();
    let query = "SELECT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s
                                JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
                                JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
                                WHERE d.datname = $1 AND r.rolname = $2
                                  AND 'log_min_error_statement=panic' = ANY (s.setconfig))";
    let row = client.query_one(query, &[&names.database, &owner]).await.map_err(failed)?;
    if row.try_get::<_, bool>(0).map_err(failed)? == is_declared {
        return Ok(());
    }
    let change = if is_declared { "SET log_min_error_statement = 'panic'" } else { "RESET log_min_error_statement" };
    let statement = format!("ALTER ROLE {} IN DATABASE {} {change}", ident(&owner), ident(&names.database));
    execute(client, &owner, &statement).await
}

/// Keeps the scheduler from what is the tenant's, if the server has loaded its library; returns whether it has. `creates`
/// is whether the extension is about to be created.
///
/// The scheduler's statements name their operators without a schema. A setting for the superuser in this database takes
/// precedence over those of the database and of the server, which are the tenant's, and holds for sessions from then on:
/// a scheduler that runs is ended, and PostgreSQL starts it again after a second. That is done before each attempt to
/// create the extension, as an agent that was killed may have set the setting alone.
///
/// Its commits wait for no replica: while none answers, 1.6.5 does not end, and a fast shutdown waits for it.
///
/// # Errors
/// If the server refuses.
pub async fn prepare(client: &Client, names: &PostgresNames, creates: bool) -> Result<bool, EnsureError> {
    let query = "
        SELECT 'pg_cron' = ANY (string_to_array(replace(current_setting('shared_preload_libraries'), ' ', ''), ',')),
               EXISTS (SELECT FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
                       WHERE d.datname = current_database() AND s.setrole = 'postgres'::regrole
                         AND s.setconfig @> ARRAY['search_path=pg_catalog', 'role=none', 'synchronous_commit=local'])";
    let row = client.query_one(query, &[]).await.map_err(failed)?;
    let (is_loaded, is_protected): (bool, bool) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    if is_loaded && (creates || !is_protected) {
        let set = format!("ALTER ROLE postgres IN DATABASE {} SET", ident(&names.database));
        // One message: the server carries it out to its end, even if this process is killed.
        let statements = format!(
            "BEGIN;
             {set} search_path = pg_catalog; {set} role = 'none'; {set} synchronous_commit = 'local';
             COMMIT;
             SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE backend_type = 'pg_cron launcher'"
        );
        execute(client, WHAT, &statements).await?;
    }
    Ok(is_loaded)
}

/// The problem if the image does not have the library for this server: no restart loads it.
///
/// # Errors
/// If the server fails the query.
pub async fn lacking(client: &Client) -> Result<Option<String>, EnsureError> {
    let row = client.query_one("SELECT current_setting('server_version')", &[]).await.map_err(failed)?;
    let major = servers::major(row.try_get::<_, &str>(0).map_err(failed)?);
    let major = major.filter(|major| !servers::has_library(*major, CRON));
    Ok(major.map(|major| format!("the database's image does not have the library {CRON}.so for PostgreSQL {major}")))
}

/// Lets the owner schedule jobs, once the extension is there. `cron.alter_job` and `cron.schedule_in_database` stay the
/// superuser's: the first runs a statement as the superuser in the search path of its caller.
///
/// The table gets a constraint against jobs of the superuser, which a person could insert: none would run, and at each
/// one 1.6.5 crashes the server. Those that it has are removed. The triggers of the table are the library's, which need
/// not be loaded; the scheduler notices the constraint itself.
///
/// # Errors
/// If the server refuses.
pub async fn admit(client: &Client, names: &PostgresNames) -> Result<(), EnsureError> {
    let query = "SELECT has_schema_privilege($1::text::name, n.oid, 'USAGE'),
                        EXISTS (SELECT FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
                                WHERE t.relnamespace = n.oid AND t.relname = 'job'
                                  AND c.conname = 'servicedb_no_superuser')
                 FROM pg_extension e
                 JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
                 JOIN pg_namespace n ON d.classid = 'pg_namespace'::regclass AND d.objid = n.oid
                 WHERE e.extname = 'pg_cron' AND n.nspname = 'cron'";
    let Some(row) = client.query_opt(query, &[&names.owner()]).await.map_err(failed)? else { return Ok(()) };
    let (may, is_guarded): (bool, bool) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    if !is_guarded {
        let guard = "BEGIN;
                     SET LOCAL session_replication_role = replica;
                     DELETE FROM cron.job WHERE username = 'postgres';
                     ALTER TABLE cron.job ADD CONSTRAINT servicedb_no_superuser CHECK (username <> 'postgres');
                     COMMIT";
        execute(client, WHAT, guard).await?;
    }
    if !may {
        execute(client, WHAT, &format!("GRANT USAGE ON SCHEMA cron TO {}", ident(&names.owner()))).await?;
    }
    Ok(())
}

fn failed(source: tokio_postgres::Error) -> EnsureError {
    EnsureError::Statement { what: WHAT.to_owned(), source }
}
