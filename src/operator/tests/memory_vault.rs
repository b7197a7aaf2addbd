//! Vault in memory: the semantics of the trait, with a switch that makes it unreachable.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::faults::{Fault, Faults};
use crate::contract::records::Data;
use crate::vault::{
    AppRole, DatabaseConnection, DatabaseRole, KnownConnection, KubernetesRole, KvMetadata, KvRecord, SecretId, Vault,
    VaultError,
};

/// The maximum number of keys of a record's custom metadata, as in Vault.
const MAXIMUM_KEYS: usize = 64;
/// The maximum length of one of its values, as in Vault, in bytes.
const MAXIMUM_VALUE: usize = 512;

/// A record with its metadata.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The newest version's content; none if only metadata was written.
    pub data: Option<Data>,
    /// The newest version.
    pub version: u64,
    /// The custom metadata.
    pub metadata: BTreeMap<String, String>,
    /// When Vault deletes the newest version.
    pub expires_at: Option<jiff::Timestamp>,
    /// Whether versions of the record expire.
    pub lets_expire: bool,
}

/// Vault's content.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// The policies' texts.
    pub policies: BTreeMap<String, String>,
    /// The AppRoles.
    pub approles: BTreeMap<String, AppRole>,
    /// The accessors of the secret_ids, by AppRole.
    pub secret_ids: BTreeMap<String, Vec<String>>,
    /// The roles of Kubernetes auth.
    pub kubernetes_roles: BTreeMap<String, KubernetesRole>,
    /// The roles of database secrets engines, by mount and name.
    pub database_roles: BTreeMap<String, DatabaseRole>,
    /// Their connections, by mount and name; agents write them.
    pub database_connections: BTreeMap<String, KnownConnection>,
    /// The records.
    pub kv: BTreeMap<String, Record>,
}

#[derive(Default)]
struct State {
    content: Content,
    down: Option<VaultError>,
    engine: Option<VaultError>,
    calls: Vec<String>,
    refused: Option<String>,
    made: u64,
}

/// Vault; clones are the same one.
#[derive(Clone)]
pub struct MemoryVault {
    state: Arc<Mutex<State>>,
    faults: Faults,
}

impl MemoryVault {
    /// An empty Vault, whose writes can be made to fail.
    pub fn new(faults: Faults) -> Self {
        Self { state: Arc::default(), faults }
    }

    /// Its content.
    pub fn content(&self) -> Content {
        self.state().content.clone()
    }

    /// Changes it as another client.
    pub fn edit(&self, change: impl FnOnce(&mut Content)) {
        change(&mut self.state().content);
    }

    /// From now on every call returns this error; none: it serves again.
    pub fn set_down(&self, error: Option<VaultError>) {
        self.state().down = error;
    }

    /// From now on every call of the database secrets engine returns this error; none: it serves again.
    pub fn set_engine_down(&self, error: Option<VaultError>) {
        self.state().engine = error;
    }

    /// Refuses the next write of a record, as after a concurrent write.
    pub fn refuse_next_write(&self, path: &str) {
        self.state().refused = Some(path.to_owned());
    }

    /// The calls since the last call of this function, including reads.
    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state().calls)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn engine(&self) -> Result<(), VaultError> {
        self.state().engine.clone().map_or(Ok(()), Err)
    }

    fn read<T>(&self, call: String, take: impl FnOnce(&Content) -> T) -> Result<T, VaultError> {
        let mut state = self.state();
        state.calls.push(call);
        if self.faults.now().is_some() {
            return Err(gone());
        }
        state.down.clone().map_or_else(|| Ok(take(&state.content)), Err)
    }

    fn write<T>(
        &self,
        call: String,
        change: impl FnOnce(&mut State) -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        let mut state = self.state();
        if let Some(error) = &state.down {
            return Err(error.clone());
        }
        let fault = self.faults.next(&call);
        state.calls.push(call);
        if fault == Some(Fault::BeforeSend) {
            return Err(gone());
        }
        let done = change(&mut state);
        if fault.is_some() { Err(gone()) } else { done }
    }
}

fn gone() -> VaultError {
    VaultError::Unreachable { address: "memory".to_owned(), problem: "the connection was closed".to_owned() }
}

