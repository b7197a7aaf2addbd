//! Kubernetes quantities.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The bytes of a quantity, rounded up; none if it is not a quantity.
pub fn bytes(quantity: &Quantity) -> Option<u128> {
    let (dividend, divisor) = fraction(quantity)?;
    Some(dividend.div_ceil(divisor))
}

/// A quantity in thousandths, the unit of CPU, rounded up; none if it is not a quantity.
pub fn thousandths(quantity: &Quantity) -> Option<u128> {
    let (dividend, divisor) = fraction(quantity)?;
    Some(dividend.checked_mul(1000)?.div_ceil(divisor))
}

/// Whether two texts are exactly the same quantity: the API server normalises quantities, `1024Mi`
/// to `1Gi` and `0.9` to `900m`.
pub fn is_same(one: &str, other: &str) -> bool {
    let same = || {
        let (one, other) = (fraction(&Quantity(one.to_owned()))?, fraction(&Quantity(other.to_owned()))?);
        Some(one.0.checked_mul(other.1)? == other.0.checked_mul(one.1)?)
    };
    one == other || same().unwrap_or(false)
}

/// The syntax of `k8s.io/apimachinery/pkg/api/resource`: digits, an optional fraction, and a binary
/// suffix, a decimal suffix or an exponent.
fn fraction(quantity: &Quantity) -> Option<(u128, u128)> {
    let text = quantity.0.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let divisor = divisor.checked_mul(match suffix {
        "m" => 1000,
        "u" => 1000u128.pow(2),
        "n" => 1000u128.pow(3),
        _ => 1,
    })?;
    let factor = match suffix {
        "" | "m" | "u" | "n" => 1,
        "k" => 1000,
        "M" => 1000u128.pow(2),
        "G" => 1000u128.pow(3),
        "T" => 1000u128.pow(4),
        "P" => 1000u128.pow(5),
        "E" => 1000u128.pow(6),
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        exponent => 10u128.checked_pow(exponent.strip_prefix(['e', 'E'])?.trim_start_matches('+').parse().ok()?)?,
    };
    Some((digits.checked_mul(factor)?, divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_syntax_is_parsed() {
        let of = |text: &str| bytes(&Quantity(text.to_owned()));
        assert_eq!(of("1Gi"), Some(1 << 30));
        assert_eq!(of("1.5Gi"), Some(3 << 29));
        assert_eq!(of("1073741824"), Some(1 << 30));
        assert_eq!(of("2G"), Some(2_000_000_000));
        assert_eq!(of("1e9"), Some(1_000_000_000));
        assert_eq!(of("0.1"), Some(1));
        assert_eq!(of("2000m"), Some(2));
        assert_eq!(thousandths(&Quantity("1500m".to_owned())), Some(1500));
        assert_eq!(thousandths(&Quantity("0.25".to_owned())), Some(250));
        assert_eq!(of("1E"), Some(10u128.pow(18)));
        assert_eq!(of("1Ei"), Some(1 << 60));
        assert_eq!(of("1500000u"), Some(2));
        for wrong in ["", "Gi", "1Xi", "1e", "-1Gi"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
    #[test]
    fn quantities_are_compared_exactly() {
        for (one, other) in [("1Gi", "1024Mi"), ("900m", "0.9"), ("1", "1000m"), ("1e3", "1k"), ("x", "x")] {
            assert!(is_same(one, other), "{one} {other}");
        }
        for (one, other) in [("900m", "1"), ("0.1", "1"), ("1Gi", "1G"), ("1", "one"), ("100n", "1")] {
            assert!(!is_same(one, other), "{one} {other}");
        }
    }
}
