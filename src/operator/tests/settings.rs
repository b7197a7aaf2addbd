//! Settings against the volume and the memory in the spec; and the conditions of a full volume and
//! of a lack of memory.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::{Value, json};

use super::fixtures::{MINIMAL, database, inputs, options, resource};
use super::status_findings::{Scene, observed, pod};
use crate::api::conditions::{self as kind, reason};
use crate::api::{QueriesReference, ServiceDatabaseStatus};
use crate::contract::report::{CollationReport, QueriesReport, QueryFailure, Trouble};
use crate::operator::apply::object::ANNOTATION_UID;
use crate::operator::instances::growth::smallest;
use crate::operator::observe::Observation;
use crate::operator::plan;
use crate::operator::status::condition::ConditionState;
use crate::operator::validate::{Invalid, validate};

const GB: u64 = 1 << 30;

fn with(parameters: &[(&str, &str)], resources: Value) -> Result<(), Invalid> {
    let mut resource = resource(MINIMAL);
    resource.spec.postgres.parameters =
        parameters.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    resource.spec.resources = serde_json::from_value(resources).expect("resources");
    validate(&resource, &options()).map(|_| ())
}

#[test]
fn a_transaction_timeout_that_prevents_connections_is_refused() {
    for value in ["1ms", "999", "0.5s"] {
        let refused = with(&[("transaction_timeout", value)], json!({})).expect_err(value);
        assert!(refused.message.contains("transaction_timeout is") && refused.message.contains("1s"), "{refused:?}");
    }
    for value in ["0", "1s", "5000", "1min"] {
        assert_eq!(with(&[("transaction_timeout", value)], json!({})), Ok(()), "{value}");
    }
}

#[test]
fn shared_memory_beyond_the_limit_of_the_spec_is_refused() {
    let limit = |memory: &str| json!({"limits": {"memory": memory}});
    let refused = with(&[("shared_buffers", "800GB")], limit("1Gi")).expect_err("a gigabyte");
    assert_eq!(refused.reason, reason::INVALID_SPEC);
    for word in
        ["spec.postgres.parameters", "800 GB", "shared_buffers = 800GB", "spec.resources.limits.memory (1024 MB)"]
    {
        assert!(refused.message.contains(word), "{word}: {}", refused.message);
    }
    assert!(with(&[("shared_buffers", "131072"), ("wal_buffers", "1GB")], limit("2Gi")).is_err(), "in pages, and both");
    assert_eq!(with(&[("shared_buffers", "768MB")], limit("1Gi")), Ok(()));
    assert_eq!(with(&[("shared_buffers", "1GB")], json!({"requests": {"memory": "1Gi"}})), Ok(()));
    assert!(with(&[("shared_buffers", "2GB")], json!({"requests": {"memory": "1Gi"}})).is_err());
    let both = json!({"requests": {"memory": "1Gi"}, "limits": {"memory": "8Gi"}});
    assert_eq!(with(&[("shared_buffers", "2GB")], both), Ok(()), "the limit counts");
    assert_eq!(with(&[("shared_buffers", "800GB")], json!({})), Ok(()), "the agent knows its node");
}

#[test]
fn wal_beyond_half_of_the_volume_is_refused() {
    let refused = with(&[("max_wal_size", "1GB")], json!({})).expect_err("a gigabyte of one");
    assert_eq!(refused.reason, reason::INVALID_SPEC);
    assert!(refused.message.contains("max_wal_size = 1GB") && refused.message.contains("spec.storage.size"));
    assert_eq!(with(&[("max_wal_size", "256MB")], json!({})), Ok(()));
}

