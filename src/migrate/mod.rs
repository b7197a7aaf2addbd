//! The migration Job: applies the pending migrations of one revision, once.
//!
//! Reading order: [`migrate`] below is the whole run over a connection; `job` is the process around
//! it, with the `environment` from the operator. `files` reads a folder, [`source`] its files,
//! `lexer` their statements; `plan` compares them with the [`ledger`]; `approval` finds the
//! statements that need one; `session` and `apply` run them, one `step` at a time; [`outcome`] is
//! the result. `tool` is the same for a team's own tool; [`drift`] compares the schema with the
//! migrations.

mod apply;
pub mod approval;
mod classify;
pub mod drift;
mod environment;
mod files;
mod formats;
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
mod takeover;
mod tool;
pub mod version;

use std::collections::HashSet;

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

/// The progress of a run; valid also if the run stops early.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// How many migrations it applied.
    pub applied: i64,
    /// How many it rolled back.
    pub rolled_back: i64,
    /// Of a dry run: the plan.
    pub plan: Option<MigrationPlan>,
    /// The statements that wait for approval.
    pub approval: Option<PendingApproval>,
}

/// The migrations to apply and their policy.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The role that owns the schema.
    pub owner: &'a str,
    /// The migrations.
    pub set: &'a MigrationSet,
    /// The revision to record: the set's, or the one that identifies its source.
    pub revision: &'a str,
    /// The target of the schema, and the allowed operations.
    pub policy: &'a Policy,
}

/// Applies a set of migrations to a database over one connection, whose user may
/// `SET ROLE owner`.
///
/// # Errors
/// If the ledger contradicts the set (then nothing was run), if a migration fails (then it was rolled
/// back), if another run takes too long, or if the connection is lost.
pub async fn migrate(
    client: &Client,
    run: Run<'_>,
    limits: &Limits,
    stop: &Stop,
    done: &mut Done,
) -> Result<(), Stopped> {
    let Run { owner, set, policy, .. } = run;
    // 1. Take the lock, and the owner's role.
    let settings = session::prepare(client, owner, limits, stop).await?;

    // 2. Compare the ledger with the set; refuse before the first statement.
    let ledger = if policy.dry_run { ledger::look(client).await } else { ledger::open(client).await };
    let mut ledger = ledger.map_err(session::unavailable)?;
    ledger.arrange(set);
    let known = if policy.baseline_from_tool && ledger.is_untouched() {
        takeover::applied(client, set).await?
    } else {
        HashSet::new()
    };
    let plan = plan::plan_with(set, &ledger, policy, &known)?;
    if policy.dry_run {
        done.plan = Some(plan.shown());
        return Ok(());
    }

    // 3. Wait for approval, if required.
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

    // 4. Record the pending migrations, and that no revision is complete until they are done.
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
        let statements = ledger::complete_revision(&goal, None, Some(&set.report()));
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
    tracing::info!(file = step.file, version = %step.version, duration_ms, "{done}");
    Ok(())
}
