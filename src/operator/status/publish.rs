//! Writes the status if it changed, and an event for each change of a condition.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::{Findings, compute};
use crate::api::conditions as kind;
use crate::api::names::FIELD_MANAGER;
use crate::api::{
    MigrationRecord, MigrationState, MigrationsStatus, RequestState, ServiceDatabase, ServiceDatabaseStatus,
    UpgradePhase,
};
use crate::contract::backup::Nth;
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::context::metrics::Metrics;
use crate::operator::maintenance::NOTHING_DONE;

/// The API server refuses longer notes.
const LONGEST_NOTE: usize = 1000;
/// How long an operator that has just started reports a reverted change.
const UNDONE_IS_NEWS: SignedDuration = SignedDuration::from_mins(5);

/// Computes the status of the findings and writes it if it changed. Returns whether the resource is
/// Ready.
///
/// # Errors
/// Errors of the API server.
pub async fn status(context: &Context, findings: &Findings<'_>) -> Result<bool, Error> {
    let status = compute(findings);
    write(context, findings.resource, &status).await?;
    if let Some(event) = reverted(context, findings) {
        emit(context, findings.resource, event).await;
    }
    let ready = status.conditions.iter().any(|condition| condition.type_ == kind::READY && condition.status == "True");
    let (resource, uid) = (findings.resource, findings.resource.uid().unwrap_or_default());
    context.metrics.observed(&uid, ready);
    let namespace = resource.namespace().unwrap_or_default();
    context.metrics.resources.observed(&uid, &namespace, &resource.name_any(), &status);
    Ok(ready)
}

