//! The implementation of [`Vault`] with vaultrs.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use vaultrs::api::auth::approle::requests::{GenerateNewSecretIDRequest, SetAppRoleRequest};
use vaultrs::api::auth::kubernetes::requests::CreateKubernetesRoleRequest;
use vaultrs::api::kv2::requests::{ReadSecretRequest, SetSecretMetadataRequest, SetSecretRequestOptions};
use vaultrs::auth::{approle, kubernetes};
use vaultrs::error::ClientError;
use vaultrs::kv2;

use super::database::{self, Connection as EngineConnection, Delete, Read, Role as EngineRole, Write};
use super::endpoint::{DeletePolicy, ReadPolicy, WritePolicy, policy_path};
use super::failure::{Failure, Target};
use super::requests::Operation;
use super::session::Session;
use super::transport::{Connection, Transport, unheard};
use super::{
    AppRole, DatabaseConnection, DatabaseRole, KnownConnection, KubernetesRole, KvMetadata, KvRecord, SecretId, Vault,
    VaultError,
};
use crate::contract::records::Data;

pub use super::login::Login;
pub use super::requests::Requests;

/// Vault's address and mounts.
#[derive(Clone, Debug)]
pub struct VaultSettings {
    /// Such as `https://vault.vault.svc:8200`; without a path.
    pub address: String,
    /// Vault's namespace, if it is used.
    pub namespace: Option<String>,
    /// The only trusted authorities for Vault's certificate, PEM; by default, the system's.
    /// Read at each login, and again after a failed connection.
    pub ca_file: Option<PathBuf>,
    /// The mount of KV v2.
    pub kv_mount: String,
    /// The mount of the AppRole auth method with the roles.
    pub approle_mount: String,
    /// The mount of the Kubernetes auth method with the roles.
    pub kubernetes_mount: String,
    /// How long one request may take.
    pub timeout: Duration,
}

/// A client of Vault that logs in when it first needs a token, and again before the token
/// expires. Clones of an `Arc` of it share the token; the token never leaves it.
///
/// The process must have installed its rustls provider before the first request.
pub struct VaultClient {
    session: Session,
    requests: Requests,
    kv_mount: String,
    approle_mount: String,
    kubernetes_mount: String,
}

impl fmt::Debug for VaultClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultClient").field("address", &self.session.transport().address()).finish_non_exhaustive()
    }
}

impl VaultClient {
    /// Checks the settings. Nothing is sent, and no file is read, before the first call.
    ///
    /// # Errors
    /// If the address or the namespace is invalid.
    pub fn new(settings: VaultSettings, login: Login) -> Result<Self, VaultError> {
        let transport = Transport::new(&settings)?;
        let requests = Requests::default();
        let mount = |name: &str| name.trim_matches('/').to_owned();
        Ok(Self {
            session: Session::new(login, transport, requests.clone()),
            requests,
            kv_mount: mount(&settings.kv_mount),
            approle_mount: mount(&settings.approle_mount),
            kubernetes_mount: mount(&settings.kubernetes_mount),
        })
    }

    /// Logs in, unless there is a valid token.
    ///
    /// # Errors
    /// If Vault cannot be reached, or refuses.
    pub async fn log_in(&self) -> Result<(), VaultError> {
        self.session.grant().await.map(drop)
    }

    /// The counters of requests, by operation and result.
    pub fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// Sends a request with the token. `None` means that the object does not exist.
    ///
    /// After a 403 with an invalid token, it retries once with a new one.
    async fn find<T, F, Sent>(&self, operation: Operation, path: String, send: F) -> Result<Option<T>, VaultError>
    where
        F: Fn(Arc<Connection>) -> Sent + Send,
        Sent: Future<Output = Result<T, ClientError>> + Send,
        T: Send,
    {
        let target = Target { operation, path };
        let result = self.exchange(&target, send).await;
        self.requests.add(operation, &result);
        if let Err(error) = &result {
            tracing::debug!(operation = operation.name(), path = target.path, %error, "a request to Vault failed");
        }
        result
    }

