//! Nulls in a resource. When server-side apply removes the last field of an object, or the last
//! item of a list with keys, the API server stores a null instead.

use serde::{Deserialize, Deserializer};

/// Reads a null as an absent field.
///
/// # Errors
/// If the value is of another type.
pub fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
