//! Clients with a login of their own: their objects in Vault, their generations, their removal.

use serde_json::{Value, json};

use super::fixtures::MINIMAL;
use super::world::{World, names};
use crate::api::ClientStatus;
use crate::api::conditions as kind;
use crate::api::names::{ANNOTATION_ROTATE, ANNOTATION_ROTATE_CLIENT};
use crate::contract::clients::{RightsReport, Sessions};
use crate::contract::desired::Desired;

const CLIENTS: &str = "  clients:
  - {serviceAccountName: web}
  - {serviceAccountName: bot, access: {mode: ReadWrite}, connectionLimit: 4}
  - {serviceAccountName: long.name.of.a.reader, name: reader, sharedToo: true,
     access: {mode: Custom, grants: [{tables: [notes], privileges: [SELECT]}]}}
";

async fn at_rest() -> World {
    let mut world = World::new();
    world.create(&format!("{MINIMAL}{CLIENTS}"));
    settle(&mut world).await;
    assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
    world
}

/// Until the agents have promoted what the operator has decided.
async fn settle(world: &mut World) {
    for _ in 0..3 {
        world.settle_all().await;
    }
}

fn clients(world: &World) -> Vec<ClientStatus> {
    world.resource().status.map(|status| status.clients).unwrap_or_default()
}

fn generations(world: &World) -> Vec<i64> {
    clients(world).iter().map(|client| client.generation).collect()
}

fn desired(world: &World) -> Desired {
    let desired = world.get("configmaps", &names().desired()).expect("the desired state");
    serde_json::from_str(desired["data"]["desired.json"].as_str().expect("a document")).expect("JSON")
}

fn set(world: &World, clients: Value) {
    world.edit(|resource| {
        resource["spec"]["clients"] = clients;
        let generation = resource["metadata"]["generation"].as_i64().unwrap_or(1);
        resource["metadata"]["generation"] = (generation + 1).into();
    });
}

/// The notes of clients that have objects in Vault.
fn noted(world: &World) -> Vec<(String, String)> {
    let mut record = world.vault.content().kv.remove(&names().vault("dev").runtime()).expect("a record");
    record.metadata.retain(|key, _| key.starts_with("servicedb-client"));
    record.metadata.into_iter().collect()
}

/// Clients with a login of their own, with names of the maximum length.
fn own_clients(kind: &str, count: usize) -> Value {
    let account = |number: usize| format!("{kind}-{number:015}");
    (0..count).map(|number| json!({"serviceAccountName": account(number), "access": {"mode": "ReadOnly"}})).collect()
}

/// The clients that have a role of their own in Vault.
fn roles_in_vault(world: &World) -> Vec<String> {
    let prefix = names().vault("dev").own_client("");
    let roles = world.vault.content().kubernetes_roles;
    roles.keys().filter_map(|role| role.strip_prefix(&prefix)).map(str::to_owned).collect()
}

#[tokio::test]
async fn each_has_a_role_a_policy_and_a_record_of_its_own() {
    let world = at_rest().await;
    let (vault, names) = (world.vault.content(), names().vault("dev"));
    let accounts = |role: &str| vault.kubernetes_roles[role].service_accounts.clone();
    assert_eq!(accounts(&names.client()), ["long.name.of.a.reader", "web"], "the shared login's");
    assert_eq!(accounts(&names.own_client("bot")), ["bot"]);
    assert_eq!(accounts(&names.own_client("reader")), ["long.name.of.a.reader"]);
    let [policy] = &vault.kubernetes_roles[&names.own_client("bot")].policies[..] else { panic!("one policy") };
    assert!(vault.policies[policy].contains("/data/dev/messaging/chat/clients/bot/runtime"));
    assert!(!vault.policies[policy].contains("reader"));
    let record = vault.kv[&names.client_runtime("bot")].data.clone().expect("a record");
    assert_eq!((record["CHAT_DB_USER"].as_str(), record["CHAT_DB_NAME"].as_str()), ("chat_c_bot_a", "chat_db"));
    let metadata = &vault.kv[&names.runtime()].metadata;
    assert_eq!(metadata["servicedb-clients-1"], "bot,reader");
    let status = clients(&world);
    assert_eq!(status.iter().map(|client| client.name.as_str()).collect::<Vec<_>>(), ["bot", "reader"]);
    assert_eq!((status[0].rights.as_str(), status[0].role.as_str()), ("Applied", "chat_db_c_bot"));
    assert_eq!(status[0].vault_role, names.own_client("bot"));
    assert_eq!(desired(&world).clients[0].connection_limit, Some(4));
}

