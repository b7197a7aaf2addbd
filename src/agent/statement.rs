//! Statements that bring a server to its declared state.

use tokio_postgres::Client;

use crate::postgres::{ConnectError, describe};

/// Why something could not be ensured.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A statement failed.
    #[error("ensuring {what}: {}", describe(source))]
    Statement {
        /// What was to be ensured.
        what: String,
        /// The cause.
        source: tokio_postgres::Error,
    },
    /// A statement did not come to its end.
    #[error("ensuring {what}: it takes too long")]
    TooLong {
        /// What was to be ensured.
        what: String,
    },
    /// An extension cannot be created as declared.
    #[error("spec.postgres.extensions, {name}: {problem}")]
    Extension {
        /// The extension.
        name: String,
        /// What is in its way.
        problem: String,
    },
    /// Vault holds something else.
    #[error("ensuring login {user}: what Vault holds for it is not a SCRAM verifier")]
    NotAVerifier {
        /// The role.
        user: String,
    },
}

/// Executes statements in one transaction of their own.
///
/// # Errors
/// The statement that failed.
pub async fn execute(client: &Client, what: &str, statements: &str) -> Result<(), EnsureError> {
    let result = client.batch_execute(statements).await;
    if result.is_err() {
        // A failed transaction would swallow what comes next.
        let _ = client.batch_execute("ROLLBACK").await;
    }
    result.map_err(|source| EnsureError::Statement { what: what.to_owned(), source })
}
