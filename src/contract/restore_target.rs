//! The state to restore: read from a spec or a request, and checked against what can be recovered.

use k8s_openapi::jiff::Timestamp;

use super::backup::Target;
use super::recovery_window::{self, Destination, database_at};
use crate::api::{BackupStatus, RestoreTarget};

/// Reads a target and its timeline. `field` is where it is declared.
///
/// # Errors
/// The field, and the problem.
pub fn parse(spec: Option<&RestoreTarget>, field: &str) -> Result<(Target, Option<u32>), String> {
    let Some(spec) = spec else { return Ok((Target::Latest, None)) };
    let target = match (&spec.time, &spec.lsn, &spec.name, spec.immediate) {
        (Some(time), None, None, false) => {
            let parsed = time.parse().map_err(|error| format!("{field}: time is {time}: {error}"))?;
            Target::Time(parsed)
        }
        (None, Some(lsn), None, false) => Target::Lsn(lsn.clone()),
        (None, None, Some(name), false) => Target::Name(name.clone()),
        (None, None, None, true) => Target::Immediate,
        _ => return Err(format!("{field} needs exactly one of time, lsn, name and immediate: true")),
    };
    let timeline = match spec.timeline {
        None => None,
        Some(_) if target == Target::Immediate => {
            return Err(format!("{field}: timeline does not apply to the newest backup alone"));
        }
        Some(timeline) => match u32::try_from(timeline) {
            Ok(timeline) if timeline > 0 => Some(timeline),
            _ => return Err(format!("{field}: timeline is {timeline}: timelines are counted from 1")),
        },
    };
    Ok((target, timeline))
}