/// For services that cannot read Vault.
#[tokio::test]
async fn a_client_has_a_secret_that_follows_its_record_and_goes_with_its_declaration() {
    let mut world = at_rest().await;
    let user = |world: &World, secret: &str| {
        let held = world.get("secrets", secret)?["data"]["username"].clone();
        let bytes: k8s_openapi::ByteString = serde_json::from_value(held).expect("base64");
        Some(String::from_utf8(bytes.0).expect("text"))
    };
    let bot = |secret: Option<&str>| {
        let mut bot = json!({"serviceAccountName": "bot", "access": {"mode": "ReadWrite"}});
        if let Some(secret) = secret {
            bot["secret"] = json!({"name": secret});
        }
        bot
    };
    set(&world, json!([bot(Some("bot-credentials"))]));
    settle(&mut world).await;
    assert_eq!(user(&world, "bot-credentials").as_deref(), Some("chat_c_bot_a"));
    assert_eq!(clients(&world)[0].secret.as_deref(), Some("bot-credentials"));

    world.edit(|resource| resource["metadata"]["annotations"][ANNOTATION_ROTATE_CLIENT] = "bot/monday".into());
    settle(&mut world).await;
    assert_eq!(user(&world, "bot-credentials").as_deref(), Some("chat_c_bot_b"));

    set(&world, json!([bot(Some("other"))]));
    settle(&mut world).await;
    assert_eq!((user(&world, "bot-credentials"), user(&world, "other").as_deref()), (None, Some("chat_c_bot_b")));
    set(&world, json!([bot(None)]));
    settle(&mut world).await;
    assert_eq!((user(&world, "other"), clients(&world)[0].secret.clone()), (None, None));

    set(&world, json!([bot(Some("again"))]));
    settle(&mut world).await;
    assert!(user(&world, "again").is_some());
    world.edit(|resource| resource["spec"]["paused"] = true.into());
    set(&world, json!([]));
    settle(&mut world).await;
    world.edit(|resource| resource["spec"]["paused"] = false.into());
    settle(&mut world).await;
    assert_eq!(user(&world, "again"), None, "with the client, although status forgot it during the pause");

    // Declared once more: what was observed of its absence does not keep it from being removed.
    set(&world, json!([bot(Some("again"))]));
    settle(&mut world).await;
    assert!(user(&world, "again").is_some());
    set(&world, json!([bot(None)]));
    settle(&mut world).await;
    assert_eq!(user(&world, "again"), None);
    settle(&mut world).await;
    let desired = world.get("configmaps", &names().desired()).expect("the desired state");
    assert_eq!(desired["metadata"]["annotations"]["servicedb.dev/credential-secrets"], Value::Null);
}

#[tokio::test]
async fn a_secret_whose_name_moves_to_a_client_without_a_login_loses_the_former_one() {
    let mut world = at_rest().await;
    let one =
        |client: &str| json!({"serviceAccountName": client, "access": {"mode": "ReadOnly"}, "secret": {"name": "s"}});
    set(&world, json!([one("bot")]));
    settle(&mut world).await;
    let before = world.get("secrets", "s").expect("the Secret");
    world
        .vault
        .set_down(Some(crate::vault::VaultError::Unreachable { address: "x".into(), problem: "timeout".into() }));
    set(&world, json!([one("other")]));
    settle(&mut world).await;
    assert!(world.get("secrets", "s").is_none(), "it still has the login of the former client");
    world.vault.set_down(None);
    world.vault_is_back();
    settle(&mut world).await;
    let after = world.get("secrets", "s").expect("the Secret");
    assert_ne!(before["data"]["username"], after["data"]["username"]);
}

#[tokio::test]
async fn the_names_of_secrets_are_told_apart() {
    let world = at_rest().await;
    for (secret, access, told) in [
        ("chat-db-tls", "ReadOnly", "reserved for the operator"),
        ("reader-credentials", "Shared", "needs access with a mode other than Shared"),
        ("bot-credentials", "ReadOnly", "another login's Secret"),
    ] {
        set(
            &world,
            json!([
                {"serviceAccountName": "bot", "access": {"mode": "ReadOnly"}, "secret": {"name": "bot-credentials"}},
                {"serviceAccountName": "web", "access": {"mode": access}, "secret": {"name": secret}},
            ]),
        );
        let resource = world.resource();
        let checked = crate::operator::validate::validate(&resource, &super::fixtures::options());
        let Err(crate::operator::validate::Invalid { message, .. }) = checked else { panic!("accepted: {secret}") };
        assert!(message.contains(told), "{message}");
    }
}

