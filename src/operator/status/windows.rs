//! The spans to which a store can recover a database after a major upgrade: each database that it was has its own.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{BackupStatus, LeftDatabase, RecoveryWindow};
use crate::contract::recovery_window::database_from;
use crate::contract::report::{Catalogue, CatalogueDatabase};

/// The windows of a store; none without an upgrade. `status` has what is known of its backups, with the windows from
/// before.
pub fn of(left: &[LeftDatabase], catalogue: Option<&Catalogue>, status: &BackupStatus) -> Vec<RecoveryWindow> {
    match catalogue.map(|catalogue| catalogue.databases.as_slice()) {
        Some(databases) if !databases.is_empty() => between(left, databases),
        catalogue => {
            let known = status.windows.iter().map(|window| window.from.0).filter(|_| catalogue.is_none());
            // An agent of an earlier version does not tell the backups' databases: their times do.
            let newest = [&status.newest_full, &status.newest].into_iter().flatten().map(|backup| backup.finished_at.0);
            let ends = status.recoverable_from.iter().map(|from| from.0).chain(newest).chain(known);
            let mut databases: Vec<CatalogueDatabase> = Vec::new();
            for recoverable_from in ends {
                let Some(identifier) = database_from(left, recoverable_from) else { return Vec::new() };
                match databases.iter_mut().find(|known| known.system_identifier == identifier) {
                    Some(known) => known.recoverable_from = known.recoverable_from.min(recoverable_from),
                    None => {
                        let system_identifier = identifier.to_owned();
                        databases.push(CatalogueDatabase { system_identifier, recoverable_from });
                    }
                }
            }
            between(left, &databases)
        }
    }
}

/// The part of the time of each database that follows on its first backup. One that an upgrade left, and the way back
/// brought again, has two.
fn between(left: &[LeftDatabase], databases: &[CatalogueDatabase]) -> Vec<RecoveryWindow> {
    let Some(present) = left.last() else { return Vec::new() };
    let was = left.iter().map(|left| (left.system_identifier.as_str(), Some(left.left_at.0), left.from));
    let all = was.chain([(present.continued_as.as_str(), None, Some(present.to))]);
    let begins = std::iter::once(None).chain(left.iter().map(|left| Some(left.left_at.0)));
    let windows = all.zip(begins).filter_map(|((identifier, until, postgres_major), begins)| {
        let first = databases.iter().find(|known| known.system_identifier == identifier)?.recoverable_from;
        let from = begins.map_or(first, |begins: Timestamp| begins.max(first));
        until.is_none_or(|until| from < until).then(|| RecoveryWindow {
            from: Time(from),
            until: until.map(Time),
            postgres_major,
        })
    });
    windows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left() -> Vec<LeftDatabase> {
        serde_json::from_value(serde_json::json!([
            {"leftAt": "2026-11-30T22:36:57Z", "from": 17, "to": 18, "systemIdentifier": "7", "continuedAs": "8"},
            {"leftAt": "2026-11-30T22:37:58Z", "from": 18, "to": 17, "systemIdentifier": "8", "continuedAs": "7"},
        ]))
        .expect("left databases")
    }

    fn catalogue(databases: &[(&str, &str)]) -> Catalogue {
        let database = |(identifier, minute): &(&str, &str)| CatalogueDatabase {
            system_identifier: (*identifier).to_owned(),
            recoverable_from: format!("2026-11-30T22:{minute}Z").parse().expect("a time"),
        };
        Catalogue { databases: databases.iter().map(database).collect(), ..Catalogue::default() }
    }

    fn told(windows: &[RecoveryWindow]) -> Vec<String> {
        let minute = |time: &Time| time.0.to_string().get(14..19).unwrap_or_default().to_owned();
        windows
            .iter()
            .map(|window| {
                let until = window.until.as_ref().map(minute).unwrap_or_default();
                format!("{}-{until} {}", minute(&window.from), window.postgres_major.unwrap_or_default())
            })
            .collect()
    }

    #[test]
    fn the_time_between_an_upgrade_and_the_way_back_is_in_no_window_of_the_former_database() {
        let of = |databases: &[(&str, &str)]| {
            told(&super::of(&left(), Some(&catalogue(databases)), &BackupStatus::default()))
        };
        assert_eq!(of(&[("7", "30:00")]), ["30:00-36:57 17", "37:58- 17"]);
        assert_eq!(of(&[("7", "30:00"), ("8", "37:40")]), ["30:00-36:57 17", "37:40-37:58 18", "37:58- 17"]);
        assert_eq!(of(&[("7", "45:00")]), ["45:00- 17"], "the backups from before have expired");
        assert_eq!(of(&[("8", "37:40")]), ["37:40-37:58 18"], "none of the present one");
        assert!(super::of(&[], Some(&catalogue(&[("7", "30:00")])), &BackupStatus::default()).is_empty());
    }

    #[test]
    fn without_the_agents_word_the_times_of_the_backups_tell() {
        let mut status: BackupStatus = serde_json::from_value(serde_json::json!({
            "store": "main", "path": "/x", "recoverableFrom": "2026-11-30T22:30:00Z",
        }))
        .expect("a status");
        status.windows = of(&left(), None, &status);
        assert_eq!(told(&status.windows), ["30:00-36:57 17", "37:58- 17"]);
        // Another upgrade, before the catalogue is read again.
        let mut left = left();
        left.push(LeftDatabase {
            left_at: Time("2026-11-30T22:50:00Z".parse().expect("a time")),
            from: Some(17),
            to: 18,
            system_identifier: "7".into(),
            continued_as: "9".into(),
        });
        assert_eq!(told(&of(&left, None, &status)), ["30:00-36:57 17", "37:58-50:00 17"]);
    }
}
