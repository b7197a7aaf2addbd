//! Errors of the credentials, and the causes of a proof that failed.

use tokio_postgres::error::SqlState;

use crate::agent::ensure::LoginKind;
use crate::agent::patroni::rest::RestError;
use crate::agent::records::RecordsError;
use crate::agent::statement::EnsureError;
use crate::contract::pod::TLS_DIR;
use crate::contract::records::RecordError;
use crate::postgres::{ConnectError, describe};
use crate::vault::VaultError;

/// The function of PostgreSQL that counts the sessions of a login, after its password was accepted. The message that
/// names the login is translated, the name of the function is not.
const COUNTS_SESSIONS_OF_LOGIN: &str = "InitializeSessionUserId";

/// The reason for which the credentials are not verified.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Vault, or a record in it.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// Vault did not take the connection of its database secrets engine. Vault's words are in its own log: they may echo
    /// the request.
    #[error(
        "Vault cannot log in to PostgreSQL at {host}, so it makes no short-lived logins ({path}): check that Vault's pods \
         resolve this name and reach port 5432 (vault.databaseClients in the chart's values); Vault's log has the cause"
    )]
    EngineRefused {
        /// The path of the connection in Vault.
        path: String,
        /// The host.
        host: String,
    },
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
         restore it (vault kv undelete), or ask for new credentials (kubectl servicedb rotate {in_commands} --reissue)"
    )]
    Lost {
        /// The record.
        path: String,
        /// The generation that was promoted last.
        generation: i64,
        /// The resource in a command.
        in_commands: String,
    },
    /// The record of a client with a login of its own is gone.
    #[error(
        "the record {path} is gone from Vault, and the database has generation {generation} of the client {client}: \
         restore it (vault kv undelete), or ask for new credentials (kubectl servicedb rotate {in_commands} --client {client})"
    )]
    ClientLost {
        /// The record.
        path: String,
        /// The generation that was promoted last.
        generation: i64,
        /// The client.
        client: String,
        /// The resource in a command.
        in_commands: String,
    },
}

impl CredentialsError {
    /// Whether PostgreSQL accepted the password, and refused the session because the login has as many as it may. A server
    /// that is full has the same code, and refuses before it has seen a password.
    pub fn is_at_limit(&self) -> bool {
        let Self::Proof(ConnectError::Postgres { source, .. }) = self else { return false };
        source.as_db_error().is_some_and(|refusal| {
            *refusal.code() == SqlState::TOO_MANY_CONNECTIONS && refusal.routine() == Some(COUNTS_SESSIONS_OF_LOGIN)
        })
    }
}

/// The result of a proof; a login that has as many sessions as it may is proved by that refusal.
///
/// # Errors
/// Any other failure of the proof.
pub fn or_at_limit(proof: Result<(), CredentialsError>, kind: LoginKind<'_>) -> Result<(), CredentialsError> {
    match proof {
        Err(refused) if is_limited(kind) && refused.is_at_limit() => Ok(()),
        proof => proof,
    }
}

/// Whether the login has a limit of sessions. Those of the application and the migrator have none.
pub fn is_limited(kind: LoginKind<'_>) -> bool {
    matches!(kind, LoginKind::Client(client) if client.connection_limit.is_some())
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
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::contract::clients::Client;

    /// The proof that a server ends with this error.
    async fn refusal(code: &str, routine: &str) -> CredentialsError {
        let (ours, mut servers) = tokio::io::duplex(4096);
        let fields = format!("SFATAL\0VFATAL\0C{code}\0Mrefused\0R{routine}\0\0");
        let length = u32::try_from(fields.len() + 4).expect("a length");
        let message = [&b"E"[..], &length.to_be_bytes()[..], fields.as_bytes()].concat();
        servers.write_all(&message).await.expect("an answer");
        let user = "chat_c_bot_a".to_owned();
        let result = tokio_postgres::Config::new().user(&user).connect_raw(ours, tokio_postgres::NoTls).await;
        let source = result.err().expect("a refusal");
        assert_eq!(source.code().map(SqlState::code), Some(code), "{source:?}");
        CredentialsError::Proof(ConnectError::Postgres { target: "the server".to_owned(), user, source })
    }

    /// Two logins alternate: the sessions that the next one had before the last rotation may take all its places.
    #[tokio::test]
    async fn a_login_that_has_all_its_sessions_is_proved_and_a_full_server_proves_nothing() {
        let client = |limit: Option<i32>| -> Client {
            let access = serde_json::json!({"mode": "ReadOnly"});
            let json = serde_json::json!({"name": "bot", "generation": 3, "access": access, "connectionLimit": limit});
            serde_json::from_value(json).expect("a client")
        };
        let (limited, unlimited) = (client(Some(2)), client(None));
        for (code, routine, is_proof) in [
            ("53300", "InitializeSessionUserId", true),
            ("53300", "ProcessStartupPacket", false),
            ("53300", "InitProcess", false),
            ("53300", "CheckMyDatabase", false),
            ("28000", "InitializeSessionUserId", false),
            ("28P01", "auth_failed", false),
        ] {
            let proof = or_at_limit(Err(refusal(code, routine).await), LoginKind::Client(&limited));
            assert_eq!(proof.is_ok(), is_proof, "{code} of {routine}: {proof:?}");
            for kind in [LoginKind::Client(&unlimited), LoginKind::Application, LoginKind::Migrator] {
                assert!(or_at_limit(Err(refusal(code, routine).await), kind).is_err(), "{code} of {routine}: {kind:?}");
            }
        }
    }

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