#[tokio::test]
async fn one_is_rotated_alone_and_all_together() {
    let mut world = at_rest().await;
    assert_eq!(generations(&world), [1, 1]);
    let ask = |world: &World, annotation: &str, value: &str| {
        world.edit(|resource| resource["metadata"]["annotations"][annotation] = value.into());
    };
    ask(&world, ANNOTATION_ROTATE_CLIENT, "reader/monday");
    settle(&mut world).await;
    assert_eq!(generations(&world), [1, 2]);
    let credentials =
        |world: &World| world.resource().status.and_then(|status| status.credentials).expect("credentials");
    assert_eq!(credentials(&world).rotate_client_request.as_deref(), Some("reader/monday"));
    assert_eq!(credentials(&world).generation, 1);
    for _ in 0..2 {
        world.restart();
        settle(&mut world).await;
        assert_eq!(generations(&world), [1, 2], "the request was completed");
    }
    ask(&world, ANNOTATION_ROTATE, "all");
    settle(&mut world).await;
    assert_eq!(generations(&world), [2, 3]);
    assert_eq!((credentials(&world).generation, credentials(&world).rotate_request.as_deref()), (2, Some("all")));
}

#[tokio::test]
async fn a_removed_client_leaves_nothing_in_vault_and_the_desired_state() {
    let mut world = at_rest().await;
    set(&world, json!([{"serviceAccountName": "web"}]));
    settle(&mut world).await;
    let (vault, names) = (world.vault.content(), names().vault("dev"));
    for client in ["bot", "reader"] {
        assert!(!vault.kubernetes_roles.contains_key(&names.own_client(client)));
        let of_client = |policy: &&String| policy.starts_with(&names.own_client(client));
        assert_eq!(vault.policies.keys().find(of_client), None);
        assert!(!vault.kv.contains_key(&names.client_runtime(client)), "{client}");
        assert!(!vault.kv.contains_key(&names.client_pending(client)), "{client}");
    }
    assert!(noted(&world).is_empty(), "{:?}", noted(&world));
    assert_eq!(vault.kubernetes_roles[&names.client()].service_accounts, ["web"]);
    assert!(desired(&world).clients.is_empty() && clients(&world).is_empty());
    assert_eq!(world.condition(kind::READY), "True Ready");
}

/// Vault refuses a record more than 64 keys of metadata, and the CRD admits 64 clients.
#[tokio::test]
async fn as_many_clients_as_can_be_declared_have_their_objects() {
    let mut world = at_rest().await;
    set(&world, own_clients("main", 64));
    settle(&mut world).await;
    assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
    assert_eq!((roles_in_vault(&world).len(), clients(&world).len()), (64, 64));
    assert!(generations(&world).iter().all(|generation| *generation == 1), "{:?}", generations(&world));
}

#[tokio::test]
async fn forty_clients_can_be_renamed_at_once() {
    let mut world = at_rest().await;
    set(&world, own_clients("main", 40));
    settle(&mut world).await;
    assert_eq!(roles_in_vault(&world).len(), 40);
    set(&world, own_clients("next", 40));
    settle(&mut world).await;
    assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
    let roles = roles_in_vault(&world);
    assert!(roles.len() == 40 && roles.iter().all(|client| client.starts_with("next-")), "{roles:?}");
    assert!(!world.vault.content().kv.keys().any(|path| path.contains("/clients/main-")));
    assert!(noted(&world).iter().all(|(_, names)| !names.contains("main-")), "{:?}", noted(&world));
}

/// One key of metadata for each client.
#[tokio::test]
async fn clients_that_an_earlier_version_has_noted_are_known_and_noted_anew() {
    let mut world = at_rest().await;
    let names = names().vault("dev");
    world.vault.edit(|content| {
        let metadata = &mut content.kv.get_mut(&names.runtime()).expect("a record").metadata;
        metadata.remove("servicedb-clients-1");
        for client in ["bot", "reader"] {
            metadata.insert(format!("servicedb-client-{client}"), "login".to_owned());
        }
    });
    set(&world, json!([{"serviceAccountName": "bot", "access": {"mode": "ReadWrite"}}]));
    world.restart();
    settle(&mut world).await;
    assert_eq!(roles_in_vault(&world), ["bot"]);
    assert!(!world.vault.content().kv.contains_key(&names.client_runtime("reader")));
    assert_eq!(noted(&world), [("servicedb-clients-1".to_owned(), "bot".to_owned())]);
}

