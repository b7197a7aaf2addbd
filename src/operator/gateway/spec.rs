//! Checks `spec.gateway`.

use crate::api::gateway::{MAXIMUM_CONNECTIONS, MAXIMUM_GATEWAYS};
use crate::api::{GatewaySpec, ServiceDatabaseSpec};
use crate::operator::context::options::Options;
use crate::operator::pooler::spec as pooler;

/// Connections of a pod beside those for its callers: for the schema and the ledger.
const OWN_CONNECTIONS: i64 = 2;

/// The gateway. The connections of all its pods, one of them being replaced, must fit into `max_connections` beside those
/// of the pooler and of the instance itself. A pod opens as many to the replicas as to the primary, at most: each instance has
/// one of both kinds, but for the seconds in which a promoted replica still has unused ones of the other.
///
/// # Errors
/// The field, the problem, and the remedy.
pub fn check(spec: &ServiceDatabaseSpec, options: &Options) -> Result<Option<GatewaySpec>, String> {
    let Some(gateway) = &spec.gateway else { return Ok(None) };
    if options.gateway_image.is_none() {
        return Err("spec.gateway: this installation has no image of the data gateway; the platform sets \
                    gateway.image in the chart's values"
            .to_owned());
    }
    if !(1..=MAXIMUM_GATEWAYS).contains(&gateway.instances) {
        return Err(format!("spec.gateway.instances must be from 1 to {MAXIMUM_GATEWAYS}"));
    }
    if !(1..=MAXIMUM_CONNECTIONS).contains(&gateway.connections) {
        return Err(format!("spec.gateway.connections must be from 1 to {MAXIMUM_CONNECTIONS}"));
    }
    if spec.clients.is_empty() {
        return Err("spec.gateway: nobody could call it, since spec.clients is empty: add the ServiceAccounts that \
                    may"
        .to_owned());
    }
    let (maximum, others) = (pooler::max_connections(spec), pooler::connections(spec) + pooler::OTHER_CONNECTIONS);
    let (pods, room) = (i64::from(gateway.instances) + 1, maximum - others);
    let wanted = pods * (i64::from(gateway.connections) + OWN_CONNECTIONS);
    if wanted > room {
        return Err(format!(
            "spec.gateway.connections is {each}, and the pods could open {wanted} connections together: {pods} pods \
             (one more while they are replaced) of {each} and {OWN_CONNECTIONS} of their own. max_connections is \
             {maximum}, of which {others} are for Servicedb, replicas, migrations and the pooler: set connections to \
             at most {fits}, or max_connections to at least {needed}",
            each = gateway.connections,
            fits = (room / pods - OWN_CONNECTIONS).max(0),
            needed = wanted + others,
        ));
    }
    Ok(Some(gateway.clone()))
}
