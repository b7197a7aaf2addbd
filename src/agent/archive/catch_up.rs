//! What the archive lacks. A promotion lets PostgreSQL archive what the standby still has of former leaders
//! (patroni/received.py); what it had removed before is a gap. And while nothing is archived, each segment counts as archived.

use std::collections::BTreeSet;
use std::fs::{read_dir, rename};
use std::io;
use std::path::Path;

use crate::contract::pod::WAL_SEGMENT;
use crate::files::remove_file;
use crate::pgbackrest::info::{lsn, position, segment_at};

/// What was found when the archive was compared with `pg_wal`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The number of files that PostgreSQL archives now.
    pub marked: u32,
    /// The number of segments that neither the archive has nor the volume: no restore crosses the gap.
    pub missing: u64,
}

/// `pg_wal` of a leader, read before the archive: what waits and leaves it afterwards is in the archive by then.
pub struct Wal<'a> {
    folder: &'a Path,
    present: BTreeSet<String>,
    /// Those that PostgreSQL takes for archived.
    done: BTreeSet<String>,
    /// The timelines of this leader's history, each with the position of its first segment.
    branches: Vec<(u32, u64)>,
    /// The position of the segment that is being written.
    end: u64,
}

impl<'a> Wal<'a> {
    /// Reads the folder. `current` is the segment that is being written.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(folder: &'a Path, current: &str) -> io::Result<Self> {
        let own = current.get(..8).unwrap_or_default();
        let unknown = || io::Error::other(format!("{current:?} is no segment"));
        let timeline = u32::from_str_radix(own, 16).map_err(|_| unknown())?;
        let end = position(current).ok_or_else(unknown)?;
        let branches = match std::fs::read_to_string(folder.join(format!("{own}.history"))) {
            Ok(history) => branches_of(&history, timeline),
            // The first timeline has none. Of another, nothing is known without it but the timeline itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => vec![(timeline, 0)],
            Err(error) => return Err(error),
        };
        let done = names(&folder.join("archive_status"))?;
        let done = done.iter().filter_map(|name| Some(name.strip_suffix(".done")?.to_owned())).collect();
        let present = names(folder)?.into_iter().filter(|name| position(name).is_some()).collect();
        Ok(Self { folder, present, done, branches, end })
    }

    /// The segment at this position, as a recovery reads it: a segment in which a timeline begins is the later one's.
    fn segment(&self, position: u64) -> String {
        let timeline = self.branches.iter().rev().find(|(_, begin)| *begin <= position);
        segment_at(timeline.map_or(1, |(timeline, _)| *timeline), position)
    }

    /// Whether a segment is of this history, and not of one that was left.
    pub fn continues(&self, segment: &str) -> bool {
        position(segment).is_some_and(|position| self.segment(position) == segment)
    }

    /// The segments that the archive must have or get, from the first one that a backup of this history needs.
    fn needed(&self, first: Option<&str>) -> impl Iterator<Item = String> + '_ {
        let begin = first.filter(|first| self.continues(first)).and_then(position);
        (begin.unwrap_or(self.end)..self.end).map(|position| self.segment(position))
    }

    /// pgBackRest's folders of the segments that the archive must have.
    pub fn folders(&self, first: Option<&str>) -> BTreeSet<String> {
        self.needed(first).filter_map(|name| Some(name.get(..16)?.to_owned())).collect()
    }

    /// Lets PostgreSQL archive what the archive lacks and the volume has, and the timelines' histories.
    ///
    /// Each segment is looked up, since an archive may lack one before its newest: pgBackRest goes on with the next
    /// when one fails, and a promoted leader archives what it began itself beside what it had received.
    ///
    /// `acknowledged` is pgBackRest's folder of results: what it says of a segment that the archive lacks is of another
    /// store, which had this place before, and would keep the segment from this one.
    ///
    /// # Errors
    /// If a folder cannot be changed.
    pub fn mark(&self, first: Option<&str>, archived: &BTreeSet<String>, acknowledged: &Path) -> io::Result<Found> {
        let mut found = Found::default();
        for history in self.done.iter().filter(|name| name.ends_with(".history")) {
            remove_file(&acknowledged.join(format!("{history}.ok")))?;
            found.marked += u32::from(self.archive(history)?);
        }
        for lacking in self.needed(first).filter(|name| !archived.contains(name)) {
            if !self.present.contains(&lacking) {
                found.missing += 1;
                continue;
            }
            let result = acknowledged.join(format!("{lacking}.ok"));
            let is_acknowledged = result.exists();
            remove_file(&result)?;
            if self.done.contains(&lacking) {
                match self.archive(&lacking)? {
                    true => found.marked += 1,
                    // A checkpoint has removed it meanwhile.
                    false => found.missing += 1,
                }
            } else if is_acknowledged {
                // PostgreSQL may have been told meanwhile.
                self.archive(&lacking)?;
            }
        }
        Ok(found)
    }

    /// Lets PostgreSQL archive a file that it takes for archived; returns whether it still has it.
    fn archive(&self, file: &str) -> io::Result<bool> {
        let status = self.folder.join("archive_status");
        match rename(status.join(format!("{file}.done")), status.join(format!("{file}.ready"))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(status.join(format!("{file}.ready")).exists()),
            renamed => renamed.map(|()| true),
        }
    }
}

