//! A server on a data directory that is not the running one: nobody but this process can connect.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::postgres::{Connection, describe, over_socket, preload, servers, stray};
use crate::{files, output};

/// The folder of its socket, in the pod's memory.
pub const SOCKET: &str = "/run/servicedb/upgrade-socket";
/// How long it may take to start: a copy of a running database recovers first.
const STARTS: Duration = Duration::from_secs(600);
/// How long it may take to stop.
const STOPS: Duration = Duration::from_secs(120);
/// The databases that accept sessions.
const DATABASES: &str = "SELECT datname::text FROM pg_catalog.pg_database WHERE datallowconn ORDER BY 1";
/// Interval between two attempts to connect.
const POLL: Duration = Duration::from_millis(50);

/// Settings that take a server from everybody else, from the archive, and from the memory of the one that serves.
const SETTINGS: [&str; 12] = [
    // The folder may have the settings of the database, and this log is read here.
    "logging_collector=off",
    "listen_addresses=",
    "unix_socket_directories=/run/servicedb/upgrade-socket",
    "hba_file=/run/servicedb/upgrade-socket/pg_hba.conf",
    "ident_file=/run/servicedb/upgrade-socket/pg_ident.conf",
    "archive_mode=off",
    "synchronous_standby_names=",
    "ssl=off",
    "autovacuum=off",
    "hot_standby=off",
    "shared_buffers=32MB",
    // A tenant's would run as the superuser.
    "event_triggers=off",
];

/// Writes the settings that `pg_upgrade` starts servers with.
///
/// # Errors
/// If a file cannot be written.
pub fn write_settings(folder: &Path) -> std::io::Result<()> {
    files::remove_tree(Path::new(SOCKET))?;
    std::fs::create_dir_all(SOCKET)?;
    std::fs::write(Path::new(SOCKET).join("pg_hba.conf"), "local all postgres peer\n")?;
    std::fs::write(Path::new(SOCKET).join("pg_ident.conf"), "")?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
    for signal in ["standby.signal", "recovery.signal", "postgresql.auto.conf"] {
        files::remove_file(&folder.join(signal))?;
    }
    let line = |setting: &&str| {
        let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
        format!("{name} = '{value}'\n")
    };
    let mut text: String = SETTINGS.iter().map(line).collect();
    // Restoring a schema locks every object of it in one transaction.
    text += &format!(
        "shared_preload_libraries = '{}'\nmax_locks_per_transaction = '1024'\nmax_connections = '50'\n\
         max_wal_size = '2GB'\n",
        preload::ALWAYS
    );
    std::fs::write(folder.join("postgresql.conf"), text)
}

/// Ends every process of a server on this folder, which none but an upgrade uses: PostgreSQL works in its data directory.
pub fn end_servers(folder: &Path) {
    for process in working_in(folder) {
        tracing::info!(%process, folder = %folder.display(), "ending a server of an upgrade that was broken off");
        if let Err(error) = kill(process, Signal::SIGKILL) {
            tracing::debug!(%error, %process, "the process has ended");
        }
    }
}

/// The processes whose working directory is this one.
fn working_in(folder: &Path) -> Vec<Pid> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let number = |name: &std::ffi::OsStr| name.to_str()?.parse().ok().map(Pid::from_raw);
    let works_here = |path: &Path| std::fs::read_link(path.join("cwd")).is_ok_and(|works| works == folder);
    processes.filter(|entry| works_here(&entry.path())).filter_map(|entry| number(&entry.file_name())).collect()
}

/// A running server. Dropped, it is killed.
pub struct Server(Child);

/// Starts the server of a version on a folder, and waits until it answers.
///
/// # Errors
/// What PostgreSQL logged, if it ended.
pub async fn start(folder: &Path, major: u16, more: &[&str]) -> Result<Server, String> {
    let io = |error: std::io::Error| format!("PostgreSQL {major} cannot be started: {error}");
    let mut command = Command::new(servers::program(major, "postgres"));
    command.arg("-D").arg(folder);
    for setting in SETTINGS.iter().chain(more) {
        command.arg("-c").arg(setting);
    }
    // The folder may have the settings of the database: a library with a process of its own would run the tenant's jobs
    // in a copy.
    command.arg("-c").arg(format!("shared_preload_libraries={}", preload::ALWAYS));
    let mut server = command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().map_err(io)?;
    let stderr = server.stderr.take().ok_or("PostgreSQL has no log")?;
    let log = tokio::spawn(async move {
        // In bytes: what a tenant named may have any encoding.
        let mut lines = BufReader::new(stderr).split(b'\n');
        let mut last = None;
        while let Ok(Some(line)) = lines.next_segment().await {
            let line = String::from_utf8_lossy(&line).into_owned();
            if let Some(line) = stray::as_message(line.as_bytes()) {
                output::line(line);
            }
            if ["FATAL:  ", "PANIC:  "].iter().any(|mark| line.contains(mark)) {
                last = Some(line);
            }
        }
        last
    });
    let started = Instant::now();
    loop {
        if connect("postgres").await.is_ok() {
            return Ok(Server(server));
        }
        if let Some(status) = server.try_wait().map_err(io)? {
            let last = log.await.ok().flatten();
            return Err(format!("PostgreSQL {major} ended with {status}: {}", last.unwrap_or_default()));
        }
        if started.elapsed() > STARTS {
            return Err(format!("PostgreSQL {major} did not start within {} s", STARTS.as_secs()));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A session in a database of the private server.
///
/// # Errors
/// If it refuses.
pub async fn connect(database: &str) -> Result<Connection, String> {
    let connection = over_socket(SOCKET, database, "servicedb upgrade").await;
    connection.map_err(|error| format!("the database {database}: {error}"))
}

/// The databases of the private server that accept sessions.
///
/// # Errors
/// If it refuses.
pub async fn databases() -> Result<Vec<String>, String> {
    let connection = connect("postgres").await?;
    let rows = connection.client.query(DATABASES, &[]).await.map_err(|error| describe(&error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

impl Server {
    /// Stops it with a checkpoint.
    ///
    /// # Errors
    /// If it does not stop.
    pub async fn stop(mut self) -> Result<(), String> {
        if let Some(pid) = self.0.id().and_then(|pid| i32::try_from(pid).ok()) {
            // A fast shutdown.
            kill(Pid::from_raw(pid), Signal::SIGINT).map_err(|error| format!("PostgreSQL: {error}"))?;
        }
        match tokio::time::timeout(STOPS, self.0.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("PostgreSQL ended with {status}")),
            Ok(Err(error)) => Err(format!("PostgreSQL: {error}")),
            Err(_) => Err(format!("PostgreSQL did not stop within {} s", STOPS.as_secs())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_of_the_folder_are_ended() {
        let root = std::env::temp_dir().join(format!("servicedb-private-{}", std::process::id()));
        let (copied, other) = (root.join("pgdata.copied"), root.join("pgdata"));
        let start = |folder: &Path| {
            std::fs::create_dir_all(folder).expect("a folder");
            std::process::Command::new("sleep").arg("60").current_dir(folder).spawn().expect("sleep")
        };
        let (mut ours, mut theirs) = (start(&copied), start(&other));
        assert_eq!(working_in(&copied), [Pid::from_raw(ours.id().try_into().expect("a process"))]);
        end_servers(&copied);
        assert!(!ours.wait().expect("its end").success());
        assert_eq!(theirs.try_wait().expect("its state"), None, "the running server goes on");
        theirs.kill().expect("its end");
        theirs.wait().expect("its end");
        std::fs::remove_dir_all(root).expect("a folder");
    }
}
