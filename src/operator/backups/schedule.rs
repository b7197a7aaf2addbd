//! When scheduled backups start: cron expressions, in a time zone.

use jiff::Timestamp;

use crate::api::BackupScheduleSpec;
use crate::operator::cron::{Cron, hash};

/// The schedule of a database.
#[derive(Clone, Debug)]
pub struct Schedule {
    full: Cron,
    incremental: Option<Cron>,
    verification: Option<Cron>,
}

/// Without expressions, a full backup is made on Sunday and an incremental one on each other day, at a minute
/// in these hours (UTC) that depends on the resource: not all databases of an installation at once.
const NIGHT_HOURS: u64 = 6;
/// The field of tests of backups.
const VERIFICATION: &str = "verification";

impl Schedule {
    /// Reads the schedule of the resource with this uid.
    ///
    /// # Errors
    /// The field, and the problem.
    pub fn of(spec: &BackupScheduleSpec, uid: &str) -> Result<Self, String> {
        let hash = hash(uid);
        let (minute, hour) = (hash % 60, hash / 60 % NIGHT_HOURS);
        let declared = spec.time_zone.as_deref().unwrap_or("UTC");
        let read = |field: &str, given: Option<&str>, days: &str| {
            let (expression, zone) = match given {
                Some(given) => (given.to_owned(), declared),
                None => {
                    // Tests of backups follow the backups of Sunday.
                    let hour = if field == VERIFICATION { hour + NIGHT_HOURS } else { hour };
                    (format!("{minute} {hour} * * {days}"), "UTC")
                }
            };
            let field = format!("spec.backup.schedule.{field}");
            Cron::read((&field, &expression), ("spec.backup.schedule.timeZone", zone), hash)
        };
        let optional = |field: &str, given: Option<&str>, days: &str| match given {
            Some("") => Ok(None),
            given => read(field, given, days).map(Some),
        };
        Ok(Self {
            full: read("full", spec.full.as_deref(), "SUN")?,
            incremental: optional("incremental", spec.incremental.as_deref(), "MON-SAT")?,
            verification: optional(VERIFICATION, spec.verification.as_deref(), "MON")?,
        })
    }

    /// The first full backup after a time; none if the expression has no further date.
    pub fn full_after(&self, time: Timestamp) -> Option<Timestamp> {
        self.full.after(time)
    }

    /// The first incremental backup after a time.
    pub fn incremental_after(&self, time: Timestamp) -> Option<Timestamp> {
        self.incremental.as_ref()?.after(time)
    }

    /// Whether backups are tested.
    pub fn verifies(&self) -> bool {
        self.verification.is_some()
    }

    /// The first test of a backup after a time.
    pub fn verification_after(&self, time: Timestamp) -> Option<Timestamp> {
        self.verification.as_ref()?.after(time)
    }

    /// The first backup of any type after a time.
    pub fn after(&self, time: Timestamp) -> Option<Timestamp> {
        [self.full_after(time), self.incremental_after(time)].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(full: Option<&str>, incremental: Option<&str>, zone: Option<&str>) -> Result<Schedule, String> {
        let text = |given: Option<&str>| given.map(str::to_owned);
        let spec = BackupScheduleSpec {
            full: text(full),
            incremental: text(incremental),
            verification: None,
            time_zone: text(zone),
        };
        Schedule::of(&spec, "0c1d")
    }

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn without_expressions_databases_differ_in_their_minute_of_the_night() {
        let spec = BackupScheduleSpec::default();
        let (one, two) = (Schedule::of(&spec, "a").expect("one"), Schedule::of(&spec, "b").expect("two"));
        // A Saturday.
        let now = time("2026-11-28T12:00:00Z");
        let (full, other) = (one.full_after(now).expect("a time"), two.full_after(now).expect("a time"));
        assert_ne!(full, other);
        assert!(full < time("2026-11-29T06:00:00Z"), "{full}");
        let incremental = one.incremental_after(now).expect("a time");
        assert_eq!(incremental, full + jiff::SignedDuration::from_hours(24), "Sunday has the full one");
        assert_eq!(one.after(now), Some(full));
    }

    #[test]
    fn expressions_are_of_their_time_zone() {
        let found =
            schedule(Some("30 2 * * SUN"), Some("30 2 * * MON-SAT"), Some("Europe/Berlin")).expect("a schedule");
        assert_eq!(found.full_after(time("2026-11-28T12:00:00Z")), Some(time("2026-11-29T01:30:00Z")));
        let never = schedule(None, Some(""), None).expect("a schedule");
        assert_eq!(never.incremental_after(time("2026-11-28T12:00:00Z")), None);
    }

    #[test]
    fn a_time_that_the_clocks_skip_is_not_lost() {
        let found = schedule(Some("30 2 * * *"), None, Some("Europe/Berlin")).expect("a schedule");
        let (day, next) = (time("2026-03-28T12:00:00Z"), found.full_after(time("2026-03-28T12:00:00Z")));
        let next = next.expect("a time");
        assert!(next > day && next < day + jiff::SignedDuration::from_hours(37), "{next}");
    }

    #[test]
    fn nonsense_is_refused_by_field() {
        for (full, zone, field) in [
            (Some("0 3 * *"), None, "full"),
            (Some("0 3 * * 8"), None, "full"),
            (Some("61 3 * * *"), None, "full"),
            (Some("@daily"), None, "full"),
            (Some("0 3 * * * UTC"), None, "full"),
            (Some("0 3 30 2 *"), Some("Europe/Atlantis"), "timeZone"),
        ] {
            let said = schedule(full, None, zone).expect_err("a refusal");
            let field = format!("spec.backup.schedule.{field} is ");
            assert!(said.starts_with(&field) && !said.contains('\n'), "{said}");
        }
    }
}