/// Writes a status if it changed, and an event for each condition that changed.
///
/// State that was not read keeps its previous status, so a status depends on the previous one: the
/// write is refused if the resource has changed since it was read. The watch often lags behind the
/// writes of this operator.
///
/// # Errors
/// Errors of the API server; an event that cannot be written is no error.
pub async fn write(context: &Context, resource: &ServiceDatabase, status: &ServiceDatabaseStatus) -> Result<(), Error> {
    let previous = resource.status.clone().unwrap_or_default();
    if *status == previous {
        return Ok(());
    }
    let api: Api<ServiceDatabase> = Api::namespaced(context.client.clone(), &resource.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": ServiceDatabase::api_version(&()),
        "kind": ServiceDatabase::kind(&()),
        // The uid prevents a late write to a new resource of the same name.
        "metadata": {
            "name": resource.name_any(),
            "uid": resource.uid(),
            "resourceVersion": resource.resource_version(),
        },
        "status": status,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch_status(&resource.name_any(), &parameters, &Patch::Apply(&patch)).await {
        Ok(_) => {}
        Err(kube::Error::Api(answer)) if answer.is_not_found() => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let primary = primary_changed(context, resource, &previous, status);
    let larger = volumes_larger(resource, &previous, status);
    let backup = backed_up(&previous, status, Nth::First);
    let second_backup = backed_up(&previous, status, Nth::Second);
    let events = [
        rotated(&previous, status),
        schema_changed(&previous, status),
        primary,
        larger,
        backup,
        second_backup,
        not_held(&previous, status),
        maintained(&previous, status),
        restored(&previous, status),
        upgraded(&previous, status),
        without_effect(&previous, status),
    ];
    for event in events.into_iter().flatten() {
        emit(context, resource, event).await;
    }
    count_migrations(&context.metrics, &previous, status);
    for condition in &status.conditions {
        let before = previous.conditions.iter().find(|before| before.type_ == condition.type_);
        if let Some(event) = event(before, condition) {
            if condition.type_ == kind::MIGRATIONS_APPLIED && !holds(condition) && is_failure(&condition.reason) {
                context.metrics.migrations_failed(&condition.reason);
            }
            emit(context, resource, event).await;
        }
    }
    Ok(())
}

/// The event for new credentials.
fn rotated(previous: &ServiceDatabaseStatus, now: &ServiceDatabaseStatus) -> Option<Event> {
    let generation = |status: &ServiceDatabaseStatus| status.credentials.as_ref().map(|found| found.generation);
    let (before, now) = (generation(previous)?, generation(now)?);
    (before > 0 && now > before).then(|| Event {
        type_: EventType::Normal,
        reason: kind::reason::CREDENTIALS_ROTATED.to_owned(),
        note: Some(format!(
            "generation {now} was proved by a login and is in Vault; the previous login is valid until the next \
             rotation"
        )),
        action: "Rotate".to_owned(),
        secondary: None,
    })
}

/// The event for a backup that is in the store. A failed one is the reason of BackedUp.
fn backed_up(previous: &ServiceDatabaseStatus, now: &ServiceDatabaseStatus, nth: Nth) -> Option<Event> {
    let run = |status: &ServiceDatabaseStatus| {
        let backup = status.backup.as_ref()?;
        match nth {
            Nth::First => backup.last_run.clone(),
            Nth::Second => backup.second.as_ref()?.last_run.clone(),
        }
    };
    let last = run(now).filter(|last| last.run.state == RequestState::Done)?;
    let backup = now.backup.as_ref()?;
    let store = match nth {
        Nth::First => &backup.store,
        Nth::Second => &backup.second.as_ref()?.store,
    };
    let is_known =
        run(previous).is_some_and(|before| before.run.job == last.run.job && before.run.state == RequestState::Done);
    (!is_known).then(|| Event {
        type_: EventType::Normal,
        reason: kind::reason::BACKUP_COMPLETED.to_owned(),
        note: Some(format!("the Job {} has made a backup ({:?}) in the store {}", last.run.job, last.kind, store)),
        action: "BackUp".to_owned(),
        secondary: None,
    })
}

/// The event for a run of the maintenance that has ended with something done.
fn maintained(previous: &ServiceDatabaseStatus, now: &ServiceDatabaseStatus) -> Option<Event> {
    let run = |status: &ServiceDatabaseStatus| status.maintenance.as_ref()?.last_run.clone();
    let last = run(now).filter(|last| last.state != RequestState::Running)?;
    let is_known = run(previous)
        .is_some_and(|before| before.started_at == last.started_at && before.state != RequestState::Running);
    let is_idle = last.message.as_deref().is_some_and(|message| message.starts_with(NOTHING_DONE));
    (!(is_known || is_idle && last.state == RequestState::Done)).then(|| Event {
        type_: if last.state == RequestState::Done { EventType::Normal } else { EventType::Warning },
        reason: kind::reason::MAINTENANCE_ENDED.to_owned(),
        note: Some(shortened(last.message.unwrap_or_default())),
        action: "Maintain".to_owned(),
        secondary: None,
    })
}

/// The event for a restore in place that has begun or ended. One that is refused at once has only an end.
fn restored(previous: &ServiceDatabaseStatus, now: &ServiceDatabaseStatus) -> Option<Event> {
    let run = &now.restore.as_ref()?.run;
    let before = previous.restore.as_ref().map(|before| (&before.run.request, before.run.state));
    let (type_, reason) = match run.state {
        RequestState::Running => (EventType::Normal, kind::reason::RESTORE_STARTED),
        RequestState::Done => (EventType::Normal, kind::reason::RESTORE_COMPLETED),
        RequestState::Failed => (EventType::Warning, kind::reason::RESTORE_FAILED),
    };
    (before != Some((&run.request, run.state))).then(|| Event {
        type_,
        reason: reason.to_owned(),
        note: run.message.clone().map(shortened),
        action: "Restore".to_owned(),
        secondary: None,
    })
}

/// The event for another phase of a major upgrade, if there is anything to say about it.
fn upgraded(previous: &ServiceDatabaseStatus, now: &ServiceDatabaseStatus) -> Option<Event> {
    let upgrade = now.upgrade.as_ref().filter(|upgrade| upgrade.phase != UpgradePhase::None)?;
    let message = upgrade.message.clone()?;
    let before = previous.upgrade.as_ref().map(|before| (before.phase, before.to));
    (before != Some((upgrade.phase, upgrade.to))).then(|| Event {
        type_: if upgrade.phase == UpgradePhase::Failed { EventType::Warning } else { EventType::Normal },
        reason: kind::reason::UPGRADE_ADVANCED.to_owned(),
        note: Some(shortened(message)),
        action: "Upgrade".to_owned(),
        secondary: None,
    })
}

/// The event for a planned change for which queries could not be held.
fn not_held(previous: &ServiceDatabaseStatus, now: &ServiceDatabaseStatus) -> Option<Event> {
    let last = |status: &ServiceDatabaseStatus| status.pooler.as_ref()?.last_hold.clone();
    let hold = last(now).filter(|hold| hold.message.is_some() && last(previous).as_ref() != Some(hold))?;
    Some(Event {
        type_: EventType::Warning,
        reason: kind::reason::HOLD_GIVEN_UP.to_owned(),
        note: Some(shortened(format!("{}: {}", hold.change, hold.message.unwrap_or_default()))),
        action: "Reconcile".to_owned(),
        secondary: None,
    })
}

/// The event for what of the data gateway's declaration has no effect.
fn without_effect(previous: &ServiceDatabaseStatus, now: &ServiceDatabaseStatus) -> Option<Event> {
    let message = |status: &ServiceDatabaseStatus| status.gateway.as_ref()?.message.clone();
    let told = message(now).filter(|told| message(previous).as_ref() != Some(told))?;
    Some(Event {
        type_: EventType::Warning,
        reason: kind::reason::COLLECTION_MISSING.to_owned(),
        note: Some(shortened(told)),
        action: "Reconcile".to_owned(),
        secondary: None,
    })
}

/// The event for another primary, after a failover or a switchover.
fn primary_changed(
    context: &Context,
    resource: &ServiceDatabase,
    previous: &ServiceDatabaseStatus,
    now: &ServiceDatabaseStatus,
) -> Option<Event> {
    let uid = resource.uid().unwrap_or_default();
    // During a change of the primary status has none.
    if let Some(before) = &previous.primary {
        context.cache.record_primary(&uid, before);
    }
    let now = now.primary.as_ref()?;
    let before = context.cache.record_primary(&uid, now).filter(|before| before != now)?;
    Some(Event {
        type_: EventType::Normal,
        reason: kind::reason::PRIMARY_CHANGED.to_owned(),
        note: Some(format!("{now} is the primary; it was {before} before")),
        action: "Reconcile".to_owned(),
        secondary: None,
    })
}

/// The event for a manual change of Patroni's configuration that the leader's agent reverted.
fn reverted(context: &Context, findings: &Findings<'_>) -> Option<Event> {
    let leader = findings.observed.primary()?;
    let undone = leader.report.as_ref()?.undone.as_ref()?;
    let uid = findings.resource.uid().unwrap_or_default();
    let known = context.cache.record_undone(&uid, undone.at);
    // An operator that has just started did not see whether its predecessor reported it.
    if !known.map_or(findings.now.duration_since(undone.at) < UNDONE_IS_NEWS, |known| known < undone.at) {
        return None;
    }
    let note = format!(
        "{} was changed in Patroni's dynamic configuration, which could disable failover or lose acknowledged \
         commits; {} restored it: declare it in the spec, or see docs/operations.md (Patroni's configuration)",
        undone.keys.join(", "),
        leader.name
    );
    Some(Event {
        type_: EventType::Warning,
        reason: kind::reason::CONFIGURATION_REVERTED.to_owned(),
        note: Some(shortened(note)),
        action: "Reconcile".to_owned(),
        secondary: None,
    })
}

/// The event for a volume that is larger than declared, once for each size.
fn volumes_larger(
    resource: &ServiceDatabase,
    previous: &ServiceDatabaseStatus,
    now: &ServiceDatabaseStatus,
) -> Option<Event> {
    let larger = super::instances::larger_volumes(resource, now.volume_size.as_ref())?;
    (previous.volume_size != now.volume_size).then(|| Event {
        type_: EventType::Normal,
        reason: kind::reason::VOLUME_LARGER.to_owned(),
        note: Some(larger),
        action: "Reconcile".to_owned(),
        secondary: None,
    })
}

fn shortened(mut note: String) -> String {
    if note.len() > LONGEST_NOTE {
        let end = (0..=LONGEST_NOTE).rev().find(|end| note.is_char_boundary(*end)).unwrap_or(0);
        note.truncate(end);
        let _ = write!(note, "…");
    }
    note
}

/// The event for another version of the schema, which may be a lower one.
fn schema_changed(previous: &ServiceDatabaseStatus, now: &ServiceDatabaseStatus) -> Option<Event> {
    let (before, after) = (&previous.schema_version, &now.schema_version);
    if before == after {
        return None;
    }
    let version =
        |version: &Option<String>| version.as_ref().map_or("none".to_owned(), |version| format!("version {version}"));
    Some(Event {
        type_: EventType::Normal,
        reason: kind::reason::SCHEMA_CHANGED.to_owned(),
        note: Some(format!("the schema changed from {} to {}", version(before), version(after))),
        action: "Migrate".to_owned(),
        secondary: None,
    })
}

/// Status repeats the ledger, so each change is counted once, also across restarts of the operator.
fn count_migrations(metrics: &Metrics, previous: &ServiceDatabaseStatus, now: &ServiceDatabaseStatus) {
    // The migrations of an adopted database were counted where they were applied.
    let (Some(before), Some(now)) = (&previous.migrations, &now.migrations) else { return };
    let completed = |status: &MigrationsStatus| -> Vec<MigrationRecord> {
        let completed = status.recent.iter().filter(|record| record.state == MigrationState::Completed);
        completed.cloned().collect()
    };
    let known = completed(before);
    let new = completed(now).into_iter().filter(|record| !known.iter().any(|known| known.version == record.version));
    let took = new.filter_map(|record| u64::try_from(record.duration_ms?).ok()).map(Duration::from_millis);
    // A migration that left the list of the last twenty and returned by a rollback is not new.
    let change = now.applied - before.applied;
    metrics.migrated(change, took.filter(|_| change > 0));
}

/// Writes an event about a resource; a failure is logged.
pub async fn emit(context: &Context, resource: &ServiceDatabase, event: Event) {
    // A recorder counts events of the same reason as one and keeps the first message, which would
    // be wrong for the failure of another file: each change is an event of its own.
    let recorder = Recorder::new(context.client.clone(), context.reporter.clone());
    let Err(error) = recorder.publish(&event, &resource.object_ref(&())).await else { return };
    let error = Error::from(error);
    if error.is_of_terminating_namespace() {
        tracing::debug!(reason = event.reason, %error, "an event could not be written");
    } else {
        tracing::warn!(reason = event.reason, %error, "an event could not be written");
    }
}

/// The event for a change of a condition, if it is relevant for users.
fn event(before: Option<&Condition>, now: &Condition) -> Option<Event> {
    let same = before.is_some_and(|before| before.status == now.status && before.reason == now.reason);
    let holds = now.status == "True";
    // Success is reported once, when it is complete; failure always.
    let telling = match now.type_.as_str() {
        kind::READY | kind::STALLED | kind::CREDENTIALS_READY => holds,
        kind::SCHEMA_DRIFT => {
            now.reason != kind::reason::SCHEMA_MATCHES || before.is_some_and(|before| before.status == "True")
        }
        // They exist only after a first occurrence, so each reason is reported.
        kind::VOLUME_NEARLY_FULL | kind::COLLATIONS_CHANGED => holds || before.is_some(),
        kind::CUSTOM_METRICS_READ => !holds || before.is_some(),
        kind::CERTIFICATES_READY => {
            use kind::reason::{AUTHORITY_LOST, PROGRESSING};
            now.reason == AUTHORITY_LOST || before.is_some_and(|before| before.reason != PROGRESSING)
        }
        kind::CONTINUOUS_ARCHIVING => !is_waiting(&now.reason),
        kind::DATABASE_AVAILABLE => holds || !is_waiting(&now.reason),
        kind::MIGRATIONS_APPLIED => now.reason == kind::reason::APPLIED || (!holds && !is_waiting(&now.reason)),
        kind::VAULT_REACHABLE => {
            (!holds && !is_waiting(&now.reason))
                || before.is_some_and(|before| before.status != now.status && !is_waiting(&before.reason))
        }
        _ => false,
    };
    if same || !telling {
        return None;
    }
    // These are a warning when they are True.
    let bad = match now.type_.as_str() {
        kind::SCHEMA_DRIFT => now.reason != kind::reason::SCHEMA_MATCHES,
        kind::STALLED | kind::VOLUME_NEARLY_FULL | kind::COLLATIONS_CHANGED => holds,
        _ => !holds,
    };
    let note = shortened(format!("{}={}: {}", now.type_, now.status, now.message));
    Some(Event {
        type_: if bad { EventType::Warning } else { EventType::Normal },
        reason: now.reason.clone(),
        note: Some(note),
        action: "Reconcile".to_owned(),
        secondary: None,
    })
}

fn holds(condition: &Condition) -> bool {
    condition.status == "True"
}

/// Whether migrations failed or were refused, and do not only wait.
fn is_failure(reason: &str) -> bool {
    use kind::reason::{
        APPROVAL_REQUIRED, CONFIG_MAP_NOT_FOUND, DRY_RUN, IMAGE_PULL_FAILED, POD_REFUSED, RESTORED_BEFORE,
        UNSCHEDULABLE,
    };
    let waits = [
        APPROVAL_REQUIRED,
        CONFIG_MAP_NOT_FOUND,
        DRY_RUN,
        IMAGE_PULL_FAILED,
        POD_REFUSED,
        RESTORED_BEFORE,
        UNSCHEDULABLE,
    ];
    !waits.contains(&reason) && !is_waiting(reason)
}

fn is_waiting(reason: &str) -> bool {
    use kind::reason::{
        DEPENDENCY_NOT_READY, INITIALIZING, MIGRATIONS_RUNNING, PROGRESSING, RESTORING, SWITCHING_OVER, UPGRADING,
    };
    let waits =
        [PROGRESSING, MIGRATIONS_RUNNING, INITIALIZING, DEPENDENCY_NOT_READY, RESTORING, SWITCHING_OVER, UPGRADING];
    waits.contains(&reason)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::api::{GatewayStatus, UpgradeStatus};

    fn status(backup: Value) -> ServiceDatabaseStatus {
        ServiceDatabaseStatus {
            backup: serde_json::from_value(backup).expect("a status"),
            ..ServiceDatabaseStatus::default()
        }
    }

    #[test]
    fn the_event_of_a_backup_names_its_store() {
        let run =
            json!({"type": "Full", "job": "chat-db-backup-1", "state": "Done", "startedAt": "2026-11-29T12:00:00Z"});
        let one = |store: &str| json!({"store": store, "path": "/p", "lastRun": run});
        let mut both = one("main");
        both["second"] = one("other");
        let (before, now) = (ServiceDatabaseStatus::default(), status(both));
        let note = |nth| backed_up(&before, &now, nth).and_then(|event| event.note).unwrap_or_default();
        assert_eq!(note(Nth::First), "the Job chat-db-backup-1 has made a backup (Full) in the store main");
        assert_eq!(note(Nth::Second), "the Job chat-db-backup-1 has made a backup (Full) in the store other");
        assert!(backed_up(&now, &now, Nth::Second).is_none());
    }

    #[test]
    fn a_collection_that_does_not_exist_has_one_event() {
        let with = |message: Option<&str>| {
            let gateway = GatewayStatus { message: message.map(str::to_owned), ..GatewayStatus::default() };
            ServiceDatabaseStatus { gateway: Some(gateway), ..ServiceDatabaseStatus::default() }
        };
        let (silent, told) = (with(None), with(Some("films")));
        let event = without_effect(&silent, &told).expect("an event");
        assert_eq!((event.reason.as_str(), event.note.as_deref()), ("CollectionMissing", Some("films")));
        assert!(without_effect(&told, &told).is_none() && without_effect(&told, &silent).is_none());
    }

    #[test]
    fn a_planned_outage_is_no_warning_and_a_lost_primary_is() {
        let available = |status: &str, reason: &str| -> Condition {
            serde_json::from_value(json!({
                "type": kind::DATABASE_AVAILABLE, "status": status, "reason": reason, "message": "m",
                "lastTransitionTime": "2026-11-29T12:00:00Z"
            }))
            .expect("a condition")
        };
        let serving = available("True", kind::reason::AVAILABLE);
        for reason in [kind::reason::RESTORING, kind::reason::UPGRADING, kind::reason::SWITCHING_OVER] {
            assert!(event(Some(&serving), &available("False", reason)).is_none(), "{reason}");
        }
        let planned = available("False", kind::reason::UPGRADING);
        let lost = event(Some(&planned), &available("False", kind::reason::NO_PRIMARY)).expect("an event");
        assert!(matches!(lost.type_, EventType::Warning));
        let serves = event(Some(&planned), &serving).expect("an event");
        assert!(matches!(serves.type_, EventType::Normal), "its end is told");
    }

    #[test]
    fn a_restore_in_place_has_an_event_for_its_begin_and_its_end() {
        let with = |token: &str, state: &str, message: &str| ServiceDatabaseStatus {
            restore: serde_json::from_value(json!({
                "request": token, "state": state, "startedAt": "2026-11-29T12:00:00Z", "message": message,
            }))
            .expect("a status"),
            ..ServiceDatabaseStatus::default()
        };
        let said = |before: &ServiceDatabaseStatus, now: &ServiceDatabaseStatus| {
            restored(before, now).map(|event| (event.reason, event.note.unwrap_or_default()))
        };
        let event = |reason: &str, note: &str| Some((reason.to_owned(), note.to_owned()));
        let (none, runs) = (ServiceDatabaseStatus::default(), with("t", "Running", "restores"));
        assert_eq!(said(&none, &none), None);
        assert_eq!(said(&none, &runs), event("RestoreStarted", "restores"));
        assert_eq!(said(&runs, &with("t", "Running", "stops others")), None, "progress is no event");
        let done = with("t", "Done", "the way back");
        assert_eq!(said(&runs, &done), event("RestoreCompleted", "the way back"));
        assert_eq!(said(&done, &done), None);
        assert_eq!(said(&done, &with("u", "Failed", "no")), event("RestoreFailed", "no"), "refused at once");
    }

    #[test]
    fn an_upgrade_has_an_event_for_each_phase_with_a_message_and_a_refused_request_none() {
        let with = |phase, message: Option<&str>| {
            let upgrade =
                UpgradeStatus { phase, message: message.map(str::to_owned), ..UpgradeStatus::pending(17, 18) };
            ServiceDatabaseStatus { upgrade: Some(Box::new(upgrade)), ..ServiceDatabaseStatus::default() }
        };
        let before = ServiceDatabaseStatus::default();
        let note = |now: &ServiceDatabaseStatus| upgraded(&before, now).and_then(|event| event.note);
        assert_eq!(note(&with(UpgradePhase::Pending, Some("declared"))), Some("declared".to_owned()));
        assert_eq!(note(&with(UpgradePhase::Finished, None)), None);
        assert_eq!(note(&with(UpgradePhase::None, Some("refused"))), None);
    }
}
