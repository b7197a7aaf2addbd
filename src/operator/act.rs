//! The acting part of a reconcile: Vault and certificates, the decision on the instances, the objects, the
//! Secret with the credentials, the migrations.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::apply::delete_observed;
use super::apply::failures::Failures;
use super::apply::object::Owner;
use super::backups::{self, slots};
use super::context::Context;
use super::context::error::Error;
use super::credentials::vault_sync::Prepared;
use super::credentials::{binding, vault_sync};
use super::gateway;
use super::instances::situation::Restoring;
use super::instances::{
    self, Decision, Members, Situation, Template, admission, eviction, given_up, growth, patroni_state,
};
use super::lifecycle::{adopt, deletion};
use super::maintenance::exclusion::Beside;
use super::maintenance::{self, rollout};
use super::migrations::progress::{Declared, Progress};
use super::migrations::{self, drift};
use super::observe::pods::DatabasePod;
use super::observe::{self, Observation};
use super::plan::{self, Inputs};
use super::pooler;
use super::restores::in_place;
use super::status::condition::ConditionState;
use super::status::{Findings, InstancesFindings, is_applied};
use super::tls::certify::certify;
use super::tls::served;
use super::upgrades::rehearsal;
use super::upgrades::{self, ByItself};
use super::validate::Database;
use crate::api::conditions::{self as kind, reason};
use crate::api::names::ANNOTATION_RESTORE;
use crate::api::{PendingRollout, ServiceDatabase, ServiceDatabaseStatus};
use crate::contract::desired::BackupRun;
use crate::contract::in_place::Stage;
use crate::contract::maintenance::Maintenance;
use crate::contract::report::Report;
use crate::contract::upgrade::Upgrade;
use crate::vault::VaultError;

/// While a pod waits for its mounts, observations of Secrets older than this are repeated.
const RECHECK_WHILE_MOUNTING: Duration = Duration::from_secs(5);

