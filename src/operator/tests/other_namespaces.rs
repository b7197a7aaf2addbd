//! Clients of other namespaces: with the platform's permission, without it, and after it was withdrawn.

use serde_json::{Value, json};

use super::api_server::http::ISSUER;
use super::fixtures::{MINIMAL, inputs, options, resource};
use super::world::{World, names};
use crate::api::conditions as kind;
use crate::api::{ClientStatus, GatewaySpec, PoolerSpec};
use crate::contract::desired::{Desired, KEY};
use crate::operator::context::namespaces::ClientNamespaces;
use crate::operator::context::options::Options;
use crate::operator::plan;
use crate::operator::validate::{Database, validate};

const CLIENTS: &str = "  clients:
  - {serviceAccountName: web, podSelector: {matchLabels: {app: web}}}
  - {serviceAccountName: here, serviceAccountNamespace: messaging, access: {mode: ReadWrite}}
  - {serviceAccountName: reader, serviceAccountNamespace: reports, podSelector: {matchLabels: {app: reader}},
     access: {mode: ReadOnly}}
";

fn allowing(namespaces: &str) -> Options {
    Options { client_namespaces: ClientNamespaces::parse(namespaces).expect("namespaces"), ..options() }
}

fn allowed() -> Options {
    allowing(r#"{"messaging": ["reports"]}"#)
}

async fn settle(world: &mut World) {
    for _ in 0..3 {
        world.settle_all().await;
    }
}

async fn at_rest() -> World {
    let mut world = World::new();
    world.restart_with(allowed());
    world.create(&format!("{MINIMAL}{CLIENTS}"));
    settle(&mut world).await;
    assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
    world
}

fn reader(world: &World) -> ClientStatus {
    let status = world.resource().status.unwrap_or_default();
    status.clients.into_iter().find(|client| client.name == "reader").expect("the client")
}

fn desired(world: &World) -> Vec<(String, String, i64)> {
    let desired = world.get("configmaps", &names().desired()).expect("the desired state");
    let desired: Desired = serde_json::from_str(desired["data"][KEY].as_str().expect("a document")).expect("JSON");
    desired.clients.into_iter().map(|it| (it.name, it.service_account, it.generation)).collect()
}

#[tokio::test]
async fn its_role_in_vault_is_bound_to_its_own_namespace() {
    let world = at_rest().await;
    let (vault, names) = (world.vault.content(), names().vault("dev"));
    let bound = |role: &str| {
        let role = &vault.kubernetes_roles[role];
        (role.namespace.clone(), role.service_accounts.clone())
    };
    assert_eq!(bound(&names.own_client("reader")), ("reports".to_owned(), vec!["reader".to_owned()]));
    assert_eq!(bound(&names.own_client("here")), ("messaging".to_owned(), vec!["here".to_owned()]));
    assert_eq!(bound(&names.client()), ("messaging".to_owned(), vec!["web".to_owned()]));
    let accounts: Vec<_> = desired(&world).into_iter().map(|(_, account, _)| account).collect();
    assert_eq!(accounts, ["here", "reports/reader"]);
    let status = reader(&world);
    assert_eq!((status.service_account_namespace.as_deref(), status.generation), (Some("reports"), 1));
    assert_eq!((status.rights.as_str(), status.message), ("Applied", None));
}

#[tokio::test]
async fn a_withdrawn_permission_ends_the_access_and_nothing_else() {
    let mut world = at_rest().await;
    let record = names().vault("dev").client_runtime("reader");
    assert!(world.vault.content().kv.contains_key(&record));
    world.restart_with(options());
    settle(&mut world).await;
    assert_eq!(desired(&world), [("here".to_owned(), "here".to_owned(), 1)], "the agents end its sessions");
    let (vault, role) = (world.vault.content(), names().vault("dev").own_client("reader"));
    assert!(!vault.kubernetes_roles.contains_key(&role) && !vault.kv.contains_key(&record));
    assert_eq!(vault.policies.keys().find(|policy| policy.starts_with(&role)), None, "tokens that it has read nothing");
    assert!(!policies(&world).contains("reports"), "{}", policies(&world));
    assert_eq!(world.condition(kind::CREDENTIALS_READY), "False ClientNotAllowed");
    assert_eq!(world.condition(kind::READY), "False ClientNotAllowed");
    assert_eq!(world.condition(kind::STALLED), "False NotStalled", "other changes of the spec are applied");
    for part in [
        "the namespace of the client reader in spec.clients is reports",
        "clients.allowedNamespaces",
        "(messaging: [reports])",
    ] {
        assert!(world.message(kind::READY).contains(part), "{part}: {}", world.message(kind::READY));
    }
    let status = reader(&world);
    assert_eq!((status.rights.as_str(), status.generation), ("NotAllowed", 0));
    assert!(status.message.is_some_and(|message| message.contains("clients.allowedNamespaces")));

    // Allowed again: whoever had the access knows the former password.
    world.restart_with(allowed());
    settle(&mut world).await;
    assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
    assert!(policies(&world).contains("reports"));
    assert!(desired(&world).iter().any(|(name, ..)| name == "reader"));
}

fn policies(world: &World) -> String {
    world.get("networkpolicies", &names().base()).expect("the policy")["spec"].to_string()
}

#[tokio::test]
async fn nobody_is_allowed_by_default_and_the_database_is_made_all_the_same() {
    let mut world = World::new();
    world.create(&format!("{MINIMAL}{CLIENTS}"));
    settle(&mut world).await;
    assert_eq!(world.condition(kind::DATABASE_AVAILABLE), "True Available");
    assert_eq!(world.condition(kind::READY), "False ClientNotAllowed");
    assert!(!world.vault.content().kubernetes_roles.contains_key(&names().vault("dev").own_client("reader")));
}

/// The same name in another namespace is another ServiceAccount.
#[tokio::test]
async fn the_same_name_in_another_namespace_is_another_client() {
    let mut world = at_rest().await;
    let role = names().vault("dev").own_client("reader");
    let former = world.vault.content().kubernetes_roles[&role].policies.clone();
    world.edit(|resource| {
        resource["spec"]["clients"][2]["serviceAccountNamespace"] = "messaging".into();
        resource["metadata"]["generation"] = 7.into();
    });
    settle(&mut world).await;
    let of_reader = desired(&world).into_iter().find(|(name, ..)| name == "reader").expect("the client");
    assert_eq!(of_reader, ("reader".to_owned(), "reader".to_owned(), 2), "new credentials");
    let vault = world.vault.content();
    assert_eq!(vault.kubernetes_roles[&role].namespace, "messaging");
    assert!(former.iter().all(|policy| !vault.policies.contains_key(policy)), "the former one's policy is gone");
    assert_eq!(reader(&world).service_account_namespace, None);
}

/// Two ServiceAccounts of one name: each has a role, a policy and a record of its own, and one may come and go without
/// the other.
#[tokio::test]
async fn two_accounts_of_one_name_are_two_clients() {
    let mut world = at_rest().await;
    let names = names().vault("dev");
    let here = json!({"serviceAccountName": "reader", "name": "own-reader", "access": {"mode": "ReadWrite"}});
    let abroad = json!({"serviceAccountName": "reports/reader", "access": {"mode": "ReadOnly"}});
    let set = |world: &World, clients: Value| {
        world.edit(|resource| {
            resource["spec"]["clients"] = clients;
            let generation = resource["metadata"]["generation"].as_i64().unwrap_or(1);
            resource["metadata"]["generation"] = (generation + 1).into();
        });
    };
    // The reader of the namespace reports is there already, in the other form: it keeps its credentials.
    set(&world, json!([here, abroad]));
    settle(&mut world).await;
    assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
    let both = [("own-reader", "reader"), ("reader", "reports/reader")];
    let mut found = desired(&world);
    found.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(found, both.map(|(name, account)| (name.to_owned(), account.to_owned(), 1)));
    let vault = world.vault.content();
    for ((client, _), namespace) in both.into_iter().zip(["messaging", "reports"]) {
        let role = &vault.kubernetes_roles[&names.own_client(client)];
        assert_eq!((role.namespace.as_str(), &role.service_accounts[..]), (namespace, &["reader".to_owned()][..]));
        let [policy] = &role.policies[..] else { panic!("one policy") };
        let records = ["own-reader", "reader"].map(|of| vault.policies[policy].contains(&names.client_runtime(of)));
        assert_eq!(records, [client == "own-reader", client == "reader"], "it reads its own record alone");
        assert!(vault.kv.contains_key(&names.client_runtime(client)));
    }
    let status = world.resource().status.expect("a status").clients;
    let shown: Vec<_> = status
        .iter()
        .map(|it| (it.name.as_str(), it.service_account_name.as_str(), it.service_account_namespace.as_deref()))
        .collect();
    assert_eq!(shown, [("own-reader", "reader", None), ("reader", "reader", Some("reports"))]);

    set(&world, json!([here]));
    settle(&mut world).await;
    let vault = world.vault.content();
    let roles = ["own-reader", "reader"].map(|client| vault.kubernetes_roles.contains_key(&names.own_client(client)));
    assert_eq!(roles, [true, false]);
    assert_eq!(desired(&world), [("own-reader".to_owned(), "reader".to_owned(), 1)]);
}

/// By default both have the name of their ServiceAccount.
#[tokio::test]
async fn the_second_account_of_one_name_has_to_name_itself() {
    let mut world = at_rest().await;
    world.edit(|resource| {
        let more = json!({"serviceAccountName": "audit/reader", "access": {"mode": "ReadOnly"}});
        resource["spec"]["clients"].as_array_mut().expect("clients").push(more);
        resource["metadata"]["generation"] = 7.into();
    });
    settle(&mut world).await;
    assert_eq!(world.condition(kind::STALLED), "True InvalidSpec");
    let message = world.message(kind::STALLED);
    for part in
        ["two entries with the name reader", "reports/reader", "audit/reader", "set another spec.clients[].name"]
    {
        assert!(message.contains(part), "{part}: {message}");
    }
}

fn database(options: &Options) -> Database {
    database_of(CLIENTS, options)
}

fn database_of(clients: &str, options: &Options) -> Database {
    let mut resource = resource(&format!("{MINIMAL}{clients}"));
    resource.spec.pooler = Some(PoolerSpec::default());
    resource.spec.gateway = Some(GatewaySpec::default());
    resource.spec.postgres.parameters.insert("max_connections".to_owned(), "400".to_owned());
    validate(&resource, options).expect("a valid spec")
}

/// The selectors of namespace and pods are one peer: as two, either would be enough.
#[test]
fn its_pods_reach_instances_pooler_and_gateway_and_others_of_its_namespace_do_not() {
    let peer = json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "reports"}},
        "podSelector": {"matchLabels": {"app": "reader"}},
    });
    for (options, is_admitted) in
        [(allowed(), true), (options(), false), (allowing(r#"{"games": ["reports"]}"#), false)]
    {
        let database = database(&options);
        let spec = database.gateway.clone().expect("a gateway");
        let mut objects = plan::supporting(&database, &inputs(&database, &options));
        objects.extend(plan::pooler::objects(&database, &options, None));
        objects.extend(plan::gateway::objects(&database, &spec, &options, (ISSUER, "the authorities")));
        let policies: Vec<_> =
            objects.iter().filter(|planned| planned.resource.kind == "NetworkPolicy" && planned.present).collect();
        let names: Vec<_> = policies.iter().map(|planned| planned.name.as_str()).collect();
        for name in ["chat-db", "chat-db-pooler", "chat-db-gateway"] {
            assert!(names.contains(&name), "{names:?}");
        }
        for policy in policies {
            let from = policy.body["spec"]["ingress"][0]["from"].as_array().expect("peers").clone();
            assert_eq!(from.contains(&peer), is_admitted, "{}: {from:?}", policy.name);
            assert_eq!(json!(from).to_string().contains("reports"), is_admitted);
        }
    }
}

/// The namespace in the name of the account makes no other peer, and no other caller.
#[test]
fn both_forms_of_a_namespace_make_the_same_objects() {
    let options = allowed();
    let objects = |clients: &str| {
        let database = database_of(clients, &options);
        let spec = database.gateway.clone().expect("a gateway");
        let mut objects = plan::supporting(&database, &inputs(&database, &options));
        objects.extend(plan::pooler::objects(&database, &options, None));
        objects.extend(plan::gateway::objects(&database, &spec, &options, (ISSUER, "the authorities")));
        let bodies = objects.into_iter().map(|planned| (planned.name, planned.body));
        bodies.collect::<Vec<_>>()
    };
    let short = CLIENTS
        .replace("{serviceAccountName: here, serviceAccountNamespace: messaging", "{serviceAccountName: messaging/here")
        .replace(
            "{serviceAccountName: reader, serviceAccountNamespace: reports",
            "{serviceAccountName: reports/reader",
        );
    assert_eq!(short.matches('/').count(), 2, "{short}");
    assert_eq!(objects(&short), objects(CLIENTS));
}

#[test]
fn the_gateway_knows_callers_by_namespace_and_name() {
    let callers = |options: &Options| -> Vec<(String, String)> {
        let database = database(options);
        let spec = database.gateway.clone().expect("a gateway");
        let objects = plan::gateway::objects(&database, &spec, options, (ISSUER, "the authorities"));
        let map = objects.iter().find(|planned| planned.resource.kind == "ConfigMap").expect("the settings");
        let settings: Value =
            serde_yaml::from_str(map.body["data"]["gateway.yaml"].as_str().expect("a text")).expect("YAML");
        let roles = settings["callers"]["roles"].as_array().expect("roles").iter();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        roles.map(|caller| (text(&caller["serviceAccount"]), text(&caller["role"]))).collect()
    };
    let web = ("messaging/web".to_owned(), "chat_db_app".to_owned());
    let here = ("messaging/here".to_owned(), "chat_db_c_here".to_owned());
    let reader = ("reports/reader".to_owned(), "chat_db_c_reader".to_owned());
    assert_eq!(callers(&allowed()), [web.clone(), here.clone(), reader]);
    assert_eq!(callers(&options()), [web, here]);
}
