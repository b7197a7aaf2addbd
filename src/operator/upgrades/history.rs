//! The databases that upgrades and ways back have left: which one had the state of a time, and when.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{LeftDatabase, UpgradePhase, UpgradeStatus};
use crate::contract::upgrade::Lineage;
use crate::operator::status::condition::seconds;

/// The number of left databases that status keeps.
const KEPT: usize = 20;

/// Adds the one that the last upgrade, or the way back, has left, unless it is known.
pub fn note(left: &mut Vec<LeftDatabase>, lineage: Option<&Lineage>, status: Option<&UpgradeStatus>) {
    let Some(lineage) = lineage else { return };
    let left_at = Time(seconds(lineage.at));
    if left.last().is_some_and(|last| last.left_at.0 >= left_at.0) {
        return;
    }
    let to = i32::from(lineage.major);
    // Of a pending one the fields are those of the next upgrade.
    let status = status.filter(|status| status.phase != UpgradePhase::Pending);
    let other = status.map(|status| if status.from == to { status.to } else { status.from });
    let from = other.filter(|from| *from != to);
    left.push(LeftDatabase {
        left_at,
        from,
        to,
        system_identifier: lineage.left.clone(),
        continued_as: lineage.current.clone(),
    });
    let surplus = left.len().saturating_sub(KEPT);
    left.drain(..surplus);
}
