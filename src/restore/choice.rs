//! Which backup a restore begins with, and where it ends.

use std::collections::BTreeSet;

use k8s_openapi::jiff::tz::TimeZone;

use crate::contract::backup::Target;
use crate::contract::pod::WAL_SEGMENT;
use crate::pgbackrest::info::{Backup, Info, lsn, position};

/// The backups to begin with, the best first: the newest that ended before the target. Named, since pgBackRest chooses
/// by its own reading of the time. `database` is the system identifier of the database that had the state: a backup of another
/// one, from before a major upgrade or the way back, leads to another state. Without it the archive tells what it can.
///
/// # Errors
/// If none did.
pub fn candidates<'a>(info: &'a Info, target: &Target, database: Option<&str>) -> Result<Vec<&'a Backup>, String> {
    let fits = |backup: &&Backup| match target {
        Target::Latest | Target::Name(_) | Target::Immediate => true,
        Target::Time(time) => backup.finished_at <= *time,
        Target::Lsn(target) => lsn(&backup.last_position).is_some_and(|stop| Some(stop) <= lsn(target)),
    };
    let Some(first) = info.backups.first() else { return Err("the store has no backup there".to_owned()) };
    let database = database.or_else(|| database_of(info, target));
    let is_of_it = |backup: &&Backup| database.zip(info.database_of(backup)).is_none_or(|(wanted, own)| wanted == own);
    let mut fitting: Vec<_> = info.backups.iter().rev().filter(fits).filter(is_of_it).collect();
    if fitting.is_empty() && info.backups.iter().any(|backup| fits(&backup)) {
        return Err(format!(
            "the backups in the store that ended before {target} are of another database than the one that had that state: a \
             major upgrade, or the way back from one, lies between (docs/upgrades.md)"
        ));
    }
    if fitting.is_empty() {
        return Err(format!(
            "no backup in the store ended before {target}: the first moment is {}, at the WAL position {}",
            first.finished_at, first.last_position
        ));
    }
    if *target == Target::Immediate {
        fitting.truncate(1);
    }
    Ok(fitting)
}

/// The database that had a state, as far as the archive tells: at a time that of the newest backup that began before, and of
/// the latest state the present one, whose backups need not be the newest after the way back from an upgrade. A position or
/// a name may be of any.
fn database_of<'a>(info: &'a Info, target: &Target) -> Option<&'a str> {
    let until = match target {
        Target::Time(time) => Some(*time),
        Target::Latest if info.present().is_some() => return info.present(),
        Target::Latest => None,
        Target::Lsn(_) | Target::Name(_) | Target::Immediate => return None,
    };
    let began = |backup: &&Backup| until.is_none_or(|until| backup.started_at <= until);
    info.database_of(info.backups.iter().filter(began).max_by_key(|backup| backup.started_at)?)
}

/// The incarnations of the databases that backups are of: after the way back from an upgrade, one has two. For a position or
/// a name the backups may be of several databases, and an older one of another database may lead to it.
pub fn incarnations(info: &Info, backups: &[&Backup]) -> BTreeSet<u32> {
    let own: BTreeSet<_> = backups.iter().filter_map(|backup| info.database_of(backup)).collect();
    let of_them = info.databases.iter().filter(|(_, identifier)| own.contains(identifier.as_str())).map(|(id, _)| *id);
    of_them.chain(backups.iter().map(|backup| backup.incarnation)).collect()
}

/// Checks that the store has a timeline.
///
/// # Errors
/// If not, with those that it has.
pub fn check_timeline(timeline: u32, known: &BTreeSet<u32>, store: &str) -> Result<(), String> {
    if known.contains(&timeline) {
        return Ok(());
    }
    let known = known.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let known = if known.is_empty() { "none".to_owned() } else { known };
    Err(format!("the store {store} has no timeline {timeline} of that database; it has {known}"))
}

