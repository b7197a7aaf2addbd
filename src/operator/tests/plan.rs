//! The plan: snapshots of the objects, and rules for every plan.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::fixtures::{FULL, MINIMAL, database, inputs, options, resource};
use super::pod_security::violations;
use crate::api::names::{LABEL_ROLE, LABEL_SCOPE};
use crate::operator::apply::object::{Ownership, Planned};
use crate::operator::context::options::Options;
use crate::operator::instances::Decision;
use crate::operator::plan::migration;
use crate::operator::plan::migration::Purpose;
use crate::operator::plan::{self, Inputs};
use crate::operator::validate::{Database, validate};

const REVISION: &str = "0123456789abcdef0123456789abcdef";

/// The StatefulSet of a new database.
fn workload(database: &Database, options: &Options) -> Planned {
    let template = plan::template(database, options);
    let size = &database.storage.size;
    let (replicas, volume_uid) = (database.instances, database.owner.uid.as_str());
    plan::workload(database, &plan::WorkloadInputs { template: &template, replicas, volume_size: size, volume_uid })
}

/// All objects that are planned for a database, in the order in which they are applied.
fn everything(database: &Database, options: &Options) -> Vec<Planned> {
    let files = BTreeMap::from([("0001_create.up.sql".to_owned(), b"CREATE TABLE t (id int);".to_vec())]);
    let mut objects = plan::supporting(database, &inputs(database, options));
    objects.retain(|planned| planned.present);
    objects.push(plan::binding(database));
    objects.push(workload(database, options));
    let parts = [files];
    let copies = migration::copies(database, REVISION, &parts);
    objects.extend(migration::config_maps(database, &copies, &parts));
    let undeclared = || with_source(&json!({"configMap": {"name": "chat-migrations"}})).migrations;
    let migrations = database.migrations.clone().or_else(undeclared).expect("migrations");
    objects.push(migration::job(database, options, (REVISION, &migrations), &copies, Purpose::Apply));
    objects
}

fn bodies(objects: &[Planned]) -> Vec<Value> {
    let full = |planned: &Planned| match &planned.at_creation {
        Some(extra) => json!({"applied": planned.body, "at creation": extra}),
        None => planned.body.clone(),
    };
    objects.iter().map(full).collect()
}

fn find<'a>(objects: &'a [Planned], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|planned| planned.resource.kind == kind && planned.name == name);
    &found.unwrap_or_else(|| panic!("no {kind} {name} is planned")).body
}

#[test]
fn minimal() {
    insta::assert_yaml_snapshot!(bodies(&everything(&database(MINIMAL), &options())));
}

/// A database whose migrations are in this source.
fn with_source(source: &Value) -> Database {
    let mut resource = resource(MINIMAL);
    let migrations = json!({"source": source});
    resource.spec.migrations = Some(serde_json::from_value(migrations).expect("migrations"));
    validate(&resource, &options()).expect("a spec that can be planned")
}

/// The pod of this Job, and its rules for failures.
fn job_of(database: &Database, options: &Options, purpose: Purpose) -> Value {
    let migrations = database.migrations.as_ref().expect("migrations");
    let job = migration::job(database, options, (REVISION, migrations), &["copy".to_owned()], purpose).body;
    assert_eq!(violations(&job["spec"]["template"]["spec"]), Vec::<String>::new());
    json!({"rules": job["spec"]["podFailurePolicy"]["rules"], "pod": job["spec"]["template"]["spec"]})
}

#[test]
fn migrations_of_an_image_are_copied_or_mounted() {
    let image = json!({"image": {"reference": "team/app:1", "path": "/db/", "imagePullSecrets": [{"name": "team"}]}});
    let database = with_source(&image);
    insta::assert_yaml_snapshot!("image_copied", job_of(&database, &options(), Purpose::Apply));
    let mut options = options();
    options.image_volumes = true;
    insta::assert_yaml_snapshot!("image_mounted", job_of(&database, &options, Purpose::Apply)["pod"]);
}

