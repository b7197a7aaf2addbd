//! A team's own migration tool, in an arbitrary image. It runs between two of Servicedb's
//! processes: a sidecar that holds the lock and writes the connection files, and, once the tool
//! has succeeded, the one that records it. The tool has no access to Vault.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::environment::{Access, Job};
use super::outcome::{self, Stopped, end};
use super::patience::insist;
use super::stop::{Stop, listen, stop};
use super::{ledger, lexer, session, source};
use crate::api::conditions::reason;
use crate::contract::migration::Outcome;
use crate::contract::pod;
use crate::files;
use crate::postgres::{Connection, describe, immune};

/// The interval of checks of the session with the lock, and their timeout.
const LOOK: Duration = Duration::from_secs(5);
/// The maximum length of a version: it is copied to status.
const VERSION_LENGTH: usize = 100;

/// Holds the lock for as long as the process runs, and writes the tool's connection files. The
/// kubelet starts the tool once they exist ([`is_held`]).
pub async fn hold() -> ExitCode {
    let (stopper, stop) = stop();
    let signals = tokio::spawn(listen(stopper));
    let started = Instant::now();
    let result = match Job::from_environment() {
        Ok(job) => hold_for(&job, &stop).await.map_err(|stopped| (job.revision, stopped)),
        Err(stopped) => Err((String::new(), stopped)),
    };
    signals.abort();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((revision, stopped)) => end(started, Outcome { revision, ..Outcome::default() }, Err(stopped)),
    }
}

/// Whether the files for the tool exist: the sidecar's startup probe.
pub fn is_held() -> ExitCode {
    if Path::new(pod::SESSION_DIR).join(pod::SERVICE_FILE).exists() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Records the schema's version after the tool has succeeded.
pub async fn record() -> ExitCode {
    let started = Instant::now();
    let (revision, result) = match Job::from_environment() {
        Ok(job) => (job.revision.clone(), insist(async || record_once(&job).await).await),
        Err(stopped) => (String::new(), Err(stopped)),
    };
    end(started, Outcome { revision, ..Outcome::default() }, result)
}

async fn hold_for(job: &Job, stop: &Stop) -> Result<(), Stopped> {
    // Files of a previous container of this pod would let the tool start without the lock.
    remove_service_file().map_err(|error| unwritable(&error))?;
    let (access, connection) = tokio::select! {
        taken = insist(async || take(job, stop).await) => taken?,
        () = stop.requested() => return Ok(()),
    };
    write_files(job, &access, Path::new(pod::SESSION_DIR)).map_err(|error| unwritable(&error))?;
    tracing::info!("the lock is held, and the tool may start");
    while stop.sleep(LOOK).await {
        still_held(&connection.client, "SELECT 1").await?;
    }
    // A tool that failed with the database may have ended first: check once more. And a tool that
    // keeps working after its termination signal must not do so concurrently with the next run.
    still_held(&connection.client, END_OTHERS).await
}

/// The other sessions of this pod with the same login, which belong to the tool.
const END_OTHERS: &str = "SET ROLE NONE; SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
                          WHERE usename = session_user AND client_addr = pg_catalog.inet_client_addr() \
                          AND pid <> pg_catalog.pg_backend_pid()";

async fn still_held(client: &Client, statement: &str) -> Result<(), Stopped> {
    let answer = tokio::time::timeout(LOOK, client.simple_query(statement)).await;
    if matches!(answer, Ok(Ok(_))) {
        return Ok(());
    }
    if let Err(error) = remove_service_file() {
        tracing::warn!(%error, "the tool's service file cannot be removed");
    }
    let message = "the session that holds the migrations' lock was lost while the team's tool ran: the database failed \
                   over, or was not reached; the run is tried again";
    Err(Stopped::unavailable(reason::NO_PRIMARY, message))
}

fn remove_service_file() -> std::io::Result<()> {
    files::remove_file(&Path::new(pod::SESSION_DIR).join(pod::SERVICE_FILE))
}

fn unwritable(error: &std::io::Error) -> Stopped {
    let message = format!("{} cannot be written: {error}", pod::SESSION_DIR);
    Stopped::later(reason::MIGRATION_FAILED, message)
}

/// A session with the lock, with an existing ledger.
async fn take(job: &Job, stop: &Stop) -> Result<(Access, Connection), Stopped> {
    let (access, connection) = job.connect().await?;
    session::prepare(&connection.client, &job.owner(), &job.limits(), stop).await?;
    let ledger = ledger::open(&connection.client).await.map_err(session::unavailable)?;
    // From now on no revision is complete, until the tool has succeeded.
    let goal = job.policy.goal(&job.revision);
    if ledger.revision.is_some_and(|revision| revision != goal) {
        let statements = format!("{} {}", ledger::incomplete(), ledger::notify());
        connection.client.batch_execute(&statements).await.map_err(session::unavailable)?;
    }
    Ok((access, connection))
}

/// Writes the tool's connection files; the service file, for which the probe waits, last.
fn write_files(job: &Job, access: &Access, folder: &Path) -> std::io::Result<()> {
    let (ca, passwords) = (folder.join(pod::SESSION_CA), folder.join(pod::PASSWORD_FILE));
    // The session has the owner's role from its start, so the tool's objects belong to the schema's
    // owner and not to a login that is replaced with the next rotation.
    let policy = &job.policy;
    let options = format!(
        "{} -c role={} -c lock_timeout={}s -c statement_timeout={}s -c tcp_keepalives_idle=15 \
         -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 -c tcp_user_timeout=30000",
        immune::MIGRATOR,
        job.owner(),
        policy.lock_timeout_seconds,
        policy.statement_timeout_seconds
    );
    let (host, port, database, user) = (&job.host, pod::POSTGRES_PORT, &job.names.database, &access.user);
    let password = access.password.expose_secret();
    let escaped = password.replace('\\', "\\\\").replace(':', "\\:");
    write(&ca, &access.ca)?;
    write(&passwords, &format!("{host}:{port}:{database}:{user}:{escaped}\n"))?;
    let url = format!(
        "postgresql://{user}:{}@{host}:{port}/{database}?sslmode=verify-full&sslrootcert={}&options={}",
        encoded(password),
        encoded(&ca.to_string_lossy()),
        encoded(&options)
    );
    write(&folder.join(pod::URL_FILE), &url)?;
    let service = format!(
        "[{}]\nhost={host}\nport={port}\ndbname={database}\nuser={user}\nsslmode=verify-full\nsslrootcert={}\n\
         options={options}\n",
        pod::SERVICE,
        ca.display()
    );
    write(&folder.join(pod::SERVICE_FILE), &service)
}

/// Atomically, and readable by this user only, as libpq requires for a password file.
fn write(path: &Path, content: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&new)?.write_all(content.as_bytes())?;
    std::fs::rename(new, path)
}

