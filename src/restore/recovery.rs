//! PostgreSQL's recovery of a restored folder: a server of its own, on a socket that nobody else knows, until it
//! has ended recovery.

use std::collections::VecDeque;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::interval;

use crate::api::names::PostgresNames;
use crate::pgbackrest::STANZA;
use crate::postgres::{over_socket, servers, stray};
use crate::restore::control;
use crate::{files, output};

/// The folder of its socket.
pub const SOCKET: &str = "/run/servicedb/restore-socket";
/// Interval between two attempts to connect.
const POLL: Duration = Duration::from_millis(500);
/// Lines of its log that an error may need.
const KEPT: usize = 40;
/// PostgreSQL's error for a target that the archive does not have.
const BEFORE_TARGET: &str = "recovery ended before configured recovery target was reached";
/// What it logs of the last transaction.
const LAST: &str = "last completed transaction was at log time ";
/// What it logs of the last record.
const DONE: &str = "redo done at ";
/// How long the server may take to stop, with its checkpoint.
const STOPS: Duration = Duration::from_secs(600);

/// How recovery ended.
pub enum Ended {
    /// The server is open for writes.
    Promoted(Server, Replayed),
    /// The archive does not have the target.
    BeforeTarget(Replayed),
}

/// What recovery replayed, as PostgreSQL logged it.
#[derive(Debug, Default)]
pub struct Replayed {
    /// The position in WAL of the last record.
    pub position: Option<String>,
    /// When the last transaction was committed.
    pub until: Option<String>,
}

impl Replayed {
    fn read(&mut self, line: &str) {
        if let Some((_, time)) = line.split_once(LAST) {
            self.until = Some(time.trim().to_owned());
        } else if let Some((_, rest)) = line.split_once(DONE) {
            self.position = rest.split_whitespace().next().map(str::to_owned);
        }
    }
}

/// Settings of this server. Nobody connects but this process; WAL that it writes waits until the database archives
/// to its own place; and replicas are waited for by nobody. A library with a process of its own would run the source's
/// jobs, and no other is needed.
const SETTINGS: [&str; 12] = [
    // The folder may have the settings of the database, and this log is read here.
    "logging_collector=off",
    "listen_addresses=",
    "unix_socket_directories=/run/servicedb/restore-socket",
    "hba_file=/run/servicedb/restore-socket/pg_hba.conf",
    "ident_file=/run/servicedb/restore-socket/pg_ident.conf",
    "hot_standby=off",
    // Only then PostgreSQL marks the history of the new timeline for the archive.
    "archive_mode=on",
    "archive_command=/bin/false",
    "synchronous_standby_names=",
    "shared_preload_libraries=",
    "ssl=off",
    "log_min_messages=info",
];

/// `restore_command`. PostgreSQL takes each code up to 125 for the end of the archive; pgBackRest's is 1, and its other
/// codes say that the store did not answer, or that a segment is damaged.
fn restore_command(config: &Path) -> String {
    let config = config.display();
    format!(
        "restore_command=pgbackrest --config={config} --stanza={STANZA} --log-level-stderr=error archive-get %f \"%p\"; \
         code=$?; [ $code -le 1 ] || exit 255; exit $code"
    )
}

/// Writes settings for a server that only recovers: with little memory, and as many prepared transactions as the
/// database may have.
///
/// # Errors
/// If `pg_control` cannot be read, or the file cannot be written.
pub fn write_settings(folder: &Path) -> std::io::Result<()> {
    let prepared = control::read(folder).map_err(std::io::Error::other)?.prepared_transactions;
    let lines = format!(
        "include_if_exists 'postgresql.base.conf'
shared_buffers = '64MB'
max_connections = '20'
max_prepared_transactions = '{prepared}'
max_wal_size = '1GB'
autovacuum = 'off'
"
    );
    std::fs::write(folder.join("postgresql.conf"), lines)
}

