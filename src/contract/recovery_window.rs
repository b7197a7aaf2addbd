//! Which of the databases that one ServiceDatabase has had was there at a time, and whether a store can recover it: a major
//! upgrade, and the way back from it, begin another one (docs/upgrades.md).

use k8s_openapi::jiff::Timestamp;

use crate::api::{BackupStatus, LeftDatabase};

/// What a state is restored into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The database itself.
    InPlace,
    /// Another one, which is new.
    NewDatabase,
}

/// The database that was there at a time; none: the present one. The last moment is still that of the one that was left.
pub fn left_after(left: &[LeftDatabase], time: Timestamp) -> Option<&LeftDatabase> {
    left.iter().find(|left| left.left_at.0 >= time)
}

/// Whether a time is from before the first change that is known, and that is not known as an upgrade: it may be the way back
/// from one whose record was lost, as with the status of a database that was adopted. The time is then of either database.
fn is_unclear(left: &[LeftDatabase], time: Timestamp) -> bool {
    let is_upgrade = |left: &LeftDatabase| left.from.is_some_and(|from| from < left.to);
    left.first().is_some_and(|first| first.left_at.0 >= time && !is_upgrade(first))
}

/// The system identifier of the database that had the state of a time, or without one of the present one. None where there
/// was no upgrade, or the record of it was lost.
pub fn database_at(left: &[LeftDatabase], time: Option<Timestamp>) -> Option<&str> {
    if time.is_some_and(|time| is_unclear(left, time)) {
        return None;
    }
    let was = time.and_then(|time| left_after(left, time)).map(|left| left.system_identifier.as_str());
    was.or_else(|| left.last().map(|last| last.continued_as.as_str()))
}

/// The same for a moment with which a window begins.
pub fn database_from(left: &[LeftDatabase], from: Timestamp) -> Option<&str> {
    let was = left.iter().find(|left| left.left_at.0 > from).map(|left| left.system_identifier.as_str());
    was.or_else(|| left.last().map(|last| last.continued_as.as_str()))
}

