//! Whether a backup or a test of one is due. Pure.

use jiff::{SignedDuration, Timestamp};

use super::schedule::Schedule;
use crate::api::{BackupType, JobRun, RequestState};
use crate::contract::report::{Catalogue, CatalogueEntry};

/// The pause after the first failure, which doubles with each further one.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_mins(1);
/// The longest pause.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(1);
/// The same of tests, each of which restores the whole database.
const LONGEST_PAUSE_OF_TESTS: SignedDuration = SignedDuration::from_hours(24);
/// How long nothing must have been given up before a full backup is made for a gap.
const GAP_ENDS: SignedDuration = SignedDuration::from_mins(5);
/// The time between two full backups that are made for gaps.
const BETWEEN_GAPS: SignedDuration = SignedDuration::from_hours(1);
/// How long the leader may take to read the store after a backup.
const READS: SignedDuration = SignedDuration::from_mins(10);

/// What the decision depends on.
pub struct Known<'a> {
    /// When backups start.
    pub schedule: &'a Schedule,
    /// The backups in the store; none while they are not known.
    pub catalogue: Option<&'a Catalogue>,
    /// When WAL was last given up.
    pub given_up_at: Option<Timestamp>,
    /// When a restore in place last left a timeline: what is archived since continues no backup from before.
    pub left_at: Option<Timestamp>,
    /// The last Job.
    pub last: Option<&'a JobRun>,
    /// The last one of a backup in the other store.
    pub in_other_store: Option<&'a JobRun>,
    /// The type that is requested, if no Job has answered the request.
    pub request: Option<BackupType>,
    /// The type that is requested, if the last Job was for the request and failed: it is repeated after a pause.
    pub repetition: Option<BackupType>,
    /// Now.
    pub now: Timestamp,
}

/// The decision.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing to start before this time; none: before something changes.
    Later(Option<Timestamp>),
    /// A backup of this type is due.
    Now(BackupType),
    /// A full one is due that the schedule does not have: no restore goes beyond a gap, or a timeline that was left.
    /// Nothing expires after it: with a number of full backups that are kept, it would replace one of the schedule at once.
    Extra,
}

/// Decides. A Job that still runs is not asked about.
pub fn decide(known: &Known<'_>) -> Due {
    let Some(catalogue) = known.catalogue else { return Due::Later(None) };
    let ended = known.last.and_then(|last| Some((last, last.finished_at.as_ref()?.0)));
    let newest_full = catalogue.newest_full.as_ref().map(|full| full.started_at);
    let is_left = known.left_at.is_some_and(|left| newest_full.is_none_or(|full| full < left));
    let of_request = |kind| Due::Now(if is_left { BackupType::Full } else { kind });
    if let Some(kind) = known.request {
        return of_request(kind);
    }
    if let Some((last, at)) = ended {
        // It was read after the last Job of either store.
        let later = known.in_other_store.filter(|other| other.started_at.0 >= last.started_at.0);
        let is_read = [Some(last), later].into_iter().flatten().any(|run| catalogue.after.as_ref() == Some(&run.job));
        let unread = last.state == RequestState::Done && !is_read;
        let until = match last.state {
            RequestState::Failed => at + pause(last.failures, LONGEST_PAUSE),
            _ if unread => at + READS,
            _ => at,
        };
        if known.now < until {
            return Due::Later(Some(until));
        }
    }
    if let Some(kind) = known.repetition {
        return of_request(kind);
    }
    let (Some(full), Some(newest)) = (&catalogue.newest_full, &catalogue.newest) else {
        return Due::Now(BackupType::Full);
    };
    let passed = |next: Option<Timestamp>| next.is_some_and(|next| next <= known.now);
    let is_scheduled = passed(known.schedule.full_after(full.started_at));
    if is_left {
        return if is_scheduled { Due::Now(BackupType::Full) } else { Due::Extra };
    }
    // No restore goes beyond a gap. A store that is too slow makes one after another: not so many backups.
    let age = |at: Timestamp| known.now.duration_since(at);
    let gap = known.given_up_at.filter(|at| *at > full.started_at);
    if let Some(at) = gap
        && (age(at) < GAP_ENDS || age(full.started_at) < BETWEEN_GAPS)
    {
        return Due::Later(Some((at + GAP_ENDS).max(full.started_at + BETWEEN_GAPS)));
    }
    if is_scheduled {
        Due::Now(BackupType::Full)
    } else if gap.is_some() {
        Due::Extra
    } else if passed(known.schedule.incremental_after(newest.started_at)) {
        Due::Now(BackupType::Incremental)
    } else {
        Due::Later(known.schedule.after(known.now))
    }
}

