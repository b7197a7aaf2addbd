//! The process of the migration Job: its environment and files, Vault, the connection, and
//! patience with both.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rand::Rng;
use secrecy::SecretString;
use tokio_postgres::Client;

use super::Done;
use super::outcome::{self, Stopped, TERMINATION_LOG, one_line};
use super::session::Limits;
use super::source::{self, MigrationSet};
use super::stop::{Stop, Stopper, stop};
use crate::api::conditions::reason;
use crate::api::names::Names;
use crate::contract::migration::{Outcome, Policy};
use crate::contract::pod;
use crate::contract::records::MigratorRecord;
use crate::postgres::{TlsLogin, cancel_over_tls, over_tls};
use crate::vault::{Vault, pod as pod_vault};

/// How long Vault or the database may be away before the run gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a run may lose the database in the middle of a file: a migration that takes the
/// server down shall not do so again and again.
const MAX_LOST: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a cancelled statement may take to end.
const CANCEL_PATIENCE: Duration = Duration::from_secs(20);

/// What the operator tells a Job by its environment.
struct Job {
    owner: String,
    database: String,
    host: String,
    revision: String,
    policy: Policy,
}

/// A login to the database.
struct Access {
    user: String,
    password: SecretString,
    ca: String,
}

/// Applies what is pending, once, and leaves the outcome as the termination message.
pub async fn run() -> ExitCode {
    let (stopper, stop) = stop();
    let signals = tokio::spawn(listen(stopper));
    let started = Instant::now();
    let mut done = Done::default();
    let job = Job::from_environment();
    let revision = job.as_ref().map(|job| job.revision.clone()).unwrap_or_default();
    let result = match job {
        Ok(job) => job.apply(&stop, &mut done).await,
        Err(stopped) => Err(stopped),
    };
    signals.abort();

    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let Done { applied, rolled_back, plan } = done;
    let outcome =
        Outcome { revision, applied, rolled_back, plan, failure: result.err().map(|stopped| stopped.failure) };
    match &outcome.failure {
        None if outcome.plan.is_some() => tracing::info!(duration_ms, "a dry run: nothing was run"),
        None => tracing::info!(
            applied,
            rolled_back,
            duration_ms,
            revision = outcome.revision,
            "the schema is at its target"
        ),
        Some(failure) => {
            let (reason, transient) = (&failure.reason, failure.transient);
            tracing::error!(applied, duration_ms, reason, transient, error = one_line(failure), "not all is applied");
        }
    }
    outcome::leave(&outcome, Path::new(TERMINATION_LOG));
    ExitCode::from(outcome::exit_code(&outcome))
}

impl Job {
    fn from_environment() -> Result<Self, Stopped> {
        let get = |variable: &str| {
            std::env::var(variable).ok().filter(|value| !value.is_empty()).ok_or_else(|| {
                let message =
                    format!("the environment variable {variable} is not set; the operator sets it in its Jobs");
                Stopped::refused(reason::MIGRATION_FAILED, None, message)
            })
        };
        let database = get(pod::ENV_DATABASE)?;
        let owner = Names::new("", get(pod::ENV_SERVICE)?).postgres(&database).owner();
        let policy = serde_json::from_str(&get(pod::ENV_MIGRATION_POLICY)?).map_err(|error| {
            let message = format!("the environment variable {} is not readable: {error}", pod::ENV_MIGRATION_POLICY);
            Stopped::refused(reason::MIGRATION_FAILED, None, message)
        })?;
        Ok(Self { owner, database, host: get(pod::ENV_HOST)?, revision: get(pod::ENV_REVISION)?, policy })
    }

