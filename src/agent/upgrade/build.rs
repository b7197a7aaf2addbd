//! Builds the data directory of the new version from a copy of the old one. The copy is changed and linked to; the
//! directory that it was made of is not touched, so that it stays the way back.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::Command;

use super::collations::{self, Versions};
use super::functions::{DISARM, FINGERPRINT, RESTORE};
use super::private::{self, SOCKET};
use super::{meanings, published, words};
use crate::agent::environment::Environment;
use crate::agent::initialise::INITDB;
use crate::agent::{memory, settings};
use crate::api::names::Names;
use crate::contract::desired::Desired;
use crate::contract::memory::Bound;
use crate::contract::pod::{PGDATA_COPIED, PGDATA_UPGRADED};
use crate::files;
use crate::postgres::{INITDB_LOCALE, describe, immune, servers};

/// An option that PostgreSQL 17 keeps with columns, which its own `pg_dump` hides, that of a later version writes, and
/// no later server knows: an upgrade would fail at the first table.
const UNKNOWN_OPTION: &str = "UPDATE pg_catalog.pg_attribute SET attoptions = \
     (SELECT NULLIF(pg_catalog.array_agg(o), '{}') FROM pg_catalog.unnest(attoptions) AS o WHERE o NOT LIKE 'pg\\_attver=%') \
     WHERE pg_catalog.array_to_string(attoptions, ',') LIKE '%pg\\_attver=%'";
/// The number of relations of tenants' and extensions' schemas in a database.
const RELATIONS: &str = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'i', 'S', 'v', 'm', 'p', 'I', 'f')";
/// Lets the superuser change catalogs.
const CATALOG: &str = "allow_system_table_mods=on";
/// Where `pg_upgrade` writes its scripts.
const WORK: &str = "/tmp";
/// Files in which `pg_upgrade` lists what stops it.
const LISTS: &str = "txt";
/// How many databases it works on at once, at most: each job takes memory of the pod.
const JOBS: usize = 4;
/// How much of its output a message has.
const LONGEST: usize = 700;
/// The version whose publications and stemmers differ from those of the versions before it.
const CHANGED: u16 = 18;

/// The server that the new directory is made for.
pub struct Server<'a> {
    /// The names of its ServiceDatabase's objects.
    pub names: &'a Names,
    /// Its settings.
    pub desired: &'a Desired,
    /// The memory of its pod; none where that is not known, as in a Job.
    pub memory: Option<Bound>,
}

impl<'a> Server<'a> {
    /// That of this pod.
    pub fn of_pod(environment: &'a Environment, desired: &'a Desired) -> Self {
        Self { names: &environment.names, desired, memory: memory::bound() }
    }
}

/// What was built.
#[derive(Debug)]
pub struct Built {
    /// How long `pg_upgrade` took.
    pub upgrade: Duration,
    /// What is to be done after the upgrade.
    pub warnings: Vec<String>,
    /// The system identifier of the new directory.
    pub system_identifier: String,
}

/// Removes what an earlier attempt left, with the servers of a `pg_upgrade` that was broken off: they outlive it.
///
/// # Errors
/// If the volume cannot be written.
pub fn clear() -> std::io::Result<()> {
    for folder in [PGDATA_COPIED, PGDATA_UPGRADED].map(Path::new) {
        if folder.exists() {
            private::end_servers(folder);
            files::remove_tree(folder)?;
        }
    }
    Ok(())
}

/// Copies a data directory whose server is stopped to [`PGDATA_COPIED`]: the file system shares the blocks where it can.
///
/// # Errors
/// What `cp` wrote.
pub async fn copy(folder: &Path) -> Result<(), String> {
    let mut command = Command::new("cp");
    command.args(["--archive", "--reflink=auto"]).arg(folder).arg(PGDATA_COPIED);
    run(&mut command).await.map(drop)
}