/// Checks that recovery did not end before the newest segment of the archive.
///
/// # Errors
/// If a segment in between is missing.
pub fn check_end(ended: Option<&str>, newest: Option<&str>) -> Result<(), String> {
    let (Some(ended), Some(segment)) = (ended, newest) else { return Ok(()) };
    let Some(newest) = position(segment) else { return Ok(()) };
    if lsn(ended).is_some_and(|end| end / WAL_SEGMENT < newest) {
        return Err(format!(
            "the archive has a gap: recovery ended at {ended}, and the store has later WAL, up to the segment {segment}"
        ));
    }
    Ok(())
}

/// The options for a target. The latest timeline has every failover of the other database.
pub fn options(target: &Target, timeline: Option<u32>) -> Vec<String> {
    let (kind, value) = match target {
        Target::Latest => ("default", None),
        Target::Immediate => ("immediate", None),
        Target::Lsn(lsn) => ("lsn", Some(lsn.clone())),
        Target::Name(name) => ("name", Some(name.clone())),
        Target::Time(time) => {
            // With its offset: pgBackRest and PostgreSQL would each take their own zone otherwise.
            let time = time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string();
            ("time", Some(time))
        }
    };
    let mut options = vec![format!("--type={kind}")];
    // A backup alone is of the timeline on which it was made.
    if *target != Target::Immediate {
        options.push(match timeline {
            Some(timeline) => format!("--target-timeline={timeline}"),
            None => "--target-timeline=latest".to_owned(),
        });
    }
    options.extend(value.map(|value| format!("--target={value}")));
    if kind != "default" {
        options.push("--target-action=promote".to_owned());
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::BackupType;
    use crate::pgbackrest::info::Backup;

    fn info() -> Info {
        let backup = |label: &str, end: &str, last: &str| Backup {
            label: label.to_owned(),
            kind: BackupType::Full,
            incarnation: 1,
            started_at: end.parse().expect("a time"),
            finished_at: end.parse().expect("a time"),
            database_bytes: 1,
            stored_bytes: 1,
            first_segment: "000000010000000000000001".to_owned(),
            last_position: last.to_owned(),
        };
        let backups = vec![
            backup("one", "2026-11-29T03:00:10Z", "0/3000100"),
            backup("two", "2026-11-29T09:00:10Z", "1/A000000"),
        ];
        Info { incarnation: Some(1), backups, ..Info::default() }
    }

    #[test]
    fn the_set_is_the_newest_that_ended_before_the_target() {
        let info = info();
        let of = |target: &Target| {
            candidates(&info, target, None).map(|found| found.iter().map(|set| set.label.clone()).collect::<Vec<_>>())
        };
        let time = |text: &str| Target::Time(text.parse().expect("a time"));
        assert_eq!(of(&Target::Latest), Ok(vec!["two".into(), "one".into()]));
        assert_eq!(of(&Target::Immediate), Ok(vec!["two".into()]));
        assert_eq!(of(&time("2026-11-29T09:00:09Z")), Ok(vec!["one".into()]));
        assert_eq!(of(&time("2026-11-29T09:00:10Z")).map(|found| found[0].clone()), Ok("two".into()));
        assert_eq!(of(&Target::Lsn("0/FFFFFFFF".into())), Ok(vec!["one".into()]));
        assert_eq!(of(&Target::Lsn("1/A000000".into())).map(|found| found[0].clone()), Ok("two".into()));
        let said = of(&time("2026-11-29T03:00:09Z")).expect_err("before the first");
        assert!(said.contains("2026-11-29T03:00:10Z") && said.contains("0/3000100"), "{said}");
        assert!(candidates(&Info::default(), &Target::Latest, None).is_err());
    }

    #[test]
    fn a_backup_of_another_database_is_no_candidate() {
        // 17, 18 and 17 again, after the way back: the first and the third incarnation are one database.
        let mut info = info();
        info.databases = [(1, "7".to_owned()), (2, "8".to_owned()), (3, "7".to_owned())].into();
        info.incarnation = Some(3);
        info.backups[1].incarnation = 2;
        let of = |target: &Target, database: Option<&str>| {
            candidates(&info, target, database)
                .map(|found| found.iter().map(|set| set.label.clone()).collect::<Vec<_>>())
        };
        let time = |text: &str| Target::Time(text.parse().expect("a time"));
        let late = time("2026-11-29T10:00:00Z");
        assert_eq!(of(&late, Some("7")), Ok(vec!["one".into()]), "the newest one is of the database that was left");
        assert_eq!(of(&late, Some("8")), Ok(vec!["two".into()]));
        assert_eq!(of(&late, None), Ok(vec!["two".into()]), "as far as the archive tells");
        let said = of(&time("2026-11-29T08:00:00Z"), Some("8")).expect_err("before the first backup of 18");
        assert!(said.contains("of another database"), "{said}");
        assert_eq!(of(&Target::Latest, None), Ok(vec!["one".into()]), "of the present one, not of the newest backup");
        assert_eq!(of(&Target::Lsn("1/A000000".into()), None), Ok(vec!["two".into(), "one".into()]));
        assert_eq!(incarnations(&info, &[&info.backups[0]]), BTreeSet::from([1, 3]));
        assert_eq!(incarnations(&info, &[&info.backups[1]]), BTreeSet::from([2]));
        let both = candidates(&info, &Target::Lsn("1/A000000".into()), None).expect("two backups");
        assert_eq!(incarnations(&info, &both), BTreeSet::from([1, 2, 3]), "a timeline of either is known");
    }

    #[test]
    fn the_state_from_before_an_upgrade_is_not_the_latest() {
        let databases = [(1, "7".to_owned()), (2, "8".to_owned())].into();
        let upgraded = Info { databases, incarnation: Some(2), ..info() };
        let said = candidates(&upgraded, &Target::Latest, None).expect_err("no backup of 18");
        assert!(said.contains("of another database"), "{said}");
        let before = Target::Time("2026-11-29T10:00:00Z".parse().expect("a time"));
        assert_eq!(candidates(&upgraded, &before, None).map(|found| found.len()), Ok(2));
    }

    #[test]
    fn a_timeline_that_the_store_lacks_is_named_with_those_that_it_has() {
        let known = BTreeSet::from([1, 2]);
        assert_eq!(check_timeline(2, &known, "second"), Ok(()));
        let said = check_timeline(9, &known, "second").expect_err("no timeline");
        assert_eq!(said, "the store second has no timeline 9 of that database; it has 1, 2");
        assert!(check_timeline(1, &BTreeSet::new(), "main").is_err_and(|said| said.ends_with("it has none")));
    }

    #[test]
    fn an_end_before_the_newest_segment_is_a_gap() {
        let newest = Some("000000020000000100000005");
        assert_eq!(check_end(Some("1/5000028"), newest), Ok(()));
        assert_eq!(check_end(Some("1/6000028"), newest), Ok(()));
        assert_eq!(check_end(Some("1/4FFFFF8"), None), Ok(()));
        let said = check_end(Some("1/4FFFFF8"), newest).expect_err("a gap");
        assert!(said.contains("1/4FFFFF8") && said.contains("000000020000000100000005"), "{said}");
    }

    #[test]
    fn a_time_has_its_offset_and_its_fraction() {
        let target = Target::Time("2026-11-29T12:00:00.25+02:00".parse().expect("a time"));
        let options = options(&target, None);
        assert!(options.contains(&"--target=2026-11-29 10:00:00.250000+00".to_owned()), "{options:?}");
        assert!(options.contains(&"--target-timeline=latest".to_owned()), "{options:?}");
        let options = super::options(&target, Some(10));
        assert!(options.contains(&"--target-timeline=10".to_owned()), "decimal, as PostgreSQL reads it: {options:?}");
    }
}