/// What the decision about a test depends on.
pub struct Tested<'a> {
    /// When tests start.
    pub schedule: &'a Schedule,
    /// The newest backup.
    pub newest: Option<&'a CatalogueEntry>,
    /// When a test last succeeded.
    pub verified_at: Option<Timestamp>,
    /// The last Job.
    pub last: Option<&'a JobRun>,
    /// Whether a test is requested that no Job has answered.
    pub is_asked_for: bool,
    /// Now.
    pub now: Timestamp,
}

/// Decides whether a test is due: the first follows the first backup.
pub fn verification(tested: &Tested<'_>) -> Due {
    let Some(newest) = tested.newest else { return Due::Later(None) };
    if tested.is_asked_for {
        return Due::Now(newest.kind);
    }
    if !tested.schedule.verifies() {
        return Due::Later(None);
    }
    let failed = tested.last.filter(|last| last.state == RequestState::Failed);
    if let Some((last, at)) = failed.and_then(|last| Some((last, last.finished_at.as_ref()?.0))) {
        let until = at + pause(last.failures, LONGEST_PAUSE_OF_TESTS);
        return if tested.now < until { Due::Later(Some(until)) } else { Due::Now(newest.kind) };
    }
    let due = tested.verified_at.map_or(Some(tested.now), |at| tested.schedule.verification_after(at));
    if due.is_some_and(|due| due <= tested.now) { Due::Now(newest.kind) } else { Due::Later(due) }
}

