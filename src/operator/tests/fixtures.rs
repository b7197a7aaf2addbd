//! Common fixtures: settings from the command line, and resources from YAML.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use clap::Parser;
use serde_json::Value;

use crate::api::ServiceDatabase;
use crate::contract::maintenance::Maintenance;
use crate::operator::context::options::Options;
use crate::operator::credentials::DesiredCredentials;
use crate::operator::credentials::role_ids::RoleIds;
use crate::operator::instances::Decision;
use crate::operator::instances::patroni_state::{self, Known};
use crate::operator::plan::{self, Inputs};
use crate::operator::validate::{Database, validate};

/// Declares only required fields.
pub const MINIMAL: &str = "
apiVersion: servicedb.dev/v1alpha1
kind: ServiceDatabase
metadata: {name: chat, namespace: messaging, uid: uid-of-chat, generation: 1}
spec:
  storage: {size: 1Gi}
";

/// Declares every field.
pub const FULL: &str = r#"
apiVersion: servicedb.dev/v1alpha1
kind: ServiceDatabase
metadata: {name: match-maker, namespace: games, uid: uid-of-match-maker, generation: 4}
spec:
  database: matches
  instances: 3
  postgres:
    version: "17"
    parameters: {max_connections: "200", work_mem: 8MB}
    extensions: [{name: pg_trgm}, {name: uuid-ossp}]
  storage: {size: 20Gi, storageClassName: fast}
  replication: {synchronous: true, maximumLagBytes: 1048576}
  resources:
    requests: {cpu: 250m, memory: 512Mi}
    limits: {memory: 1Gi}
  scheduling:
    affinity:
      nodeAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
          nodeSelectorTerms:
          - matchExpressions: [{key: disk, operator: In, values: [ssd]}]
    tolerations: [{key: dedicated, operator: Equal, value: databases, effect: NoSchedule}]
    topologySpreadConstraints:
    - {maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: ScheduleAnyway}
    priorityClassName: databases
  podMetadata:
    labels: {team: games}
    annotations: {cost.example/centre: "4711"}
  migrations:
    source: {configMap: {name: match-maker-migrations}}
    resources: {requests: {cpu: 100m, memory: 256Mi}, limits: {memory: 512Mi}}
  clients:
  - {serviceAccountName: match-maker, podSelector: {matchLabels: {app: match-maker}}}
  - {serviceAccountName: reports, podSelector: {matchExpressions: [{key: team, operator: In, values: [data]}]}}
  - {serviceAccountName: auditor}
  deletionPolicy: Delete
"#;

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    options: Options,
}

/// The operator's settings: the required ones, and the command line's defaults.
pub fn options() -> Options {
    let arguments = [
        "operator",
        "--namespace=servicedb-system",
        "--pod-name=operator-0",
        "--cluster-id=dev",
        "--vault-address=https://vault.vault.svc:8200",
        "--postgres-images=17=registry.example/servicedb-postgres:1.0",
        "--operator-image=registry.example/servicedb:1.0",
        "--gateway-image=registry.example/servicedb-gateway:1.0",
        STORES,
    ];
    CommandLine::parse_from(arguments).options
}

/// The stores that a spec can choose.
const STORES: &str = r#"--backup-stores={"main": {
    "s3": {"endpoint": "https://s3.example.com", "region": "eu", "bucket": "backups", "prefix": "/prod/"},
    "keys": {"vaultPath": "backups/main"}
}, "second": {
    "s3": {"endpoint": "https://s3.example.org", "region": "us", "bucket": "copies", "prefix": "/second/"},
    "keys": {"vaultPath": "backups/second"}
}}"#;

/// A resource from its YAML.
pub fn resource(yaml: &str) -> ServiceDatabase {
    serde_yaml::from_str(yaml).expect("a ServiceDatabase")
}

/// A resource that passes validation.
pub fn database(yaml: &str) -> Database {
    validate(&resource(yaml), &options()).expect("a spec that can be planned")
}

/// The first credentials.
static FIRST: LazyLock<DesiredCredentials> = LazyLock::new(DesiredCredentials::first);

/// The inputs of the plan, apart from the resource.
pub fn inputs<'a>(database: &Database, options: &'a Options) -> Inputs<'a> {
    let (replicas, members) = (database.instances, database.instances);
    let decision = Decision { replicas, members, ..Decision::default() };
    let desired = plan::config::document(database, &FIRST);
    let known = Known { system_identifier: None, desired: &desired, leader: None };
    let patroni = patroni_state::contents(database.names(), &known, |_| None);
    Inputs {
        patroni: Box::leak(Box::new(patroni)),
        has_volumes: false,
        system_identifier: None,
        // Tests are short-lived.
        decision: Box::leak(Box::new(decision)),
        authorities: None,
        secrets: BTreeSet::default(),
        template: &Value::Null,
        volume_bytes: database.volume_bytes,
        backup: None,
        in_place: None,
        branch: None,
        maintenance: Maintenance::default(),
        upgrade: None,
        lineage: None,
        options,
        vault_ca: Some("the authority of Vault"),
        role_ids: RoleIds { instance: "role-id-of-instance".to_owned(), migrator: "role-id-of-migrator".to_owned() },
        credentials: &FIRST,
    }
}