/// URL-encoded.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// The sidecar of this pod holds the lock.
async fn record_once(job: &Job) -> Result<(), Stopped> {
    let (_, connection) = job.connect().await?;
    let client = &connection.client;
    session::assume(client, &job.owner(), &job.limits()).await.map_err(session::unavailable)?;
    ledger::open(client).await.map_err(session::unavailable)?;
    let version = match std::env::var(pod::ENV_VERSION_QUERY).ok().filter(|query| !query.is_empty()) {
        Some(query) => version(client, &query).await?.unwrap_or_default(),
        None => String::new(),
    };
    let statements = ledger::complete_revision(&job.policy.goal(&job.revision), Some(&version), None);
    client.batch_execute(&statements).await.map_err(session::unavailable)?;
    tracing::info!(version, "the tool has succeeded and is recorded in the ledger");
    Ok(())
}

/// The schema's version according to the team's query; none if it returns no row.
async fn version(client: &Client, query: &str) -> Result<Option<String>, Stopped> {
    const FIELD: &str = "spec.migrations.source.job.versionQuery";
    let refused = |problem: &str| Stopped::refused(reason::MIGRATION_FAILED, None, format!("{FIELD}: {problem}"));
    for statement in lexer::statements(query) {
        let statement = statement.map_err(|error| refused(error.message))?;
        if let Some(problem) = source::forbidden(&statement) {
            return Err(refused(problem));
        }
    }
    client.batch_execute("BEGIN READ ONLY").await.map_err(session::unavailable)?;
    let messages = client.simple_query(query).await.map_err(|error| match error.as_db_error() {
        None => session::unavailable(error),
        // The server is shutting down, or is starting.
        Some(db) if db.code().code().starts_with("57P") => session::unavailable(error),
        Some(_) => refused(&describe(&error)),
    })?;
    client.batch_execute("ROLLBACK").await.map_err(session::unavailable)?;
    let row = messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let value = row.and_then(|row| row.get(0).map(str::to_owned));
    Ok(value.map(|value| outcome::cut(&value, VERSION_LENGTH)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::Names;
    use crate::contract::migration::Policy;

    #[test]
    fn the_tool_finds_the_database_as_its_owner() {
        let folder = std::env::temp_dir().join(format!("servicedb-tool-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let job = Job {
            names: Names::new("", "chat").postgres("chat_db"),
            host: "chat-db.games.svc".to_owned(),
            revision: "r".to_owned(),
            policy: Policy::default(),
            image_folder: None,
            extensions: Vec::new(),
            search_path: None,
        };
        let access = Access { user: "chat_m1".to_owned(), password: "a:b\\c/".to_owned().into(), ca: "PEM".to_owned() };
        write_files(&job, &access, &folder).expect("written");
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect(name);
        let (service, passwords, url) = (read(pod::SERVICE_FILE), read(pod::PASSWORD_FILE), read(pod::URL_FILE));
        let mode = {
            use std::os::unix::fs::PermissionsExt;
            std::fs::metadata(folder.join(pod::PASSWORD_FILE)).expect("metadata").permissions().mode() & 0o777
        };
        std::fs::remove_dir_all(&folder).expect("removed");
        assert!(service.starts_with("[servicedb]\nhost=chat-db.games.svc\nport=5432\ndbname=chat_db\nuser=chat_m1\n"));
        assert!(service.contains(" -c role=chat_db_owner "), "{service}");
        assert!(!service.contains("a:b"), "the password is only in the password file");
        assert_eq!(passwords, "chat-db.games.svc:5432:chat_db:chat_m1:a\\:b\\\\c/\n");
        assert!(url.starts_with("postgresql://chat_m1:a%3Ab%5Cc%2F@chat-db.games.svc:5432/chat_db?"), "{url}");
        assert!(url.contains("%20-c%20role%3Dchat_db_owner"), "{url}");
        assert_eq!(mode, 0o600);
    }
}
