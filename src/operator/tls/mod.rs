//! The certificate authority of a database, and what it signs.

pub mod authority;
mod certificates;
pub mod certify;
pub mod served;
