//! The objects of a database in Vault, and whether they match the pods' credentials.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use serde_json::{Map, Value, json};
use servicedb::contract::pod;

use super::scenario::NAME;
use crate::harness::Sandbox;

/// The mounts that the local operator is installed with.
const KV: &str = "secret";
const APPROLE: &str = "auth/approle/role";
const KUBERNETES: &str = "auth/kubernetes/role";
const POLICIES: &str = "sys/policies/acl";
const ENGINE_ROLES: &str = "database/roles";
const CONNECTIONS: &str = "database/config";

/// The names below a path that are this namespace's.
async fn ours(sandbox: &Sandbox, path: &str) -> Vec<String> {
    let mine = format!("servicedb.{}.{}.", sandbox.cluster.id, sandbox.namespace);
    let names = sandbox.vault().list(path).await;
    names.into_iter().filter(|name| name.starts_with(&mine)).collect()
}

/// The accessors of the secret_ids of an AppRole.
pub async fn secret_ids(sandbox: &Sandbox, role: &str) -> Vec<String> {
    sandbox.vault().list(&format!("{APPROLE}/{role}/secret-id")).await
}

/// Policies, roles with the number of their secret_ids, the connection of the database secrets engine, and records
/// without their values.
pub async fn read(sandbox: &Sandbox) -> Value {
    let vault = sandbox.vault();
    let mut all = Map::new();
    for (kind, path) in [
        ("policy", POLICIES),
        ("approle", APPROLE),
        ("kubernetes role", KUBERNETES),
        ("engine role", ENGINE_ROLES),
        ("connection", CONNECTIONS),
    ] {
        for name in ours(sandbox, path).await {
            let mut found = vault.read(&format!("{path}/{name}")).await.unwrap_or(Value::Null);
            if path == APPROLE {
                found["secret_ids"] = secret_ids(sandbox, &name).await.len().into();
            }
            if path == CONNECTIONS {
                // Two logins take turns.
                found = json!({"roles": found["allowed_roles"], "url": found["connection_details"]["connection_url"]});
            }
            all.insert(format!("{kind} {name}"), found);
        }
    }
    for path in records(sandbox).await {
        let content = vault.record(&path).await.unwrap_or(Value::Null);
        let metadata = vault.metadata(&path).await.unwrap_or(Value::Null);
        let keys: Vec<_> = content.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect();
        let tidied = json!({
            "keys": keys, "generation": content["SERVICEDB_GENERATION"], "uid": content["SERVICEDB_UID"],
            "owners": metadata["custom_metadata"],
        });
        all.insert(format!("record {path}"), tidied);
    }
    all.into()
}

/// The paths of this namespace's records, at any depth: those of clients and of backups are in folders of their own.
async fn records(sandbox: &Sandbox) -> Vec<String> {
    let mut folders = vec![format!("{}/{}", sandbox.cluster.id, sandbox.namespace)];
    let mut records = Vec::new();
    while let Some(folder) = folders.pop() {
        for name in sandbox.vault().list(&format!("{KV}/metadata/{folder}")).await {
            match name.strip_suffix('/') {
                Some(inner) => folders.push(format!("{folder}/{inner}")),
                None => records.push(format!("{folder}/{name}")),
            }
        }
    }
    records
}

/// Checks the pods' credentials against Vault: role_ids, working secret_ids, valid accessors.
///
/// # Errors
/// What could not be read.
pub async fn agreement(sandbox: &Sandbox) -> Result<Value, String> {
    let (names, in_vault) = (sandbox.names(NAME), sandbox.vault_names(NAME));
    let vault = sandbox.vault();
    let mut all = Map::new();
    for (object, role) in [(names.instance_approle(), in_vault.instance()), (names.migrator(), in_vault.migrator())] {
        let map = sandbox.api::<ConfigMap>().get(&object).await.map_err(|error| error.to_string())?;
        let secret = sandbox.api::<Secret>().get(&object).await.map_err(|error| error.to_string())?;
        let given = map.data.and_then(|data| data.get(pod::ROLE_ID).cloned()).unwrap_or_default();
        let held = vault.read(&format!("{APPROLE}/{role}/role-id")).await.unwrap_or(Value::Null);
        let bytes = secret.data.as_ref().and_then(|data| data.get(pod::SECRET_ID)).cloned().unwrap_or_default();
        let secret_id = String::from_utf8(bytes.0).unwrap_or_default();
        let alive = secret_ids(sandbox, &role).await;
        let accessor = secret.annotations().get("servicedb.dev/secret-id-accessor");
        let told = json!({
            "role_id": held["role_id"] == given.as_str(),
            "logs_in": vault.approle_login(&given, &secret_id).await.is_ok(),
            "accessor": accessor.is_some_and(|accessor| alive.contains(accessor)),
        });
        all.insert(object, told);
    }
    Ok(all.into())
}

/// Removes everything of this namespace.
pub async fn remove(sandbox: &Sandbox) {
    let vault = sandbox.vault();
    // The database may be gone: without a connection Vault does not try to remove logins from it.
    let leased: Vec<_> = ours(sandbox, ENGINE_ROLES).await;
    for path in [CONNECTIONS, ENGINE_ROLES, APPROLE, KUBERNETES, POLICIES] {
        for name in ours(sandbox, path).await {
            vault.delete(&format!("{path}/{name}")).await;
        }
    }
    for role in leased {
        vault.write(&format!("sys/leases/revoke-force/database/creds/{role}"), &json!({})).await;
    }
    for path in records(sandbox).await {
        vault.forget(&path).await;
    }
}