#[tokio::test]
async fn a_name_is_noted_before_its_objects_are_made_and_until_they_are_removed() {
    let mut world = at_rest().await;
    set(&world, json!([{"serviceAccountName": "new", "access": {"mode": "ReadOnly"}}]));
    world.vault.take_calls();
    world.settle().await;
    let (calls, names) = (world.vault.take_calls(), names().vault("dev"));
    let at = |call: String| calls.iter().position(|made| *made == call).unwrap_or_else(|| panic!("{call}: {calls:#?}"));
    // The pods could make the records again.
    let pods = at(format!("write policy {}", names.instance()));
    let removed = ["bot", "reader"].map(|client| at(format!("delete kv {}", names.client_runtime(client))));
    let noted = at(format!("write kv-metadata {}", names.runtime()));
    let made = at(format!("write kubernetes-role {}", names.own_client("new")));
    assert!(removed.iter().all(|removed| pods < *removed && *removed < noted) && noted < made, "{calls:#?}");
}

#[tokio::test]
async fn a_removed_client_is_out_of_the_desired_state_also_without_vault() {
    let mut world = at_rest().await;
    world
        .vault
        .set_down(Some(crate::vault::VaultError::Unreachable { address: "x".into(), problem: "timeout".into() }));
    set(&world, json!([{"serviceAccountName": "web"}]));
    world.settle().await;
    assert!(desired(&world).clients.is_empty(), "PostgreSQL refuses it");
}

#[tokio::test]
async fn another_service_account_is_another_client() {
    let mut world = at_rest().await;
    let former = world.vault.content().kubernetes_roles[&names().vault("dev").own_client("bot")].policies.clone();
    set(&world, json!([{"serviceAccountName": "new-bot", "name": "bot", "access": {"mode": "ReadWrite"}}]));
    settle(&mut world).await;
    assert_eq!(generations(&world), [2], "whoever had the former account knows the former password");
    assert_eq!(desired(&world).clients[0].service_account, "new-bot");
    // A token that the former account has from Vault is valid for some minutes: it must read nothing.
    let (vault, role) = (world.vault.content(), names().vault("dev").own_client("bot"));
    let policies: Vec<_> = vault.policies.keys().filter(|policy| policy.starts_with(&role)).cloned().collect();
    assert_eq!(policies, vault.kubernetes_roles[&role].policies, "the former account's policy is gone");
    assert_ne!(policies, former);
}

#[tokio::test]
async fn at_rest_one_thing_of_each_client_is_read_and_a_difference_makes_it_all() {
    let mut world = at_rest().await;
    let of_clients =
        |calls: &[String]| calls.iter().filter(|call| call.contains("client.") || call.contains("/clients/")).count();
    for resync in 0..8 {
        let calls = world.resync().await;
        assert!(of_clients(&calls) <= 2, "{resync}: {calls:#?}");
        assert!(!calls.iter().any(|call| call.starts_with("write")), "{calls:#?}");
    }
    // Whatever is deleted comes back after a few.
    let names = names().vault("dev");
    let before = world.vault.content();
    world.vault.edit(|content| {
        content.policies.retain(|policy, _| !policy.starts_with(&names.own_client("bot")));
        content.kubernetes_roles.remove(&names.own_client("reader"));
    });
    for _ in 0..4 {
        world.resync().await;
    }
    let now = world.vault.content();
    assert_eq!(now.policies, before.policies);
    assert_eq!(now.kubernetes_roles.keys().collect::<Vec<_>>(), before.kubernetes_roles.keys().collect::<Vec<_>>());
}

