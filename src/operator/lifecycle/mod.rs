//! The end of a database, and its return: deletion, what it left in Vault, adoption of kept data.

pub mod adopt;
pub mod deletion;
pub mod orphans;
