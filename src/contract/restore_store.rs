//! The store that a restore in place comes from, and that keeps what is left: the operator's choice, by which
//! `kubectl servicedb restore` refuses a request before anybody is asked to approve it.

use k8s_openapi::jiff::Timestamp;

use super::backup::Target;
use super::recovery_window::Destination;
use super::report::ArchiveReport;
use super::restore_target as target;
use super::time::seconds;
use crate::api::BackupStatus;
use crate::api::names::ANNOTATION_RESTORE_STORE;

/// A store that the spec declares.
#[derive(Clone, Copy, Debug, Default)]
pub struct Store<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether the primary's agent reports it: one of an earlier version knows the first store alone.
    pub is_reported: bool,
    /// Whether the primary can archive nothing to it at present.
    pub fails: bool,
    /// When WAL was last given up for it or found missing, as the primary reports; status may not have it yet.
    pub given_up_at: Option<Timestamp>,
}

impl<'a> Store<'a> {
    /// A store, with what the primary reports of it.
    pub fn of(name: &'a str, report: Option<&ArchiveReport>) -> Self {
        let archive = report.filter(|archive| archive.store == name);
        Self {
            name,
            is_reported: archive.is_some(),
            fails: archive.is_some_and(|archive| archive.failure.is_some()),
            given_up_at: archive.and_then(|archive| archive.given_up_at),
        }
    }
}

/// Chooses the store that is named, or else the first one, and returns it with the timeline of the target: none for the
/// latest. The other one is never taken without its name: from then on it alone has all of what is left.
///
/// # Errors
/// The problem; with the other store, if that one has the target.
pub fn choose<'a>(
    stores: &[Store<'a>],
    backup: Option<&BackupStatus>,
    named: Option<&str>,
    wanted: (&Target, Option<u32>),
    name: &str,
    now: Timestamp,
) -> Result<(&'a str, Option<u32>), String> {
    let Some(first) = stores.first() else { return Err(format!("{name} has no store: see spec.backup")) };
    let known = || stores.iter().map(|store| store.name).collect::<Vec<_>>().join(" and ");
    let chosen = match named {
        None => first,
        Some(named) => stores.iter().find(|store| store.name == named).ok_or_else(|| {
            format!("the store {named} is none of {name}, which has its backups in {}: name one of these", known())
        })?,
    };
    let checked = |store: &Store<'_>| check(backup, (store.name, store.given_up_at), wanted, name, now);
    let other = stores.iter().find(|store| store.name != chosen.name && !store.fails && checked(store).is_ok());
    let whole_elsewhere = |store: &Store<'_>, timeline| left_elsewhere(backup, (store.name, timeline), wanted.0);
    let with_way_out = |problem: String| match other {
        Some(other) => {
            let may_end_early = checked(other).is_ok_and(|timeline| whole_elsewhere(other, timeline).is_some());
            let part = if may_end_early { ", perhaps without the end of its timeline" } else { "" };
            format!(
                "{problem}; the store {other} has that state{part}: name it (--store {other}, or the annotation \
                 {ANNOTATION_RESTORE_STORE})",
                other = other.name
            )
        }
        None => problem,
    };
    let of = if stores.len() > 1 { format!("store {}: ", chosen.name) } else { String::new() };
    let timeline = checked(chosen).map_err(|problem| with_way_out(format!("{of}{problem}")))?;
    // A recovery that ends too early is not noticed: without its name, such a store is not used even if the other one
    // cannot serve.
    let lacks = if let Some(whole) = whole_elsewhere(chosen, timeline) {
        Some(format!("it may lack the end of that timeline, which was left by a restore from the store {whole}"))
    } else if chosen.fails && other.is_some() {
        Some("it gets no WAL at present (see ContinuousArchiving)".to_owned())
    } else {
        None
    };
    if let (None, Some(lacks)) = (named, lacks) {
        let problem = format!("{of}{lacks}, so it is used only by its name (--store {})", chosen.name);
        return Err(with_way_out(problem));
    }
    Ok((chosen.name, timeline))
}

