//! Statements that bring a server to its declared state.

use tokio_postgres::Client;

use crate::postgres::{ConnectError, describe};

/// The error of a step that ensures a state.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A statement failed.
    #[error("ensuring {what}: {}", describe(source))]
    Statement {
        /// The subject, such as a role.
        what: String,
        /// The cause.
        source: tokio_postgres::Error,
    },
    /// A statement did not end in time.
    #[error("ensuring {what}: the statement timed out; retrying")]
    TooLong {
        /// The subject, such as a role.
        what: String,
    },
    /// An extension cannot be created as declared.
    #[error("spec.postgres.extensions, {name}: {problem}")]
    Extension {
        /// The extension.
        name: String,
        /// The problem.
        problem: String,
    },
    /// The record in Vault has another text.
    #[error(
        "ensuring login {user}: its verifier in Vault is not a SCRAM verifier; request new credentials (kubectl servicedb \
         rotate {in_commands})"
    )]
    NotAVerifier {
        /// The role.
        user: String,
        /// The resource in a command.
        in_commands: String,
    },
}

/// Executes statements in one transaction of their own.
///
/// # Errors
/// The statement that failed.
pub async fn execute(client: &Client, what: &str, statements: &str) -> Result<(), EnsureError> {
    let result = client.batch_execute(statements).await;
    if result.is_err() {
        // In a failed transaction every further statement would fail.
        let _ = client.batch_execute("ROLLBACK").await;
    }
    result.map_err(|source| EnsureError::Statement { what: what.to_owned(), source })
}