    async fn apply(&self, stop: &Stop, done: &mut Done) -> Result<(), Stopped> {
        let set = read_files(Path::new(pod::MIGRATIONS_DIR))?;
        if set.revision != self.revision {
            let message = format!(
                "the files are revision {}, but this Job is for {}: its ConfigMap was changed; delete the Job and the \
                 operator makes both anew",
                set.revision, self.revision
            );
            return Err(Stopped::refused(reason::INVALID_MIGRATIONS, None, message));
        }
        let mut patience = Patience::new();
        loop {
            let result = match self.access().await {
                Ok(access) => self.over_connection(&access, &set, stop, done, &mut patience).await,
                Err(stopped) => Err(stopped),
            };
            let Err(stopped) = result else { return Ok(()) };
            if stop.is_requested() && stopped.reconnect {
                return Err(Stopped::interrupted());
            }
            let Some(pause) = patience.pause(&stopped) else { return Err(stopped) };
            tracing::warn!(error = one_line(&stopped.failure), "trying again in {} ms", pause.as_millis());
            if !stop.sleep(pause).await {
                return Err(Stopped::interrupted());
            }
        }
    }

    /// Reads the migrator's record anew at each try: a rotation may have passed in between.
    async fn access(&self) -> Result<Access, Stopped> {
        let unavailable = |reason: &str, message: String| Stopped::unavailable(reason, message);
        let (vault, settings) =
            pod_vault::client().map_err(|error| unavailable(reason::VAULT_UNREACHABLE, error.to_string()))?;
        let path = format!("{}/migrator", settings.folder);
        let record = vault.read_kv(&path).await.map_err(|error| unavailable(error.reason(), error.to_string()))?;
        let Some(record) = record else {
            let message =
                format!("Vault has no record {path} yet: the operator writes it with the database's credentials");
            return Err(unavailable(reason::CREDENTIALS_PENDING, message));
        };
        let MigratorRecord { user, password, ca, .. } = MigratorRecord::from_data(&record.data)
            .map_err(|error| unavailable(reason::CREDENTIALS_PENDING, error.to_string()))?;
        Ok(Access { user, password, ca })
    }

    async fn over_connection(
        &self,
        access: &Access,
        set: &MigrationSet,
        stop: &Stop,
        done: &mut Done,
        patience: &mut Patience,
    ) -> Result<(), Stopped> {
        let name = format!("migrate/{}", std::env::var("HOSTNAME").unwrap_or_default());
        let login = TlsLogin {
            host: &self.host,
            address: None,
            port: pod::POSTGRES_PORT,
            database: &self.database,
            user: &access.user,
            password: &access.password,
            ca: &access.ca,
            application_name: &name,
        };
        let connection =
            over_tls(&login).await.map_err(|error| Stopped::unavailable(reason::NO_PRIMARY, error.to_string()))?;
        let before = done.applied + done.rolled_back;
        let limits = Limits {
            table_lock: Duration::from_secs(self.policy.lock_timeout_seconds.into()),
            statement: Duration::from_secs(self.policy.statement_timeout_seconds.into()),
            ..Limits::default()
        };
        let work = super::migrate(&connection.client, &self.owner, set, &self.policy, &limits, stop, done);
        let result = until_stopped(&login, &connection.client, stop, work).await;
        let lost_in_file = result.as_ref().is_err_and(|stopped| stopped.reconnect && stopped.failure.file.is_some());
        patience.worked(done.applied + done.rolled_back > before, lost_in_file);
        result
    }
}