    async fn exchange<T, F, Sent>(&self, target: &Target, send: F) -> Result<Option<T>, VaultError>
    where
        F: Fn(Arc<Connection>) -> Sent + Send,
        Sent: Future<Output = Result<T, ClientError>> + Send,
        T: Send,
    {
        let timeout = self.session.transport().timeout();
        let mut grant = self.session.grant().await?;
        let mut answer = unheard(send(grant.connection.clone())).await.map_err(|error| Failure::new(error, timeout));
        if let Err(failure) = &answer
            && self.session.is_dead(&grant, failure).await
        {
            grant = self.session.replace(&grant).await?;
            answer = unheard(send(grant.connection.clone())).await.map_err(|error| Failure::new(error, timeout));
        }
        match answer {
            Ok(value) => Ok(Some(value)),
            Err(failure) if failure.is_absent() => Ok(None),
            Err(failure) => {
                if matches!(failure, Failure::Transport { .. }) {
                    self.session.take_up_ca(&grant).await;
                }
                Err(failure.into_error(self.session.transport().address(), target))
            }
        }
    }

    /// Like [`Self::find`], for an object that must exist.
    async fn request<T, F, Sent>(&self, operation: Operation, path: String, send: F) -> Result<T, VaultError>
    where
        F: Fn(Arc<Connection>) -> Sent + Send,
        Sent: Future<Output = Result<T, ClientError>> + Send,
        T: Send,
    {
        let missing = VaultError::Unexpected { status: 404, operation: operation.capability(), path: path.clone() };
        self.find(operation, path, send).await?.ok_or(missing)
    }

    fn approle_path(&self, role: &str, rest: &str) -> String {
        format!("auth/{}/role/{role}{rest}", self.approle_mount)
    }

    fn kubernetes_path(&self, role: &str) -> String {
        format!("auth/{}/role/{role}", self.kubernetes_mount)
    }

    fn kv_path(&self, kind: &str, path: &str) -> String {
        format!("{}/{kind}/{path}", self.kv_mount)
    }
}

#[async_trait]
impl Vault for VaultClient {
    async fn health(&self) -> Result<(), VaultError> {
        let result = self.check_health().await;
        self.requests.add(Operation::Health, &result.clone().map(Some));
        result
    }

    async fn read_policy(&self, name: &str) -> Result<Option<String>, VaultError> {
        let found = self.find(Operation::ReadPolicy, policy_path(name), |connection| async move {
            vaultrs::api::exec_with_result(&*connection, ReadPolicy { name: name.to_owned() }).await
        });
        Ok(found.await?.map(|found| found.policy))
    }

    async fn write_policy(&self, name: &str, hcl: &str) -> Result<(), VaultError> {
        let write = |connection: Arc<Connection>| async move {
            let endpoint = WritePolicy { name: name.to_owned(), hcl: hcl.to_owned() };
            vaultrs::api::exec_with_empty(&*connection, endpoint).await
        };
        self.request(Operation::WritePolicy, policy_path(name), write).await
    }

    async fn delete_policy(&self, name: &str) -> Result<(), VaultError> {
        let delete = |connection: Arc<Connection>| async move {
            vaultrs::api::exec_with_empty(&*connection, DeletePolicy { name: name.to_owned() }).await
        };
        self.find(Operation::DeletePolicy, policy_path(name), delete).await.map(drop)
    }

    async fn read_approle(&self, name: &str) -> Result<Option<AppRole>, VaultError> {
        let found = self.find(Operation::ReadAppRole, self.approle_path(name, ""), |connection| async move {
            approle::role::read(&*connection, &self.approle_mount, name).await
        });
        let found = found.await?.filter(|found| {
            found.bind_secret_id
                && found.secret_id_num_uses == 0
                && found.token_num_uses == 0
                && found.token_type == "batch"
                && found.token_max_ttl == found.token_ttl
        });
        Ok(found.map(|found| AppRole {
            name: name.to_owned(),
            policies: policies(found.token_policies, found.token_no_default_policy),
            token_ttl: Duration::from_secs(found.token_ttl),
            secret_id_ttl: Duration::from_secs(found.secret_id_ttl),
        }))
    }

    async fn write_approle(&self, role: &AppRole) -> Result<(), VaultError> {
        let write = |connection: Arc<Connection>| async move {
            let mut request = SetAppRoleRequest::builder();
            request
                .bind_secret_id(true)
                .secret_id_num_uses(0_u64)
                .secret_id_ttl(seconds(role.secret_id_ttl))
                .token_policies(role.policies.clone())
                .token_type("batch")
                .token_no_default_policy(true)
                .token_num_uses(0_u64)
                .token_ttl(seconds(role.token_ttl))
                .token_max_ttl(seconds(role.token_ttl));
            approle::role::set(&*connection, &self.approle_mount, &role.name, Some(&mut request)).await
        };
        self.request(Operation::WriteAppRole, self.approle_path(&role.name, ""), write).await
    }

