//! What a run over the credentials of a leader has, and what those of the database and of its clients share.

use k8s_openapi::jiff::Timestamp;
use tokio_postgres::Client;

use super::error::CredentialsError;
use crate::agent::environment::Environment;
use crate::agent::records::Records;
use crate::contract::certificates::Authorities;
use crate::contract::desired::Desired;
use crate::contract::pod::TLS_DIR;
use crate::contract::records::Data;

/// A key of the record `runtime`, beside those that applications read: when it was promoted.
pub const ROTATED_AT: &str = "SERVICEDB_ROTATED_AT";

/// One run over the credentials of a leader.
pub struct Run<'a> {
    /// This pod.
    pub environment: &'a Environment,
    /// The desired state.
    pub desired: &'a Desired,
    /// Vault's records.
    pub records: &'a Records,
    /// A superuser's connection to the database `postgres`.
    pub client: &'a Client,
}

/// When a record was promoted.
pub fn rotated_at(runtime: &Data) -> Option<Timestamp> {
    runtime.get(ROTATED_AT)?.parse().ok()
}

/// The authorities of the database, PEM: those of the desired state, since a new one must be in
/// the records before it signs, and those of this pod, since one of them signed its certificate.
///
/// # Errors
/// If the pod's cannot be read.
pub fn authorities(desired: &Desired) -> Result<String, CredentialsError> {
    let mounted = std::fs::read_to_string(format!("{TLS_DIR}/ca.crt")).map_err(CredentialsError::Authority)?;
    let desired = Authorities::from_pem(desired.authorities.as_deref().unwrap_or_default());
    Ok(desired.and(&Authorities::from_pem(&mounted)).to_pem())
}

/// The secret.
pub fn expose(secret: &secrecy::SecretString) -> &str {
    secrecy::ExposeSecret::expose_secret(secret)
}