fn pause(failures: u32, longest: SignedDuration) -> SignedDuration {
    let factor = 1_i32.checked_shl(failures.saturating_sub(1)).filter(|factor| *factor > 0).unwrap_or(i32::MAX);
    FIRST_PAUSE.checked_mul(factor).map_or(longest, |pause| pause.min(longest))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::api::BackupScheduleSpec;
    use crate::contract::report::CatalogueEntry;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn entry(kind: BackupType, started: &str) -> CatalogueEntry {
        let started_at = at(started);
        CatalogueEntry {
            label: "x".into(),
            kind,
            started_at,
            finished_at: started_at,
            database_bytes: 1,
            stored_bytes: 1,
        }
    }

    fn catalogue(full: &str, newest: Option<&str>) -> Catalogue {
        let full = entry(BackupType::Full, full);
        let newest = newest.map_or(full.clone(), |newest| entry(BackupType::Incremental, newest));
        Catalogue { newest_full: Some(full), newest: Some(newest), ..Catalogue::default() }
    }

    fn run(state: RequestState, finished: &str, failures: u32) -> JobRun {
        JobRun {
            job: "chat-db-backup-1".into(),
            state,
            started_at: Time(at(finished)),
            finished_at: Some(Time(at(finished))),
            message: None,
            failures,
            request: None,
        }
    }

    /// Decides on Wednesday at noon, with a schedule at three.
    fn due(catalogue: Option<&Catalogue>, last: Option<&JobRun>, given_up: Option<&str>) -> Due {
        let spec = BackupScheduleSpec {
            full: Some("0 3 * * SUN".into()),
            incremental: Some("0 3 * * MON-SAT".into()),
            verification: None,
            time_zone: None,
        };
        let schedule = Schedule::of(&spec, "u").expect("a schedule");
        let (given_up_at, now) = (given_up.map(at), at("2026-11-25T12:00:00Z"));
        decide(&Known {
            schedule: &schedule,
            catalogue,
            given_up_at,
            left_at: None,
            last,
            in_other_store: None,
            request: None,
            repetition: None,
            now,
        })
    }

    #[test]
    fn a_store_without_a_full_backup_gets_one_at_once() {
        assert_eq!(due(None, None, None), Due::Later(None), "nothing is known");
        assert_eq!(due(Some(&Catalogue::default()), None, None), Due::Now(BackupType::Full));
    }

    #[test]
    fn a_backup_is_due_when_a_scheduled_time_has_passed_since_the_last() {
        let next = Due::Later(Some(at("2026-11-26T03:00:00Z")));
        let made = catalogue("2026-11-22T03:00:10Z", Some("2026-11-25T03:00:05Z"));
        assert_eq!(due(Some(&made), None, None), next);
        let missed = catalogue("2026-11-22T03:00:10Z", Some("2026-11-24T03:00:05Z"));
        assert_eq!(due(Some(&missed), None, None), Due::Now(BackupType::Incremental));
        let old = catalogue("2026-11-15T03:00:10Z", Some("2026-11-25T03:00:05Z"));
        assert_eq!(due(Some(&old), None, None), Due::Now(BackupType::Full), "Sunday's full one is missing");
    }

    #[test]
    fn a_gap_in_the_archive_makes_a_full_backup_due() {
        let made = catalogue("2026-11-22T03:00:10Z", Some("2026-11-25T03:00:05Z"));
        assert_eq!(due(Some(&made), None, Some("2026-11-25T04:00:00Z")), Due::Extra);
        assert!(matches!(due(Some(&made), None, Some("2026-11-21T04:00:00Z")), Due::Later(_)));
    }

    #[test]
    fn a_full_backup_follows_a_restore_in_place() {
        let spec = BackupScheduleSpec {
            full: Some("0 3 * * SUN".into()),
            incremental: Some(String::new()),
            ..BackupScheduleSpec::default()
        };
        let schedule = Schedule::of(&spec, "u").expect("a schedule");
        let made = catalogue("2026-11-22T03:00:10Z", None);
        let (left_at, now) = (Some(at("2026-11-25T11:59:59Z")), at("2026-11-25T12:00:00Z"));
        let known = Known {
            schedule: &schedule,
            catalogue: Some(&made),
            given_up_at: None,
            left_at,
            last: None,
            in_other_store: None,
            request: Some(BackupType::Incremental),
            repetition: None,
            now,
        };
        assert_eq!(decide(&known), Due::Now(BackupType::Full), "an incremental one would stand on the left state");
        assert_eq!(decide(&Known { request: None, ..known }), Due::Extra);
        let made = catalogue("2026-11-25T11:59:59Z", None);
        let known = Known {
            schedule: &schedule,
            catalogue: Some(&made),
            given_up_at: None,
            left_at,
            last: None,
            in_other_store: None,
            request: None,
            repetition: None,
            now,
        };
        assert!(matches!(decide(&known), Due::Later(_)));
    }

    #[test]
    fn a_failure_is_followed_by_a_pause_that_grows_to_an_hour() {
        let nothing = Catalogue::default();
        let failed = |failures| run(RequestState::Failed, "2026-11-25T11:59:30Z", failures);
        let until = |text| Due::Later(Some(at(text)));
        assert_eq!(due(Some(&nothing), Some(&failed(1)), None), until("2026-11-25T12:00:30Z"));
        assert_eq!(due(Some(&nothing), Some(&failed(3)), None), until("2026-11-25T12:03:30Z"));
        assert_eq!(due(Some(&nothing), Some(&failed(40)), None), until("2026-11-25T12:59:30Z"));
        let long_ago = run(RequestState::Failed, "2026-11-25T10:00:00Z", 40);
        assert_eq!(due(Some(&nothing), Some(&long_ago), None), Due::Now(BackupType::Full));
    }

    #[test]
    fn a_requested_backup_that_failed_is_repeated_after_the_same_pause() {
        let spec = BackupScheduleSpec {
            full: Some("0 3 * * SUN".into()),
            incremental: Some(String::new()),
            ..BackupScheduleSpec::default()
        };
        let schedule = Schedule::of(&spec, "u").expect("a schedule");
        let made = catalogue("2026-11-25T03:00:10Z", None);
        let decided = |failures, repetition, left: Option<&str>| {
            let failed = run(RequestState::Failed, "2026-11-25T11:58:30Z", failures);
            decide(&Known {
                schedule: &schedule,
                catalogue: Some(&made),
                given_up_at: None,
                left_at: left.map(at),
                last: Some(&failed),
                in_other_store: None,
                request: None,
                repetition,
                now: at("2026-11-25T12:00:00Z"),
            })
        };
        let requested = Some(BackupType::Incremental);
        assert_eq!(decided(1, requested, None), Due::Now(BackupType::Incremental));
        assert_eq!(decided(2, requested, None), Due::Later(Some(at("2026-11-25T12:00:30Z"))), "two minutes");
        assert_eq!(decided(1, requested, Some("2026-11-25T11:00:00Z")), Due::Now(BackupType::Full));
        assert!(matches!(decided(1, None, None), Due::Later(_)), "nothing is due by the schedule");
    }

    #[test]
    fn nothing_starts_until_the_last_backup_is_seen_in_the_store() {
        let done = run(RequestState::Done, "2026-11-25T11:59:00Z", 0);
        let mut read = Catalogue::default();
        assert_eq!(due(Some(&read), Some(&done), None), Due::Later(Some(at("2026-11-25T12:09:00Z"))));
        read.after = Some(done.job.clone());
        assert_eq!(due(Some(&read), Some(&done), None), Due::Now(BackupType::Full), "it is not in the store");
    }

    #[test]
    fn a_store_that_was_read_after_a_later_backup_in_the_other_one_is_up_to_date() {
        let spec = BackupScheduleSpec { full: Some("0 3 * * SUN".into()), ..BackupScheduleSpec::default() };
        let schedule = Schedule::of(&spec, "u").expect("a schedule");
        let (done, now) = (run(RequestState::Done, "2026-11-25T11:59:00Z", 0), at("2026-11-25T12:00:00Z"));
        let in_other = |started: &str| JobRun { job: "chat-db-backup-2".into(), ..run(RequestState::Done, started, 0) };
        let read = Catalogue { after: Some("chat-db-backup-2".into()), ..Catalogue::default() };
        let due = |in_other_store: &JobRun| {
            decide(&Known {
                schedule: &schedule,
                catalogue: Some(&read),
                given_up_at: None,
                left_at: None,
                last: Some(&done),
                in_other_store: Some(in_other_store),
                request: None,
                repetition: None,
                now,
            })
        };
        assert_eq!(due(&in_other("2026-11-25T11:59:30Z")), Due::Now(BackupType::Full));
        assert!(matches!(due(&in_other("2026-11-25T11:00:00Z")), Due::Later(_)), "it was read before");
    }

    #[test]
    fn a_test_follows_the_first_backup_and_then_the_schedule() {
        let spec = BackupScheduleSpec { verification: Some("0 6 * * MON".into()), ..BackupScheduleSpec::default() };
        let schedule = Schedule::of(&spec, "u").expect("a schedule");
        let newest = entry(BackupType::Full, "2026-11-22T03:00:10Z");
        let due = |newest, verified: Option<&str>, last: Option<&JobRun>| {
            let now = at("2026-11-25T12:00:00Z");
            let verified_at = verified.map(at);
            verification(&Tested { schedule: &schedule, newest, verified_at, last, is_asked_for: false, now })
        };
        assert_eq!(due(None, None, None), Due::Later(None), "there is nothing to test");
        assert_eq!(due(Some(&newest), None, None), Due::Now(BackupType::Full));
        assert_eq!(due(Some(&newest), Some("2026-11-20T06:10:00Z"), None), Due::Now(BackupType::Full), "Monday passed");
        let next = Due::Later(Some(at("2026-11-30T06:00:00Z")));
        assert_eq!(due(Some(&newest), Some("2026-11-23T06:10:00Z"), None), next);
        let failed = run(RequestState::Failed, "2026-11-25T11:00:00Z", 9);
        assert_eq!(due(Some(&newest), None, Some(&failed)), Due::Later(Some(at("2026-11-25T15:16:00Z"))));
    }
}
