//! `kubectl servicedb restore`: says what will be left, asks, and puts the database back in place.

use std::process::ExitCode;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::age::age;
use super::args::{Connection, RestoreTo};
use super::backup::{no_store, unknown_store};
use super::confirm::approved;
use super::connection::{PluginError, connect, read};
use super::{reported, request};
use crate::api::{BackupStatus, LeftDatabase, RestoreTarget};
use crate::contract::backup::Nth;
use crate::contract::recovery_window::{self, Destination};
use crate::contract::report::Report;
use crate::contract::restore_store::{Store, choose, left_elsewhere};
use crate::contract::restore_target::parse;
use crate::contract::time::seconds;

/// The first position of a database's WAL: the segment before it is never used.
const FIRST_POSITION: u64 = 0x100_0000;

/// Reads a time, with its offset.
///
/// # Errors
/// What a time has.
pub fn time(text: &str) -> Result<String, String> {
    let parsed = text.parse::<Timestamp>();
    parsed.map(|_| text.to_owned()).map_err(|_| "a time has its offset from UTC: 2026-11-29T10:15:00Z".to_owned())
}

/// Reads a position in WAL, by the rule that `spec.bootstrap.restore.target.lsn` has.
///
/// # Errors
/// The form of a position.
pub fn position(text: &str) -> Result<String, String> {
    let is_half = |half: &str| (1..=8).contains(&half.len()) && half.chars().all(|c| c.is_ascii_hexdigit());
    match text.split_once('/') {
        Some((high, low)) if is_half(high) && is_half(low) => Ok(text.to_owned()),
        _ => Err("a position in WAL has two hexadecimal numbers: 0/3000148".to_owned()),
    }
}

/// The target of the request.
pub fn target(to: RestoreTo, timeline: Option<i64>) -> RestoreTarget {
    RestoreTarget { time: to.to, lsn: to.lsn, name: to.point, immediate: to.immediate, timeline }
}

/// A restore that is requested.
pub struct Wanted {
    /// The state to restore.
    pub target: RestoreTarget,
    /// The store that is named.
    pub store: Option<String>,
}

/// What is known before the request.
#[derive(Clone, Copy)]
struct Known<'a> {
    name: &'a str,
    backup: &'a BackupStatus,
    /// What the primary's agent reports.
    report: Option<&'a Report>,
    now: Timestamp,
}

/// The store that the operator would choose.
#[derive(Debug)]
struct Chosen<'a> {
    backup: &'a BackupStatus,
    /// Whether it gets no WAL at present.
    fails: bool,
    /// The store that alone has all of the target's timeline, if it is another one.
    whole: Option<&'a str>,
}

/// Asks, sends the request, and waits for its result, if there is a time to wait.
///
/// # Errors
/// If the resource cannot be read or changed.
pub async fn run(
    connection: &Connection,
    name: &str,
    wanted: &Wanted,
    yes: bool,
    timeout: Duration,
) -> Result<ExitCode, PluginError> {
    let (client, namespace) = connect(connection).await?;
    let resource = read(&client, &namespace, name).await?;
    let Some(backup) = resource.status.as_ref().and_then(|status| status.backup.as_ref()) else {
        eprintln!("error: {}", no_store(name));
        return Ok(ExitCode::FAILURE);
    };
    let report = reported::of_primary(&client, &namespace, &resource).await;
    let (now, target) = (Timestamp::now(), &wanted.target);
    let chosen = match chosen(&Known { name, backup, report: report.as_ref(), now }, wanted) {
        Ok(chosen) => chosen,
        Err(refusal) => {
            eprintln!("error: {refusal}");
            return Ok(ExitCode::FAILURE);
        }
    };
    println!("{}", consequences(name, target, &chosen, now));
    if !approved(yes)? {
        return Ok(ExitCode::FAILURE);
    }
    request::run(connection, name, &request::Request::Restore(target.clone(), wanted.store.clone()), timeout).await
}

