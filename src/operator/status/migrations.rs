//! The migrations in status.

use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::condition::{ConditionState, held};
use super::findings::Findings;
use crate::api::conditions::{self as kind, reason};
use crate::api::{
    DriftStatus, MigrationPlan, MigrationRecord, MigrationState, MigrationsStatus, PendingApproval, SchemaVersion,
    ServiceDatabase, ServiceDatabaseStatus,
};
use crate::contract::migration::ledger_number;
use crate::contract::report::LedgerReport;
use crate::migrate::approval;
use crate::migrate::source::{Kind, MigrationSet};
use crate::migrate::version::Version;
use crate::operator::migrations::progress::{Declared, Progress};

/// How many migrations status shows.
const RECENT: usize = 20;

/// Whether the schema is at its declared target.
pub fn applied(findings: &Findings<'_>, previous: &ServiceDatabaseStatus) -> ConditionState {
    match &findings.progress {
        None => held(previous, kind::MIGRATIONS_APPLIED)
            .unwrap_or_else(|| ConditionState::no(reason::PROGRESSING, "the migrations were not checked yet")),
        Some(Progress::NotDeclared) => ConditionState::yes(reason::NOT_DECLARED, "spec.migrations is not set"),
        Some(Progress::Applied) => ConditionState::yes(reason::APPLIED, reached(findings)),
        Some(Progress::Planned(plan)) => ConditionState::no(reason::DRY_RUN, planned(plan)),
        Some(Progress::Running) => ConditionState::no(reason::MIGRATIONS_RUNNING, "the migration Job is in progress"),
        Some(Progress::Hindered { reason, message }) => ConditionState::no(reason, message.clone()),
        Some(Progress::Held(approval)) => {
            ConditionState::no(reason::APPROVAL_REQUIRED, approval_needed(findings, approval))
        }
        Some(Progress::Waiting { reason, message }) => ConditionState::no(reason, message.clone()),
        Some(Progress::Failed { reason, message }) => ConditionState::no(reason, message.clone()),
    }
}

/// Which statements wait for an approval, and how it is given.
pub fn approval_needed(findings: &Findings<'_>, approval: &PendingApproval) -> String {
    format!("{}: kubectl servicedb approve {} approves them", approval::message(approval), findings.in_commands())
}

/// Whether status reports, for this generation of spec, that its migrations of this revision are applied.
pub fn is_applied(resource: &ServiceDatabase, revision: Option<&str>) -> bool {
    let migrations = resource.status.as_ref().and_then(|status| status.migrations.as_ref());
    if migrations.and_then(|migrations| migrations.revision.as_deref()) != revision {
        return false;
    }
    let conditions = resource.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| {
        condition.type_ == kind::MIGRATIONS_APPLIED
            && condition.status == "True"
            && condition.observed_generation == resource.metadata.generation
    })
}

fn reached(findings: &Findings<'_>) -> String {
    match findings.resource.spec.migrations.as_ref().and_then(|migrations| migrations.target_version.as_ref()) {
        None => "every declared migration is applied".to_owned(),
        Some(target) => format!("the schema is at its target, version {target}"),
    }
}

fn planned(plan: &MigrationPlan) -> String {
    let record = if plan.record > 0 { format!("{} to record as applied, ", plan.record) } else { String::new() };
    format!(
        "spec.migrations.dryRun: {} to roll back, {record}{} to apply (status.migrations.plan); nothing was run",
        plan.roll_back, plan.apply
    )
}

/// Whether the schema has drifted.
pub fn drifted(drift: &DriftStatus) -> ConditionState {
    if let Some(error) = &drift.error {
        // The earlier finding still holds.
        let known = if drift.count > 0 { "; before, it had drifted (status.drift)" } else { "" };
        let message = format!("{error}{known}");
        return ConditionState { holds: drift.count > 0, reason: reason::DRIFT_CHECK_FAILED.to_owned(), message };
    }
    let (Some(first), more) = (drift.differences.first(), drift.count - 1) else {
        return ConditionState::no(reason::SCHEMA_MATCHES, "the schema matches the migrations");
    };
    let more = if more > 0 { format!(", and {more} more (status.drift)") } else { String::new() };
    let message = format!("{first}{more}; nothing is repaired automatically: revert the change, or add a migration");
    ConditionState::yes(reason::SCHEMA_DRIFTED, message)
}

