//! Sessions of the monitoring login, one in `postgres` and one in the tenant's database. They stay open while
//! somebody scrapes: a new session costs the server more than a whole scrape.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::Statement;

use super::query::{Collector, KEPT, run};
use super::text::Family;
use super::{clients, settings, tables};
use crate::agent::clients::count::{self, Logins};
use crate::api::names::PostgresNames;
use crate::contract::capacity::Sample;
use crate::postgres::{ConnectError, Connection, describe, immune, over_socket_with};

/// Timeout of the connection.
const CONNECT: Duration = Duration::from_secs(3);
/// The name in `pg_stat_activity`.
const APPLICATION: &str = "servicedb monitoring";

/// The server's own limits: what hangs ends there, too. In `postgres` they are set after the login, so that
/// `pg_settings` still has the server's values.
const LIMITS: &str = "SET statement_timeout = '4s'; SET lock_timeout = '500ms'; SET jit = off; \
                      SET search_path = pg_catalog; SET max_parallel_workers_per_gather = 0; \
                      SET idle_in_transaction_session_timeout = 0; SET transaction_timeout = 0";

/// The error of a session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server refused.
    #[error("{}", describe(.0))]
    Statement(#[from] tokio_postgres::Error),
    /// The time was over.
    #[error("PostgreSQL did not answer in time")]
    TooLong,
}

/// The result of one collector.
pub struct Collected {
    /// Its name.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
    /// The metrics.
    pub result: Result<Vec<Family>, SessionError>,
}

/// An open session with its prepared statements.
pub struct Session {
    connection: Connection,
    version: u32,
    statements: HashMap<&'static str, Statement>,
    kept: HashMap<&'static str, (Instant, Vec<Family>)>,
}

impl Session {
    /// Opens a session in the database `postgres`.
    ///
    /// # Errors
    /// If the server refuses, or does not answer in time.
    pub async fn of_cluster(socket: &str) -> Result<Self, SessionError> {
        let mut session = Self::open(socket, "postgres", "").await?;
        // PostgreSQL before 17 has no transaction_timeout.
        let limits =
            if session.version < 17 { LIMITS.rsplit_once(';').map_or(LIMITS, |(limits, _)| limits) } else { LIMITS };
        session.connection.client.batch_execute(limits).await?;
        session.statements.clear();
        Ok(session)
    }

    /// Opens a session in the tenant's database.
    ///
    /// # Errors
    /// If the server refuses, or does not answer in time.
    pub async fn of_tenant(socket: &str, database: &str) -> Result<Self, SessionError> {
        Self::open(socket, database, immune::MONITOR).await
    }

    async fn open(socket: &str, database: &str, options: &str) -> Result<Self, SessionError> {
        let opening = async {
            let connection = over_socket_with(socket, database, PostgresNames::MONITOR, APPLICATION, options).await?;
            let row = connection.client.query_one("SHOW server_version_num", &[]).await?;
            let version = row.try_get::<_, &str>(0)?.parse::<u32>().unwrap_or_default() / 10_000;
            Ok(Self { connection, version, statements: HashMap::new(), kept: HashMap::new() })
        };
        timeout(CONNECT, opening).await.unwrap_or(Err(SessionError::TooLong))
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Runs collectors until the deadline; those that had no turn failed.
    pub async fn collect(&mut self, collectors: &[Collector], deadline: Instant) -> Vec<Collected> {
        let mut all = Vec::with_capacity(collectors.len());
        for collector in collectors {
            let begin = Instant::now();
            let result = if begin >= deadline {
                Err(SessionError::TooLong)
            } else {
                timeout_at(deadline, self.run(collector)).await.unwrap_or(Err(SessionError::TooLong))
            };
            if result.is_err() {
                // A statement that was prepared before an extension was replaced fails for ever.
                self.statements.clear();
            }
            all.push(Collected { name: collector.name, took: begin.elapsed(), result });
        }
        all
    }

    /// Counts the sessions by client, until the deadline.
    pub async fn clients(&mut self, logins: &Logins, deadline: Instant) -> Collected {
        let begin = Instant::now();
        let reading = async {
            let statement = self.prepared(count::QUERY).await?;
            let rows = self.connection.client.query(&statement, &[]).await?;
            Ok(vec![clients::connections(&count::of_rows(&rows, logins)?)])
        };
        let result = timeout_at(deadline, reading).await.unwrap_or(Err(SessionError::TooLong));
        Collected { name: "servicedb_clients", took: begin.elapsed(), result }
    }

    /// Reads the settings, until the deadline.
    pub async fn settings(&mut self, deadline: Instant) -> Collected {
        let begin = Instant::now();
        let reading = async {
            let statement = self.prepared(settings::SQL).await?;
            Ok(settings::read(&self.connection.client, &statement).await?)
        };
        let result = timeout_at(deadline, reading).await.unwrap_or(Err(SessionError::TooLong));
        Collected { name: "settings", took: begin.elapsed(), result }
    }

    /// The sizes of the database and of its largest tables, for the history of its growth.
    ///
    /// # Errors
    /// If the server refuses.
    pub async fn sizes(&self) -> Result<Sample, SessionError> {
        let client = &self.connection.client;
        let row = client.query_one(tables::SIZE, &[]).await?;
        let mut sample = Sample {
            at: Timestamp::now(),
            database_bytes: row.try_get(0)?,
            wal_position: row.try_get(1)?,
            tables: BTreeMap::new(),
        };
        for row in client.query(tables::LARGEST, &[]).await? {
            sample.tables.insert(row.try_get(0)?, row.try_get(1)?);
        }
        Ok(sample)
    }

    async fn run(&mut self, collector: &Collector) -> Result<Vec<Family>, SessionError> {
        let mut families = Vec::new();
        let version = self.version;
        for query in collector.queries.iter().filter(|query| query.since <= version) {
            if let Some((at, found)) = self.kept.get(query.sql)
                && at.elapsed() < KEPT
            {
                families.extend(found.iter().cloned());
                continue;
            }
            let statement = self.prepared(query.sql).await?;
            let found = run(&self.connection.client, &statement, query).await?;
            if query.opens_files {
                self.kept.insert(query.sql, (Instant::now(), found.clone()));
            }
            families.extend(found);
        }
        Ok(families)
    }

    async fn prepared(&mut self, sql: &'static str) -> Result<Statement, tokio_postgres::Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.connection.client.prepare(sql).await?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }
}
