//! How a database grows: samples that an agent keeps, and the growth that follows from them.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The version of the stored history.
pub const VERSION: u32 = 1;
/// The interval between two samples.
pub const INTERVAL: SignedDuration = SignedDuration::from_hours(1);
/// Days beyond which nobody plans.
const LONGEST_FORECAST: i64 = 3650;
/// How long samples are kept: a week and a day.
const KEPT: SignedDuration = SignedDuration::from_hours(8 * 24);
/// The windows of the growth.
const DAY: SignedDuration = SignedDuration::from_hours(24);
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The part of a window that samples must cover: a day's growth is not told from an hour.
const COVERED: f64 = 0.9;

/// Sizes at a moment, in bytes.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// Of the database.
    pub database_bytes: i64,
    /// The position of WAL.
    pub wal_position: i64,
    /// Of the largest tables with their indexes, by schema and name.
    pub tables: BTreeMap<String, i64>,
}

/// The samples of an instance, the oldest first.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The samples.
    pub samples: Vec<Sample>,
}

impl Default for History {
    fn default() -> Self {
        Self { version: VERSION, samples: Vec::new() }
    }
}

/// Sizes and growth, in bytes. A growth is absent while the samples do not cover its window.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// When it was measured.
    pub at: Timestamp,
    /// Of the database.
    pub database: Growth,
    /// WAL that was written; its present size is not told.
    pub wal: Growth,
    /// Of the largest tables.
    #[serde(default)]
    pub tables: BTreeMap<String, Growth>,
    /// Days until the volume is full, as the database grew in the week, or in the day before a week is over; absent
    /// if it does not grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_in_days: Option<i64>,
}

/// A size and its growth, in bytes.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Growth {
    /// The present size.
    pub bytes: i64,
    /// In a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<i64>,
    /// In a week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub week: Option<i64>,
}

impl History {
    /// Whether another sample is due.
    pub fn is_due(&self, now: Timestamp) -> bool {
        // A clock that was set back does not stop the samples.
        self.samples.last().is_none_or(|last| now.duration_since(last.at).abs() >= INTERVAL)
    }

    /// Adds a sample, and removes those that are too old, or of a time that has not come.
    pub fn add(&mut self, sample: Sample) {
        let now = sample.at;
        self.samples.retain(|old| old.at < now && now.duration_since(old.at) <= KEPT);
        self.samples.push(sample);
    }

    /// The growth up to the last sample; `free` is the space on the volume, in bytes.
    pub fn capacity(&self, free: Option<u64>) -> Option<Capacity> {
        let last = self.samples.last()?;
        let of = |value: &dyn Fn(&Sample) -> Option<i64>| Growth {
            bytes: value(last).unwrap_or_default(),
            day: self.growth(DAY, value),
            week: self.growth(WEEK, value),
        };
        let database = of(&|sample| Some(sample.database_bytes));
        let tables = last.tables.keys().map(|name| (name.clone(), of(&|sample| sample.tables.get(name).copied())));
        let a_day = database.week.map(|week| week / 7).or(database.day).filter(|bytes| *bytes > 0);
        let free = free.and_then(|free| i64::try_from(free).ok());
        Some(Capacity {
            at: last.at,
            database,
            wal: Growth { bytes: 0, ..of(&|sample| Some(sample.wal_position)) },
            tables: tables.collect(),
            full_in_days: free.zip(a_day).and_then(|(free, a_day)| steps(free / a_day)),
        })
    }

    /// The growth in a window, from its first sample, as if that were at its beginning.
    fn growth(&self, window: SignedDuration, value: &dyn Fn(&Sample) -> Option<i64>) -> Option<i64> {
        let last = self.samples.last()?;
        let age = |sample: &Sample| last.at.duration_since(sample.at);
        let first = self.samples.iter().find(|sample| age(sample) <= window && value(sample).is_some())?;
        let covered = age(first).as_secs_f64() / window.as_secs_f64();
        let difference = value(last)? - value(first)?;
        (covered >= COVERED).then_some((difference as f64 / covered) as i64)
    }
}

/// Days in steps of a tenth, so that status does not change with every file; none beyond ten years.
fn steps(days: i64) -> Option<i64> {
    let step = 10_i64.pow(days.max(1).ilog10().saturating_sub(1));
    (days <= LONGEST_FORECAST).then_some(days / step * step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3600).expect("a time")
    }

    fn sample(hours: i64) -> Sample {
        let tables = [("public.a".to_owned(), hours * 10)].into();
        Sample { at: at(hours), database_bytes: 1000 + hours * 100, wal_position: hours * 1000, tables }
    }

    fn history(hours: i64) -> History {
        let mut history = History::default();
        (0..=hours).for_each(|hour| history.add(sample(hour)));
        history
    }

    #[test]
    fn a_growth_is_told_once_its_window_is_covered() {
        assert_eq!(History::default().capacity(None), None);
        let hour = history(1).capacity(Some(1)).expect("a sample");
        assert_eq!((hour.database.day, hour.database.week, hour.full_in_days), (None, None, None));
        let day = history(24).capacity(Some(24_000)).expect("samples");
        assert_eq!((day.database.bytes, day.database.day, day.database.week), (3400, Some(2400), None));
        assert_eq!((day.wal.bytes, day.wal.day), (0, Some(24_000)));
        assert_eq!(day.full_in_days, Some(10));
        let week = history(8 * 24 + 5);
        let week = week.capacity(Some(24_000)).expect("samples");
        assert_eq!(week.database.week, Some(16_800));
        assert_eq!(week.tables["public.a"].week, Some(1680));
    }

    #[test]
    fn a_forecast_has_two_digits_and_an_end() {
        assert_eq!([0, 9, 99, 123, 3649].map(steps), [Some(0), Some(9), Some(99), Some(120), Some(3600)]);
        assert_eq!(steps(3651), None);
    }

    #[test]
    fn samples_are_bounded_whatever_the_clock_does() {
        let mut history = history(400);
        assert!(history.samples.len() <= 8 * 24 + 1, "{}", history.samples.len());
        assert!(!history.is_due(at(400)) && history.is_due(at(401)) && history.is_due(at(300)), "set back");
        history.add(sample(300));
        assert!(history.samples.iter().all(|sample| sample.at <= at(300)), "nothing of a time that has not come");
    }

    #[test]
    fn a_database_that_shrinks_is_never_full() {
        let mut history = History::default();
        for hour in 0..=24 {
            history.add(Sample { database_bytes: 10_000 - hour, ..sample(hour) });
        }
        assert_eq!(history.capacity(Some(5)).expect("samples").full_in_days, None);
    }
}