/// Brings the cluster and Vault one step nearer to the declared state; records what it finds in `findings`.
///
/// # Errors
/// The first error that lasts: the other steps that do not depend on it were taken.
pub async fn act(
    context: &Context,
    database: &Database,
    observed: &Observation,
    declared: &Declared,
    findings: &mut Findings<'_>,
) -> Result<(), Error> {
    // a. Leftovers of an earlier resource without volumes are removed.
    let has_volumes = observed.own_claims(&database.owner.uid).next().is_some();
    Box::pin(adopt::label_claims(context, database, observed)).await?;
    if observed.foreign_config && !has_volumes {
        Box::pin(deletion::remove_stamped_leftovers(context, database)).await?;
    }
    // b. Vault, and concurrently the certificates, which do not need it.
    let mut failures = Failures::default();
    let (prepared, authorities) = Box::pin(secrets(context, database, observed, findings, &mut failures)).await?;
    let Some(prepared) = prepared else { return failures.first() };
    findings.credentials = prepared.credentials.clone();

    // c. Decide which instance is changed next, and the template.
    let status = findings.resource.status.clone().unwrap_or_default();
    findings.in_place = restore_in_place(database, observed, declared, &status, findings);
    let desired = observed.desired.as_ref().filter(|desired| desired.uid == database.owner.uid);
    let known = desired.and_then(|desired| desired.upgrade.as_deref());
    let job = Box::pin(rehearsal::observe(context, database, known, findings.now)).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "the Job of the rehearsal cannot be read; retrying");
        None
    });
    *findings.upgrade = upgrade(database, observed, findings, job.as_ref());
    let stages = (known, findings.upgrade.desired.as_ref());
    if let Err(error) = Box::pin(rehearsal::withdraw(context, database, stages, job.as_ref())).await {
        // It changes nothing, and is removed before the next one.
        tracing::warn!(%error, "the Job of a rehearsal that is not wanted any more cannot be removed");
    }
    findings.backups.note_upgrade(findings.upgrade.left_at());
    let mut beside = beside(database, observed, declared, &status, findings);
    let mut choice = Box::pin(choose(context, database, observed, &status, findings, &beside)).await?;
    let (before, now) = (status.pooler.as_ref(), findings.now);
    let planned = pooler::Planned { decision: &mut choice.decision, upgrade: &mut findings.upgrade };
    let mut pooler = Box::pin(pooler::advance(context, database, observed, before, planned, now)).await?;

    let is_calm = findings.in_place.desired.is_none() && findings.upgrade.desired.is_none();
    let recorded = (findings.backups.clone(), is_calm);
    match Box::pin(backups::decide(context, database, observed, recorded, findings.now)).await {
        Ok(state) => findings.backups = state,
        // An error affects neither the database nor its status.
        Err(error) => tracing::warn!(%error, "the state of the backups cannot be read; retrying"),
    }

    beside.changes = choice.decision.change();
    findings.maintenance = maintain(database, observed, &choice, &beside, findings);

    // d. Apply all objects, the workload last.
    let mut volumes = Box::pin(growth::grow(&context.client, database, observed, choice.calm)).await?;
    let prepared = (prepared, authorities);
    let maintenance = findings.maintenance.desired.clone();
    let (restore, upgrade) = (&findings.in_place, &findings.upgrade);
    let long_work = LongWork { backup: findings.backups.run(), restore, upgrade, maintenance };
    Box::pin(apply(context, database, observed, (prepared, long_work), &choice, &mut volumes, &mut failures)).await?;
    Box::pin(pooler.apply(context, database, (findings.certificates.is_some(), findings.now), &mut failures)).await;
    findings.pooler = Some(pooler);
    Box::pin(serve_gateway(context, database, observed, findings, &mut failures)).await?;
    if failures.is_unanswered() {
        return failures.first();
    }
    for (pod, answer) in eviction::answers(&choice.situation, &choice.decision) {
        failures.note(Box::pin(eviction::write_answer(context, database, pod, answer.as_deref())).await);
    }
    if let Some(certified) = &findings.certificates {
        served::prompt(context, &database.owner, &observed.pods, &certified.fingerprint).await;
    }
    let Choice { decision, template, held, .. } = choice;
    let pending = template.pending.or(held);
    findings.instances = Some(InstancesFindings { decision, pending, volumes: volumes.difference });

    // e. The Secrets with credentials, if declared.
    failures.note(Box::pin(bind(context, database, observed, findings)).await);

    // f. The backup that was decided on.
    if failures.is_empty()
        && let Err(error) = Box::pin(backups::start(context, database, observed, &mut findings.backups)).await
    {
        tracing::warn!(%error, "the Job of a backup cannot be created; retrying");
    }

    // The Job that rehearses a major upgrade.
    if failures.is_empty()
        && let Err(error) = Box::pin(rehearse(context, database, observed, findings, (known, job.as_ref()))).await
    {
        tracing::warn!(%error, "the Job of the rehearsal cannot be created; retrying");
    }

    // g. The migrations, once there is a primary whose credentials were proved.
    match findings.in_place.desired.as_ref().map(|in_place| in_place.stage) {
        // One that runs would keep the primary from stopping.
        None if findings.upgrade.stops_instances().is_some() => Box::pin(migrations::stop(context, database)).await?,
        None => Box::pin(migrate(context, database, observed, declared, findings)).await?,
        Some(Stage::Prepare) => {}
        // One that runs would connect again, and apply to the restored database what was undone.
        Some(Stage::Hold | Stage::Switch) => Box::pin(migrations::forget(context, database)).await?,
    }
    failures.first()
}

/// The data gateway. What keeps its pods from serving stands in status.
async fn serve_gateway(
    context: &Context,
    database: &Database,
    observed: &Observation,
    findings: &mut Findings<'_>,
    failures: &mut Failures,
) -> Result<(), Error> {
    let before = findings.resource.status.as_ref().and_then(|status| status.gateway.as_ref());
    let mut gateway = gateway::look(context, database, observed, before, findings.now).await?;
    gateway.apply(context, database, (findings.certificates.is_some(), findings.now), failures).await;
    findings.gateway = Some(Box::new(gateway));
    Ok(())
}

