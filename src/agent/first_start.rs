//! The first start of a database that this agent has just initialised, or restored in place: by the agent, while
//! Patroni is still loading. Patroni then finds a running primary and adopts it, and the first replica finds the
//! role that it streams with. After a restore in place Patroni would not promote it: by its record of the leader's
//! position the instance lacks WAL.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::ensure;
use crate::contract::pod::PGDATA;
use crate::output::Output;
use crate::postgres::servers;

/// Timeout; after it Patroni starts PostgreSQL, as at any other start.
const PATIENCE: Duration = Duration::from_secs(20);
/// Interval between two attempts to connect.
const POLL: Duration = Duration::from_millis(15);

/// Starts PostgreSQL and creates the replication roles. A failure is only logged: Patroni's own
/// start, and the run at every promotion, have the same result.
pub async fn run(output: &Output) {
    match tokio::time::timeout(PATIENCE, start(output)).await {
        Ok(Ok(())) => {}
        Ok(Err(problem)) => tracing::warn!(problem, "the first start is left to Patroni"),
        Err(_) => tracing::warn!("PostgreSQL takes long to start; Patroni takes over"),
    }
}

async fn start(output: &Output) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("pg_ctl: {error}");
    let mut starter = Command::new(servers::program_of(Path::new(PGDATA), "pg_ctl"))
        .args(["start", "--no-wait", "--silent", "--pgdata", PGDATA])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // The server has the same until its collector runs.
    output.follow(&mut starter);
    let status = starter.wait().await.map_err(failed)?;
    if !status.success() {
        return Err(format!("pg_ctl ended with {status}"));
    }
    loop {
        match ensure::connect("postgres").await {
            Ok(connection) => return ensure::replication(&connection.client).await.map_err(|error| error.to_string()),
            Err(error) => tracing::trace!(%error, "PostgreSQL does not answer yet"),
        }
        tokio::time::sleep(POLL).await;
    }
}
