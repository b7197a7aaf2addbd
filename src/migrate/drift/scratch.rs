//! The scratch server in the pod, on which all migrations are run: as the owner, and with a login
//! that is not a superuser, as in the live database.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use super::Catalog;
use crate::agent::ensure;
use crate::agent::extensions::Places;
use crate::api::conditions::reason;
use crate::contract::migration::Policy;
use crate::contract::patroni::search_path;
use crate::contract::pod::{SCRATCH_DIR, SOCKET_DIR};
use crate::migrate::environment::Job;
use crate::migrate::outcome::Stopped;
use crate::migrate::source::MigrationSet;
use crate::migrate::stop::Stop;
use crate::migrate::{Done, Run, migrate};
use crate::postgres::{INITDB_LOCALE, ident, over_socket, over_socket_as, preload, servers};

/// The login in the migrator's role.
const LOGIN: &str = "servicedb_scratch";
/// Timeout of the server's start.
const PATIENCE: Duration = Duration::from_secs(60);
/// Its data is not durable, and no statement is logged.
const SETTINGS: [&str; 9] = [
    "listen_addresses=",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "autovacuum=off",
    "shared_buffers=32MB",
    "log_min_error_statement=panic",
];

/// The catalog that results from the migrations, with the extensions in the schemas that were found, on a server of the
/// live one's major version: another one has other entries.
///
/// # Errors
/// If the server does not start, or a migration fails on it.
pub async fn catalog(
    job: &Job,
    set: &MigrationSet,
    (found, major): (&Places, u16),
    stop: &Stop,
) -> Result<Catalog, Stopped> {
    let _server = start(major, job).await?;
    // The image may have moved on from a declared version, which the live database keeps. Versions are not compared.
    let mut extensions = job.extensions.clone();
    extensions.iter_mut().for_each(|extension| extension.options.version = None);
    let unmet = ensure::everything(SOCKET_DIR, &job.names, &extensions, found, false)
        .await
        .map_err(|error| failed(&error.to_string()))?;
    if let Some(problem) = unmet.problems.iter().chain(&unmet.waiting).next() {
        return Err(failed(problem));
    }
    let (database, owner) = (&job.names.database, job.owner());
    let superuser = ensure::connect(database).await.map_err(|error| failed(&error.to_string()))?;
    let role = format!(
        "CREATE ROLE {LOGIN} LOGIN; GRANT {} TO {LOGIN} WITH INHERIT FALSE, SET TRUE; GRANT CONNECT ON DATABASE {} TO {LOGIN}",
        ident(&owner),
        ident(database)
    );
    superuser.client.batch_execute(&role).await.map_err(|error| failed(&crate::postgres::describe(&error)))?;
    drop(superuser);

    let connection = over_socket_as(SOCKET_DIR, database, LOGIN, "servicedb drift")
        .await
        .map_err(|error| failed(&error.to_string()))?;
    let policy = Policy { target_version: job.policy.target_version.clone(), ..Policy::default() };
    let set = &set.undoubted();
    let run = Run { owner: &owner, set, revision: &set.revision, policy: &policy };
    let mut done = Done::default();
    migrate(&connection.client, run, &job.limits(), stop, &mut done).await.map_err(|mut stopped| {
        stopped.failure.message = format!("in a scratch database: {}", stopped.failure.message);
        stopped.failure.reason = reason::DRIFT_CHECK_FAILED.to_owned();
        stopped
    })?;
    super::catalog(&connection.client).await
}

async fn start(major: u16, job: &Job) -> Result<Child, Stopped> {
    let data = Path::new(SCRATCH_DIR).join("pgdata");
    // A previous container of this pod may have started it.
    let _ = tokio::fs::remove_dir_all(&data).await;
    let made = Command::new(servers::program(major, "initdb"))
        .arg("--pgdata")
        .arg(&data)
        .args(["--username=postgres", "--auth=trust", "--no-sync", "--no-instructions"])
        .args(INITDB_LOCALE)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .await
        .map_err(|error| failed(&format!("initdb: {error}")))?;
    if !made.success() {
        return Err(failed(&format!("initdb ended with {made}; see the Job's log")));
    }
    let mut command = Command::new(servers::program(major, "postgres"));
    command.arg("-D").arg(&data).args(["-k", SOCKET_DIR]);
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    // As the server that it is compared with: an extension may refuse to be created otherwise.
    let mut settings = preload::settings(&job.names.database, |extension| {
        job.extensions.iter().any(|declared| declared.name == extension) && servers::has_library(major, extension)
    });
    // A job of the schema runs in the live database alone.
    settings.push(("cron.launch_active_jobs", "off".to_owned()));
    settings.push(("search_path", search_path(job.search_path.as_deref())));
    for (name, value) in settings {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    let mut server = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(&format!("postgres: {error}")))?;
    let started = Instant::now();
    loop {
        let problem = match over_socket(SOCKET_DIR, "postgres", "servicedb drift").await {
            Ok(_) => return Ok(server),
            Err(error) => error.to_string(),
        };
        if let Ok(Some(ended)) = server.try_wait() {
            return Err(failed(&format!("postgres ended with {ended}; see the Job's log")));
        }
        if started.elapsed() > PATIENCE {
            return Err(failed(&problem));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn failed(problem: &str) -> Stopped {
    Stopped::later(reason::DRIFT_CHECK_FAILED, format!("the scratch database for the comparison: {problem}"))
}
