//! The migration Job: applies what is pending of one revision, once.
//!
//! Reading order: [`migrate`] below is the whole run over a connection; `job` is what the
//! process does around it. [`source`] reads the files, `lexer` their statements; `plan`
//! compares them with the [`ledger`]; `session` and `apply` do the work, a `step` at a time;
//! [`outcome`] is how it ends.

mod apply;
mod job;
pub mod ledger;
mod lexer;
pub mod outcome;
mod plan;
mod session;
pub mod source;
mod step;
mod stop;

use tokio_postgres::Client;

pub use job::run;
pub use session::Limits;
pub use stop::{Stop, Stopper, stop};

use apply::Applier;
use outcome::Stopped;
use source::{MigrationSet, mode};
use step::{Direction, Step};

use crate::api::MigrationPlan;
use crate::contract::migration::Policy;

/// What a run has done; it counts also when the run stops early.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// How many migrations it applied.
    pub applied: i64,
    /// How many it rolled back.
    pub rolled_back: i64,
    /// Of a dry run: what it would do.
    pub plan: Option<MigrationPlan>,
}

/// Brings a database to a set of migrations over one connection, whose user may
/// `SET ROLE owner`.
///
/// # Errors
/// If the ledger contradicts the set (then nothing was run), if a migration fails (then
/// nothing of it is left), if another run is under way for too long, or if the connection is
/// lost.
pub async fn migrate(
    client: &Client,
    owner: &str,
    set: &MigrationSet,
    policy: &Policy,
    limits: &Limits,
    stop: &Stop,
    done: &mut Done,
) -> Result<(), Stopped> {
    // 1. Be alone, and be the owner.
    let settings = session::prepare(client, owner, limits, stop).await?;

    // 2. Compare the ledger with the set; refuse before anything is run.
    let ledger = if policy.dry_run { ledger::look(client).await } else { ledger::open(client).await };
    let ledger = ledger.map_err(session::unavailable)?;
    let plan = plan::plan(set, &ledger, policy)?;
    if policy.dry_run {
        done.plan = Some(plan.shown());
        return Ok(());
    }

    // 3. Tell what is pending, and that no revision is complete until it is done.
    if let Some(statements) = plan.announce() {
        client.batch_execute(&statements).await.map_err(session::unavailable)?;
    }

    // 4. Roll back, then apply, in order.
    let applier = Applier { client, settings: &settings, limits, stop };
    for row in &plan.reverts {
        let (file, sql) = ledger::down_file(client, row.version).await.map_err(session::unavailable)?;
        let (direction, mode) = (Direction::Down, mode(&sql));
        run_step(&applier, &Step { direction, version: row.version, file: &file, sql: &sql, mode }).await?;
        done.rolled_back += 1;
    }
    for migration in &plan.pending {
        run_step(&applier, &Step::up(migration)).await?;
        done.applied += 1;
    }

    // 5. Record the revision.
    let goal = policy.goal(&set.revision);
    if !plan.is_empty() || ledger.revision.as_deref() != Some(&goal) {
        let statements = ledger::complete_revision(&goal);
        client.batch_execute(&statements).await.map_err(session::unavailable)?;
    }
    Ok(())
}

async fn run_step(applier: &Applier<'_>, step: &Step<'_>) -> Result<(), Stopped> {
    if applier.stop.is_requested() {
        return Err(Stopped::interrupted());
    }
    let started = std::time::Instant::now();
    applier.apply(step).await?;
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let done = if step.direction == Direction::Down { "rolled back" } else { "applied" };
    tracing::info!(file = step.file, version = step.version, duration_ms, "{done}");
    Ok(())
}
