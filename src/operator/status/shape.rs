//! What status says of the instances: their volumes, their template, who has a commit.

use super::condition::{ConditionState, held};
use super::findings::Findings;
use crate::api::ServiceDatabaseStatus;
use crate::api::conditions::{self as kind, reason};
use crate::contract::memory::advice;
use crate::contract::report::{Report, Trouble};
use crate::operator::observe::pods::DatabasePod;

/// Why what runs is not yet what is declared; none if it is.
pub fn under_way(findings: &Findings<'_>) -> Option<ConditionState> {
    let shape = findings.shape.as_ref()?;
    let mut word = shape.volumes.clone().or_else(|| shape.decision.under_way.clone())?;
    // What holds it up is what people need to know.
    if let Some(trouble) = trouble(findings) {
        word.message = format!("{}; {}", word.message, trouble.message);
    }
    Some(word)
}

/// A volume that is full hinders the next write, if not this one.
pub fn full(findings: &Findings<'_>) -> Option<ConditionState> {
    let trouble = findings.observed.trouble().filter(|trouble| trouble.reason == reason::VOLUME_FULL)?;
    Some(ConditionState::no(&trouble.reason, trouble.message))
}

/// Whether a volume is nearly full; none if none is, nor was before.
pub fn nearly_full(findings: &Findings<'_>, previous: &ServiceDatabaseStatus) -> Option<ConditionState> {
    let used = |pod: &'_ DatabasePod| Some((pod.report.as_ref()?.volume_used_percent?, pod.name.clone()));
    let mut filling: Vec<_> = findings.observed.pods.iter().filter_map(used).collect();
    filling.sort();
    let Some((percent, pod)) = filling.pop() else {
        let before = held(previous, kind::VOLUME_NEARLY_FULL)?;
        // An agent that has just started has not looked yet.
        let silent = findings.observed.pods.iter().all(|pod| pod.report.is_none());
        let has_room = ConditionState::no(reason::VOLUME_HAS_ROOM, "less than four fifths of each volume are used");
        return Some(if silent { before } else { has_room });
    };
    let others =
        if filling.is_empty() { String::new() } else { format!(", and {} others are nearly full", filling.len()) };
    let message = format!(
        "the volume of {pod} is {percent} % full{others}: let spec.storage.size grow before PostgreSQL stops at 100 %; WAL \
         is not what fills it (docs/availability.md)"
    );
    Some(ConditionState::yes(reason::VOLUME_FILLING, message))
}

/// What hinders the instances. Of what the kernel killed a pod tells at most that; which parameter
/// may take most, the spec says.
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

/// Whether a commit is on more than one volume, and what a failure may cost where it is not.
pub fn synchronous(
    findings: &Findings<'_>,
    report: Option<&Report>,
    previous: &ServiceDatabaseStatus,
) -> ConditionState {
    let spec = &findings.resource.spec;
    if spec.instances < 2 {
        let message = "there is one instance, and a commit is on its volume alone; spec.replication.synchronous counts \
                       from two instances on";
        return ConditionState::no(reason::SINGLE_INSTANCE, message);
    }
    if !spec.replication.synchronous {
        let message = format!(
            "spec.replication.synchronous is false: commits do not wait for a replica, and a failover may lose the last \
             ones: {} bytes of WAL at most (spec.replication.maximumLagBytes) before the leader's last known position, \
             and what was written since",
            spec.replication.maximum_lag_bytes
        );
        return ConditionState::no(reason::ASYNCHRONOUS, message);
    }
    match report.map(|report| report.synchronous_standbys.as_slice()) {
        // Between two primaries nobody knows.
        None => held(previous, kind::SYNCHRONOUS_REPLICATION)
            .unwrap_or_else(|| ConditionState::no(reason::NO_STANDBY, "no instance is the primary yet")),
        Some([]) => {
            let message =
                "no replica streams at present: commits do not wait for one, and are on the primary's volume alone";
            ConditionState::no(reason::NO_STANDBY, message)
        }
        Some(standbys) => {
            ConditionState::yes(reason::STREAMING, format!("each commit waits for {}", standbys.join(" or ")))
        }
    }
}

/// Whether another version would change the pods.
pub fn rollout_pending(findings: &Findings<'_>, previous: &ServiceDatabaseStatus) -> ConditionState {
    let Some(shape) = &findings.shape else {
        return held(previous, kind::ROLLOUT_PENDING).unwrap_or_else(|| ConditionState::no(reason::UP_TO_DATE, ""));
    };
    match &shape.pending {
        None => ConditionState::no(reason::UP_TO_DATE, ""),
        Some(pending) => {
            let message = format!(
                "this version of the operator would change the pods ({}): kubectl servicedb rollout approves it, replicas \
                 are replaced first; spec.updatePolicy: Automatic needs no approval",
                pending.changes.join("; ")
            );
            ConditionState::yes(reason::APPROVAL_PENDING, message)
        }
    }
}
