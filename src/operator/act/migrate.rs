//! The migrations in a reconcile, and their comparison with the schema.

use crate::api::conditions::{self as kind, reason};
use crate::api::names::ANNOTATION_RESTORE;
use crate::contract::report::Report;
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::migrations::progress::{Declared, Progress};
use crate::operator::migrations::{self, drift};
use crate::operator::observe::Observation;
use crate::operator::restores::in_place;
use crate::operator::status::condition::is_reported_refused;
use crate::operator::status::{Findings, is_applied};
use crate::operator::validate::Database;

/// The declared migrations and their target, as the ledger names them.
pub fn goal(database: &Database, declared: &Declared) -> Option<String> {
    Some(database.migrations.as_ref()?.policy.goal(declared.revision()?))
}

/// Applies the migrations, or says what they wait for.
///
/// # Errors
/// Any error of the API server.
pub async fn advance(
    context: &Context,
    database: &Database,
    observed: &Observation,
    declared: &Declared,
    findings: &mut Findings<'_>,
) -> Result<(), Error> {
    let report = observed.primary().and_then(|pod| pod.report.as_ref());
    let proved =
        report.filter(|report| report.credentials.as_ref().is_some_and(|credentials| credentials.generation >= 1));
    let applied = is_applied(findings.resource, declared.revision());
    if let Some(held) = held_after_restore(database, declared, report, applied, &findings.in_place) {
        findings.progress = Some(held);
        return Ok(());
    }
    let refused = is_reported_refused(findings.resource, kind::MIGRATIONS_APPLIED);
    let progress =
        Box::pin(migrations::advance(context, database, declared, proved, (applied, refused), findings.now)).await?;
    match &progress {
        Progress::Applied => {
            // An error affects neither the database nor its status.
            match Box::pin(drift::advance(context, findings.resource, database, declared, findings.now)).await {
                Ok(drift) => findings.drift = drift,
                Err(error) => {
                    tracing::warn!(%error, "the schema cannot be compared with its migrations; retrying");
                }
            }
        }
        Progress::NotDeclared => findings.drift = None,
        _ => {}
    }
    findings.progress = Some(progress);
    Ok(())
}

/// Migrations that a restore in place has undone: to apply them again could repeat what it was for.
fn held_after_restore(
    database: &Database,
    declared: &Declared,
    report: Option<&Report>,
    applied: bool,
    restored: &in_place::State,
) -> Option<Progress> {
    let goal = goal(database, declared).filter(|goal| restored.holds_migrations(database.in_place.as_ref(), goal))?;
    let ledger = report.and_then(|report| report.ledger.as_ref());
    let is_there = ledger.map_or(applied, |ledger| ledger.revision.as_ref() == Some(&goal));
    if is_there {
        return None;
    }
    let version = ledger.and_then(|ledger| ledger.schema_version());
    let version = version.map(|version| format!(" (version {version})")).unwrap_or_default();
    let message = format!(
        "the restore in place brought back a schema{version} from before the declared migrations; they are not applied \
         again by themselves: change the source or spec.migrations.targetVersion, or, to apply them again, kubectl \
         annotate servicedatabase {} {ANNOTATION_RESTORE}-",
        database.names().in_commands()
    );
    Some(Progress::Waiting { reason: reason::RESTORED_BEFORE, message })
}
