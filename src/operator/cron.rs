//! Cron expressions in a time zone.

use cronexpr::{Crontab, MakeTimestamp, ParseOptions};
use jiff::Timestamp;
use jiff::fmt::temporal::DateTimeParser;
use serde_json::json;

use super::apply::object::short_hash;

/// The fields of an expression.
const FIELDS: [&str; 5] = ["minute", "hour", "day of month", "month", "day of week"];

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
        if DateTimeParser::new().parse_time_zone(zone).is_err() {
            return Err(format!(
                "{zone_field} is {zone:?}, which is no time zone: it is a name of the IANA database, such as UTC or \
                 Europe/Berlin"
            ));
        }
        // For `H` in an expression, as in Jenkins.
        let mut options = ParseOptions::default();
        options.hashed_value = Some(hash);
        let read = cronexpr::parse_crontab_with(&format!("{expression} {zone}"), options);
        read.map(Self)
            .map_err(|error| format!("{field} is {expression:?}: {}", problem(expression, &error.to_string())))
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

/// The problem as the library names it, and the field of the expression: its error draws the expression over several
/// lines, with a mark below the position.
fn problem(expression: &str, drawn: &str) -> String {
    let Some((margin, problem)) = drawn.lines().next_back().and_then(|line| line.split_once("^ ")) else {
        return drawn.split_whitespace().collect::<Vec<_>>().join(" ");
    };
    let until = expression.get(..=margin.len()).unwrap_or(expression);
    let field = until.split_whitespace().count().clamp(1, FIELDS.len()) - 1;
    format!("the {}: {problem}", FIELDS[field])
}

/// A value that depends on the resource with this uid, so that not all of an installation start at once.
pub fn hash(uid: &str) -> u64 {
    u64::from_str_radix(&short_hash(&json!(uid)), 16).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_field_of_the_spec_and_the_part_of_the_expression() {
        for (expression, zone, says) in [
            ("0 3 * * *", "Europe/Atlantis", "zone is \"Europe/Atlantis\", which is no time zone"),
            ("0 25 * * *", "UTC", "schedule is \"0 25 * * *\": the hour: "),
            ("61 3 * * *", "Europe/Berlin", "schedule is \"61 3 * * *\": the minute: "),
            ("0 3 * * 8", "UTC", "schedule is \"0 3 * * 8\": the day of week: "),
            ("0 3 * *", "UTC", "schedule is \"0 3 * *\": a cron expression has five fields"),
        ] {
            let said = Cron::read(("schedule", expression), ("zone", zone), 0).expect_err("a refusal");
            assert!(said.starts_with(says) && !said.contains('^') && !said.contains('\n'), "{said}");
        }
        assert!(Cron::read(("schedule", "0 3 * * SUN"), ("zone", "Europe/Berlin"), 0).is_ok());
    }
}
