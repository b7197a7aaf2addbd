//! The last major upgrade of a database that was adopted. Status and the agents' document of the earlier resource are gone;
//! the data directory has its mark, and the volume the former data.

use crate::contract::upgrade::Lineage;
use crate::operator::observe::pods::DatabasePod;

/// The lineage as the primary's data directory has it, and the major version of the former data where it is still kept. None
/// without an upgrade, and until the pod that kept the former data has said whether it does.
pub fn lineage(pods: &[DatabasePod], primary: Option<&DatabasePod>) -> Option<(Lineage, Option<u16>)> {
    let mut lineage = primary?.report.as_ref()?.lineage.as_deref()?.clone();
    let is_keeper = |pod: &&DatabasePod| lineage.kept_by.as_ref() == Some(&pod.name);
    // A pod that does not exist, as one that was scaled away, may still have it on its volume.
    let Some(keeper) = pods.iter().find(is_keeper) else { return Some((lineage, None)) };
    let former = keeper.report.as_ref()?.former_major?;
    if former == 0 {
        lineage.kept_by = None;
    }
    Some((lineage, (former > 0).then_some(former)))
}
