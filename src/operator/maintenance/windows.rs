//! The windows of a database: when they open, and whether one is open. Pure.

use jiff::{SignedDuration, Timestamp};

use crate::api::MaintenanceWindow;
use crate::operator::cron::{Cron, hash};

/// How many openings of each window are compared with those of the others.
const COMPARED: usize = 130;
/// From when on: any time serves, but always the same, so that a spec that was accepted stays so. It begins with a
/// Monday and includes a leap day.
const COMPARED_FROM: i64 = 1_704_067_200;

/// An opening of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Opening {
    /// When it opens.
    pub from: Timestamp,
    /// When it closes.
    pub until: Timestamp,
}

/// The declared windows.
#[derive(Clone, Debug, Default)]
pub struct Windows(Vec<(Cron, SignedDuration)>);

impl Windows {
    /// Reads those of the resource with this uid.
    ///
    /// # Errors
    /// The field, and the problem.
    pub fn of(declared: &[MaintenanceWindow], uid: &str) -> Result<Self, String> {
        let hash = hash(uid);
        let read = |(index, window): (usize, &MaintenanceWindow)| {
            let field = format!("spec.maintenance.windows[{index}]");
            if !(1..=1440).contains(&window.duration_minutes) {
                return Err(format!(
                    "{field}.durationMinutes is {}: it must be from 1 to 1440",
                    window.duration_minutes
                ));
            }
            let zone = window.time_zone.as_deref().unwrap_or("UTC");
            let schedule = (format!("{field}.schedule"), format!("{field}.timeZone"));
            let cron = Cron::read((&schedule.0, &window.schedule), (&schedule.1, zone), hash)?;
            Ok((cron, SignedDuration::from_mins(i64::from(window.duration_minutes))))
        };
        let windows = Self(declared.iter().enumerate().map(read).collect::<Result<_, _>>()?);
        windows.check_overlaps(declared)?;
        Ok(windows)
    }

    /// The window that is open at this time.
    pub fn open_at(&self, now: Timestamp) -> Option<Opening> {
        self.0
            .iter()
            .filter_map(|(cron, lasts)| {
                let from = cron.once_after(now.checked_sub(*lasts).ok()?)?;
                (from <= now).then(|| Opening { from, until: from + *lasts })
            })
            .max_by_key(|opening| opening.until)
    }