/// Keeps the generation of a condition that this reconcile did not examine.
pub fn date_back(conditions: &mut [Condition], previous: &ServiceDatabaseStatus) {
    let before = previous.conditions.iter().find(|condition| condition.type_ == kind::MIGRATIONS_APPLIED);
    let now = conditions.iter_mut().find(|condition| condition.type_ == kind::MIGRATIONS_APPLIED);
    if let (Some(before), Some(now)) = (before, now) {
        now.observed_generation = before.observed_generation;
    }
}

/// The migrations in status.
pub fn status(
    findings: &Findings<'_>,
    ledger: Option<&LedgerReport>,
    previous: Option<MigrationsStatus>,
) -> Option<MigrationsStatus> {
    let declared = findings.declared;
    let Some(revision) = declared.and_then(Declared::revision) else {
        return previous.filter(|_| findings.resource.spec.migrations.is_some());
    };
    let (plan, approval) = match &findings.progress {
        Some(Progress::Planned(plan)) => (Some(plan.clone()), None),
        Some(Progress::Held(approval)) => (None, Some(approval.clone())),
        _ => (None, None),
    };
    let set = declared.and_then(Declared::set);
    let Some(ledger) = ledger else {
        let declared = set.map_or(0, |set| count(set.migrations.len()));
        let unknown = || MigrationsStatus { pending: declared, ..MigrationsStatus::default() };
        let mut status = previous.unwrap_or_else(unknown);
        status.revision = Some(revision.to_owned());
        status.format = set.map(|set| set.format.name().to_owned()).or(status.format);
        (status.plan, status.approval) = (plan, approval);
        return Some(status);
    };
    let (pending, waiting) = match set {
        Some(set) => pending(findings, set, ledger),
        // Migrations that only the Job can read are announced in the ledger.
        None => (ledger.pending, Vec::new()),
    };
    let mut recent: Vec<_> = ledger.recent.iter().cloned().chain(waiting).collect();
    if let Some(set) = set {
        // The ledger's own order is that of the files when they were applied.
        recent.sort_by_cached_key(|record| std::cmp::Reverse(place(set, &record.version)));
    }
    recent.truncate(RECENT);
    let source = set.map(MigrationSet::report).or_else(|| ledger.source.clone());
    let (format, ignored, ignored_count) = match source {
        Some(source) => (Some(source.format), source.ignored, source.ignored_count),
        None => (None, Vec::new(), 0),
    };
    Some(MigrationsStatus {
        revision: Some(revision.to_owned()),
        format,
        ignored,
        ignored_count: Some(ignored_count).filter(|count| *count > 0),
        applied: ledger.applied,
        pending,
        failed: ledger.failed,
        recent,
        plan,
        approval,
    })
}

/// Where a version stands in the order of a set.
fn place(set: &MigrationSet, version: &SchemaVersion) -> Version {
    let version = Version::new(version.clone(), String::new());
    let ordinal = set.place(&version).unwrap_or_default();
    Version { ordinal, ..version }
}

/// The number of migrations of a set that are not completed, and those of them that are not in the
/// ledger.
fn pending(findings: &Findings<'_>, set: &MigrationSet, ledger: &LedgerReport) -> (i64, Vec<MigrationRecord>) {
    // An agent that only knows numbers reports those of the ledger.
    let recent: HashMap<i64, &MigrationRecord> =
        ledger.recent.iter().map(|record| (ledger_number(&record.version), record)).collect();
    let known = |version: &Version| recent.get(&version.number).copied();
    // The ledger's list is bounded too: a version below its head that is not in it is applied.
    let head = ledger.version.as_ref().map(|head| place(set, head));
    let declared = findings.database.and_then(|database| database.migrations.as_ref());
    let target = declared.and_then(|declared| set.target(&declared.policy).ok());
    let pending: Vec<_> = set
        .migrations
        .iter()
        .filter(|migration| target.as_ref().is_none_or(|target| target.wants(&migration.version)))
        .filter(|migration| match (migration.kind, known(&migration.version)) {
            (_, Some(record)) => record.state != MigrationState::Completed,
            (Kind::Versioned, None) => head.as_ref().is_none_or(|head| migration.version > *head),
            // One in place of others is for an empty database.
            (Kind::Baseline, None) => false,
            (Kind::Repeatable, None) => ledger.revision.as_deref() != Some(&set.revision),
        })
        .collect();
    let waiting =
        pending.iter().filter(|migration| known(&migration.version).is_none()).map(|migration| MigrationRecord {
            version: migration.version.text.clone(),
            name: migration.name.clone(),
            state: MigrationState::Pending,
            started_at: None,
            duration_ms: None,
            error: None,
        });
    (count(pending.len()), waiting.collect())
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
