//! Clients with short-lived logins: their objects in Vault, what the agents and people are told, and their removal.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::fixtures::{MINIMAL, options};
use super::world::{World, names, object};
use crate::api::ClientStatus;
use crate::api::conditions as kind;
use crate::contract::clients::Engine;
use crate::contract::desired::{Desired, KEY};
use crate::operator::context::options::Options;
use crate::operator::context::peers::Peers;
use crate::vault::{KnownConnection, VaultError};

const CLIENTS: &str = "  clients:
  - {serviceAccountName: web}
  - {serviceAccountName: bot, access: {mode: ReadWrite}}
  - {serviceAccountName: reader, sharedToo: true, access: {mode: ReadOnly, dynamic: {ttlSeconds: 300}}}
";
const VAULT: &str = r#"[{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "vault"}}}]"#;

fn offering() -> Options {
    Options {
        vault_database_mount: Some("database".to_owned()),
        vault_database_clients: Peers::parse(VAULT).expect("peers"),
        ..options()
    }
}

async fn settle(world: &mut World) {
    for _ in 0..3 {
        world.settle_all().await;
    }
}

async fn at_rest() -> World {
    let mut world = World::new();
    world.restart_with(offering());
    world.create(&format!("{MINIMAL}{CLIENTS}"));
    settle(&mut world).await;
    assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
    world
}

fn desired(world: &World) -> Desired {
    let desired = world.get("configmaps", &names().desired()).expect("the desired state");
    serde_json::from_str(desired["data"][KEY].as_str().expect("a document")).expect("JSON")
}

fn reader(world: &World) -> ClientStatus {
    let status = world.resource().status.unwrap_or_default();
    status.clients.into_iter().find(|client| client.name == "reader").expect("the client")
}

fn edit(world: &World, change: impl FnOnce(&mut Value)) {
    world.edit(|resource| {
        change(&mut resource["spec"]["clients"]);
        resource["metadata"]["generation"] = 7.into();
    });
}

fn policy(world: &World) -> String {
    world.get("networkpolicies", &names().base()).expect("the policy")["spec"].to_string()
}

/// The key of a client's role of the engine.
fn engine_role(client: &str) -> String {
    format!("database/{}", names().vault("dev").engine_role(client))
}

#[tokio::test]
async fn it_has_a_role_of_the_engine_and_no_record() {
    let world = at_rest().await;
    let (content, vault) = (world.vault.content(), names().vault("dev"));
    let role = &content.database_roles[&engine_role("reader")];
    assert_eq!((role.ttl.as_secs(), role.max_ttl.as_secs()), (300, 86_400));
    assert_eq!(content.database_roles.len(), 1, "others have a record");
    assert!(!content.kv.contains_key(&vault.client_pending("reader")));
    let login = &content.kubernetes_roles[&vault.own_client("reader")];
    assert!(login.token_ttl > role.ttl && login.token_max_ttl > role.max_ttl, "Vault ends a login with its token");
    assert!(login.token_ttl < role.max_ttl, "a token that nobody renews is worth little");
    assert!(
        content.policies[&login.policies[0]].contains("path \"database/creds/servicedb.dev.messaging.chat.reader\"")
    );
    assert!(content.kubernetes_roles[&vault.client()].service_accounts.contains(&"reader".to_owned()), "sharedToo");
    let engine = Engine { mount: "database".to_owned(), connection: vault.engine_connection() };
    assert_eq!(desired(&world).engine, Some(engine));
    assert!(content.policies[&vault.instance()].contains("path \"database/config/servicedb.dev.messaging.chat\""));
    assert!(policy(&world).contains("\"vault\""), "{}", policy(&world));
    let status = reader(&world);
    assert_eq!((status.dynamic, status.generation), (Some(true), 0));
    assert_eq!(status.vault_path, "database/creds/servicedb.dev.messaging.chat.reader");
    assert_eq!(status.rights, "Applied");
}