/// Runs to the end, or, once the run shall end, cancels what the server is doing for it. It
/// asks again and again, since a request that comes between two statements ends neither.
async fn until_stopped(
    login: &TlsLogin<'_>,
    client: &Client,
    stop: &Stop,
    work: impl Future<Output = Result<(), Stopped>>,
) -> Result<(), Stopped> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        result = &mut work => return result,
        () = stop.requested() => tracing::info!("asked to end: cancelling what runs"),
    }
    let cancel = async {
        loop {
            if let Err(error) = cancel_over_tls(login, client).await {
                tracing::warn!(%error, "the running statement cannot be cancelled");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        result = work => result,
        () = cancel => Err(Stopped::interrupted()),
        () = tokio::time::sleep(CANCEL_PATIENCE) => Err(Stopped::interrupted()),
    }
}

/// How long to go on trying.
struct Patience {
    since: Instant,
    next: Duration,
    lost: u32,
}

impl Patience {
    fn new() -> Self {
        Self { since: Instant::now(), next: FIRST_PAUSE, lost: 0 }
    }

    /// After a connection that came as far as a file, the time starts anew; how often one was
    /// lost in a file is counted over the whole run.
    fn worked(&mut self, applied: bool, lost_in_file: bool) {
        if applied || lost_in_file {
            (self.since, self.next) = (Instant::now(), FIRST_PAUSE);
        }
        self.lost += u32::from(lost_in_file);
    }

    /// How long to wait before the next try, if there shall be one.
    fn pause(&mut self, stopped: &Stopped) -> Option<Duration> {
        if !stopped.reconnect || self.since.elapsed() > PATIENCE || self.lost >= MAX_LOST {
            return None;
        }
        let pause = self.next.mul_f64(rand::rng().random_range(0.5..1.5));
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        Some(pause)
    }
}

/// The files of a ConfigMap's volume. What starts with two dots is the kubelet's; each file
/// is a symbolic link into it.
fn read_files(folder: &Path) -> Result<MigrationSet, Stopped> {
    let failed = |path: &Path, error: std::io::Error| {
        let message = format!("{} cannot be read, which the operator mounts into its Jobs: {error}", path.display());
        Stopped::later(reason::INVALID_MIGRATIONS, message)
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let entry = entry.map_err(|error| failed(folder, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("..") {
            continue;
        }
        let content = std::fs::read(entry.path()).map_err(|error| failed(&entry.path(), error))?;
        files.push((name, content));
    }
    Ok(source::parse(files)?)
}

/// Waits for SIGTERM or Ctrl-C, and passes it on.
async fn listen(stopper: Stopper) {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            },
            Err(error) => {
                tracing::warn!(%error, "signals cannot be received");
                return;
            }
        }
    }
    #[cfg(not(unix))]
    if tokio::signal::ctrl_c().await.is_err() {
        return;
    }
    stopper.request();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelets_own_entries_are_no_migrations() {
        let folder = std::env::temp_dir().join(format!("servicedb-migrations-{}", std::process::id()));
        let data = folder.join("..2026_01_02");
        std::fs::create_dir_all(&data).expect("a folder");
        std::fs::write(data.join("1_a.up.sql"), "SELECT 1").expect("a file");
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("..2026_01_02", folder.join("..data")).expect("a link");
            std::os::unix::fs::symlink("..data/1_a.up.sql", folder.join("1_a.up.sql")).expect("a link");
        }
        let set = read_files(&folder);
        std::fs::remove_dir_all(&folder).expect("removed");
        let names: Vec<String> = set.expect("one migration").migrations.into_iter().map(|m| m.up.name).collect();
        assert_eq!(names, ["1_a.up.sql"]);
    }

    #[test]
    fn a_migration_that_takes_the_server_down_is_not_run_for_ever() {
        let mut patience = Patience::new();
        let lost = Stopped::unavailable(reason::NO_PRIMARY, "gone");
        let mut runs = 0;
        loop {
            runs += 1;
            patience.worked(false, true);
            let Some(pause) = patience.pause(&lost) else { break };
            assert!(pause <= LONGEST_PAUSE.mul_f64(1.5));
        }
        assert_eq!(runs, MAX_LOST);
    }

    #[test]
    fn a_refusal_is_not_tried_again() {
        let refused = Stopped::refused(reason::CHECKSUM_MISMATCH, None, "edited");
        assert_eq!(Patience::new().pause(&refused), None);
        assert_eq!(Patience::new().pause(&Stopped::interrupted()), None);
        assert!(Patience::new().pause(&Stopped::unavailable(reason::NO_PRIMARY, "")).is_some());
    }
}
