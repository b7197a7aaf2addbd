//! Secrets: read and written by name, never listed or watched, and never printed.

pub mod binding;
mod certificates;
mod secret_id;
mod store;
mod tls;

pub use secret_id::{Role, SECRET_ID_LIFETIME, Users, ensure as ensure_secret_id};
pub use tls::ensure as ensure_tls;
