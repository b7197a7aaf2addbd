//! From a checked [`Database`] to objects: pure, one file per object or family. The order
//! of the list is the order of what stands on what; the workload comes last.

mod access;
pub mod config;
pub mod drift;
mod job;
pub mod migration;
mod network;
pub mod tool;
mod workload;

pub use workload::{RETAIN, Shape};

use serde_json::Value;

use super::credentials::Settled;
use super::validate::Database;
use crate::operator::apply::object::{Annotations, Planned};
use crate::operator::context::options::Options;
use crate::operator::credentials::role_ids::RoleIds;
use crate::operator::instances::situation::Decision;

/// What the plan needs beside the resource, all of it observed or made before.
pub struct Inputs<'a> {
    /// The operator's settings.
    pub options: &'a Options,
    /// Vault's authority, PEM, if it is not one of the system's.
    pub vault_ca: Option<&'a str>,
    /// The role_ids that Vault gave.
    pub role_ids: RoleIds,
    /// The credentials that the runtime record shall hold.
    pub credentials: &'a Settled,
    /// The certificate authorities that clients shall know, PEM; none if they were never read.
    pub authorities: Option<String>,
    /// What is done to the instances now.
    pub decision: &'a Decision,
    /// The template of the pods.
    pub template: &'a Value,
    /// What Patroni's ConfigMaps hold if they are made now.
    pub patroni: &'a [Annotations; 4],
    /// Whether the resource has volumes already.
    pub has_volumes: bool,
    /// PostgreSQL's system identifier, once the database was initialised.
    pub system_identifier: Option<&'a str>,
    /// The size of the smallest of the volumes, in bytes.
    pub volume_bytes: Option<u64>,
}

/// Everything that does not run: applied first, in any order.
pub fn supporting(database: &Database, inputs: &Inputs<'_>) -> Vec<Planned> {
    let mut objects = vec![
        access::service_account(database, &database.names().base()),
        access::service_account(database, &database.names().migrator()),
        access::role(database),
        config::approle(database, inputs, &database.names().instance_approle(), &inputs.role_ids.instance),
        config::approle(database, inputs, &database.names().migrator(), &inputs.role_ids.migrator),
        config::desired(database, inputs),
        network::primary_service(database),
        network::replicas_service(database),
        network::peers_service(database),
        network::policy(database, inputs.options),
    ];
    objects.extend(config::patroni(database, inputs));
    objects.extend(budgets(database, inputs.decision, true));
    objects
}

/// What must be gone when it is not planned.
pub fn unwanted(database: &Database, decision: &Decision) -> Vec<Planned> {
    budgets(database, decision, false)
}

/// The PodDisruptionBudgets that shall be there, or that shall not.
fn budgets(database: &Database, decision: &Decision, wanted: bool) -> Vec<Planned> {
    let replicas = network::replicas_budget(database);
    let each = if decision.keep_pods {
        // No pod may be in two budgets.
        [(network::closed_budget(database), true), (replicas, false)]
    } else {
        [(network::primary_budget(database), database.instances > 1), (replicas, database.instances > 2)]
    };
    each.into_iter().filter(|(_, is_wanted)| *is_wanted == wanted).map(|(planned, _)| planned).collect()
}

/// The RoleBinding, which the API server takes only once its Role is there.
pub fn binding(database: &Database) -> Planned {
    access::role_binding(database)
}

/// The template of the database pods, as this version makes it.
pub fn template(database: &Database, options: &Options) -> Value {
    workload::template(database, options)
}

/// The StatefulSet, applied last.
pub fn workload(database: &Database, shape: &Shape<'_>) -> Planned {
    workload::stateful_set(database, shape)
}
