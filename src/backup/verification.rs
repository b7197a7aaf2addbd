//! The test of a backup (`servicedb verify-backup`): a Job restores the newest one into a volume of its own, recovers
//! to the end of the archive, and checks what is there. Nothing of the running database is touched.

use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use tokio::process::Command;
use tokio_postgres::Client;

use super::job;
use crate::agent::ledger;
use crate::api::names::PostgresNames;
use crate::api::{MigrationRecord, MigrationState};
use crate::contract::backup::Target;
use crate::contract::backup_job::{VerificationJob, VerificationOutcome};
use crate::contract::pod::{ENV_VERIFICATION, PGDATA_NEW};
use crate::postgres::{describe, ident, immune, over_socket, servers};
use crate::restore::{self, recovery, recovery::SOCKET};

/// The schema of the extension that checks, in the restored database.
const SCHEMA: &str = "servicedb_verification";
/// The code of pg_amcheck for damage.
const DAMAGED: i32 = 2;
/// Characters of an error that are kept.
const LONGEST_ERROR: usize = 600;

/// Tests the newest backup, and writes the outcome as the termination message.
pub async fn run() -> ExitCode {
    let mut outcome = VerificationOutcome::default();
    let failure = job::until_stopped(verify(&mut outcome)).await.err();
    outcome.failure = failure.map(|error| error.chars().take(LONGEST_ERROR).collect());
    match &outcome.failure {
        None => tracing::info!(
            label = outcome.label,
            seconds = outcome.restore_seconds,
            "the backup was restored and checked"
        ),
        Some(error) => tracing::error!(error, label = outcome.label, "the backup is not proved"),
    }
    job::leave(&outcome, outcome.failure.is_none())
}

async fn verify(outcome: &mut VerificationOutcome) -> Result<(), String> {
    let job: VerificationJob = job::read(ENV_VERIFICATION)?;
    outcome.store = Some(job.place.name.clone());
    let secrets = job::secrets(&job.place).await?;
    let started = Instant::now();
    let (place, target) = (&job.place, &Target::Latest);
    let restored = restore::Restore {
        folder: Path::new(PGDATA_NEW),
        spare: 0,
        place,
        target,
        timeline: None,
        // After the way back from an upgrade, the newest backup may be of the database that was left.
        database: job.system_identifier.as_deref(),
        secrets: &secrets,
        refuses_damage: true,
        settings: recovery::write_settings,
    };
    let restored = restored.run().await?;
    outcome.restore_seconds = started.elapsed().as_secs();
    outcome.label = Some(restored.set);
    outcome.recovered_until = restored.until;
    let started = Instant::now();
    check(&job).await?;
    restored.server.stop().await?;
    outcome.check_seconds = started.elapsed().as_secs();
    Ok(())
}

async fn check(job: &VerificationJob) -> Result<(), String> {
    let connection = over_socket(SOCKET, "postgres", "servicedb verification").await.map_err(|e| e.to_string())?;
    let query = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()";
    let row = connection.client.query_one(query, &[]).await.map_err(|error| describe(&error))?;
    let found: String = row.get(0);
    if let Some(wanted) = job.system_identifier.as_ref().filter(|wanted| **wanted != found) {
        return Err(format!("the backup is of another database: its system identifier is {found}, and not {wanted}"));
    }
    drop(connection);
    check_ledger(job).await?;
    let connection = over_socket(SOCKET, &job.database, "servicedb verification").await;
    let connection = connection.map_err(|error| format!("the database {}: {error}", job.database))?;
    prepare(&connection.client).await.map_err(|error| describe(&error))?;
    drop(connection);
    // Every table and index, against each other. A damaged page fails its checksum when it is read.
    let checked = Command::new(servers::program_of(Path::new(PGDATA_NEW), "pg_amcheck"))
        .args(["--host", SOCKET, "--username", PostgresNames::READER, "--no-password", "--heapallindexed"])
        // By its position: with --database it would connect to another one for the list.
        .arg(&job.database)
        .env("PGOPTIONS", immune::READER)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("pg_amcheck: {error}"))?;
    if checked.status.success() {
        return Ok(());
    }
    let is_damaged = checked.status.code() == Some(DAMAGED);
    let said = [checked.stdout, checked.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    Err(if is_damaged {
        format!("the restored database is damaged: {said}")
    } else {
        format!("the restored database cannot be checked: {said}")
    })
}

/// The migrations are the part of the data that Servicedb knows: what was applied long ago must be there.
async fn check_ledger(job: &VerificationJob) -> Result<(), String> {
    let Some(applied) = &job.applied else { return Ok(()) };
    let ledger = ledger::look(SOCKET, &job.database).await.map_err(|error| format!("the restored ledger: {error}"))?;
    let is_there = |record: &MigrationRecord| record.version == *applied && record.state == MigrationState::Completed;
    if ledger.recent.iter().any(is_there) {
        return Ok(());
    }
    let end = ledger.version.map_or_else(|| "has no migration".to_owned(), |version| format!("ends with {version}"));
    Err(format!(
        "the restored database lacks the migration {applied}, which was applied over an hour ago: its ledger {end}"
    ))
}

/// Lets a login that is no superuser check: functions of the tenant in its indexes have no right then.
async fn prepare(client: &Client) -> Result<(), tokio_postgres::Error> {
    let reader = PostgresNames::READER;
    client.batch_execute("SET search_path = pg_catalog; SET client_min_messages = warning;").await?;
    let query = "SELECT n.nspname::text FROM pg_catalog.pg_extension e
                 JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'";
    let schema = match client.query_opt(query, &[]).await? {
        Some(row) => row.get(0),
        None => {
            client.batch_execute(&format!("CREATE SCHEMA {SCHEMA}; CREATE EXTENSION amcheck SCHEMA {SCHEMA};")).await?;
            SCHEMA.to_owned()
        }
    };
    let functions = "SELECT p.oid::pg_catalog.regprocedure::text FROM pg_catalog.pg_proc p
                     JOIN pg_catalog.pg_depend d ON d.objid = p.oid AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                     JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND d.deptype = 'e'
                     WHERE e.extname = 'amcheck'";
    let mut statements = format!("GRANT USAGE ON SCHEMA {} TO {reader};", ident(&schema));
    for row in client.query(functions, &[]).await? {
        statements += &format!("GRANT EXECUTE ON FUNCTION {} TO {reader};", row.get::<_, String>(0));
    }
    client.batch_execute(&statements).await
}
