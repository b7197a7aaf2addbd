//! From a checked [`Database`] to objects: pure, one file per object or family. The list is in the
//! order of dependencies; the workload is last.

mod access;
pub mod backup;
pub mod config;
pub mod drift;
mod front;
pub mod gateway;
mod ingress;
mod inputs;
pub mod job;
pub mod migration;
mod network;
pub mod pooler;
pub mod tool;
mod workload;

pub use inputs::Inputs;
pub use workload::{RETAIN, WorkloadInputs};

use serde_json::Value;

use super::validate::Database;
use crate::operator::apply::object::Planned;
use crate::operator::context::options::Options;
use crate::operator::instances::situation::Decision;

/// All objects except the workload, including those that must be absent: applied first, in any
/// order.
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
        network::policy(database, inputs.options, inputs.backup.as_ref().is_some_and(|run| run.runs)),
    ];
    objects.extend(config::patroni(database, inputs));
    objects.extend(budgets(database, inputs.decision));
    objects
}

/// The PodDisruptionBudgets: no pod may be in two.
fn budgets(database: &Database, decision: &Decision) -> [Planned; 2] {
    let replicas = network::replicas_budget(database);
    if decision.keep_pods {
        [network::closed_budget(database), replicas.only_if(false)]
    } else {
        let primary = network::primary_budget(database).only_if(database.instances > 1);
        [primary, replicas.only_if(database.instances > 2)]
    }
}

/// The RoleBinding, which the API server accepts only if its Role exists.
pub fn binding(database: &Database) -> Planned {
    access::role_binding(database)
}

/// The template of the database pods of this version.
pub fn template(database: &Database, options: &Options) -> Value {
    workload::template(database, options)
}

/// The StatefulSet, applied last.
pub fn workload(database: &Database, inputs: &WorkloadInputs<'_>) -> Planned {
    workload::stateful_set(database, inputs)
}