/// The store of the restore: the one that is named, or else the first one. Otherwise why the operator or the primary's
/// agent would refuse it, as far as status, the report and this machine's clock tell, and the other store if that one has
/// the state: nobody is asked to approve it.
fn chosen<'a>(known: &Known<'a>, wanted: &Wanted) -> Result<Chosen<'a>, String> {
    let Known { name, backup, report, now } = *known;
    let first = match &wanted.store {
        None => backup,
        Some(store) => {
            backup.stores().find(|one| one.store == *store).ok_or_else(|| unknown_store(name, store, backup))?
        }
    };
    let refused = |one: &BackupStatus| refusal(name, &wanted.target, (one, &backup.left_databases), now);
    if let Some(problem) = refused(first) {
        let other = backup.stores().find(|one| one.store != first.store && refused(one).is_none());
        let way_out = other.map(|other| format!("; the store {0} has that state: --store {0}", other.store));
        return Err(format!("{problem}{}", way_out.unwrap_or_default()));
    }
    if let Some(problem) = is_nowhere(known, &wanted.target) {
        return Err(problem);
    }
    let (target, timeline) = parse(Some(&wanted.target), "the request")?;
    let stores: Vec<_> = Nth::ALL
        .into_iter()
        .zip(backup.stores())
        .map(|(nth, one)| Store::of(&one.store, report.and_then(|report| report.archive_in(nth))))
        .collect();
    let named = wanted.store.as_deref();
    let (store, timeline) = choose(&stores, Some(backup), named, (&target, timeline), name, now)?;
    Ok(Chosen {
        backup: first,
        fails: stores.iter().any(|one| one.name == store && one.fails),
        whole: left_elsewhere(Some(backup), (store, timeline), &target),
    })
}

/// Why no store can give the state to this database, as far as it is known.
fn is_nowhere(known: &Known<'_>, target: &RestoreTarget) -> Option<String> {
    let name = known.name;
    if let Some(lsn) = target.lsn.as_ref().filter(|lsn| offset(lsn).is_some_and(|offset| offset < FIRST_POSITION)) {
        return Some(format!("{lsn} is no position of {name}: the WAL of a database begins at 0/{FIRST_POSITION:X}"));
    }
    let present = known.report.and_then(|report| report.timeline).map(i64::from);
    let (timeline, present) = target.timeline.zip(present).filter(|(timeline, present)| timeline > present)?;
    Some(format!(
        "{name} has no timeline {timeline}: its present one is {present}; status.backup.leftTimelines has those that \
         were left"
    ))
}

/// A position in WAL as a number.
fn offset(lsn: &str) -> Option<u64> {
    let (high, low) = lsn.split_once('/')?;
    let half = |half: &str| u32::from_str_radix(half, 16).ok().map(u64::from);
    Some((half(high)? << 32) | half(low)?)
}

/// Why a restore from one store would be refused.
fn refusal(
    name: &str,
    target: &RestoreTarget,
    (backup, left): (&BackupStatus, &[LeftDatabase]),
    now: Timestamp,
) -> Option<String> {
    let Some(from) = backup.recoverable_from.as_ref().map(|from| from.0) else {
        return Some(format!(
            "{name} has no backup in the store {}: see its conditions BackedUp and ContinuousArchiving",
            backup.store
        ));
    };
    let of_upgrade = |time| recovery_window::refusal(backup, left, time, Destination::InPlace, name);
    let Some(time) = &target.time else {
        let is_latest = target.lsn.is_none() && target.name.is_none() && !target.immediate;
        return of_upgrade(None).filter(|_| is_latest);
    };
    let time = time.parse::<Timestamp>().ok()?;
    if time > now {
        let now = seconds(now);
        return Some(format!(
            "{time} is in the future (it is {now} now, by the clock of this machine): {name} can be recovered from {from} \
             on, until now, as far as its WAL is archived"
        ));
    }
    if time < from {
        return Some(format!(
            "{time} is before the first backup in the store {}: {name} can be recovered from {from} on, until now, as far \
             as its WAL is archived",
            backup.store
        ));
    }
    let gap = backup.given_up_at.as_ref().map(|at| at.0).filter(|gap| time > *gap);
    let full = backup.newest_full.as_ref().map(|full| full.started_at.0);
    if let Some(gap) = gap
        && full.is_some_and(|full| full < gap)
    {
        return Some(format!(
            "{time} cannot be restored, because the archive of {name} lacks WAL at {gap}, and there is no full backup after \
             it: choose a time before that"
        ));
    }
    of_upgrade(Some(time))
}

