//! The migration Job: applies what is pending of one revision, once.
//!
//! Reading order: [`migrate`] below is the whole run over a connection; `job` is what the
//! process does around it, with the `environment` that the operator gave it. `files` reads a
//! folder, [`source`] its files, `lexer` their statements; `plan` compares them with the
//! [`ledger`]; `approval` holds what a person must see; `session` and `apply` do the work, a
//! `step` at a time; [`outcome`] is how it ends. `tool` is the same for a team's own tool;
//! [`drift`] looks whether the schema still is what the migrations give.

mod apply;
pub mod approval;
mod classify;
pub mod drift;
mod environment;
mod files;
mod job;
pub mod ledger;
mod lexer;
pub mod outcome;
mod patience;
mod plan;
mod session;
pub mod source;
mod step;
mod stop;
mod tool;

use tokio_postgres::Client;

pub use job::run;
pub use session::Limits;
pub use stop::{Stop, Stopper, stop};
pub use tool::{hold, is_held, record};

use apply::Applier;
use outcome::Stopped;
use source::MigrationSet;
use step::{Direction, Step};

use crate::api::conditions::reason;

use crate::api::{MigrationPlan, PendingApproval};
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
    /// What waits for a person.
    pub approval: Option<PendingApproval>,
}

/// What is brought to a database.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The role that owns the schema.
    pub owner: &'a str,
    /// The migrations.
    pub set: &'a MigrationSet,
    /// What the ledger shall record: the set's revision, or what stands for its source.
    pub revision: &'a str,
    /// Where the schema shall be, and what is allowed for it.
    pub policy: &'a Policy,
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
    run: Run<'_>,
    limits: &Limits,
    stop: &Stop,
    done: &mut Done,
) -> Result<(), Stopped> {
    let Run { owner, set, policy, .. } = run;
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

    // 3. Wait for a person, where one is asked.
    let reverts = ledger::down_files(client, &plan.reverts).await.map_err(session::unavailable)?;
    if policy.manual_approval {
        let steps = reverts.iter().map(|file| (file.name.as_str(), file.sql.as_str()));
        let steps = steps.chain(plan.pending.iter().map(|step| (step.up.name.as_str(), step.up.sql.as_str())));
        if let Some(approval) = approval::needed(steps, &policy.approval_id(&set.revision))
            && policy.approved.as_ref() != Some(&approval.id)
        {
            let message = approval::message(&approval);
            done.approval = Some(approval);
            return Err(Stopped::refused(reason::APPROVAL_REQUIRED, None, message));
        }
    }

    // 4. Tell what is pending, and that no revision is complete until it is done.
    if let Some(statements) = plan.announce() {
        client.batch_execute(&statements).await.map_err(session::unavailable)?;
    }

    // 5. Roll back, then apply, in order.
    let applier = Applier { client, settings: &settings, limits, stop };
    for file in &reverts {
        run_step(&applier, &Step::down(file)).await?;
        done.rolled_back += 1;
    }
    for migration in &plan.pending {
        run_step(&applier, &Step::up(migration)).await?;
        done.applied += 1;
    }

    // 6. Record the revision.
    let goal = policy.goal(run.revision);
    if !plan.is_empty() || ledger.revision.as_deref() != Some(&goal) {
        let statements = ledger::complete_revision(&goal, None);
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
