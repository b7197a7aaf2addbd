//! Values of settings in PostgreSQL's syntax (its manual's "Parameter Names and Values").

use std::collections::BTreeMap;

/// PostgreSQL's kilobyte.
pub const KB: u64 = 1 << 10;
/// PostgreSQL's megabyte.
pub const MB: u64 = 1 << 20;
/// PostgreSQL's gigabyte.
pub const GB: u64 = 1 << 30;
/// The page size, the unit of some sizes.
pub const BLOCK: u64 = 8 * KB;

/// The bytes of a size: a number with an optional unit; the default is `unit`. None if PostgreSQL
/// does not accept it, which PostgreSQL reports itself, or if it is negative.
pub fn bytes(value: &str, unit: u64) -> Option<u64> {
    let value = value.trim();
    let end = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let (number, suffix) = value.split_at(end);
    let factor = match suffix.trim_start() {
        "" => unit,
        "B" => 1,
        "kB" => KB,
        "MB" => MB,
        "GB" => GB,
        "TB" => GB << 10,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    // A cast saturates: an impossible size is refused like any other size that is too large.
    (bytes.is_finite() && bytes >= 0.0).then_some(bytes as u64)
}

/// The milliseconds of a time: a number with an optional unit; the default is milliseconds. None if
/// PostgreSQL does not accept it, which PostgreSQL reports itself.
pub fn milliseconds(value: &str) -> Option<f64> {
    let value = value.trim();
    let end = value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len());
    let (number, suffix) = value.split_at(end);
    let factor = match suffix.trim_start() {
        "us" => 0.001,
        "" | "ms" => 1.0,
        "s" => 1000.0,
        "min" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

/// A whole number.
pub fn count(value: &str) -> Option<u64> {
    value.trim().parse().ok()
}

/// The bytes of a setting in the spec.
pub fn size_in(parameters: &BTreeMap<String, String>, name: &str, unit: u64) -> Option<u64> {
    bytes(parameters.get(name)?, unit)
}

/// A size in PostgreSQL's syntax, in whole megabytes.
pub fn megabytes(bytes: u64) -> String {
    format!("{}MB", bytes / MB)
}

/// A readable size, in the largest unit that keeps at least two digits.
pub fn readable(bytes: u64) -> String {
    let (unit, name) = if bytes >= 10 * GB { (GB, "GB") } else { (MB, "MB") };
    format!("{} {name}", bytes.div_ceil(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_postgresql_reads_them() {
        assert_eq!(bytes("800GB", BLOCK), Some(800 * GB));
        assert_eq!(bytes("16384", BLOCK), Some(128 * MB));
        assert_eq!(bytes(" 1.5 GB ", BLOCK), Some(3 * GB / 2));
        assert_eq!(bytes("64", MB), Some(64 * MB));
        assert_eq!(bytes("512kB", KB), Some(512 * KB));
        assert_eq!(bytes("2TB", KB), Some(2048 * GB));
        assert_eq!(bytes("100B", KB), Some(100));
        for wrong in ["", "lots", "1 gb", "1Gi", "-1", "1e3", "1.2.3MB"] {
            assert_eq!(bytes(wrong, MB), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_are_written_for_postgresql_and_for_people() {
        assert_eq!(megabytes(64 * MB), "64MB");
        assert_eq!(readable(800 * GB), "800 GB");
        assert_eq!(readable(1536 * MB), "1536 MB");
    }
}
