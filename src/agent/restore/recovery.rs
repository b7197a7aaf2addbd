//! PostgreSQL's recovery of a restored folder: a server of its own, on a socket that nobody else knows, until it
//! has ended recovery.

use std::collections::VecDeque;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::agent::ensure;
use crate::contract::pod::PGDATA_NEW;

/// The folder of its socket.
pub const SOCKET: &str = "/run/servicedb/restore-socket";
/// Interval between two attempts to connect.
const POLL: Duration = Duration::from_millis(200);
/// Lines of its log that an error may need.
const KEPT: usize = 40;
/// PostgreSQL's error for a target that the archive does not have.
const BEFORE_TARGET: &str = "recovery ended before configured recovery target was reached";
/// What it logs of the last transaction.
const LAST: &str = "last completed transaction was at log time ";

/// How recovery ended.
pub enum Ended {
    /// The server is open for writes; when the last transaction was committed.
    Promoted(Option<String>),
    /// The archive does not have the target.
    BeforeTarget,
}

/// Settings of this server. Nobody connects but this agent; WAL that it writes waits until the database archives
/// to its own place; and replicas are waited for by nobody.
const SETTINGS: [&str; 7] = [
    "listen_addresses=",
    "unix_socket_directories=/run/servicedb/restore-socket",
    "hot_standby=off",
    "archive_command=/bin/false",
    "synchronous_standby_names=",
    "ssl=off",
    "log_min_messages=info",
];

/// Runs the server until recovery has ended. It takes as long as the WAL needs; a kill of the pod ends it.
///
/// # Errors
/// What PostgreSQL logged, if it ended.
pub async fn run() -> Result<Ended, String> {
    let io = |error: std::io::Error| format!("PostgreSQL cannot be started: {error}");
    std::fs::create_dir_all(SOCKET).map_err(io)?;
    std::fs::set_permissions(PGDATA_NEW, std::fs::Permissions::from_mode(0o700)).map_err(io)?;
    let mut command = Command::new("postgres");
    command.arg("-D").arg(PGDATA_NEW);
    for setting in SETTINGS {
        command.arg("-c").arg(setting);
    }
    let mut server: Child =
        command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().map_err(io)?;
    let stderr = server.stderr.take().ok_or("PostgreSQL has no log")?;
    let mut lines = BufReader::new(stderr).lines();
    let mut kept = VecDeque::new();
    let mut last = None;
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Ok(Some(line)) = line else {
                    let status = server.wait().await.map_err(io)?;
                    if kept.iter().any(|line: &String| line.contains(BEFORE_TARGET)) {
                        return Ok(Ended::BeforeTarget);
                    }
                    return Err(failure(&kept).unwrap_or_else(|| format!("PostgreSQL ended with {status}")));
                };
                eprintln!("{line}");
                if let Some((_, time)) = line.split_once(LAST) {
                    last = Some(time.trim().to_owned());
                }
                if kept.len() == KEPT {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
            () = sleep(POLL) => {}
        }
        if ensure::connect_at(SOCKET, "postgres").await.is_ok() {
            break;
        }
    }
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            eprintln!("{line}");
        }
        let _ = server.wait().await;
    });
    Ok(Ended::Promoted(last))
}

/// The last errors of the log.
fn failure(lines: &VecDeque<String>) -> Option<String> {
    let errors = lines.iter().filter_map(|line| ["FATAL:  ", "PANIC:  "].iter().find_map(|mark| line.split_once(mark)));
    let errors: Vec<_> = errors.map(|(_, error)| error.chars().take(300).collect::<String>()).collect();
    errors.last().cloned()
}

/// Stops the server with a checkpoint.
///
/// # Errors
/// If it does not stop.
pub async fn stop() -> Result<(), String> {
    let stopped = Command::new("pg_ctl")
        .args(["stop", "--mode=fast", "--wait", "--timeout=600", "--silent", "--pgdata", PGDATA_NEW])
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| format!("pg_ctl: {error}"))?;
    if !stopped.status.success() {
        return Err(format!("PostgreSQL did not stop: {}", String::from_utf8_lossy(&stopped.stderr).trim()));
    }
    super::super::files::remove_tree(Path::new(SOCKET)).map_err(|error| error.to_string())
}
