//! Vault as a pod reaches it that the operator made: with the files that it mounts there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::VaultError;
use super::client::{Login, VaultClient, VaultSettings};
use crate::contract::pod;
use crate::contract::records::VaultAccess;

/// The file that tells how to reach Vault is not there, or is not readable.
#[derive(Debug, thiserror::Error)]
pub enum PodVaultError {
    /// The file cannot be read.
    #[error("{file} cannot be read, which the operator mounts into its pods: {problem}")]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        problem: String,
    },
    /// The file's settings cannot be used.
    #[error(transparent)]
    Settings(#[from] VaultError),
}

/// A client that logs in by the pod's AppRole when it is first used, and how to reach Vault.
///
/// # Errors
/// If the mounted settings are not there or cannot be used.
pub fn client() -> Result<(VaultClient, VaultAccess), PodVaultError> {
    client_from(Path::new(pod::VAULT_DIR), Path::new(pod::SECRET_ID_DIR))
}

fn client_from(vault: &Path, secret_id: &Path) -> Result<(VaultClient, VaultAccess), PodVaultError> {
    let file = vault.join(pod::VAULT_ACCESS);
    let unreadable = |problem: String| PodVaultError::File { file: file.clone(), problem };
    let text = std::fs::read(&file).map_err(|error| unreadable(error.to_string()))?;
    let access: VaultAccess = serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
    let ca_file = vault.join(pod::VAULT_CA);
    let settings = VaultSettings {
        address: access.address.clone(),
        namespace: access.namespace.clone(),
        ca_file: ca_file.exists().then_some(ca_file),
        kv_mount: access.kv_mount.clone(),
        approle_mount: access.approle_mount.clone(),
        // Pods read and write records alone: they manage no roles.
        kubernetes_mount: String::new(),
        timeout: Duration::from_secs(access.timeout_seconds),
    };
    let login = Login::AppRole {
        mount: access.approle_mount.clone(),
        role_id_file: vault.join(pod::ROLE_ID),
        secret_id_file: secret_id.join(pod::SECRET_ID),
    };
    Ok((VaultClient::new(settings, login)?, access))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_is_missing_is_named() {
        let error = client_from(Path::new("/nonexistent"), Path::new("/nonexistent")).expect_err("no such folder");
        assert!(error.to_string().contains("/nonexistent/vault.json"), "{error}");
    }
}