/// Checks a target against what status has of one store, and the gap that the primary reports.
fn check(
    backup: Option<&BackupStatus>,
    (store, reported): (&str, Option<Timestamp>),
    wanted: (&Target, Option<u32>),
    name: &str,
    now: Timestamp,
) -> Result<Option<u32>, String> {
    // Timelines and upgrades are the database's, whatever store has them.
    let of_store = backup.and_then(|first| {
        let found = first.stores().find(|one| one.store == store)?;
        let (left_timelines, left_databases) = (first.left_timelines.clone(), first.left_databases.clone());
        Some(BackupStatus { left_timelines, left_databases, second: None, ..found.clone() })
    });
    let timeline = target::check(of_store.as_ref(), wanted, (name, Destination::InPlace), now)?;
    match of_store.as_ref().and_then(|backup| open_gap(backup, reported)) {
        Some(gap) => Err(lacks_way_back(gap)),
        None => Ok(timeline),
    }
}

/// When WAL was found missing in a store that has no full backup since, as status has it or the primary reports.
pub fn open_gap(backup: &BackupStatus, reported: Option<Timestamp>) -> Option<Timestamp> {
    let gap = backup.given_up_at.as_ref().map(|at| at.0).max(reported)?;
    backup.newest_full.as_ref().is_none_or(|full| full.started_at.0 < gap).then_some(gap)
}

/// The problem of a store with such a gap.
pub fn lacks_way_back(gap: Timestamp) -> String {
    let gap = seconds(gap);
    format!("the archive lacks WAL at {gap}, and there is no full backup after it: back the database up first")
}