/// Vault's objects and the certificates. Only objects that were read are recorded as observed: Secrets expire,
/// and are also read for that. The value is none where Vault is away and the database does not exist yet.
async fn secrets(
    context: &Context,
    database: &Database,
    observed: &Observation,
    findings: &mut Findings<'_>,
    failures: &mut Failures,
) -> Result<(Option<Prepared>, String), Error> {
    if observed.pods.iter().any(|pod| pod.mounting) {
        // Secrets are not watched: one may be missing if a pod does not start.
        context.cache.invalidate_secrets_older_than(&database.owner.uid, RECHECK_WHILE_MOUNTING);
    }
    let exists = observed.own_set(&database.owner.uid).is_some();
    let unseen = !context.cache.secrets_recorded(&database.owner.uid);
    let (vault, certified) = tokio::join!(
        vault_sync::sync(context, database, observed, unseen),
        certify(context, findings.resource, database, observed, findings.now)
    );
    let known = observed.authorities(&database.owner.uid).to_pem();
    let (certified, authorities) = match certified {
        Ok(certified) => certified,
        // A running database has its certificates; its other objects are maintained.
        Err(error) if exists => {
            failures.note(Err(error));
            (None, known)
        }
        Err(error) => return Err(error),
    };
    findings.certificates = certified;
    let prepared = match vault {
        Ok(prepared) => {
            if unseen {
                context.cache.record_secrets(&database.owner.uid);
            }
            findings.vault = Some(ConditionState::yes(reason::AVAILABLE, "Vault answers"));
            Some(prepared)
        }
        Err(Error::Vault(error)) => {
            note_vault(context, &database.owner.uid, &error, findings);
            // A database with role_ids continues without Vault.
            vault_sync::recorded(observed)
        }
        Err(error) if exists => {
            failures.note(Err(error));
            vault_sync::recorded(observed)
        }
        Err(error) => return Err(error),
    };
    Ok((prepared, authorities))
}

/// Creates the Job of a rehearsal, if the stage has one that does not exist; `known` is the stage before this reconcile.
async fn rehearse(
    context: &Context,
    database: &Database,
    observed: &Observation,
    findings: &mut Findings<'_>,
    (known, progress): (Option<&Upgrade>, Option<&rehearsal::Progress>),
) -> Result<(), Error> {
    let (Some(stage), Some(place)) = (rehearsal::of(findings.upgrade.desired.as_ref()), &database.archive) else {
        return Ok(());
    };
    let (uid, now) = (&database.owner.uid, findings.now);
    // Nothing else may tell of a Job that does not start, or of a slot.
    findings.backups.look_again(now + slots::WAIT);
    let is_new = rehearsal::of(known).is_none_or(|(_, before)| before.job != stage.1.job);
    if !is_new && matches!(progress, Some(rehearsal::Progress::Runs(_))) {
        context.backups.hold(uid, &place.name, now);
        return Ok(());
    }
    if !(is_new || progress == Some(&rehearsal::Progress::Absent)) || !context.backups.take(uid, &place.name, now) {
        return Ok(());
    }
    let identifier = observed.system_identifier.as_deref();
    let refused = Box::pin(rehearsal::start(context, database, place, identifier, stage)).await?;
    if let Some(refusal) = refused {
        findings
            .upgrade
            .tell(format!("the API server refuses the Job of the rehearsal, which is tried again: {refusal}"));
    }
    Ok(())
}

/// What takes long, beside the orders for the instances.
struct LongWork<'a> {
    backup: Option<BackupRun>,
    restore: &'a in_place::State,
    upgrade: &'a upgrades::State,
    maintenance: Maintenance,
}

/// What goes on beside the maintenance, but for the changes of the instances, which are not decided yet.
fn beside(
    database: &Database,
    observed: &Observation,
    declared: &Declared,
    status: &ServiceDatabaseStatus,
    findings: &Findings<'_>,
) -> Beside {
    let condition = |kind: &str| status.conditions.iter().find(|condition| condition.type_ == kind);
    // These wait for a person, or for another database.
    let waits = condition(kind::STALLED).is_some_and(|stalled| stalled.status == "True")
        || condition(kind::MIGRATIONS_APPLIED).is_some_and(|state| state.reason == reason::DEPENDENCY_NOT_READY);
    let ledger = observed.primary().and_then(|primary| primary.report.as_ref()?.ledger.as_ref());
    let is_behind = goal(database, declared).is_some_and(|goal| {
        let applied = || is_applied(findings.resource, declared.revision());
        !ledger.map_or_else(applied, |ledger| ledger.revision.as_ref() == Some(&goal))
    });
    let rehearses = rehearsal::of(findings.upgrade.desired.as_ref()).is_some();
    Beside {
        has_primary: observed.primary().is_some(),
        restores: findings.in_place.desired.is_some() || (findings.upgrade.desired.is_some() && !rehearses),
        rehearses,
        changes: None,
        migrates: is_behind && !waits,
        backs_up: findings.backups.run().is_some_and(|run| run.runs),
    }
}

