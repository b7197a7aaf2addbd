//! The data gateway: its objects and settings, and the specs that are refused.

use serde_json::{Value, json};

use super::api_server::http::ISSUER;
use super::crashes::{assert_same, crash_at_every_call};
use super::fixtures::{FULL, MINIMAL, database, options, resource};
use super::world::{World, names, object};
use crate::api::conditions as kind;
use crate::api::{GatewayCache, GatewaySpec, ServiceDatabase};
use crate::operator::plan;
use crate::operator::validate::{Database, validate};

fn with_gateway(spec: GatewaySpec) -> ServiceDatabase {
    let mut resource = resource(FULL);
    resource.spec.postgres.parameters.insert("max_connections".to_owned(), "400".to_owned());
    resource.spec.gateway = Some(spec);
    resource
}

fn valid(spec: GatewaySpec) -> Database {
    validate(&with_gateway(spec), &options()).expect("a valid spec")
}

fn planned(spec: &GatewaySpec) -> Vec<crate::operator::apply::object::Planned> {
    plan::gateway::objects(&valid(spec.clone()), spec, &options(), (ISSUER, "the authorities"))
}

fn body(spec: &GatewaySpec, kind: &str) -> Value {
    let objects = planned(spec);
    objects.iter().find(|planned| planned.resource.kind == kind).expect("the object").body.clone()
}

#[test]
fn what_is_planned_is_what_is_removed() {
    let name =
        |planned: &crate::operator::apply::object::Planned| (planned.resource.kind.clone(), planned.name.clone());
    let spec = GatewaySpec::default();
    let mut planned: Vec<_> = planned(&spec).iter().map(name).collect();
    let absent = plan::gateway::absent(&valid(spec));
    assert!(absent.iter().all(|planned| !planned.present));
    let mut removed: Vec<_> = absent.iter().map(name).collect();
    planned.sort();
    removed.sort();
    assert_eq!(planned, removed);
}

#[test]
fn the_settings_name_each_client_with_its_role_and_no_secret() {
    let cache = GatewayCache { collections: vec!["films".to_owned()], megabytes: 16 };
    let spec =
        GatewaySpec { max_rows: Some(1000), cost_per_second: Some(5000), cache: Some(cache), ..GatewaySpec::default() };
    let mut resource = with_gateway(spec.clone());
    let own = json!({"serviceAccountName": "auditor", "access": {"mode": "ReadOnly"}});
    *resource.spec.clients.last_mut().expect("a client") = serde_json::from_value(own).expect("a client");
    let database = validate(&resource, &options()).expect("a valid spec");
    let objects = plan::gateway::objects(&database, &spec, &options(), (ISSUER, "the authorities"));
    let map = objects.iter().find(|planned| planned.resource.kind == "ConfigMap").expect("the settings");
    let settings = map.body["data"]["gateway.yaml"].as_str().expect("a text");
    let settings: Value = serde_yaml::from_str(settings).expect("YAML");
    let (names, service) = (database.names(), &database.postgres);
    let roles = settings["callers"]["roles"].as_array().expect("roles");
    let role = |account: &str| {
        let account = format!("{}/{account}", names.namespace);
        roles.iter().find(|role| role["serviceAccount"] == account.as_str()).expect("a caller")["role"].clone()
    };
    assert_eq!(role("auditor"), service.client("auditor"));
    assert_eq!(role("reports"), service.app());
    assert_eq!(settings["callers"]["issuer"], ISSUER);
    assert_eq!(settings["callers"]["audience"], format!("{}.{}.servicedb", names.name, names.namespace));
    assert_eq!(settings["limits"]["rows"], 1000);
    assert_eq!(settings["limits"]["costPerSecond"], 5000);
    let cache: Value = serde_yaml::from_str("{collections: [films], megabytes: 16}").expect("YAML");
    assert_eq!(settings["cache"], cache);
    let peers = &settings["peers"];
    assert_eq!(peers["hosts"], json!([format!("{}.{}.svc", names.gateway_peers(), names.namespace)]));
    assert_eq!((peers["name"].as_str(), peers["port"].as_u64()), (Some(names.gateway_host().as_str()), Some(8443)));
    assert!(settings["database"].get("passwordFile").is_none() && settings["database"]["client"].is_object());
}

