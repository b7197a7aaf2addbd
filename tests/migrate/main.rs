//! The migration run against a real PostgreSQL: the database and the ledger after a run that
//! succeeds, fails, is killed, or waits for another run.

mod approvals;
mod collations;
mod drift;
mod examples;
#[path = "../e2e/exposition.rs"]
mod exposition;
mod failures;
mod gateway;
mod hostile;
mod interruptions;
mod layouts;
mod maintenance;
mod metrics;
mod no_transaction;
mod refusals;
mod rights;
mod rollbacks;
mod runs;
mod server;
mod short_lived;
mod upgrades;

use std::time::Duration;

use servicedb::contract::migration::{Failure, Policy};
use servicedb::migrate::source::{self, MigrationSet};
use servicedb::migrate::{Done, Limits, Run, Stop, migrate, stop};
use tokio_postgres::SimpleQueryMessage;

use server::{Database, Server, Session};

/// A set of migrations from names without their endings.
fn set(files: &[(&str, &str)]) -> MigrationSet {
    let files = files.iter().map(|(name, sql)| (format!("{name}.up.sql"), sql.as_bytes().to_vec()));
    source::parse(files).expect("valid migrations")
}

/// Short timeouts for tests.
fn limits() -> Limits {
    Limits {
        run_lock: Duration::from_secs(20),
        table_lock: Duration::from_millis(300),
        statement: Duration::ZERO,
        conflict_pause: Duration::from_millis(50),
        conflict_attempts: 3,
    }
}

/// Applies a set over a separate connection; returns the number of applied migrations and the failure.
async fn run(database: &Database, set: &MigrationSet) -> (i64, Option<Failure>) {
    let session = database.migrator().await;
    run_over(&session, database, set, &limits(), &stop().1).await
}

async fn run_over(
    session: &Session,
    database: &Database,
    set: &MigrationSet,
    limits: &Limits,
    stop: &Stop,
) -> (i64, Option<Failure>) {
    let (done, failure) = run_with(session, database, set, &Policy::default(), limits, stop).await;
    (done.applied, failure)
}

/// Applies a set with a policy, over a separate connection.
async fn run_as(database: &Database, set: &MigrationSet, policy: &Policy) -> (Done, Option<Failure>) {
    let session = database.migrator().await;
    run_with(&session, database, set, policy, &limits(), &stop().1).await
}

async fn run_with(
    session: &Session,
    database: &Database,
    set: &MigrationSet,
    policy: &Policy,
    limits: &Limits,
    stop: &Stop,
) -> (Done, Option<Failure>) {
    let mut done = Done::default();
    let owner = database.owner();
    let run = Run { owner: &owner, set, revision: &set.revision, policy };
    let work = migrate(&session.client, run, limits, stop, &mut done);
    let result = tokio::time::timeout(Duration::from_secs(120), work).await.expect("a run ends in time");
    (done, result.err().map(|stopped| stopped.failure))
}

/// The rows of a query as text, columns joined by a space.
async fn query(session: &Session, sql: &str) -> Vec<String> {
    let messages = session.client.simple_query(sql).await.expect(sql);
    let text = |message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).unwrap_or("NULL")).collect::<Vec<_>>().join(" "))
        }
        _ => None,
    };
    messages.into_iter().filter_map(text).collect()
}

/// The ledger: version, name, status.
async fn ledger(session: &Session) -> Vec<String> {
    query(session, "SELECT version, name, status FROM servicedb.migrations ORDER BY version").await
}

/// The tables of the service, and who owns them.
async fn tables(session: &Session) -> Vec<String> {
    query(session, "SELECT tablename, tableowner FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").await
}

/// A new database on the shared server.
async fn database(name: &str) -> Database {
    Server::shared().database(name).await
}
