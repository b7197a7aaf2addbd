//! The certificate authority of a database, and its certificates.

pub mod authority;
pub mod certificates;
pub mod certify;
pub mod front;
pub mod served;
