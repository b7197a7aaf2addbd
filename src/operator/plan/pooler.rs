//! The pooler: its Deployments, Services, rights, ConfigMaps, NetworkPolicy and PodDisruptionBudgets. All are
//! absent without `spec.pooler`.

use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use serde_json::{Value, json};

use super::front::{self, LABEL_COMPONENT};
use super::ingress::{from_monitoring, pods_of, tcp};
use super::workload::{container_security, pod_metadata, pod_security};
use crate::api::PoolerSpec;
use crate::api::names::LABEL_NAME;
use crate::contract::pod::{self, AGENT_PORT, POSTGRES_PORT};
use crate::contract::pooler::{
    ENV_HOST, ENV_REPLICAS, GRACE_SECONDS, HOLD_KEY, Hold, ORDERS_DIR, POOLER_PORT, RUN_DIR, SETTINGS_KEY, Settings,
    TLS_DIR, VERSION,
};
use crate::operator::apply::object::Planned;
use crate::operator::context::options::Options;
use crate::operator::validate::Database;

/// The component of a pooler's pods, in their label.
pub const COMPONENT: &str = "pooler";
/// The name of the container.
const CONTAINER: &str = "pooler";
/// Label of a pooler's pod: the name of its Deployment.
pub const LABEL_POOLER: &str = "servicedb.dev/pooler";

/// Whether a pooler leads to the replicas.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leads {
    ToPrimary,
    ToReplicas,
}

/// The objects, all of which are absent if the spec declares no pooler. `hold` is the order for the pods.
pub fn objects(database: &Database, options: &Options, hold: Option<&Hold>) -> Vec<Planned> {
    let declared = database.pooler.as_ref();
    let spec = declared.cloned().unwrap_or_else(PoolerSpec::default);
    let mut objects = vec![
        orders(database, &spec, hold),
        // The pods write its content.
        Planned::new::<ConfigMap>(&database.owner, database.names().pooler_reports(), json!({})),
        service_account(database),
        role(database),
        policy(database, options),
    ];
    for leads in [Leads::ToPrimary, Leads::ToReplicas] {
        let exists = leads == Leads::ToPrimary || spec.replicas;
        let of_pooler = [
            service(database, leads),
            peers_service(database, leads),
            front::budget(database, name(database, leads), &selector(database, leads)).only_if(spec.instances > 1),
            deployment(database, &spec, options, leads),
        ];
        objects.extend(of_pooler.map(|planned| {
            let present = planned.present && exists;
            planned.only_if(present)
        }));
    }
    objects
        .into_iter()
        .map(|planned| {
            let present = planned.present && declared.is_some();
            planned.only_if(present)
        })
        .collect()
}

/// The RoleBinding, which the API server accepts only if its Role exists.
pub fn binding(database: &Database) -> Planned {
    let names = database.names();
    Planned::new::<RoleBinding>(
        &database.owner,
        names.pooler(),
        json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": names.pooler()},
            "subjects": [{"kind": "ServiceAccount", "name": names.pooler(), "namespace": names.namespace}],
        }),
    )
    .only_if(database.pooler.is_some())
}

fn name(database: &Database, leads: Leads) -> String {
    match leads {
        Leads::ToPrimary => database.names().pooler(),
        Leads::ToReplicas => database.names().replicas_pooler(),
    }
}

fn selector(database: &Database, leads: Leads) -> Value {
    json!({LABEL_POOLER: name(database, leads)})
}

/// Settings and the order to hold queries, which the pods watch.
fn orders(database: &Database, spec: &PoolerSpec, hold: Option<&Hold>) -> Planned {
    let settings = Settings {
        version: VERSION,
        database: database.postgres.database.clone(),
        mode: spec.mode.setting().to_owned(),
        max_client_connections: spec.max_client_connections,
        pool_size: spec.pool_size,
        parameters: spec.parameters.clone(),
    };
    let mut data = json!({SETTINGS_KEY: json!(settings).to_string()});
    if let Some(hold) = hold {
        data[HOLD_KEY] = json!(hold).to_string().into();
    }
    Planned::new::<ConfigMap>(&database.owner, database.names().pooler_orders(), json!({"data": data}))
}

fn service_account(database: &Database) -> Planned {
    let name = database.names().pooler();
    Planned::new::<ServiceAccount>(&database.owner, name, json!({"automountServiceAccountToken": false}))
}

/// The rights of the pods: read their orders and write their report, both by name. A watch is limited to a
/// name by its field selector.
fn role(database: &Database) -> Planned {
    let names = database.names();
    Planned::new::<Role>(
        &database.owner,
        names.pooler(),
        json!({"rules": [
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [names.pooler_orders()], "verbs": ["get", "list", "watch"]},
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [names.pooler_reports()], "verbs": ["get", "patch"]},
        ]}),
    )
}

