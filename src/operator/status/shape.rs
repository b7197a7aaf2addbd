//! What status says of the instances: their volumes, their template, who has a commit.

use super::{Findings, Word, held};
use crate::api::ServiceDatabaseStatus;
use crate::api::conditions::{self as kind, reason};
use crate::contract::report::Report;

/// Why what runs is not yet what is declared; none if it is.
pub fn under_way(findings: &Findings<'_>) -> Option<Word> {
    let shape = findings.shape.as_ref()?;
    let mut word = shape.volumes.clone().or_else(|| shape.decision.under_way.clone())?;
    // What holds it up is what people need to know.
    if let Some(trouble) = findings.observed.trouble() {
        word.message = format!("{}; {}", word.message, trouble.message);
    }
    Some(word)
}

/// A volume that is full hinders the next write, if not this one.
pub fn full(findings: &Findings<'_>) -> Option<Word> {
    let trouble = findings.observed.trouble().filter(|trouble| trouble.reason == reason::VOLUME_FULL)?;
    Some(Word::no(&trouble.reason, trouble.message))
}

/// Whether a commit is on more than one volume, and what a failure may cost where it is not.
pub fn synchronous(findings: &Findings<'_>, report: Option<&Report>, previous: &ServiceDatabaseStatus) -> Word {
    let spec = &findings.resource.spec;
    if spec.instances < 2 {
        let message = "there is one instance, and a commit is on its volume alone; spec.replication.synchronous counts \
                       from two instances on";
        return Word::no(reason::SINGLE_INSTANCE, message);
    }
    if !spec.replication.synchronous {
        let message = format!(
            "spec.replication.synchronous is false: commits do not wait for a replica, and a failover may lose the last \
             ones: {} bytes of WAL at most (spec.replication.maximumLagBytes) before the leader's last known position, \
             and what was written since",
            spec.replication.maximum_lag_bytes
        );
        return Word::no(reason::ASYNCHRONOUS, message);
    }
    match report.map(|report| report.synchronous_standbys.as_slice()) {
        // Between two primaries nobody knows.
        None => held(previous, kind::SYNCHRONOUS_REPLICATION)
            .unwrap_or_else(|| Word::no(reason::NO_STANDBY, "no instance is the primary yet")),
        Some([]) => {
            let message =
                "no replica streams at present: commits do not wait for one, and are on the primary's volume alone";
            Word::no(reason::NO_STANDBY, message)
        }
        Some(standbys) => Word::yes(reason::STREAMING, format!("each commit waits for {}", standbys.join(" or "))),
    }
}

/// Whether another version would change the pods.
pub fn rollout_pending(findings: &Findings<'_>, previous: &ServiceDatabaseStatus) -> Word {
    let Some(shape) = &findings.shape else {
        return held(previous, kind::ROLLOUT_PENDING).unwrap_or_else(|| Word::no(reason::UP_TO_DATE, ""));
    };
    match &shape.pending {
        None => Word::no(reason::UP_TO_DATE, ""),
        Some(pending) => {
            let message = format!(
                "this version of the operator would change the pods ({}): kubectl servicedb rollout approves it, replicas \
                 are replaced first; spec.updatePolicy: Automatic needs no approval",
                pending.changes.join("; ")
            );
            Word::yes(reason::APPROVAL_PENDING, message)
        }
    }
}