    /// When the next window opens.
    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        self.0.iter().filter_map(|(cron, _)| cron.once_after(now)).min()
    }

    /// The length of the longest one.
    pub fn longest(&self) -> Option<SignedDuration> {
        self.0.iter().map(|(_, lasts)| *lasts).max()
    }

    /// Refuses windows that overlap, with themselves, too, as far as their next openings show it.
    fn check_overlaps(&self, declared: &[MaintenanceWindow]) -> Result<(), String> {
        let mut openings = Vec::new();
        for (index, (cron, lasts)) in self.0.iter().enumerate() {
            let mut at = Timestamp::from_second(COMPARED_FROM).unwrap_or_default();
            for _ in 0..COMPARED {
                let Some(from) = cron.once_after(at) else { break };
                openings.push((Opening { from, until: from + *lasts }, index));
                at = from;
                if let [.., (before, one), (now, other)] = openings.as_slice()
                    && one == other
                    && before.until > now.from
                {
                    break;
                }
            }
        }
        openings.sort();
        let overlapping = openings.windows(2).find(|pair| pair[0].0.until > pair[1].0.from);
        let Some([(first, one), (second, other)]) = overlapping else { return Ok(()) };
        let text = |index: usize| format!("{:?} ({} min)", declared[index].schedule, declared[index].duration_minutes);
        Err(if one == other {
            format!(
                "spec.maintenance.windows[{one}], {}, opens again before it closes: shorten it, or let it open less often",
                text(*one)
            )
        } else {
            format!(
                "spec.maintenance.windows[{one}], {}, and [{other}], {}, overlap: one is open until {}, the other opens \
                 at {}",
                text(*one),
                text(*other),
                first.until,
                second.from
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(schedule: &str, minutes: i32, zone: Option<&str>) -> MaintenanceWindow {
        MaintenanceWindow {
            schedule: schedule.to_owned(),
            duration_minutes: minutes,
            time_zone: zone.map(str::to_owned),
        }
    }

    fn windows(declared: &[MaintenanceWindow]) -> Result<Windows, String> {
        Windows::of(declared, "0c1d")
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn a_window_is_open_from_its_first_moment_to_the_last() {
        let windows = windows(&[window("0 3 * * SUN", 90, Some("Europe/Berlin"))]).expect("windows");
        let opening = Opening { from: at("2026-11-29T02:00:00Z"), until: at("2026-11-29T03:30:00Z") };
        assert_eq!(windows.open_at(at("2026-11-29T01:59:59Z")), None);
        assert_eq!(windows.open_at(at("2026-11-29T02:00:00Z")), Some(opening));
        assert_eq!(windows.open_at(at("2026-11-29T03:29:59Z")), Some(opening));
        assert_eq!(windows.open_at(at("2026-11-29T03:30:00Z")), None);
        assert_eq!(windows.next_after(at("2026-11-29T02:00:00Z")), Some(at("2026-12-06T02:00:00Z")));
        assert_eq!(Windows::default().open_at(at("2026-11-29T02:00:00Z")), None);
    }

    #[test]
    fn a_window_that_the_clocks_skip_or_repeat_opens_once() {
        let windows = windows(&[window("30 2 * * *", 30, Some("Europe/Berlin"))]).expect("windows");
        // At 02:30 of 25 October 2026 for the second time it is 01:30 UTC.
        let openings: Vec<_> = (0..180)
            .filter_map(|minute| windows.open_at(at("2026-10-24T23:30:00Z") + SignedDuration::from_mins(minute)))
            .collect();
        let once: std::collections::BTreeSet<_> = openings.iter().collect();
        assert_eq!(once.len(), 1, "{once:?}");
        let spring = windows.next_after(at("2026-03-28T12:00:00Z")).expect("an opening");
        assert!(spring < at("2026-03-30T01:00:00Z"), "{spring}");
    }

    #[test]
    fn a_window_in_the_hour_that_the_clocks_repeat_does_not_overlap_itself() {
        let windows = windows(&[window("0 2 * * SUN", 120, Some("Europe/Berlin"))]).expect("a usual window");
        let opening = Opening { from: at("2026-10-25T00:00:00Z"), until: at("2026-10-25T02:00:00Z") };
        assert_eq!(windows.open_at(at("2026-10-25T01:30:00Z")), Some(opening));
        assert_eq!(windows.open_at(at("2026-10-25T02:30:00Z")), None, "it is open as long as ever");
        assert_eq!(windows.next_after(at("2026-10-25T00:00:00Z")), Some(at("2026-11-01T01:00:00Z")));
    }

    #[test]
    fn what_cannot_be_a_window_is_refused_by_its_field() {
        for (declared, said) in [
            (window("0 3 * *", 60, None), "spec.maintenance.windows[0].schedule"),
            (window("0 25 * * *", 60, None), "spec.maintenance.windows[0].schedule"),
            (window("0 3 * * *", 60, Some("Europe/Atlantis")), "spec.maintenance.windows[0].timeZone"),
            (window("0 3 * * *", 0, None), "spec.maintenance.windows[0].durationMinutes"),
            (window("0 3 * * *", 1441, None), "spec.maintenance.windows[0].durationMinutes"),
            (window("*/10 * * * *", 11, None), "opens again before it closes"),
            (window("0 3,4 * * *", 61, None), "opens again before it closes"),
        ] {
            let refused = windows(&[declared]).expect_err(said);
            assert!(refused.contains(said) && !refused.contains('\n'), "{refused}");
        }
        assert!(windows(&[window("*/10 * * * *", 10, None)]).is_ok(), "one after another");
    }

    #[test]
    fn windows_that_overlap_are_refused_whatever_their_zones() {
        let berlin = window("0 3 * * SUN", 60, Some("Europe/Berlin"));
        let refused = windows(&[berlin.clone(), window("30 2 * * SUN", 60, None)]).expect_err("an overlap");
        assert!(refused.contains("[0]") && refused.contains("[1]") && refused.contains("overlap"), "{refused}");
        assert!(windows(&[berlin.clone(), window("0 3 * * SUN", 60, None)]).is_ok());
        // Once a month on a Sunday, at the first of a month.
        assert!(windows(&[berlin, window("30 2 1 * *", 60, None)]).is_err());
    }
}