#[test]
fn the_teams_own_tool_has_no_access_to_vault() {
    let tool = json!({"job": {"image": "team/app:1", "command": ["flask"], "args": ["db", "upgrade"],
        "versionQuery": "SELECT version_num FROM alembic_version"}});
    let job = job_of(&with_source(&tool), &options(), Purpose::Apply);
    let team = &job["pod"]["initContainers"][1];
    let mounts: Vec<_> = team["volumeMounts"].as_array().expect("mounts").iter().map(|mount| &mount["name"]).collect();
    assert_eq!(mounts, ["session", "tmp"]);
    insta::assert_yaml_snapshot!("tool", job);
}

#[test]
fn a_drift_check_runs_its_own_server() {
    let mut database = with_source(&json!({"configMap": {"name": "chat-migrations"}}));
    database.extensions = vec!["pg_trgm".to_owned(), "citext".to_owned()];
    insta::assert_yaml_snapshot!("drift", job_of(&database, &options(), Purpose::Compare));
}

#[test]
fn full() {
    let mut options = options();
    options.image_pull_secrets = vec!["registry".to_owned(), "mirror".to_owned()];
    options.monitoring_namespaces = vec!["monitoring".to_owned()];
    options.run_as_user = 1000;
    options.fs_group = 2000;
    options.image_pull_policy = "Always".to_owned();
    options.vault_namespace = Some("platform".to_owned());
    insta::assert_yaml_snapshot!(bodies(&everything(&database(FULL), &options)));
}

/// Builders are JSON, so a misspelt field is not detected otherwise: the type drops it.
#[test]
fn no_field_is_unknown_to_its_type() {
    for yaml in [MINIMAL, FULL] {
        for planned in everything(&database(yaml), &options()) {
            let kind = planned.resource.kind.as_str();
            let mut body = planned.body.clone();
            if let Some(config) =
                planned.at_creation.as_ref().and_then(|extra| extra.pointer("/metadata/annotations/config"))
            {
                body["metadata"]["annotations"]["config"] = config.clone();
            }
            let read = match kind {
                "ServiceAccount" => through::<ServiceAccount>(&body),
                "Role" => through::<Role>(&body),
                "RoleBinding" => through::<RoleBinding>(&body),
                "ConfigMap" => through::<ConfigMap>(&body),
                "Service" => through::<Service>(&body),
                "NetworkPolicy" => through::<NetworkPolicy>(&body),
                "PodDisruptionBudget" => through::<PodDisruptionBudget>(&body),
                "StatefulSet" => through::<StatefulSet>(&body),
                "Job" => through::<Job>(&body),
                other => panic!("a {other} is planned, and this test does not know its type"),
            };
            assert_eq!(read, body, "{kind} {}", planned.name);
        }
    }
}

fn through<T: Serialize + DeserializeOwned>(body: &Value) -> Value {
    let read: T = serde_json::from_value(body.clone()).expect("an object of its type");
    serde_json::to_value(read).expect("JSON")
}

#[test]
fn pods_comply_with_the_restricted_standard_and_have_no_secret_in_the_environment() {
    for yaml in [MINIMAL, FULL] {
        let objects = everything(&database(yaml), &options());
        let pods: Vec<_> = objects.iter().filter_map(|planned| planned.body["spec"].get("template")).collect();
        assert_eq!(pods.len(), 2, "the StatefulSet's and the Job's");
        for pod in pods {
            assert_eq!(violations(&pod["spec"]), Vec::<String>::new());
        }
    }
}

#[test]
fn only_pods_that_talk_to_the_api_server_have_a_token() {
    let objects = everything(&database(MINIMAL), &options());
    let automount = |body: &Value| body["automountServiceAccountToken"].clone();
    assert_eq!(automount(&find(&objects, "StatefulSet", "chat-db")["spec"]["template"]["spec"]), json!(true));
    assert_eq!(
        automount(&find(&objects, "Job", "chat-db-migrate-0123456789")["spec"]["template"]["spec"]),
        json!(false)
    );
    for account in ["chat-db", "chat-db-migrator"] {
        assert_eq!(automount(find(&objects, "ServiceAccount", account)), json!(false));
    }
}

