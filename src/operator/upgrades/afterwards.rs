//! The message of an upgrade that has ended: it follows what spec and the volumes have since.

use super::known::Known;
use super::state::State;
use crate::api::UpgradePhase;
use crate::operator::observe::pods::DatabasePod;

/// What a pod does that gives the former data up.
const REMOVES: &str = "removes the data from before the upgrade";

/// The message while a pod removes the former data.
pub fn removes(pod: &str) -> String {
    format!("{pod} {REMOVES}")
}

/// The message after the way back. `is_declared` tells whether spec names another version.
pub fn taken_back(major: u16, is_declared: bool) -> String {
    let remedy =
        format!(": set spec.postgres.version to \"{major}\", or remove it; otherwise an upgrade is pending again");
    let remedy = if is_declared { remedy.as_str() } else { "" };
    format!("the database is again that of PostgreSQL {major} from before the upgrade{remedy}")
}

/// Replaces a message that does not hold any more.
pub fn refresh(known: &Known<'_>, state: &mut State) {
    let major = state.lineage.as_ref().map(|lineage| lineage.major);
    let Some(status) = &mut state.status else { return };
    let Some(message) = &status.message else { return };
    let now = match status.phase {
        // Until the primary has reported its version, that of the data is the one that was left.
        UpgradePhase::TakenBack if major == Some(known.major) => {
            // Another message answers a later request.
            let is_of_return = [false, true].into_iter().any(|told| *message == taken_back(known.major, told));
            is_of_return.then(|| taken_back(known.major, known.upgrade_to.is_some()))
        }
        UpgradePhase::Finished => (message.contains(REMOVES) && is_removed(known.pods))
            .then(|| message.replace(REMOVES, "has removed the data from before the upgrade")),
        _ => None,
    };
    if now.is_some() {
        status.message = now;
    }
}

/// Whether no volume has data from before an upgrade any more, as every agent reports.
fn is_removed(pods: &[DatabasePod]) -> bool {
    let has_none = |pod: &DatabasePod| pod.report.as_ref().is_some_and(|report| report.former_major == Some(0));
    !pods.is_empty() && pods.iter().all(has_none)
}
