//! Durations in kubectl's format: at most two units, and fewer for longer ones.

use k8s_openapi::jiff::Timestamp;

/// The time since a timestamp.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - since.as_second();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        ..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => with_rest(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => with_rest(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => with_rest(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

/// A measured duration, in milliseconds.
pub fn duration(milliseconds: i64) -> String {
    match milliseconds {
        ..1000 => format!("{milliseconds}ms"),
        1000..120_000 => format!("{:.1}s", milliseconds as f64 / 1000.0),
        _ => with_rest(milliseconds / 60_000, "m", milliseconds / 1000 % 60, "s"),
    }
}

fn with_rest(value: i64, unit: &str, rest: i64, rest_unit: &str) -> String {
    if rest == 0 { format!("{value}{unit}") } else { format!("{value}{unit}{rest}{rest_unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_written_as_kubectl_does() {
        let now = Timestamp::from_second(10_000_000).expect("a time");
        let cases = [
            (0, "0s"),
            (119, "119s"),
            (125, "2m5s"),
            (600, "10m"),
            (10_900, "3h1m"),
            (90_000, "25h"),
            (180_000, "2d2h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(age(Timestamp::from_second(10_000_000 - seconds).expect("a time"), now), text);
        }
        assert_eq!(age(Timestamp::from_second(10_000_005).expect("a time"), now), "0s", "clocks differ");
    }

    #[test]
    fn durations_keep_the_digits_that_matter() {
        assert_eq!([12, 1_250, 125_000].map(duration), ["12ms", "1.2s", "2m5s"]);
    }
}
