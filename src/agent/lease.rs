//! Patroni's lease, without Patroni: its release, where Patroni would start PostgreSQL again, or hangs on the same
//! disk; and whether another member may take it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::environment::Environment;
use crate::api::names::LABEL_SCOPE;

/// Timeout of a request.
const PATIENCE: Duration = Duration::from_secs(2);
/// The number of attempts: Patroni's last renewal may still be in flight.
const ATTEMPTS: usize = 5;

/// The reason for which the lease was not released.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The API server's error.
    #[error(transparent)]
    Kubernetes(#[from] kube::Error),
    /// No answer.
    #[error("the API server does not answer")]
    Silent,
    /// Another pod of this name may hold it.
    #[error("another pod has this pod's name")]
    Another,
    /// Each attempt was in conflict with another write.
    #[error("the record of the lease changes with each attempt")]
    Busy,
}

/// Whether this pod holds the lease, and Patroni would let another member lead: one that is recorded to have
/// every commit, or, without synchronous replication, any that streams. False where that cannot be read.
pub async fn has_successor(client: &Client, environment: &Environment, synchronous: bool, streams: bool) -> bool {
    let records: Api<ConfigMap> = Api::namespaced(client.clone(), &environment.names.namespace);
    let [_, leader, _, sync] = environment.names.patroni_config_maps();
    let (leader, sync) = tokio::join!(get(&records, &leader), get(&records, &sync));
    let leads = leader.is_ok_and(|record| holds(&record, &environment.pod));
    leads && if synchronous { sync.is_ok_and(|record| names_another(&record, &environment.pod)) } else { streams }
}

/// Releases the lease. PostgreSQL must no longer be able to acknowledge a commit.
///
/// # Errors
/// If it is not released.
pub async fn release(client: &Client, environment: &Environment) -> Result<(), LeaseError> {
    let namespace = &environment.names.namespace;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = within(pods.get_metadata(&environment.pod)).await?;
    if pod.metadata.uid.as_deref() != Some(&environment.uid) {
        return Err(LeaseError::Another);
    }
    let records: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let [_, name, ..] = environment.names.patroni_config_maps();
    for _ in 0..ATTEMPTS {
        let record = get(&records, &name).await?;
        if !holds(&record, &environment.pod) {
            return Ok(());
        }
        let metadata = json!({"resourceVersion": record.resource_version(), "annotations": {"leader": null}});
        let patch = Patch::Merge(json!({"metadata": metadata}));
        match within(records.patch(&name, &PatchParams::default(), &patch)).await {
            Err(LeaseError::Kubernetes(kube::Error::Api(status))) if status.is_conflict() => {}
            result => return result.map(drop),
        }
    }
    Err(LeaseError::Busy)
}

/// Whether no other member may take the lease: in an election a member takes it only if the leader has recorded it as
/// a member of failsafe mode (Patroni's `is_healthiest_node`). A promotion by hand does not ask that, nor does a
/// Patroni whose failsafe mode was ended by hand, so this must be the database's only pod, too.
///
/// # Errors
/// If the API server does not answer.
pub async fn is_alone(client: &Client, environment: &Environment) -> Result<bool, LeaseError> {
    let namespace = &environment.names.namespace;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let records: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let [_, name, ..] = environment.names.patroni_config_maps();
    let members = ListParams::default().labels(&format!("{LABEL_SCOPE}={}", environment.names.base()));
    let (members, record) = tokio::join!(within(pods.list_metadata(&members)), get(&records, &name));
    let uids: Vec<_> = members?.items.into_iter().map(|pod| pod.metadata.uid).collect();
    Ok(are_one(&uids, &environment.uid) && names_alone(&record?, &environment.pod))
}

/// Whether these uids are this one alone. A pod that has replaced this one has another.
fn are_one(uids: &[Option<String>], uid: &str) -> bool {
    matches!(uids, [Some(only)] if only == uid)
}