/// Makes [`PGDATA_UPGRADED`] from [`PGDATA_COPIED`], starts it where nobody can connect, and compares it.
///
/// # Errors
/// What stops the upgrade, for people.
pub async fn upgrade(server: &Server<'_>, from: u16, to: u16) -> Result<Built, String> {
    let (copied, upgraded) = (Path::new(PGDATA_COPIED), Path::new(PGDATA_UPGRADED));
    let (Some(old), Some(new)) = (servers::programs(from), servers::programs(to)) else {
        return Err(format!(
            "the image of this pod has not both PostgreSQL {from} and {to}: see postgres.images of the chart"
        ));
    };
    if std::fs::read_dir(copied.join("pg_tblspc")).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err("the database has tablespaces: move their tables to pg_default, and drop them".to_owned());
    }
    private::write_settings(copied).map_err(|error| format!("{PGDATA_COPIED}: {error}"))?;
    let Prepared { contents: before, versions, warnings } = prepare(copied, from, to).await?;
    succeed(Command::new(new.join("initdb")).arg("--pgdata").arg(upgraded).args(INITDB).args(INITDB_LOCALE)).await?;
    let io = |error: std::io::Error| format!("{PGDATA_UPGRADED}: {error}");
    std::fs::copy(upgraded.join("postgresql.conf"), upgraded.join("postgresql.base.conf")).map_err(io)?;
    private::write_settings(upgraded).map_err(io)?;
    let started = Instant::now();
    pg_upgrade((&old, &new), copied, upgraded).await?;
    let upgrade = started.elapsed();
    settings::write_restored(server.names, server.desired, upgraded).map_err(io)?;
    settings::check_within(upgraded, server.desired, server.memory).await.map_err(io)??;
    let after = check(upgraded, to, &versions).await?;
    let counts = |contents: &[Content]| contents.iter().map(Content::counts).collect::<Vec<_>>();
    let (counted, counted_after) = (counts(&before), counts(&after));
    if counted != counted_after {
        return Err(format!(
            "the upgraded copy has other relations or functions than the database: {counted:?}, then {counted_after:?}"
        ));
    }
    for (before, after) in before.iter().zip(&after) {
        meanings::check(&before.database, &before.uses, &after.uses)?;
    }
    let control = crate::restore::control::read(upgraded)?;
    Ok(Built { upgrade, warnings, system_identifier: control.system_identifier })
}

/// What a database has.
struct Content {
    database: String,
    relations: i64,
    functions: String,
    uses: meanings::Uses,
}

impl Content {
    fn counts(&self) -> (String, i64, String) {
        (self.database.clone(), self.relations, self.functions.clone())
    }
}

/// The copy before the upgrade.
struct Prepared {
    contents: Vec<Content>,
    versions: Versions,
    warnings: Vec<String>,
}

/// Checks the copy for what `pg_upgrade` does not, removes from it what the new version does not know, counts what it has,
/// and takes its functions from the superuser.
async fn prepare(folder: &Path, from: u16, to: u16) -> Result<Prepared, String> {
    let server = private::start(folder, from, &[CATALOG]).await?;
    let warnings = unchecked(from, to).await;
    let versions = collations::read().await;
    let contents = contents(UNKNOWN_OPTION, Some(DISARM)).await;
    server.stop().await?;
    Ok(Prepared { warnings: warnings?, contents: contents?, versions: versions? })
}

/// Checks what behaves differently in the new version and `pg_upgrade` does not check. The value is the warnings.
async fn unchecked(from: u16, to: u16) -> Result<Vec<String>, String> {
    if from >= CHANGED || to < CHANGED {
        return Ok(Vec::new());
    }
    published::check().await?;
    words::warnings().await
}

/// Starts the new directory with the settings that it will have but for memory, where nobody can connect.
async fn check(folder: &Path, major: u16, versions: &Versions) -> Result<Vec<Content>, String> {
    let server = private::start(folder, major, &[CATALOG]).await?;
    let contents = contents(RESTORE, None).await;
    let written = collations::write(versions).await;
    server.stop().await?;
    written.and(contents)
}

/// What each database has, between two statements in each.
async fn contents(before: &str, after: Option<&str>) -> Result<Vec<Content>, String> {
    let mut contents = Vec::new();
    for database in private::databases().await? {
        let connection = private::connect(&database).await?;
        let of_database = |error: tokio_postgres::Error| format!("the database {database}: {}", describe(&error));
        connection.client.batch_execute(before).await.map_err(of_database)?;
        let relations = connection.client.query_one(RELATIONS, &[]).await.map_err(of_database)?;
        let functions = connection.client.query_one(FINGERPRINT, &[]).await.map_err(of_database)?;
        if let Some(after) = after {
            connection.client.batch_execute(after).await.map_err(of_database)?;
        }
        let uses = meanings::read(&connection.client).await.map_err(of_database)?;
        let (relations, functions) = (relations.get(0), functions.get(0));
        contents.push(Content { database, relations, functions, uses });
    }
    Ok(contents)
}

