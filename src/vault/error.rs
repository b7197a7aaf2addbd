//! Errors of Vault, classified by their remedy.

use crate::api::conditions::reason;

/// An error of Vault. No variant contains a response body or a secret.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VaultError {
    /// No connection, a timeout, a TLS failure.
    #[error("Vault at {address} cannot be reached: {problem}")]
    Unreachable {
        /// Vault's address.
        address: String,
        /// The connection's error.
        problem: String,
    },
    /// Vault is sealed, not initialised, or answers 5xx.
    #[error("Vault at {address} is not serving: {problem}")]
    NotServing {
        /// Vault's address.
        address: String,
        /// The cause.
        problem: String,
    },
    /// The login was refused: role, secret_id or token are not (or no longer) valid.
    #[error("Vault refused the login at {mount}: {problem}")]
    LoginRefused {
        /// The auth mount.
        mount: String,
        /// The setting to check.
        problem: String,
    },
    /// 403 with a valid token.
    #[error("Vault denied {operation} on {path}: the policy lacks this right")]
    PermissionDenied {
        /// The operation, such as `update`.
        operation: &'static str,
        /// The API path.
        path: String,
    },
    /// 404 with "no handler for route": the mount does not exist.
    #[error("Vault has no mount for {path}: enable it, or correct the operator's setting")]
    MountMissing {
        /// The API path.
        path: String,
    },
    /// Another client wrote first.
    #[error("the Vault record {path} was changed by another writer")]
    CasMismatch {
        /// The record's path.
        path: String,
    },
    /// Any other answer of Vault.
    #[error("Vault answered {status} to {operation} on {path}")]
    Unexpected {
        /// The HTTP status; 0 if the answer could not be understood.
        status: u16,
        /// The operation.
        operation: &'static str,
        /// The API path.
        path: String,
    },
}

impl VaultError {
    /// The condition reason for this error.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } | Self::NotServing { .. } | Self::Unexpected { .. } => reason::VAULT_UNREACHABLE,
            Self::LoginRefused { .. } | Self::PermissionDenied { .. } => reason::VAULT_PERMISSION_DENIED,
            Self::MountMissing { .. } => reason::VAULT_MOUNT_MISSING,
            Self::CasMismatch { .. } => reason::CREDENTIALS_PENDING,
        }
    }
}