/// The maintenance: whether a run is open for the leader's agent, and what status says.
fn maintain(
    database: &Database,
    observed: &Observation,
    choice: &Choice<'_>,
    beside: &Beside,
    findings: &Findings<'_>,
) -> Box<maintenance::State> {
    let mut state = Box::new(maintenance::decide(&maintenance::Known {
        declared: &database.maintenance,
        recorded: &findings.maintenance,
        report: observed.primary().and_then(|primary| primary.report.as_ref()?.maintenance.as_deref()),
        hindrance: beside.hindrance(),
        now: findings.now,
    }));
    let situation = &choice.situation;
    let follows = |pod: &DatabasePod| pod.revision.as_deref() == situation.revision;
    let is_finished = situation.revision.is_some()
        && choice.template.begun.is_none()
        && i32::try_from(situation.members().filter(|pod| follows(pod)).count()) == Ok(database.instances);
    let known = waiting_rollout(database, findings, beside);
    state.status.rollout = rollout::next(&known, choice.template.begun.clone(), is_finished, findings.now);
    state
}

/// A rollout that a window began, as far as it is not finished.
fn waiting_rollout<'a>(database: &'a Database, findings: &'a Findings<'_>, beside: &Beside) -> rollout::Known<'a> {
    let opening = database.maintenance.windows.open_at(findings.now);
    rollout::Known {
        policy: database.update_policy,
        admits: beside.admits_rollout(opening, findings.now),
        recorded: findings.maintenance.rollout(),
        approved: database.approved_rollout.as_deref(),
    }
}

/// The restore in place: its next stage, or its result.
fn restore_in_place(
    database: &Database,
    observed: &Observation,
    declared: &Declared,
    status: &ServiceDatabaseStatus,
    findings: &Findings<'_>,
) -> in_place::State {
    let desired = observed.desired.as_ref().filter(|desired| desired.uid == database.owner.uid);
    let goal = goal(database, declared);
    let known = in_place::Known {
        request: database.in_place.as_ref(),
        name: &database.names().name,
        backup: status.backup.as_ref(),
        store: database.archive.as_ref().map(|place| place.name.as_str()),
        desired: desired.and_then(|desired| desired.in_place.as_ref()),
        branch: desired.and_then(|desired| desired.branch.as_ref()),
        pods: &observed.pods,
        primary: observed.primary(),
        is_busy: desired.is_some_and(|desired| desired.order.is_some() || desired.upgrade.is_some()),
        migrations: goal.as_deref(),
        now: findings.now,
    };
    in_place::decide(&known, findings.in_place.clone())
}

/// The major upgrade: its next stage, or its result.
fn upgrade(
    database: &Database,
    observed: &Observation,
    findings: &Findings<'_>,
    job: Option<&rehearsal::Progress>,
) -> upgrades::State {
    let desired = observed.desired.as_ref().filter(|desired| desired.uid == database.owner.uid);
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
    let archive = observed.primary().and_then(|primary| primary.report.as_ref()?.archive.as_ref());
    let newest = database.archive.as_ref();
    let newest = newest.and_then(|place| findings.backups.newest_usable(&place.name, archive, upgraded_at));
    let known = upgrades::Known {
        request: database.upgrade.as_ref(),
        name: &database.names().name,
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
        backup: newest.map(|newest| newest.label.as_str()),
        job_name: &database.names().rehearsal_job(findings.now.as_second()),
        job,
        adopts: database.adopt,
        now: findings.now,
    };
    upgrades::decide(&known, (*findings.upgrade).clone())
}

/// What keeps every other change of the instances back.
fn exclusive(findings: &Findings<'_>) -> Option<Restoring> {
    if let Some(in_place) = &findings.in_place.desired {
        let why = findings.in_place.stops_instances();
        return Some(Restoring { reason: reason::RESTORING, why, pod: in_place.pod.clone() });
    }
    let upgrade = findings.upgrade.desired.as_ref()?;
    let why = findings.upgrade.stops_instances();
    Some(Restoring { reason: reason::UPGRADING, why, pod: upgrade.pod.clone() })
}

/// The declared migrations and their target, as the ledger names them.
fn goal(database: &Database, declared: &Declared) -> Option<String> {
    Some(database.migrations.as_ref()?.policy.goal(declared.revision()?))
}

