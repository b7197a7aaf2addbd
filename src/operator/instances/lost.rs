//! Detects loss of data: the database was initialised, and no volume has its data. The
//! StatefulSet's controller creates new, empty claims at once, so only the agents can report it.

use crate::api::conditions::reason;
use crate::api::names::Names;
use crate::operator::instances::patroni_state::NOBODY;
use crate::operator::observe::Observation;
use crate::operator::observe::pods::DatabasePod;
use crate::operator::status::condition::ConditionState;

/// The remedies, with and without a copy of the volume.
const REMEDY: &str = "to restore a volume, set spec.paused to true, scale the StatefulSet to 0, replace the empty \
                      claim with the restored one (docs/operations.md: lost data), and set spec.paused to false; to \
                      start empty, delete this resource and its volume claims and create it again";

/// The loss and its remedy; none if the data exists or may exist.
pub fn lost(observed: &Observation, names: &Names, instances: i32) -> Option<ConditionState> {
    if !observed.initialized() || observed.foreign_config || observed.primary().is_some() || observed.lease_lives {
        return None;
    }
    if observed.volume_claims.is_empty() && observed.pods.is_empty() {
        let message = format!("the database was initialised, and none of its volumes exists: {REMEDY}");
        return Some(ConditionState::yes(reason::DATA_LOST, message));
    }
    if let Some(state) = lost_by_all_holders(observed, names) {
        return Some(state);
    }
    let members: Vec<_> = (0..instances).map(|ordinal| find(observed, &names.pod(ordinal))).collect::<Option<_>>()?;
    members.iter().all(|pod| is_empty(pod)).then(|| {
        let pods: Vec<_> = members.iter().map(|pod| pod.name.as_str()).collect();
        let message = format!(
            "the database was initialised, and the volumes of {} are empty: their claims or the storage were deleted; \
             no instance initialises them automatically. {}{REMEDY}",
            pods.join(", "),
            others(observed, names, instances),
        );
        ConditionState::yes(reason::DATA_LOST, message)
    })
}

/// Why no instance is the primary although each may have its data: only a person may know which one
/// has all of it. None if there is or will be a primary.
pub fn leader_unknown(observed: &Observation, names: &Names) -> Option<ConditionState> {
    let leads = observed.primary().is_some() || observed.lease_lives;
    if leads || !observed.holders.iter().any(|holder| holder == NOBODY) {
        return None;
    }
    let [.., record] = names.patroni_config_maps();
    let message = format!(
        "Patroni's record {record} was deleted while no instance and no operator ran: it is unknown which instance has \
         every acknowledged commit, so none is promoted. Name the last primary: kubectl annotate configmap {record} \
         --namespace {} leader=POD --overwrite, with POD such as {}",
        names.namespace,
        names.pod(0),
    );
    Some(ConditionState::yes(reason::NO_PRIMARY, message))
}

/// Other instances have a copy, and Patroni promotes none of them, since they may lack acknowledged
/// commits.
fn lost_by_all_holders(observed: &Observation, names: &Names) -> Option<ConditionState> {
    let holders: Vec<_> = observed.holders.iter().map(|name| find(observed, name)).collect::<Option<_>>()?;
    let older: Vec<_> = observed.pods.iter().filter(|pod| pod.report.is_some() && !is_empty(pod)).collect();
    let older = older.first()?;
    let lost = !holders.is_empty() && holders.iter().all(|pod| is_empty(pod));
    lost.then(|| {
        let message = format!(
            "only {} had every acknowledged commit, and the volume is empty; {} has a copy that may lack the last \
             ones: to continue with it, kubectl exec {pod} -n {namespace} -c database -- patronictl -c \
             /run/servicedb/patroni.yml failover {scope} --candidate {pod} --force; {REMEDY}",
            observed.holders.join(" and "),
            older.name,
            pod = older.name,
            namespace = names.namespace,
            scope = names.base(),
        );
        ConditionState::yes(reason::DATA_LOST, message)
    })
}

fn find<'a>(observed: &'a Observation, name: &str) -> Option<&'a DatabasePod> {
    observed.pods.iter().find(|pod| pod.name == name)
}

/// Whether the running agent found no database on its volume, and none was created since.
fn is_empty(pod: &DatabasePod) -> bool {
    !pod.terminating && pod.report.as_ref().is_some_and(|report| report.empty_volume && report.role.is_none())
}

/// Volumes of removed instances: they may have an older copy.
fn others(observed: &Observation, names: &Names, instances: i32) -> String {
    let is_other = |name: &String| {
        let ordinal = name.strip_prefix("data-").and_then(|pod| names.ordinal(pod));
        ordinal.is_some_and(|ordinal| ordinal >= instances)
    };
    let claims = observed.volume_claims.iter().filter_map(|claim| claim.metadata.name.clone()).filter(is_other);
    let claims: Vec<_> = claims.collect();
    match claims.is_empty() {
        true => String::new(),
        false => format!("{} may have an older copy; ", claims.join(", ")),
    }
}
