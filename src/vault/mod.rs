//! Vault behind a port: the trait [`Vault`] is what the product needs of Vault, in Vault's
//! words; [`client::VaultClient`] is the adapter on vaultrs.
//!
//! Every call has a timeout and makes at most one retry of its own (after a new login, when
//! Vault says that the token is dead). Errors carry no secret.

pub mod client;
mod endpoint;
mod error;
mod failure;
mod login;
pub mod pod;
pub mod policy;
mod requests;
mod session;
mod transport;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

pub use error::VaultError;

use crate::contract::records::Data;

/// The settings of an AppRole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRole {
    /// The role's name.
    pub name: String,
    /// The policies of its tokens.
    pub policies: Vec<String>,
    /// How long its tokens live.
    pub token_ttl: Duration,
    /// How long a secret_id lives.
    pub secret_id_ttl: Duration,
}

/// A secret_id that Vault has just made.
pub struct SecretId {
    /// The secret_id itself.
    pub secret_id: SecretString,
    /// Its accessor: names it without giving it away.
    pub accessor: String,
}

/// A role of Vault's Kubernetes auth method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesRole {
    /// The role's name.
    pub name: String,
    /// The ServiceAccounts that may log in.
    pub service_accounts: Vec<String>,
    /// Their namespace.
    pub namespace: String,
    /// The policies of its tokens.
    pub policies: Vec<String>,
    /// How long its tokens live.
    pub token_ttl: Duration,
}

/// A version of a KV v2 record.
pub struct KvRecord {
    /// The content.
    pub data: Data,
    /// The version, for check-and-set.
    pub version: u64,
}

/// What is known of a record beside its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvMetadata {
    /// The newest version, also if that is deleted; 0: there never was one.
    pub version: u64,
    /// Whether there is content: the newest version exists and is not deleted.
    pub present: bool,
    /// The custom metadata.
    pub custom: BTreeMap<String, String>,
}

/// The version for check-and-set where [`Vault::read_kv`] found nothing: a record whose newest
/// version is deleted is written over that one, and 0 would be refused.
///
/// # Errors
/// Whatever Vault said.
pub async fn version_to_replace(vault: &dyn Vault, path: &str) -> Result<u64, VaultError> {
    Ok(vault.read_kv_metadata(path).await?.map_or(0, |metadata| metadata.version))
}

/// What Servicedb needs of Vault. Everything is idempotent or check-and-set; deleting what
/// is not there is success, reading it is `None`.
#[async_trait]
pub trait Vault: Send + Sync {
    /// Whether Vault is initialised, unsealed and answers (`sys/health`; standby counts).
    async fn health(&self) -> Result<(), VaultError>;

    /// The policy's text.
    async fn read_policy(&self, name: &str) -> Result<Option<String>, VaultError>;
    /// Creates or replaces a policy.
    async fn write_policy(&self, name: &str, hcl: &str) -> Result<(), VaultError>;
    /// Deletes a policy.
    async fn delete_policy(&self, name: &str) -> Result<(), VaultError>;

    /// The AppRole as Vault has it; `None` also if its fixed values (see
    /// [`Self::write_approle`]) were changed by somebody: writing it repairs that.
    async fn read_approle(&self, name: &str) -> Result<Option<AppRole>, VaultError>;
    /// Creates or replaces an AppRole, with the values that are the same for all
    /// (bind_secret_id, batch tokens, no default policy, no use counts).
    async fn write_approle(&self, role: &AppRole) -> Result<(), VaultError>;
    /// Deletes an AppRole, and with it its secret_ids.
    async fn delete_approle(&self, name: &str) -> Result<(), VaultError>;
    /// The AppRole's role_id.
    async fn read_role_id(&self, name: &str) -> Result<Option<String>, VaultError>;
    /// Makes a secret_id; `metadata` shows in Vault's audit log, so nothing in it is secret.
    async fn generate_secret_id(&self, role: &str, metadata: &BTreeMap<String, String>)
    -> Result<SecretId, VaultError>;
    /// The accessors of all secret_ids.
    async fn list_secret_id_accessors(&self, role: &str) -> Result<Vec<String>, VaultError>;
    /// Destroys a secret_id by its accessor.
    async fn destroy_secret_id(&self, role: &str, accessor: &str) -> Result<(), VaultError>;

    /// The Kubernetes-auth role as Vault has it.
    async fn read_kubernetes_role(&self, name: &str) -> Result<Option<KubernetesRole>, VaultError>;
    /// Creates or replaces a Kubernetes-auth role.
    async fn write_kubernetes_role(&self, role: &KubernetesRole) -> Result<(), VaultError>;
    /// Deletes a Kubernetes-auth role.
    async fn delete_kubernetes_role(&self, name: &str) -> Result<(), VaultError>;

    /// The newest version of a record; `None` if there is none or it is deleted.
    async fn read_kv(&self, path: &str) -> Result<Option<KvRecord>, VaultError>;
    /// Writes a record if its version is still `cas` (0: there is none).
    ///
    /// # Errors
    /// [`VaultError::CasMismatch`] if it is not.
    async fn write_kv(&self, path: &str, data: &Data, cas: u64) -> Result<u64, VaultError>;
    /// Deletes a record with all versions and its metadata.
    async fn delete_kv(&self, path: &str) -> Result<(), VaultError>;
    /// Destroys one version of a record for good: what was written since then stays.
    async fn destroy_kv_version(&self, path: &str, version: u64) -> Result<(), VaultError>;
    /// The metadata of a record.
    async fn read_kv_metadata(&self, path: &str) -> Result<Option<KvMetadata>, VaultError>;
    /// Sets the custom metadata of a record (makes the record's metadata if there is none).
    async fn write_kv_metadata(&self, path: &str, metadata: &BTreeMap<String, String>) -> Result<(), VaultError>;
}
