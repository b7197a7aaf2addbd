//! What a former leader may not have archived. PostgreSQL takes a segment that a standby has streamed for
//! archived, so a segment that the leader had not archived when it failed would be archived by nobody, and the
//! histories of earlier timelines neither.

use std::collections::BTreeSet;
use std::fs::{read_dir, rename};
use std::io;
use std::path::Path;

use k8s_openapi::jiff::Timestamp;

use crate::contract::pod::WAL_SEGMENT;
use crate::pgbackrest::info::{Archived, lsn, position};

/// What was found when the archive was compared with `pg_wal`.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The number of files that PostgreSQL archives now.
    pub marked: u32,
    /// The archive lacks segments from before this lead, which the volume does not have any more: when it began.
    pub gap: Option<Timestamp>,
}

/// `pg_wal` of a leader, read before the archive: what leaves it afterwards is in the archive by then.
pub struct Wal<'a> {
    folder: &'a Path,
    /// The timeline of this leader, whose segments it archives itself.
    own: &'a str,
    /// The segments of former timelines.
    present: BTreeSet<String>,
}

impl<'a> Wal<'a> {
    /// Reads the folder.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(folder: &'a Path, own: &'a str) -> io::Result<Self> {
        let mut present = names(folder)?;
        present.retain(|name| is_former(name, own));
        Ok(Self { folder, own, present: present.into_iter().collect() })
    }

    /// pgBackRest's folders of the segments.
    pub fn folders(&self) -> BTreeSet<String> {
        self.present.iter().filter_map(|name| Some(name.get(..16)?.to_owned())).collect()
    }

    /// Lets PostgreSQL archive the segments of former timelines that the archive lacks, and the timelines' histories.
    /// An archive that has nothing of a former timeline begins here: it gets the histories alone. What is older than
    /// the oldest in the archive was before it, or has expired.
    ///
    /// Each segment is looked up, since an archive may lack one before its newest: pgBackRest goes on with the next
    /// when one fails, and a promoted leader archives what it began itself beside what it had received.
    ///
    /// # Errors
    /// If the folder cannot be read or changed.
    pub fn mark(&self, archived: &Archived) -> io::Result<Found> {
        let status = self.folder.join("archive_status");
        let mut marked = 0;
        for name in names(&status)? {
            let Some(file) = name.strip_suffix(".done") else { continue };
            let is_newer = || position(file).zip(archived.oldest).is_some_and(|(file, oldest)| file > oldest);
            let is_missing = || is_former(file, self.own) && is_newer() && !archived.names.contains(file);
            if file.ends_with(".history") || is_missing() {
                rename(status.join(&name), status.join(format!("{file}.ready")))?;
                marked += 1;
            }
        }
        Ok(Found { marked, gap: self.gap(archived)? })
    }

    /// Whether segments between the newest in the archive and the beginning of this timeline are on the volume no
    /// more: a standby removes those that it takes for archived.
    fn gap(&self, archived: &Archived) -> io::Result<Option<Timestamp>> {
        let path = self.folder.join(format!("{}.history", self.own));
        let history = match std::fs::read_to_string(&path) {
            Ok(history) => history,
            // The first timeline has none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let last = history.lines().rfind(|line| line.split_whitespace().count() > 1);
        let begin = last.and_then(|line| lsn(line.split_whitespace().nth(1)?)).map(|begin| begin / WAL_SEGMENT);
        let Some((newest, begin)) = archived.newest.zip(begin) else { return Ok(None) };
        let present: BTreeSet<_> = self.present.iter().filter_map(|name| position(name)).collect();
        if (newest + 1..begin).all(|segment| present.contains(&segment)) {
            return Ok(None);
        }
        Ok(Some(Timestamp::try_from(std::fs::metadata(path)?.modified()?).map_err(io::Error::other)?))
    }
}