#[async_trait]
impl Vault for MemoryVault {
    async fn health(&self) -> Result<(), VaultError> {
        self.read("health".to_owned(), |_| ())
    }

    async fn read_policy(&self, name: &str) -> Result<Option<String>, VaultError> {
        self.read(format!("read policy {name}"), |content| content.policies.get(name).cloned())
    }

    async fn write_policy(&self, name: &str, hcl: &str) -> Result<(), VaultError> {
        self.write(format!("write policy {name}"), |state| {
            state.content.policies.insert(name.to_owned(), hcl.to_owned());
            Ok(())
        })
    }

    async fn delete_policy(&self, name: &str) -> Result<(), VaultError> {
        self.write(format!("delete policy {name}"), |state| {
            state.content.policies.remove(name);
            Ok(())
        })
    }

    async fn read_approle(&self, name: &str) -> Result<Option<AppRole>, VaultError> {
        self.read(format!("read approle {name}"), |content| content.approles.get(name).cloned())
    }

    async fn write_approle(&self, role: &AppRole) -> Result<(), VaultError> {
        self.write(format!("write approle {}", role.name), |state| {
            state.content.approles.insert(role.name.clone(), role.clone());
            Ok(())
        })
    }

    async fn delete_approle(&self, name: &str) -> Result<(), VaultError> {
        self.write(format!("delete approle {name}"), |state| {
            state.content.approles.remove(name);
            state.content.secret_ids.remove(name);
            Ok(())
        })
    }

    async fn read_role_id(&self, name: &str) -> Result<Option<String>, VaultError> {
        self.read(format!("read role-id {name}"), |content| {
            content.approles.get(name).map(|_| format!("role-id of {name}"))
        })
    }

    async fn generate_secret_id(&self, role: &str, _: &BTreeMap<String, String>) -> Result<SecretId, VaultError> {
        self.write(format!("generate secret-id {role}"), |state| {
            state.made += 1;
            let accessor = format!("accessor-{}", state.made);
            state.content.secret_ids.entry(role.to_owned()).or_default().push(accessor.clone());
            Ok(SecretId { secret_id: format!("secret-id-{}", state.made).into(), accessor })
        })
    }

    async fn list_secret_id_accessors(&self, role: &str) -> Result<Vec<String>, VaultError> {
        self.read(format!("read secret-ids {role}"), |content| {
            content.secret_ids.get(role).cloned().unwrap_or_default()
        })
    }

    async fn destroy_secret_id(&self, role: &str, accessor: &str) -> Result<(), VaultError> {
        self.write(format!("destroy secret-id {role}"), |state| {
            state.content.secret_ids.entry(role.to_owned()).or_default().retain(|alive| alive != accessor);
            Ok(())
        })
    }

    async fn read_kubernetes_role(&self, name: &str) -> Result<Option<KubernetesRole>, VaultError> {
        self.read(format!("read kubernetes-role {name}"), |content| content.kubernetes_roles.get(name).cloned())
    }

    async fn write_kubernetes_role(&self, role: &KubernetesRole) -> Result<(), VaultError> {
        self.write(format!("write kubernetes-role {}", role.name), |state| {
            state.content.kubernetes_roles.insert(role.name.clone(), role.clone());
            Ok(())
        })
    }

    async fn delete_kubernetes_role(&self, name: &str) -> Result<(), VaultError> {
        self.write(format!("delete kubernetes-role {name}"), |state| {
            state.content.kubernetes_roles.remove(name);
            Ok(())
        })
    }

    async fn read_database_role(&self, mount: &str, name: &str) -> Result<Option<DatabaseRole>, VaultError> {
        self.engine()?;
        let key = format!("{mount}/{name}");
        self.read(format!("read database-role {key}"), |content| content.database_roles.get(&key).cloned())
    }

    async fn write_database_role(&self, mount: &str, role: &DatabaseRole) -> Result<(), VaultError> {
        self.engine()?;
        let key = format!("{mount}/{}", role.name);
        self.write(format!("write database-role {key}"), |state| {
            state.content.database_roles.insert(key.clone(), role.clone());
            Ok(())
        })
    }