#[test]
fn the_settings_name_the_replicas_where_there_are_any() {
    let settings = |instances: i32| {
        let mut resource = resource(&format!("{MINIMAL}  clients:\n  - {{serviceAccountName: web}}\n"));
        resource.spec.instances = instances;
        resource.spec.gateway = Some(GatewaySpec::default());
        let database = validate(&resource, &options()).expect("a valid spec");
        let objects =
            plan::gateway::objects(&database, &GatewaySpec::default(), &options(), (ISSUER, "the authorities"));
        let map = objects.iter().find(|planned| planned.resource.kind == "ConfigMap").expect("the settings");
        let text = map.body["data"]["gateway.yaml"].as_str().expect("a text").to_owned();
        (serde_yaml::from_str::<Value>(&text).expect("YAML"), database.names().replicas_host())
    };
    let (alone, _) = settings(1);
    assert!(alone["database"].get("replicas").is_none());
    let (several, host) = settings(3);
    assert_eq!(several["database"]["replicas"], json!({"host": host, "port": 5432}));
    assert_ne!(several["database"]["host"], several["database"]["replicas"]["host"]);
}

#[test]
fn the_pods_find_each_other_while_they_end_too() {
    let objects = planned(&GatewaySpec { instances: 1, ..GatewaySpec::default() });
    let named = |name: &str| {
        let found = objects.iter().find(|planned| planned.resource.kind == "Service" && planned.name == name);
        found.expect("the Service").body["spec"].clone()
    };
    let (names, pods) = (valid(GatewaySpec::default()), body(&GatewaySpec::default(), "Deployment"));
    let (service, peers) = (named(&names.names().gateway()), named(&names.names().gateway_peers()));
    assert_eq!((&peers["clusterIP"], &peers["publishNotReadyAddresses"]), (&json!("None"), &json!(true)));
    assert_eq!(peers["selector"], service["selector"]);
    assert_eq!(peers["selector"], pods["spec"]["selector"]["matchLabels"]);
}

#[test]
fn other_settings_are_other_pods() {
    let annotation = |spec: &GatewaySpec| {
        let template = body(spec, "Deployment")["spec"]["template"]["metadata"]["annotations"].clone();
        template["servicedb.dev/settings"].as_str().expect("a digest").to_owned()
    };
    let one = annotation(&GatewaySpec::default());
    assert_eq!(one, annotation(&GatewaySpec::default()));
    assert_ne!(one, annotation(&GatewaySpec { connections: 11, ..GatewaySpec::default() }));
}

#[test]
fn the_instances_admit_the_gateway_and_the_gateway_admits_clients_and_itself() {
    let spec = GatewaySpec::default();
    let database = valid(spec.clone());
    let instances = |database: &Database| {
        let options = options();
        let objects = plan::supporting(database, &super::fixtures::inputs(database, &options));
        let policy = objects.iter().find(|planned| planned.resource.kind == "NetworkPolicy").expect("a policy");
        policy.body["spec"]["ingress"][0]["from"].to_string()
    };
    let gateway = r#""app.kubernetes.io/component":"gateway""#;
    assert!(instances(&database).contains(gateway));
    assert!(!instances(&self::database(FULL)).contains(gateway));
    let rules = body(&spec, "NetworkPolicy")["spec"]["ingress"].clone();
    let rules = rules.as_array().expect("rules");
    assert!(rules.iter().all(|rule| rule["from"].as_array().is_some_and(|from| !from.is_empty())), "{rules:?}");
    let from = rules[0]["from"].to_string();
    assert!(from.contains("match-maker") && from.contains(gateway), "{from}");
}

