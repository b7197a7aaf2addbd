//! Computes status from the observed and the applied state. Pure.

mod archive;
mod backups;
mod capacity;
mod certificates;
mod clients;
mod collations;
pub mod condition;
mod findings;
mod gateway;
mod instances;
mod migrations;
pub mod publish;
mod queries;
mod windows;

pub use findings::{Findings, InstancesFindings};
use migrations::approval_needed;
pub use migrations::is_applied;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::observe::Observation;
use super::validate::Database;
use super::version;
use crate::api::conditions::{self as kind, reason};
use crate::api::names::Names;
use crate::api::{
    BindingStatus, ClientSpec, ClientStatus, CredentialsStatus, Endpoints, MaintenanceStatus, ServiceDatabaseStatus,
};
use crate::contract::pod::POSTGRES_PORT;
use crate::contract::report::Report;
use crate::contract::time::seconds;
use crate::operator::migrations::progress::Progress;
use crate::operator::observe::pods::DatabasePod;
use crate::postgres::servers;
use condition::{ConditionState, condition, held};

/// An election that takes longer than this waits for a missing instance.
const ELECTION: SignedDuration = SignedDuration::from_secs(30);

/// Computes the status of the findings, as the API server will have it.
pub fn compute(findings: &Findings<'_>) -> ServiceDatabaseStatus {
    as_stored(found(findings))
}

/// Times of Kubernetes have whole seconds, those of the agents' reports a fraction. With it, a status would never equal
/// the stored one, and each reconcile would write it again.
fn as_stored(status: ServiceDatabaseStatus) -> ServiceDatabaseStatus {
    let stored = serde_json::to_value(&status).and_then(serde_json::from_value);
    stored.unwrap_or(status)
}

fn found(findings: &Findings<'_>) -> ServiceDatabaseStatus {
    let previous = findings.resource.status.clone().unwrap_or_default();
    let observed = findings.observed;
    let primary = observed.primary();
    let report = primary.and_then(|pod| pod.report.as_ref());
    let ledger = report.and_then(|report| report.ledger.as_ref());
    let instances = findings.resource.spec.instances;

    let available = availability(findings, &previous);
    let clients = clients::status(findings, report, &previous);
    let credentials = with_clients(credentials_ready(findings, &previous, report), findings, &clients, report);
    let schema = migrations::applied(findings, &previous);
    let vault = vault_reachable(findings, &previous);
    let stalled = with_failure(findings, stalled(findings, &previous));
    let synchronous = instances::synchronous(findings, report, &previous);
    let ready = ready(findings, &available, &credentials, &schema, &synchronous, &stalled);
    let reconciling = if ready.holds || stalled.holds {
        ConditionState::no(reason::IDLE, "")
    } else {
        ConditionState::yes(reason::PROGRESSING, ready.message.clone())
    };

    let states = [
        (kind::READY, ready),
        (kind::RECONCILING, reconciling),
        (kind::STALLED, stalled),
        (kind::DATABASE_AVAILABLE, available),
        (kind::CREDENTIALS_READY, credentials),
        (kind::MIGRATIONS_APPLIED, schema),
        (kind::CERTIFICATES_READY, certificates::ready(findings, &previous)),
        (kind::VAULT_REACHABLE, vault),
        (kind::SYNCHRONOUS_REPLICATION, synchronous),
        (kind::ROLLOUT_PENDING, instances::rollout_pending(findings, &previous)),
    ];
    let postgres_major = major(findings, report, &previous);
    let generation = findings.resource.metadata.generation;
    let drift = findings.drift.as_ref().map(|drift| (kind::SCHEMA_DRIFT, migrations::drifted(drift)));
    let filling = instances::nearly_full(findings, &previous).map(|state| (kind::VOLUME_NEARLY_FULL, state));
    let collations = collations::changed(report, &previous).map(|state| (kind::COLLATIONS_CHANGED, state));
    let custom = queries::read(findings, report, &previous).map(|state| (kind::CUSTOM_METRICS_READ, state));
    let archiving = archive::continuous(findings, report, &previous).map(|state| (kind::CONTINUOUS_ARCHIVING, state));
    let backup = backups::status(findings, report, previous.backup.clone());
    let backed_up = backups::backed_up(findings, backup.as_ref(), &previous).map(|state| (kind::BACKED_UP, state));
    let verified = backups::verified(findings, backup.as_ref(), &previous).map(|state| (kind::RESTORE_VERIFIED, state));
    let states = states
        .into_iter()
        .chain(drift)
        .chain(filling)
        .chain(collations)
        .chain(custom)
        .chain(archiving)
        .chain(backed_up)
        .chain(verified);
    let mut conditions: Vec<_> =
        states.map(|(kind, state)| condition(kind, state, &previous, generation, findings.now)).collect();
    if findings.progress.is_none() {
        migrations::date_back(&mut conditions, &previous);
    }

    ServiceDatabaseStatus {
        observed_generation: generation,
        conditions,
        database: findings.database.map(|database| database.postgres.database.clone()).or(previous.database),
        postgres_version: report.and_then(|report| report.postgres_version.clone()).or(previous.postgres_version),
        postgres_major,
        primary: primary.or_else(|| observed.primary_without_report()).map(|pod| pod.name.clone()),
        instances: Some(format!("{}/{instances}", ready_instances(findings))),
        schema_version: match ledger {
            Some(ledger) => ledger.schema_version(),
            None => previous.schema_version,
        },
        endpoints: findings.database.map(endpoints).or(previous.endpoints),
        migrations: migrations::status(findings, ledger, previous.migrations),
        drift: findings.drift.clone(),
        credentials: findings
            .database
            .map(|database| credentials_status(findings, database, report, previous.credentials.clone()))
            .or(previous.credentials),
        clients,
        backup,
        restore: findings.in_place.status.clone(),
        upgrade: findings.upgrade.status.clone().map(Box::new),
        capacity: capacity::status(report, previous.capacity),
        maintenance: maintenance(findings),
        restored: restored(observed).or(previous.restored),
        pooler: match &findings.pooler {
            Some(pooler) => pooler.status.clone(),
            None => previous.pooler,
        },
        gateway: gateway::status(findings, report, previous.gateway),
        certificates: findings.certificates.as_ref().map(|found| found.status.clone()).or(previous.certificates),
        binding: findings.bound.shared.clone().map(|name| BindingStatus { name }),
        volume_size: observed.volume_size(&findings.resource.uid().unwrap_or_default()).or(previous.volume_size),
        rollout: match &findings.instances {
            Some(instances) => instances.pending.clone(),
            None => previous.rollout,
        },
        switchover: findings
            .instances
            .as_ref()
            .map_or(previous.switchover, |instances| instances.decision.switchover.clone()),
        restart: findings.instances.as_ref().map_or(previous.restart, |instances| instances.decision.restart.clone()),
        deletion_waits_for: None,
    }
}

