//! pgBackRest's server, which serves the data directory of this instance to a backup Job over TLS: only while
//! one runs, and only to the client certificate of the members.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::agent::desired::{self, DesiredState};
use crate::api::names::PostgresNames;
use crate::backoff::Backoff;
use crate::contract::pod::{BACKUP_PORT, BACKUP_SERVER_FILE, TLS_DIR};
use crate::output::Output;
use crate::pgbackrest::STANZA;
use crate::pgbackrest::config::SPOOL;

/// How long it may take to stop.
const STOPS: Duration = Duration::from_secs(5);

/// Runs the server whenever a backup Job runs.
pub async fn follow(mut state: DesiredState, output: Output) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    loop {
        let runs = desired::first(&mut state).await.backup.as_ref().is_some_and(|run| run.runs);
        if !runs {
            desired::changed(&mut state).await;
            continue;
        }
        match start() {
            Ok(mut server) => {
                output.follow(&mut server);
                tracing::info!("serving the data directory to a backup Job");
                let started = Instant::now();
                if until_over(&mut state, server).await {
                    backoff.reset();
                    continue;
                }
                if started.elapsed() > STOPS {
                    backoff.reset();
                }
            }
            Err(error) => tracing::warn!(%error, "pgBackRest's server cannot be started; trying again"),
        }
        backoff.wait().await;
    }
}

fn start() -> std::io::Result<Child> {
    std::fs::write(BACKUP_SERVER_FILE, text())?;
    let mut command = Command::new("pgbackrest");
    command
        .arg(format!("--config={BACKUP_SERVER_FILE}"))
        .arg("server")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command.spawn()
}

/// Waits until no Job runs any more; returns false if the server ended before.
async fn until_over(state: &mut DesiredState, mut server: Child) -> bool {
    let over = async {
        while desired::first(state).await.backup.as_ref().is_some_and(|run| run.runs) {
            desired::changed(state).await;
        }
    };
    tokio::select! {
        ended = server.wait() => {
            tracing::warn!(status = ?ended, "pgBackRest's server ended; starting it again");
            false
        }
        () = over => {
            stop(server).await;
            true
        }
    }
}

/// Ends it with the processes of its connections, which would keep its port otherwise.
async fn stop(mut server: Child) {
    let group = server.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let signal = |signal| group.is_some_and(|group| killpg(group, signal).is_ok());
    signal(Signal::SIGTERM);
    if tokio::time::timeout(STOPS, server.wait()).await.is_err() {
        tracing::warn!("pgBackRest's server does not stop; killing it");
    }
    signal(Signal::SIGKILL);
    let _ = server.wait().await;
}

/// Connections are accepted on every address: the NetworkPolicy and the certificate decide who may connect.
fn text() -> String {
    format!(
        "[global]
tls-server-address=*
tls-server-port={BACKUP_PORT}
tls-server-cert-file={TLS_DIR}/server.crt
tls-server-key-file={TLS_DIR}/server.key
tls-server-ca-file={TLS_DIR}/ca.crt
tls-server-auth={}={STANZA}
lock-path={SPOOL}
spool-path={SPOOL}
log-level-console=off
log-level-file=off
log-level-stderr=error
",
        PostgresNames::REPLICATOR
    )
}
