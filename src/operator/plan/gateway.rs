//! The data gateway: its settings, Deployment, Services, ServiceAccount, NetworkPolicy and PodDisruptionBudget.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use super::front::{self, LABEL_COMPONENT};
use super::ingress::{from_monitoring, pods_of, tcp};
use super::workload::{container_security, pod_metadata, pod_security};
use crate::api::names::{LABEL_NAME, PostgresNames};
use crate::api::{ClientSpec, GatewaySpec};
use crate::contract::gateway::{
    AUTHORITIES_KEY, GATEWAY_PORT, GRACE_SECONDS, METRICS_PORT, SERVICE_PORT, SETTINGS_DIR, SETTINGS_KEY, TLS_DIR,
    audience,
};
use crate::contract::pod::POSTGRES_PORT;
use crate::operator::apply::object::{Planned, short_hash};
use crate::operator::context::options::Options;
use crate::operator::validate::Database;

/// The component of a gateway's pods, in their label.
pub const COMPONENT: &str = "gateway";
/// The name of the container.
const CONTAINER: &str = "gateway";
/// How long a caller's address that sends nothing is led to the same pod: Kubernetes' default.
const AFFINITY_SECONDS: i32 = 10_800;
/// Label of a gateway's pod: the name of its Deployment.
const LABEL_GATEWAY: &str = "servicedb.dev/gateway";
/// Annotation of a pod: the digest of its settings. Other settings are other pods.
const ANNOTATION_SETTINGS: &str = "servicedb.dev/settings";
/// Where a pod's ServiceAccount token and the API server's authority are.
const ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The API server's keys that sign ServiceAccount tokens, by a name that every cluster's DNS and certificate have.
const KEYS: &str = "https://kubernetes.default.svc/openid/v1/jwks";

/// The objects. `issuer` is who issues the tokens of callers.
///
/// `authorities` are those of the database, PEM, for callers: in the ConfigMap, since whoever reads the Secret with the
/// certificates has the gateway's own login.
pub fn objects(
    database: &Database,
    spec: &GatewaySpec,
    options: &Options,
    (issuer, authorities): (&str, &str),
) -> Vec<Planned> {
    let settings = settings(database, spec, issuer);
    vec![
        Planned::new::<ConfigMap>(
            &database.owner,
            database.names().gateway(),
            json!({"data": {SETTINGS_KEY: settings, AUTHORITIES_KEY: authorities}}),
        ),
        service_account(database),
        policy(database, options),
        service(database),
        peers_service(database),
        front::budget(database, database.names().gateway(), &selector(database)).only_if(spec.instances > 1),
        deployment(database, spec, options, &settings),
    ]
}

/// The same objects, to be removed.
pub fn absent(database: &Database) -> Vec<Planned> {
    let (owner, name) = (&database.owner, database.names().gateway());
    let all = [
        Planned::new::<Deployment>(owner, name.clone(), json!({})),
        Planned::new::<PodDisruptionBudget>(owner, name.clone(), json!({})),
        Planned::new::<Service>(owner, name.clone(), json!({})),
        Planned::new::<Service>(owner, database.names().gateway_peers(), json!({})),
        Planned::new::<NetworkPolicy>(owner, name.clone(), json!({})),
        Planned::new::<ServiceAccount>(owner, name.clone(), json!({})),
        Planned::new::<ConfigMap>(owner, name, json!({})),
    ];
    all.map(|planned| planned.only_if(false)).into()
}

/// The file with the gateway's settings, which is JSON and thereby YAML.
fn settings(database: &Database, spec: &GatewaySpec, issuer: &str) -> String {
    let names = database.names();
    let leaf =
        |name: &str| json!({"certificate": format!("{TLS_DIR}/{name}.crt"), "key": format!("{TLS_DIR}/{name}.key")});
    let mut limits = json!({
        "connections": spec.connections,
        "statementMilliseconds": i64::from(spec.statement_timeout_seconds) * 1000,
    });
    if let Some(rows) = spec.max_rows {
        limits["rows"] = rows.into();
    }
    if let Some(cost) = spec.cost_per_second {
        limits["costPerSecond"] = cost.into();
    }
    let mut settings = json!({
        "listen": format!("0.0.0.0:{GATEWAY_PORT}"),
        "metricsListen": format!("0.0.0.0:{METRICS_PORT}"),
        "tls": leaf("server"),
        "database": {
            "host": names.primary_host(),
            "port": POSTGRES_PORT,
            "name": database.postgres.database,
            "user": PostgresNames::GATEWAY,
            "ca": format!("{TLS_DIR}/ca.crt"),
            "client": leaf("gateway"),
        },
        // Also of one pod: while it is replaced, there are two.
        "peers": {
            "hosts": [format!("{}.{}.svc", names.gateway_peers(), names.namespace)],
            "port": GATEWAY_PORT,
            "name": names.gateway_host(),
            "ca": format!("{TLS_DIR}/ca.crt"),
        },
        "schemas": spec.schemas,
        "callers": {
            "issuer": issuer,
            "audience": audience(&names.namespace, &names.name),
            "keys": {"url": KEYS, "ca": format!("{ACCOUNT_DIR}/ca.crt"), "tokenFile": format!("{ACCOUNT_DIR}/token")},
            "roles": callers(database),
        },
        "limits": limits,
        "search": spec.search,
    });
    if database.instances > 1 {
        settings["database"]["replicas"] = json!({"host": names.replicas_host(), "port": POSTGRES_PORT});
    }
    if let Some(cache) = &spec.cache {
        settings["cache"] = json!({"collections": cache.collections, "megabytes": cache.megabytes});
    }
    if let Some(configuration) = &spec.search_configuration {
        settings["searchConfiguration"] = configuration.clone().into();
    }
    format!("{settings:#}\n")
}