/// Clients, the other pods (a request to cancel may meet any), and monitoring.
fn policy(database: &Database, options: &Options) -> Planned {
    let names = database.names();
    let pods = json!({"matchLabels": {LABEL_NAME: names.name, LABEL_COMPONENT: COMPONENT}});
    let clients = database.clients.iter().filter_map(pods_of);
    let from: Vec<_> = [json!({"podSelector": pods})].into_iter().chain(clients).collect();
    let mut rules = vec![json!({"from": from, "ports": [tcp(POOLER_PORT)]})];
    rules.extend(from_monitoring(options, AGENT_PORT));
    Planned::new::<NetworkPolicy>(
        &database.owner,
        names.pooler(),
        json!({"spec": {"podSelector": pods, "policyTypes": ["Ingress"], "ingress": rules}}),
    )
}

/// The same port as the database's, so that a client changes its host name alone.
fn service(database: &Database, leads: Leads) -> Planned {
    let port = json!({"name": "postgres", "port": POSTGRES_PORT, "targetPort": "pooler", "protocol": "TCP"});
    Planned::new::<Service>(
        &database.owner,
        name(database, leads),
        json!({"spec": {"type": "ClusterIP", "selector": selector(database, leads), "ports": [port]}}),
    )
}

/// The pods' addresses, for one another.
fn peers_service(database: &Database, leads: Leads) -> Planned {
    let port = json!({"name": "pooler", "port": POOLER_PORT, "targetPort": "pooler", "protocol": "TCP"});
    Planned::new::<Service>(
        &database.owner,
        database.names().pooler_peers(leads == Leads::ToReplicas),
        json!({"spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": selector(database, leads),
            "ports": [port],
        }}),
    )
}

fn deployment(database: &Database, spec: &PoolerSpec, options: &Options, leads: Leads) -> Planned {
    let labels = json!({LABEL_POOLER: name(database, leads), LABEL_COMPONENT: COMPONENT});
    let names = database.names();
    let pod = json!({
        "serviceAccountName": names.pooler(),
        "automountServiceAccountToken": true,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": pod_security(options),
        "containers": [container(database, spec, options, leads)],
        "volumes": [
            {"name": "run", "emptyDir": {"medium": "Memory"}},
            {"name": "orders", "configMap": {"name": names.pooler_orders(), "defaultMode": 0o440}},
            {"name": "tls", "secret": {"secretName": names.pooler_tls_secret(), "defaultMode": 0o440}},
        ],
    });
    let (selector, metadata) = (selector(database, leads), pod_metadata(database, labels));
    front::deployment(database, options, name(database, leads), (spec.instances, &selector), (metadata, pod))
}

fn container(database: &Database, spec: &PoolerSpec, options: &Options, leads: Leads) -> Value {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let names = database.names();
    let host = if leads == Leads::ToPrimary { names.primary_host() } else { names.replicas_host() };
    let resources = match &spec.resources {
        Some(resources) => json!(resources),
        None => json!({"requests": {"cpu": "50m", "memory": "64Mi"}}),
    };
    json!({
        "name": CONTAINER,
        "image": database.image,
        "imagePullPolicy": options.image_pull_policy,
        "command": ["/usr/bin/tini", "--", "/usr/local/bin/servicedb", "agent", "--pooler"],
        "env": [
            field(pod::ENV_POD_NAME, "metadata.name"),
            field(pod::ENV_POD_NAMESPACE, "metadata.namespace"),
            field(pod::ENV_POD_UID, "metadata.uid"),
            field(pod::ENV_POD_IP, "status.podIP"),
            {"name": pod::ENV_SERVICE, "value": names.name},
            {"name": ENV_HOST, "value": host},
            {"name": ENV_REPLICAS, "value": (leads == Leads::ToReplicas).to_string()},
        ],
        "ports": [
            {"name": "pooler", "containerPort": POOLER_PORT, "protocol": "TCP"},
            {"name": "agent", "containerPort": AGENT_PORT, "protocol": "TCP"},
        ],
        "startupProbe": {
            "httpGet": {"path": "/livez", "port": "agent"}, "initialDelaySeconds": 1,
            "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 60,
        },
        "livenessProbe": {
            "httpGet": {"path": "/livez", "port": "agent"}, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3,
        },
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "agent"}, "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 3,
        },
        "resources": resources,
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "run", "mountPath": RUN_DIR},
            {"name": "orders", "mountPath": ORDERS_DIR, "readOnly": true},
            {"name": "tls", "mountPath": TLS_DIR, "readOnly": true},
        ],
    })
}
