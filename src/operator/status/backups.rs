//! The backups in status.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::archive::report_of;
use super::condition::{ConditionState, both, held};
use super::findings::Findings;
use super::windows;
use crate::api::conditions::{self as kind, reason};
use crate::api::names::{ANNOTATION_BACKUP, ANNOTATION_BACKUP_STORE};
use crate::api::{BackupRunStatus, BackupStatus, LeftDatabase, RequestState, ServiceDatabaseStatus, StoredBackup};
use crate::contract::backup::{Nth, Place};
use crate::contract::report::{ArchiveReport, CatalogueEntry, Report};
use crate::contract::time::seconds;
use crate::operator::backups::schedule::Schedule;
use crate::operator::validate::Backups;

/// How late a backup may be, at least.
const LATE: SignedDuration = SignedDuration::from_hours(1);

/// `status.backup`.
pub fn status(
    findings: &Findings<'_>,
    report: Option<&Report>,
    previous: Option<BackupStatus>,
) -> Option<BackupStatus> {
    let Some(database) = findings.database else { return previous };
    let Some(place) = &database.archive else {
        // Nothing else tells of the timelines that restores have left: a later restore must find them.
        let left_timelines = findings.in_place.left.clone();
        let left_databases = findings.upgrade.left.clone();
        let kept = previous.filter(|_| !left_timelines.is_empty() || !left_databases.is_empty());
        return kept.map(|BackupStatus { store, path, .. }| BackupStatus {
            store,
            path,
            left_timelines,
            left_databases,
            ..BackupStatus::default()
        });
    };
    let left = &findings.upgrade.left;
    let second = database.second_archive.as_ref().map(|place| {
        let archive = report_of(report, Nth::Second, &place.name);
        Box::new(of_store(place, archive, findings.backups.second_last.clone(), previous.as_ref(), left))
    });
    let archive = report_of(report, Nth::First, &place.name);
    let mut status = BackupStatus {
        next_at: findings.backups.next_at.map(|at| Time(seconds(at))),
        last_verification: findings.backups.last_verification.clone(),
        verified: findings.backups.verified.clone(),
        second,
        ..of_store(place, archive, findings.backups.last.clone(), previous.as_ref(), left)
    };
    let from = status.stores().filter_map(|store| Some(store.recoverable_from.as_ref()?.0)).min().map(Time);
    status.left_timelines = recoverable(findings.in_place.left.clone(), from.as_ref(), |left| &left.left_at);
    status.left_databases = recoverable(left.clone(), from.as_ref(), |left| &left.left_at);
    Some(status)
}

/// The state of one store.
fn of_store(
    place: &Place,
    archive: Option<&ArchiveReport>,
    last_run: Option<BackupRunStatus>,
    previous: Option<&BackupStatus>,
    left: &[LeftDatabase],
) -> BackupStatus {
    // What is known of another place does not hold for this one. The two may have changed places.
    let of_this = |before: &&BackupStatus| before.store == place.name && before.path == place.path;
    let before = previous.into_iter().flat_map(BackupStatus::stores).find(of_this).cloned().unwrap_or_default();
    let newest = |reported: Option<Timestamp>, before: Option<Time>| match (reported, before) {
        (Some(reported), Some(before)) => Some(Time(reported.max(before.0))),
        (reported, before) => reported.map(Time).or(before),
    };
    let mut status = BackupStatus {
        store: place.name.clone(),
        path: place.path.clone(),
        archived_at: newest(archive.and_then(|archive| archive.archived_at), before.archived_at),
        given_up_at: newest(archive.and_then(|archive| archive.given_up_at), before.given_up_at),
        recoverable_from: before.recoverable_from,
        newest_full: before.newest_full,
        newest: before.newest,
        count: before.count,
        stored_bytes: before.stored_bytes,
        windows: before.windows,
        last_run,
        ..BackupStatus::default()
    };
    let catalogue = archive.and_then(|archive| archive.catalogue.as_ref());
    if let Some(catalogue) = catalogue {
        status.recoverable_from = catalogue.recoverable_from.map(Time);
        status.newest_full = catalogue.newest_full.as_ref().map(stored);
        status.newest = catalogue.newest.as_ref().map(stored);
        status.count = Some(catalogue.count);
        status.stored_bytes = Some(bytes(catalogue.stored_bytes));
    }
    status.windows = windows::of(left, catalogue, &status);
    status
}

