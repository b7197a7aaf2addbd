//! The instances that serve their data directory to this Job.

use std::fmt::Write as _;
use std::time::Duration;

use futures::future::join_all;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::api::names::PostgresNames;
use crate::contract::pod::{BACKUP_PORT, PGDATA, SOCKET_DIR, TLS_DIR};

/// How long all instances may take to serve; the backup then starts with those that do.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same for the first of them.
const PATIENCE_FOR_ONE: Duration = Duration::from_secs(120);
/// How long a connection may take.
const CONNECTS: Duration = Duration::from_secs(3);

/// Waits for the instances, and returns those that serve.
///
/// # Errors
/// If none does.
pub async fn serving(hosts: &[String]) -> Result<Vec<String>, String> {
    let started = Instant::now();
    loop {
        let answers = join_all(hosts.iter().map(|host| answers(host))).await;
        let serving: Vec<_> = hosts.iter().zip(answers).filter(|(_, answers)| *answers).map(|(host, _)| host).collect();
        let waited = started.elapsed();
        if serving.len() == hosts.len() || (!serving.is_empty() && waited > PATIENCE) {
            return Ok(serving.into_iter().cloned().collect());
        }
        if waited > PATIENCE_FOR_ONE {
            return Err(format!(
                "no instance serves its data directory on port {BACKUP_PORT}: a NetworkPolicy of the namespace may \
                 forbid this pod's egress, or the agents are of an earlier version (RolloutPending)"
            ));
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn answers(host: &str) -> bool {
    matches!(timeout(CONNECTS, TcpStream::connect((host, BACKUP_PORT))).await, Ok(Ok(_)))
}

/// The lines of the stanza: pgBackRest finds out itself which of them is the primary.
pub fn stanza(hosts: &[String]) -> String {
    let mut lines = String::new();
    let client = PostgresNames::REPLICATOR;
    for (n, host) in (1..).zip(hosts) {
        // Writing to a String cannot fail.
        let _ = write!(
            lines,
            "pg{n}-host={host}
pg{n}-host-type=tls
pg{n}-host-port={BACKUP_PORT}
pg{n}-host-ca-file={TLS_DIR}/ca.crt
pg{n}-host-cert-file={TLS_DIR}/{client}.crt
pg{n}-host-key-file={TLS_DIR}/{client}.key
pg{n}-path={PGDATA}
pg{n}-socket-path={SOCKET_DIR}
pg{n}-user=postgres
"
        );
    }
    lines
}