/// The ServiceAccounts that may call, and their roles.
fn callers(database: &Database) -> Vec<Value> {
    let names = database.names();
    let role = |client: &ClientSpec| match client.own() {
        Some(_) => database.postgres.client(client.name()),
        None => database.postgres.app(),
    };
    let caller = |client: &ClientSpec| {
        let account = format!("{}/{}", client.namespace(&names.namespace), client.account_name());
        json!({"serviceAccount": account, "role": role(client)})
    };
    database.clients.iter().map(caller).collect()
}

fn service_account(database: &Database) -> Planned {
    let name = database.names().gateway();
    Planned::new::<ServiceAccount>(&database.owner, name, json!({"automountServiceAccountToken": false}))
}

fn selector(database: &Database) -> Value {
    json!({LABEL_GATEWAY: database.names().gateway()})
}

/// Clients, the other pods (a transaction lives in one of them), and monitoring.
fn policy(database: &Database, options: &Options) -> Planned {
    let names = database.names();
    let pods = json!({"matchLabels": {LABEL_NAME: names.name, LABEL_COMPONENT: COMPONENT}});
    let clients = database.clients.iter().filter_map(pods_of);
    let from: Vec<_> = clients.chain([json!({"podSelector": pods})]).collect();
    let mut rules = vec![json!({"from": from, "ports": [tcp(GATEWAY_PORT)]})];
    rules.extend(from_monitoring(options, METRICS_PORT));
    Planned::new::<NetworkPolicy>(
        &database.owner,
        names.gateway(),
        json!({"spec": {
            "podSelector": pods,
            "policyTypes": ["Ingress"],
            "ingress": rules,
        }}),
    )
}

fn service(database: &Database) -> Planned {
    let port = json!({"name": "https", "port": SERVICE_PORT, "targetPort": "https", "protocol": "TCP"});
    Planned::new::<Service>(
        &database.owner,
        database.names().gateway(),
        // A caller's interactive transaction lives in one pod: another one would have to ask it.
        json!({"spec": {
            "type": "ClusterIP", "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}}, "selector": selector(database), "ports": [port],
        }}),
    )
}

/// The pods' addresses, for one another; also of a pod that ends, which has open transactions for some seconds.
fn peers_service(database: &Database) -> Planned {
    let port = json!({"name": "https", "port": GATEWAY_PORT, "targetPort": "https", "protocol": "TCP"});
    Planned::new::<Service>(
        &database.owner,
        database.names().gateway_peers(),
        json!({"spec": {
            "clusterIP": "None", "publishNotReadyAddresses": true, "selector": selector(database), "ports": [port],
        }}),
    )
}

fn deployment(database: &Database, spec: &GatewaySpec, options: &Options, settings: &str) -> Planned {
    let labels = json!({LABEL_GATEWAY: database.names().gateway(), LABEL_COMPONENT: COMPONENT});
    let names = database.names();
    let pod = json!({
        "serviceAccountName": names.gateway(),
        "automountServiceAccountToken": true,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": pod_security(options),
        "containers": [container(spec, options)],
        "volumes": [
            {"name": "settings", "configMap": {"name": names.gateway(), "defaultMode": 0o440}},
            {"name": "tls", "secret": {"secretName": names.gateway_tls_secret(), "defaultMode": 0o440}},
        ],
    });
    let mut metadata = pod_metadata(database, labels);
    metadata["annotations"][ANNOTATION_SETTINGS] = short_hash(&settings.into()).into();
    front::deployment(database, options, names.gateway(), (spec.instances, &selector(database)), (metadata, pod))
}

fn container(spec: &GatewaySpec, options: &Options) -> Value {
    let resources = match &spec.resources {
        Some(resources) => json!(resources),
        None => json!({"requests": {"cpu": "50m", "memory": "32Mi"}}),
    };
    json!({
        "name": CONTAINER,
        "image": options.gateway_image,
        "imagePullPolicy": options.image_pull_policy,
        "args": ["--config", format!("{SETTINGS_DIR}/{SETTINGS_KEY}")],
        "ports": [
            {"name": "https", "containerPort": GATEWAY_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
        ],
        "startupProbe": {
            "httpGet": {"path": "/healthz", "port": "metrics"}, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 60,
        },
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "metrics"}, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3,
        },
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "metrics"}, "periodSeconds": 2, "timeoutSeconds": 3, "failureThreshold": 3,
        },
        // Why it ended stands in status.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": resources,
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "settings", "mountPath": SETTINGS_DIR, "readOnly": true},
            {"name": "tls", "mountPath": TLS_DIR, "readOnly": true},
        ],
    })
}
