//! The Vault client: the trait [`Vault`] has the operations that Servicedb needs, in Vault's
//! terms; [`client::VaultClient`] implements it with vaultrs.
//!
//! Every call has a timeout and retries at most once (after a new login, if Vault reports that the
//! token is invalid). Errors contain no secret.

pub mod client;
mod database;
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
use k8s_openapi::jiff::Timestamp;
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
    /// The lifetime of its tokens.
    pub token_ttl: Duration,
    /// The lifetime of a secret_id.
    pub secret_id_ttl: Duration,
}

/// A newly created secret_id.
pub struct SecretId {
    /// The secret_id itself.
    pub secret_id: SecretString,
    /// Its accessor: identifies it without revealing it.
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
    /// The lifetime of its tokens.
    pub token_ttl: Duration,
    /// Their longest lifetime, with renewals.
    pub token_max_ttl: Duration,
}

/// A role of Vault's database secrets engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseRole {
    /// The role's name.
    pub name: String,
    /// The connection in whose database the logins are made.
    pub connection: String,
    /// The statements that make a login.
    pub creation: Vec<String>,
    /// Those that renew it.
    pub renewal: Vec<String>,
    /// Those that remove it.
    pub revocation: Vec<String>,
    /// The lifetime of a login that is not renewed.
    pub ttl: Duration,
    /// Its lifetime with renewals.
    pub max_ttl: Duration,
}

/// A connection of Vault's database secrets engine to a PostgreSQL server.
#[derive(Debug)]
pub struct DatabaseConnection {
    /// The connection's name.
    pub name: String,
    /// The URL, with `{{username}}` and `{{password}}` in place of both.
    pub url: String,
    /// The engine's login.
    pub username: String,
    /// Its password.
    pub password: SecretString,
    /// The only trusted authorities for the server's certificate, PEM.
    pub ca: String,
    /// The names of the roles that may use it.
    pub roles: Vec<String>,
    /// The template of the names of logins.
    pub username_template: String,
    /// How many sessions each of Vault's servers may have.
    pub sessions: u32,
}

/// A connection as Vault shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownConnection {
    /// The URL, without a password.
    pub url: String,
    /// The engine's login.
    pub username: String,
    /// The names of the roles that may use it.
    pub roles: Vec<String>,
}

/// A version of a KV v2 record.
pub struct KvRecord {
    /// The content.
    pub data: Data,
    /// The version, for check-and-set.
    pub version: u64,
    /// When Vault deletes this version (`delete_version_after` of the record or of the mount).
    pub expires_at: Option<Timestamp>,
}

/// The metadata of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvMetadata {
    /// The newest version, also if it is deleted; 0: there was never one.
    pub version: u64,
    /// Whether the record has content: the newest version exists and is not deleted.
    pub present: bool,
    /// The custom metadata.
    pub custom: BTreeMap<String, String>,
    /// When Vault deletes the newest version.
    pub expires_at: Option<Timestamp>,
    /// Whether the record itself lets its versions expire (`delete_version_after`).
    pub lets_expire: bool,
}

/// The version for check-and-set if [`Vault::read_kv`] found nothing: for a record whose newest
/// version is deleted, it is that version, and 0 would be refused.
///
/// # Errors
/// Any error of Vault.
pub async fn version_to_replace(vault: &dyn Vault, path: &str) -> Result<u64, VaultError> {
    Ok(vault.read_kv_metadata(path).await?.map_or(0, |metadata| metadata.version))
}

