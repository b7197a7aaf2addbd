//! Quantities, as Kubernetes writes them.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The bytes of a quantity, rounded up; none if it is not one.
pub fn bytes(quantity: &Quantity) -> Option<u128> {
    let (dividend, divisor) = fraction(quantity)?;
    Some(dividend.div_ceil(divisor))
}

/// A quantity in thousandths, as CPU is counted, rounded up; none if it is not one.
pub fn thousandths(quantity: &Quantity) -> Option<u128> {
    let (dividend, divisor) = fraction(quantity)?;
    Some(dividend.checked_mul(1000)?.div_ceil(divisor))
}

/// The forms of `k8s.io/apimachinery/pkg/api/resource`: digits, perhaps a fraction, and a binary
/// suffix, a decimal one, or an exponent.
fn fraction(quantity: &Quantity) -> Option<(u128, u128)> {
    let text = quantity.0.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let divisor = if suffix == "m" { divisor.checked_mul(1000)? } else { divisor };
    let factor = match suffix {
        "" | "m" => 1,
        "k" => 1000,
        "M" => 1000u128.pow(2),
        "G" => 1000u128.pow(3),
        "T" => 1000u128.pow(4),
        "P" => 1000u128.pow(5),
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        exponent => 10u128.checked_pow(exponent.strip_prefix(['e', 'E'])?.trim_start_matches('+').parse().ok()?)?,
    };
    Some((digits.checked_mul(factor)?, divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood() {
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
        for wrong in ["", "Gi", "1Xi", "1e", "-1Gi"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
