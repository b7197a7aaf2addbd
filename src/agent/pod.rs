//! This pod's labels and annotations, which other clients can change: a watch of one pod by its name.
//! The labels by which the Services, Patroni, the StatefulSet and the operator select it are restored.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::watch;

use super::environment::Environment;
use super::patroni::rest;
use crate::api::names::{LABEL_NAME, LABEL_ROLE, LABEL_SCOPE, ROLE_PRIMARY, ROLE_REPLICA};
use crate::backoff::Backoff;
use crate::contract::report::Role;

/// Interval between two restorations: another writer may repeat the change.
const BETWEEN: Duration = Duration::from_secs(1);
/// Timeout of a write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the role's label may differ from the role: Patroni writes it after each change.
const ROLE_LAGS: Duration = Duration::from_secs(1);

/// The last known metadata of the pod; none before the first, and none of another pod of this name.
pub type OwnPod = watch::Receiver<Option<ObjectMeta>>;

/// Watches the pod from now on, and restores its labels.
pub fn follow(environment: &Environment, client: kube::Client) -> OwnPod {
    let (sender, receiver) = watch::channel(None);
    let pods: Api<Pod> = Api::namespaced(client, &environment.names.namespace);
    let metadata = Api::namespaced(pods.clone().into_client(), &environment.names.namespace);
    tokio::spawn(watch_pod(metadata, environment.clone(), sender));
    tokio::spawn(keep_labels(pods, environment.clone(), receiver.clone()));
    receiver
}

async fn watch_pod(
    pods: Api<PartialObjectMeta<Pod>>,
    environment: Environment,
    sender: watch::Sender<Option<ObjectMeta>>,
) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let selected = watcher::Config::default().fields(&format!("metadata.name={}", environment.pod));
    let mut events = watcher(pods, selected).boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(pod) | Event::InitApply(pod)) => {
                backoff.reset();
                if pod.metadata.uid.as_deref() == Some(&environment.uid) {
                    sender.send_replace(Some(pod.metadata));
                }
            }
            Ok(Event::Delete(_) | Event::Init | Event::InitDone) => {}
            Err(error) => {
                tracing::debug!(%error, "the watch of this pod was interrupted; retrying");
                backoff.wait().await;
            }
        }
    }
}

async fn keep_labels(pods: Api<Pod>, environment: Environment, mut own: OwnPod) {
    let wanted = [(LABEL_SCOPE, environment.names.base()), (LABEL_NAME, environment.names.name.clone())];
    loop {
        let missing = own.borrow_and_update().as_ref().map(|pod| lacking(pod, &wanted)).unwrap_or_default();
        if !missing.is_empty() {
            let labels = missing.keys().cloned().collect::<Vec<_>>().join(", ");
            tracing::warn!(labels, "somebody changed labels of this pod; restoring them");
            let patch = Patch::Merge(serde_json::json!({"metadata": {"uid": environment.uid, "labels": missing}}));
            let parameters = PatchParams::default();
            let written = pods.patch_metadata(&environment.pod, &parameters, &patch);
            match tokio::time::timeout(WRITE_TIMEOUT, written).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the labels cannot be restored; retrying"),
                Err(_) => tracing::warn!("the write of the labels timed out; retrying"),
            }
            tokio::time::sleep(BETWEEN).await;
            continue;
        }
        if own.changed().await.is_err() {
            return;
        }
    }
}

fn lacking(pod: &ObjectMeta, wanted: &[(&str, String)]) -> serde_json::Map<String, serde_json::Value> {
    let label = |key: &str| pod.labels.as_ref().and_then(|labels| labels.get(key));
    let lacks = wanted.iter().filter(|(key, value)| label(key) != Some(value));
    lacks.map(|(key, value)| ((*key).to_owned(), value.clone().into())).collect()
}

/// Patroni writes the role's label, and compares it in each of its loops: it is woken when somebody
/// has changed the label.
pub async fn keep_role(mut own: OwnPod, mut role: watch::Receiver<Option<Role>>) {
    loop {
        let differs = own.borrow_and_update().as_ref().is_some_and(|pod| has_another_role(pod, *role.borrow()));
        role.mark_unchanged();
        if differs {
            tokio::time::sleep(ROLE_LAGS).await;
            let now = own.borrow_and_update().clone();
            if now.is_some_and(|pod| has_another_role(&pod, *role.borrow())) {
                tracing::warn!("the role's label differs from the role; waking Patroni");
                if let Err(error) = rest::wake().await {
                    tracing::debug!(%error, "Patroni cannot be woken");
                }
            }
            continue;
        }
        tokio::select! {
            changed = own.changed() => if changed.is_err() { return },
            changed = role.changed() => if changed.is_err() { return },
        }
    }
}

fn has_another_role(pod: &ObjectMeta, role: Option<Role>) -> bool {
    let wanted = match role {
        Some(Role::Primary) => ROLE_PRIMARY,
        Some(Role::Replica) => ROLE_REPLICA,
        None => return false,
    };
    pod.labels.as_ref().and_then(|labels| labels.get(LABEL_ROLE)).map(String::as_str) != Some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(labels: &[(&str, &str)]) -> ObjectMeta {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        ObjectMeta { labels: Some(labels.collect()), ..ObjectMeta::default() }
    }

    #[test]
    fn only_missing_or_changed_labels_are_restored() {
        let wanted = [(LABEL_SCOPE, "chat-db".to_owned()), (LABEL_NAME, "chat".to_owned())];
        let whole = pod(&[(LABEL_SCOPE, "chat-db"), (LABEL_NAME, "chat"), ("team", "a")]);
        assert!(lacking(&whole, &wanted).is_empty());
        let changed = lacking(&pod(&[(LABEL_SCOPE, "other")]), &wanted);
        assert_eq!(serde_json::Value::Object(changed), serde_json::json!({LABEL_SCOPE: "chat-db", LABEL_NAME: "chat"}));
        assert_eq!(lacking(&ObjectMeta::default(), &wanted).len(), 2);
    }

    #[test]
    fn a_label_is_compared_only_while_there_is_a_role() {
        let primary = pod(&[(LABEL_ROLE, ROLE_PRIMARY)]);
        assert!(!has_another_role(&primary, Some(Role::Primary)));
        assert!(has_another_role(&primary, Some(Role::Replica)));
        assert!(has_another_role(&pod(&[]), Some(Role::Primary)));
        assert!(!has_another_role(&pod(&[]), None), "between two roles");
    }
}