/// Why a store cannot restore the state of a time, or without one the latest, because of a major upgrade; and what can be
/// done. `left` has the databases that were left, `name` is the database's.
pub fn refusal(
    backup: &BackupStatus,
    left: &[LeftDatabase],
    time: Option<Timestamp>,
    destination: Destination,
    name: &str,
) -> Option<String> {
    let present = left.last()?;
    let was = time.and_then(|time| left_after(left, time));
    let is_present = database_at(left, time) == Some(present.continued_as.as_str());
    let window = backup.windows.iter().find(|window| {
        let until = window.until.as_ref();
        time.map_or(until.is_none(), |time| window.from.0 <= time && until.is_none_or(|until| time <= until.0))
    });
    if window.is_some() && (is_present || destination == Destination::NewDatabase) {
        return None;
    }
    // The archive, and the data itself, tell the rest.
    if window.is_none() && time.is_some_and(|time| is_unclear(left, time)) {
        return None;
    }
    let store = &backup.store;
    let what = time.map_or_else(|| "the latest state".to_owned(), |time| format!("the state of {time}"));
    let reason = match was {
        Some(was) => {
            let version = was.from.map_or_else(|| "an earlier version".to_owned(), |from| format!("PostgreSQL {from}"));
            let change = if was.from > Some(was.to) { "taken back" } else { "upgraded" };
            format!(
                "{what} was of {version}, from which the database was {change} to PostgreSQL {} at {}",
                was.to, was.left_at.0
            )
        }
        None => format!(
            "{what} is of the database that began at {}, with the change to PostgreSQL {}",
            present.left_at.0, present.to
        ),
    };
    let way = match window {
        Some(window) => format!(
            "the store {store} has a backup that leads to it (its window begins at {}): restore it into a new database, with \
             spec.bootstrap.restore (docs/upgrades.md)",
            window.from.0
        ),
        None => format!(
            "the store {store} has no backup of that database that ended before, so this state cannot be restored from it, \
             neither in place nor into a new database"
        ),
    };
    let wanted = time.map_or_else(|| "the latest state".to_owned(), |time| time.to_string());
    Some(format!("{name} cannot be restored to {wanted}: {reason}; {way}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: &str) -> Timestamp {
        format!("2026-11-30T22:{minute}Z").parse().expect("a time")
    }

    /// Upgraded at 22:36:57, taken back at 22:37:58. The store has backups of 17 from 22:30 on, and of 18 from 22:37:40 on.
    fn backup() -> BackupStatus {
        serde_json::from_value(serde_json::json!({
            "store": "main", "path": "/x", "recoverableFrom": "2026-11-30T22:30:00Z",
            "leftDatabases": [
                {"leftAt": "2026-11-30T22:36:57Z", "from": 17, "to": 18, "systemIdentifier": "7", "continuedAs": "8"},
                {"leftAt": "2026-11-30T22:37:58Z", "from": 18, "to": 17, "systemIdentifier": "8", "continuedAs": "7"},
            ],
            "windows": [
                {"from": "2026-11-30T22:30:00Z", "until": "2026-11-30T22:36:57Z", "postgresMajor": 17},
                {"from": "2026-11-30T22:37:40Z", "until": "2026-11-30T22:37:58Z", "postgresMajor": 18},
                {"from": "2026-11-30T22:37:58Z", "postgresMajor": 17},
            ],
        }))
        .expect("a status")
    }

    fn said(backup: &BackupStatus, time: Option<&str>, destination: Destination) -> Option<String> {
        refusal(backup, &backup.left_databases, time.map(at), destination, "old")
    }

    #[test]
    fn a_time_between_an_upgrade_and_the_way_back_is_of_the_upgraded_database() {
        let backup = backup();
        for destination in [Destination::InPlace, Destination::NewDatabase] {
            let said = said(&backup, Some("37:38"), destination).expect("no backup of 18 ended before");
            assert!(said.starts_with("old cannot be restored to 2026-11-30T22:37:38Z: "), "{said}");
            assert!(
                said.contains("of PostgreSQL 18, from which the database was taken back to PostgreSQL 17"),
                "{said}"
            );
            assert!(said.contains("neither in place nor into a new database"), "{said}");
        }
        let in_place = said(&backup, Some("37:50"), Destination::InPlace).expect("of 18");
        assert!(in_place.contains("spec.bootstrap.restore") && in_place.contains("22:37:40Z"), "{in_place}");
        assert_eq!(said(&backup, Some("37:50"), Destination::NewDatabase), None);
    }

    #[test]
    fn the_database_from_before_the_upgrade_is_the_present_one_after_the_way_back() {
        let backup = backup();
        for time in ["35:00", "36:57", "38:30"] {
            assert_eq!(said(&backup, Some(time), Destination::InPlace), None, "{time}");
        }
        assert_eq!(said(&backup, None, Destination::InPlace), None);
        assert_eq!(database_at(&backup.left_databases, Some(at("35:00"))), Some("7"));
        assert_eq!(database_at(&backup.left_databases, Some(at("37:30"))), Some("8"));
        assert_eq!(database_at(&backup.left_databases, None), Some("7"));
        assert_eq!(database_from(&backup.left_databases, at("37:58")), Some("7"), "the end of 18 begins the next one");
        assert_eq!(database_at(&[], None), None);
    }

    /// The way back is all that the data directory of an adopted database tells; an earlier version recorded no more either.
    #[test]
    fn a_time_before_a_way_back_whose_upgrade_is_not_recorded_is_not_refused() {
        let mut backup = backup();
        backup.left_databases.remove(0);
        backup.windows.remove(0);
        for from in [Some(18), None] {
            backup.left_databases[0].from = from;
            for destination in [Destination::InPlace, Destination::NewDatabase] {
                assert_eq!(said(&backup, Some("35:00"), destination), None, "it may be of the present one");
            }
            assert_eq!(database_at(&backup.left_databases, Some(at("35:00"))), None);
            let upgraded = said(&backup, Some("37:50"), Destination::InPlace).expect("18 has a backup from before");
            assert!(upgraded.contains("spec.bootstrap.restore"), "{upgraded}");
            assert_eq!(said(&backup, Some("38:30"), Destination::InPlace), None);
            assert_eq!(database_at(&backup.left_databases, Some(at("38:30"))), Some("7"));
        }
    }

    #[test]
    fn a_time_before_a_second_upgrade_leads_into_a_new_database_alone() {
        let mut backup = backup();
        backup.left_databases.push(LeftDatabase {
            left_at: serde_json::from_value("2026-11-30T22:50:00Z".into()).expect("a time"),
            from: Some(17),
            to: 18,
            system_identifier: "7".into(),
            continued_as: "9".into(),
        });
        backup.windows[2].until = serde_json::from_value("2026-11-30T22:50:00Z".into()).expect("a time");
        for time in ["35:00", "40:00"] {
            let told = said(&backup, Some(time), Destination::InPlace).expect("of 17");
            assert!(told.contains("into a new database"), "{told}");
            assert_eq!(said(&backup, Some(time), Destination::NewDatabase), None, "{time}");
        }
        // No backup of the present one yet.
        for time in [Some("51:00"), None] {
            let told = said(&backup, time, Destination::NewDatabase).expect("no backup");
            assert!(told.contains("began at 2026-11-30T22:50:00Z, with the change to PostgreSQL 18"), "{told}");
        }
    }
}
