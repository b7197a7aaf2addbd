//! The driver: observe → validate → plan → apply → status, as numbered steps. Watches trigger the
//! next reconcile; nothing sleeps here.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::controller::Action;

use super::act::act;
use super::apply::object::Owner;
use super::backups;
use super::context::Context;
use super::context::error::Error;
use super::credentials::DesiredCredentials;
use super::credentials::binding::Bound;
use super::held::{keep_alive, paused, retained};
use super::instances::{given_up, lost};
use super::lifecycle::{adopt, deletion};
use super::maintenance;
use super::migrations;
use super::observe;
use super::restores::{bootstrap, in_place};
use super::status::condition::ConditionState;
use super::status::{Findings, publish};
use super::upgrades;
use super::validate::validate;
use crate::api::conditions::reason;
use crate::api::names::{FINALIZER, Names};
use crate::api::{ServiceDatabase, ServiceDatabaseStatus};
use crate::backoff::jittered;
use crate::contract::desired::Desired;

/// Requeue interval for state that no watch reports.
const WAITING: Duration = Duration::from_secs(15);

/// Reconciles one ServiceDatabase once.
///
/// # Errors
/// Errors that are retried with backoff; the status was written if possible.
pub async fn reconcile(resource: Arc<ServiceDatabase>, context: Arc<Context>) -> Result<Action, Error> {
    // 1. Deletion comes first and does not read the spec: an invalid spec must not block it.
    if resource.metadata.deletion_timestamp.is_some() {
        return Box::pin(deletion::clean_up(&context, &resource)).await;
    }
    // 2. The finalizer is set before any other object is created.
    if !resource.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        Box::pin(deletion::add_finalizer(&context, &resource)).await?;
        return Ok(Action::await_change());
    }
    // 3. Observe.
    let names = Names::new(resource.namespace().unwrap_or_default(), resource.name_any());
    let uid = resource.uid().unwrap_or_default();
    let observed = Box::pin(observe::observe(&context, &names, &uid, resource.spec.instances)).await?;
    if let Some(set) = observed.own_set(&uid)
        && Box::pin(given_up::keep_volumes(&context.client, set)).await?
    {
        // Nothing is scaled on the basis of an outdated observation.
        return Ok(Action::requeue(Duration::ZERO));
    }

    // 4. Validate.
    let none: Box<ServiceDatabaseStatus> = Box::default();
    let recorded: &ServiceDatabaseStatus = resource.status.as_ref().unwrap_or(&none);
    // The stages that the agents know hold until this reconcile decides on others, and where it ends before that.
    let known = observed.own_desired(&uid);
    let mut findings = Findings {
        resource: &resource,
        options: &context.options,
        database: None,
        observed: &observed,
        stalled: None,
        failed: None,
        vault: None,
        bound: Bound::recorded(recorded),
        certificates: None,
        credentials: DesiredCredentials::recorded(&observed).unwrap_or_else(DesiredCredentials::first),
        progress: None,
        declared: None,
        drift: recorded.drift.clone(),
        instances: None,
        pooler: None,
        gateway: None,
        backups: backups::State::recorded(recorded),
        maintenance: Box::new(maintenance::State::recorded(recorded)),
        in_place: in_place::State {
            desired: known.and_then(|desired| desired.in_place.clone()),
            ..in_place::State::recorded(recorded)
        },
        upgrade: Box::new(upgrades::State {
            desired: known.and_then(|desired| desired.upgrade.as_deref().cloned()),
            ..upgrades::State::recorded(recorded)
        }),
        now: context.now(),
    };
    let mut database = match validate(&resource, &context.options) {
        Ok(database) => database,
        Err(invalid) => {
            findings.stalled = Some(ConditionState::yes(invalid.reason, invalid.message));
            Box::pin(keep_alive(&context, &Owner { names, uid }, &observed, &mut findings)).await;
            Box::pin(report(&context, &findings)).await?;
            return Ok(resync(&context));
        }
    };
    let declared = resource.spec.bootstrap.restore.as_ref();
    let restore = Box::pin(bootstrap::resolve(&context, declared, &database, &observed)).await?;
    database.restore = restore.as_ref().ok().cloned().flatten();
    findings.database = Some(&database);
    let stops_instances = observed.own_desired(&uid).is_some_and(Desired::stops_instances);
    if resource.spec.paused && !stops_instances {
        findings.stalled = Some(ConditionState::yes(reason::PAUSED, paused(&database, &observed)));
        Box::pin(keep_alive(&context, &database.owner, &observed, &mut findings)).await;
        Box::pin(report(&context, &findings)).await?;
        return Ok(resync(&context));
    }
    if database.adopt && !observed.retained_claims(&database.owner.uid).is_empty() {
        match adopt::other_database(&database, &observed) {
            None => {
                Box::pin(adopt::take_over(&context, &database, &observed)).await?;
                // The observation is outdated now.
                return Ok(Action::requeue(Duration::ZERO));
            }
            Some(held) => {
                let message = format!(
                    "spec.bootstrap.adopt: the volumes contain the database {held}, but spec.database is {}: \
                     re-create the resource with spec.database: {held}",
                    database.postgres.database
                );
                findings.stalled = Some(ConditionState::yes(reason::RETAINED_DATA_FOUND, message));
                Box::pin(report(&context, &findings)).await?;
                return Ok(resync(&context));
            }
        }
    }
    if let Some(state) = retained(&database, &observed) {
        findings.stalled = Some(state);
        Box::pin(keep_alive(&context, &database.owner, &observed, &mut findings)).await;
        Box::pin(report(&context, &findings)).await?;
        return Ok(Action::requeue(jittered(WAITING)));
    }

    if let Err(refused) = restore {
        findings.stalled = Some(ConditionState::yes(refused.reason, refused.message));
        Box::pin(report(&context, &findings)).await?;
        return Ok(Action::requeue(jittered(WAITING)));
    }

    // 5. Act.
    let declared = Box::pin(migrations::declared(&context, &database)).await?;
    findings.declared = Some(&declared);
    // On the heap: the future of a reconcile must fit on the stack of a thread, in a development build, too.
    let made = Box::pin(act(&context, &database, &observed, &declared, &mut findings)).await;

    // 6. Report.
    let outcome = match made {
        Ok(()) => Ok(()),
        Err(error @ (Error::ObjectConflict { .. } | Error::ForeignRecord { .. })) => {
            findings.stalled = Some(ConditionState::yes(error.reason(), error.to_string()));
            Ok(())
        }
        // There is no resource to report it to: it is deleted with its namespace.
        Err(error) if error.is_of_terminating_namespace() => return Err(error),
        Err(error) => {
            let failed = ConditionState::no(error.reason(), error.to_string());
            if error.is_invalid() {
                findings.stalled.get_or_insert_with(|| ConditionState { holds: true, ..failed.clone() });
            }
            findings.failed = Some(failed);
            Err(error)
        }
    };
    if findings.stalled.is_none() {
        findings.stalled = lost::leader_unknown(&observed, database.names());
    }
    // The probe reports when Vault is available again; the end of a refusal needs a retry.
    let vault_failing = findings.vault.as_ref().is_some_and(|state| !state.holds) || observed.vault_refuses_an_agent();
    let published = Box::pin(report(&context, &findings)).await;
    outcome?;
    let ready = published?;
    let waits = findings.instances.as_ref().is_some_and(|instances| instances.decision.order.is_some())
        || observed.primary().is_some_and(|primary| observed.drains(primary))
        || findings.certificates.as_ref().is_some_and(|certified| certified.waits);
    let requeue = if ready && !vault_failing && !waits {
        let resync = resync_time(&context);
        let due = findings.credentials.due_in.map_or(resync, |due| due + Duration::from_secs(1));
        let backup = findings.backup_due_in().unwrap_or(resync);
        let maintenance = findings.maintenance_due_in().unwrap_or(resync);
        let certificates = findings.certificates_due_in().unwrap_or(resync);
        resync.min(due).min(certificates).min(backup).min(maintenance)
    } else {
        jittered(WAITING)
    };
    let pooler = findings.pooler.as_ref().and_then(|pooler| pooler.again_in);
    Ok(Action::requeue(pooler.map_or(requeue, |soon| soon.min(requeue))))
}

/// Writes the status, and returns whether the resource is Ready. After an error, the next reconcile
/// repeats the checks whose results were not written.
async fn report(context: &Context, findings: &Findings<'_>) -> Result<bool, Error> {
    let published = Box::pin(publish::status(context, findings)).await;
    if published.is_err() {
        context.cache.invalidate_reported(&findings.resource.uid().unwrap_or_default());
    }
    published
}

fn resync(context: &Context) -> Action {
    Action::requeue(resync_time(context))
}

fn resync_time(context: &Context) -> Duration {
    jittered(Duration::from_secs(context.options.resync_seconds))
}
