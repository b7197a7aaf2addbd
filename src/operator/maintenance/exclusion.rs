//! What excludes the work on a database in a window. docs/maintenance.md has the same table.
//!
//! | beside | work on the database | a rollout that waited for the window |
//! |---|---|---|
//! | no primary, a failover | no | no |
//! | a restore in place, a major upgrade | no | no |
//! | the rehearsal of an upgrade by a Job | yes: it is of a restored backup | no: the upgrade follows |
//! | a switchover, restart, rollout, scaling, drain | no: it is broken off | one change at a time |
//! | migrations that run or are about to | no: it is broken off | as always |
//! | a backup | yes | in the second half of the window: it would end the backup |
//! | the test of a backup | yes | yes |

use jiff::Timestamp;

use super::windows::Opening;

/// What goes on beside the maintenance.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// Whether there is a primary that serves.
    pub has_primary: bool,
    /// Whether a restore in place or a major upgrade is in progress.
    pub restores: bool,
    /// Whether a Job rehearses a major upgrade on a restored backup.
    pub rehearses: bool,
    /// A change of the instances that is in progress.
    pub changes: Option<String>,
    /// Whether migrations run, or start next.
    pub migrates: bool,
    /// Whether a backup runs.
    pub backs_up: bool,
}

impl Beside {
    /// Why nothing is done in the database now.
    pub fn hindrance(&self) -> Option<String> {
        if !self.has_primary {
            Some("no instance is the primary".to_owned())
        } else if self.restores {
            Some("a restore in place or a major upgrade is in progress".to_owned())
        } else if let Some(change) = &self.changes {
            Some(format!("the instances are being changed: {change}"))
        } else if self.migrates {
            Some("migrations are being applied".to_owned())
        } else {
            None
        }
    }

    /// Whether a rollout that waited for a window may begin in this one.
    pub fn admits_rollout(&self, opening: Option<Opening>, now: Timestamp) -> bool {
        let Some(opening) = opening.filter(|_| self.has_primary && !self.restores && !self.rehearses) else {
            return false;
        };
        // A backup is not ended where it may end by itself; one that lasts all night does not starve the rollout.
        let is_late = now.duration_since(opening.from) * 2 >= opening.until.duration_since(opening.from);
        !self.backs_up || is_late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calm() -> Beside {
        Beside { has_primary: true, ..Beside::default() }
    }

    #[test]
    fn the_table() {
        let hinders = |beside: Beside| beside.hindrance().is_some();
        assert!(!hinders(calm()));
        assert!(!hinders(Beside { backs_up: true, ..calm() }), "a nightly full backup does not starve the window");
        assert!(hinders(Beside::default()), "no primary");
        assert!(hinders(Beside { restores: true, ..calm() }));
        assert!(!hinders(Beside { rehearses: true, ..calm() }), "the restored backup is elsewhere");
        assert!(hinders(Beside { migrates: true, ..calm() }));
        let why = Beside { changes: Some("chat-db-1 is being replaced".to_owned()), ..calm() }.hindrance();
        assert!(why.is_some_and(|why| why.contains("chat-db-1")));
    }

    #[test]
    fn a_rollout_waits_for_a_backup_until_the_window_is_half_over() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let opening = Some(Opening { from: at("2026-11-29T03:00:00Z"), until: at("2026-11-29T05:00:00Z") });
        let (early, late) = (at("2026-11-29T03:59:59Z"), at("2026-11-29T04:00:00Z"));
        assert!(calm().admits_rollout(opening, early));
        assert!(!calm().admits_rollout(None, early), "no window is open");
        let beside_backup = Beside { backs_up: true, ..calm() };
        assert!(!beside_backup.admits_rollout(opening, early));
        assert!(beside_backup.admits_rollout(opening, late));
        assert!(!Beside { restores: true, ..calm() }.admits_rollout(opening, late));
        assert!(!Beside { rehearses: true, ..calm() }.admits_rollout(opening, late), "the upgrade follows");
        assert!(!Beside::default().admits_rollout(opening, late));
    }
}
