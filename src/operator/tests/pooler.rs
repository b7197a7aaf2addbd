//! The pooler: its objects, and the specs that are refused.

use serde_json::{Value, json};

use super::fixtures::{FULL, MINIMAL, database, inputs, options, resource};
use super::pod_security::violations;
use crate::api::PoolerSpec;
use crate::operator::plan;
use crate::operator::validate::{Database, validate};

fn with_pooler(text: &str, spec: PoolerSpec) -> Database {
    let mut resource = resource(text);
    resource.spec.pooler = Some(spec);
    validate(&resource, &options()).expect("a spec that can be planned")
}

#[test]
fn without_a_pooler_each_of_its_objects_is_absent() {
    let database = database(MINIMAL);
    let objects = plan::pooler::objects(&database, &options(), None);
    assert!(objects.iter().all(|planned| !planned.present) && !plan::pooler::binding(&database).present);
    // The read-only one alone is absent.
    let database = with_pooler(FULL, PoolerSpec::default());
    let absent: Vec<_> = plan::pooler::objects(&database, &options(), None)
        .into_iter()
        .filter(|planned| !planned.present)
        .map(|planned| planned.name)
        .collect();
    assert!(absent.len() == 4 && absent.iter().all(|name| name.contains("pooler-r")), "{absent:?}");
}

#[test]
fn the_pods_are_restricted_and_may_read_their_orders_and_write_their_report() {
    let spec = PoolerSpec { replicas: true, ..PoolerSpec::default() };
    let objects = plan::pooler::objects(&with_pooler(FULL, spec), &options(), None);
    let of_kind = |kind: &str| objects.iter().filter(|planned| planned.resource.kind == kind).collect::<Vec<_>>();
    let deployments = of_kind("Deployment");
    assert_eq!(deployments.len(), 2);
    for deployment in deployments {
        let template = &deployment.body["spec"]["template"];
        assert_eq!(violations(&template["spec"]), Vec::<String>::new(), "{}", deployment.name);
        let labels = &template["metadata"]["labels"];
        // Patroni takes each pod with its scope for a member.
        assert!(labels.get(crate::api::names::LABEL_SCOPE).is_none(), "{labels}");
        assert!(!template.to_string().to_lowercase().contains("password"));
    }
    let rules = of_kind("Role")[0].body["rules"].clone();
    for rule in rules.as_array().expect("rules") {
        assert_eq!(rule["resources"], json!(["configmaps"]));
        assert_eq!(rule["resourceNames"].as_array().map(Vec::len), Some(1), "{rule}");
        assert!(!rule["verbs"].to_string().contains('*'), "{rule}");
    }
}

#[test]
fn a_client_may_be_limited_to_the_pooler_and_is_not_without_one() {
    let clients_of = |database: &Database| {
        let objects = plan::supporting(database, &inputs(database, &options()));
        let policy = objects.iter().find(|planned| planned.resource.kind == "NetworkPolicy").expect("the policy");
        policy.body["spec"]["ingress"][0]["from"].to_string()
    };
    let app = r#""app":"match-maker""#;
    let mut limited = with_pooler(FULL, PoolerSpec::default());
    assert!(clients_of(&limited).contains(app), "a pooler cuts nobody off");
    assert!(clients_of(&limited).contains(r#""app.kubernetes.io/component":"pooler""#));
    limited.clients[0].direct = false;
    assert!(!clients_of(&limited).contains(app));
    let policy = plan::pooler::objects(&limited, &options(), None);
    let policy = policy.iter().find(|planned| planned.resource.kind == "NetworkPolicy").expect("the policy");
    assert!(policy.body["spec"]["ingress"][0]["from"].to_string().contains(app), "it reaches the pooler");
    let mut without = database(FULL);
    without.clients[0].direct = false;
    assert!(clients_of(&without).contains(app), "there is no other way");
}

#[test]
fn a_pool_that_does_not_fit_is_refused_with_the_numbers() {
    let refused = |spec: PoolerSpec, parameters: Value| {
        let mut resource = resource(MINIMAL);
        resource.spec.pooler = Some(spec);
        resource.spec.postgres.parameters = serde_json::from_value(parameters).expect("parameters");
        validate(&resource, &options()).err().map(|invalid| invalid.message)
    };
    let large = || PoolerSpec { pool_size: 60, ..PoolerSpec::default() };
    let message = refused(large(), json!({})).expect("a refusal");
    for part in ["192 connections", "3 pods", "max_connections is 100", "85 remain", "at most 24", "at least 207"] {
        assert!(message.contains(part), "{part} is missing: {message}");
    }
    assert_eq!(refused(large(), json!({"max_connections": "207"})), None);
    assert!(refused(large(), json!({"max_connections": "206"})).is_some());
    let exact = PoolerSpec { pool_size: 24, ..PoolerSpec::default() };
    assert_eq!(refused(exact, json!({})), None);
}

#[test]
fn an_owned_parameter_and_a_pooler_without_replicas_to_lead_to_are_refused() {
    let message = |spec: PoolerSpec| {
        let mut resource = resource(MINIMAL);
        resource.spec.pooler = Some(spec);
        validate(&resource, &options()).expect_err("a refusal").message
    };
    let parameters = [("auth_query".to_owned(), "SELECT 1".to_owned())].into();
    assert!(message(PoolerSpec { parameters, ..PoolerSpec::default() }).contains("auth_query"));
    assert!(message(PoolerSpec { replicas: true, ..PoolerSpec::default() }).contains("two instances"));
    for instances in [0, 100] {
        assert!(message(PoolerSpec { instances, ..PoolerSpec::default() }).contains("from 1 to 16"));
    }
}
