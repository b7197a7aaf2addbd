//! The versions of a set of migrations: their texts, and the order in which the tool runs them.

use std::cmp::Ordering;
use std::fmt;

use crate::api::SchemaVersion;
use crate::contract::migration::ledger_number;

/// The digits of the largest number.
const DIGITS: usize = 20;

/// The version of one migration. Two are the same if the ledger has them under one number, and they
/// are in the order of their ordinals.
#[derive(Debug, Clone)]
pub struct Version {
    /// Its text: the same for files that the tool takes for one version.
    pub text: SchemaVersion,
    /// Its number in the ledger.
    pub number: i64,
    /// Sorts, in bytes, as the tool runs the migrations.
    pub ordinal: String,
}

impl Version {
    /// A version, and its place.
    pub fn new(text: impl Into<SchemaVersion>, ordinal: String) -> Self {
        let text = text.into();
        Self { number: ledger_number(&text), text, ordinal }
    }

    /// A version that is a number, among others that are.
    pub fn of_number(number: i64) -> Self {
        Self { text: number.into(), number, ordinal: padded(&number.to_string()) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(formatter)
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.number == other.number {
            return Ordering::Equal;
        }
        self.ordinal.cmp(&other.ordinal).then(self.number.cmp(&other.number))
    }
}

/// How the place of a version follows from its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// The order of the numbers; leading zeros mean nothing.
    Number,
    /// The order of the texts.
    Text,
    /// The order of the numbers between dots; `1.0` is `1`.
    Parts,
    /// It does not: the files or a journal give the order.
    Listed,
}

impl Scheme {
    /// The version that a text means; none if it is none of this scheme, or its place does not follow
    /// from it.
    pub fn version(self, text: &str) -> Option<Version> {
        match self {
            Self::Number => number(text).map(Version::of_number),
            Self::Text => Some(Version::new(SchemaVersion::new(text), text.to_owned())),
            Self::Parts => {
                let parts: Vec<&str> = parts(text)?;
                let mut ordinal = String::with_capacity((DIGITS + 1) * parts.len());
                for part in &parts {
                    if !ordinal.is_empty() {
                        ordinal.push('.');
                    }
                    pad(&mut ordinal, part);
                }
                Some(Version::new(SchemaVersion::new(parts.join(".")), ordinal))
            }
            Self::Listed => None,
        }
    }
}

/// A number with zeros in front.
pub fn padded(digits: &str) -> String {
    let mut text = String::with_capacity(DIGITS);
    pad(&mut text, digits);
    text
}

fn pad(text: &mut String, digits: &str) {
    text.extend(std::iter::repeat_n('0', DIGITS.saturating_sub(digits.len())));
    text.push_str(digits);
}

/// A whole number of digits alone.
pub fn number(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// The numbers between dots, without leading zeros, and without zeros at the end.
fn parts(text: &str) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    for part in text.split('.') {
        if part.is_empty() || part.len() > DIGITS || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let bare = part.trim_start_matches('0');
        parts.push(if bare.is_empty() { "0" } else { bare });
    }
    while parts.len() > 1 && parts.last() == Some(&"0") {
        parts.pop();
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(scheme: Scheme, texts: &[&str]) -> Vec<String> {
        let mut versions: Vec<Version> = texts.iter().map(|text| scheme.version(text).expect(text)).collect();
        versions.sort();
        versions.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_scheme_has_its_order() {
        let texts = ["10", "2", "0001"];
        assert_eq!(sorted(Scheme::Number, &texts), ["1", "2", "10"]);
        assert_eq!(sorted(Scheme::Text, &texts), ["0001", "10", "2"]);
        assert_eq!(
            sorted(Scheme::Parts, &["1.10", "1.9", "01.2", "2", "1", "1.2.1"]),
            ["1", "1.2", "1.2.1", "1.9", "1.10", "2"]
        );
        assert_eq!(Scheme::Parts.version("1.0.0"), Scheme::Parts.version("01"));
        assert_ne!(Scheme::Text.version("01"), Scheme::Text.version("1"));
        for none in ["", "1.", "a", "1.x", "-1"] {
            assert!(Scheme::Parts.version(none).is_none() && Scheme::Number.version(none).is_none(), "{none}");
        }
    }

    #[test]
    fn a_number_is_its_own_number_and_a_text_is_above_all_of_them() {
        assert_eq!(Scheme::Number.version("0007").expect("a number").number, 7);
        for text in ["1.2", "00000000000000", "20260101_a"] {
            let number = ledger_number(&SchemaVersion::new(text));
            assert!(number >= crate::contract::migration::TEXT_VERSIONS, "{text}: {number}");
        }
    }
}