/// The other store of the database, if the timeline is one that was left and that store is the one that has all of it.
pub fn left_elsewhere<'a>(
    backup: Option<&'a BackupStatus>,
    (store, timeline): (&str, Option<u32>),
    target: &Target,
) -> Option<&'a str> {
    let of_timeline = backup.zip(timeline).and_then(|(backup, timeline)| {
        backup.left_timelines.iter().rev().find(|left| left.timeline == i64::from(timeline))
    });
    let whole = of_timeline.and_then(|left| left.store.as_deref()).filter(|whole| *whole != store);
    // One that is no longer declared has no state there.
    let is_known = |whole: &&str| backup.is_some_and(|backup| backup.stores().any(|known| known.store == *whole));
    whole.filter(is_known).filter(|_| *target != Target::Immediate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn store(name: &str) -> Store<'_> {
        Store { name, is_reported: true, fails: false, given_up_at: None }
    }

    const BOTH: [Store<'static>; 2] = [store("main"), store("other")];

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    /// The first store can be recovered from ten on, the second one from eight on.
    fn backup() -> BackupStatus {
        serde_json::from_value(serde_json::json!({
            "store": "main", "path": "/x", "recoverableFrom": "2026-11-29T10:00:00Z",
            "second": {"store": "other", "path": "/x", "recoverableFrom": "2026-11-29T08:00:00Z"},
        }))
        .expect("a status")
    }

    fn of(stores: &[Store<'_>], backup: &BackupStatus, named: Option<&str>, time: &str) -> Result<String, String> {
        let target = Target::Time(at(time));
        let now = at("2026-11-29T12:00:00Z");
        choose(stores, Some(backup), named, (&target, None), "chat", now).map(|(store, _)| store.to_owned())
    }

    const LATE: &str = "2026-11-29T11:00:00Z";
    const EARLY: &str = "2026-11-29T09:00:00Z";

    #[test]
    fn the_first_store_serves_unless_another_one_is_named() {
        assert_eq!(of(&BOTH, &backup(), None, LATE).as_deref(), Ok("main"));
        assert_eq!(of(&BOTH, &backup(), Some("other"), LATE).as_deref(), Ok("other"));
        assert_eq!(of(&BOTH, &backup(), Some("other"), EARLY).as_deref(), Ok("other"));
        let said = of(&BOTH, &backup(), Some("third"), LATE).expect_err("no store of it");
        assert!(said.contains("third") && said.contains("main and other"), "{said}");
        let none = of(&[], &backup(), None, LATE).expect_err("no store");
        assert!(none.contains("spec.backup"), "{none}");
    }

    #[test]
    fn a_store_without_the_target_is_refused_with_the_one_that_has_it() {
        for named in [None, Some("main")] {
            let said = of(&BOTH, &backup(), named, EARLY).expect_err("before its first backup");
            assert!(said.starts_with("store main: chat cannot be restored to"), "{said}");
            assert!(said.contains("2026-11-29T10:00:00Z") && said.contains("--store other"), "{said}");
        }
        let nowhere = of(&BOTH, &backup(), None, "2026-11-29T07:00:00Z").expect_err("in none");
        assert!(!nowhere.contains("--store"), "{nowhere}");
        let one = of(&BOTH[..1], &backup(), None, EARLY).expect_err("the other one is not declared any more");
        assert!(one.starts_with("chat cannot be restored") && !one.contains("--store"), "{one}");
    }

    #[test]
    fn a_first_store_that_is_away_is_not_replaced_silently_and_serves_by_its_name() {
        let away = [Store { fails: true, ..BOTH[0] }, BOTH[1]];
        let said = of(&away, &backup(), None, LATE).expect_err("the first one is away");
        assert!(said.contains("ContinuousArchiving"), "{said}");
        assert!(said.contains("--store main") && said.contains("--store other"), "{said}");
        assert_eq!(of(&away, &backup(), Some("main"), LATE).as_deref(), Ok("main"));
        let both = away.map(|store| Store { fails: true, ..store });
        assert_eq!(of(&both, &backup(), None, LATE).as_deref(), Ok("main"), "no other one serves");
    }

    #[test]
    fn a_gap_that_is_open_would_leave_no_way_back() {
        let mut backup = backup();
        backup.given_up_at = serde_json::from_value("2026-11-29T11:30:00Z".into()).expect("a time");
        let said = of(&BOTH, &backup, None, LATE).expect_err("a gap");
        assert!(said.contains("lacks WAL at 2026-11-29T11:30:00Z") && said.contains("--store other"), "{said}");
        assert_eq!(of(&BOTH, &backup, Some("other"), LATE).as_deref(), Ok("other"));
        backup.given_up_at = None;
        let reported = [Store { given_up_at: Some(at("2026-11-29T11:30:00Z")), ..BOTH[0] }, BOTH[1]];
        let said = of(&reported, &backup, None, LATE).expect_err("a gap that status does not have yet");
        assert!(said.contains("lacks WAL at 2026-11-29T11:30:00Z"), "{said}");
    }

    #[test]
    fn a_timeline_that_only_the_other_store_has_whole_is_restored_from_there() {
        let mut backup = backup();
        backup.left_timelines = serde_json::from_value(serde_json::json!([
            {"timeline": 3, "leftAt": "2026-11-29T11:00:00Z", "continuedAs": 4, "store": "other"},
        ]))
        .expect("timelines");
        let said = of(&BOTH, &backup, None, LATE).expect_err("the last moment of what was left");
        assert!(said.contains("--store other") && said.contains("--store main"), "{said}");
        assert_eq!(of(&BOTH, &backup, Some("other"), LATE).as_deref(), Ok("other"));
        assert_eq!(of(&BOTH, &backup, Some("main"), LATE).as_deref(), Ok("main"), "as requested");
        assert_eq!(of(&BOTH, &backup, None, "2026-11-29T11:30:00Z").as_deref(), Ok("main"), "of the present one");
        let away = [BOTH[0], Store { fails: true, ..BOTH[1] }];
        let said = of(&away, &backup, None, LATE).expect_err("the first one is not taken silently in its place");
        assert!(said.contains("a restore from the store other") && said.ends_with("(--store main)"), "{said}");
        backup.left_timelines[0].store = Some("main".into());
        let away = [Store { fails: true, ..BOTH[0] }, BOTH[1]];
        let said = of(&away, &backup, None, LATE).expect_err("the first one is away");
        assert!(said.contains("the store other has that state, perhaps without the end"), "{said}");
        backup.left_timelines[0].store = Some("other".into());
        backup.second = None;
        assert_eq!(of(&BOTH[..1], &backup, None, LATE).as_deref(), Ok("main"), "the other one is not declared");
    }
}
