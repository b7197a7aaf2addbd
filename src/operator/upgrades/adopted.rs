//! The last major upgrade of a database that was adopted. Status and the agents' document of the earlier resource are gone;
//! the data directory has its mark, and the volume the former data.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::known::Known;
use super::state::State;
use crate::api::{UpgradePhase, UpgradeStatus};
use crate::contract::time::seconds;
use crate::contract::upgrade::Lineage;
use crate::operator::observe::pods::DatabasePod;

/// Takes over what the adopted data says of its last upgrade: which data was left, and the way back to it. An operator that
/// ended before status was written has it in the agents' document.
pub fn take_over(known: &Known<'_>, state: &mut State) {
    let is_told = state.status.as_ref().is_some_and(|status| status.switched_at.is_some());
    let found = match &state.lineage {
        Some(_) if is_told => return,
        Some(lineage) => Some((lineage.clone(), former(known.pods, lineage))),
        None => of_data(known.pods, known.primary),
    };
    let Some((lineage, former)) = found else { return };
    let (name, major) = (known.names.in_commands(), lineage.major);
    let mut status = state.status.take().unwrap_or_else(|| {
        let (phase, message) = match &lineage.kept_by {
            Some(pod) => {
                let message = format!(
                    "the adopted database is of PostgreSQL {major} since {}; {pod} keeps the data from before: kubectl \
                     servicedb upgrade {name} --back returns to it, and loses what was written since; --finish removes it",
                    lineage.at
                );
                (UpgradePhase::Upgraded, Some(message))
            }
            None => (UpgradePhase::Finished, None),
        };
        let pending = UpgradeStatus::pending(i32::from(former.unwrap_or(major)), i32::from(major));
        UpgradeStatus { phase, message, ..pending }
    });
    status.switched_at = Some(Time(seconds(lineage.at)));
    status.left_system_identifier = Some(lineage.left.clone());
    status.system_identifier = Some(lineage.current.clone());
    status.kept_by.clone_from(&lineage.kept_by);
    (state.status, state.lineage) = (Some(status), Some(lineage));
}

/// The lineage as the primary's data directory has it, and the major version of the former data where it is still kept. None
/// without an upgrade, and until the pod that kept the former data has said whether it does.
fn of_data(pods: &[DatabasePod], primary: Option<&DatabasePod>) -> Option<(Lineage, Option<u16>)> {
    let mut lineage = primary?.report.as_ref()?.lineage.as_deref()?.clone();
    let is_keeper = |pod: &DatabasePod| lineage.kept_by.as_ref() == Some(&pod.name);
    // A pod that does not exist, as one that was scaled away, may still have it on its volume.
    let Some(keeper) = pods.iter().find(|pod| is_keeper(pod)) else { return Some((lineage, None)) };
    if keeper.report.as_ref()?.former_major? == 0 {
        lineage.kept_by = None;
    }
    let former = former(pods, &lineage);
    Some((lineage, former))
}

/// The major version of the data that a pod keeps, as far as it has reported it.
fn former(pods: &[DatabasePod], lineage: &Lineage) -> Option<u16> {
    let keeper = pods.iter().find(|pod| lineage.kept_by.as_ref() == Some(&pod.name))?;
    keeper.report.as_ref()?.former_major.filter(|major| *major > 0)
}