fn availability(findings: &Findings<'_>, previous: &ServiceDatabaseStatus) -> ConditionState {
    let observed = findings.observed;
    if let Some(primary) = observed.primary() {
        let how = if primary.ready {
            "answers"
        } else {
            "renews Patroni's lease, although its kubelet does not report readiness"
        };
        return ConditionState::yes(reason::AVAILABLE, format!("{} is the primary and {how}", primary.name));
    }
    if let Some(primary) = observed.primary_without_report() {
        let message = format!(
            "{} renews Patroni's lease and is ready; its agent's report is missing, and will be written again",
            primary.name
        );
        return ConditionState::yes(reason::AVAILABLE, message);
    }
    // Trouble of the instances would only be a consequence.
    let for_good = |state: &&ConditionState| [reason::DATA_LOST, reason::NO_PRIMARY].contains(&&*state.reason);
    if let Some(lost) = findings.stalled.as_ref().filter(for_good) {
        return ConditionState::no(&lost.reason, lost.message.clone());
    }
    if let Some(trouble) = instances::trouble(findings) {
        return ConditionState::no(&trouble.reason, trouble.message);
    }
    if let Some(set) = findings.scaled_away() {
        return ConditionState::no(
            reason::NO_PRIMARY,
            format!("the StatefulSet {set} was scaled to 0 by another client; its volumes are kept"),
        );
    }
    if let Some(planned) = instances::planned_outage(findings) {
        return planned;
    }
    let gone = [reason::NO_PRIMARY, reason::SWITCHING_OVER, reason::RESTORING, reason::UPGRADING];
    let before = previous.conditions.iter().find(|condition| condition.type_ == kind::DATABASE_AVAILABLE);
    if let Some(before) = before.filter(|it| it.status == "True" || gone.contains(&it.reason.as_str())) {
        let lasts = before.status != "True" && findings.now.duration_since(before.last_transition_time.0) >= ELECTION;
        if let Some((from, to)) = instances::handover(findings).filter(|_| !lasts) {
            return ConditionState::no(reason::SWITCHING_OVER, format!("switching over from {from} to {to}"));
        }
        let mut message = "no instance is the primary: Patroni elects one".to_owned();
        if lasts && ready_instances(findings) > 0 && findings.resource.spec.replication.synchronous {
            message += ", but none that may lack commits (docs/availability.md: what a failure may cost)";
        }
        return ConditionState::no(reason::NO_PRIMARY, message);
    }
    // The blocking cause is reported instead of progress.
    match &findings.stalled {
        Some(stalled) => ConditionState::no(&stalled.reason, stalled.message.clone()),
        None => ConditionState::no(reason::INITIALIZING, "the first instance is being initialised"),
    }
}

