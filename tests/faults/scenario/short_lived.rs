//! The scenarios of a client with short-lived logins: Vault's database secrets engine makes them.

use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;

use super::{NAME, STEP, change, clients, shared_client};
use crate::harness::{Sandbox, column, until};

/// The client.
const CLIENT: &str = "support";
/// The limit of the sessions of one of its logins, once it has one.
const LIMIT: i64 = 3;

/// All tables.
fn reads_all() -> Value {
    json!({"serviceAccountName": CLIENT, "access": {"mode": "ReadOnly", "dynamic": {}}})
}

/// The same with limits.
fn limited() -> Value {
    let mut client = reads_all();
    client["connectionLimit"] = json!(LIMIT);
    client["statementTimeoutSeconds"] = json!(60);
    client
}

/// The spec from which the client is changed or removed.
pub fn with_client() -> Value {
    json!({"clients": [shared_client(), reads_all()]})
}

/// Has Vault make a login, which the change or the removal of the client finds.
pub async fn prepare(sandbox: &Sandbox) {
    until("the client has its logins", STEP, || async { serves(&sandbox.get(NAME).await) }).await;
    sandbox.leased(NAME, CLIENT).await;
}

/// Declares it.
pub async fn add(sandbox: &Sandbox) {
    change(sandbox, with_client()).await;
}

/// Gives it limits.
pub async fn limit(sandbox: &Sandbox) {
    change(sandbox, json!({"clients": [shared_client(), limited()]})).await;
}

/// Declares it no longer.
pub async fn remove(sandbox: &Sandbox) {
    change(sandbox, json!({"clients": [shared_client()]})).await;
}

/// Whether status says that Vault makes logins for the client, and that it has its rights.
///
/// # Errors
/// What is still missing.
pub fn serves(found: &ServiceDatabase) -> Result<(), String> {
    let clients = found.status.as_ref().map(|status| &status.clients[..]).unwrap_or_default();
    let client = clients.iter().find(|client| client.name == CLIENT).ok_or("status has no such client")?;
    let is_so = client.dynamic == Some(true) && client.rights == "Applied" && client.generation == 0;
    if is_so { Ok(()) } else { Err(format!("{client:?}")) }
}

/// Whether the logins that Vault made before have the limits, too.
///
/// # Errors
/// What is still missing.
pub async fn is_limited(sandbox: &Sandbox, found: &ServiceDatabase) -> Result<(), String> {
    serves(found)?;
    let limits = logins(sandbox, "rolconnlimit::text").await?;
    let wanted = LIMIT.to_string();
    if !limits.is_empty() && limits.iter().all(|limit| *limit == wanted) { Ok(()) } else { Err(format!("{limits:?}")) }
}

/// Whether nothing is left of the client in status and among the roles.
///
/// # Errors
/// What is left.
pub async fn is_gone(sandbox: &Sandbox, found: &ServiceDatabase) -> Result<(), String> {
    clients::is_gone(sandbox, found).await?;
    let left = logins(sandbox, "rolname").await?;
    if left.is_empty() { Ok(()) } else { Err(format!("short-lived logins: {left:?}")) }
}

/// A property of each short-lived login that the database has.
async fn logins(sandbox: &Sandbox, property: &str) -> Result<Vec<String>, String> {
    let credentials = sandbox.credentials(NAME).await;
    let connection = sandbox.login(NAME, &credentials).await.map_err(|error| error.to_string())?;
    let query = format!("SELECT {property} FROM pg_roles WHERE starts_with(rolname::text, 'servicedb.')");
    column(&connection, &query).await.map_err(|refusal| format!("{refusal:?}"))
}

#[test]
fn a_client_with_short_lived_logins_serves_with_vault_and_its_rights() {
    let found = |change: Value| {
        let mut client = json!({
            "name": CLIENT, "serviceAccountName": CLIENT, "access": "ReadOnly", "dynamic": true, "vaultPath": "p",
            "vaultRole": "r", "role": "chat_db_c_support", "rights": "Applied",
        });
        crate::harness::database::merge(&mut client, change);
        super::sample(json!({"clients": [client]}))
    };
    assert_eq!(serves(&found(json!({}))), Ok(()));
    for other in [json!({"dynamic": false}), json!({"rights": "Unknown"}), json!({"generation": 1})] {
        assert!(serves(&found(other.clone())).is_err(), "{other}");
    }
}
