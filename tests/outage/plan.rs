//! The sequence of faults: random, and reproducible with the same seed.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;

/// A fault of a soak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The primary's pod is deleted.
    PodDeleted,
    /// The same without a grace.
    PodForceDeleted,
    /// PostgreSQL is killed.
    PostmasterKilled,
    /// PostgreSQL's postmaster is stopped, and never continued.
    PostmasterStopped,
    /// Patroni is killed.
    PatroniKilled,
    /// Patroni is stopped, and never continued.
    PatroniStopped,
    /// Somebody asks for another primary.
    Switchover,
    /// A standby's pod is deleted without a grace.
    StandbyForceDeleted,
    /// A node has no network for a while.
    NodeCutOff,
    /// A node has no kubelet for a while.
    KubeletStopped,
    /// The API server stands still for a while.
    ApiServerHangs,
    /// The spec changes once a second for some seconds.
    SpecChanged,
    /// Somebody deletes an object of the database.
    ObjectDeleted,
    /// Somebody takes the agent's report off a pod.
    ReportRemoved,
    /// Somebody scales the StatefulSet to zero.
    ScaledToZero,
}

impl Fault {
    /// All.
    pub const ALL: [Self; 15] = [
        Self::PodDeleted,
        Self::PodForceDeleted,
        Self::PostmasterKilled,
        Self::PostmasterStopped,
        Self::PatroniKilled,
        Self::PatroniStopped,
        Self::Switchover,
        Self::StandbyForceDeleted,
        Self::NodeCutOff,
        Self::KubeletStopped,
        Self::ApiServerHangs,
        Self::SpecChanged,
        Self::ObjectDeleted,
        Self::ReportRemoved,
        Self::ScaledToZero,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::PodDeleted => "pod deleted",
            Self::PodForceDeleted => "pod force-deleted",
            Self::PostmasterKilled => "postmaster killed",
            Self::PostmasterStopped => "postmaster stopped",
            Self::PatroniKilled => "Patroni killed",
            Self::PatroniStopped => "Patroni stopped",
            Self::Switchover => "switchover",
            Self::StandbyForceDeleted => "standby force-deleted",
            Self::NodeCutOff => "node cut off",
            Self::KubeletStopped => "kubelet stopped",
            Self::ApiServerHangs => "API server hangs",
            Self::SpecChanged => "spec changed each second",
            Self::ObjectDeleted => "object deleted",
            Self::ReportRemoved => "report removed",
            Self::ScaledToZero => "StatefulSet scaled to zero",
        }
    }

    /// Whether it happens to a node, or to all of them.
    pub fn is_of_a_node(self) -> bool {
        matches!(self, Self::NodeCutOff | Self::KubeletStopped | Self::ApiServerHangs)
    }

    /// Whether it takes a pod away without knowing that its processes have ended, or needs the
    /// pod's kubelet: where a node is broken, the first puts two servers on one volume, of which
    /// Kubernetes warns everybody, and the second does nothing.
    pub fn needs_the_node(self) -> bool {
        matches!(
            self,
            Self::PodForceDeleted
                | Self::PostmasterKilled
                | Self::PostmasterStopped
                | Self::PatroniKilled
                | Self::PatroniStopped
                | Self::StandbyForceDeleted
        )
    }
}

/// A fault, and the dice by which its victim is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// The fault.
    pub fault: Fault,
    /// From 0 to 99.
    pub dice: usize,
}

/// The faults of a seed, without end. Each comes once before any comes again, so that a short
/// soak has all.
pub fn draws(seed: u64, with_nodes: bool) -> impl Iterator<Item = Draw> {
    let mut chance = StdRng::seed_from_u64(seed);
    let faults: Vec<_> = Fault::ALL.into_iter().filter(|fault| with_nodes || !fault.is_of_a_node()).collect();
    std::iter::repeat_with(move || {
        let mut round = faults.clone();
        round.shuffle(&mut chance);
        round.into_iter().map(|fault| Draw { fault, dice: chance.random_range(0..100) }).collect::<Vec<_>>()
    })
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_faults_again() {
        let of = |seed| draws(seed, true).take(30).collect::<Vec<_>>();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn each_comes_once_before_any_comes_again() {
        let mut first: Vec<_> = draws(7, true).take(Fault::ALL.len()).map(|draw| draw.fault).collect();
        first.sort();
        assert_eq!(first, Fault::ALL);
        assert!(draws(7, false).take(50).all(|draw| !draw.fault.is_of_a_node()));
    }
}
