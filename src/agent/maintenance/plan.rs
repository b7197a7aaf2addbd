//! What is due, in which order. Pure.

use std::collections::{HashMap, HashSet};

use crate::agent::archive;
use crate::api::{MaintenanceAction, MaintenanceItem};
use crate::contract::maintenance::Tasks;

/// What a survey of the database found, before the declared fields and what is known of earlier rebuilds apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The table, index or extension, quoted as in a statement.
    pub object: String,
    /// Why something may be due for it.
    pub cause: Cause,
}

/// Why something may be due.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// The image has another version of an extension.
    OtherVersion {
        /// The installed one.
        from: String,
        /// The image's.
        to: String,
    },
    /// An invalid index is a copy that a broken-off rebuild of this one left.
    LeftoverOf(String),
    /// A table is old in transaction ids or multixacts.
    Age {
        /// The kind: `transaction ids`, `multixacts`.
        of: &'static str,
        /// The age.
        age: i64,
        /// The age at which autovacuum must freeze it, whatever the load.
        limit: i64,
    },
    /// A table has dead rows, or rows that no `VACUUM` has seen.
    Unvacuumed {
        /// Dead rows.
        dead: i64,
        /// Rows inserted since the last `VACUUM`.
        inserted: i64,
        /// Live rows.
        live: i64,
    },
    /// The planner's statistics of a table are missing or stale.
    Unanalyzed {
        /// Whether there are any; of a partitioned table those of the whole.
        has_statistics: bool,
        /// Rows that changed since.
        changed: i64,
    },
    /// A B-tree index is larger than its rows need.
    Bloat(Size),
}

/// The size of an index, and what it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Size {
    /// The size, in bytes.
    pub bytes: i64,
    /// The size that a new index of the same rows has, in bytes.
    pub needed: i64,
    /// The rows in it.
    pub rows: f64,
    /// Whether the unused part was measured in the index, and not estimated from statistics.
    pub measured: bool,
}

/// An index after its last rebuild.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rebuilt {
    /// Its size, in bytes.
    pub bytes: i64,
    /// Its rows.
    pub rows: f64,
}

impl Size {
    /// The unused part, in percent.
    pub fn unused_percent(&self) -> f64 {
        if self.bytes <= 0 { 0.0 } else { (1.0 - self.needed as f64 / self.bytes as f64).max(0.0) * 100.0 }
    }

    /// The same with the last rebuild taken into account: an estimate that a rebuild has disproved would otherwise
    /// have the index rebuilt in every window.
    pub fn corrected(&self, rebuilt: Option<&Rebuilt>) -> Self {
        let as_rebuilt = rebuilt.filter(|last| last.rows >= 1.0 && !self.measured);
        let needed = as_rebuilt.map_or(self.needed, |last| {
            // Rows that went since leave an index of the same bytes a row.
            self.needed.max((last.bytes as f64 * (self.rows / last.rows)) as i64)
        });
        Self { needed, ..self.clone() }
    }
}

impl Found {
    /// The kind of maintenance.
    pub fn action(&self) -> MaintenanceAction {
        match self.cause {
            Cause::OtherVersion { .. } => MaintenanceAction::UpdateExtension,
            Cause::LeftoverOf(_) => MaintenanceAction::RemoveLeftover,
            Cause::Age { .. } => MaintenanceAction::Freeze,
            Cause::Unvacuumed { .. } => MaintenanceAction::Vacuum,
            Cause::Unanalyzed { .. } => MaintenanceAction::Analyze,
            Cause::Bloat(_) => MaintenanceAction::Reindex,
        }
    }

    /// As status has it.
    pub fn item(&self) -> MaintenanceItem {
        let reason = match &self.cause {
            Cause::OtherVersion { from, to } => format!("version {from}, the image has {to}"),
            Cause::LeftoverOf(of) => format!("an invalid copy of {of}, left by a REINDEX CONCURRENTLY"),
            Cause::Age { of, age, limit } => format!("{age} {of} old, autovacuum must freeze it at {limit}"),
            Cause::Unvacuumed { dead, inserted, live } if dead >= inserted => {
                format!("{dead} dead rows, {live} live ones")
            }
            Cause::Unvacuumed { inserted, .. } => format!("{inserted} rows were inserted since the last VACUUM"),
            Cause::Unanalyzed { has_statistics: false, .. } => "it has no statistics".to_owned(),
            Cause::Unanalyzed { changed, .. } if *changed > 0 => {
                format!("{changed} rows changed since the last ANALYZE")
            }
            Cause::Unanalyzed { .. } => "the statistics of the whole table are over a week old".to_owned(),
            Cause::Bloat(size) => format!(
                "{:.0} % of {} KiB are unused ({})",
                size.unused_percent(),
                size.bytes >> 10,
                if size.measured { "measured" } else { "estimated" }
            ),
        };
        MaintenanceItem { action: self.action(), object: self.object.clone(), reason }
    }