#[test]
fn the_instances_role_names_its_objects() {
    for yaml in [MINIMAL, FULL] {
        let database = database(yaml);
        let objects = everything(&database, &options());
        let base = database.names().base();
        let rules = find(&objects, "Role", &base)["rules"].as_array().expect("rules").clone();
        for rule in &rules {
            let list = |key: &str| -> Vec<String> {
                serde_json::from_value(rule.get(key).cloned().unwrap_or(json!([]))).expect("strings")
            };
            let verbs = list("verbs");
            assert!(!rule.to_string().contains('*'), "a wildcard in {rule}");
            assert!(!verbs.is_empty());
            for verb in &verbs {
                let narrow = ["get", "patch", "update"].contains(&verb.as_str());
                let wide = ["list", "watch"].contains(&verb.as_str());
                assert!(narrow || wide, "{verb} is more than an instance needs: {rule}");
                assert_eq!(narrow, !list("resourceNames").is_empty(), "{rule}");
            }
            for resource in list("resources") {
                assert!(["configmaps", "pods"].contains(&resource.as_str()), "{rule}");
            }
            for name in list("resourceNames") {
                assert!(name.starts_with(&format!("{base}-")), "{name} is not an object of {base}");
            }
        }
        let named = rules.iter().flat_map(|rule| rule["resourceNames"].as_array().into_iter().flatten());
        let named: BTreeSet<_> = named.filter_map(Value::as_str).map(str::to_owned).collect();
        for ordinal in 0..9 {
            assert!(named.contains(&database.names().pod(ordinal)), "the Role lets pod {ordinal} patch itself");
        }
        assert!(database.names().patroni_config_maps().iter().all(|name| named.contains(name)));
    }
}

/// No name of a database leads to a collision with objects of another one, not even the other's
/// name with a suffix of its objects.
#[test]
fn objects_of_two_databases_never_collide() {
    let of = |name: &str, instances: i32| -> BTreeSet<(String, String)> {
        let mut resource = resource(MINIMAL);
        resource.metadata.name = Some(name.to_owned());
        resource.spec.instances = instances;
        let database = validate(&resource, &options()).expect("a spec that can be planned");
        let names = database.names();
        let secrets = [names.instance_approle(), names.migrator(), names.ca_secret(), names.tls_secret()];
        let planned =
            everything(&database, &options()).into_iter().map(|planned| (planned.resource.kind, planned.name));
        planned.chain(secrets.map(|name| ("Secret".to_owned(), name))).collect()
    };
    let names =
        ["chat", "chat-db", "chat-db-0", "chat-db-config", "chat-db-migrator", "chat-db-migrate-0123456789", "c"];
    for (index, one) in names.iter().enumerate() {
        let objects = of(one, 3);
        for other in &names[index + 1..] {
            let shared: Vec<_> = objects.intersection(&of(other, 3)).cloned().collect();
            assert_eq!(shared, Vec::new(), "{one} and {other} share objects");
        }
    }
}

#[test]
fn the_policy_admits_only_declared_clients() {
    let mut options = options();
    options.monitoring_namespaces = vec!["monitoring".to_owned()];
    let database = database(FULL);
    let objects = everything(&database, &options);
    let policy = &find(&objects, "NetworkPolicy", "match-maker-db")["spec"];
    assert_eq!(policy["policyTypes"], json!(["Ingress"]));
    assert_eq!(policy["podSelector"]["matchLabels"][LABEL_SCOPE], "match-maker-db");
    let peers_of = |port: u16| -> Vec<Value> {
        let rules = policy["ingress"].as_array().expect("rules").iter();
        let open =
            rules.filter(|rule| rule["ports"].as_array().expect("ports").iter().any(|open| open["port"] == port));
        open.flat_map(|rule| rule["from"].as_array().expect("peers").clone()).collect()
    };
    let members = json!({"podSelector": {"matchLabels": {"servicedb.dev/scope": "match-maker-db"}}});
    let migrator = json!({"podSelector": {"matchLabels": {"servicedb.dev/name": "match-maker", "app.kubernetes.io/component": "migration"}}});
    assert_eq!(
        peers_of(5432),
        [
            members.clone(),
            migrator,
            json!({"podSelector": {"matchLabels": {"app": "match-maker"}}}),
            json!({"podSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["data"]}]}}),
        ],
        "the auditor reads credentials, but declares no pods",
    );
    assert_eq!(peers_of(8008), [members]);
    let monitoring = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["monitoring"]});
    assert_eq!(peers_of(8010), [json!({"namespaceSelector": {"matchExpressions": [monitoring]}})]);

    options.monitoring_namespaces.clear();
    let closed = everything(&database, &options);
    let rules = find(&closed, "NetworkPolicy", "match-maker-db")["spec"]["ingress"].as_array().expect("rules").len();
    assert_eq!(rules, 2, "without monitoring the agent's port cannot be reached");
}