fn is_former(file: &str, own: &str) -> bool {
    position(file).is_some() && file.get(..8).is_some_and(|timeline| timeline < own)
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let names = read_dir(folder)?.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
    names.collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// `pg_wal` of a leader of the third timeline, which began in its eighth segment.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, done: &[&str]) -> Self {
            let wal = Self(std::env::temp_dir().join(format!("servicedb-catch-up-{name}-{}", std::process::id())));
            std::fs::create_dir_all(wal.0.join("archive_status")).expect("a folder");
            for file in done {
                std::fs::write(wal.0.join(file), "").expect("a file");
                std::fs::write(wal.0.join("archive_status").join(format!("{file}.done")), "").expect("a file");
            }
            let history = "1\t0/5000000\tno recovery target specified\n\n2\t0/80000A0\tno recovery target specified\n";
            std::fs::write(wal.0.join("00000003.history"), history).expect("a file");
            wal
        }

        fn ready(&self) -> Vec<String> {
            let status = names(&self.0.join("archive_status")).expect("names");
            let mut ready: Vec<_> =
                status.iter().filter_map(|name| Some(name.strip_suffix(".ready")?.to_owned())).collect();
            ready.sort();
            ready
        }

        fn mark(&self, archived: &[&str]) -> Found {
            let mut known = Archived::default();
            known.add(archived.iter().copied());
            Wal::read(&self.0, "00000003").expect("names").mark(&known).expect("marks")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const DONE: [&str; 7] = [
        "000000010000000000000004",
        "000000010000000000000005",
        "000000020000000000000006",
        "000000020000000000000007",
        "000000020000000000000006.00000028.backup",
        "000000030000000000000008",
        "00000003.history",
    ];

    #[test]
    fn what_former_leaders_did_not_archive_is_archived_whatever_its_timeline() {
        let wal = Folder::new("all", &DONE);
        std::fs::write(wal.0.join("00000003.history"), "2\t0/80000A0\tx\n").expect("a file");
        let folders = Wal::read(&wal.0, "00000003").expect("names").folders();
        assert_eq!(folders.into_iter().collect::<Vec<_>>(), ["0000000100000000", "0000000200000000"]);
        assert_eq!(wal.mark(&[]), Found { marked: 1, gap: None }, "the archive begins here");
        assert_eq!(wal.ready(), ["00000003.history"]);
        // Although this leader has archived 8 already.
        assert_eq!(wal.mark(&["000000010000000000000004-c0ffee.zst"]), Found { marked: 3, gap: None });
        let segments =
            ["000000010000000000000005", "000000020000000000000006", "000000020000000000000007", "00000003.history"];
        assert_eq!(wal.ready(), segments);
        assert_eq!(wal.mark(&["000000010000000000000004-c0ffee.zst"]).marked, 0);
    }

    #[test]
    fn a_part_of_the_last_segment_in_the_archive_hides_none_before_it() {
        // A promoted server archives the part at once.
        let wal = Folder::new("part", &DONE);
        let archived = [
            "000000010000000000000004-c0ffee.zst",
            "000000020000000000000008.partial-c0ffee.zst",
            "000000020000000000000007.00000028.backup",
        ];
        assert_eq!(wal.mark(&archived).marked, 4);
        assert_eq!(wal.ready().len(), 4);
    }

    #[test]
    fn a_segment_before_the_newest_in_the_archive_may_be_missing() {
        let wal = Folder::new("hole", &DONE);
        let archived = [
            "000000010000000000000004-c0ffee.zst",
            "000000010000000000000005-c0ffee.zst",
            "000000020000000000000007-c0ffee.zst",
        ];
        assert_eq!(wal.mark(&archived), Found { marked: 2, gap: None });
        assert_eq!(wal.ready(), ["000000020000000000000006", "00000003.history"]);
    }

    #[test]
    fn what_no_volume_has_any_more_is_a_gap() {
        let wal = Folder::new("gap", &DONE[3..4]);
        assert!(wal.mark(&["000000010000000000000005-c0ffee.zst"]).gap.is_some(), "6 is nowhere");
        assert_eq!(wal.mark(&["000000020000000000000006-c0ffee.zst"]).gap, None);
        assert_eq!(wal.mark(&["000000020000000000000009-c0ffee.zst"]).gap, None, "of a history that was left");
        assert_eq!(wal.mark(&[]).gap, None, "the archive begins here");
    }
}
