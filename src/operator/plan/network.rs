//! Services, the NetworkPolicy, the PodDisruptionBudget.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use super::ingress::{from_monitoring, pods_of, tcp};
use super::{backup, gateway, pooler};
use crate::api::names::{LABEL_NAME, LABEL_ROLE, LABEL_SCOPE, ROLE_PRIMARY, ROLE_REPLICA};
use crate::contract::pod::{AGENT_PORT, BACKUP_PORT, METRICS_TLS_PORT, PATRONI_PORT, POSTGRES_PORT};
use crate::operator::apply::object::Planned;
use crate::operator::context::options::Options;
use crate::operator::validate::Database;

/// The primary, selected by the role label only, not by readiness: while a kubelet is stopped,
/// Patroni continues to lead, and the Service must continue to work.
pub fn primary_service(database: &Database) -> Planned {
    let selector = json!({LABEL_SCOPE: database.names().base(), LABEL_ROLE: ROLE_PRIMARY});
    Planned::new::<Service>(
        &database.owner,
        database.names().base(),
        json!({"spec": {"type": "ClusterIP", "publishNotReadyAddresses": true, "selector": selector, "ports": [postgres_port()]}}),
    )
}

/// The ready replicas.
pub fn replicas_service(database: &Database) -> Planned {
    let selector = json!({LABEL_SCOPE: database.names().base(), LABEL_ROLE: ROLE_REPLICA});
    Planned::new::<Service>(
        &database.owner,
        database.names().replicas_service(),
        json!({"spec": {"type": "ClusterIP", "selector": selector, "ports": [postgres_port()]}}),
    )
}

/// The pods' names.
pub fn peers_service(database: &Database) -> Planned {
    let selector = json!({LABEL_SCOPE: database.names().base()});
    Planned::new::<Service>(
        &database.owner,
        database.names().peers_service(),
        json!({"spec": {"clusterIP": "None", "publishNotReadyAddresses": true, "selector": selector, "ports": [postgres_port()]}}),
    )
}

/// Ingress from the declared clients, Vault if it makes their logins, the members, the migration Job, monitoring, and,
/// while one runs, the backup Job. Egress is not restricted: that would cut Patroni off from the API server.
pub fn policy(database: &Database, options: &Options, backup_runs: bool) -> Planned {
    let names = database.names();
    let members = json!({"podSelector": {"matchLabels": {LABEL_SCOPE: names.base()}}});
    let migrator =
        json!({"podSelector": {"matchLabels": {LABEL_NAME: names.name, "app.kubernetes.io/component": "migration"}}});
    // Where there is a pooler, a client may be limited to it.
    let direct = database.clients.iter().filter(|client| client.direct || database.pooler.is_none());
    let mut postgres = vec![members.clone(), migrator];
    let fronts = [(database.pooler.is_some(), pooler::COMPONENT), (database.gateway.is_some(), gateway::COMPONENT)];
    for (_, component) in fronts.into_iter().filter(|(declared, _)| *declared) {
        let pods = json!({"matchLabels": {LABEL_NAME: names.name, "app.kubernetes.io/component": component}});
        postgres.push(json!({"podSelector": pods}));
    }
    postgres.extend(direct.filter_map(pods_of));
    if database.has_short_lived() {
        postgres.extend(options.vault_database_clients.0.iter().map(|vault| json!(vault)));
    }
    let mut rules = vec![
        json!({"from": postgres, "ports": [tcp(POSTGRES_PORT)]}),
        json!({"from": [members], "ports": [tcp(PATRONI_PORT)]}),
    ];
    if backup_runs {
        let job = json!({"matchLabels": {LABEL_NAME: names.name, "app.kubernetes.io/component": backup::COMPONENT}});
        rules.push(json!({"from": [{"podSelector": job}], "ports": [tcp(BACKUP_PORT)]}));
    }
    // Instances that were not replaced since TLS was chosen still have their metrics at the plain port.
    rules.extend(from_monitoring(options, AGENT_PORT));
    if options.metrics_tls {
        rules.extend(from_monitoring(options, METRICS_TLS_PORT));
    }
    Planned::new::<NetworkPolicy>(
        &database.owner,
        names.base(),
        json!({"spec": {
            "podSelector": {"matchLabels": {LABEL_SCOPE: names.base()}},
            "policyTypes": ["Ingress"],
            "ingress": rules,
        }}),
    )
}

/// Blocks the eviction of the primary until the lead has been handed over, which the operator does
/// when the node is cordoned. It selects by role, so that it allows the eviction afterwards.
pub fn primary_budget(database: &Database) -> Planned {
    budget(database, database.names().primary_budget(), ROLE_PRIMARY, 1)
}

/// Allows the eviction of one replica at a time. `minAvailable`, since `maxUnavailable` would count
/// the primary too, which the selector excludes: no pod may be in two budgets.
pub fn replicas_budget(database: &Database) -> Planned {
    budget(database, database.names().base(), ROLE_REPLICA, database.instances - 2)
}

/// Blocks the eviction of every instance, ready or not: one of the pods has the only copy of the
/// data.
pub fn closed_budget(database: &Database) -> Planned {
    Planned::new::<PodDisruptionBudget>(
        &database.owner,
        database.names().primary_budget(),
        json!({"spec": {
            "maxUnavailable": 0,
            "selector": {"matchLabels": {LABEL_SCOPE: database.names().base()}},
            "unhealthyPodEvictionPolicy": "IfHealthyBudget",
        }}),
    )
}

fn budget(database: &Database, name: String, role: &str, available: i32) -> Planned {
    Planned::new::<PodDisruptionBudget>(
        &database.owner,
        name,
        json!({"spec": {
            "minAvailable": available,
            "selector": {"matchLabels": {LABEL_SCOPE: database.names().base(), LABEL_ROLE: role}},
            // A pod that does not serve does not block a drain.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        }}),
    )
}

fn postgres_port() -> Value {
    json!({"name": "postgres", "port": POSTGRES_PORT, "targetPort": "postgres", "protocol": "TCP"})
}