/// Metrics over TLS have a port of their own, which replaces the plain one for monitoring.
#[test]
fn metrics_over_tls_are_at_another_port_and_change_nothing_without_the_choice() {
    let database = database(FULL);
    let mut options = options();
    options.monitoring_namespaces = vec!["monitoring".to_owned()];
    options.scrape_annotations = true;
    let plain = everything(&database, &options);
    options.metrics_tls = true;
    let encrypted = everything(&database, &options);
    let template = |objects: &[Planned]| find(objects, "StatefulSet", "match-maker-db")["spec"]["template"].clone();
    assert!(!template(&plain).to_string().contains("8011"));
    let template = template(&encrypted);
    let container = &template["spec"]["containers"][0];
    let port = json!({"name": "metrics-tls", "containerPort": 8011, "protocol": "TCP"});
    assert!(container["ports"].as_array().is_some_and(|ports| ports.contains(&port)), "{container}");
    let chosen = json!({"name": "SERVICEDB_METRICS_TLS", "value": "true"});
    assert!(container["env"].as_array().is_some_and(|env| env.contains(&chosen)), "{container}");
    let annotations = &template["metadata"]["annotations"];
    assert_eq!(
        (&annotations["prometheus.io/scheme"], &annotations["prometheus.io/port"]),
        (&json!("https"), &json!("8011"))
    );
    assert_eq!(annotations["servicedb.dev/metrics"], "tls");
    let policy = |objects: &[Planned]| find(objects, "NetworkPolicy", "match-maker-db")["spec"]["ingress"].to_string();
    assert!(!policy(&plain).contains("8011"));
    let policy = policy(&encrypted);
    assert!(policy.contains("8011") && policy.contains("8010"), "instances of before are still scraped: {policy}");
}

/// Policies, Services and budgets select the pods of the StatefulSet.
#[test]
fn selectors_match_the_pods_labels() {
    let objects = everything(&database(FULL), &options());
    let labels = &find(&objects, "StatefulSet", "match-maker-db")["spec"]["template"]["metadata"]["labels"];
    let selectors = [
        &find(&objects, "StatefulSet", "match-maker-db")["spec"]["selector"]["matchLabels"],
        &find(&objects, "PodDisruptionBudget", "match-maker-db")["spec"]["selector"]["matchLabels"],
        &find(&objects, "NetworkPolicy", "match-maker-db")["spec"]["podSelector"]["matchLabels"],
        &find(&objects, "Service", "match-maker-db-peers")["spec"]["selector"],
    ];
    for selector in selectors {
        // Patroni sets the role.
        for (key, value) in selector.as_object().expect("a selector").iter().filter(|(key, _)| *key != LABEL_ROLE) {
            assert_eq!(&labels[key], value, "{key}");
        }
    }
    let ports = find(&objects, "StatefulSet", "match-maker-db")["spec"]["template"]["spec"]["containers"][0]["ports"]
        .as_array()
        .expect("ports")
        .clone();
    for service in ["match-maker-db", "match-maker-db-replicas", "match-maker-db-peers"] {
        let target = &find(&objects, "Service", service)["spec"]["ports"][0]["targetPort"];
        assert!(ports.iter().any(|port| port["name"] == *target), "{service} has the target {target}");
    }
}

