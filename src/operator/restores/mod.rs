//! Restores: into a new database, and in place. What may be restored is decided here; the agents do it.

pub mod bootstrap;
pub mod in_place;
