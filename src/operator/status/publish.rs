//! Telling: status is written where it changed, and a change of a condition is an event.

use std::fmt::Write as _;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::{Findings, compute};
use crate::api::conditions as kind;
use crate::api::names::FIELD_MANAGER;
use crate::api::{MigrationRecord, MigrationState, MigrationsStatus, ServiceDatabase, ServiceDatabaseStatus};
use crate::operator::context::Context;
use crate::operator::context::error::Error;
use crate::operator::context::metrics::Metrics;

/// The API server refuses longer notes.
const LONGEST_NOTE: usize = 1000;

/// Writes the status that the findings give, if it is not there already. Returns whether the
/// resource is Ready.
///
/// # Errors
/// Whatever the API server said.
pub async fn status(context: &Context, findings: &Findings<'_>) -> Result<bool, Error> {
    let status = compute(findings);
    write(context, findings.resource, &status).await?;
    let ready = status.conditions.iter().any(|condition| condition.type_ == kind::READY && condition.status == "True");
    context.metrics.observed(&findings.resource.uid().unwrap_or_default(), ready);
    Ok(ready)
}

/// Writes a status, if it is not there already, and an event for each condition that changed.
///
/// What was not looked at is told as it was told before, so a status stands on the one that was
/// read: it is refused if the resource has changed since. The watch is often behind what this
/// operator has just written itself.
///
/// # Errors
/// Whatever the API server said; an event that cannot be written is no error.
pub async fn write(context: &Context, resource: &ServiceDatabase, status: &ServiceDatabaseStatus) -> Result<(), Error> {
    let previous = resource.status.clone().unwrap_or_default();
    if *status == previous {
        return Ok(());
    }
    let api: Api<ServiceDatabase> = Api::namespaced(context.client.clone(), &resource.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": ServiceDatabase::api_version(&()),
        "kind": ServiceDatabase::kind(&()),
        // The uid keeps a late write off a new resource of the same name.
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
    let told = [rotated(&previous, status), schema_changed(&previous, status), primary];
    for event in told.into_iter().flatten() {
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

/// New credentials took the place of others.
fn rotated(previous: &ServiceDatabaseStatus, now: &ServiceDatabaseStatus) -> Option<Event> {
    let generation = |status: &ServiceDatabaseStatus| status.credentials.as_ref().map(|found| found.generation);
    let (before, now) = (generation(previous)?, generation(now)?);
    (before > 0 && now > before).then(|| Event {
        type_: EventType::Normal,
        reason: kind::reason::CREDENTIALS_ROTATED.to_owned(),
        note: Some(format!(
            "generation {now} was proved by a login and is in Vault; the login before it is good until the next rotation"
        )),
        action: "Rotate".to_owned(),
        secondary: None,
    })
}

/// Another instance is the primary: after a failover as after a switchover.
fn primary_changed(
    context: &Context,
    resource: &ServiceDatabase,
    previous: &ServiceDatabaseStatus,
    now: &ServiceDatabaseStatus,
) -> Option<Event> {
    let uid = resource.uid().unwrap_or_default();
    // Between two primaries status has none.
    if let Some(before) = &previous.primary {
        context.cache.record_primary(&uid, before);
    }
    let now = now.primary.as_ref()?;
    let before = context.cache.record_primary(&uid, now).filter(|before| before != now)?;
    Some(Event {
        type_: EventType::Normal,
        reason: kind::reason::PRIMARY_CHANGED.to_owned(),
        note: Some(format!("{now} is the primary; before it was {before}")),
        action: "Reconcile".to_owned(),
        secondary: None,
    })
}

/// Another version, which may be a lower one.
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
        note: Some(format!("the schema went from {} to {}", version(before), version(after))),
        action: "Migrate".to_owned(),
        secondary: None,
    })
}

