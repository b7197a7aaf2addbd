//! Detects a data directory from which PostgreSQL can never start: files that it needs are missing or
//! unreadable.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::postgres::servers;

/// Timeout of `pg_controldata`.
const PATIENCE: Duration = Duration::from_secs(5);

/// Files that every server reads before it accepts a session.
const FILES: [&str; 3] = ["PG_VERSION", "global/pg_control", "global/pg_filenode.map"];

/// Folders that initdb creates and PostgreSQL does not recreate.
const FOLDERS: [&str; 14] = [
    "base",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_multixact/members",
    "pg_multixact/offsets",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_xact",
];

/// The damage of a data directory, as a clause; none if none is known, or if the directory is absent or
/// empty: it is cloned anyway then.
pub async fn of(folder: &Path) -> Option<String> {
    if let Some(found) = unreadable(folder) {
        return Some(found);
    }
    let control = control_data(folder).await?;
    control.contains("CRC checksum does not match").then(|| "global/pg_control is corrupted".to_owned())
}

fn unreadable(folder: &Path) -> Option<String> {
    let filled = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if !filled {
        return None;
    }
    let problem = |name: &str, error: &std::io::Error| match error.kind() {
        ErrorKind::NotFound => format!("{name} is missing"),
        _ => format!("{name} cannot be read: {error}"),
    };
    let read = |name: &str| File::open(folder.join(name)).and_then(|mut file| file.read(&mut [0]));
    let files = FILES.iter().find_map(|name| match read(name) {
        Ok(0) => Some(format!("{name} is empty")),
        Ok(_) => None,
        Err(error) => Some(problem(name, &error)),
    });
    let folders = || FOLDERS.iter().find_map(|name| Some(problem(name, &std::fs::read_dir(folder.join(name)).err()?)));
    files.or_else(folders)
}

async fn control_data(folder: &Path) -> Option<String> {
    let mut command = Command::new(servers::program_of(folder, "pg_controldata"));
    command.arg("-D").arg(folder).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.ok()?.ok()?;
    Some(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_every_session_needs_is_named() {
        let folder = std::env::temp_dir().join(format!("servicedb-damage-{}", std::process::id()));
        assert_eq!(unreadable(&folder), None, "absent");
        for name in FOLDERS {
            std::fs::create_dir_all(folder.join(name)).expect("a folder");
        }
        std::fs::create_dir_all(folder.join("global")).expect("a folder");
        for name in FILES {
            std::fs::write(folder.join(name), "17").expect("a file");
        }
        assert_eq!(unreadable(&folder), None, "whole");
        std::fs::write(folder.join("global/pg_filenode.map"), "").expect("a file");
        assert_eq!(unreadable(&folder).as_deref(), Some("global/pg_filenode.map is empty"));
        std::fs::remove_file(folder.join("global/pg_filenode.map")).expect("a file");
        assert_eq!(unreadable(&folder).as_deref(), Some("global/pg_filenode.map is missing"));
        std::fs::write(folder.join("global/pg_filenode.map"), "map").expect("a file");
        std::fs::remove_dir(folder.join("pg_notify")).expect("a folder");
        assert_eq!(unreadable(&folder).as_deref(), Some("pg_notify is missing"));
        std::fs::remove_dir_all(folder).expect("a folder");
    }
}
