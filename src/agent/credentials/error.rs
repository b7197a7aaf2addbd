//! Errors of the credentials, and the causes of a proof that failed.

use tokio_postgres::error::SqlState;

use crate::agent::patroni::rest::RestError;
use crate::agent::records::RecordsError;
use crate::agent::statement::EnsureError;
use crate::contract::pod::TLS_DIR;
use crate::contract::records::RecordError;
use crate::postgres::{ConnectError, describe};
use crate::vault::VaultError;

/// The reason for which the credentials are not verified.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Vault, or a record in it.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// A statement.
    #[error(transparent)]
    Ensure(#[from] EnsureError),
    /// The server ended the work.
    #[error("credentials: {}", describe(.0))]
    Statement(#[from] tokio_postgres::Error),
    /// The proof failed.
    #[error("the proof of the credentials failed: {0}")]
    Proof(#[from] ConnectError),
    /// A login works, with another role than it must have.
    #[error("the proof of the credentials failed: {user} acts as {acts_as}, not as {expected}")]
    WrongRole {
        /// The login.
        user: String,
        /// The role that it has.
        acts_as: String,
        /// The role that it must have.
        expected: String,
    },
    /// The authority for the proof.
    #[error("{TLS_DIR}/ca.crt is not readable: {0}")]
    Authority(std::io::Error),
    /// This member does not lead, according to Patroni.
    #[error("this member no longer leads, so its credentials are not promoted")]
    NotLeading,
    /// Patroni.
    #[error(transparent)]
    Patroni(#[from] RestError),
    /// A replica lags.
    #[error("replica {0} has not replayed the new credentials in time; retrying")]
    ReplicaBehind(String),
    /// The operator has not written them yet.
    #[error("generation {0} of the credentials is not in Vault yet")]
    NotPending(i64),
    /// A record was changed, and no version of it that Vault still has logs in.
    #[error(
        "the record {path} in Vault was changed by another writer: PostgreSQL refuses its login, and no earlier version of \
         the record has the login that was proved; new credentials replace it"
    )]
    Changed {
        /// The record.
        path: String,
    },
    /// The runtime record was promoted for another resource.
    #[error(
        "the record {path} in Vault was written for another ServiceDatabase (its SERVICEDB_UID is not this one's), so its \
         login is not used, and no earlier version of the record has the login that was proved; new credentials replace it"
    )]
    Foreign {
        /// The record.
        path: String,
    },
    /// `runtime` is gone.
    #[error(
        "the record {path} is gone from Vault, and the database has generation {generation}: \
         restore it (vault kv undelete), or ask for new credentials (kubectl servicedb rotate --reissue)"
    )]
    Lost {
        /// The record.
        path: String,
        /// The generation that was promoted last.
        generation: i64,
    },
    /// The record of a client with a login of its own is gone.
    #[error(
        "the record {path} is gone from Vault, and the database has generation {generation} of the client {client}: \
         restore it (vault kv undelete), or ask for new credentials (kubectl servicedb rotate --client {client})"
    )]
    ClientLost {
        /// The record.
        path: String,
        /// The generation that was promoted last.
        generation: i64,
        /// The client.
        client: String,
    },
}

impl CredentialsError {
    /// Whether PostgreSQL accepted the password, and refused the session because the login has as many as it may.
    pub fn is_at_limit(&self) -> bool {
        matches!(self, Self::Proof(ConnectError::Postgres { source, .. })
            if source.code() == Some(&SqlState::TOO_MANY_CONNECTIONS))
    }
}

impl From<VaultError> for CredentialsError {
    fn from(error: VaultError) -> Self {
        Self::Records(error.into())
    }
}

impl From<RecordError> for CredentialsError {
    fn from(error: RecordError) -> Self {
        Self::Records(error.into())
    }
}

/// The cause of a proof that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofFailure {
    /// PostgreSQL refused the password: the record may have another password than the proved one.
    Password,
    /// The login lacks a right, or has another role: the database differs from the proved state.
    Login,
    /// The proof shows nothing about the login: no answer, no free connection, a server that starts or ends.
    Unrelated,
}

impl ProofFailure {
    /// The cause, if the error is a proof that failed.
    pub fn of(error: &CredentialsError) -> Option<Self> {
        match error {
            CredentialsError::WrongRole { .. } => Some(Self::Login),
            CredentialsError::Proof(ConnectError::Postgres { source, .. }) => Some(Self::of_code(source.code())),
            CredentialsError::Proof(_) => Some(Self::Unrelated),
            _ => None,
        }
    }

    fn of_code(code: Option<&SqlState>) -> Self {
        let of_login = [SqlState::INVALID_AUTHORIZATION_SPECIFICATION, SqlState::INSUFFICIENT_PRIVILEGE];
        match code {
            Some(code) if *code == SqlState::INVALID_PASSWORD => Self::Password,
            Some(code) if of_login.contains(code) => Self::Login,
            _ => Self::Unrelated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failed_proof_has_one_cause() {
        let of = |code: &SqlState| ProofFailure::of_code(Some(code));
        assert_eq!(of(&SqlState::INVALID_PASSWORD), ProofFailure::Password);
        assert_eq!(of(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION), ProofFailure::Login);
        assert_eq!(of(&SqlState::TOO_MANY_CONNECTIONS), ProofFailure::Unrelated);
        assert_eq!(ProofFailure::of_code(None), ProofFailure::Unrelated);
        let role = CredentialsError::WrongRole { user: "a".into(), acts_as: "b".into(), expected: "c".into() };
        assert_eq!(ProofFailure::of(&role), Some(ProofFailure::Login));
        assert_eq!(ProofFailure::of(&CredentialsError::NotLeading), None);
    }
}