/// The timelines of a history, each with the position of its first segment. A line has a timeline and the position at
/// which the next one begins.
fn branches_of(history: &str, own: u32) -> Vec<(u32, u64)> {
    let mut branches = Vec::new();
    let mut begin = 0;
    for line in history.lines() {
        let mut words = line.split_whitespace();
        let ended = words.next().and_then(|timeline| timeline.parse().ok()).zip(words.next().and_then(lsn));
        let Some((timeline, end)) = ended else { continue };
        branches.push((timeline, begin));
        begin = end / WAL_SEGMENT;
    }
    branches.push((own, begin));
    branches
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let names = read_dir(folder)?.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
    names.collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// `pg_wal` of a leader of the third timeline, which began in its eighth segment and writes the ninth.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, done: &[&str]) -> Self {
            let wal = Self(std::env::temp_dir().join(format!("servicedb-catch-up-{name}-{}", std::process::id())));
            std::fs::create_dir_all(wal.0.join("archive_status")).expect("a folder");
            for file in done {
                std::fs::write(wal.0.join(file), "").expect("a file");
                std::fs::write(wal.0.join("archive_status").join(format!("{file}.done")), "").expect("a file");
            }
            let history = "1\t0/5800000\tno recovery target specified\n\n2\t0/80000A0\tno recovery target specified\n";
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

        fn wal(&self) -> Wal<'_> {
            Wal::read(&self.0, "000000030000000000000009").expect("names")
        }

        fn mark(&self, first: Option<&str>, archived: &[&str]) -> Found {
            let archived = archived.iter().map(|name| (*name).to_owned()).collect();
            self.wal().mark(first, &archived, &self.0.join("out")).expect("marks")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const BACKUP: Option<&str> = Some("000000010000000000000003");
    const DONE: [&str; 7] = [
        "000000010000000000000004",
        "000000020000000000000005",
        "000000020000000000000006",
        "000000020000000000000007",
        "000000020000000000000006.00000028.backup",
        "000000030000000000000008",
        "00000003.history",
    ];

    #[test]
    fn what_a_recovery_needs_is_archived_whatever_its_timeline() {
        let wal = Folder::new("all", &DONE);
        assert_eq!(wal.mark(None, &[]), Found { marked: 1, missing: 0 }, "there is no backup yet");
        assert_eq!(wal.ready(), ["00000003.history"]);
        let folders: Vec<_> = wal.wal().folders(BACKUP).into_iter().collect();
        assert_eq!(folders, ["0000000100000000", "0000000200000000", "0000000300000000"]);
        // The fifth is the second timeline's, which began in it.
        let archived = ["000000010000000000000003", "000000010000000000000004", "000000030000000000000008"];
        assert_eq!(wal.mark(BACKUP, &archived), Found { marked: 3, missing: 0 });
        let segments =
            ["000000020000000000000005", "000000020000000000000006", "000000020000000000000007", "00000003.history"];
        assert_eq!(wal.ready(), segments);
        assert_eq!(wal.mark(BACKUP, &archived), Found::default(), "they wait");
    }

    #[test]
    fn a_segment_before_the_newest_in_the_archive_may_be_missing() {
        let wal = Folder::new("hole", &DONE);
        let archived = [
            "000000010000000000000003",
            "000000010000000000000004",
            "000000020000000000000005",
            "000000020000000000000007",
            "000000030000000000000008",
        ];
        assert_eq!(wal.mark(BACKUP, &archived), Found { marked: 2, missing: 0 });
        assert_eq!(wal.ready(), ["000000020000000000000006", "00000003.history"]);
    }

    #[test]
    fn what_another_store_acknowledged_is_archived_to_this_one() {
        let wal = Folder::new("other", &DONE);
        let out = wal.0.join("out");
        std::fs::create_dir_all(&out).expect("a folder");
        let results = |segments: &[&str]| {
            segments.iter().for_each(|name| std::fs::write(out.join(format!("{name}.ok")), "").expect("a file"));
        };
        results(&[DONE[0], DONE[1], DONE[2], DONE[6]]);
        // One waits already: PostgreSQL would be told that this store has it.
        let status = wal.0.join("archive_status");
        rename(status.join(format!("{}.done", DONE[2])), status.join(format!("{}.ready", DONE[2]))).expect("it waits");
        let archived = ["000000010000000000000003", DONE[0], DONE[3], DONE[5]];
        assert_eq!(wal.mark(BACKUP, &archived), Found { marked: 2, missing: 0 });
        assert_eq!(names(&out).expect("names"), [format!("{}.ok", DONE[0])], "this store has that one");
    }

    #[test]
    fn segments_of_this_lead_count_as_archived_while_nothing_is() {
        let wal = Folder::new("off", &DONE);
        let archived = DONE.map(|name| name).into_iter().filter(|name| !name.starts_with("00000003"));
        let archived: Vec<_> = archived.chain(BACKUP).collect();
        assert_eq!(wal.mark(BACKUP, &archived), Found { marked: 2, missing: 0 });
        assert_eq!(wal.ready(), ["00000003.history", "000000030000000000000008"]);
    }

    #[test]
    fn what_no_volume_has_any_more_is_a_gap() {
        let wal = Folder::new("gap", &DONE[3..6]);
        let archived = ["000000010000000000000003", "000000010000000000000004", "000000020000000000000005"];
        assert_eq!(wal.mark(BACKUP, &archived), Found { marked: 2, missing: 1 }, "6 is nowhere");
        let since = Some("000000020000000000000007");
        assert_eq!(wal.mark(since, &[]), Found::default(), "a later backup needs nothing of it");
        let left = Some("000000020000000000000008");
        assert_eq!(wal.mark(left, &[]), Found::default(), "a backup of a history that was left");
        assert!(!wal.wal().continues("000000020000000000000008") && wal.wal().continues("000000030000000000000008"));
    }

    #[test]
    fn what_leaves_the_volume_during_the_comparison_is_a_gap() {
        let wal = Folder::new("leaves", &DONE);
        let read = wal.wal();
        let archived = DONE[..6].iter().chain(&BACKUP).map(|name| (*name).to_owned());
        let archived = archived.filter(|name| name != DONE[2]).collect();
        std::fs::remove_file(wal.0.join("archive_status").join(format!("{}.done", DONE[2]))).expect("a checkpoint");
        assert_eq!(read.mark(BACKUP, &archived, &wal.0.join("out")).expect("marks"), Found { marked: 1, missing: 1 });
    }

    #[test]
    fn names_in_the_archive_are_those_of_whole_segments() {
        use crate::pgbackrest::info::segment_of;
        assert_eq!(segment_of("000000020000000000000007-c0ffee.zst"), Some("000000020000000000000007"));
        // A promoted server archives the part at once: it says nothing of the segments before it.
        assert_eq!(segment_of("000000020000000000000008.partial-c0ffee.zst"), None);
        assert_eq!(segment_of("000000020000000000000007.00000028.backup"), None);
    }
}
