//! The agent's report: an annotation of its own pod, written when something changed, and when
//! somebody else changed it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use tokio::sync::watch;
use tokio::time::Instant;

use super::environment::Environment;
use super::pod::OwnPod;
use crate::api::names::ANNOTATION_REPORT;
use crate::backoff::Backoff;
use crate::contract::order::OrderId;
use crate::contract::report::{Report, Trouble, VaultHealth};
use crate::vault::VaultError;

/// Changes that come this close together are written at once.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// How long one write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two times that it is put back: somebody else may insist.
const PUT_BACK: Duration = Duration::from_secs(1);

/// What a trouble is about; the first in this order is the one that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// The volume: what it hinders is only its consequence.
    Volume,
    /// A PostgreSQL that stands still.
    Stall,
    /// Its memory: PostgreSQL ends of it.
    Memory,
    /// PostgreSQL and Patroni.
    Server,
    /// The first credentials, or the next.
    Credentials,
    /// Roles, database, extensions.
    Ensure,
    /// The parameters of a server that runs.
    Settings,
}

/// Where the parts of the agent say what changed; cheap to clone.
#[derive(Clone)]
pub struct Reporter {
    current: watch::Sender<Report>,
    troubles: Arc<Mutex<BTreeMap<Area, Trouble>>>,
}

impl Reporter {
    /// Starts writing this pod's report, with "starting" first.
    pub fn start(environment: &Environment, client: kube::Client, own: OwnPod) -> Self {
        let (current, changes) = watch::channel(Report::starting(environment.uid.clone(), Timestamp::now()));
        let pods = Api::namespaced(client, &environment.names.namespace);
        tokio::spawn(write_changes(pods, environment.pod.clone(), changes, own));
        Self { current, troubles: Arc::default() }
    }

    /// Changes the report; nothing is written if nothing differs after it.
    pub fn update(&self, change: impl FnOnce(&mut Report)) {
        self.current.send_if_modified(|report| {
            let before = report.clone();
            change(report);
            *report != before
        });
    }

    /// Whether the report has the answer to this order.
    pub fn has_answered(&self, order: &OrderId) -> bool {
        self.current.borrow().order.as_ref().is_some_and(|answered| answered.id == *order)
    }

    /// Says what hinders the instance in one area, or that nothing does there any more.
    pub fn trouble(&self, area: Area, reason_and_message: Option<(&str, String)>) {
        let first = {
            let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
            match reason_and_message {
                Some((reason, message)) => {
                    troubles.insert(area, Trouble { reason: reason.to_owned(), message });
                }
                None => {
                    troubles.remove(&area);
                }
            }
            troubles.values().next().cloned()
        };
        self.update(|report| report.trouble = first);
    }

    /// Takes back what only a leader says.
    pub fn forget_leading(&self) {
        for area in [Area::Credentials, Area::Ensure, Area::Settings] {
            self.trouble(area, None);
        }
        self.update(|report| report.vault = None);
    }

    /// Says how a dealing with Vault went.
    pub fn vault(&self, result: Result<(), &VaultError>) {
        self.update(|report| {
            report.vault = Some(match result {
                Ok(()) => VaultHealth { ok: true, reason: None, message: None },
                Err(error) => {
                    VaultHealth { ok: false, reason: Some(error.reason().to_owned()), message: Some(error.to_string()) }
                }
            });
        });
    }
}

async fn write_changes(pods: Api<Pod>, pod: String, mut changes: watch::Receiver<Report>, mut own: OwnPod) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    let mut written: Option<(Report, Written)> = None;
    let mut put_back: Option<Instant> = None;
    loop {
        let report = changes.borrow_and_update().clone();
        if written.as_ref().map(|(report, _)| report) != Some(&report) {
            match tokio::time::timeout(WRITE_TIMEOUT, write(&pods, &pod, &report)).await {
                Ok(Ok(now)) => {
                    written = Some((report, now));
                    backoff.reset();
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, pod, "the report cannot be written to the pod's annotation; trying again");
                    backoff.wait().await;
                    continue;
                }
                Err(_) => {
                    tracing::warn!(pod, "the API server did not answer to the report; trying again");
                    continue;
                }
            }
        }
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(DEBOUNCE).await;
            }
            Ok(()) = own.changed() => {
                let stands = own.borrow_and_update().as_ref().zip(written.as_ref()).is_none_or(|(pod, (_, written))| {
                    written.stands(pod)
                });
                if !stands {
                    tracing::warn!(pod, "somebody changed the report in the pod's annotation; it is put back");
                    written = None;
                    let soon = put_back.replace(Instant::now()).is_some_and(|last| last.elapsed() < PUT_BACK);
                    tokio::time::sleep(if soon { PUT_BACK } else { DEBOUNCE }).await;
                }
            }
        }
    }
}

/// What was written last.
#[derive(Debug, PartialEq)]
struct Written {
    text: String,
    version: Option<String>,
}

impl Written {
    /// Whether a pod has it, or was seen as it was before it was written.
    fn stands(&self, pod: &ObjectMeta) -> bool {
        let text = pod.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION_REPORT));
        let number = |version: &Option<String>| version.as_ref().and_then(|version| version.parse::<u64>().ok());
        text == Some(&self.text) || number(&pod.resource_version) < number(&self.version)
    }
}

async fn write(pods: &Api<Pod>, pod: &str, report: &Report) -> Result<Written, WriteError> {
    let text = serde_json::to_string(report)?;
    let patch = serde_json::json!({ "metadata": { "annotations": { ANNOTATION_REPORT: &text } } });
    let pod = pods.patch_metadata(pod, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(Written { text, version: pod.metadata.resource_version })
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Kubernetes(#[from] kube::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_somebody_changed_does_not_stand() {
        let written = Written { text: "{}".to_owned(), version: Some("100".to_owned()) };
        let pod = |text: Option<&str>, version: &str| ObjectMeta {
            annotations: text.map(|text| [(ANNOTATION_REPORT.to_owned(), text.to_owned())].into()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        assert!(written.stands(&pod(Some("{}"), "100")));
        assert!(written.stands(&pod(Some("before"), "99")), "seen late");
        assert!(!written.stands(&pod(None, "101")));
        assert!(!written.stands(&pod(Some("nonsense"), "1000")));
    }
}
