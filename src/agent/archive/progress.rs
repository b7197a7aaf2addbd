//! How far the archive is: PostgreSQL's own statistics, and the segments that wait.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tokio_postgres::Client;

use super::spool::{acknowledged, fails, last_error, results, waiting};
use crate::agent::volume;
use crate::api::WhenVolumeFills;
use crate::contract::backup::Nth;
use crate::contract::pod::{ARCHIVE_GIVEN_UP, PGDATA, SECOND_ARCHIVE_GIVEN_UP, WAL_SEGMENT};
use crate::contract::report::ArchiveReport;
use crate::postgres::describe;

/// WAL that waits because the store is slow is given up only when it takes this share of the volume.
const SHARE: u64 = 8;
/// The free space below which WAL that cannot be archived is given up, so that the server lives: a tenth of the
/// volume, but no more than this, unless it is less than [`LEAST_SHARE`] of the volume. A database may write
/// much of it between two looks.
const ROOM: u64 = 2 << 30;
/// See [`ROOM`].
const LEAST_SHARE: u64 = 50;
/// The report names a newer segment at most this often, so that it does not change with every one.
const REPORTED: SignedDuration = SignedDuration::from_mins(5);
/// So many looks in a row must find a failure until it is reported: a segment is tried again.
const SIGHTINGS: u32 = 2;

/// With two stores fewer waiting segments than these count as none: they wait for the other one, and under load there is
/// always one.
const FEW: u32 = 4;

/// The bytes of a volume of this size that are kept free: WAL that cannot be archived is given up below.
pub fn room(size: u64) -> u64 {
    (size / 10).min(ROOM).max(size / LEAST_SHARE)
}

const QUERY: &str = "
    SELECT last_archived_time, last_failed_time, last_failed_wal,
           last_failed_time IS NOT NULL AND (last_archived_time IS NULL OR last_failed_time > last_archived_time) AS failing
    FROM pg_catalog.pg_stat_archiver";

/// The file that makes WAL count as archived ([`ARCHIVE_GIVEN_UP`]). It is removed with the value, as the lead
/// ends: no later leader may drop WAL for it.
pub struct Marker(PathBuf);

impl Marker {
    fn new(nth: Nth) -> Self {
        Self(PathBuf::from(match nth {
            Nth::First => ARCHIVE_GIVEN_UP,
            Nth::Second => SECOND_ARCHIVE_GIVEN_UP,
        }))
    }

    /// Removes the marker of an earlier lead; returns now if there was one.
    pub fn take(nth: Nth) -> Option<Timestamp> {
        std::fs::remove_file(&Self::new(nth).0).is_ok().then(Timestamp::now)
    }

    fn exists(&self) -> bool {
        self.0.exists()
    }

    fn set(&self) -> std::io::Result<()> {
        if let Some(folder) = self.0.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&self.0, "")
    }

    fn remove(&self) -> std::io::Result<()> {
        std::fs::remove_file(&self.0)
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

/// The observed state of the archive in a store.
pub struct Progress {
    marker: Marker,
    /// pgBackRest's results for this store.
    results: PathBuf,
    /// Whether there is another store: then PostgreSQL waits for both, and the results tell which one lacks a segment.
    is_one_of_two: bool,
    /// Since when archived segments count; none: always.
    since: Option<Timestamp>,
    archived_at: Option<Timestamp>,
    /// With two stores: when this one had got the last of the files for which PostgreSQL waits, at the former look.
    acknowledged_at: Option<Timestamp>,
    reported_at: Option<Timestamp>,
    waiting: u32,
    failures: u32,
    /// So many looks in a row nothing could be archived at all.
    refusals: u32,
    /// So many looks in a row much waited, and no less than before.
    lagging: u32,
    failure: Option<String>,
    given_up_at: Option<Timestamp>,
    stops_writes: bool,
}

/// The result of a look at the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// WAL is given up, from now on.
    pub gives_up: bool,
    /// Writes are to be refused.
    pub stops_writes: bool,
}