fn credentials_ready(
    findings: &Findings<'_>,
    previous: &ServiceDatabaseStatus,
    report: Option<&Report>,
) -> ConditionState {
    let wanted = findings.credentials.generation;
    let proved = report.and_then(|report| report.credentials.as_ref()).map(|credentials| credentials.generation);
    if let Some(lost) = lost(findings, previous) {
        return ConditionState::no(reason::CREDENTIALS_LOST, lost);
    }
    if let Some(damaged) = &findings.credentials.damaged {
        return ConditionState::no(reason::CREDENTIALS_DAMAGED, damaged.clone());
    }
    let trouble = report.and_then(|report| report.trouble.as_ref());
    if let Some(lost) = trouble.filter(|trouble| trouble.reason == reason::CREDENTIALS_LOST) {
        return ConditionState::no(reason::CREDENTIALS_LOST, lost.message.clone());
    }
    let held = held(previous, kind::CREDENTIALS_READY).filter(|state| state.holds);
    match proved {
        Some(generation) if generation >= wanted => {
            ConditionState::yes(reason::READY, format!("generation {generation} was proved by a login and is in Vault"))
        }
        // The credentials in the runtime record are valid until the next ones replace them, so a
        // rotation in progress is no failure.
        Some(generation) if held.is_some() => {
            let mut message = format!("generation {generation} is in Vault and valid; {wanted} is in progress");
            if let Some(trouble) = trouble {
                message = format!("{message}, and waits: {}", trouble.message);
            }
            ConditionState::yes(reason::READY, message)
        }
        // Promoted credentials are valid on every primary.
        _ => held.filter(|_| proved.is_none()).unwrap_or_else(|| {
            let vault = report.and_then(|report| report.vault.as_ref()).filter(|vault| !vault.ok);
            match vault {
                Some(vault) => ConditionState::no(
                    vault.reason.as_deref().unwrap_or(reason::CREDENTIALS_PENDING),
                    vault.message.clone().unwrap_or_default(),
                ),
                None => match &findings.stalled {
                    Some(stalled) => ConditionState::no(&stalled.reason, stalled.message.clone()),
                    None => ConditionState::no(
                        reason::CREDENTIALS_PENDING,
                        format!("generation {wanted} is not in Vault yet"),
                    ),
                },
            }
        }),
    }
}

/// The same with the clients that have a login of their own.
fn with_clients(
    state: ConditionState,
    findings: &Findings<'_>,
    clients: &[ClientStatus],
    report: Option<&Report>,
) -> ConditionState {
    let Some(database) = findings.database.filter(|_| state.holds) else { return state };
    if let Some((reason, refused)) = clients::refused(database, findings.options) {
        return ConditionState::no(reason, refused);
    }
    if let Some((reason, refused)) = clients::engine_refuses(database, findings.credentials.engine.as_ref()) {
        return ConditionState::no(reason, refused);
    }
    if let Some(pending) = clients::pending(database, clients, report) {
        return ConditionState::no(reason::CREDENTIALS_PENDING, pending);
    }
    match clients::difference(clients) {
        Some((reason, message)) => ConditionState::yes(reason, format!("{}; {message}", state.message)),
        None => state,
    }
}

/// The message about a missing runtime record: from this reconcile, or from an earlier one if Vault
/// was not queried.
fn lost(findings: &Findings<'_>, previous: &ServiceDatabaseStatus) -> Option<String> {
    let before = || held(previous, kind::CREDENTIALS_READY).filter(|state| state.reason == reason::CREDENTIALS_LOST);
    let credentials = &findings.credentials;
    credentials.lost.clone().or_else(|| before().filter(|_| credentials.unseen).map(|state| state.message))
}