/// Whether the leader's record names this member alone. Without a leader it is this one's to take.
fn names_alone(record: &ConfigMap, pod: &str) -> bool {
    let annotations = record.annotations();
    let leads = annotations.get("leader").is_none_or(|leader| leader == pod);
    let members = annotations.get("failsafe").and_then(|members| {
        // Each member with the URL of its API.
        serde_json::from_str::<BTreeMap<String, String>>(members).ok()
    });
    leads && members.is_some_and(|members| members.keys().eq([pod]))
}

fn holds(record: &ConfigMap, pod: &str) -> bool {
    record.annotations().get("leader").is_some_and(|leader| leader == pod)
}

/// Whether the record of synchronous standbys was written by this leader and names another member. It has the
/// members that have every commit, separated by commas.
fn names_another(record: &ConfigMap, pod: &str) -> bool {
    let annotations = record.annotations();
    let standbys = annotations.get("sync_standby").map_or("", String::as_str);
    let is_another = |name: &str| !name.is_empty() && name != pod;
    annotations.get("leader").is_some_and(|leader| leader == pod) && standbys.split(',').map(str::trim).any(is_another)
}

async fn get(records: &Api<ConfigMap>, name: &str) -> Result<ConfigMap, LeaseError> {
    within(records.get(name)).await
}

async fn within<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, LeaseError> {
    Ok(tokio::time::timeout(PATIENCE, request).await.map_err(|_| LeaseError::Silent)??)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(annotations: &[(&str, &str)]) -> ConfigMap {
        let mut record = ConfigMap::default();
        let pairs = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        record.annotations_mut().extend(pairs);
        record
    }

    #[test]
    fn only_the_record_that_this_leader_wrote_names_a_successor() {
        let pod = "chat-db-0";
        assert!(names_another(&record(&[("leader", pod), ("sync_standby", "chat-db-1")]), pod));
        assert!(names_another(&record(&[("leader", pod), ("sync_standby", "chat-db-0,chat-db-2")]), pod));
        assert!(!names_another(&record(&[("leader", "chat-db-2"), ("sync_standby", "chat-db-1")]), pod));
        assert!(!names_another(&record(&[("leader", pod), ("sync_standby", "")]), pod));
        assert!(!names_another(&record(&[("leader", pod)]), pod));
        assert!(holds(&record(&[("leader", pod)]), pod) && !holds(&record(&[]), pod));
    }

    #[test]
    fn a_member_is_alone_only_where_the_record_names_no_other() {
        let pod = "chat-db-0";
        let one = r#"{"chat-db-0":"https://10.0.0.7:8008/patroni"}"#;
        let two = r#"{"chat-db-0":"https://10.0.0.7:8008/patroni","chat-db-1":"https://10.0.0.8:8008/patroni"}"#;
        let other = r#"{"chat-db-1":"https://10.0.0.8:8008/patroni"}"#;
        assert!(names_alone(&record(&[("leader", pod), ("failsafe", one)]), pod));
        assert!(names_alone(&record(&[("failsafe", one)]), pod));
        assert!(!names_alone(&record(&[("leader", "chat-db-1"), ("failsafe", one)]), pod));
        assert!(!names_alone(&record(&[("leader", pod), ("failsafe", two)]), pod));
        assert!(!names_alone(&record(&[("leader", pod), ("failsafe", other)]), pod));
        assert!(!names_alone(&record(&[("leader", pod), ("failsafe", "{}")]), pod));
        assert!(!names_alone(&record(&[("leader", pod), ("failsafe", "null")]), pod));
        assert!(!names_alone(&record(&[("leader", pod)]), pod), "it has not renewed the lease yet");
    }

    #[test]
    fn another_pod_of_the_database_may_lead_whatever_the_record_says() {
        let uids = |uids: &[&str]| uids.iter().map(|uid| Some((*uid).to_owned())).collect::<Vec<_>>();
        assert!(are_one(&uids(&["this"]), "this"));
        assert!(!are_one(&uids(&["this", "other"]), "this"));
        assert!(!are_one(&uids(&["other"]), "this"), "it was replaced");
        assert!(!are_one(&[], "this") && !are_one(&[None], "this"));
    }
}
