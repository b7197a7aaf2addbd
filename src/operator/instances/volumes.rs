//! Instances whose volume ends with their pod: somebody deleted the claim, or its PersistentVolume.
//! The pod that runs is then all that keeps the data. It is replaced, to get a new volume and to
//! clone the leader, while another instance has everything; until then it is not touched.

use super::situation::Situation;
use crate::api::conditions::reason;
use crate::api::names::Names;
use crate::operator::observe::Observation;
use crate::operator::observe::pods::{DatabasePod, VolumeEnd};
use crate::operator::status::condition::ConditionState;

/// The instances that stay.
#[derive(Clone, Copy)]
pub struct Members<'a> {
    observed: &'a Observation,
    names: &'a Names,
    instances: i32,
}

impl<'a> Members<'a> {
    /// So many instances of what was observed.
    pub fn new(observed: &'a Observation, names: &'a Names, instances: i32) -> Self {
        Self { observed, names, instances }
    }

    fn pods(self) -> impl Iterator<Item = &'a DatabasePod> {
        self.observed.pods.iter().filter(move |pod| self.names.is_one_of(&pod.name, self.instances))
    }

    /// Whether another instance has every acknowledged row on a volume that lasts, and goes on
    /// without this one: the primary, or a replica that streams from it. Of a primary that is to
    /// hand the lead over, more is asked before that.
    fn has_another_copy(self, pod: &DatabasePod) -> bool {
        let Some(primary) = self.observed.primary().filter(|primary| !primary.going) else { return false };
        let has_all = |other: &DatabasePod| {
            other.name == primary.name
                || (other.is_replica() && other.report.as_ref().is_some_and(|report| report.streaming))
        };
        self.pods().any(|other| other.name != pod.name && other.ready && other.volume_end.is_none() && has_all(other))
    }

    /// The instances whose volume ends with their pod, and that are the only copy.
    fn only_copies(self) -> impl Iterator<Item = (&'a DatabasePod, VolumeEnd)> {
        let ending = move |pod: &'a DatabasePod| Some((pod, pod.volume_end?));
        self.pods().filter_map(ending).filter(move |(pod, _)| !self.has_another_copy(pod))
    }

    /// Whether a pod's eviction would take the only copy with it.
    pub fn must_keep_pods(self) -> bool {
        self.only_copies().next().is_some()
    }

    /// What somebody has to do so that the only copy is not lost.
    pub fn word(self) -> Option<ConditionState> {
        let (pod, end) = self.only_copies().next()?;
        let more = self.instances + 1;
        let way_out = if more > crate::api::spec::MAXIMUM_INSTANCES {
            "wait until another instance streams".to_owned()
        } else {
            format!(
                "set spec.instances to {more}: another instance is cloned and takes the lead, then {} gets a new volume \
                 by itself, and spec.instances may be set back to {}",
                pod.name, self.instances
            )
        };
        let message = format!(
            "{}, and {} is the only copy of the data: the operator keeps the pod, whatever changes, and lets nothing \
             evict it; do not delete it. {way_out}",
            self.describe(pod, end),
            pod.name,
        );
        Some(ConditionState::yes(reason::VOLUME_TERMINATING, message))
    }

    /// Every instance whose volume ends with its pod, for people.
    pub fn notice(self) -> Option<String> {
        let ending: Vec<_> = self.pods().filter_map(|pod| Some(self.describe(pod, pod.volume_end?))).collect();
        (!ending.is_empty()).then(|| ending.join("; "))
    }

    fn describe(self, pod: &DatabasePod, end: VolumeEnd) -> String {
        let claim = self.names.ordinal(&pod.name).map(|ordinal| self.names.volume_claim(ordinal)).unwrap_or_default();
        let pod = &pod.name;
        match end {
            VolumeEnd::Deleted => format!(
                "the volume claim {claim} was deleted, which cannot be taken back: Kubernetes keeps it while {pod} runs, \
                 and removes it and its data with the pod"
            ),
            VolumeEnd::Missing => {
                format!(
                    "the volume claim {claim} does not exist any more: the data of {pod} lasts no longer than the pod"
                )
            }
            VolumeEnd::Lost => format!(
                "the volume claim {claim} has lost its PersistentVolume (phase Lost): {pod} runs on, and no other pod can \
                 mount the volume"
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

    /// Whether a pod may be deleted as far as its volume is concerned, or why not.
    pub(super) fn may_lose_volume(&self, pod: &DatabasePod) -> Result<(), String> {
        let Some(end) = pod.volume_end else { return Ok(()) };
        let leads = self.observed.leader.as_ref() == Some(&pod.name) || pod.claims_the_lead();
        if leads || !self.volumes().has_another_copy(pod) {
            return Err(format!("{} keeps the only copy of the data: its pod is not touched", pod.name));
        }
        if end == VolumeEnd::Lost {
            let why = self.volumes().describe(pod, end);
            return Err(format!(
                "{why}; create the PersistentVolume again, or delete the claim: the instance is then cloned anew"
            ));
        }
        Ok(())
    }

    /// Why no instance is taken away yet, as far as the volumes of those that stay are concerned.
    pub(super) fn volume_keeps_all(&self, live: i32) -> Option<String> {
        let pod = self.volumes().pods().find(|pod| pod.volume_end.is_some())?;
        let why = self.volumes().describe(pod, pod.volume_end?);
        Some(format!("{why}; set spec.instances back to {live} until {} has a new volume", pod.name))
    }

    /// What is done about volumes that end, or what it waits for.
    pub(super) fn volume_notice(&self) -> Option<String> {
        self.volumes().notice()
    }
}