    async fn delete_approle(&self, name: &str) -> Result<(), VaultError> {
        let delete = |connection: Arc<Connection>| async move {
            approle::role::delete(&*connection, &self.approle_mount, name).await
        };
        self.find(Operation::DeleteAppRole, self.approle_path(name, ""), delete).await.map(drop)
    }

    async fn read_role_id(&self, name: &str) -> Result<Option<String>, VaultError> {
        let found = self.find(Operation::ReadRoleId, self.approle_path(name, "/role-id"), |connection| async move {
            approle::role::read_id(&*connection, &self.approle_mount, name).await
        });
        Ok(found.await?.map(|found| found.role_id))
    }

    async fn generate_secret_id(
        &self,
        role: &str,
        metadata: &BTreeMap<String, String>,
    ) -> Result<SecretId, VaultError> {
        let metadata = serde_json::json!(metadata).to_string();
        let generate = |connection: Arc<Connection>| {
            let metadata = metadata.clone();
            async move {
                let mut request = GenerateNewSecretIDRequest::builder();
                request.metadata(metadata);
                approle::role::secret::generate(&*connection, &self.approle_mount, role, Some(&mut request)).await
            }
        };
        let path = self.approle_path(role, "/secret-id");
        let made = self.request(Operation::GenerateSecretId, path, generate).await?;
        Ok(SecretId { secret_id: made.secret_id.into(), accessor: made.secret_id_accessor })
    }

    async fn list_secret_id_accessors(&self, role: &str) -> Result<Vec<String>, VaultError> {
        let found =
            self.find(Operation::ListSecretIds, self.approle_path(role, "/secret-id"), |connection| async move {
                approle::role::secret::list(&*connection, &self.approle_mount, role).await
            });
        Ok(found.await?.map(|found| found.keys).unwrap_or_default())
    }

    async fn destroy_secret_id(&self, role: &str, accessor: &str) -> Result<(), VaultError> {
        let path = self.approle_path(role, "/secret-id-accessor/destroy");
        let destroy = |connection: Arc<Connection>| async move {
            approle::role::secret::delete_accessor(&*connection, &self.approle_mount, role, accessor).await
        };
        self.find(Operation::DestroySecretId, path, destroy).await.map(drop)
    }

    async fn read_kubernetes_role(&self, name: &str) -> Result<Option<KubernetesRole>, VaultError> {
        let found = self.find(Operation::ReadKubernetesRole, self.kubernetes_path(name), |connection| async move {
            kubernetes::role::read(&*connection, &self.kubernetes_mount, name).await
        });
        Ok(found.await?.map(|found| KubernetesRole {
            name: name.to_owned(),
            service_accounts: found.bound_service_account_names,
            namespace: found.bound_service_account_namespaces.join(","),
            policies: policies(found.token_policies, found.token_no_default_policy),
            token_ttl: Duration::from_secs(found.token_ttl),
            token_max_ttl: Duration::from_secs(found.token_max_ttl),
        }))
    }

    async fn write_kubernetes_role(&self, role: &KubernetesRole) -> Result<(), VaultError> {
        let write = |connection: Arc<Connection>| async move {
            let mut request = CreateKubernetesRoleRequest::builder();
            request
                .bound_service_account_names(role.service_accounts.clone())
                .bound_service_account_namespaces(vec![role.namespace.clone()])
                .token_policies(role.policies.clone())
                .token_ttl(seconds(role.token_ttl))
                .token_max_ttl(seconds(role.token_max_ttl))
                .token_no_default_policy(true);
            kubernetes::role::create(&*connection, &self.kubernetes_mount, &role.name, Some(&mut request)).await
        };
        self.request(Operation::WriteKubernetesRole, self.kubernetes_path(&role.name), write).await
    }

    async fn delete_kubernetes_role(&self, name: &str) -> Result<(), VaultError> {
        let delete = |connection: Arc<Connection>| async move {
            kubernetes::role::delete(&*connection, &self.kubernetes_mount, name).await
        };
        self.find(Operation::DeleteKubernetesRole, self.kubernetes_path(name), delete).await.map(drop)
    }

    async fn read_database_role(&self, mount: &str, name: &str) -> Result<Option<DatabaseRole>, VaultError> {
        let path = database::role_path(mount, name);
        let found = self.find(Operation::ReadDatabaseRole, path.clone(), |connection| {
            let endpoint = Read::<EngineRole>::new(path.clone());
            async move { vaultrs::api::exec_with_result(&*connection, endpoint).await }
        });
        Ok(found.await?.and_then(|found| found.into_role(name)))
    }