#[tokio::test]
async fn at_rest_it_is_one_request_to_vault_at_a_resync_as_a_client_with_a_record_is() {
    let mut world = at_rest().await;
    let mut read = BTreeSet::new();
    for resync in 0..4 {
        let calls = world.resync().await;
        for client in ["reader", "bot"] {
            let of_it: Vec<_> = calls.iter().filter(|call| call.contains(client)).collect();
            assert_eq!(of_it.len(), 1, "{client} at resync {resync}: {calls:#?}");
        }
        read.extend(calls.into_iter().filter(|call| call.contains("reader")));
    }
    assert!(read.contains(&format!("read database-role {}", engine_role("reader"))), "{read:?}");
    assert_eq!(read.len(), 3, "its role of the engine, its policy and its role, in turns: {read:?}");
}

#[tokio::test]
async fn where_no_client_has_them_the_engine_stays_out_of_reach() {
    let mut world = at_rest().await;
    edit(&world, |clients| {
        clients.as_array_mut().expect("clients").pop();
    });
    settle(&mut world).await;
    let content = world.vault.content();
    assert_eq!(desired(&world).engine, None);
    assert!(!content.policies[&names().vault("dev").instance()].contains("config/"));
    assert!(!policy(&world).contains("\"vault\""));
}

#[tokio::test]
async fn a_removed_client_is_cut_off_before_its_logins_end() {
    let mut world = at_rest().await;
    world.vault.edit(|content| {
        let name = "database/servicedb.dev.messaging.chat".to_owned();
        content.database_connections.insert(name, KnownConnection::default());
    });
    world.vault.take_calls();
    edit(&world, |clients| {
        clients.as_array_mut().expect("clients").pop();
    });
    settle(&mut world).await;
    let calls = world.vault.take_calls();
    let place = |call: &str| {
        calls.iter().position(|made| made.starts_with(call)).unwrap_or_else(|| panic!("{call}: {calls:?}"))
    };
    let role = engine_role("reader");
    assert!(place("delete kubernetes-role") < place(&format!("delete database-role {role}")));
    assert!(place("delete database-role") < place(&format!("revoke database-leases {role}")));
    assert!(place("revoke database-leases") < place("delete database-connection"), "it removes the logins");
    let content = world.vault.content();
    assert!(content.database_roles.is_empty() && content.database_connections.is_empty());
}

#[tokio::test]
async fn a_client_whose_record_becomes_short_lived_logins_and_back_is_another_one() {
    let mut world = at_rest().await;
    let (vault, bot) = (names().vault("dev"), "bot");
    assert!(world.vault.content().kv.contains_key(&vault.client_runtime(bot)));
    let policies = |world: &World| world.vault.content().kubernetes_roles[&vault.own_client(bot)].policies.clone();
    let former = policies(&world);
    edit(&world, |clients| clients[1]["access"]["dynamic"] = json!({"ttlSeconds": 60, "maxTtlSeconds": 60}));
    settle(&mut world).await;
    let content = world.vault.content();
    assert!(!content.kv.contains_key(&vault.client_runtime(bot)), "nobody goes on with the record");
    assert!(content.database_roles.contains_key(&engine_role(bot)));
    assert!(former.iter().all(|policy| !content.policies.contains_key(policy)), "tokens from before read nothing");
    let accounts: Vec<_> = desired(&world).clients.into_iter().map(|client| client.service_account).collect();
    assert_eq!(accounts, ["bot dynamic", "reader dynamic"]);

    edit(&world, |clients| {
        clients[1]["access"].as_object_mut().expect("access").remove("dynamic");
    });
    settle(&mut world).await;
    let content = world.vault.content();
    assert!(content.kv.contains_key(&vault.client_runtime(bot)));
    assert!(!content.database_roles.contains_key(&engine_role(bot)));
    assert_eq!(policies(&world), former);
    assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
}

#[tokio::test]
async fn the_connection_goes_with_the_last_client_that_changes_to_a_record() {
    let mut world = at_rest().await;
    world.vault.edit(|content| {
        let name = "database/servicedb.dev.messaging.chat".to_owned();
        content.database_connections.insert(name, KnownConnection::default());
    });
    edit(&world, |clients| {
        clients[2]["access"].as_object_mut().expect("access").remove("dynamic");
    });
    settle(&mut world).await;
    let content = world.vault.content();
    assert!(content.database_roles.is_empty());
    assert!(content.database_connections.is_empty(), "it has a password");
}

