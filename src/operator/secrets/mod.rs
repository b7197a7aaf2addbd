//! Secrets: read and written by name, never listed or watched, and never printed.

pub mod authority;
pub mod binding;
mod certificates;
mod secret_id;
mod store;
pub mod tls;

pub use authority::overlap as authority_overlap;
pub use secret_id::{Role, SECRET_ID_LIFETIME, Users, ensure as ensure_secret_id};
pub use tls::{Asked as CertificatesAsked, Certified, ensure as ensure_certificates};
