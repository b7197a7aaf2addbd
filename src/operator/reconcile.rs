//! The driver: observe → validate → plan → apply → status, as numbered steps. What is
//! missing is waited for by watches, never by sleeping here.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};

use super::apply::object::Owner;
use super::apply::{apply, delete_as_seen};
use super::context::Context;
use super::context::error::Error;
use super::credentials::{Settled, binding, vault_sync};
use super::instances::{self, Members, Situation, admission, given_up, growth, lost, patroni_state};
use super::lifecycle::{adopt, deletion};
use super::migrations::progress::{Declared, Progress};
use super::migrations::{self, drift};
use super::observe::pods::DatabasePod;
use super::observe::{self, Observation};
use super::plan::{self, Inputs};
use super::status::condition::ConditionState;
use super::status::{Findings, Shape, is_applied, publish};
use super::tls::authority;
use super::tls::certify::{self, certify};
use super::tls::served;
use super::validate::{Database, validate};
use crate::api::ServiceDatabase;
use crate::api::conditions::reason;
use crate::api::names::{FINALIZER, Names};
use crate::backoff::jittered;
use crate::vault::VaultError;

/// How soon a database is looked at again that waits for what no watch tells.
const WAITING: Duration = Duration::from_secs(15);

/// While a pod waits for its mounts, Secrets that were seen this long ago are looked at again.
const MOUNTING_IS_HEARD_AFTER: Duration = Duration::from_secs(5);

/// Reconciles one ServiceDatabase once.
///
/// # Errors
/// Whatever is to be tried again with backoff; status has been written where it could be.
pub async fn reconcile(resource: Arc<ServiceDatabase>, context: Arc<Context>) -> Result<Action, Error> {
    // 1. Deletion goes first and does not look at spec: a bad spec must not block it.
    if resource.metadata.deletion_timestamp.is_some() {
        return deletion::clean_up(&context, &resource).await;
    }
    // 2. The finalizer is there before anything outside of the resource is.
    if !resource.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        deletion::add_finalizer(&context, &resource).await?;
        return Ok(Action::await_change());
    }
    // 3. What is.
    let names = Names::new(resource.namespace().unwrap_or_default(), resource.name_any());
    let uid = resource.uid().unwrap_or_default();
    let observed = observe::observe(&context, &names, &uid).await?;
    if let Some(set) = observed.own_set(&uid)
        && given_up::keep_volumes(&context.client, set).await?
    {
        // Nothing is scaled by what was observed before.
        return Ok(Action::requeue(Duration::ZERO));
    }

    // 4. What shall be.
    let mut findings = Findings {
        resource: &resource,
        options: &context.options,
        database: None,
        observed: &observed,
        stalled: None,
        failed: None,
        vault: None,
        binding: bound_before(&resource),
        certificates: None,
        credentials: Settled::remembered(&observed).unwrap_or_else(Settled::first),
        progress: None,
        declared: None,
        drift: resource.status.as_ref().and_then(|status| status.drift.clone()),
        shape: None,
        now: context.now(),
    };
    let database = match validate(&resource, &context.options) {
        Ok(database) => database,
        Err(invalid) => {
            findings.stalled = Some(ConditionState::yes(invalid.reason, invalid.message));
            keep_alive(&context, &Owner { names, uid }, &observed, &mut findings).await;
            tell(&context, &findings).await?;
            return Ok(resync(&context));
        }
    };
    findings.database = Some(&database);
    if resource.spec.paused {
        findings.stalled = Some(ConditionState::yes(reason::PAUSED, paused(&database, &observed)));
        keep_alive(&context, &database.owner, &observed, &mut findings).await;
        tell(&context, &findings).await?;
        return Ok(resync(&context));
    }
    if database.adopt && !observed.retained_claims(&database.owner.uid).is_empty() {
        match adopt::other_database(&database, &observed) {
            None => {
                adopt::take_over(&context, &database, &observed).await?;
                // What was observed is not so any more.
                return Ok(Action::requeue(Duration::ZERO));
            }
            Some(held) => {
                let message = format!(
                    "spec.bootstrap.adopt: the volumes hold the database {held}, and spec.database is {}: \
                     re-create the resource with spec.database: {held}",
                    database.postgres.database
                );
                findings.stalled = Some(ConditionState::yes(reason::RETAINED_DATA_FOUND, message));
                tell(&context, &findings).await?;
                return Ok(resync(&context));
            }
        }
    }
    if let Some(word) = retained(&database, &observed) {
        findings.stalled = Some(word);
        keep_alive(&context, &database.owner, &observed, &mut findings).await;
        tell(&context, &findings).await?;
        return Ok(Action::requeue(jittered(WAITING)));
    }

    // 5. Make it so.
    let declared = migrations::declared(&context, &database).await?;
    findings.declared = Some(&declared);
    let made = bring_about(&context, &database, &observed, &declared, &mut findings).await;

    // 6. Tell.
    let outcome = match made {
        Ok(()) => Ok(()),
        Err(error @ (Error::ObjectConflict { .. } | Error::ForeignRecord { .. })) => {
            findings.stalled = Some(ConditionState::yes(error.reason(), error.to_string()));
            Ok(())
        }
        Err(error) => {
            findings.failed = Some(ConditionState::no(error.reason(), error.to_string()));
            Err(error)
        }
    };
    if findings.stalled.is_none() {
        findings.stalled = lost::nobody_knows(&observed, database.names());
    }
    // When Vault is back is told by the probe; when it refuses no more, by asking.
    let vault_failing = findings.vault.as_ref().is_some_and(|word| !word.holds) || observed.vault_refuses_an_agent();
    let told = tell(&context, &findings).await;
    outcome?;
    let ready = told?;
    let waits = findings.shape.as_ref().is_some_and(|shape| shape.decision.order.is_some())
        || observed.primary().is_some_and(|primary| observed.drains(primary))
        || findings.certificates.as_ref().is_some_and(|certified| certified.waits);
    Ok(if ready && !vault_failing && !waits {
        let resync = resync_time(&context);
        let due = findings.credentials.due_in.map_or(resync, |due| due + Duration::from_secs(1));
        Action::requeue(resync.min(due).min(findings.certificates_due_in().unwrap_or(resync)))
    } else {
        Action::requeue(jittered(WAITING))
    })
}