/// Runs the server on a folder until recovery has ended. It takes as long as the WAL needs; a kill of the pod ends it.
///
/// # Errors
/// What PostgreSQL logged, if it ended.
pub async fn run(config: &Path, folder: &Path) -> Result<Ended, String> {
    let io = |error: std::io::Error| format!("PostgreSQL cannot be started: {error}");
    // A lock of a server that was killed would name a process that is another one now.
    files::remove_tree(Path::new(SOCKET)).map_err(io)?;
    std::fs::create_dir_all(SOCKET).map_err(io)?;
    let logins = format!("local all postgres peer\nlocal all {} trust\n", PostgresNames::READER);
    std::fs::write(Path::new(SOCKET).join("pg_hba.conf"), logins).map_err(io)?;
    std::fs::write(Path::new(SOCKET).join("pg_ident.conf"), "").map_err(io)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).map_err(io)?;
    let mut command = Command::new(servers::program_of(folder, "postgres"));
    command.arg("-D").arg(folder).arg("-c").arg(restore_command(config));
    for setting in SETTINGS {
        command.arg("-c").arg(setting);
    }
    let mut server: Child =
        command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().map_err(io)?;
    let stderr = server.stderr.take().ok_or("PostgreSQL has no log")?;
    // In bytes: what a tenant named may have any encoding.
    let mut lines = BufReader::new(stderr).split(b'\n');
    let mut kept: VecDeque<String> = VecDeque::new();
    let mut replayed = Replayed::default();
    let mut looks = interval(POLL);
    loop {
        tokio::select! {
            line = lines.next_segment() => {
                let Ok(Some(line)) = line else {
                    let status = server.wait().await.map_err(io)?;
                    if kept.iter().any(|line| line.contains(BEFORE_TARGET)) {
                        return Ok(Ended::BeforeTarget(replayed));
                    }
                    return Err(failure(&kept).unwrap_or_else(|| format!("PostgreSQL ended with {status}")));
                };
                let line = String::from_utf8_lossy(&line).into_owned();
                if let Some(line) = stray::as_message(line.as_bytes()) {
                    output::line(line);
                }
                replayed.read(&line);
                if kept.len() == KEPT {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
            // Not after each line: a refused connection is a line itself.
            _ = looks.tick() => {
                if over_socket(SOCKET, "postgres", "servicedb restore").await.is_ok() {
                    break;
                }
            }
        }
    }
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_segment().await {
            if let Some(line) = stray::as_message(&line) {
                output::line(line);
            }
        }
    });
    Ok(Ended::Promoted(Server(server), replayed))
}

/// The last errors of the log.
fn failure(lines: &VecDeque<String>) -> Option<String> {
    let errors = lines.iter().filter_map(|line| ["FATAL:  ", "PANIC:  "].iter().find_map(|mark| line.split_once(mark)));
    let errors: Vec<_> = errors.map(|(_, error)| error.chars().take(300).collect::<String>()).collect();
    errors.last().cloned()
}

/// A server that has ended recovery. Dropped, it is killed.
pub struct Server(Child);

impl Server {
    /// Stops it with a checkpoint.
    ///
    /// # Errors
    /// If it does not stop.
    pub async fn stop(mut self) -> Result<(), String> {
        let pid = self.0.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid {
            // A fast shutdown.
            kill(Pid::from_raw(pid), Signal::SIGINT).map_err(|error| format!("PostgreSQL: {error}"))?;
        }
        match tokio::time::timeout(STOPS, self.0.wait()).await {
            Ok(Ok(status)) if status.success() => {}
            Ok(Ok(status)) => return Err(format!("PostgreSQL ended with {status}")),
            Ok(Err(error)) => return Err(format!("PostgreSQL: {error}")),
            Err(_) => return Err(format!("PostgreSQL did not stop within {} s", STOPS.as_secs())),
        }
        std::fs::remove_dir_all(SOCKET).map_err(|error| format!("{SOCKET}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_recovery_is_read_from_the_log() {
        let mut replayed = Replayed::default();
        for line in [
            "2026-11-29 11:58:24.1 UTC [24] LOG:  restored log file \"000000010000000000000004\" from archive",
            "2026-11-29 11:58:24.3 UTC [24] LOG:  redo done at 0/40001A8 system usage: CPU: user: 0.00 s",
            "2026-11-29 11:58:24.3 UTC [24] LOG:  last completed transaction was at log time 2026-11-29 11:58:14.54+00",
        ] {
            replayed.read(line);
        }
        assert_eq!(replayed.position.as_deref(), Some("0/40001A8"));
        assert_eq!(replayed.until.as_deref(), Some("2026-11-29 11:58:14.54+00"));
    }
}