async fn pg_upgrade((old, new): (&Path, &Path), copied: &Path, upgraded: &Path) -> Result<(), String> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from).min(JOBS).to_string();
    let mut command = Command::new(new.join("pg_upgrade"));
    command.current_dir(WORK).arg("--old-bindir").arg(old).arg("--new-bindir").arg(new);
    command.arg("--old-datadir").arg(copied).arg("--new-datadir").arg(upgraded);
    // The copy is not needed afterwards, and everything is flushed at once.
    command.args(["--link", "--no-sync", "--username=postgres", "--socketdir", SOCKET, "--jobs", &jobs]);
    // A tenant's settings for sessions do not apply.
    command.env("PGOPTIONS", immune::PERSON);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|error| format!("pg_upgrade: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let mut said = problem(&String::from_utf8_lossy(&output.stdout));
    for found in listed(&upgraded.join("pg_upgrade_output.d")) {
        said = format!("{said} {found}");
    }
    Err(format!("pg_upgrade: {}", said.chars().take(LONGEST).collect::<String>()))
}

/// What follows the last check that passed.
fn problem(output: &str) -> String {
    let lines: Vec<_> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let from = lines.iter().rposition(|line| line.ends_with(" ok")).map_or(0, |last| last + 1);
    lines[from..].join(" ")
}

/// The lists of what stops it, and the errors in its logs: without statements, which may have verifiers of passwords.
fn listed(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Ok(text) = std::fs::read(&path) else { continue };
            let text = String::from_utf8_lossy(&text);
            let is_list = path.extension().is_some_and(|extension| extension == LISTS);
            let is_error = |line: &&str| line.contains("ERROR:") || line.contains("FATAL:");
            let lines = text.lines().filter(|line| is_list || is_error(line)).filter(|line| !line.contains("SCRAM-"));
            found.extend(lines.take(5).map(|line| line.trim().to_owned()));
        }
    }
    found
}

async fn succeed(command: &mut Command) -> Result<(), String> {
    run(command).await.map(drop)
}

/// Runs a program; the error is what it wrote last.
async fn run(command: &mut Command) -> Result<String, String> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it failed without a message");
    Err(format!("{name}: {}", last.trim()))
}

/// Copies the running database to [`PGDATA_COPIED`], as a replica would be.
///
/// # Errors
/// What `pg_basebackup` wrote.
pub async fn back_up(socket: &str, role: &str, major: u16) -> Result<(), String> {
    let mut command = Command::new(servers::program(major, "pg_basebackup"));
    command.args(["--host", socket, "--username", role, "--no-password", "--pgdata", PGDATA_COPIED]);
    command.args(["--checkpoint=fast", "--wal-method=stream", "--no-sync"]).env("PGOPTIONS", immune::ANY_LOGIN);
    succeed(&mut command).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_problem_is_what_follows_the_checks_that_passed() {
        let output = "Checking cluster versions                                     ok\n\
                      Checking for presence of required libraries                   fatal\n\n\
                      Your installation references loadable libraries that are missing\n";
        assert_eq!(
            problem(output),
            "Checking for presence of required libraries                   fatal Your installation references loadable \
             libraries that are missing"
        );
        assert_eq!(problem(""), "");
    }

    #[test]
    fn no_verifier_of_a_password_is_told() {
        let folder = std::env::temp_dir().join(format!("servicedb-upgrade-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("log")).expect("a folder");
        std::fs::write(folder.join("loadable_libraries.txt"), "could not load library \"$libdir/x\"\n")
            .expect("a file");
        let log = "ERROR:  unrecognized parameter\nCommand was: CREATE ROLE a PASSWORD 'SCRAM-SHA-256$x'\n\
                   ERROR:  near 'SCRAM-SHA-256$x'\n";
        std::fs::write(folder.join("log/server.log"), log).expect("a file");
        let mut found = listed(&folder);
        found.sort();
        assert_eq!(found, ["ERROR:  unrecognized parameter", "could not load library \"$libdir/x\""]);
        std::fs::remove_dir_all(folder).expect("a folder");
    }
}
