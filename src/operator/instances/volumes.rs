//! Instances whose volume is deleted with their pod, because the claim or its PersistentVolume was
//! deleted. Only the running pod keeps the data. It is replaced, to get a new volume and to clone
//! the leader, while another instance has every commit; until then it is kept.

use super::situation::Situation;
use crate::api::conditions::reason;
use crate::api::names::Names;
use crate::operator::observe::Observation;
use crate::operator::observe::pods::{DatabasePod, VolumeEnd};
use crate::operator::status::condition::ConditionState;

/// The remaining instances.
#[derive(Clone, Copy)]
pub struct Members<'a> {
    observed: &'a Observation,
    names: &'a Names,
    instances: i32,
}

impl<'a> Members<'a> {
    /// The first `instances` instances of the observed state.
    pub fn new(observed: &'a Observation, names: &'a Names, instances: i32) -> Self {
        Self { observed, names, instances }
    }

    fn pods(self) -> impl Iterator<Item = &'a DatabasePod> {
        self.observed.pods.iter().filter(move |pod| self.names.is_one_of(&pod.name, self.instances))
    }

    /// Whether another instance has every acknowledged commit on a permanent volume and does not
    /// depend on this one: the primary, or a replica that streams from it. A switchover has further
    /// conditions.
    fn has_another_copy(self, pod: &DatabasePod) -> bool {
        let Some(primary) = self.observed.primary().filter(|primary| !primary.terminating) else { return false };
        let has_all = |other: &DatabasePod| {
            other.name == primary.name
                || (other.is_replica() && other.report.as_ref().is_some_and(|report| report.streaming))
        };
        self.pods().any(|other| other.name != pod.name && other.ready && other.volume_end.is_none() && has_all(other))
    }

    /// The instances whose volume is deleted with their pod, and that have the only copy.
    fn only_copies(self) -> impl Iterator<Item = (&'a DatabasePod, VolumeEnd)> {
        let ending = move |pod: &'a DatabasePod| Some((pod, pod.volume_end?));
        self.pods().filter_map(ending).filter(move |(pod, _)| !self.has_another_copy(pod))
    }

    /// Whether the eviction of a pod would remove the only copy.
    pub fn must_keep_pods(self) -> bool {
        self.only_copies().next().is_some()
    }

    /// The condition with the action that a person must take to keep the only copy.
    pub fn condition(self) -> Option<ConditionState> {
        let (pod, end) = self.only_copies().next()?;
        let more = self.instances + 1;
        let remedy = if more > crate::api::spec::MAXIMUM_INSTANCES {
            "wait until another instance streams".to_owned()
        } else {
            format!(
                "set spec.instances to {more}: a new instance is cloned and takes the lead, then {} gets a new volume \
                 automatically, and spec.instances can be set back to {}",
                pod.name, self.instances
            )
        };
        let message = format!(
            "{}, and {} is the only copy of the data: the operator keeps the pod and blocks its eviction; \
             do not delete it. {remedy}",
            self.describe(pod, end),
            pod.name,
        );
        Some(ConditionState::yes(reason::VOLUME_TERMINATING, message))
    }

    /// A message about every instance whose volume is deleted with its pod.
    pub fn notice(self) -> Option<String> {
        let ending: Vec<_> = self.pods().filter_map(|pod| Some(self.describe(pod, pod.volume_end?))).collect();
        (!ending.is_empty()).then(|| ending.join("; "))
    }

    fn describe(self, pod: &DatabasePod, end: VolumeEnd) -> String {
        let claim = self.names.ordinal(&pod.name).map(|ordinal| self.names.volume_claim(ordinal)).unwrap_or_default();
        let pod = &pod.name;
        match end {
            VolumeEnd::Deleted => format!(
                "the volume claim {claim} was deleted, which cannot be undone: Kubernetes keeps it while {pod} runs, \
                 and removes it and its data with the pod"
            ),
            VolumeEnd::Missing => {
                format!("the volume claim {claim} no longer exists: the data of {pod} is lost when the pod ends")
            }
            VolumeEnd::Lost => format!(
                "the volume claim {claim} has lost its PersistentVolume (phase Lost): {pod} continues to run, but no \
                 other pod can mount the volume"
            ),
        }
    }
}

impl Situation<'_> {
    fn volumes(&self) -> Members<'_> {
        Members::new(self.observed, self.database.names(), self.database.instances)
    }

    pub(super) fn must_keep_pods(&self) -> bool {
        self.volumes().must_keep_pods()
    }

    /// Whether the volume of a pod allows its deletion, or why not.
    pub(super) fn may_lose_volume(&self, pod: &DatabasePod) -> Result<(), String> {
        let Some(end) = pod.volume_end else { return Ok(()) };
        let leads = self.observed.leader.as_ref() == Some(&pod.name) || pod.claims_the_lead();
        if leads || !self.volumes().has_another_copy(pod) {
            return Err(format!("{} has the only copy of the data: its pod is kept", pod.name));
        }
        if end == VolumeEnd::Lost {
            let why = self.volumes().describe(pod, end);
            return Err(format!(
                "{why}; create the PersistentVolume again, or delete the claim: then the instance is cloned from the \
                 leader"
            ));
        }
        Ok(())
    }

    /// Why the volumes of remaining instances delay the removal of others.
    pub(super) fn volume_keeps_all(&self, live: i32) -> Option<String> {
        let pod = self.volumes().pods().find(|pod| pod.volume_end.is_some())?;
        let why = self.volumes().describe(pod, pod.volume_end?);
        Some(format!("{why}; set spec.instances back to {live} until {} has a new volume", pod.name))
    }

    /// The measures for volumes that are deleted with their pods, or the cause of the delay.
    pub(super) fn volume_notice(&self) -> Option<String> {
        self.volumes().notice()
    }
}