/// Writes the status, and returns whether the resource is Ready. What could not be written is
/// checked again by the next reconcile, which would take it for reported.
async fn tell(context: &Context, findings: &Findings<'_>) -> Result<bool, Error> {
    let told = publish::status(context, findings).await;
    if told.is_err() {
        context.cache.invalidate_reported(&findings.resource.uid().unwrap_or_default());
    }
    told
}

/// Vault failed: that is told, and what it says of Vault is taken into account.
fn note_vault(context: &Context, uid: &str, error: &VaultError, findings: &mut Findings<'_>) {
    vault_sync::doubt(context, uid, error);
    findings.vault = Some(ConditionState::no(error.reason(), error.to_string()));
}

fn bound_before(resource: &ServiceDatabase) -> Option<String> {
    Some(resource.status.as_ref()?.binding.as_ref()?.name.clone())
}

/// Keeps the Secret with the credentials, and takes away one that an earlier spec named.
async fn bind(
    context: &Context,
    database: &Database,
    observed: &Observation,
    findings: &mut Findings<'_>,
) -> Result<(), Error> {
    let before = findings.binding.take();
    let wanted = database.binding_secret.as_ref();
    if let Some(before) = before.as_ref().filter(|before| Some(*before) != wanted) {
        binding::remove(context, database, before).await?;
    }
    let credentials = observed.primary().and_then(|pod| pod.report.as_ref()?.credentials.as_ref());
    let Some(wanted) = wanted else { return Ok(()) };
    // What it held before logs in, whatever hinders us to look.
    findings.binding = before.filter(|before| before == wanted);
    let Some(proved) = credentials.map(|credentials| credentials.generation).filter(|proved| *proved > 0) else {
        return Ok(());
    };
    let uid = &database.owner.uid;
    if context.cache.binding_recorded(uid, wanted, proved) {
        findings.binding = Some(wanted.clone());
        return Ok(());
    }
    match binding::ensure(context, database, wanted, proved).await {
        Ok(true) => {
            context.cache.record_binding(uid, wanted, proved);
            findings.binding = Some(wanted.clone());
            Ok(())
        }
        Ok(false) => Ok(()),
        Err(error @ Error::Record(_)) => {
            context.cache.record_doubt_of_credentials(uid, true);
            Err(error)
        }
        Err(Error::Vault(error)) => {
            note_vault(context, uid, &error, findings);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// A database that is left as it is keeps what it lives by: certificates and secret_ids end
/// by themselves, and a failover after that would find no way into Vault.
async fn keep_alive(context: &Context, owner: &Owner, observed: &Observation, findings: &mut Findings<'_>) {
    if (observed.stateful_set.is_none() && observed.pods.is_empty()) || context.cache.secrets_recorded(&owner.uid) {
        return;
    }
    let asked = served::Asked {
        request: None,
        answered: certify::answered(findings.resource),
        overlap: authority::overlap(None),
        paused: true,
        pods: &observed.pods,
        remembered: observed.authorities(&owner.uid),
        binding: None,
    };
    let (certified, alive) =
        tokio::join!(served::ensure(context, owner, &asked), vault_sync::keep_alive(context, owner, observed),);
    if let Err(Error::Vault(error)) = &alive {
        note_vault(context, &owner.uid, error, findings);
    }
    if let Ok(certified) = &certified {
        served::prompt(context, owner, &observed.pods, &certified.fingerprint).await;
    }
    match certified.map(|certified| findings.certificates = Some(certified)).and(alive) {
        Ok(()) => {
            context.cache.record_secrets(&owner.uid);
            // Nothing of the change under way may be missed when the database is let go on.
            context.cache.invalidate_certificates(&owner.uid);
        }
        Err(error) => {
            tracing::warn!(%error, "certificates and secret_ids cannot be renewed; trying again");
        }
    }
}

/// What a paused resource waits for, and what its pods must not be deleted for meanwhile.
fn paused(database: &Database, observed: &Observation) -> String {
    let message = "spec.paused is true: set it to false to go on";
    match Members::new(observed, database.names(), database.instances).notice() {
        Some(notice) => format!("{message}; {notice}"),
        None => message.to_owned(),
    }
}

/// Data of an earlier resource of this name is never taken without being asked.
fn retained(database: &Database, observed: &Observation) -> Option<ConditionState> {
    let claims = observed.retained_claims(&database.owner.uid);
    if claims.is_empty() {
        return lost::lost(observed, database.names(), database.instances);
    }
    let message = format!(
        "the volume claims {} hold the data of an earlier ServiceDatabase {}: set spec.bootstrap.adopt to true to go on \
         with it, or delete them to start empty",
        claims.join(", "),
        database.names().name,
    );
    Some(ConditionState::yes(reason::RETAINED_DATA_FOUND, message))
}

async fn bring_about(
    context: &Context,
    database: &Database,
    observed: &Observation,
    declared: &Declared,
    findings: &mut Findings<'_>,
) -> Result<(), Error> {
    // a. Leftovers of an earlier resource whose volumes are gone share the volumes' fate.
    let has_volumes = observed.own_claims(&database.owner.uid).next().is_some();
    if observed.foreign_config && !has_volumes {
        deletion::remove_stamped_leftovers(context, database).await?;
    }
    // b. Vault, and beside it the certificates, which do not need it. Only what was looked at
    //    may be remembered as seen: Secrets have dates, and are looked at for these, too.
    if observed.pods.iter().any(|pod| pod.mounting) {
        // Secrets are not watched: a pod that does not start shows that one may be gone.
        context.cache.invalidate_secrets_older_than(&database.owner.uid, MOUNTING_IS_HEARD_AFTER);
    }
    let unseen = !context.cache.secrets_recorded(&database.owner.uid);
    let (vault, certified) = tokio::join!(
        vault_sync::bring_about(context, database, observed, unseen),
        certify(context, findings.resource, database, observed, findings.now)
    );
    let (certified, authorities) = certified?;
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
            // A database that was given its role_ids before goes on without Vault.
            vault_sync::remembered(observed)
        }
        Err(error) => return Err(error),
    };
    let Some(prepared) = prepared else { return Ok(()) };
    findings.credentials = prepared.credentials;

    // c. Which instance is changed next, and into what.
    let live = observed.own_set(&database.owner.uid);
    let mut template = instances::choose(database, &context.options, live, observed.template.as_ref());
    // A template whose pods would be refused does not come into the StatefulSet: a pod that is
    // lost meanwhile comes back as it was.
    let held = admission::hold_back(&context.client, database, live, observed, &mut template.body).await?;
    let update = live.filter(|live| instances::is_live(&template.body, live));
    let status = findings.resource.status.clone().unwrap_or_default();
    let situation = Situation {
        database,
        observed,
        status: &status,
        revision: update.and_then(|live| live.status.as_ref()?.update_revision.as_deref()),
        refused: None,
        now: findings.now,
    };
    let mut decision = instances::decide(&situation);
    if let Some(pod) = &decision.replace
        && let Some(refusal) = admission::refusal(&context.client, database, &template.body, live, &pod.name).await?
    {
        decision = instances::decide(&Situation { refused: Some(&refusal), ..situation });
    }
    let missing = match update {
        Some(live) => admission::missing(context, database, &template.body, live, observed).await?,
        None => None,
    };
    let only_copy = Members::new(observed, database.names(), database.instances).word();
    let refused = decision.refused.clone().or(missing).or(held);
    findings.stalled = only_copy.or_else(|| Some(ConditionState::yes(reason::POD_REFUSED, refused?)));
    if live.is_some() && update.is_none() && decision.under_way.is_none() {
        let message = "the StatefulSet's controller has not taken up the template of the pods yet";
        decision.under_way = Some(ConditionState::no(reason::ROLLING_OUT, message));
    }
    // Nothing else is under way when the StatefulSet is made anew.
    let calm = decision.order.is_none() && decision.replicas == database.instances;
    let volumes = growth::grow(&context.client, database, observed, calm).await?;

    // d. Everything that does not run, then the workload.
    let vault_ca = context.vault_ca.now();
    let first = plan::config::document(database, &findings.credentials);
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
        credentials: &findings.credentials,
        authorities: Some(authorities).filter(|authorities| !authorities.is_empty()),
        decision: &decision,
        template: &template.body,
        volume_bytes: growth::smallest(database, observed),
    };
    let supporting = plan::supporting(database, &inputs);
    // What shall go goes last, and only where what takes its place is there.
    let (present, absent): (Vec<_>, Vec<_>) = supporting.iter().partition(|planned| planned.present);
    for part in [present, absent] {
        let applied = join_all(part.into_iter().map(|planned| apply(context, &database.owner, planned))).await;
        for result in applied {
            context.metrics.applied(result?);
        }
    }
    if observed.lacks_initialize {
        patroni_state::record_system_identifier(context, database, observed).await?;
    }
    context.metrics.applied(apply(context, &database.owner, &plan::binding(database)).await?);
    if !volumes.set_is_going {
        given_up::mark(&context.client, database, observed, &decision).await?;
        let shape = plan::Shape { template: &template.body, replicas: decision.replicas, volume_size: &volumes.size };
        context.metrics.applied(apply(context, &database.owner, &plan::workload(database, &shape)).await?);
    }
    if let Some(pod) = &decision.replace {
        replace(context, &database.owner, pod).await?;
    }
    given_up::remove_next(&context.client, database, observed, &decision).await?;
    if let Some(certified) = &findings.certificates {
        served::prompt(context, &database.owner, &observed.pods, &certified.fingerprint).await;
    }
    findings.shape = Some(Shape { decision, pending: template.pending, volumes: volumes.word });

    // e. The Secret with the credentials, where one is asked for.
    bind(context, database, observed, findings).await?;

    // f. The migrations, once there is a primary whose credentials were proved.
    let report = observed.primary().and_then(|pod| pod.report.as_ref());
    let proved =
        report.filter(|report| report.credentials.as_ref().is_some_and(|credentials| credentials.generation >= 1));
    let settled = is_applied(findings.resource, declared.revision());
    let progress = migrations::advance(context, database, declared, proved, settled, findings.now).await?;
    match &progress {
        Progress::Applied => {
            // The database does not hang on it, nor does its status.
            match drift::advance(context, findings.resource, database, declared, findings.now).await {
                Ok(drift) => findings.drift = drift,
                Err(error) => {
                    tracing::warn!(%error, "the schema cannot be compared with its migrations now");
                }
            }
        }
        Progress::NotDeclared => findings.drift = None,
        _ => {}
    }
    findings.progress = Some(progress);
    Ok(())
}

/// Deletes a pod, to be made again from the present template; only the very one that was seen.
///
/// If it has changed since (it may lead by now) it is looked at again.
async fn replace(context: &Context, owner: &Owner, pod: &DatabasePod) -> Result<(), Error> {
    let namespace = &owner.names.namespace;
    if observe::volume_end_now(&context.client, &owner.names, pod).await? != pod.volume_end {
        // The claim was deleted since: its volume would go with the pod.
        return Ok(());
    }
    tracing::info!(pod = pod.name, "replacing a pod whose template has changed");
    let api: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let seen = Preconditions { uid: Some(pod.uid.clone()), resource_version: pod.resource_version.clone() };
    delete_as_seen(&api, &pod.name, DeleteParams::default(), seen).await
}

fn resync(context: &Context) -> Action {
    Action::requeue(resync_time(context))
}

fn resync_time(context: &Context) -> Duration {
    jittered(Duration::from_secs(context.options.resync_seconds))
}
