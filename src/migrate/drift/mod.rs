//! The drift check: compares the catalog of the live database with that of a scratch database,
//! which is built from the same migrations on a server in this pod. It changes nothing in the live
//! database.

pub mod compare;
mod scratch;

use std::process::ExitCode;
use std::time::Instant;

use tokio_postgres::Client;

use super::environment::Job;
use super::outcome::{Stopped, cut, end};
use super::patience::insist;
use super::stop::{Stop, listen, stop};
use super::{ledger, session};
use crate::agent::extensions::{Places, places};
use crate::api::conditions::reason;
use crate::contract::migration::{DriftFound, Outcome};
use crate::contract::server_version::NEWEST;
use crate::postgres::{describe, servers};

use compare::{Catalog, differences};

/// The query that describes a database, one row per object.
const CATALOG: &str = include_str!("catalog.sql");
/// How names and constants are printed, on both sides; without nested loops the time grows with
/// the number of objects only, also where nothing was analyzed yet.
const SESSION: &str = "SET search_path = pg_catalog; SET jit = off; SET enable_nestloop = off; \
                       SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; \
                       SET extra_float_digits = 1; SET bytea_output = 'hex'; SET xmloption = 'content'; \
                       SET quote_all_identifiers = off; SET lock_timeout = '10s'; SET statement_timeout = '5min';";
/// How many differences are reported, and how much of each: the result must fit into a termination
/// message.
const SHOWN: usize = 12;
const LENGTH: usize = 200;

/// Compares once, and writes the result as the termination message.
pub async fn run() -> ExitCode {
    let (stopper, stop) = stop();
    let signals = tokio::spawn(listen(stopper));
    let started = Instant::now();
    let (revision, result) = match Job::from_environment() {
        Ok(job) => {
            let result = tokio::select! {
                result = look(&job, &stop) => result,
                () = stop.requested() => Err(Stopped::interrupted()),
            };
            (job.revision, result)
        }
        Err(stopped) => (String::new(), Err(stopped)),
    };
    signals.abort();
    let (drift, result) = match result {
        Ok(found) => (Some(found), Ok(())),
        Err(stopped) => (None, Err(stopped)),
    };
    if let Some(found) = &drift {
        tracing::info!(differences = found.count, "compared");
    }
    end(started, Outcome { revision, drift, ..Outcome::default() }, result)
}

async fn look(job: &Job, stop: &Stop) -> Result<DriftFound, Stopped> {
    let (found, major) = insist(async || live(job).await).await?;
    let declared = scratch::catalog(job, &job.files()?, (&found, major), stop).await?;
    insist(async || compare_with_live(job, &declared).await).await
}

/// The schemas of the live database's extensions, since a database of an earlier version has them all in `public`; and
/// its major version.
async fn live(job: &Job) -> Result<(Places, u16), Stopped> {
    let (_, connection) = job.connect().await?;
    let client = &connection.client;
    session::assume(client, &job.owner(), &job.limits()).await.map_err(session::unavailable)?;
    let version = "SELECT pg_catalog.current_setting('server_version')";
    let row = client.query_one(version, &[]).await.map_err(session::unavailable)?;
    let major = servers::major(row.get(0)).unwrap_or(NEWEST);
    if job.extensions.is_empty() {
        return Ok((Places::new(), major));
    }
    Ok((places(client).await.map_err(session::unavailable)?, major))
}

async fn compare_with_live(job: &Job, declared: &Catalog) -> Result<DriftFound, Stopped> {
    let (_, connection) = job.connect().await?;
    let client = &connection.client;
    session::assume(client, &job.owner(), &job.limits()).await.map_err(session::unavailable)?;
    // A definition may change while it is read: compare twice.
    let mut found = Vec::new();
    for _ in 0..2 {
        at_goal(job, client).await?;
        found = differences(declared, &catalog(client).await?);
        if found.is_empty() {
            break;
        }
    }
    at_goal(job, client).await?;
    Ok(DriftFound {
        count: i64::try_from(found.len()).unwrap_or(i64::MAX),
        differences: found.iter().take(SHOWN).map(|difference| cut(&difference.to_string(), LENGTH)).collect(),
    })
}

/// Only a schema at its target can have drifted.
async fn at_goal(job: &Job, client: &Client) -> Result<(), Stopped> {
    if ledger::revision(client).await.map_err(session::unavailable)? == Some(job.policy.goal(&job.revision)) {
        return Ok(());
    }
    let message = "the schema is being migrated: it is compared once it is at its target";
    Err(Stopped::later(reason::MIGRATIONS_RUNNING, message))
}

/// The catalog of a database. Sets the session's output formats.
///
/// # Errors
/// If the server refuses, or the connection is lost.
pub async fn catalog(client: &Client) -> Result<Catalog, Stopped> {
    let failed = |error: tokio_postgres::Error| match error.as_db_error() {
        None => session::unavailable(error),
        Some(_) => {
            let message = format!("the catalog cannot be read: {}", describe(&error));
            Stopped::later(reason::DRIFT_CHECK_FAILED, message)
        }
    };
    client.batch_execute(SESSION).await.map_err(failed)?;
    let rows = client.query(CATALOG, &[]).await.map_err(failed)?;
    Ok(rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect())
}
