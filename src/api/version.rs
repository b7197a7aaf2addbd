//! The version of a migration, as its file names it: a number in most layouts, a text in others.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How many characters a version may have.
pub const LONGEST: usize = 200;

/// The version of a migration. A whole number is written as a number, everything else as a text:
/// `7`, `"1.2"`, `"00000000000000"`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaVersion(String);

impl SchemaVersion {
    /// A version from its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number, if this is one as PostgreSQL would print it: `7`, not `007` or `1.2`.
    pub fn number(&self) -> Option<i64> {
        let canonical = self.0 == "0" || !self.0.starts_with('0');
        let digits = !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_digit());
        if canonical && digits { self.0.parse().ok() } else { None }
    }

    /// Whether it stands for a schema without any migration.
    pub fn is_none(&self) -> bool {
        self.0 == "0"
    }
}

impl From<String> for SchemaVersion {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<i64> for SchemaVersion {
    fn from(number: i64) -> Self {
        Self(number.to_string())
    }
}

impl fmt::Display for SchemaVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for SchemaVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.number() {
            Some(number) => serializer.serialize_i64(number),
            None => serializer.serialize_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for SchemaVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = SchemaVersion;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a whole number or a text")
            }

            fn visit_i64<E>(self, number: i64) -> Result<SchemaVersion, E> {
                Ok(number.into())
            }

            fn visit_u64<E>(self, number: u64) -> Result<SchemaVersion, E> {
                Ok(SchemaVersion(number.to_string()))
            }

            fn visit_str<E>(self, text: &str) -> Result<SchemaVersion, E> {
                Ok(SchemaVersion(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for SchemaVersion {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "SchemaVersion".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": LONGEST,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_numbers_and_all_else_is_text() {
        for (json, text, back) in [
            ("7", "7", "7"),
            ("0", "0", "0"),
            (r#""7""#, "7", "7"),
            (r#""007""#, "007", r#""007""#),
            (r#""1.2""#, "1.2", r#""1.2""#),
            (r#""00000000000000""#, "00000000000000", r#""00000000000000""#),
            ("20260102030405", "20260102030405", "20260102030405"),
        ] {
            let version: SchemaVersion = serde_json::from_str(json).expect(json);
            assert_eq!(version.as_str(), text);
            assert_eq!(serde_json::to_string(&version).expect("JSON"), back);
        }
        assert!(serde_json::from_str::<SchemaVersion>("1.2").is_err(), "a float has lost what was written: 1.10");
    }
}