impl Progress {
    /// Nothing is known yet but, perhaps, a gap.
    pub fn new(nth: Nth, is_one_of_two: bool, given_up_at: Option<Timestamp>) -> Self {
        Self {
            marker: Marker::new(nth),
            results: results(nth),
            is_one_of_two,
            since: None,
            archived_at: None,
            acknowledged_at: None,
            reported_at: None,
            waiting: 0,
            failures: 0,
            refusals: 0,
            lagging: 0,
            failure: None,
            given_up_at,
            stops_writes: false,
        }
    }

    /// Segments that were archived before, elsewhere or nowhere, do not count.
    pub fn counts_since(&mut self, since: Option<Timestamp>) {
        self.since = since;
    }

    /// The archive lacks WAL from before.
    pub fn has_gap(&mut self, at: Option<Timestamp>) {
        self.given_up_at = self.given_up_at.max(at);
    }

    /// Reads PostgreSQL's statistics. `configured` is when the configuration was written: an earlier failure
    /// says nothing of it.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn read_statistics(&mut self, client: &Client, configured: Option<Instant>) -> Result<(), String> {
        let row = client.query_one(QUERY, &[]).await.map_err(|error| describe(&error))?;
        let time = |column: &str| -> Option<Timestamp> {
            let time: Option<std::time::SystemTime> = row.get(column);
            Timestamp::try_from(time?).ok()
        };
        let acknowledged_at = self.acknowledged_at();
        let archived_at = time("last_archived_time").max(acknowledged_at);
        self.archived_at = archived_at.filter(|at| self.since.is_none_or(|since| *at > since));
        let age = configured.map_or(Duration::ZERO, |configured| configured.elapsed());
        let configured = Timestamp::now() - SignedDuration::try_from(age).unwrap_or_default();
        let failed = row.get::<_, bool>("failing") && time("last_failed_time").is_some_and(|at| at > configured);
        let waits_for_other = row.get::<_, Option<String>>("last_failed_wal").is_some_and(|file| self.has(&file));
        let failed = failed && (!waits_for_other || self.fails_beyond(acknowledged_at));
        self.failures = if failed { self.failures.saturating_add(1) } else { 0 };
        if !failed {
            self.failure = None;
        } else if self.failure.is_none() {
            self.failure =
                Some(last_error(&self.results).unwrap_or_else(|| "a WAL segment cannot be archived".to_owned()));
        }
        Ok(())
    }

    /// Whether a file is in this store, although PostgreSQL still waits for the other one.
    fn has(&self, file: &str) -> bool {
        self.is_one_of_two && self.results.join(format!("{file}.ok")).exists()
    }

    /// Whether this store fails, too, while PostgreSQL waits for the other one: the agent asks for later segments
    /// (push_on.rs), and PostgreSQL knows nothing of their failure. A run that goes on has no errors yet.
    fn fails_beyond(&mut self, acknowledged_at: Option<Timestamp>) -> bool {
        let goes_on = acknowledged_at > std::mem::replace(&mut self.acknowledged_at, acknowledged_at);
        fails(&self.results) || self.failures > 0 && !goes_on
    }

    /// When this store got the last of the files for which PostgreSQL still waits.
    fn acknowledged_at(&self) -> Option<Timestamp> {
        let results = self.is_one_of_two.then(|| acknowledged(&self.results))?;
        let at = |file: &String| {
            let modified = std::fs::metadata(self.results.join(format!("{file}.ok"))).ok()?.modified().ok()?;
            Timestamp::try_from(modified).ok()
        };
        results.iter().filter_map(at).max()
    }

    /// The number of files that wait for this store.
    fn count(&self, waiting: &BTreeSet<String>) -> u32 {
        let acknowledged = if self.is_one_of_two { acknowledged(&self.results) } else { BTreeSet::new() };
        u32::try_from(waiting.difference(&acknowledged).count()).unwrap_or(u32::MAX)
    }

    /// Counts waiting segments, and decides what happens where they fill the volume. It needs no server, since one that is busy is when it matters. `refused`: nothing can be archived.
    ///
    /// # Errors
    /// If the volume cannot be read or the marker not be written.
    pub fn look(&mut self, refused: bool, policy: WhenVolumeFills) -> std::io::Result<Look> {
        let before = self.waiting;
        self.waiting = self.count(&waiting(&Path::new(PGDATA).join("pg_wal/archive_status"))?);
        // Once alone, it is the start of the agent, or a store that does not answer for a moment.
        self.refusals = if refused { self.refusals.saturating_add(1) } else { 0 };
        let (free, size) = (volume::free()?, volume::size()?);
        // Right after a promotion what was received waits, and goes quickly.
        let lags = self.waiting >= before && u64::from(self.waiting) * WAL_SEGMENT >= size / SHARE;
        self.lagging = if lags { self.lagging.saturating_add(1) } else { 0 };
        self.decide(self.refusals >= SIGHTINGS, policy, (free, size))
    }

    fn decide(&mut self, refused: bool, policy: WhenVolumeFills, (free, size): (u64, u64)) -> std::io::Result<Look> {
        let room = room(size);
        let stuck = refused || self.failures >= SIGHTINGS || self.lagging >= SIGHTINGS;
        // Once refused, until there is a quarter more room.
        let fills = free < room && stuck || self.stops_writes && free < room.saturating_add(room / 4);
        self.stops_writes = policy == WhenVolumeFills::StopWrites && self.waiting > 0 && fills;
        // A session may ask for writes nevertheless, and a server that crashes for lack of room serves nobody.
        let limit = if policy == WhenVolumeFills::StopWrites { room / 2 } else { room };
        let gives_up = self.give_up(self.waiting > 0 && stuck && free < limit)?;
        Ok(Look { gives_up, stops_writes: self.stops_writes })
    }

    /// Gives WAL up; returns whether that began now. Archives again once none waits.
    fn give_up(&mut self, must: bool) -> std::io::Result<bool> {
        if must {
            self.given_up_at = Some(Timestamp::now());
            let begins = !self.marker.exists();
            self.marker.set()?;
            if begins {
                let segments = self.waiting;
                tracing::warn!(segments, "the volume is nearly full: WAL that cannot be archived is given up");
            }
            return Ok(begins);
        }
        let none_waits = self.waiting < if self.is_one_of_two { FEW } else { 1 };
        if none_waits && self.marker.exists() {
            self.marker.remove()?;
            tracing::info!("WAL is archived again; the archive lacks the WAL that was given up");
        }
        Ok(false)
    }

    /// The report; a text of pgBackRest passes `redact`.
    pub fn report(&mut self, store: &str, redact: impl Fn(&str) -> String) -> ArchiveReport {
        let is_newer = |newest: Timestamp| self.reported_at.is_none_or(|at| newest.duration_since(at) >= REPORTED);
        if self.archived_at.is_some_and(is_newer) {
            self.reported_at = self.archived_at;
        }
        ArchiveReport {
            store: store.to_owned(),
            archived_at: self.reported_at,
            // A power of two, rounded up.
            waiting: if self.waiting < 4 { 0 } else { self.waiting.checked_next_power_of_two().unwrap_or(u32::MAX) },
            failure: self.failure.as_deref().filter(|_| self.failures >= SIGHTINGS).map(redact),
            given_up_at: self.given_up_at,
            catalogue: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_changes_at_most_every_five_minutes_while_all_is_well() {
        let start = Timestamp::UNIX_EPOCH;
        let mut progress = Progress { archived_at: Some(start), ..Progress::new(Nth::First, false, None) };
        let first = progress.report("main", str::to_owned);
        assert_eq!((first.archived_at, first.waiting, first.failure.clone()), (Some(start), 0, None));
        progress.archived_at = Some(start + SignedDuration::from_mins(1));
        progress.waiting = 3;
        assert_eq!(progress.report("main", str::to_owned), first);
        progress.archived_at = Some(start + REPORTED);
        assert_ne!(progress.report("main", str::to_owned), first);
    }

    #[test]
    fn wal_is_given_up_only_where_it_cannot_be_archived_and_fills_the_volume() {
        const GB: u64 = 1 << 30;
        let marker = std::env::temp_dir().join(format!("servicedb-given-up-{}", std::process::id()));
        let mut progress =
            Progress { waiting: 1, marker: Marker(marker.clone()), ..Progress::new(Nth::First, false, None) };
        let look = |progress: &mut Progress, refused, free| {
            let policy = WhenVolumeFills::GiveUpArchive;
            assert!(!progress.decide(refused, policy, (free, 8 * GB)).expect("a marker").stops_writes);
            marker.exists()
        };
        assert!(!look(&mut progress, false, GB / 4), "data fills the volume, and the archive keeps up");
        assert!(!look(&mut progress, true, GB), "there is room");
        assert!(look(&mut progress, true, GB / 4), "without keys nothing is archived");
        assert!(look(&mut progress, false, 2 * GB), "until none waits");
        progress.waiting = 0;
        assert!(!look(&mut progress, true, GB / 4));
        (progress.waiting, progress.failures) = (1, SIGHTINGS);
        assert!(look(&mut progress, false, GB / 4));
        (progress.waiting, progress.failures) = (0, 0);
        assert!(!look(&mut progress, false, GB / 4));
        (progress.waiting, progress.lagging) = (64, 1);
        assert!(!look(&mut progress, false, GB / 4), "it may go");
        progress.lagging = SIGHTINGS;
        assert!(look(&mut progress, false, GB / 4), "the store is too slow");
        assert!(progress.given_up_at.is_some());
        drop(progress);
        assert!(!marker.exists(), "a later leader drops nothing for it");
    }

    #[test]
    fn a_store_beside_one_that_is_archived_to_is_tried_again_under_load() {
        const GB: u64 = 1 << 30;
        let marker = std::env::temp_dir().join(format!("servicedb-load-{}", std::process::id()));
        let of = |is_one_of_two| {
            let marker = Marker(marker.clone());
            Progress { marker, ..Progress::new(Nth::Second, is_one_of_two, None) }
        };
        for (is_one_of_two, waiting, given_up) in [(true, FEW, true), (true, FEW - 1, false), (false, 1, true)] {
            let mut progress = of(is_one_of_two);
            let mut look = |waiting, failures, free| {
                (progress.waiting, progress.failures) = (waiting, failures);
                progress.decide(false, WhenVolumeFills::GiveUpArchive, (free, 8 * GB)).expect("a marker");
                marker.exists()
            };
            assert!(look(64, SIGHTINGS, GB / 4), "it is away");
            assert_eq!(look(waiting, 0, 2 * GB), given_up, "{is_one_of_two} {waiting}");
        }
    }

    #[test]
    fn a_large_volume_keeps_little_of_it_free_for_wal() {
        const GB: u64 = 1 << 30;
        let marker = std::env::temp_dir().join(format!("servicedb-room-{}", std::process::id()));
        let mut progress = Progress { waiting: 1, marker: Marker(marker), ..Progress::new(Nth::First, false, None) };
        for (size, room) in [(GB, GB / 10), (20 * GB, 2 * GB), (1000 * GB, 20 * GB)] {
            let mut gives_up = |free| {
                let policy = WhenVolumeFills::GiveUpArchive;
                progress.decide(true, policy, (free, size)).expect("a marker").gives_up
            };
            assert!(!gives_up(room) && gives_up(room - 1), "{size}");
            progress.marker.remove().expect("the marker");
        }
    }

    #[test]
    fn writes_stop_before_wal_is_given_up_and_resume_with_room_to_spare() {
        const GB: u64 = 1 << 30;
        let marker = std::env::temp_dir().join(format!("servicedb-stops-{}", std::process::id()));
        let mut progress = Progress { waiting: 1, marker: Marker(marker), ..Progress::new(Nth::First, false, None) };
        let mut look = |refused, tenths: u64| {
            let room = (tenths * GB / 10, 20 * GB);
            let look = progress.decide(refused, WhenVolumeFills::StopWrites, room).expect("a marker");
            (look.stops_writes, progress.marker.exists())
        };
        assert_eq!(look(true, 21), (false, false), "there is room");
        assert_eq!(look(true, 19), (true, false));
        assert_eq!(look(false, 24), (true, false), "the store is back, and the room is not");
        assert_eq!(look(true, 26), (false, false));
        assert_eq!(look(false, 19), (false, false), "the archive keeps up: data fills the volume");
        assert_eq!(look(true, 9), (true, true), "the last resort");
        progress.waiting = 0;
        let look = progress.decide(true, WhenVolumeFills::StopWrites, (GB, 20 * GB)).expect("a marker");
        assert!(!look.stops_writes && !progress.marker.exists(), "nothing waits");
    }

    #[test]
    fn with_two_stores_only_the_one_that_lacks_a_segment_waits_and_fails() {
        let results = std::env::temp_dir().join(format!("servicedb-results-{}", std::process::id()));
        std::fs::create_dir_all(&results).expect("a folder");
        std::fs::write(results.join("000000010000000000000004.ok"), "").expect("a file");
        let waits = BTreeSet::from(["000000010000000000000004", "000000010000000000000005"].map(str::to_owned));
        let of = |is_one_of_two| {
            let progress = Progress { results: results.clone(), ..Progress::new(Nth::Second, is_one_of_two, None) };
            let (has, at) = (progress.has("000000010000000000000004"), progress.acknowledged_at());
            (progress.count(&waits), has, progress.has("000000010000000000000005"), at.is_some())
        };
        let found = [of(true), of(false)];
        std::fs::remove_dir_all(&results).expect("a folder");
        assert_eq!(found, [(1, true, false, true), (2, false, false, false)]);
    }

    #[test]
    fn a_store_that_goes_away_while_the_other_one_is_fails_until_it_gets_something_again() {
        let results = std::env::temp_dir().join(format!("servicedb-beyond-{}", std::process::id()));
        std::fs::create_dir_all(&results).expect("a folder");
        let mut progress = Progress { results: results.clone(), ..Progress::new(Nth::First, true, None) };
        let at = |seconds: i64| Timestamp::from_second(seconds).ok();
        let mut fails = |acknowledged_at| {
            let fails = progress.fails_beyond(acknowledged_at);
            progress.failures = if fails { progress.failures + 1 } else { 0 };
            fails
        };
        let mut found = vec![fails(at(1)), fails(at(1))];
        let error = results.join("global.error");
        std::fs::write(&error, "103\nunable to find a valid repository").expect("a file");
        found.push(fails(at(1)));
        std::fs::remove_file(&error).expect("the next run");
        found.extend([fails(at(1)), fails(at(2)), fails(at(2))]);
        std::fs::remove_dir_all(&results).expect("a folder");
        assert_eq!(found, [false, false, true, true, false, false]);
    }

    #[test]
    fn one_failed_try_is_not_reported() {
        let mut progress =
            Progress { failures: 1, failure: Some("key".into()), waiting: 5, ..Progress::new(Nth::First, false, None) };
        assert_eq!(progress.report("main", str::to_owned).failure, None);
        progress.failures = SIGHTINGS;
        let report = progress.report("main", |text| text.replace("key", "…"));
        assert_eq!((report.failure.as_deref(), report.waiting), (Some("…"), 8));
    }
}
