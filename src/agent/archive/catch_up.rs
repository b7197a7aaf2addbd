//! What a former leader may not have archived. PostgreSQL takes a segment that a standby has streamed for
//! archived, so a segment that the leader had not archived when it failed would be archived by nobody, and the
//! histories of earlier timelines neither.

use std::fs::rename;
use std::path::Path;

use crate::pgbackrest::info::position;

/// Lets PostgreSQL archive the segments of former timelines after the newest of these in the archive, and the
/// timelines' histories; returns their number. `own` is the timeline of this leader, whose segments it archives
/// itself. An archive that has nothing of a former timeline begins here: it gets the histories alone.
///
/// # Errors
/// If the folder cannot be read or changed.
pub fn mark(folder: &Path, own: &str, newest: Option<&str>) -> std::io::Result<u32> {
    let newest = newest.and_then(position);
    let mut marked = 0;
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(file) = name.to_str().and_then(|name| name.strip_suffix(".done")) else { continue };
        let is_former = |file: &str| file.get(..8).is_some_and(|timeline| timeline < own);
        let is_missing = || is_former(file) && position(file).zip(newest).is_some_and(|(file, newest)| file > newest);
        if file.ends_with(".history") || is_missing() {
            rename(folder.join(&name), folder.join(format!("{file}.ready")))?;
            marked += 1;
        }
    }
    Ok(marked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_former_leaders_did_not_archive_is_archived_whatever_its_timeline() {
        let folder = std::env::temp_dir().join(format!("servicedb-catch-up-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        for name in [
            "000000010000000000000004.done",
            "000000010000000000000005.done",
            "000000020000000000000006.ready",
            "000000020000000000000007.done",
            "000000020000000000000006.00000028.backup.done",
            "000000030000000000000008.done",
            "00000003.history.done",
        ] {
            std::fs::write(folder.join(name), "").expect("a file");
        }
        let ready = || {
            let names = std::fs::read_dir(&folder).expect("the folder").map(|entry| entry.expect("a file").file_name());
            let mut ready: Vec<_> =
                names.filter_map(|name| Some(name.to_str()?.strip_suffix(".ready")?.to_owned())).collect();
            ready.sort();
            ready
        };
        let mark = |newest| mark(&folder, "00000003", newest).expect("marks");
        assert_eq!(mark(None), 1);
        assert_eq!(ready(), ["000000020000000000000006", "00000003.history"]);
        // Although this leader has archived 8 already.
        assert_eq!(mark(Some("000000010000000000000004")), 2);
        let segments =
            ["000000010000000000000005", "000000020000000000000006", "000000020000000000000007", "00000003.history"];
        assert_eq!(ready(), segments);
        assert_eq!(mark(Some("000000010000000000000004")), 0);
        std::fs::remove_dir_all(folder).expect("the folder is removed");
    }
}
