//! The scenarios of a client that has a login of its own.

use serde_json::{Value, json};
use servicedb::api::ServiceDatabase;
use servicedb::api::names::ANNOTATION_ROTATE_CLIENT;

use super::{NAME, STEP, change, own_client, shared_client};
use crate::harness::{Sandbox, column, service_account};

/// The client.
pub const CLIENT: &str = "reports";
/// The request for its new credentials.
const REQUEST: &str = "reports/now";

/// Rows of which a row policy shows some.
pub const ROWS: [i64; 2] = [1, 2];

/// All tables, with a Secret.
fn reads_all() -> Value {
    own_client(CLIENT, json!({"mode": "ReadOnly"}))
}

/// One column, of some rows, and another privilege: each statement that grants is among those that follow.
fn reads_some() -> Value {
    let grants = json!([
        {"tables": ["notes"], "columns": ["id"], "privileges": ["SELECT"], "rowPolicy": "id > 1"},
        {"tables": ["notes"], "privileges": ["INSERT"]},
    ]);
    let mut client = own_client(CLIENT, json!({"mode": "Custom", "grants": grants}));
    client["connectionLimit"] = json!(3);
    client["statementTimeoutSeconds"] = json!(60);
    client
}

/// The spec from which the client is changed, rotated or removed.
pub fn with_client() -> Value {
    json!({"clients": [shared_client(), reads_all()]})
}

/// The ServiceAccount of the client.
pub async fn prepare(sandbox: &Sandbox) {
    sandbox.create(service_account(CLIENT)).await;
}

/// Declares it.
pub async fn add(sandbox: &Sandbox) {
    change(sandbox, with_client()).await;
}

/// Gives it other rights, and limits.
pub async fn alter(sandbox: &Sandbox) {
    change(sandbox, json!({"clients": [shared_client(), reads_some()]})).await;
}

/// Requests new credentials of it alone.
pub async fn rotate(sandbox: &Sandbox) {
    let patch = json!({"metadata": {"annotations": {ANNOTATION_ROTATE_CLIENT: REQUEST}}});
    sandbox.patch::<ServiceDatabase>(NAME, &patch).await;
}

/// Declares it no longer.
pub async fn remove(sandbox: &Sandbox) {
    change(sandbox, json!({"clients": [shared_client()]})).await;
}

/// Gives the client with the shared login one of its own, as docs/clients.md has it, and takes it back.
pub async fn move_and_return(sandbox: &Sandbox) {
    let mut own = shared_client();
    own["access"] = json!({"mode": "ReadWrite"});
    own["sharedToo"] = json!(true);
    change(sandbox, json!({"clients": [own]})).await;
    sandbox
        .wait("the client has its own login", NAME, STEP, |found| {
            let clients = found.status.as_ref().map(|status| &status.clients[..]).unwrap_or_default();
            clients.iter().any(|client| client.name == NAME && client.generation == 1 && client.rights == "Applied")
        })
        .await;
    change(sandbox, json!({"clients": [shared_client()]})).await;
}

/// Whether status says that the client has its login, and these rights.
///
/// # Errors
/// What is still missing.
pub fn serves(found: &ServiceDatabase, access: &str, generation: i64) -> Result<(), String> {
    let clients = found.status.as_ref().map(|status| &status.clients[..]).unwrap_or_default();
    let client = clients.iter().find(|client| client.name == CLIENT).ok_or("status has no such client")?;
    let is_so = client.access == access && client.rights == "Applied" && client.generation == generation;
    if is_so && client.secret.is_some() { Ok(()) } else { Err(format!("{client:?}")) }
}

/// Whether the request for new credentials is answered.
///
/// # Errors
/// What was answered last.
pub fn is_rotated(found: &ServiceDatabase) -> Result<(), String> {
    let credentials = found.status.as_ref().and_then(|status| status.credentials.clone()).unwrap_or_default();
    let answered = credentials.rotate_client_request;
    if answered.as_deref() == Some(REQUEST) { Ok(()) } else { Err(format!("the answered request is {answered:?}")) }
}

/// Whether nothing is left of the client in status and among the roles.
///
/// # Errors
/// What is left.
pub async fn is_gone(sandbox: &Sandbox, found: &ServiceDatabase) -> Result<(), String> {
    let clients = found.status.as_ref().map(|status| &status.clients[..]).unwrap_or_default();
    if !clients.is_empty() {
        return Err(format!("{clients:?}"));
    }
    let credentials = sandbox.credentials(NAME).await;
    let connection = sandbox.login(NAME, &credentials).await.map_err(|error| error.to_string())?;
    let roles = column(&connection, "SELECT rolname FROM pg_roles WHERE rolname ~ '_c_'").await;
    match roles {
        Ok(roles) if roles.is_empty() => Ok(()),
        other => Err(format!("the roles of clients: {other:?}")),
    }
}

#[test]
fn a_client_serves_with_its_login_its_rights_and_its_secret() {
    let found = |change: Value| {
        let mut client = json!({
            "name": CLIENT, "serviceAccountName": CLIENT, "access": "ReadOnly", "generation": 1, "vaultPath": "p",
            "vaultRole": "r", "role": "chat_db_c_reports", "rights": "Applied", "secret": "reports-credentials",
        });
        crate::harness::database::merge(&mut client, change);
        super::sample(json!({"clients": [client]}))
    };
    assert_eq!(serves(&found(json!({})), "ReadOnly", 1), Ok(()));
    for other in
        [json!({"access": "Custom"}), json!({"generation": 2}), json!({"rights": "Unknown"}), json!({"secret": null})]
    {
        assert!(serves(&found(other.clone()), "ReadOnly", 1).is_err(), "{other}");
    }
    assert!(serves(&super::sample(json!({})), "ReadOnly", 1).is_err());
    assert!(is_rotated(&super::sample(json!({"credentials": {"rotateClientRequest": "reports/before"}}))).is_err());
    assert_eq!(is_rotated(&super::sample(json!({"credentials": {"rotateClientRequest": REQUEST}}))), Ok(()));
}
