//! The databases that upgrades and ways back have left: which one had the state of a time, and when.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{LeftDatabase, UpgradePhase, UpgradeStatus};
use crate::contract::time::seconds;
use crate::contract::upgrade::Lineage;

/// The number of left databases that status keeps.
const KEPT: usize = 20;

/// Adds the one that the last upgrade, or the way back, has left, unless it is known.
pub fn note(left: &mut Vec<LeftDatabase>, lineage: Option<&Lineage>, status: Option<&UpgradeStatus>) {
    let Some(lineage) = lineage else { return };
    // Each upgrade makes a database of its own, so that no two changes have the same ones.
    let is_this =
        |known: &LeftDatabase| known.system_identifier == lineage.left && known.continued_as == lineage.current;
    if left.iter().any(is_this) {
        return;
    }
    // A clock that was set back in between does not hide a change.
    let at = seconds(lineage.at);
    let left_at = Time(left.last().map_or(at, |last| last.left_at.0.max(at)));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage(at: &str, (left, current): (&str, &str), major: u16) -> Lineage {
        Lineage {
            id: "t".into(),
            at: at.parse().expect("a time"),
            left: left.into(),
            current: current.into(),
            major,
            kept_by: None,
        }
    }

    #[test]
    fn a_change_is_noted_once_and_also_after_a_clock_was_set_back() {
        let status = UpgradeStatus { phase: UpgradePhase::Upgraded, ..UpgradeStatus::pending(17, 18) };
        let mut left = Vec::new();
        note(&mut left, Some(&lineage("2026-11-30T22:36:57.4Z", ("7", "8"), 18)), Some(&status));
        // As status has it, without the parts of the second.
        note(&mut left, Some(&lineage("2026-11-30T22:36:57Z", ("7", "8"), 18)), Some(&status));
        assert_eq!(left.len(), 1);
        note(&mut left, Some(&lineage("2026-11-30T22:36:00Z", ("8", "7"), 17)), Some(&status));
        let told: Vec<_> = left.iter().map(|left| (left.left_at.0.to_string(), left.from, left.to)).collect();
        let at = "2026-11-30T22:36:57Z".to_owned();
        assert_eq!(told, [(at.clone(), Some(17), 18), (at, Some(18), 17)]);
        assert_eq!(left.last().map(|last| last.continued_as.as_str()), Some("7"), "the present one");
    }

    #[test]
    fn as_many_as_status_may_have_are_kept() {
        let mut left = Vec::new();
        for change in 0..30_u16 {
            let ids = (change.to_string(), (change + 1).to_string());
            let at = format!("2026-11-30T22:{change:02}:00Z");
            note(&mut left, Some(&lineage(&at, (ids.0.as_str(), ids.1.as_str()), 18)), None);
        }
        assert_eq!(left.len(), KEPT);
        assert_eq!(left.last().map(|last| last.continued_as.as_str()), Some("30"));
    }
}
