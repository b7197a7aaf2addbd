//! The migration Job: applies what is pending of one revision, once.
//!
//! Reading order: [`migrate`] below is the whole run over a connection; `job` is what the
//! process does around it. [`source`] reads the files, `lexer` their statements; [`ledger`]
//! compares them with the database; `session` and `apply` do the work; [`outcome`] is how it
//! ends.

mod apply;
mod job;
pub mod ledger;
mod lexer;
pub mod outcome;
mod session;
pub mod source;
mod stop;

use tokio_postgres::Client;

pub use job::run;
pub use session::Limits;
pub use stop::{Stop, Stopper, stop};

use apply::Applier;
use outcome::Stopped;
use source::MigrationSet;

/// Brings a database to a set of migrations over one connection, whose user may
/// `SET ROLE owner`. `applied` counts what was applied, also when the run stops early.
///
/// # Errors
/// If the ledger contradicts the set (then nothing was run), if a migration fails (then
/// nothing of it is left), if another run is under way for too long, or if the connection is
/// lost.
pub async fn migrate(
    client: &Client,
    owner: &str,
    set: &MigrationSet,
    limits: &Limits,
    stop: &Stop,
    applied: &mut i64,
) -> Result<(), Stopped> {
    // 1. Be alone, and be the owner.
    let settings = session::prepare(client, owner, limits, stop).await?;

    // 2. Compare the ledger with the set; refuse before anything is run.
    let ledger = ledger::open(client).await.map_err(session::unavailable)?;
    let plan = ledger::plan(set, &ledger)?;

    // 3. Tell what is pending.
    if let Some(statements) = plan.announce() {
        client.batch_execute(&statements).await.map_err(session::unavailable)?;
    }

    // 4. Apply it in order.
    let applier = Applier { client, settings: &settings, limits, stop };
    for migration in &plan.pending {
        if stop.is_requested() {
            return Err(Stopped::interrupted());
        }
        let started = std::time::Instant::now();
        applier.apply(migration).await?;
        *applied += 1;
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(file = migration.up.name, version = migration.version, duration_ms, "applied");
    }

    // 5. Record the revision.
    if !plan.pending.is_empty() || ledger.revision.as_deref() != Some(&set.revision) {
        let statements = ledger::complete_revision(&set.revision);
        client.batch_execute(&statements).await.map_err(session::unavailable)?;
    }
    Ok(())
}