/// What the restore does, for the person who is asked.
fn consequences(name: &str, target: &RestoreTarget, chosen: &Chosen<'_>, now: Timestamp) -> String {
    let Chosen { backup, fails, whole } = *chosen;
    let store = &backup.store;
    let left = match target.time.as_ref().and_then(|time| time.parse::<Timestamp>().ok()) {
        Some(time) => format!("everything that was committed after {time} ({} ago)", age(time, now)),
        None if target.immediate => "everything that was committed after the newest backup".to_owned(),
        None => "everything that was committed after that state".to_owned(),
    };
    let from = backup
        .recoverable_from
        .as_ref()
        .map(|from| format!(", from which the database can be restored from {} on", from.0));
    let kept = if fails {
        format!(
            "At present the store {store} gets no WAL (see ContinuousArchiving), so not all of it could be restored \
             again: the restore waits for the store before anything is exchanged."
        )
    } else {
        format!("Both stay in the store {store}{}.", from.unwrap_or_default())
    };
    let lacks = whole.map(|whole| {
        format!(
            " The store {store} may lack the end of that timeline, which was left by a restore from the store {whole}."
        )
    });
    format!(
        "{name} will be put back: {left} will not be in it, nor whatever is written until the restore has ended. \
         {kept}{} At the end the database is unavailable for some seconds.",
        lacks.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_told_what_is_left() {
        let backup: BackupStatus = serde_json::from_value(serde_json::json!({
            "store": "main", "path": "/x", "recoverableFrom": "2026-11-28T00:00:00Z",
        }))
        .expect("a status");
        let now = "2026-11-29T12:00:00Z".parse().expect("a time");
        let target = RestoreTarget { time: Some("2026-11-29T12:30:00+01:00".into()), ..RestoreTarget::default() };
        let chosen = Chosen { backup: &backup, fails: false, whole: None };
        let said = consequences("chat", &target, &chosen, now);
        assert!(said.contains("committed after 2026-11-29T11:30:00Z (30m ago)"), "{said}");
        assert!(
            said.contains("the store main, from which the database can be restored from 2026-11-28T00:00:00Z on"),
            "{said}"
        );
        assert!(time("2026-11-29 10:15").is_err());
        assert!(time("2026-11-29T10:15:00+01:00").is_ok());
        let target = RestoreTarget { time: Some("2026-11-29T11:59:31Z".into()), ..RestoreTarget::default() };
        assert!(consequences("chat", &target, &chosen, now).contains("(29s ago)"));
        let away = consequences("chat", &target, &Chosen { fails: true, whole: Some("other"), ..chosen }, now);
        assert!(!away.contains("Both stay") && away.contains("the store main gets no WAL"), "{away}");
        assert!(away.contains("may lack the end") && away.contains("from the store other"), "{away}");
    }

    #[test]
    fn a_time_that_cannot_be_restored_is_refused_before_anybody_is_asked() {
        let mut backup: BackupStatus = serde_json::from_value(serde_json::json!({
            "store": "main", "path": "/x", "recoverableFrom": "2026-11-28T00:00:00Z",
            "givenUpAt": "2026-11-29T10:00:00Z",
            "newestFull": {
                "label": "20261128-000000F", "type": "Full", "startedAt": "2026-11-27T23:59:00Z",
                "finishedAt": "2026-11-28T00:00:00Z", "databaseBytes": 30, "storedBytes": 4,
            },
        }))
        .expect("a status");
        let now = "2026-11-29T12:00:00Z".parse().expect("a time");
        let said = |backup: &BackupStatus, time: &str| {
            let target = RestoreTarget { time: Some(time.into()), ..RestoreTarget::default() };
            refusal("chat", &target, (backup, &backup.left_databases), now)
        };
        let future = said(&backup, "2026-12-29T12:00:00Z").expect("a refusal");
        assert!(future.contains("in the future") && future.contains("can be recovered from 2026-11-28T00:00:00Z on"));
        let early = said(&backup, "2026-11-27T23:59:59Z").expect("a refusal");
        assert!(early.contains("before the first backup in the store main"), "{early}");
        let second: BackupStatus = serde_json::from_value(serde_json::json!({
            "store": "other", "path": "/x", "recoverableFrom": "2026-11-20T00:00:00Z",
        }))
        .expect("a status");
        let two = BackupStatus { second: Some(Box::new(second)), ..backup.clone() };
        let of = |store: Option<&str>, time: &str| {
            let target = RestoreTarget { time: Some(time.into()), ..RestoreTarget::default() };
            let wanted = Wanted { target, store: store.map(str::to_owned) };
            let known = Known { name: "chat", backup: &two, report: None, now };
            chosen(&known, &wanted).map(|chosen| chosen.backup.store.clone())
        };
        let early = of(None, "2026-11-27T23:59:59Z").expect_err("a refusal");
        assert!(early.contains("the store main: ") && early.ends_with("--store other"), "{early}");
        assert_eq!(of(Some("other"), "2026-11-27T23:59:59Z").as_deref(), Ok("other"));
        let nowhere = of(None, "2026-11-19T00:00:00Z").expect_err("a refusal");
        assert!(!nowhere.contains("--store"), "{nowhere}");
        let unknown = of(Some("third"), "2026-11-28T12:00:00Z").expect_err("a refusal");
        assert!(unknown.contains("third") && unknown.contains("main and other"), "{unknown}");
        let gap = of(None, "2026-11-28T12:00:00Z").expect_err("what is left could not be restored");
        assert!(gap.contains("back the database up first") && gap.contains("--store other"), "{gap}");
        assert_eq!(of(Some("other"), "2026-11-28T12:00:00Z").as_deref(), Ok("other"));
        let lacks = said(&backup, "2026-11-29T11:00:00Z").expect("a refusal");
        assert!(lacks.contains("lacks WAL at 2026-11-29T10:00:00Z"), "{lacks}");
        assert_eq!(said(&backup, "2026-11-29T09:59:59Z"), None);
        let immediate = RestoreTarget { immediate: true, ..RestoreTarget::default() };
        assert_eq!(refusal("chat", &immediate, (&backup, &[]), now), None);
        backup.recoverable_from = None;
        assert!(
            refusal("chat", &immediate, (&backup, &[]), now)
                .is_some_and(|said| said.contains("has no backup in the store main"))
        );
    }

    /// The operator or the agent would refuse each of them.
    #[test]
    fn a_state_that_the_database_cannot_have_is_refused_before_anybody_is_asked() {
        let backup: BackupStatus = serde_json::from_value(serde_json::json!({
            "store": "main", "path": "/x", "recoverableFrom": "2026-11-28T00:00:00Z",
            "second": {"store": "other", "path": "/x", "recoverableFrom": "2026-11-28T00:00:00Z"},
            "leftTimelines": [
                {"timeline": 3, "leftAt": "2026-11-29T11:00:00Z", "continuedAs": 4, "store": "other"},
            ],
        }))
        .expect("a status");
        let now = "2026-11-29T12:00:00Z".parse().expect("a time");
        let mut report = Report::starting("u".into(), now);
        report.timeline = Some(4);
        let said = |target: serde_json::Value, store: Option<&str>| {
            let target = serde_json::from_value(target).expect("a target");
            let known = Known { name: "chat", backup: &backup, report: Some(&report), now };
            let wanted = Wanted { target, store: store.map(str::to_owned) };
            chosen(&known, &wanted).map(|chosen| chosen.backup.store.clone()).unwrap_or_else(|said| said)
        };
        let first = said(serde_json::json!({"lsn": "0/1"}), None);
        assert!(first.contains("0/1 is no position of chat") && first.contains("0/1000000"), "{first}");
        let ninth = said(serde_json::json!({"lsn": "0/3000148", "timeline": 9}), None);
        assert!(ninth.contains("no timeline 9: its present one is 4"), "{ninth}");
        assert_eq!(said(serde_json::json!({"lsn": "0/3000148", "timeline": 4}), None), "main");
        let left = serde_json::json!({"time": "2026-11-29T10:00:00Z"});
        let elsewhere = said(left.clone(), None);
        assert!(elsewhere.contains("may lack the end of that timeline"), "{elsewhere}");
        assert!(elsewhere.contains("--store other"), "{elsewhere}");
        assert_eq!(said(left, Some("other")), "other");
    }

    #[test]
    fn a_time_of_an_upgrade_that_was_taken_back_is_refused_before_anybody_is_asked() {
        let backup: BackupStatus = serde_json::from_value(serde_json::json!({
            "store": "main", "path": "/x", "recoverableFrom": "2026-11-30T22:30:00Z",
            "leftDatabases": [
                {"leftAt": "2026-11-30T22:36:57Z", "from": 17, "to": 18, "systemIdentifier": "7", "continuedAs": "8"},
                {"leftAt": "2026-11-30T22:37:58Z", "from": 18, "to": 17, "systemIdentifier": "8", "continuedAs": "7"},
            ],
            "windows": [
                {"from": "2026-11-30T22:30:00Z", "until": "2026-11-30T22:36:57Z", "postgresMajor": 17},
                {"from": "2026-11-30T22:37:58Z", "postgresMajor": 17},
            ],
        }))
        .expect("a status");
        let now = "2026-11-30T23:00:00Z".parse().expect("a time");
        let known = Known { name: "old", backup: &backup, report: None, now };
        let of = |time: &str| {
            let target = RestoreTarget { time: Some(time.into()), ..RestoreTarget::default() };
            chosen(&known, &Wanted { target, store: None }).map(|chosen| chosen.backup.store.clone())
        };
        let said = of("2026-11-30T22:37:38Z").expect_err("of 18");
        assert!(said.contains("was of PostgreSQL 18") && said.contains("cannot be restored from it"), "{said}");
        assert_eq!(of("2026-11-30T22:36:00Z").as_deref(), Ok("main"));
        assert_eq!(of("2026-11-30T22:45:00Z").as_deref(), Ok("main"));
    }

    #[test]
    fn a_position_is_one_of_wal() {
        for text in ["0/3000148", "1A/ffFF0000", "00000000/00000000"] {
            assert_eq!(position(text).as_deref(), Ok(text));
        }
        for text in ["", "0/zz", "0", "/", "0/", "/1", "123456789/0", "0/123456789", "0/1/2", "0/ 1", "0/+1"] {
            assert!(position(text).is_err(), "{text}");
        }
    }
}