#[test]
fn a_gateway_that_cannot_serve_is_refused() {
    let message = |change: fn(&mut ServiceDatabase), spec: GatewaySpec| {
        let mut resource = with_gateway(spec);
        change(&mut resource);
        validate(&resource, &options()).expect_err("a refusal").message
    };
    let alone = message(|it| it.spec.clients.clear(), GatewaySpec::default());
    assert!(alone.contains("spec.clients is empty"), "{alone}");
    let many = message(|_| (), GatewaySpec { connections: 200, ..GatewaySpec::default() });
    assert!(many.contains("max_connections to at least"), "{many}");
    for instances in [0, 17] {
        let text = message(|_| (), GatewaySpec { instances, ..GatewaySpec::default() });
        assert!(text.contains("from 1 to 16"), "{text}");
    }
    let mut without = options();
    without.gateway_image = None;
    let text = validate(&with_gateway(GatewaySpec::default()), &without).expect_err("a refusal").message;
    assert!(text.contains("gateway.image"), "{text}");
}

/// A database at rest, with a client.
async fn at_rest() -> World {
    let mut world = World::new();
    world.create(&format!("{MINIMAL}  clients:\n  - {{serviceAccountName: web}}\n"));
    world.settle_all().await;
    assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
    world
}

async fn set(world: &mut World, gateway: Value) {
    world.edit(|resource| {
        resource["spec"]["gateway"] = gateway;
        let generation = resource["metadata"]["generation"].as_i64().unwrap_or(1);
        resource["metadata"]["generation"] = (generation + 1).into();
    });
    world.settle_all().await;
}

/// The kinds of the gateway's objects that exist.
fn existing(world: &World) -> Vec<&'static str> {
    let kinds = [
        "configmaps",
        "deployments",
        "networkpolicies",
        "poddisruptionbudgets",
        "secrets",
        "serviceaccounts",
        "services",
    ];
    let name = |kind: &str| if kind == "secrets" { names().gateway_tls_secret() } else { names().gateway() };
    kinds.into_iter().filter(|kind| world.get(kind, &name(kind)).is_some()).collect()
}

#[tokio::test]
async fn a_gateway_comes_serves_and_goes() {
    let mut world = at_rest().await;
    set(&mut world, json!({})).await;
    assert_eq!(existing(&world).len(), 7, "{:?}", existing(&world));
    assert!(world.get("services", &names().gateway_peers()).is_some());
    assert_eq!(world.condition(kind::READY), "False GatewayNotReady");
    let ready = |deployment: &mut Value| deployment["status"] = json!({"readyReplicas": 1, "updatedReplicas": 2});
    world.api.store().edit(&object("deployments", &names().gateway()), ready);
    world.settle_all().await;
    assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
    let status = world.resource().status.and_then(|status| status.gateway).expect("its status");
    assert_eq!(status.instances.as_deref(), Some("1/2"));
    set(&mut world, json!({"instances": 1})).await;
    assert!(!existing(&world).contains(&"poddisruptionbudgets"), "a budget of one pod would block every drain");
    set(&mut world, Value::Null).await;
    assert_eq!(existing(&world), Vec::<&str>::new());
    assert!(world.get("services", &names().gateway_peers()).is_none());
    assert!(world.resource().status.is_some_and(|status| status.gateway.is_none()));
    assert_eq!(world.condition(kind::READY), "True Ready", "{}", world.message(kind::READY));
}

#[tokio::test]
async fn a_gateway_survives_a_crash_at_every_call() {
    let come_and_go = async |world: &mut World| {
        set(world, json!({})).await;
        world.settle_all().await;
        set(world, Value::Null).await;
        world.settle_all().await;
    };
    let mut undisturbed = at_rest().await;
    come_and_go(&mut undisturbed).await;
    let expected = undisturbed.snapshot();
    let look = |world: &World, when: &str| assert_same(&world.snapshot(), &expected, when);
    let crashes = crash_at_every_call(at_rest, come_and_go, look).await;
    assert!(crashes > 20, "{crashes} crashes");
}