/// However many there are.
#[tokio::test]
async fn at_rest_a_client_is_one_request_to_vault_more_at_a_resync_and_none_between_two() {
    let mut world = World::new();
    world.create(MINIMAL);
    settle(&mut world).await;
    let mut without = 0;
    for _ in 0..4 {
        without = without.max(world.resync().await.len());
    }
    for count in [1, 20, 64] {
        set(&world, own_clients("main", count));
        settle(&mut world).await;
        assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
        for resync in 0..4 {
            let calls = world.resync().await;
            assert!(calls.iter().all(|call| call.starts_with("read ")), "{calls:#?}");
            assert!(calls.len() <= without + count, "{count} clients, resync {resync}: {without} before: {calls:#?}");
            for client in clients(&world) {
                let of_it = calls.iter().filter(|call| call.contains(&client.name)).count();
                assert_eq!(of_it, 1, "{} at resync {resync}: {calls:#?}", client.name);
            }
        }
        world.reconcile().await.expect("a reconcile");
        assert_eq!(world.asked_of_vault(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn the_order_of_the_entries_is_no_change() {
    let mut world = at_rest().await;
    let (before, policies) = (desired(&world), world.vault.content().policies);
    world.edit(|resource| {
        let clients = resource["spec"]["clients"].as_array_mut().expect("clients");
        clients.reverse();
        let generation = resource["metadata"]["generation"].as_i64().unwrap_or(1);
        resource["metadata"]["generation"] = (generation + 1).into();
    });
    world.vault.take_calls();
    settle(&mut world).await;
    assert_eq!(desired(&world).clients, before.clients);
    assert_eq!(world.vault.content().policies, policies);
}

#[tokio::test]
async fn rights_that_differ_are_a_reason_and_a_missing_login_is_not_ready() {
    let mut world = at_rest().await;
    let undeclared = vec!["DELETE on public.notes (granted by chat_db_owner)".to_owned()];
    world.rights = RightsReport { undeclared, ..RightsReport::default() };
    settle(&mut world).await;
    assert_eq!(world.condition(kind::CREDENTIALS_READY), "True GrantDrift");
    let message = world.message(kind::CREDENTIALS_READY);
    assert!(message.contains("the client bot: not declared: DELETE on public.notes"), "{message}");
    world.rights = RightsReport::default();
    set(&world, json!([{"serviceAccountName": "late", "access": {"mode": "ReadOnly"}}]));
    world.settle().await;
    assert_eq!(world.condition(kind::CREDENTIALS_READY), "False CredentialsPending");
    assert!(
        world.message(kind::CREDENTIALS_READY).contains("the client late"),
        "{}",
        world.message(kind::CREDENTIALS_READY)
    );
    settle(&mut world).await;
    assert_eq!(world.condition(kind::CREDENTIALS_READY), "True Ready");
}

#[tokio::test]
async fn sessions_are_in_status_and_a_client_that_is_not_counted_has_no_number() {
    let mut world = at_rest().await;
    let numbers = |world: &World| -> (Option<i64>, Vec<Option<i64>>) {
        let status = world.resource().status.unwrap_or_default();
        let shared = status.credentials.and_then(|credentials| credentials.sessions);
        (shared, status.clients.iter().map(|client| client.sessions).collect())
    };
    assert_eq!(numbers(&world), (None, vec![None, None]), "agents of an earlier version");
    world.sessions = Some(Sessions { shared: 3, clients: [("bot".to_owned(), 2)].into() });
    settle(&mut world).await;
    assert_eq!(numbers(&world), (Some(3), vec![Some(2), None]));
}

#[tokio::test]
async fn a_wrong_entry_is_an_invalid_spec() {
    let mut world = at_rest().await;
    let grants =
        json!([{"tables": ["notes"], "privileges": ["SELECT"], "rowPolicy": "true); DROP TABLE notes; SELECT (1"}]);
    set(&world, json!([{"serviceAccountName": "bot", "access": {"mode": "Custom", "grants": grants}}]));
    world.settle().await;
    assert_eq!(world.condition(kind::STALLED), "True InvalidSpec");
    assert!(world.message(kind::STALLED).contains("rowPolicy"), "{}", world.message(kind::STALLED));
    assert_eq!(desired(&world).clients.len(), 2, "the last valid declaration holds");
}

#[tokio::test]
async fn one_that_is_removed_and_declared_again_has_new_credentials_at_once() {
    let mut world = at_rest().await;
    let with = world.resource().spec.clients;
    let without: Vec<_> = with.iter().filter(|client| client.name() != "bot").cloned().collect();
    for round in 0..3 {
        set(&world, json!(without));
        settle(&mut world).await;
        assert!(!world.vault.content().kv.contains_key(&names().vault("dev").client_runtime("bot")), "round {round}");
        set(&world, json!(with));
        settle(&mut world).await;
        assert_eq!(world.condition(kind::READY), "True Ready", "round {round}: {}", world.message(kind::READY));
    }
}