/// The decision on the instances.
struct Choice<'a> {
    situation: Situation<'a>,
    decision: Decision,
    template: Template,
    live: Option<&'a StatefulSet>,
    /// The rest of a rollout that a window began, which waits for the next one.
    held: Option<PendingRollout>,
    /// Whether no other change is in progress: only then the StatefulSet is recreated.
    calm: bool,
}

async fn choose<'a>(
    context: &Context,
    database: &'a Database,
    observed: &'a Observation,
    status: &'a ServiceDatabaseStatus,
    findings: &mut Findings<'_>,
    beside: &Beside,
) -> Result<Choice<'a>, Error> {
    let live = observed.own_set(&database.owner.uid);
    let waiting = waiting_rollout(database, findings, beside);
    let kept = observed.template.as_ref();
    let mut template = instances::choose(database, &context.options, live, kept, waiting.admits);
    let holds_rollout = rollout::is_held(&waiting);
    let rest = waiting.recorded.filter(|_| holds_rollout).map(|rollout| PendingRollout {
        id: rollout.id.clone(),
        changes: vec!["the rest of the instances, as the window ended before all were replaced".to_owned()],
    });
    // A template whose pods would be refused is not applied to the StatefulSet: a lost pod is then
    // recreated from the former one.
    let held = Box::pin(admission::hold_back(&context.client, database, live, observed, &mut template.body)).await?;
    let stored = context.cache.stored_generation(&database.owner, "StatefulSet", &database.names().base());
    let update = live.filter(|live| instances::is_live(&template.body, live, stored));
    let situation = Situation {
        database,
        observed,
        status,
        revision: update.and_then(|live| live.status.as_ref()?.update_revision.as_deref()),
        refused: None,
        holds_rollout,
        restoring: exclusive(findings),
        now: findings.now,
    };
    let mut decision = instances::decide(&situation);
    if let Some(pod) = &decision.replace
        && let Some(refusal) =
            Box::pin(admission::refusal(&context.client, database, &template.body, live, &pod.name)).await?
    {
        let refused = Some(refusal.as_str());
        decision = instances::decide(&Situation { refused, ..situation.clone() });
    }
    let is_held = held.is_some();
    let missing = match update {
        Some(live) => {
            let before = is_reported_refused(findings.resource, kind::STALLED) && held.is_none();
            Box::pin(admission::missing(context, database, &template.body, live, observed, before)).await?
        }
        None => None,
    };
    let only_copy = Members::new(observed, database.names(), database.instances).condition();
    let refused = decision.refused.clone().or(missing).or(held);
    findings.stalled = only_copy.or_else(|| Some(ConditionState::yes(reason::POD_REFUSED, refused?)));
    if live.is_some() && update.is_none() && decision.under_way.is_none() {
        let message = "the StatefulSet's controller has not observed the template of the pods yet";
        decision.under_way = Some(ConditionState::no(reason::ROLLING_OUT, message));
    }
    let calm = decision.order.is_none()
        && decision.replicas == database.instances
        && live.and_then(declared_replicas) == Some(database.instances)
        && findings.in_place.desired.is_none()
        && findings.upgrade.desired.is_none()
        && !is_held;
    Ok(Choice { situation, decision, template, live, held: rest, calm })
}

