//! The process of the migration Job: its files, the connection, and its result.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::environment::{Job, session_name};
use super::outcome::{self, Stopped, one_line};
use super::patience::Patience;
use super::source::MigrationSet;
use super::stop::{Stop, listen, stop};
use super::{Done, Run};
use crate::api::conditions::reason;
use crate::contract::migration::Outcome;
use crate::contract::pod::TERMINATION_LOG;
use crate::postgres::{TlsLogin, cancel_over_tls};

/// How long a cancelled statement may take to end.
const CANCEL_PATIENCE: Duration = Duration::from_secs(20);

/// Applies the pending migrations, once, and writes the outcome as the termination message.
pub async fn run() -> ExitCode {
    let (stopper, stop) = stop();
    let signals = tokio::spawn(listen(stopper));
    let started = Instant::now();
    let mut done = Done::default();
    let job = Job::from_environment();
    let revision = job.as_ref().map(|job| job.revision.clone()).unwrap_or_default();
    let result = match job {
        Ok(job) => apply(&job, &stop, &mut done).await,
        Err(stopped) => Err(stopped),
    };
    signals.abort();

    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let Done { applied, rolled_back, plan, approval } = done;
    let failure = result.err().map(|stopped| stopped.failure);
    let outcome = Outcome { revision, applied, rolled_back, duration_ms, plan, approval, drift: None, failure };
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
            tracing::error!(
                applied,
                duration_ms,
                reason,
                transient,
                error = one_line(failure),
                "not all migrations were applied"
            );
        }
    }
    outcome::leave(&outcome, Path::new(TERMINATION_LOG));
    ExitCode::from(outcome::exit_code(&outcome))
}

/// Applies the pending migrations.
async fn apply(job: &Job, stop: &Stop, done: &mut Done) -> Result<(), Stopped> {
    let set = job.files()?;
    if job.image_folder.is_none() && set.revision != job.revision {
        let message = format!(
            "the files are revision {}, but this Job is for {}: its ConfigMap was changed; delete the Job and the \
             operator recreates both",
            set.revision, job.revision
        );
        return Err(Stopped::refused(reason::INVALID_MIGRATIONS, None, message));
    }
    let mut patience = Patience::new();
    loop {
        let result = over_connection(job, &set, stop, done, &mut patience).await;
        let Err(stopped) = result else { return Ok(()) };
        if stop.is_requested() && stopped.reconnect {
            return Err(Stopped::interrupted());
        }
        let Some(pause) = patience.pause(&stopped) else { return Err(stopped) };
        tracing::warn!(error = one_line(&stopped.failure), "retrying in {} ms", pause.as_millis());
        if !stop.sleep(pause).await {
            return Err(Stopped::interrupted());
        }
    }
}

async fn over_connection(
    job: &Job,
    set: &MigrationSet,
    stop: &Stop,
    done: &mut Done,
    patience: &mut Patience,
) -> Result<(), Stopped> {
    let (access, connection) = job.connect().await?;
    let name = session_name();
    let login = job.login(&access, &name);
    let before = done.applied + done.rolled_back;
    let limits = job.limits();
    let owner = job.owner();
    let run = Run { owner: &owner, set, revision: &job.revision, policy: &job.policy };
    let work = super::migrate(&connection.client, run, &limits, stop, done);
    let result = until_stopped(&login, &connection.client, stop, work).await;
    let lost_in_file = result.as_ref().is_err_and(|stopped| stopped.reconnect && stopped.failure.file.is_some());
    patience.worked(done.applied + done.rolled_back > before, lost_in_file);
    result
}

/// Runs to the end, or, on a stop request, cancels the running statement. It repeats the cancel
/// request, since one that arrives between two statements cancels neither.
async fn until_stopped(
    login: &TlsLogin<'_>,
    client: &Client,
    stop: &Stop,
    work: impl Future<Output = Result<(), Stopped>>,
) -> Result<(), Stopped> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        result = &mut work => return result,
        () = stop.requested() => tracing::info!("stop requested: cancelling the running statement"),
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
