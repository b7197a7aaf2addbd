//! The instances in status: volumes, template, synchronous replication.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::condition::{ConditionState, held};
use super::findings::Findings;
use crate::api::conditions::{self as kind, reason};
use crate::api::{ServiceDatabase, ServiceDatabaseStatus, UpdatePolicy};
use crate::contract::backup::Nth;
use crate::contract::memory::advice;
use crate::contract::order::Action;
use crate::contract::report::{Report, Trouble};
use crate::operator::apply::quantity::bytes;
use crate::operator::observe::pods::DatabasePod;

/// The maximum duration of a failover; meanwhile the previous state is reported.
const FAILOVER: SignedDuration = SignedDuration::from_secs(45);

/// Why the running state differs from the declared one; none if it matches.
pub fn under_way(findings: &Findings<'_>) -> Option<ConditionState> {
    let instances = findings.instances.as_ref()?;
    let mut state = instances.volumes.clone().or_else(|| instances.decision.under_way.clone())?;
    // The message includes the cause of the delay.
    if let Some(trouble) = trouble(findings) {
        state.message = format!("{}; {}", state.message, trouble.message);
    }
    Some(state)
}

/// The two instances of the ordered switchover.
pub fn handover<'a>(findings: &'a Findings<'_>) -> Option<(&'a str, &'a str)> {
    match &findings.observed.desired.as_ref()?.order.as_ref()?.action {
        Action::Switchover { from, to } => Some((from.as_str(), to.as_str())),
        Action::Restart { .. } => None,
    }
}

/// The restore in place or the major upgrade for which the instances are stopped; none without one.
pub fn planned_outage(findings: &Findings<'_>) -> Option<ConditionState> {
    let restored = findings.in_place.stops_instances().map(|why| ConditionState::no(reason::RESTORING, why));
    restored.or_else(|| Some(ConditionState::no(reason::UPGRADING, findings.upgrade.stops_instances()?)))
}

/// The part of the spec that a person must correct: a size that the volumes cannot have, or a
/// setting or an extension that PostgreSQL refuses.
pub fn waits_for_a_person(findings: &Findings<'_>) -> Option<ConditionState> {
    let volumes = findings.instances.as_ref().and_then(|instances| instances.volumes.as_ref());
    let volumes = volumes.filter(|state| [reason::VOLUME_CANNOT_GROW, reason::INVALID_SPEC].contains(&&*state.reason));
    let volumes = volumes.map(|state| ConditionState::yes(&state.reason, state.message.clone()));
    let refused = || findings.observed.refused();
    volumes.or_else(|| refused().map(|refused| ConditionState::yes(&refused.reason, refused.message.clone())))
}

/// Reports a full volume: the next write fails, or is refused before that.
pub fn full(findings: &Findings<'_>) -> Option<ConditionState> {
    let reasons = [reason::VOLUME_FULL, reason::WRITES_STOPPED];
    let trouble = findings.observed.trouble().filter(|trouble| reasons.contains(&&*trouble.reason))?;
    Some(ConditionState::no(&trouble.reason, trouble.message))
}

/// Whether a volume is nearly full; none if none is or was.
pub fn nearly_full(findings: &Findings<'_>, previous: &ServiceDatabaseStatus) -> Option<ConditionState> {
    let used = |pod: &'_ DatabasePod| Some((pod.report.as_ref()?.volume_used_percent?, pod.name.clone()));
    let mut filling: Vec<_> = findings.observed.pods.iter().filter_map(used).collect();
    filling.sort();
    let Some((percent, pod)) = filling.pop() else {
        let before = held(previous, kind::VOLUME_NEARLY_FULL)?;
        // An agent that has just started has not measured yet.
        let silent = findings.observed.pods.iter().all(|pod| pod.report.is_none());
        let has_room = ConditionState::no(reason::VOLUME_HAS_ROOM, "less than four fifths of each volume are used");
        return Some(if silent { before } else { has_room });
    };
    let others: Vec<_> = filling.iter().map(|(_, pod)| pod.as_str()).collect();
    let others = match others[..] {
        [] => String::new(),
        [other] => format!(", and that of {other} is nearly full, too"),
        _ => format!(", and those of {} are nearly full, too", others.join(", ")),
    };
    let volumes = findings.instances.as_ref().and_then(|instances| instances.volumes.as_ref());
    let remedy = if volumes.is_some_and(|state| state.reason == reason::VOLUME_CANNOT_GROW) {
        "remove data, since the StorageClass does not allow the volume to grow,"
    } else {
        "increase spec.storage.size, or remove data if the StorageClass does not allow volume expansion,"
    };
    let report = findings.observed.primary().and_then(|primary| primary.report.as_ref());
    let mut archives = Nth::ALL.into_iter().filter_map(|nth| report?.archive_in(nth));
    let cause = match archives.find(|archive| archive.waiting > 0 || archive.failure.is_some()) {
        Some(archive) => {
            let store = &archive.store;
            format!("WAL waits for the store {store} and takes room: see ContinuousArchiving (docs/backups.md)")
        }
        None => "WAL is not the cause (docs/availability.md)".to_owned(),
    };
    let message =
        format!("the volume of {pod} is {percent} % full{others}: {remedy} before PostgreSQL stops at 100 %; {cause}");
    Some(ConditionState::yes(reason::VOLUME_FILLING, message))
}

