//! Which of the databases that one ServiceDatabase has had a data directory is of: a major upgrade, and the way back from
//! it, begin another one, whose timelines are numbered anew.

use std::path::Path;

use crate::contract::desired::Desired;
use crate::contract::upgrade::Lineage;

/// The file in a data directory that says which upgrade it is of.
pub const MARK: &str = "servicedb.upgraded.json";

/// The upgrade, or the way back, that made this data directory, or the one that it was cloned of.
pub fn of(folder: &Path) -> Option<Lineage> {
    serde_json::from_slice(&std::fs::read(folder.join(MARK)).ok()?).ok()
}

/// The timeline that the last restore in place began, for a data directory: one of an earlier timeline is of the state
/// that was left. None where a major upgrade began another database since: its first timeline is 1.
pub fn branch(desired: &Desired, folder: &Path) -> Option<u32> {
    // The agents' document has the upgrade only once the operator knows its result.
    let upgrades = [desired.lineage.as_deref().cloned(), of(folder)];
    let began = upgrades.into_iter().flatten().map(|lineage| lineage.at).max();
    let branch = desired.branch.as_ref()?;
    began.is_none_or(|began| began < branch.at).then_some(branch.timeline)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::in_place::Branch;

    #[test]
    fn a_restore_in_place_counts_only_for_the_database_that_it_was_of() {
        let folder = std::env::temp_dir().join(format!("servicedb-lineage-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let lineage = |hour: u8| Lineage {
            id: "i".into(),
            at: format!("2026-11-29T{hour}:00:00Z").parse().expect("a time"),
            left: "7".into(),
            current: "8".into(),
            major: 18,
            kept_by: Some("chat-db-0".into()),
        };
        let at = "2026-11-29T12:00:00Z".parse().expect("a time");
        let restored = Branch { id: "r".into(), timeline: 4, left: 3, at };
        let restored = Desired { branch: Some(restored), ..Desired::sample() };
        let upgraded = |hour| Desired { lineage: Some(Box::new(lineage(hour))), ..restored.clone() };
        assert_eq!(branch(&Desired::sample(), &folder), None);
        assert_eq!(branch(&restored, &folder), Some(4));
        assert_eq!(branch(&upgraded(13), &folder), None, "the upgraded database begins with the timeline 1");
        assert_eq!(branch(&upgraded(11), &folder), Some(4), "it was restored since");
        // The operator does not know of the upgrade yet.
        std::fs::write(folder.join(MARK), serde_json::to_vec(&lineage(13)).expect("a mark")).expect("a file");
        assert_eq!(branch(&restored, &folder), None);
        std::fs::remove_dir_all(folder).expect("a folder");
    }
}