/// A volume that was not expanded yet must not get the WAL of a larger one.
#[test]
fn the_agents_get_the_size_of_the_smallest_volume() {
    let database = database(&MINIMAL.replace("1Gi", "10Gi"));
    let claim = |capacity: &str| -> PersistentVolumeClaim {
        serde_json::from_value(json!({
            "metadata": {"name": "data-chat-db-0", "annotations": {ANNOTATION_UID: "uid-of-chat"}},
            "status": {"capacity": {"storage": capacity}},
        }))
        .expect("a claim")
    };
    let of = |claims: Vec<PersistentVolumeClaim>| {
        let observed = Observation { volume_claims: claims, ..Observation::default() };
        smallest(&database, &observed)
    };
    assert_eq!(of(vec![]), Some(10 * GB), "the first one does not exist yet");
    assert_eq!(of(vec![claim("10Gi"), claim("2Gi")]), Some(2 * GB));
    assert_eq!(of(vec![claim("20Gi")]), Some(10 * GB), "the declared size");

    let options = options();
    let mut inputs = inputs(&database, &options);
    inputs.volume_bytes = Some(2 * GB);
    let planned = plan::config::desired(&database, &inputs);
    let text = planned.body["data"][crate::contract::desired::KEY].as_str().expect("a document").to_owned();
    let desired: crate::contract::desired::Desired = serde_json::from_str(&text).expect("a desired state");
    assert_eq!(desired.volume_bytes, Some(2 * GB));
}

fn condition(status: &ServiceDatabaseStatus, kind: &str) -> Option<(String, String, String)> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((condition.status.clone(), condition.reason.clone(), condition.message.clone()))
}

#[test]
fn a_nearly_full_volume_is_a_condition_that_does_not_affect_ready() {
    let mut scene = Scene::serving(1);
    assert_eq!(condition(&scene.status(), kind::VOLUME_NEARLY_FULL), None);
    scene.report(|report| report.volume_used_percent = Some(85));
    let status = scene.status();
    let (holds, why, message) = condition(&status, kind::VOLUME_NEARLY_FULL).expect("the condition");
    assert_eq!((holds.as_str(), why.as_str()), ("True", reason::VOLUME_FILLING));
    assert!(message.contains("chat-db-0 is 85 % full: increase spec.storage.size, or"), "{message}");
    assert_eq!(condition(&status, kind::READY).expect("Ready").0, "True");
    let mut scene = scene.remember();
    scene.report(|report| report.volume_used_percent = None);
    let (holds, why, _) = condition(&scene.status(), kind::VOLUME_NEARLY_FULL).expect("it is kept");
    assert_eq!((holds.as_str(), why.as_str()), ("False", reason::VOLUME_HAS_ROOM));
}

#[test]
fn a_nearly_full_volume_is_named_with_the_others_and_a_remedy_that_its_class_allows() {
    let mut scene = Scene::serving(3);
    let fill = |scene: &mut Scene, pod: usize, percent| {
        scene.observed.pods[pod].report.as_mut().expect("a report").volume_used_percent = Some(percent);
    };
    fill(&mut scene, 1, 90);
    fill(&mut scene, 0, 85);
    let told = |scene: &Scene| condition(&scene.status(), kind::VOLUME_NEARLY_FULL).expect("the condition").2;
    let message = told(&scene);
    let begins = "the volume of chat-db-1 is 90 % full, and that of chat-db-0 is nearly full, too: increase";
    assert!(message.starts_with(begins), "{message}");
    fill(&mut scene, 2, 81);
    scene.volumes = Some(ConditionState::no(reason::VOLUME_CANNOT_GROW, "the class"));
    let message = told(&scene);
    let begins = "the volume of chat-db-1 is 90 % full, and those of chat-db-2, chat-db-0 are nearly full, too: remove";
    assert!(message.starts_with(begins), "{message}");
}

