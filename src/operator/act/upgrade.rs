//! The major upgrade in a reconcile: its stage, and the Job that rehearses it.

use crate::contract::upgrade::Upgrade;
use crate::operator::backups::slots;
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::observe::Observation;
use crate::operator::status::Findings;
use crate::operator::upgrades::rehearsal::{self, Progress};
use crate::operator::upgrades::{self, ByItself, Known, State};
use crate::operator::validate::Database;

/// Decides on the next stage, and ends the Job of one that does not hold any more. Returns how far the Job is of the stage that
/// the agents know; none without one.
pub async fn advance(
    context: &Context,
    database: &Database,
    observed: &Observation,
    findings: &mut Findings<'_>,
) -> Option<Progress> {
    let known = stage(database, observed);
    let job = Box::pin(rehearsal::observe(context, database, known, findings.now)).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the Job of the rehearsal cannot be read; retrying");
        None
    });
    *findings.upgrade = decide(database, observed, findings, job.as_ref());
    let stages = (known, findings.upgrade.desired.as_ref());
    if let Err(error) = Box::pin(rehearsal::withdraw(context, database, stages, job.as_ref())).await {
        // It changes nothing, and is removed before the next one.
        tracing::warn!(%error, "the Job of a rehearsal that is not wanted any more cannot be removed");
    }
    job
}

/// The stage that the agents know.
fn stage<'a>(database: &Database, observed: &'a Observation) -> Option<&'a Upgrade> {
    let desired = observed.own_desired(&database.owner.uid);
    desired?.upgrade.as_deref()
}

fn decide(database: &Database, observed: &Observation, findings: &Findings<'_>, job: Option<&Progress>) -> State {
    let desired = observed.own_desired(&database.owner.uid);
    let busy = if findings.in_place.desired.is_some() {
        Some("a restore in place that is in progress")
    } else if desired.is_some_and(|desired| desired.order.is_some()) {
        Some("an order that is in progress")
    } else if findings.backups.run().is_some_and(|backup| backup.runs) {
        Some("a backup that is in progress")
    } else {
        None
    };
    let lineage = desired.and_then(|desired| desired.lineage.as_deref());
    let upgraded_at = lineage.map(|lineage| lineage.at).or(findings.upgrade.left_at());
    let report = observed.primary().and_then(|primary| primary.report.as_ref());
    let newest = findings.backups.newest_usable_of_all(database, report, upgraded_at);
    let known = Known {
        request: database.upgrade.as_ref(),
        names: database.names(),
        major: database.major,
        upgrade_to: database.upgrade_to,
        keep_former: database.keep_former,
        by_itself: ByItself::of(database.update_policy, &database.maintenance.windows, findings.now),
        generation: database.generation,
        desired: desired.and_then(|desired| desired.upgrade.as_deref()),
        lineage,
        pods: &observed.pods,
        primary: observed.primary(),
        busy,
        backup: newest.map(|(newest, place)| (newest.label.as_str(), place.name.as_str())),
        job_name: &database.names().rehearsal_job(findings.now.as_second()),
        job,
        adopts: database.adopt,
        now: findings.now,
    };
    upgrades::decide(&known, (*findings.upgrade).clone())
}

/// Creates the Job of a rehearsal, if the stage has one that does not exist.
///
/// # Errors
/// Any error of the API server.
pub async fn rehearse(
    context: &Context,
    database: &Database,
    observed: &Observation,
    findings: &mut Findings<'_>,
    progress: Option<&Progress>,
) -> Result<(), Error> {
    let Some(next) = rehearsal::of(findings.upgrade.desired.as_ref()) else { return Ok(()) };
    let Some(place) = rehearsal::place(database, next.1) else { return Ok(()) };
    let (uid, now) = (&database.owner.uid, findings.now);
    // Nothing else may tell of a Job that does not start, or of a slot.
    findings.backups.look_again(now + slots::WAIT);
    let is_new = rehearsal::of(stage(database, observed)).is_none_or(|(_, before)| before.job != next.1.job);
    if !is_new && matches!(progress, Some(Progress::Runs(_))) {
        context.backups.hold(uid, &place.name, now);
        return Ok(());
    }
    if !(is_new || progress == Some(&Progress::Absent)) || !context.backups.take(uid, &place.name, now) {
        return Ok(());
    }
    let identifier = observed.system_identifier.as_deref();
    let refused = Box::pin(rehearsal::start(context, database, place, identifier, next)).await?;
    if let Some(refusal) = refused {
        findings
            .upgrade
            .tell(format!("the API server refuses the Job of the rehearsal, which is tried again: {refusal}"));
    }
    Ok(())
}