fn vault_reachable(findings: &Findings<'_>, previous: &ServiceDatabaseStatus) -> ConditionState {
    if let Some(state) = findings.vault.as_ref().filter(|state| !state.holds) {
        return state.clone();
    }
    let reports =
        findings.observed.pods.iter().filter_map(|pod| Some((&pod.name, pod.report.as_ref()?.vault.as_ref()?)));
    if let Some((name, health)) = reports.into_iter().find(|(_, health)| !health.ok) {
        let message = format!("the agent of {name}: {}", health.message.as_deref().unwrap_or("Vault failed"));
        return ConditionState::no(health.reason.as_deref().unwrap_or(reason::VAULT_UNREACHABLE), message);
    }
    match &findings.vault {
        Some(state) => state.clone(),
        None => held(previous, kind::VAULT_REACHABLE)
            .unwrap_or_else(|| ConditionState::no(reason::PROGRESSING, "Vault was not queried yet")),
    }
}

fn stalled(findings: &Findings<'_>, previous: &ServiceDatabaseStatus) -> ConditionState {
    if let Some(state) = &findings.stalled {
        return ConditionState { holds: true, ..state.clone() };
    }
    if let Some(lost) = lost(findings, previous) {
        return ConditionState::yes(reason::CREDENTIALS_LOST, lost);
    }
    match &findings.progress {
        Some(Progress::Failed { reason, message }) => ConditionState::yes(reason, message.clone()),
        // Unreadable or missing files need a change by a person, as does a quota or a policy that
        // refuses the Job's pod.
        Some(Progress::Waiting { reason, message } | Progress::Hindered { reason, message })
            if [
                reason::INVALID_MIGRATIONS,
                reason::CONFIG_MAP_NOT_FOUND,
                reason::POD_REFUSED,
                reason::RESTORED_BEFORE,
            ]
            .contains(reason) =>
        {
            ConditionState::yes(reason, message.clone())
        }
        Some(Progress::Held(approval)) => {
            ConditionState::yes(reason::APPROVAL_REQUIRED, approval_needed(findings, approval))
        }
        _ => instances::waits_for_a_person(findings).unwrap_or_else(|| ConditionState::no(reason::NOT_STALLED, "")),
    }
}

/// The blocking cause with the error that is retried: neither hides the other.
fn with_failure(findings: &Findings<'_>, mut stalled: ConditionState) -> ConditionState {
    let failed = findings.failed.as_ref().filter(|_| stalled.holds);
    if let Some(failed) = failed.filter(|failed| !stalled.message.contains(&failed.message)) {
        stalled.message = format!("{}; also, the last reconcile failed: {}", stalled.message, failed.message);
    }
    stalled
}

fn ready(
    findings: &Findings<'_>,
    available: &ConditionState,
    credentials: &ConditionState,
    migrations: &ConditionState,
    synchronous: &ConditionState,
    stalled: &ConditionState,
) -> ConditionState {
    if stalled.holds {
        return ConditionState::no(&stalled.reason, stalled.message.clone());
    }
    if let Some(failed) = &findings.failed {
        return ConditionState::no(&failed.reason, failed.message.clone());
    }
    if !available.holds {
        // Before the first initialisation the database waits for Vault.
        let vault = findings.vault.as_ref().filter(|state| !state.holds && available.reason == reason::INITIALIZING);
        return vault.unwrap_or(available).clone();
    }
    if !credentials.holds {
        return credentials.clone();
    }
    if !migrations.holds {
        return migrations.clone();
    }
    if let Some(state) = instances::under_way(findings).or_else(|| instances::full(findings)) {
        return state;
    }
    let (ready, wanted) = (ready_instances(findings), findings.resource.spec.instances);
    if i64::try_from(ready) != Ok(i64::from(wanted)) {
        return match instances::trouble(findings) {
            Some(trouble) => ConditionState::no(&trouble.reason, trouble.message),
            None => ConditionState::no(reason::INSTANCES_NOT_READY, format!("{ready} of {wanted} instances are ready")),
        };
    }
    if let Some(trouble) = findings.pooler.as_ref().and_then(|pooler| pooler.trouble.as_ref()) {
        return trouble.clone();
    }
    if let Some(trouble) = findings.gateway.as_ref().and_then(|gateway| gateway.trouble.as_ref()) {
        return trouble.clone();
    }
    // Declared as synchronous, but commits are on one volume only.
    if synchronous.reason == reason::NO_STANDBY {
        return synchronous.clone();
    }
    if let Some(refused) = findings.observed.refused() {
        return ConditionState::no(&refused.reason, refused.message.clone());
    }
    let waiting = findings.observed.restart_pending();
    if !waiting.is_empty() {
        let message = format!(
            "the database serves, but a changed parameter needs a restart of PostgreSQL on {}, and the last restart \
             had no effect{}: kubectl servicedb restart {} retries it",
            waiting.join(", "),
            findings.observed.failed_restart().map(|error| format!(" ({error})")).unwrap_or_default(),
            findings.in_commands(),
        );
        return ConditionState::no(reason::RESTART_PENDING, message);
    }
    let volume_size = findings.observed.volume_size(&findings.resource.uid().unwrap_or_default());
    match instances::larger_volumes(findings.resource, volume_size.as_ref()) {
        Some(larger) => ConditionState::yes(reason::READY, format!("the database serves as declared; {larger}")),
        None => ConditionState::yes(reason::READY, "the database serves as declared"),
    }
}