#[test]
fn a_collation_with_another_version_is_a_condition_that_names_the_indexes() {
    let mut scene = Scene::serving(1);
    scene.report(|report| report.collations = Some(vec![]));
    assert_eq!(condition(&scene.status(), kind::COLLATIONS_CHANGED), None);
    let german = CollationReport {
        name: Some(r#"pg_catalog."de-x-icu""#.to_owned()),
        recorded: "153.120".to_owned(),
        actual: "153.128".to_owned(),
        indexes: ["a", "b", "c", "d"].map(|name| format!("public.{name}")).to_vec(),
        index_count: 12,
    };
    let own = CollationReport { name: None, recorded: "2.41".to_owned(), actual: "2.43".to_owned(), ..german.clone() };
    scene.report(|report| report.collations = Some(vec![own, german]));
    let status = scene.status();
    let (holds, why, message) = condition(&status, kind::COLLATIONS_CHANGED).expect("the condition");
    assert_eq!((holds.as_str(), why.as_str()), ("True", reason::COLLATION_VERSION_CHANGED));
    for word in [
        "the database's collation has version 2.43, recorded is 2.41",
        r#"the collation pg_catalog."de-x-icu" has version 153.128"#,
        "reindex public.a, public.b, public.c and 9 more",
        "docs/operations.md",
    ] {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert_eq!(condition(&status, kind::READY).expect("Ready").0, "True");
    let mut scene = scene.remember();
    scene.report(|report| report.collations = None);
    assert_eq!(condition(&scene.status(), kind::COLLATIONS_CHANGED).expect("it is kept while unknown").0, "True");
    scene.report(|report| report.collations = Some(vec![]));
    let (holds, why, _) = condition(&scene.status(), kind::COLLATIONS_CHANGED).expect("it is kept");
    assert_eq!((holds.as_str(), why.as_str()), ("False", reason::COLLATIONS_UP_TO_DATE));
}

#[test]
fn a_teams_query_that_fails_is_a_condition_that_does_not_affect_ready() {
    let mut scene = Scene::serving(1);
    let failed = |name: &str| QueryFailure { name: name.to_owned(), message: "it would write".to_owned() };
    let report = QueriesReport { problem: None, count: 9, failed: vec![failed("a"), failed("b")], failed_count: 5 };
    scene.report(|own| own.queries = Some(report.clone()));
    assert_eq!(condition(&scene.status(), kind::CUSTOM_METRICS_READ), None, "none are declared");
    let source = QueriesReference { name: "chat-queries".to_owned(), key: "queries.yaml".to_owned() };
    scene.resource.spec.monitoring.queries = Some(source);
    let status = scene.status();
    let (holds, why, message) = condition(&status, kind::CUSTOM_METRICS_READ).expect("the condition");
    assert_eq!((holds.as_str(), why.as_str()), ("False", reason::QUERY_FAILED));
    let expected = "5 of 9 queries of the ConfigMap chat-queries give no metrics: a: it would write; b: it would write; \
                    and 3 more";
    assert_eq!(message, expected);
    assert_eq!(condition(&status, kind::READY).expect("Ready").0, "True");
    let mut scene = scene.remember();
    scene.report(|own| own.queries = None);
    assert_eq!(condition(&scene.status(), kind::CUSTOM_METRICS_READ).expect("kept while unknown").1, why);
    let missing = QueriesReport { problem: Some("it does not exist".to_owned()), ..QueriesReport::default() };
    scene.report(|own| own.queries = Some(missing));
    let (_, why, message) = condition(&scene.status(), kind::CUSTOM_METRICS_READ).expect("the condition");
    assert_eq!(why, reason::QUERIES_INVALID);
    assert!(message.ends_with("ConfigMap chat-queries: it does not exist"), "{message}");
    scene.report(|own| own.queries = Some(QueriesReport { count: 2, ..QueriesReport::default() }));
    let (holds, why, _) = condition(&scene.status(), kind::CUSTOM_METRICS_READ).expect("the condition");
    assert_eq!((holds.as_str(), why.as_str()), ("True", reason::QUERIES_READ));
}

#[test]
fn an_oom_killed_server_is_reported_with_the_parameter() {
    // By its agent, which survived.
    let mut scene = Scene::serving(1);
    scene.resource.spec.postgres.parameters.insert("work_mem".to_owned(), "1GB".to_owned());
    scene.observed.leader = None;
    scene.observed.pods[0].trouble =
        Some(Trouble { reason: reason::OOM_KILLED.to_owned(), message: "the kernel killed a process".to_owned() });
    let status = scene.remember().status();
    let (_, why, message) = condition(&status, kind::DATABASE_AVAILABLE).expect("a condition");
    assert_eq!(why, reason::OOM_KILLED);
    assert!(message.contains("work_mem = 1GB") && message.contains("limits.memory"), "{message}");

    // By Kubernetes, if the whole container was killed.
    let mut killed = pod(0, true);
    let status = &mut killed.status.as_mut().expect("a status").container_statuses.as_mut().expect("containers")[0];
    (status.ready, status.restart_count) = (false, 1);
    status.last_state = serde_json::from_value(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})).ok();
    let trouble = observed(&killed).trouble.expect("trouble");
    assert_eq!(trouble.reason, reason::OOM_KILLED);
}