    async fn write_database_role(&self, mount: &str, role: &DatabaseRole) -> Result<(), VaultError> {
        let (path, body) = (database::role_path(mount, &role.name), database::role_body(role));
        self.post(Operation::WriteDatabaseRole, path, Some(body)).await
    }

    async fn delete_database_role(&self, mount: &str, name: &str) -> Result<(), VaultError> {
        self.delete(Operation::DeleteDatabaseRole, database::role_path(mount, name)).await
    }

    async fn revoke_database_leases(&self, mount: &str, role: &str) -> Result<(), VaultError> {
        self.post(Operation::RevokeDatabaseLeases, database::leases_path(mount, role), None).await
    }

    async fn read_database_connection(&self, mount: &str, name: &str) -> Result<Option<KnownConnection>, VaultError> {
        let path = database::connection_path(mount, name);
        let found = self.find(Operation::ReadDatabaseConnection, path.clone(), |connection| {
            let endpoint = Read::<EngineConnection>::new(path.clone());
            async move { vaultrs::api::exec_with_result(&*connection, endpoint).await }
        });
        Ok(found.await?.map(database::Connection::into_known))
    }

    async fn write_database_connection(&self, mount: &str, connection: &DatabaseConnection) -> Result<(), VaultError> {
        let (path, body) = (database::connection_path(mount, &connection.name), database::connection_body(connection));
        self.post(Operation::WriteDatabaseConnection, path, Some(body)).await
    }

    async fn delete_database_connection(&self, mount: &str, name: &str) -> Result<(), VaultError> {
        self.delete(Operation::DeleteDatabaseConnection, database::connection_path(mount, name)).await
    }

    async fn read_kv(&self, path: &str) -> Result<Option<KvRecord>, VaultError> {
        self.read_record(path, None).await
    }

    async fn read_kv_version(&self, path: &str, version: u64) -> Result<Option<KvRecord>, VaultError> {
        self.read_record(path, Some(version)).await
    }

    async fn write_kv(&self, path: &str, data: &Data, cas: u64) -> Result<u64, VaultError> {
        let full_path = self.kv_path("data", path);
        let Ok(cas) = u32::try_from(cas) else { return Err(VaultError::CasMismatch { path: full_path }) };
        let write = |connection: Arc<Connection>| async move {
            let options = SetSecretRequestOptions { cas };
            kv2::set_with_options(&*connection, &self.kv_mount, path, data, options).await
        };
        Ok(self.request(Operation::WriteKv, full_path, write).await?.version)
    }

    async fn delete_kv(&self, path: &str) -> Result<(), VaultError> {
        let delete =
            |connection: Arc<Connection>| async move { kv2::delete_metadata(&*connection, &self.kv_mount, path).await };
        self.find(Operation::DeleteKv, self.kv_path("metadata", path), delete).await.map(drop)
    }

    async fn destroy_kv_version(&self, path: &str, version: u64) -> Result<(), VaultError> {
        let destroy = |connection: Arc<Connection>| async move {
            kv2::destroy_versions(&*connection, &self.kv_mount, path, vec![version]).await
        };
        self.find(Operation::DestroyKvVersion, self.kv_path("destroy", path), destroy).await.map(drop)
    }

    async fn read_kv_metadata(&self, path: &str) -> Result<Option<KvMetadata>, VaultError> {
        let found = self.find(Operation::ReadKvMetadata, self.kv_path("metadata", path), |connection| async move {
            kv2::read_metadata(&*connection, &self.kv_mount, path).await
        });
        Ok(found.await?.map(|found| {
            let newest = found.versions.get(&found.current_version.to_string());
            KvMetadata {
                version: found.current_version,
                // With delete_version_after, an existing version has a date in the future.
                present: newest
                    .is_some_and(|newest| !newest.destroyed && !has_expired(&newest.deletion_time, Timestamp::now())),
                expires_at: newest.and_then(|newest| newest.deletion_time.parse().ok()),
                lets_expire: found.delete_version_after != NEVER,
                custom: found.custom_metadata.unwrap_or_default().into_iter().collect(),
            }
        }))
    }