#[test]
fn mounted_objects_are_planned_or_created() {
    let database = database(FULL);
    let objects = everything(&database, &options());
    let names = database.names();
    let secrets = [names.instance_approle(), names.migrator(), names.tls_secret()];
    for workload in objects.iter().filter(|planned| planned.body["spec"].get("template").is_some()) {
        for volume in workload.body["spec"]["template"]["spec"]["volumes"].as_array().expect("volumes") {
            if let Some(name) = volume["configMap"]["name"].as_str() {
                find(&objects, "ConfigMap", name);
            }
            if let Some(name) = volume["secret"]["secretName"].as_str() {
                assert!(secrets.iter().any(|secret| secret == name), "the Secret {name} is not created");
            }
        }
    }
    assert!(!objects.iter().any(|planned| planned.body.to_string().contains(&names.ca_secret())), "no pod has the key");
}

#[test]
fn only_patronis_config_maps_outlive_the_resource() {
    let database = database(FULL);
    let patronis = database.names().patroni_config_maps();
    for planned in everything(&database, &options()) {
        let stamped = planned.resource.kind == "ConfigMap" && patronis.contains(&planned.name);
        let expected = if stamped { Ownership::Stamped } else { Ownership::Controlled };
        assert_eq!(planned.ownership, expected, "{} {}", planned.resource.kind, planned.name);
        assert_eq!(planned.body["metadata"].get("ownerReferences").is_none(), stamped);
    }
}

/// The PodDisruptionBudgets that must exist, and those that must not.
fn budgets(objects: &[Planned]) -> (Vec<&Planned>, Vec<&Planned>) {
    let all = objects.iter().filter(|object| object.resource.kind == "PodDisruptionBudget");
    all.partition(|budget| budget.present)
}

#[test]
fn budgets_never_block_the_drain_of_a_single_instance_and_no_pod_is_in_two() {
    for (instances, planned, absent) in [
        (1, vec![], vec!["chat-db-primary", "chat-db"]),
        (2, vec!["chat-db-primary"], vec!["chat-db"]),
        (9, vec!["chat-db-primary", "chat-db"], vec![]),
    ] {
        let mut database = database(MINIMAL);
        database.instances = instances;
        let objects = plan::supporting(&database, &inputs(&database, &options()));
        let (budgets, unwanted) = budgets(&objects);
        assert_eq!(budgets.iter().map(|budget| budget.name.as_str()).collect::<Vec<_>>(), planned);
        assert_eq!(unwanted.iter().map(|budget| budget.name.as_str()).collect::<Vec<_>>(), absent);
        let roles = |budget: &&Planned| budget.body["spec"]["selector"]["matchLabels"][LABEL_ROLE].clone();
        assert!(budgets.iter().map(roles).eq(["primary", "replica"].into_iter().take(budgets.len()).map(Value::from)));
    }
}

/// Scaling or deleting the StatefulSet deletes no volume.
#[test]
fn kubernetes_deletes_no_volume() {
    for policy in ["Retain", "Delete"] {
        let database = database(&MINIMAL.replace("1Gi}", &format!("1Gi, scaleDownPolicy: {policy}}}")));
        let policy = &workload(&database, &options()).body["spec"]["persistentVolumeClaimRetentionPolicy"];
        assert_eq!(*policy, json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
    }
}

#[test]
fn the_pod_with_the_only_copy_is_not_evicted_ready_or_not() {
    for instances in [1, 3] {
        let mut database = database(MINIMAL);
        database.instances = instances;
        let (options, decision) = (options(), Decision { keep_pods: true, ..Decision::default() });
        let inputs = Inputs { decision: &decision, ..inputs(&database, &options) };
        let objects = plan::supporting(&database, &inputs);
        let (budgets, unwanted) = budgets(&objects);
        assert_eq!(budgets.len(), 1, "a pod in two budgets cannot be evicted");
        let spec = &budgets[0].body["spec"];
        assert_eq!(
            (&spec["maxUnavailable"], &spec["unhealthyPodEvictionPolicy"]),
            (&json!(0), &json!("IfHealthyBudget"))
        );
        assert_eq!(spec["selector"]["matchLabels"], json!({LABEL_SCOPE: "chat-db"}));
        assert_eq!(unwanted.len(), 1);
    }
}