/// Status tells what the ledger does, so each change of it is counted once, also across
/// restarts of the operator.
fn count_migrations(metrics: &Metrics, previous: &ServiceDatabaseStatus, now: &ServiceDatabaseStatus) {
    // What an adopted database brought with it was counted where it was done.
    let (Some(before), Some(now)) = (&previous.migrations, &now.migrations) else { return };
    let completed = |status: &MigrationsStatus| -> Vec<MigrationRecord> {
        let completed = status.recent.iter().filter(|record| record.state == MigrationState::Completed);
        completed.cloned().collect()
    };
    let known = completed(before);
    let new = completed(now).into_iter().filter(|record| !known.iter().any(|known| known.version == record.version));
    let took = new.filter_map(|record| u64::try_from(record.duration_ms?).ok()).map(Duration::from_millis);
    // One that left the list of the last twenty and came back by a rollback is not new.
    let change = now.applied - before.applied;
    metrics.migrated(change, took.filter(|_| change > 0));
}

/// Files an event about a resource; that it could not be is only logged.
pub async fn emit(context: &Context, resource: &ServiceDatabase, event: Event) {
    // A recorder counts what has the same reason as one event, and keeps the first one's words:
    // of another file's failure they would be untrue. Each change is an event of its own.
    let recorder = Recorder::new(context.client.clone(), context.reporter.clone());
    let Err(error) = recorder.publish(&event, &resource.object_ref(&())).await else { return };
    let error = Error::from(error);
    if error.is_of_ending_namespace() {
        tracing::debug!(reason = event.reason, %error, "an event could not be written");
    } else {
        tracing::warn!(reason = event.reason, %error, "an event could not be written");
    }
}

/// What of a condition's change people want to be told.
fn event(before: Option<&Condition>, now: &Condition) -> Option<Event> {
    let same = before.is_some_and(|before| before.status == now.status && before.reason == now.reason);
    let holds = now.status == "True";
    // What goes as it should is told once, when it is done; what does not is always told.
    let telling = match now.type_.as_str() {
        kind::READY | kind::STALLED | kind::CREDENTIALS_READY => holds,
        kind::SCHEMA_DRIFT => {
            now.reason != kind::reason::SCHEMA_MATCHES || before.is_some_and(|before| before.status == "True")
        }
        // Each reason of it is worth telling: it is there once a volume was nearly full.
        kind::VOLUME_NEARLY_FULL => holds || before.is_some(),
        kind::CERTIFICATES_READY => {
            use kind::reason::{AUTHORITY_LOST, PROGRESSING};
            now.reason == AUTHORITY_LOST || before.is_some_and(|before| before.reason != PROGRESSING)
        }
        kind::DATABASE_AVAILABLE => holds || !is_waiting(&now.reason),
        kind::MIGRATIONS_APPLIED => now.reason == kind::reason::APPLIED || (!holds && !is_waiting(&now.reason)),
        kind::VAULT_REACHABLE => !holds || before.is_some_and(|before| before.status != now.status),
        _ => false,
    };
    if same || !telling {
        return None;
    }
    // These are bad when they hold.
    let bad = match now.type_.as_str() {
        kind::SCHEMA_DRIFT => now.reason != kind::reason::SCHEMA_MATCHES,
        kind::STALLED | kind::VOLUME_NEARLY_FULL => holds,
        _ => !holds,
    };
    let mut note = format!("{}={}: {}", now.type_, now.status, now.message);
    if note.len() > LONGEST_NOTE {
        let end = (0..=LONGEST_NOTE).rev().find(|end| note.is_char_boundary(*end)).unwrap_or(0);
        note.truncate(end);
        let _ = write!(note, "…");
    }
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

/// Whether migrations failed or were refused, and do not merely wait for somebody.
fn is_failure(reason: &str) -> bool {
    use kind::reason::{APPROVAL_REQUIRED, CONFIG_MAP_NOT_FOUND, DRY_RUN, IMAGE_PULL_FAILED};
    ![APPROVAL_REQUIRED, CONFIG_MAP_NOT_FOUND, DRY_RUN, IMAGE_PULL_FAILED].contains(&reason) && !is_waiting(reason)
}

fn is_waiting(reason: &str) -> bool {
    use kind::reason::{DEPENDENCY_NOT_READY, INITIALIZING, MIGRATIONS_RUNNING, PROGRESSING};
    [PROGRESSING, MIGRATIONS_RUNNING, INITIALIZING, DEPENDENCY_NOT_READY].contains(&reason)
}