/// The timelines, or databases, to which a backup still leads, and the last one: from it the instances' own branch, or the
/// present database, is known.
fn recoverable<Left>(left: Vec<Left>, from: Option<&Time>, left_at: impl Fn(&Left) -> &Time) -> Vec<Left> {
    let last = left.len().saturating_sub(1);
    let stays = |(index, left): &(usize, Left)| *index == last || from.is_none_or(|from| left_at(left).0 > from.0);
    left.into_iter().enumerate().filter(stays).map(|(_, left)| left).collect()
}

fn stored(entry: &CatalogueEntry) -> StoredBackup {
    StoredBackup {
        label: entry.label.clone(),
        kind: entry.kind,
        started_at: Time(entry.started_at),
        finished_at: Time(entry.finished_at),
        database_bytes: bytes(entry.database_bytes),
        stored_bytes: bytes(entry.stored_bytes),
    }
}

fn bytes(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Whether the backups are as scheduled; none without a store.
pub fn backed_up(
    findings: &Findings<'_>,
    status: Option<&BackupStatus>,
    previous: &ServiceDatabaseStatus,
) -> Option<ConditionState> {
    let Some(database) = findings.database else { return held(previous, kind::BACKED_UP) };
    let (status, schedule) = (status?, &database.backups.schedule);
    let states = status.stores().map(|store| {
        let state = in_store(store, schedule, findings.now);
        match &status.second {
            Some(_) => ConditionState { message: format!("store {}: {}", store.store, state.message), ..state },
            None => state,
        }
    });
    let state = states.reduce(both)?;
    Some(match unknown_request(&database.backups, status) {
        Some(problem) => ConditionState { message: format!("{problem}; {}", state.message), ..state },
        None => state,
    })
}

/// The problem of a requested backup that no Job makes, since it is for a store that the database does not have.
fn unknown_request(backups: &Backups, status: &BackupStatus) -> Option<String> {
    let (token, store) = (&backups.request.as_ref()?.0, backups.request_store.as_ref()?);
    let is_answered = |last: &BackupRunStatus| last.run.request.as_ref() == Some(token);
    if status.stores().any(|one| one.store == *store || one.last_run.as_ref().is_some_and(is_answered)) {
        return None;
    }
    let known: Vec<_> = status.stores().map(|one| one.store.as_str()).collect();
    Some(format!(
        "no backup was made for the annotation {ANNOTATION_BACKUP}: {ANNOTATION_BACKUP_STORE} names the store {store}, and \
         spec.backup has {}: name one of these, or remove the annotations",
        known.join(" and ")
    ))
}

/// Whether the backups in one store are as scheduled.
fn in_store(status: &BackupStatus, schedule: &Schedule, now: Timestamp) -> ConditionState {
    let last = status.last_run.as_ref().map(|last| &last.run);
    let said = last.and_then(|last| last.message.as_deref());
    let Some(newest) = &status.newest else {
        return match last {
            Some(last) if last.state == RequestState::Failed => {
                let message = format!("there is no backup, and the last Job failed: {}", said.unwrap_or_default());
                ConditionState::no(reason::BACKUP_FAILED, message)
            }
            _ => {
                let waits = said.map(|said| format!(": {said}")).unwrap_or_default();
                ConditionState::no(reason::PROGRESSING, format!("there is no backup yet{waits}"))
            }
        };
    };
    // After an upgrade: without a gap until now.
    let of_present = status.windows.last().filter(|window| window.until.is_none()).map(|window| &window.from);
    let from = of_present.or(status.recoverable_from.as_ref()).map_or(newest.finished_at.0, |from| from.0);
    let have =
        format!("the newest backup ended at {}; the database can be recovered from {from} on", newest.finished_at.0);
    if status.given_up_at.as_ref().is_some_and(|at| at.0 > newest.finished_at.0) {
        let message = format!(
            "the archive has a gap (WAL was given up or found missing since the newest backup), so a full one is due; {have}, to that gap"
        );
        return ConditionState::no(reason::BACKUP_OVERDUE, message);
    }
    if let Some(last) = last.filter(|last| last.state == RequestState::Failed) {
        let message = format!("the last backup failed ({}): {}; {have}", last.job, said.unwrap_or_default());
        return ConditionState::no(reason::BACKUP_FAILED, message);
    }
    let due = schedule.after(newest.started_at.0);
    let next = due.and_then(|due| schedule.after(due));
    let missed = |(due, next): (Timestamp, Timestamp)| now >= next && now.duration_since(due) > LATE;
    if due.zip(next).is_some_and(missed) {
        let waits = said.map(|said| format!(" ({said})")).unwrap_or_default();
        let message = format!("the backup of {} is overdue{waits}; {have}", due.unwrap_or_default());
        return ConditionState::no(reason::BACKUP_OVERDUE, message);
    }
    ConditionState::yes(reason::BACKED_UP, have)
}

/// Whether a backup was restored and checked as scheduled; none without a store or without tests.
pub fn verified(
    findings: &Findings<'_>,
    status: Option<&BackupStatus>,
    previous: &ServiceDatabaseStatus,
) -> Option<ConditionState> {
    let Some(database) = findings.database else { return held(previous, kind::RESTORE_VERIFIED) };
    let (status, schedule) = (status?, &database.backups.schedule);
    let last = status.last_verification.as_ref();
    if !schedule.verifies() && last.is_none() {
        return None;
    }
    let have = match &status.verified {
        None => "no backup was restored and checked yet".to_owned(),
        Some(verified) => {
            let until = verified.recovered_until.as_ref();
            let until = until.map(|time| format!(", up to a transaction of {time}")).unwrap_or_default();
            let store = verified.store.as_ref().map(|store| format!(" of the store {store}")).unwrap_or_default();
            format!(
                "{}{store} was restored{until} and checked at {}, in {} and {} s",
                verified.label, verified.at.0, verified.restore_seconds, verified.check_seconds
            )
        }
    };
    if let Some(last) = last.filter(|last| last.state == RequestState::Failed) {
        let said = last.message.as_deref().unwrap_or_default();
        let message = format!("the last test failed ({}): {said}; {have}", last.job);
        return Some(ConditionState::no(reason::VERIFICATION_FAILED, message));
    }
    let Some(verified) = &status.verified else {
        let waits = last.and_then(|last| last.message.as_ref()).map(|said| format!(": {said}")).unwrap_or_default();
        return Some(ConditionState::no(reason::PROGRESSING, format!("{have}{waits}")));
    };
    let due = schedule.verification_after(verified.at.0);
    let next = due.and_then(|due| schedule.verification_after(due));
    if next.is_some_and(|next| findings.now >= next) {
        let message = format!("the test of {} is overdue; {have}", due.unwrap_or_default());
        return Some(ConditionState::no(reason::VERIFICATION_OVERDUE, message));
    }
    Some(ConditionState::yes(reason::RESTORE_VERIFIED, have))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::LeftTimeline;

    #[test]
    fn a_left_timeline_is_listed_as_long_as_a_backup_leads_to_it_and_the_last_one_always() {
        let at = |text: &str| Time(text.parse().expect("a time"));
        let left =
            |timeline, text| LeftTimeline { timeline, left_at: at(text), continued_as: timeline + 1, store: None };
        let all =
            vec![left(1, "2026-11-01T00:00:00Z"), left(2, "2026-11-10T00:00:00Z"), left(3, "2026-11-12T00:00:00Z")];
        let timelines = |from: Option<&str>| -> Vec<i64> {
            let from = from.map(at);
            recoverable(all.clone(), from.as_ref(), |left| &left.left_at)
                .into_iter()
                .map(|left| left.timeline)
                .collect()
        };
        assert_eq!(timelines(None), [1, 2, 3]);
        assert_eq!(timelines(Some("2026-11-05T00:00:00Z")), [2, 3]);
        assert_eq!(timelines(Some("2026-11-29T00:00:00Z")), [3]);
        assert!(recoverable(Vec::new(), None, |left: &LeftTimeline| &left.left_at).is_empty());
    }
}