#[tokio::test]
async fn where_the_platform_offers_none_the_rest_is_applied_and_the_shared_login_stays() {
    let mut world = World::new();
    world.create(&format!("{MINIMAL}{CLIENTS}"));
    settle(&mut world).await;
    assert_eq!(world.condition(kind::DATABASE_AVAILABLE), "True Available");
    assert_eq!(world.condition(kind::CREDENTIALS_READY), "False ShortLivedNotOffered");
    assert_eq!(world.condition(kind::STALLED), "False NotStalled");
    let message = world.message(kind::CREDENTIALS_READY);
    assert!(message.contains("vault.databaseMount") && message.contains("docs/vault.md"), "{message}");
    let (content, vault) = (world.vault.content(), names().vault("dev"));
    assert!(!content.kubernetes_roles.contains_key(&vault.own_client("reader")) && content.database_roles.is_empty());
    assert!(content.kubernetes_roles[&vault.client()].service_accounts.contains(&"reader".to_owned()), "sharedToo");
    assert!(content.kv.contains_key(&vault.client_runtime("bot")), "the other client has its login");
    let status = reader(&world);
    assert_eq!((status.rights.as_str(), status.vault_path.as_str()), ("NotAllowed", ""));
}

#[tokio::test]
async fn an_engine_that_is_missing_or_forbidden_keeps_back_nothing_else() {
    let path = || "database/roles/servicedb.dev.messaging.chat.reader".to_owned();
    for (refusal, reason) in [
        (VaultError::MountMissing { path: path() }, "VaultMountMissing"),
        (VaultError::PermissionDenied { operation: "read", path: path() }, "VaultPermissionDenied"),
        // Another engine is mounted there.
        (VaultError::Unexpected { status: 405, operation: "read", path: path() }, "CredentialsPending"),
    ] {
        let mut world = World::new();
        world.restart_with(offering());
        world.vault.set_engine_down(Some(refusal.clone()));
        world.create(&format!("{MINIMAL}{CLIENTS}"));
        settle(&mut world).await;
        assert_eq!(world.condition(kind::DATABASE_AVAILABLE), "True Available");
        assert_eq!(world.condition(kind::CREDENTIALS_READY), format!("False {reason}"));
        assert_eq!(world.condition(kind::VAULT_REACHABLE), "True Available");
        assert_eq!(world.condition(kind::STALLED), "False NotStalled");
        let message = world.message(kind::CREDENTIALS_READY);
        assert!(message.contains("(reader)") && message.contains("docs/vault.md"), "{message}");
        let (content, vault) = (world.vault.content(), names().vault("dev"));
        assert!(content.kv.contains_key(&vault.client_runtime("bot")), "the other client has its login");
        assert!(
            content.kubernetes_roles.contains_key(&vault.own_client("reader")) && content.database_roles.is_empty()
        );
        let client = reader(&world);
        assert_eq!(client.dynamic, Some(false));
        assert!(client.message.is_some_and(|message| message.contains(reason)), "{refusal}");

        // A removed client is not held back either.
        edit(&world, |clients| {
            clients.as_array_mut().expect("clients").remove(1);
        });
        settle(&mut world).await;
        assert!(!world.vault.content().kubernetes_roles.contains_key(&vault.own_client("bot")));

        world.vault.set_engine_down(None);
        world.restart_with(offering());
        settle(&mut world).await;
        assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
        assert!(world.vault.content().database_roles.contains_key(&engine_role("reader")));
        assert_eq!(reader(&world).dynamic, Some(true));
    }
}

#[tokio::test]
async fn a_deleted_database_leaves_nothing_of_the_engine() {
    let mut world = at_rest().await;
    world.api.store().delete(&object("servicedatabases", "chat"), &Value::Null).expect("a deletion");
    world.settle().await;
    world.end_pods();
    world.vault.take_calls();
    world.settle().await;
    let calls = world.vault.take_calls();
    let place = |call: &str| calls.iter().position(|made| made.starts_with(call));
    assert!(place("delete database-connection").is_some() && place("revoke database-leases").is_some(), "{calls:?}");
    assert!(place("delete database-connection") < place("revoke database-leases"), "there is no database to ask");
    assert!(world.vault.content().database_roles.is_empty());
}
