//! Cron expressions in a time zone.

use cronexpr::{Crontab, MakeTimestamp, ParseOptions};
use jiff::Timestamp;
use serde_json::json;

use super::apply::object::short_hash;

/// An expression in a time zone.
#[derive(Clone, Debug)]
pub struct Cron(Crontab);

impl Cron {
    /// Reads an expression with five fields. The errors name `field` and, where the time zone is declared, `zone_field`;
    /// `hash` is the value of `H` in an expression.
    ///
    /// # Errors
    /// The field, and the problem.
    pub fn read(
        (field, expression): (&str, &str),
        (zone_field, zone): (&str, &str),
        hash: u64,
    ) -> Result<Self, String> {
        if expression.split_whitespace().count() != 5 {
            return Err(format!(
                "{field} is {expression:?}: a cron expression has five fields (minute, hour, day of month, month, day of \
                 week), such as \"0 3 * * SUN\"; the time zone is {zone_field}"
            ));
        }
        // For `H` in an expression, as in Jenkins.
        let mut options = ParseOptions::default();
        options.hashed_value = Some(hash);
        let read = cronexpr::parse_crontab_with(&format!("{expression} {zone}"), options);
        // Its error draws the expression over several lines.
        let read = read.map_err(|error| error.to_string().split_whitespace().collect::<Vec<_>>().join(" "));
        read.map(Self).map_err(|error| format!("{field} is {expression:?} in {zone}: {error}"))
    }

    /// The first time after this one; none if the expression has no further date.
    pub fn after(&self, time: Timestamp) -> Option<Timestamp> {
        self.0.find_next(MakeTimestamp(time)).ok().map(|zoned| zoned.timestamp())
    }

    /// The same, where a time of day that the clocks repeat counts once: the first time.
    pub fn once_after(&self, mut time: Timestamp) -> Option<Timestamp> {
        loop {
            let zoned = self.0.find_next(MakeTimestamp(time)).ok()?;
            let first = zoned.datetime().to_zoned(zoned.time_zone().clone()).ok()?;
            time = zoned.timestamp();
            if first.timestamp() == time {
                return Some(time);
            }
        }
    }
}

/// A value that depends on the resource with this uid, so that not all of an installation start at once.
pub fn hash(uid: &str) -> u64 {
    u64::from_str_radix(&short_hash(&json!(uid)), 16).unwrap_or_default()
}
