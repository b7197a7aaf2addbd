//! The major versions of PostgreSQL that all parts know.

/// The major version of databases from before operators named it.
pub const FIRST: u16 = 17;
/// The highest one, and that of a new database whose spec names none.
pub const NEWEST: u16 = 18;
