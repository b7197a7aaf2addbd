//! What a former leader may not have archived. PostgreSQL takes a segment that a standby has streamed for
//! archived, so a segment that the leader had not archived when it failed would be archived by nobody, and the
//! histories of earlier timelines neither.

use std::fs::rename;
use std::path::Path;

use crate::pgbackrest::info::position;

/// Lets PostgreSQL archive the segments after the newest in the archive, and the timelines' histories; returns
/// their number. An archive that is empty begins here: it gets the histories alone.
///
/// # Errors
/// If the folder cannot be read or changed.
pub fn mark(folder: &Path, newest: Option<&str>) -> std::io::Result<u32> {
    let newest = newest.and_then(position);
    let mut marked = 0;
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let Some(file) = name.to_str().and_then(|name| name.strip_suffix(".done")) else { continue };
        let is_missing = || position(file).zip(newest).is_some_and(|(file, newest)| file > newest);
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
    fn what_is_newer_than_the_archive_is_archived_whatever_its_timeline() {
        let folder = std::env::temp_dir().join(format!("servicedb-catch-up-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        for name in [
            "000000010000000000000004.done",
            "000000010000000000000005.done",
            "000000010000000000000006.ready",
            "000000020000000000000006.done",
            "000000020000000000000006.00000028.backup.done",
            "00000002.history.done",
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
        assert_eq!(mark(&folder, None).expect("marks"), 1);
        assert_eq!(ready(), ["000000010000000000000006", "00000002.history"]);
        assert_eq!(mark(&folder, Some("000000010000000000000004")).expect("marks"), 2);
        let segments =
            ["000000010000000000000005", "000000010000000000000006", "00000002.history", "000000020000000000000006"];
        assert_eq!(ready(), segments);
        assert_eq!(mark(&folder, Some("000000010000000000000004")).expect("marks"), 0);
        std::fs::remove_dir_all(folder).expect("the folder is removed");
    }
}
