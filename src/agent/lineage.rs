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

/// The timeline that the last restore in place began, for a data directory with this system identifier: one of an
/// earlier timeline is of the state that was left. None where that restore was of another database, before a major
/// upgrade or the way back: the first timeline of an upgraded one is 1.
pub fn branch(desired: &Desired, folder: &Path, identifier: Option<&str>) -> Option<u32> {
    let branch = desired.branch.as_ref()?;
    let is_of_it = match (branch.system_identifier.as_deref(), identifier) {
        (Some(of), Some(own)) => of == own,
        // A restore before agents reported it. The agents' document has an upgrade only once the operator knows its result.
        _ => {
            let upgrades = [desired.lineage.as_deref().cloned(), of(folder)];
            upgrades.into_iter().flatten().all(|lineage| lineage.at < branch.at)
        }
    };
    is_of_it.then_some(branch.timeline)
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
        let restored = Branch { id: "r".into(), timeline: 4, left: 3, at, system_identifier: None, store: None };
        let restored = Desired { branch: Some(restored), ..Desired::sample() };
        let upgraded = |hour| Desired { lineage: Some(Box::new(lineage(hour))), ..restored.clone() };
        let own = Some("8");
        assert_eq!(branch(&Desired::sample(), &folder, own), None);
        assert_eq!(branch(&restored, &folder, own), Some(4));
        assert_eq!(branch(&upgraded(13), &folder, own), None, "the upgraded database begins with the timeline 1");
        assert_eq!(branch(&upgraded(11), &folder, own), Some(4), "it was restored since");
        // The operator does not know of the upgrade yet.
        std::fs::write(folder.join(MARK), serde_json::to_vec(&lineage(13)).expect("a mark")).expect("a file");
        assert_eq!(branch(&restored, &folder, own), None);
        // Where it is known of which database it was, no clock decides.
        let known = |of: &str| {
            let mut known = upgraded(13);
            if let Some(branch) = &mut known.branch {
                branch.system_identifier = Some(of.to_owned());
            }
            known
        };
        assert_eq!(branch(&known("8"), &folder, own), Some(4));
        assert_eq!(branch(&known("7"), &folder, own), None);
        assert_eq!(branch(&known("7"), &folder, Some("7")), Some(4), "the former database, after the way back");
        std::fs::remove_dir_all(folder).expect("a folder");
    }
}