async fn apply(
    context: &Context,
    database: &Database,
    observed: &Observation,
    ((prepared, authorities), long_work): ((Prepared, String), LongWork<'_>),
    choice: &Choice<'_>,
    volumes: &mut growth::Volumes,
    failures: &mut Failures,
) -> Result<(), Error> {
    let Choice { decision, template, live, .. } = choice;
    let live = *live;
    let has_volumes = observed.own_claims(&database.owner.uid).next().is_some();
    let vault_ca = context.vault_ca.now();
    let first = plan::config::document(database, &prepared.credentials);
    let patroni = patroni_state::contents(database.names(), &patroni_state::Known::from(observed, &first), |name| {
        context.cache.deleted(&database.names().namespace, name, &database.owner.uid)
    });
    let inputs = Inputs {
        patroni: &patroni,
        has_volumes,
        system_identifier: observed.system_identifier.as_deref(),
        options: &context.options,
        vault_ca: vault_ca.as_deref(),
        role_ids: prepared.role_ids,
        credentials: &prepared.credentials,
        authorities: Some(authorities).filter(|authorities| !authorities.is_empty()),
        decision,
        template: &template.body,
        secrets: binding::to_record(context, database, observed),
        volume_bytes: growth::smallest(database, observed),
        backup: long_work.backup,
        in_place: long_work.restore.desired.clone(),
        branch: long_work.restore.branch.clone(),
        maintenance: long_work.maintenance,
        upgrade: long_work.upgrade.desired.as_ref(),
        lineage: long_work.upgrade.lineage.as_ref(),
    };
    let supporting = plan::supporting(database, &inputs);
    // Objects are removed last, and only if their replacements exist.
    let (present, absent): (Vec<_>, Vec<_>) = supporting.iter().partition(|planned| planned.present);
    failures.apply_all(context, &database.owner, present).await;
    if failures.is_unanswered() {
        return Ok(());
    }
    if failures.is_empty() {
        failures.apply_all(context, &database.owner, absent).await;
    }
    if observed.lacks_initialize {
        failures.note(Box::pin(patroni_state::record_system_identifier(context, database, observed)).await);
    }
    // Never grant rights to a ServiceAccount, or by a Role, of another owner.
    if !failures.has_conflict() {
        failures.apply_all(context, &database.owner, [&plan::binding(database)]).await;
    }
    // Only if all objects that the next StatefulSet needs exist: without a StatefulSet a lost pod
    // is not recreated.
    if failures.is_empty()
        && volumes.must_renew
        && let Some(live) = live
    {
        Box::pin(growth::renew(&context.client, database, live)).await?;
        volumes.set_is_deleted = true;
    }
    // Scale only after the agents' desired state and the budgets were applied.
    let scaled = failures.is_empty();
    if !volumes.set_is_deleted
        && let Some(replicas) = if scaled { Some(decision.replicas) } else { live.and_then(declared_replicas) }
    {
        if scaled {
            Box::pin(given_up::mark(&context.client, database, observed, decision)).await?;
        }
        let (volume_size, volume_uid) = (&volumes.size, volumes.uid.as_str());
        let workload = plan::WorkloadInputs { template: &template.body, replicas, volume_size, volume_uid };
        failures.apply_all(context, &database.owner, [&plan::workload(database, &workload)]).await;
    }
    if failures.is_empty() {
        if let Some(pod) = &decision.replace {
            Box::pin(replace(context, &database.owner, pod)).await?;
        }
        Box::pin(given_up::remove_next(&context.client, database, observed, decision)).await?;
    }
    Ok(())
}

async fn migrate(
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
        database.names().name
    );
    Some(Progress::Waiting { reason: reason::RESTORED_BEFORE, message })
}

/// Records a failure of Vault in the findings and the cache.
fn note_vault(context: &Context, uid: &str, error: &VaultError, findings: &mut Findings<'_>) {
    vault_sync::handle_failure(context, uid, error);
    findings.vault = Some(ConditionState::no(error.reason(), error.to_string()));
}

/// Maintains the Secrets with credentials.
async fn bind(
    context: &Context,
    database: &Database,
    observed: &Observation,
    findings: &mut Findings<'_>,
) -> Result<(), Error> {
    match Box::pin(binding::maintain(context, database, observed, &mut findings.bound)).await {
        Err(Error::Vault(error)) => {
            note_vault(context, &database.owner.uid, &error, findings);
            Ok(())
        }
        result => result,
    }
}

/// The number of pods in the StatefulSet's spec.
fn declared_replicas(set: &StatefulSet) -> Option<i32> {
    set.spec.as_ref()?.replicas
}

/// Whether a condition in status says that the API server refuses a pod.
fn is_reported_refused(resource: &ServiceDatabase, kind: &str) -> bool {
    let mut conditions = resource.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|condition| condition.type_ == kind && condition.reason == reason::POD_REFUSED)
}

/// Deletes a pod, to be recreated from the present template; only the pod that was observed.
///
/// If it has changed since (it may be the primary now), the next reconcile decides again.
async fn replace(context: &Context, owner: &Owner, pod: &DatabasePod) -> Result<(), Error> {
    let namespace = &owner.names.namespace;
    if observe::volume_end_now(&context.client, &owner.names, pod).await? != pod.volume_end {
        // The claim was deleted since: its volume would go with the pod.
        return Ok(());
    }
    tracing::info!(pod = pod.name, "replacing a pod whose template has changed");
    let api: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let preconditions = Preconditions { uid: Some(pod.uid.clone()), resource_version: pod.resource_version.clone() };
    delete_observed(&api, &pod.name, DeleteParams::default(), preconditions).await
}