    async fn delete_database_role(&self, mount: &str, name: &str) -> Result<(), VaultError> {
        self.engine()?;
        let key = format!("{mount}/{name}");
        self.write(format!("delete database-role {key}"), |state| {
            state.content.database_roles.remove(&key);
            Ok(())
        })
    }

    async fn revoke_database_leases(&self, mount: &str, role: &str) -> Result<(), VaultError> {
        self.write(format!("revoke database-leases {mount}/{role}"), |_| Ok(()))
    }

    async fn read_database_connection(&self, mount: &str, name: &str) -> Result<Option<KnownConnection>, VaultError> {
        self.engine()?;
        let key = format!("{mount}/{name}");
        self.read(format!("read database-connection {key}"), |content| content.database_connections.get(&key).cloned())
    }

    async fn write_database_connection(&self, mount: &str, connection: &DatabaseConnection) -> Result<(), VaultError> {
        self.engine()?;
        let key = format!("{mount}/{}", connection.name);
        self.write(format!("write database-connection {key}"), |state| {
            let DatabaseConnection { url, username, roles, .. } = connection;
            let known = KnownConnection { url: url.clone(), username: username.clone(), roles: roles.clone() };
            state.content.database_connections.insert(key.clone(), known);
            Ok(())
        })
    }

    async fn delete_database_connection(&self, mount: &str, name: &str) -> Result<(), VaultError> {
        self.engine()?;
        let key = format!("{mount}/{name}");
        self.write(format!("delete database-connection {key}"), |state| {
            state.content.database_connections.remove(&key);
            Ok(())
        })
    }

    async fn read_kv(&self, path: &str) -> Result<Option<KvRecord>, VaultError> {
        self.read(format!("read kv {path}"), |content| {
            let record = content.kv.get(path)?;
            Some(KvRecord { data: record.data.clone()?, version: record.version, expires_at: record.expires_at })
        })
    }

    async fn read_kv_version(&self, path: &str, version: u64) -> Result<Option<KvRecord>, VaultError> {
        Ok(self.read_kv(path).await?.filter(|record| record.version == version))
    }

    async fn write_kv(&self, path: &str, data: &Data, cas: u64) -> Result<u64, VaultError> {
        self.write(format!("write kv {path}"), |state| {
            if state.refused.take_if(|refused| refused == path).is_some() {
                return Err(VaultError::CasMismatch { path: path.to_owned() });
            }
            let record = state.content.kv.entry(path.to_owned()).or_default();
            if record.version != cas {
                return Err(VaultError::CasMismatch { path: path.to_owned() });
            }
            record.data = Some(data.clone());
            record.version += 1;
            Ok(record.version)
        })
    }

    async fn delete_kv(&self, path: &str) -> Result<(), VaultError> {
        self.write(format!("delete kv {path}"), |state| {
            state.content.kv.remove(path);
            Ok(())
        })
    }

    async fn destroy_kv_version(&self, path: &str, version: u64) -> Result<(), VaultError> {
        self.write(format!("destroy kv {path} version {version}"), |state| {
            if let Some(record) = state.content.kv.get_mut(path).filter(|record| record.version == version) {
                record.data = None;
            }
            Ok(())
        })
    }

    async fn read_kv_metadata(&self, path: &str) -> Result<Option<KvMetadata>, VaultError> {
        self.read(format!("read kv-metadata {path}"), |content| {
            let record = content.kv.get(path)?;
            let (version, present) = (record.version, record.data.is_some());
            let (expires_at, lets_expire) = (record.expires_at, record.lets_expire);
            Some(KvMetadata { version, present, custom: record.metadata.clone(), expires_at, lets_expire })
        })
    }

    async fn write_kv_metadata(&self, path: &str, metadata: &BTreeMap<String, String>) -> Result<(), VaultError> {
        self.write(format!("write kv-metadata {path}"), |state| {
            if metadata.len() > MAXIMUM_KEYS || metadata.values().any(|value| value.len() > MAXIMUM_VALUE) {
                let (operation, path) = ("create or update", path.to_owned());
                return Err(VaultError::Unexpected { status: 400, operation, path });
            }
            let record = state.content.kv.entry(path.to_owned()).or_default();
            (record.metadata, record.lets_expire) = (metadata.clone(), false);
            Ok(())
        })
    }
}
