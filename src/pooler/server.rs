//! The PostgreSQL behind the pooler, as a login by the pooler's own certificate finds it.

use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::error::SqlState;

use super::environment::Environment;
use super::probes::State;
use super::report::Reporter;
use crate::api::names::PostgresNames;
use crate::backoff::Backoff;
use crate::contract::pod::POSTGRES_PORT;
use crate::contract::pooler::TLS_DIR;
use crate::postgres::{CertificateLogin, Connection, by_certificate, describe, immune};

/// Timeout of the proof of a login.
const PATIENCE: Duration = Duration::from_secs(5);

/// Interval between two looks at the connection.
const WATCHED: Duration = Duration::from_millis(50);
/// The number of looks between two queries, one a second.
const BEATS: u32 = 20;
/// Interval between two attempts at a server that is not there.
const BEAT: Duration = Duration::from_secs(1);
/// How long an answer is waited for.
const SILENCE: Duration = Duration::from_secs(3);

/// A running server. Another process, or one on another instance, is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whether it accepts no writes.
    pub read_only: bool,
    address: String,
    started_at: i64,
}

async fn connect(environment: &Environment, patience: Duration) -> Result<Connection, String> {
    let read = |file: &str| {
        std::fs::read_to_string(format!("{TLS_DIR}/{file}")).map_err(|error| format!("{TLS_DIR}/{file}: {error}"))
    };
    let (ca, certificate, key) = (read("ca.crt")?, read("pooler.crt")?, read("pooler.key")?.into());
    let login = CertificateLogin {
        host: &environment.host,
        port: POSTGRES_PORT,
        database: "postgres",
        user: PostgresNames::POOLER,
        certificate: certificate.as_bytes(),
        key: &key,
        ca: &ca,
        application_name: "servicedb pooler",
        options: immune::ANY_LOGIN,
    };
    by_certificate(&login, patience).await.map_err(|error| error.to_string())
}

/// The server that answers now.
///
/// # Errors
/// If none does, within this time.
pub async fn identity(environment: &Environment, patience: Duration) -> Result<Identity, String> {
    let connection = connect(environment, patience).await?;
    let query = "SELECT pg_catalog.pg_is_in_recovery(), COALESCE(pg_catalog.inet_server_addr()::text, ''),
                        (EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint";
    let asked = connection.client.query_one(query, &[]);
    let row = tokio::time::timeout(patience, asked).await.map_err(|_| "the server does not answer".to_owned())?;
    let row = row.map_err(|error| describe(&error))?;
    Ok(Identity { read_only: row.get(0), address: row.get(1), started_at: row.get(2) })
}

/// Whether a server accepts writes. One whose connections are all used is there, too.
pub async fn accepts_writes(environment: &Environment, patience: Duration) -> bool {
    match identity(environment, patience).await {
        Ok(identity) => !identity.read_only,
        Err(error) => error.contains(SqlState::TOO_MANY_CONNECTIONS.code()),
    }
}

/// Notices that the server is lost: by the end of a connection.
#[derive(Default)]
pub struct Monitor {
    connection: Option<Connection>,
}

impl Monitor {
    /// Returns when a server that was there is lost. It may be dropped at any point, and called again.
    pub async fn lost(&mut self, environment: &Environment) {
        let mut beats = 0_u32;
        loop {
            tokio::time::sleep(WATCHED).await;
            let Some(connection) = &self.connection else {
                match connect(environment, PATIENCE).await {
                    Ok(connection) => self.connection = Some(connection),
                    Err(error) => {
                        tracing::debug!(error, "no server answers");
                        tokio::time::sleep(BEAT).await;
                    }
                }
                continue;
            };
            beats = beats.wrapping_add(1);
            if beats.is_multiple_of(BEATS) {
                // The answer does not matter, a slow server is there; but data that a lost peer does not
                // acknowledge closes the connection.
                let _ = tokio::time::timeout(SILENCE, connection.client.simple_query("")).await;
            }
            if connection.is_closed() {
                self.connection = None;
                return;
            }
        }
    }

    /// Forgets the server: another one leads.
    pub fn forget(&mut self) {
        self.connection = None;
    }
}

/// Proves once that logins can be looked up: until then the pod is not ready. Later failures are those of
/// the database, for which clients wait.
pub async fn prove(environment: Environment, reporter: Reporter, state: watch::Sender<State>) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        let proof = async {
            let connection = connect(&environment, PATIENCE).await?;
            let query = format!("SELECT usename FROM {}('')", PostgresNames::POOLER_FUNCTION);
            let asked = tokio::time::timeout(PATIENCE, connection.client.simple_query(&query)).await;
            asked.map_err(|_| "the server does not answer".to_owned())?.map_err(|error| describe(&error)).map(drop)
        };
        match proof.await {
            Ok(()) => {
                state.send_modify(|state| state.proved = true);
                reporter.update(|report| report.trouble = None);
                return;
            }
            Err(error) => {
                tracing::warn!(error, "logins cannot be looked up; retrying");
                reporter.update(|report| report.trouble = Some(error));
                backoff.wait().await;
            }
        }
    }
}
