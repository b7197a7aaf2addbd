//! What can go wrong with Vault, by what there is to do about it.

use crate::api::conditions::reason;

/// An error of Vault. No variant holds a response body or anything secret.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VaultError {
    /// No connection, a timeout, a TLS failure.
    #[error("Vault at {address} cannot be reached: {problem}")]
    Unreachable {
        /// Vault's address.
        address: String,
        /// What the connection met.
        problem: String,
    },
    /// Vault is sealed, not initialised, or answers 5xx.
    #[error("Vault at {address} is not serving: {problem}")]
    NotServing {
        /// Vault's address.
        address: String,
        /// What it said.
        problem: String,
    },
    /// The login was refused: role, secret_id or token are not (or no longer) good.
    #[error("Vault refused the login at {mount}: {problem}")]
    LoginRefused {
        /// The auth mount.
        mount: String,
        /// What there is to check.
        problem: String,
    },
    /// 403 with a living token.
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
    /// Another writer was first.
    #[error("the Vault record {path} was changed by another writer")]
    CasMismatch {
        /// The record's path.
        path: String,
    },
    /// Anything else that Vault said.
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
    /// The condition reason that this error is told with.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } | Self::NotServing { .. } | Self::Unexpected { .. } => reason::VAULT_UNREACHABLE,
            Self::LoginRefused { .. } | Self::PermissionDenied { .. } => reason::VAULT_PERMISSION_DENIED,
            Self::MountMissing { .. } => reason::VAULT_MOUNT_MISSING,
            Self::CasMismatch { .. } => reason::CREDENTIALS_PENDING,
        }
    }
}
