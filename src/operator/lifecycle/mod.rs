//! Deletion of a database, removal of its objects in Vault, and adoption of kept data.

pub mod adopt;
pub mod deletion;
pub mod orphans;