    async fn write_kv_metadata(&self, path: &str, metadata: &BTreeMap<String, String>) -> Result<(), VaultError> {
        let write = |connection: Arc<Connection>| async move {
            let mut request = SetSecretMetadataRequest::builder();
            let metadata: HashMap<_, _> = metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            request.custom_metadata(metadata).delete_version_after(NEVER);
            kv2::set_metadata(&*connection, &self.kv_mount, path, Some(&mut request)).await
        };
        self.request(Operation::WriteKvMetadata, self.kv_path("metadata", path), write).await
    }
}

impl VaultClient {
    async fn post(
        &self,
        operation: Operation,
        path: String,
        body: Option<serde_json::Value>,
    ) -> Result<(), VaultError> {
        let write = |connection: Arc<Connection>| {
            let endpoint = Write { path: path.clone(), body: body.clone() };
            async move { vaultrs::api::exec_with_empty(&*connection, endpoint).await }
        };
        self.request(operation, path.clone(), write).await
    }

    async fn delete(&self, operation: Operation, path: String) -> Result<(), VaultError> {
        let delete = |connection: Arc<Connection>| {
            let endpoint = Delete { path: path.clone() };
            async move { vaultrs::api::exec_with_empty(&*connection, endpoint).await }
        };
        self.find(operation, path.clone(), delete).await.map(drop)
    }

    async fn read_record(&self, path: &str, version: Option<u64>) -> Result<Option<KvRecord>, VaultError> {
        let found = self.find(Operation::ReadKv, self.kv_path("data", path), |connection| async move {
            let endpoint = ReadSecretRequest { mount: self.kv_mount.clone(), path: path.to_owned(), version };
            vaultrs::api::exec_with_result(&*connection, endpoint).await
        });
        Ok(found.await?.map(|found| KvRecord {
            data: flat(found.data),
            version: found.metadata.version,
            expires_at: found.metadata.deletion_time.parse().ok(),
        }))
    }

    async fn check_health(&self) -> Result<(), VaultError> {
        let transport = self.session.transport();
        let connection = transport.connection(None).await?;
        let Err(error) = unheard(vaultrs::sys::health(&connection)).await else { return Ok(()) };
        let failure = Failure::new(error, transport.timeout());
        let problem = match (&failure, failure.code()) {
            // A standby (429), a recovery or performance standby (472, 473) forwards; a body
            // that vaultrs cannot parse is still an answer of a healthy Vault.
            (Failure::Empty | Failure::Unreadable, _) | (_, Some(429 | 472 | 473)) => return Ok(()),
            (_, Some(501)) => "it is not initialised (vault operator init)",
            (_, Some(503)) => "it is sealed (vault operator unseal)",
            _ => {
                let target = Target { operation: Operation::Health, path: "sys/health".to_owned() };
                return Err(failure.into_error(transport.address(), &target));
            }
        };
        Err(VaultError::NotServing { address: transport.address().to_owned(), problem: problem.to_owned() })
    }
}

/// The policies of a role's tokens: Vault adds `default` unless configured otherwise.
fn policies(mut listed: Vec<String>, no_default: bool) -> Vec<String> {
    if !no_default {
        listed.push("default".to_owned());
    }
    listed
}

/// The `delete_version_after` of a record that lets no version expire, as Vault takes and gives it.
const NEVER: &str = "0s";

/// A duration in Vault's syntax.
fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs())
}

/// Whether a secret_id has expired; Vault keeps expired ones until its tidy operation, and writes
/// the year 1 for "never".
fn has_expired(expiration: &str, now: Timestamp) -> bool {
    expiration.parse::<Timestamp>().is_ok_and(|at| at <= now) && !expiration.starts_with("0001-")
}

/// A record's content as strings; other types, written by other clients, are kept as JSON text.
fn flat(content: serde_json::Value) -> Data {
    let serde_json::Value::Object(content) = content else { return Data::new() };
    let text = |value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    content.into_iter().map(|(key, value)| (key, text(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_secret_id_that_vault_still_keeps_is_dead() {
        let now: Timestamp = "2025-06-01T00:00:00Z".parse().expect("a time");
        assert!(has_expired("2025-05-31T23:59:59.123456789Z", now));
        assert!(!has_expired("2025-06-01T00:00:01Z", now));
        assert!(!has_expired("0001-01-01T00:00:00Z", now), "Vault's form of `never`");
    }

    #[test]
    fn foreign_values_do_not_make_a_record_unreadable() {
        let data = flat(serde_json::json!({"a": "text", "b": 5, "c": null}));
        assert_eq!(data, Data::from([("a", "text"), ("b", "5"), ("c", "null")].map(|(k, v)| (k.into(), v.into()))));
    }
}
