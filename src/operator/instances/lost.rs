//! Whether the data is lost: the database was initialised, and no volume holds it. The
//! StatefulSet's controller makes new, empty claims at once, so the agents have to tell.

use crate::api::conditions::reason;
use crate::api::names::Names;
use crate::operator::instances::patroni_state::NOBODY;
use crate::operator::observe::Observation;
use crate::operator::observe::pods::DatabasePod;
use crate::operator::status::condition::ConditionState;

/// The way out, for a volume with a copy of the data and for none.
const WAY_OUT: &str = "to restore a volume, set spec.paused, scale the StatefulSet to 0, put the restored claim in the \
                       place of the empty one (docs/operations.md: lost data), and take spec.paused back; to start \
                       empty, delete this resource and its volume claims and create it again";

/// What is lost, and what to do; none if the data is there, or may be.
pub fn lost(observed: &Observation, names: &Names, instances: i32) -> Option<ConditionState> {
    if !observed.initialized() || observed.foreign_config || observed.primary().is_some() || observed.lease_lives {
        return None;
    }
    if observed.volume_claims.is_empty() && observed.pods.is_empty() {
        let message = format!("the database was initialised, and none of its volumes is left: {WAY_OUT}");
        return Some(ConditionState::yes(reason::DATA_LOST, message));
    }
    if let Some(word) = lost_by_all_holders(observed, names) {
        return Some(word);
    }
    let members: Vec<_> = (0..instances).map(|ordinal| find(observed, &names.pod(ordinal))).collect::<Option<_>>()?;
    members.iter().all(|pod| is_empty(pod)).then(|| {
        let pods: Vec<_> = members.iter().map(|pod| pod.name.as_str()).collect();
        let message = format!(
            "the database was initialised, and the volumes of {} are empty: their claims were deleted, or the storage \
             behind them; no instance fills them by itself. {}{WAY_OUT}",
            pods.join(", "),
            others(observed, names, instances),
        );
        ConditionState::yes(reason::DATA_LOST, message)
    })
}

/// Why no instance leads although each may have its data: which one has all of it is not known, and a
/// person may know. None if somebody leads, or will.
pub fn nobody_knows(observed: &Observation, names: &Names) -> Option<ConditionState> {
    let leads = observed.primary().is_some() || observed.lease_lives;
    if leads || !observed.holders.iter().any(|holder| holder == NOBODY) {
        return None;
    }
    let [.., record] = names.patroni_config_maps();
    let message = format!(
        "Patroni's record {record} was deleted while no instance and no operator ran: nobody knows which instance has \
         every acknowledged row, so none leads. Say which was the primary last: kubectl annotate configmap {record} \
         --namespace {} leader=POD --overwrite, with POD such as {}",
        names.namespace,
        names.pod(0),
    );
    Some(ConditionState::yes(reason::NO_PRIMARY, message))
}

/// Others have a copy, and Patroni promotes none of them, since it may lack acknowledged rows.
fn lost_by_all_holders(observed: &Observation, names: &Names) -> Option<ConditionState> {
    let holders: Vec<_> = observed.holders.iter().map(|name| find(observed, name)).collect::<Option<_>>()?;
    let older: Vec<_> = observed.pods.iter().filter(|pod| pod.report.is_some() && !is_empty(pod)).collect();
    let older = older.first()?;
    let lost = !holders.is_empty() && holders.iter().all(|pod| is_empty(pod));
    lost.then(|| {
        let message = format!(
            "only {} had every acknowledged row, and the volume is empty; {} has a copy that may lack the last of them: \
             to go on with that, kubectl exec {pod} -- patronictl -c /run/servicedb/patroni.yml failover {scope} \
             --candidate {pod} --force; {WAY_OUT}",
            observed.holders.join(" and "),
            older.name,
            pod = older.name,
            scope = names.base(),
        );
        ConditionState::yes(reason::DATA_LOST, message)
    })
}

fn find<'a>(observed: &'a Observation, name: &str) -> Option<&'a DatabasePod> {
    observed.pods.iter().find(|pod| pod.name == name)
}

/// Whether the agent that runs now found no database on its volume, and none came since.
fn is_empty(pod: &DatabasePod) -> bool {
    !pod.going && pod.report.as_ref().is_some_and(|report| report.empty_volume && report.role.is_none())
}

/// Volumes of instances that were taken away: they may have an older copy.
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