/// The operations of Vault that Servicedb needs. All are idempotent or use check-and-set; deleting
/// a missing object succeeds, reading it returns `None`.
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

    /// The AppRole in Vault; `None` also if its fixed values (see [`Self::write_approle`]) were
    /// changed: writing it repairs that.
    async fn read_approle(&self, name: &str) -> Result<Option<AppRole>, VaultError>;
    /// Creates or replaces an AppRole, with the values common to all (bind_secret_id, batch tokens,
    /// no default policy, no use counts).
    async fn write_approle(&self, role: &AppRole) -> Result<(), VaultError>;
    /// Deletes an AppRole, and with it its secret_ids.
    async fn delete_approle(&self, name: &str) -> Result<(), VaultError>;
    /// The AppRole's role_id.
    async fn read_role_id(&self, name: &str) -> Result<Option<String>, VaultError>;
    /// Creates a secret_id; `metadata` appears in Vault's audit log, so it contains no secret.
    async fn generate_secret_id(&self, role: &str, metadata: &BTreeMap<String, String>)
    -> Result<SecretId, VaultError>;
    /// The accessors of all secret_ids.
    async fn list_secret_id_accessors(&self, role: &str) -> Result<Vec<String>, VaultError>;
    /// Destroys a secret_id by its accessor.
    async fn destroy_secret_id(&self, role: &str, accessor: &str) -> Result<(), VaultError>;

    /// The Kubernetes-auth role in Vault.
    async fn read_kubernetes_role(&self, name: &str) -> Result<Option<KubernetesRole>, VaultError>;
    /// Creates or replaces a Kubernetes-auth role.
    async fn write_kubernetes_role(&self, role: &KubernetesRole) -> Result<(), VaultError>;
    /// Deletes a Kubernetes-auth role.
    async fn delete_kubernetes_role(&self, name: &str) -> Result<(), VaultError>;

    /// The role of a database secrets engine; `None` also if its fixed values (see [`Self::write_database_role`]) were
    /// changed.
    async fn read_database_role(&self, mount: &str, name: &str) -> Result<Option<DatabaseRole>, VaultError>;
    /// Creates or replaces such a role, whose credentials are passwords.
    async fn write_database_role(&self, mount: &str, role: &DatabaseRole) -> Result<(), VaultError>;
    /// Deletes such a role. Logins that it made live on until their leases end.
    async fn delete_database_role(&self, mount: &str, name: &str) -> Result<(), VaultError>;
    /// Ends all leases of such a role, also if their logins cannot be removed from the database.
    async fn revoke_database_leases(&self, mount: &str, role: &str) -> Result<(), VaultError>;
    /// A connection of a database secrets engine.
    async fn read_database_connection(&self, mount: &str, name: &str) -> Result<Option<KnownConnection>, VaultError>;
    /// Creates or replaces a connection of a database secrets engine, once Vault has logged in with it.
    ///
    /// # Errors
    /// [`VaultError::Unexpected`] with the status 400 if it cannot log in.
    async fn write_database_connection(&self, mount: &str, connection: &DatabaseConnection) -> Result<(), VaultError>;
    /// Deletes such a connection.
    async fn delete_database_connection(&self, mount: &str, name: &str) -> Result<(), VaultError>;

    /// The newest version of a record; `None` if there is none or it is deleted.
    async fn read_kv(&self, path: &str) -> Result<Option<KvRecord>, VaultError>;
    /// One version of a record; `None` if there is none, or it is deleted or destroyed.
    async fn read_kv_version(&self, path: &str, version: u64) -> Result<Option<KvRecord>, VaultError>;
    /// Writes a record if its version is still `cas` (0: it does not exist).
    ///
    /// # Errors
    /// [`VaultError::CasMismatch`] if it is not.
    async fn write_kv(&self, path: &str, data: &Data, cas: u64) -> Result<u64, VaultError>;
    /// Deletes a record with all versions and its metadata.
    async fn delete_kv(&self, path: &str) -> Result<(), VaultError>;
    /// Destroys one version of a record permanently; newer versions are kept.
    async fn destroy_kv_version(&self, path: &str, version: u64) -> Result<(), VaultError>;
    /// The metadata of a record.
    async fn read_kv_metadata(&self, path: &str) -> Result<Option<KvMetadata>, VaultError>;
    /// Sets the custom metadata of a record (creates the record's metadata if there is none), and
    /// disables the record's own `delete_version_after`. The mount's value still applies: no record can
    /// be exempt from it.
    async fn write_kv_metadata(&self, path: &str, metadata: &BTreeMap<String, String>) -> Result<(), VaultError>;
}