/// Checks a target against what status says can be recovered, and returns the timeline on which it lies: none for the
/// latest. `name` is the database's. Its left timelines and databases are read from the same status.
///
/// # Errors
/// The database, the time, and the window.
pub fn check(
    backup: Option<&BackupStatus>,
    (target, timeline): (&Target, Option<u32>),
    (name, destination): (&str, Destination),
    now: Timestamp,
) -> Result<Option<u32>, String> {
    let Some((backup, from)) = backup.and_then(|backup| Some((backup, backup.recoverable_from.as_ref()?.0))) else {
        return Err(format!("{name} has no backup in a store: see its conditions BackedUp and ContinuousArchiving"));
    };
    let refused = |time| recovery_window::refusal(backup, &backup.left_databases, time, destination, name);
    let Target::Time(time) = target else {
        let refusal = if *target == Target::Latest { refused(None) } else { None };
        return refusal.map_or(Ok(timeline), Err);
    };
    if *time < from || *time > now {
        return Err(format!(
            "{name} cannot be restored to {time}: it can be recovered from {from} on, until now, as far as its WAL is \
             archived"
        ));
    }
    let full = backup.newest_full.as_ref().map(|full| full.started_at.0);
    if let Some(gap) = backup.given_up_at.as_ref().map(|at| at.0)
        && full.is_some_and(|full| full < gap)
        && *time > gap
    {
        return Err(format!(
            "{name} cannot be restored to {time}: its archive lacks WAL at {gap}, and there is no full backup after it"
        ));
    }
    if let Some(refusal) = refused(Some(*time)) {
        return Err(refusal);
    }
    // Each database counts its timelines from 1.
    let database = |time| database_at(&backup.left_databases, Some(time));
    let left = backup
        .left_timelines
        .iter()
        .find(|left| left.left_at.0 >= *time && database(left.left_at.0) == database(*time));
    Ok(timeline.or_else(|| left.and_then(|left| u32::try_from(left.timeline).ok())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup() -> BackupStatus {
        serde_json::from_value(serde_json::json!({
            "store": "main", "path": "/elsewhere", "recoverableFrom": "2026-11-29T10:00:00Z",
            "leftTimelines": [
                {"timeline": 3, "leftAt": "2026-11-29T11:00:00Z", "continuedAs": 4},
                {"timeline": 6, "leftAt": "2026-11-29T12:00:00Z", "continuedAs": 7},
            ],
        }))
        .expect("a status")
    }

    #[test]
    fn a_time_lies_on_the_timeline_that_was_alive_then() {
        let of = |time: &str, timeline| {
            let target = Target::Time(time.parse().expect("a time"));
            let now = "2026-11-29T13:00:00Z".parse().expect("a time");
            check(Some(&backup()), (&target, timeline), ("chat", Destination::InPlace), now)
        };
        assert_eq!(of("2026-11-29T10:30:00Z", None), Ok(Some(3)));
        assert_eq!(of("2026-11-29T11:00:00Z", None), Ok(Some(3)), "the last moment of the state that was left");
        assert_eq!(of("2026-11-29T11:00:01Z", None), Ok(Some(6)));
        assert_eq!(of("2026-11-29T12:30:00Z", None), Ok(None), "the present one");
        assert_eq!(of("2026-11-29T10:30:00Z", Some(6)), Ok(Some(6)), "as requested");
        let said = of("2026-11-29T13:00:01Z", None).expect_err("the future");
        assert!(said.starts_with("chat cannot be restored to 2026-11-29T13:00:01Z: "), "{said}");
        assert!(said.contains("from 2026-11-29T10:00:00Z on"), "{said}");
        assert!(of("2026-11-29T09:59:59Z", None).is_err());
    }

    #[test]
    fn a_timeline_counts_only_for_the_database_that_it_is_of() {
        // Upgraded at 10:30, restored in place at 11:00 and 12:00, and taken back at 12:30.
        let mut backup = backup();
        backup.left_databases = serde_json::from_value(serde_json::json!([
            {"leftAt": "2026-11-29T10:30:00Z", "from": 17, "to": 18, "systemIdentifier": "7", "continuedAs": "8"},
            {"leftAt": "2026-11-29T12:30:00Z", "from": 18, "to": 17, "systemIdentifier": "8", "continuedAs": "7"},
        ]))
        .expect("left databases");
        backup.windows = serde_json::from_value(serde_json::json!([
            {"from": "2026-11-29T10:00:00Z", "until": "2026-11-29T10:30:00Z"},
            {"from": "2026-11-29T10:40:00Z", "until": "2026-11-29T12:30:00Z"},
            {"from": "2026-11-29T12:30:00Z"},
        ]))
        .expect("windows");
        let of = |time: &str, destination| {
            let target = Target::Time(time.parse().expect("a time"));
            let now = "2026-11-29T13:00:00Z".parse().expect("a time");
            check(Some(&backup), (&target, None), ("chat", destination), now)
        };
        assert_eq!(of("2026-11-29T10:20:00Z", Destination::InPlace), Ok(None), "3 and 6 are timelines of 18");
        assert_eq!(of("2026-11-29T10:50:00Z", Destination::NewDatabase), Ok(Some(3)));
        let said = of("2026-11-29T10:50:00Z", Destination::InPlace).expect_err("of 18");
        assert!(said.contains("was of PostgreSQL 18") && said.contains("into a new database"), "{said}");
        assert_eq!(of("2026-11-29T12:45:00Z", Destination::InPlace), Ok(None));
    }

    #[test]
    fn a_target_is_one_thing() {
        let parsed = |target: serde_json::Value| {
            parse(Some(&serde_json::from_value(target).expect("a target")), "spec.bootstrap.restore.target")
        };
        assert_eq!(parse(None, "f"), Ok((Target::Latest, None)));
        assert_eq!(
            parsed(serde_json::json!({"lsn": "0/3000148", "timeline": 2})),
            Ok((Target::Lsn("0/3000148".into()), Some(2)))
        );
        for wrong in [
            serde_json::json!({}),
            serde_json::json!({"lsn": "0/1", "name": "a"}),
            serde_json::json!({"time": "yesterday"}),
            serde_json::json!({"immediate": true, "timeline": 2}),
            serde_json::json!({"lsn": "0/1", "timeline": 0}),
        ] {
            let said = parsed(wrong.clone()).expect_err("a refusal");
            assert!(said.starts_with("spec.bootstrap.restore.target"), "{wrong}: {said}");
            assert!(!said.contains("target.time"), "a field and its part: {said}");
        }
    }
}
