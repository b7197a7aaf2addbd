//! Access to Vault from a pod that the operator created, with the mounted files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::VaultError;
use super::client::{Login, VaultClient, VaultSettings};
use crate::contract::pod;
use crate::contract::records::VaultAccess;

/// The mounted file with the settings for Vault is missing or invalid.
#[derive(Debug, thiserror::Error)]
pub enum PodVaultError {
    /// The file cannot be read.
    #[error("{file}, which the operator mounts into its pods, cannot be read: {problem}")]
    File {
        /// The file.
        file: PathBuf,
        /// The cause.
        problem: String,
    },
    /// The file's settings are invalid.
    #[error(transparent)]
    Settings(#[from] VaultError),
}

/// This pod's access to Vault, and a client that logs in with its AppRole when it is first used.
///
/// # Errors
/// If the mounted settings are missing or invalid.
pub fn client() -> Result<(VaultClient, VaultAccess), PodVaultError> {
    let access = access()?;
    Ok((client_for(&access)?, access))
}

/// This pod's access to Vault: the mounted file, which changes with the operator's options.
///
/// # Errors
/// If the file is missing or invalid.
pub fn access() -> Result<VaultAccess, PodVaultError> {
    access_in(Path::new(pod::VAULT_DIR))
}

fn access_in(folder: &Path) -> Result<VaultAccess, PodVaultError> {
    let file = folder.join(pod::VAULT_ACCESS);
    let unreadable = |problem: String| PodVaultError::File { file: file.clone(), problem };
    let text = std::fs::read(&file).map_err(|error| unreadable(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))
}

/// A client that logs in with the pod's AppRole when it is first used. Nothing is sent.
///
/// # Errors
/// If the settings are invalid.
pub fn client_for(access: &VaultAccess) -> Result<VaultClient, VaultError> {
    let vault = Path::new(pod::VAULT_DIR);
    let ca_file = vault.join(pod::VAULT_CA);
    let settings = VaultSettings {
        address: access.address.clone(),
        namespace: access.namespace.clone(),
        ca_file: ca_file.exists().then_some(ca_file),
        kv_mount: access.kv_mount.clone(),
        approle_mount: access.approle_mount.clone(),
        // Pods only read and write records: they manage no roles.
        kubernetes_mount: String::new(),
        timeout: Duration::from_secs(access.timeout_seconds),
    };
    let login = Login::AppRole {
        mount: access.approle_mount.clone(),
        role_id_file: vault.join(pod::ROLE_ID),
        secret_id_file: Path::new(pod::SECRET_ID_DIR).join(pod::SECRET_ID),
    };
    VaultClient::new(settings, login)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_is_missing_is_named() {
        let error = access_in(Path::new("/nonexistent")).expect_err("no such folder");
        assert!(error.to_string().contains("/nonexistent/vault.json"), "{error}");
    }
}
