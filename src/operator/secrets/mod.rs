//! Secrets: read and written by name, never listed or watched, and never printed.

mod certificates;
mod secret_id;
mod store;
mod tls;

pub use secret_id::{SECRET_ID_LIFETIME, ensure as ensure_secret_id};
pub use tls::ensure as ensure_tls;
