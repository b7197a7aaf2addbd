//! The session in which migrations run: its settings, its role, and the lock that excludes a
//! second run.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::apply::lost;
use super::outcome::Stopped;
use super::stop::Stop;
use crate::api::conditions::reason;
use crate::postgres::ident;

/// The advisory lock of a database: "servicdb" in ASCII. Advisory locks are per database.
const LOCK: i64 = 0x7365_7276_6963_6462;
const LOCK_POLL: Duration = Duration::from_millis(250);
/// The first version with `transaction_timeout`.
const TRANSACTION_TIMEOUT_SINCE: u32 = 17_00_00;

/// When the server drops a client whose node failed, and releases its lock: after about 30 s
/// instead of the kernel's two hours.
const LOST_AFTER: &str = "SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; \
                              SET tcp_keepalives_count = 3; SET tcp_user_timeout = 30000;";

/// The search path of the application's sessions: the database's own (`ALTER DATABASE … SET`, also
/// one set by the previous file), otherwise the server's. The current role is already the owner,
/// and the path is `pg_catalog` only.
const SEARCH_PATH: &str = "SELECT set_config('search_path', COALESCE( \
    (SELECT substr(setting, length('search_path=') + 1) \
     FROM pg_db_role_setting AS own, unnest(own.setconfig) AS setting \
     WHERE own.setrole = 0 AND setting LIKE 'search\\_path=%' AND own.setdatabase IN \
           (0, (SELECT oid FROM pg_database WHERE datname = current_database())) \
     ORDER BY own.setdatabase DESC LIMIT 1), \
    (SELECT reset_val FROM pg_settings WHERE name = 'search_path')), false);";

/// Timeouts of a run.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long it waits for another run to end.
    pub run_lock: Duration,
    /// How long a statement waits for a table's lock: other sessions queue behind it meanwhile.
    pub table_lock: Duration,
    /// How long a statement may take; zero is no limit.
    pub statement: Duration,
    /// The delay before a file is retried after a lock timeout; doubled each time.
    pub conflict_pause: Duration,
    /// The number of attempts.
    pub conflict_attempts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            run_lock: Duration::from_secs(60),
            table_lock: Duration::from_secs(5),
            statement: Duration::ZERO,
            conflict_pause: Duration::from_secs(1),
            conflict_attempts: 5,
        }
    }
}

/// The statements that reset a session to the state that migrations expect.
#[derive(Debug, Clone)]
pub struct Settings(String);

impl Settings {
    fn new(owner: &str, limits: &Limits, server_version: u32) -> Self {
        let (lock_timeout, statement_timeout) = (limits.table_lock.as_millis(), limits.statement.as_millis());
        // Messages below an error may contain data, and are not read. A server that checks
        // for its client ends the statements of a killed run.
        let mut statements = format!(
            "RESET ALL; SET ROLE {}; SET search_path = pg_catalog; SET lock_timeout = {lock_timeout}; \
             SET statement_timeout = {statement_timeout}; SET idle_in_transaction_session_timeout = 0; \
             SET idle_session_timeout = 0; SET default_transaction_read_only = off; \
             SET default_transaction_isolation = 'read committed'; SET default_transaction_deferrable = off; \
             SET row_security = on; \
             SET client_min_messages = error; SET standard_conforming_strings = on; \
             SET client_connection_check_interval = 2000; {LOST_AFTER} {SEARCH_PATH}",
            ident(owner),
        );
        if server_version >= TRANSACTION_TIMEOUT_SINCE {
            statements += " SET transaction_timeout = 0;";
        }
        Self(statements)
    }

    /// The statements.
    pub fn sql(&self) -> &str {
        &self.0
    }
}

/// Takes the lock and sets the session up. The lock is released with the session.
///
/// # Errors
/// If another run holds the lock for longer than the limit, if the role cannot be set, or if the
/// connection is lost.
pub async fn prepare(client: &Client, owner: &str, limits: &Limits, stop: &Stop) -> Result<Settings, Stopped> {
    let deadline = Instant::now() + limits.run_lock;
    let mut waiting = false;
    let server_version = loop {
        // Waiting inside of the server would hold a snapshot, and a concurrent index build of the
        // run with the lock would wait for it.
        let statement = format!("SELECT pg_try_advisory_lock({LOCK}), current_setting('server_version_num')");
        let rows = rows(client, &statement).await.map_err(unavailable)?;
        let Some(row) = rows.first() else {
            return Err(Stopped::unavailable(reason::NO_PRIMARY, "the server did not answer a query"));
        };
        if row.get(0) == Some("t") {
            break row.get(1).and_then(|number| number.parse().ok()).unwrap_or(0);
        }
        if !waiting || Instant::now() >= deadline {
            let holder = holder(client).await.map_err(unavailable)?;
            if waiting {
                let message = format!(
                    "another migration run holds this database's lock for more than {} s: {holder}; this run is tried \
                     again later",
                    limits.run_lock.as_secs()
                );
                return Err(Stopped::later(reason::MIGRATIONS_RUNNING, message));
            }
            tracing::info!(holder, "waiting for another migration run to end");
            waiting = true;
        }
        if !stop.sleep(LOCK_POLL).await {
            return Err(Stopped::interrupted());
        }
    };
    let settings = Settings::new(owner, limits, server_version);
    client.batch_execute(settings.sql()).await.map_err(unavailable)?;
    Ok(settings)
}

/// Sets the session up without the lock, which another process of the same run holds.
///
/// # Errors
/// If the role cannot be set, or the connection is lost.
pub async fn assume(client: &Client, owner: &str, limits: &Limits) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(Settings::new(owner, limits, 0).sql()).await
}

async fn holder(client: &Client) -> Result<String, tokio_postgres::Error> {
    let (high, low) = (LOCK >> 32, LOCK & 0xffff_ffff);
    let statement = format!(
        "SELECT a.pid, a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.classid = {high} AND l.objid = {low} \
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    );
    let rows = rows(client, &statement).await?;
    let describe = |row: &SimpleQueryRow| {
        format!("{} (PostgreSQL process {})", row.get(1).unwrap_or_default(), row.get(0).unwrap_or_default())
    };
    Ok(rows.first().map_or_else(|| "it has just ended".to_owned(), describe))
}

async fn rows(client: &Client, statement: &str) -> Result<Vec<SimpleQueryRow>, tokio_postgres::Error> {
    let messages = client.simple_query(statement).await?;
    let row = |message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None };
    Ok(messages.into_iter().filter_map(row).collect())
}

/// Before a migration runs, the server's errors come from the set-up, not from the migration: a
/// role that does not exist yet, a server that is still a replica.
pub fn unavailable(error: tokio_postgres::Error) -> Stopped {
    match error.as_db_error() {
        None => lost(&error),
        Some(db) => {
            let message = format!("the database is not ready for migrations: {}", db.message());
            let mut stopped = Stopped::unavailable(reason::NO_PRIMARY, message);
            stopped.failure.sqlstate = Some(db.code().code().to_owned());
            stopped
        }
    }
}