    /// What is done first among those of a kind.
    fn weight(&self) -> i64 {
        match &self.cause {
            Cause::OtherVersion { .. } | Cause::LeftoverOf(_) => 0,
            Cause::Age { age, .. } => *age,
            Cause::Unvacuumed { dead, inserted, .. } => (*dead).max(*inserted),
            Cause::Unanalyzed { has_statistics, changed } => {
                if *has_statistics {
                    *changed
                } else {
                    i64::MAX
                }
            }
            Cause::Bloat(size) => size.bytes - size.needed,
        }
    }
}

/// What is due of what was found, in the order in which it is done.
pub fn due(found: &[Found], tasks: &Tasks, rebuilt: &HashMap<String, Rebuilt>) -> Vec<Found> {
    let mut due: Vec<Found> = found.iter().filter_map(|found| wanted(found, tasks, rebuilt)).collect();
    let frozen: HashSet<String> =
        due.iter().filter(|due| due.action() == MaintenanceAction::Freeze).map(|due| due.object.clone()).collect();
    // Freezing a table vacuums it.
    due.retain(|due| due.action() != MaintenanceAction::Vacuum || !frozen.contains(&due.object));
    due.sort_by(|one, other| {
        let key = |due: &Found| (due.action(), std::cmp::Reverse(due.weight()));
        key(one).cmp(&key(other)).then_with(|| one.object.cmp(&other.object))
    });
    due.dedup_by(|one, other| (one.action(), &one.object) == (other.action(), &other.object));
    due
}

fn wanted(found: &Found, tasks: &Tasks, rebuilt: &HashMap<String, Rebuilt>) -> Option<Found> {
    let is_wanted = match &found.cause {
        Cause::OtherVersion { .. } => tasks.update_extensions,
        Cause::LeftoverOf(_) => true,
        Cause::Age { .. } => tasks.freeze,
        Cause::Unvacuumed { .. } => tasks.vacuum,
        Cause::Unanalyzed { .. } => tasks.analyze,
        Cause::Bloat(size) => {
            let size = size.corrected(rebuilt.get(&found.object));
            let limit = f64::from(tasks.reindex_percent?);
            return (size.unused_percent() >= limit)
                .then(|| Found { object: found.object.clone(), cause: Cause::Bloat(size) });
        }
    };
    is_wanted.then(|| found.clone())
}

/// The room on the volume, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Of the volume.
    pub size: u64,
    /// That PostgreSQL may still use.
    pub free: u64,
}

