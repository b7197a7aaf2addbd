//! A session of maintenance in the tenant's database, whose statement can be broken off at any point.
//!
//! `ANALYZE` and `REINDEX` run the expressions of a tenant's indexes. PostgreSQL does so as the owner of the table,
//! with a search path of its own, and takes the caller's rights away meanwhile; the caller is a login that may
//! maintain and nothing else. Such code may never return, or ignore a request to cancel: the session is terminated.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::agent::ensure;
use crate::agent::extensions::OWNERS_PATH;
use crate::api::names::PostgresNames;
use crate::postgres::{ConnectError, Connection, bounded_over_socket, describe, immune};

/// The maximum size of the server's answers, in bytes.
const SIZE: usize = 8 << 20;
/// Timeout of a connection, and of the end of a session.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much later than the server the client ends a statement whose time is over.
const LATER: Duration = Duration::from_secs(2);
/// Interval between two looks at who waits for the statement.
const LOOK: Duration = Duration::from_secs(5);
/// Whether a client, or a job of pg_cron, waits for a lock of this process for more than some moments. `VACUUM` and
/// `REINDEX` hold one that a change of the table needs, and whoever reads the table then waits behind that change.
/// Autovacuum gives way likewise.
const WAITED_FOR: &str = "\
    SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
                   WHERE NOT l.granted AND l.waitstart < now() - '2 s'::interval
                     AND a.backend_type IN ('client backend', 'pg_cron')
                     AND $1 = ANY (pg_blocking_pids(l.pid)))";
/// The name in `pg_stat_activity`.
const APPLICATION: &str = "servicedb maintenance";

/// Why a statement did not complete.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection took too long.
    #[error("PostgreSQL did not answer in time")]
    TooLong,
    /// The server refused.
    #[error("{}", describe(.0))]
    Statement(#[from] tokio_postgres::Error),
    /// It is not done.
    #[error("{0}")]
    Refused(String),
    /// The time of the run is over, the run was withdrawn, or a client waits for it.
    #[error("cancelled, as {0}")]
    BrokenOff(&'static str),
}

/// A session, and its process in the server.
pub struct Session {
    connection: Connection,
    process: i32,
    user: &'static str,
    socket: String,
    database: String,
}

impl Session {
    /// Opens a session of the maintaining login.
    ///
    /// # Errors
    /// If the server refuses, or does not answer in time.
    pub async fn maintainer(socket: &str, database: &str) -> Result<Self, WorkError> {
        Self::open(socket, database, PostgresNames::MAINTAINER, immune::MAINTAINER).await
    }

    /// Opens a session of the monitoring login, which reads catalogs and statistics.
    ///
    /// # Errors
    /// If the server refuses, or does not answer in time.
    pub async fn monitor(socket: &str, database: &str) -> Result<Self, WorkError> {
        let session = Self::open(socket, database, PostgresNames::MONITOR, immune::MONITOR).await?;
        // A catalog of many tables takes longer than a scrape may.
        session.client().batch_execute("SET statement_timeout = '60s'").await?;
        Ok(session)
    }

    /// Opens a session as the owner of the database, who is no superuser, with the path for updates of extensions.
    ///
    /// # Errors
    /// If the server refuses, or does not answer in time.
    pub async fn owner(socket: &str, database: &str, owner: &str) -> Result<Self, WorkError> {
        let options = immune::MAINTAINER
            .replace("-c role=none", &format!("-c role={owner}"))
            .replace("-c search_path=pg_catalog", &format!("-c search_path={OWNERS_PATH}"));
        Self::open(socket, database, PostgresNames::AS_OWNER, &options).await
    }

    async fn open(socket: &str, database: &str, user: &'static str, options: &str) -> Result<Self, WorkError> {
        let opening = async {
            let connection = bounded_over_socket(socket, database, user, APPLICATION, options, SIZE).await?;
            let process = connection.client.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await?.try_get(0)?;
            let (socket, database) = (socket.to_owned(), database.to_owned());
            Ok(Self { connection, process, user, socket, database })
        };
        timeout(PATIENCE, opening).await.unwrap_or(Err(WorkError::TooLong))
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.connection.client
    }

    /// Runs a statement until this time at the latest, until `withdrawn` resolves, or until a client waits for it. The
    /// server has the same limit, so that the statement also ends where this process does not.
    ///
    /// # Errors
    /// If the statement fails, or is broken off.
    pub async fn run(
        &self,
        statement: &str,
        until: Timestamp,
        withdrawn: impl Future<Output = ()>,
    ) -> Result<(), WorkError> {
        const OVER: WorkError = WorkError::BrokenOff("the window or the time of the request is over");
        let left = Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default();
        if left.is_zero() {
            return Err(OVER);
        }
        // Rounded up: a statement that the server ends has had its time.
        let limit = format!("SET statement_timeout = {}", (left.as_millis() + 1).min(2_000_000_000));
        self.client().batch_execute(&limit).await?;
        let broken_off = tokio::select! {
            result = self.client().batch_execute(statement) => return match result {
                Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) && Timestamp::now() >= until => Err(OVER),
                result => Ok(result?),
            },
            () = tokio::time::sleep(left + LATER) => OVER,
            () = withdrawn => WorkError::BrokenOff("other work is under way"),
            () = self.is_waited_for() => WorkError::BrokenOff("another session waits for a lock that it holds"),
        };
        self.end().await;
        Err(broken_off)
    }

    /// Resolves when a client waits for the statement that this session runs.
    async fn is_waited_for(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let waited_for = async {
                let monitor = Self::monitor(&self.socket, &self.database).await?;
                Ok::<bool, WorkError>(monitor.client().query_one(WAITED_FOR, &[&self.process]).await?.try_get(0)?)
            };
            match waited_for.await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "whether a session waits for the maintenance is unknown"),
            }
        }
    }

    /// Terminates the session in the server.
    async fn end(&self) {
        let ended = timeout(PATIENCE, async {
            let connection = ensure::connect_at(&self.socket, "postgres").await.map_err(|error| error.to_string())?;
            let statement = "SELECT pg_catalog.pg_terminate_backend(pid, 2000) FROM pg_catalog.pg_stat_activity
                             WHERE pid = $1 AND usename = $2";
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&self.process, &self.user];
            connection.client.query(statement, &parameters).await.map_err(|error| describe(&error))
        });
        if let Ok(Err(problem)) = ended.await {
            tracing::debug!(problem, process = self.process, "the session of the maintenance cannot be terminated");
        }
    }
}
