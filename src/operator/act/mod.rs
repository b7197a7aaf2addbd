//! The acting part of a reconcile: Vault and certificates, the decision on the instances, the objects, the
//! Secret with the credentials, the migrations.

mod choice;
mod migrate;
mod upgrade;

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::apply::delete_observed;
use super::apply::failures::Failures;
use super::apply::object::Owner;
use super::backups;
use super::context::Context;
use super::context::error::Error;
use super::credentials::vault_sync::Prepared;
use super::credentials::{binding, vault_sync};
use super::gateway;
use super::instances::{eviction, given_up, growth, patroni_state};
use super::lifecycle::{adopt, deletion};
use super::maintenance::exclusion::Beside;
use super::maintenance::{self, rollout};
use super::migrations;
use super::migrations::progress::Declared;
use super::observe::pods::DatabasePod;
use super::observe::{self, Observation};
use super::plan::{self, Inputs};
use super::pooler;
use super::restores::in_place;
use super::status::condition::ConditionState;
use super::status::{Findings, InstancesFindings, is_applied};
use super::tls::certify::certify;
use super::tls::served;
use super::upgrades::{self, rehearsal};
use super::validate::Database;
use crate::api::ServiceDatabaseStatus;
use crate::api::conditions::{self as kind, reason};
use crate::contract::backup::Nth;
use crate::contract::desired::BackupRun;
use crate::contract::in_place::Stage;
use crate::contract::maintenance::Maintenance;
use crate::contract::restore_store::Store;
use crate::vault::VaultError;
use choice::{Choice, choose, declared_replicas, waiting_rollout};
use migrate::goal;

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
    let rehearsed = Box::pin(upgrade::advance(context, database, observed, findings)).await;
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
        && let Err(error) = Box::pin(upgrade::rehearse(context, database, observed, findings, rehearsed.as_ref())).await
    {
        tracing::warn!(%error, "the Job of the rehearsal cannot be created; retrying");
    }

    // g. The migrations, once there is a primary whose credentials were proved.
    match findings.in_place.desired.as_ref().map(|in_place| in_place.stage) {
        // One that runs would keep the primary from stopping.
        None if findings.upgrade.stops_instances().is_some() => Box::pin(migrations::stop(context, database)).await?,
        None => Box::pin(migrate::advance(context, database, observed, declared, findings)).await?,
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

/// The restore in place: its next stage, or its result.
fn restore_in_place(
    database: &Database,
    observed: &Observation,
    declared: &Declared,
    status: &ServiceDatabaseStatus,
    findings: &Findings<'_>,
) -> in_place::State {
    let desired = observed.own_desired(&database.owner.uid);
    let goal = goal(database, declared);
    let report = observed.primary().and_then(|primary| primary.report.as_ref());
    let stores: Vec<_> = Nth::ALL
        .into_iter()
        .filter_map(|nth| {
            let name = database.archive_in(nth)?.name.as_str();
            Some(Store::of(name, report.and_then(|report| report.archive_in(nth))))
        })
        .collect();
    let known = in_place::Known {
        request: database.in_place.as_ref(),
        names: database.names(),
        backup: status.backup.as_ref(),
        stores: &stores,
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