/// Why an index is not rebuilt now: its copy, the WAL of it, and the files of its sort need room beside it.
pub fn lacks_room(size: &Size, room: Option<Room>) -> Option<String> {
    let room = room?;
    let needed = u64::try_from(size.needed).unwrap_or_default().saturating_mul(3);
    let kept = archive::room(room.size);
    (room.free < needed.saturating_add(kept)).then(|| {
        format!(
            "a rebuild needs {} MiB beside the {} MiB that are kept free, and {} MiB are free: raise spec.storage.size",
            needed >> 20,
            kept >> 20,
            room.free >> 20
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(object: &str, cause: Cause) -> Found {
        Found { object: object.to_owned(), cause }
    }

    fn size(bytes: i64, needed: i64) -> Size {
        Size { bytes, needed, rows: 1000.0, measured: false }
    }

    fn all() -> Vec<Found> {
        vec![
            found("public.i", Cause::Bloat(size(100 << 20, 20 << 20))),
            found("public.small", Cause::Bloat(size(10 << 20, 2 << 20))),
            found("public.tight", Cause::Bloat(size(100 << 20, 60 << 20))),
            found("public.t", Cause::Unanalyzed { has_statistics: true, changed: 5000 }),
            found("public.new", Cause::Unanalyzed { has_statistics: false, changed: 0 }),
            found("public.t", Cause::Unvacuumed { dead: 9000, inserted: 0, live: 10_000 }),
            found("public.old", Cause::Unvacuumed { dead: 90_000, inserted: 0, live: 10_000 }),
            found("public.old", Cause::Age { of: "transaction ids", age: 150_000_000, limit: 200_000_000 }),
            found("public.i_ccnew", Cause::LeftoverOf("public.i".to_owned())),
            found("hstore", Cause::OtherVersion { from: "1.7".into(), to: "1.8".into() }),
        ]
    }

    fn named(due: &[Found]) -> Vec<(MaintenanceAction, &str)> {
        due.iter().map(|due| (due.action(), due.object.as_str())).collect()
    }

    #[test]
    fn leftovers_go_first_and_rebuilds_last_the_most_wasteful_before_others() {
        use MaintenanceAction::{Analyze, Freeze, Reindex, RemoveLeftover, Vacuum};
        let due = due(&all(), &Tasks::default(), &HashMap::new());
        assert_eq!(
            named(&due),
            [
                (RemoveLeftover, "public.i_ccnew"),
                (Freeze, "public.old"),
                (Vacuum, "public.t"),
                (Analyze, "public.new"),
                (Analyze, "public.t"),
                (Reindex, "public.i"),
                (Reindex, "public.small"),
            ],
            "a table that is frozen is not vacuumed twice, and a tight index is left"
        );
    }

    #[test]
    fn only_the_declared_kinds_are_due() {
        let none =
            Tasks { vacuum: false, analyze: false, freeze: false, reindex_percent: None, update_extensions: true };
        let due_of = |tasks: &Tasks| due(&all(), tasks, &HashMap::new());
        assert_eq!(
            named(&due_of(&none)),
            [(MaintenanceAction::UpdateExtension, "hstore"), (MaintenanceAction::RemoveLeftover, "public.i_ccnew")]
        );
        let strict = Tasks { reindex_percent: Some(90), ..Tasks::default() };
        assert!(!due_of(&strict).iter().any(|due| due.action() == MaintenanceAction::Reindex));
        // Without freezing, the table is vacuumed as any other.
        let unfrozen = Tasks { freeze: false, ..Tasks::default() };
        assert!(named(&due_of(&unfrozen)).contains(&(MaintenanceAction::Vacuum, "public.old")));
    }

    #[test]
    fn an_estimate_that_a_rebuild_disproved_does_not_rebuild_again() {
        let found = [found("public.i", Cause::Bloat(size(100 << 20, 20 << 20)))];
        let after = |bytes: i64, rows| [("public.i".to_owned(), Rebuilt { bytes, rows })].into();
        assert!(due(&found, &Tasks::default(), &after(90 << 20, 1000.0)).is_empty());
        assert_eq!(due(&found, &Tasks::default(), &after(30 << 20, 1000.0)).len(), 1, "it has grown threefold since");
        assert_eq!(
            due(&found, &Tasks::default(), &after(90 << 20, 3000.0)).len(),
            1,
            "two thirds of the rows are gone"
        );
        assert_eq!(due(&found, &Tasks::default(), &after(90 << 20, 0.0)).len(), 1, "of no rows nothing follows");
    }

    #[test]
    fn an_index_is_rebuilt_only_where_its_copy_fits() {
        let room = |free| Some(Room { size: 1 << 30, free });
        assert_eq!(lacks_room(&size(100 << 20, 20 << 20), room(200 << 20)), None);
        assert!(lacks_room(&size(100 << 20, 20 << 20), room(120 << 20)).is_some());
        assert_eq!(lacks_room(&size(100 << 20, 20 << 20), None), None, "a size that is not known keeps nothing back");
    }

    #[test]
    fn the_reasons_are_for_people() {
        let reasons: Vec<_> = all().iter().map(|found| found.item().reason).collect();
        assert!(reasons.contains(&"80 % of 102400 KiB are unused (estimated)".to_owned()), "{reasons:?}");
        assert!(reasons.contains(&"9000 dead rows, 10000 live ones".to_owned()), "{reasons:?}");
    }
}