/// The maintenance; absent while nothing is known of it.
fn maintenance(findings: &Findings<'_>) -> Option<Box<MaintenanceStatus>> {
    let status = &findings.maintenance.status;
    (*status != MaintenanceStatus::default()).then(|| Box::new(status.clone()))
}

/// The major version of the data: the primary's, or the pinned one.
fn major(findings: &Findings<'_>, report: Option<&Report>, previous: &ServiceDatabaseStatus) -> Option<i32> {
    let reported = report.and_then(|report| servers::major(report.postgres_version.as_deref()?));
    let resolved = || findings.database.map(|database| database.major);
    reported.or_else(resolved).or_else(|| version::pinned(previous)).map(i32::from)
}

/// What the first instance restored in place of an empty database.
fn restored(observed: &Observation) -> Option<String> {
    observed.pods.iter().find_map(|pod| pod.report.as_ref()?.restored.clone())
}

fn ready_instances(findings: &Findings<'_>) -> usize {
    let resource = findings.resource;
    let names = Names::new(resource.namespace().unwrap_or_default(), resource.name_any());
    findings.observed.ready(&names, resource.spec.instances)
}

fn endpoints(database: &Database) -> Endpoints {
    let (names, pooler) = (database.names(), database.pooler.as_ref());
    Endpoints {
        primary: format!("{}:{POSTGRES_PORT}", names.primary_host()),
        replicas: (database.instances > 1).then(|| format!("{}:{POSTGRES_PORT}", names.replicas_host())),
        pooler: pooler.map(|_| format!("{}:{POSTGRES_PORT}", names.pooler_host(&names.pooler()))),
        pooler_replicas: pooler
            .filter(|pooler| pooler.replicas)
            .map(|_| format!("{}:{POSTGRES_PORT}", names.pooler_host(&names.replicas_pooler()))),
    }
}

fn credentials_status(
    findings: &Findings<'_>,
    database: &Database,
    report: Option<&Report>,
    previous: Option<CredentialsStatus>,
) -> CredentialsStatus {
    let previous = previous.unwrap_or_default();
    let proved = report.and_then(|report| report.credentials.as_ref());
    let promoted = proved.is_some_and(|credentials| credentials.generation > 0);
    // A request is done when the generation that answers it is in Vault.
    let answers = proved.is_some_and(|credentials| credentials.generation >= findings.credentials.generation)
        && clients::answers(findings, report);
    let requests = findings.credentials.requests.clone();
    let answered = |request: Option<String>, before| if answers { request.or(before) } else { before };
    CredentialsStatus {
        generation: proved.map_or(previous.generation, |credentials| credentials.generation),
        rotated_at: proved
            .filter(|_| promoted)
            .map(|credentials| Time(seconds(credentials.rotated_at)))
            .or(previous.rotated_at),
        old_sessions: proved.and_then(|credentials| old_sessions(findings.observed, credentials.generation)),
        sessions: clients::sessions(findings.observed).map(|sessions| sessions.shared),
        rotate_request: answered(requests.rotate, previous.rotate_request),
        reissue_request: answered(requests.reissue, previous.reissue_request),
        rotate_client_request: clients::answered(findings, report, previous.rotate_client_request),
        vault_path: Some(format!("{}/{}", findings.options.vault_kv_mount, database.vault.runtime())),
        vault_role: database.clients.iter().any(ClientSpec::is_shared).then(|| database.vault.client()),
    }
}

/// The number on all instances for the login that this generation replaced; none unless each of
/// them has counted since.
fn old_sessions(observed: &Observation, generation: i64) -> Option<i64> {
    let counted = |pod: &DatabasePod| {
        let sessions = pod.report.as_ref()?.old_sessions.as_ref()?;
        (sessions.generation == generation).then_some(sessions.count)
    };
    observed.pods.iter().map(counted).sum()
}