/// The message about volumes that are larger than declared, as with an autoscaler; none if they are
/// not.
pub fn larger_volumes(resource: &ServiceDatabase, largest: Option<&Quantity>) -> Option<String> {
    let declared = &resource.spec.storage.size;
    let largest = largest.filter(|largest| bytes(largest) > bytes(declared))?;
    Some(format!(
        "a volume has {}, more than spec.storage.size ({}): it is kept, since a volume cannot shrink, and a new \
         instance gets a volume of that size",
        largest.0, declared.0
    ))
}

/// The trouble of the instances. For a process that the kernel killed, the message names the
/// parameter in the spec that may use the most memory.
pub fn trouble(findings: &Findings<'_>) -> Option<Trouble> {
    let mut trouble = findings.observed.trouble()?;
    let spec = &findings.resource.spec;
    let advised = trouble.message.contains("spec.postgres.parameters");
    if trouble.reason == reason::OOM_KILLED && !advised {
        let limit = findings.database.and_then(|database| database.memory.limit_bytes);
        trouble.message = format!("{}: {}", trouble.message, advice(&spec.postgres.parameters, limit));
    }
    Some(trouble)
}

/// Whether commits are on more than one volume, otherwise the possible loss by a failure.
pub fn synchronous(
    findings: &Findings<'_>,
    report: Option<&Report>,
    previous: &ServiceDatabaseStatus,
) -> ConditionState {
    let spec = &findings.resource.spec;
    if spec.instances < 2 {
        let message = "there is one instance, and commits are only on its volume; spec.replication.synchronous is \
                       effective from two instances on";
        return ConditionState::no(reason::SINGLE_INSTANCE, message);
    }
    if !spec.replication.synchronous {
        let message = format!(
            "spec.replication.synchronous is false: commits do not wait for a replica, and a failover may lose the \
             last ones: {} bytes of WAL at most (spec.replication.maximumLagBytes) before the leader's last known \
             position, and later writes",
            spec.replication.maximum_lag_bytes
        );
        return ConditionState::no(reason::ASYNCHRONOUS, message);
    }
    let Some(report) = report else {
        return without_primary(findings, previous);
    };
    match report.synchronous_standbys.as_slice() {
        [] => {
            let message = "no replica streams: commits do not wait for one, and are only on the primary's volume";
            ConditionState::no(reason::NO_STANDBY, message)
        }
        standbys => ConditionState::yes(reason::STREAMING, format!("each commit waits for {}", standbys.join(" or "))),
    }
}

/// The replication while no primary reports.
fn without_primary(findings: &Findings<'_>, previous: &ServiceDatabaseStatus) -> ConditionState {
    if let Some(planned) = planned_outage(findings) {
        return planned;
    }
    if lacks_primary_for_long(previous, findings.now) {
        let message = "no instance is the primary: it is unknown which replica has every commit";
        return ConditionState::no(reason::NO_PRIMARY, message);
    }
    // During a change of the primary it is unknown.
    held(previous, kind::SYNCHRONOUS_REPLICATION)
        .unwrap_or_else(|| ConditionState::no(reason::INITIALIZING, "no instance is the primary yet"))
}

/// Whether the database has been without a primary for longer than a failover takes.
fn lacks_primary_for_long(previous: &ServiceDatabaseStatus, now: Timestamp) -> bool {
    let available = previous.conditions.iter().find(|condition| condition.type_ == kind::DATABASE_AVAILABLE);
    let lost = available.filter(|condition| condition.status == "False" && condition.reason == reason::NO_PRIMARY);
    lost.is_some_and(|condition| now.duration_since(condition.last_transition_time.0) >= FAILOVER)
}

/// Whether another version would change the pods.
pub fn rollout_pending(findings: &Findings<'_>, previous: &ServiceDatabaseStatus) -> ConditionState {
    let Some(instances) = &findings.instances else {
        return held(previous, kind::ROLLOUT_PENDING).unwrap_or_else(|| ConditionState::no(reason::UP_TO_DATE, ""));
    };
    match &instances.pending {
        None => ConditionState::no(reason::UP_TO_DATE, ""),
        Some(pending) => {
            if findings.database.is_some_and(|database| database.update_policy == UpdatePolicy::Window) {
                let next = findings.maintenance.status.next_window.as_ref();
                let next = next.map(|next| format!(" at {}", next.0)).unwrap_or_default();
                let message = format!(
                    "this version of the operator changes the pods ({}) in the next window{next}; kubectl servicedb rollout \
                     {} starts it now",
                    pending.changes.join("; "),
                    findings.in_commands()
                );
                return ConditionState::yes(reason::WAITING_FOR_WINDOW, message);
            }
            let message = format!(
                "this version of the operator would change the pods ({}): kubectl servicedb rollout {} approves \
                 it, replicas are replaced first; spec.updatePolicy: Automatic needs no approval",
                pending.changes.join("; "),
                findings.in_commands()
            );
            ConditionState::yes(reason::APPROVAL_PENDING, message)
        }
    }
}
