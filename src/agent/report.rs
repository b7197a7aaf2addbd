//! The agent's report: an annotation of its own pod, written when the report changes, and when another writer
//! changes the annotation.

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
use crate::contract::in_place::InPlaceState;
use crate::contract::order::OrderId;
use crate::contract::report::{Report, Role, Trouble, VaultHealth};
use crate::contract::upgrade::UpgradeState;
use crate::postgres::servers;
use crate::vault::VaultError;

/// Changes within this time are written together.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Timeout of a write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval between two restorations: another writer may repeat the change.
const RESTORE_INTERVAL: Duration = Duration::from_secs(1);

/// The area of a trouble; the first in this order is the one that is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// The volume: other troubles are consequences of it.
    Volume,
    /// A PostgreSQL that stands still.
    Stall,
    /// Writes that are refused, lest WAL fills the volume.
    Writes,
    /// Memory: PostgreSQL ends when it runs out.
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

/// Takes the changes of all parts of the agent; cheap to clone.
#[derive(Clone)]
pub struct Reporter {
    current: watch::Sender<Report>,
    troubles: Arc<Mutex<BTreeMap<Area, Trouble>>>,
}

impl Reporter {
    /// Starts to write this pod's report, in the phase of the start.
    pub fn start(environment: &Environment, client: kube::Client, own: OwnPod) -> Self {
        let starting =
            Report { majors: servers::majors(), ..Report::starting(environment.uid.clone(), Timestamp::now()) };
        let (current, changes) = watch::channel(starting);
        let pods = Api::namespaced(client, &environment.names.namespace);
        tokio::spawn(write_changes(pods, environment.pod.clone(), changes, own));
        Self { current, troubles: Arc::default() }
    }

    /// Follows the report.
    pub fn follow(&self) -> watch::Receiver<Report> {
        self.current.subscribe()
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

    /// The reported state of this restore in place.
    pub fn in_place(&self, id: &str) -> Option<InPlaceState> {
        self.current
            .borrow()
            .in_place
            .as_ref()
            .filter(|reported| reported.id == id)
            .map(|reported| reported.state.clone())
    }

    /// The reported state of this major upgrade.
    pub fn upgrade(&self, id: &str) -> Option<UpgradeState> {
        self.current
            .borrow()
            .upgrade
            .as_ref()
            .filter(|reported| reported.id == id)
            .map(|reported| reported.state.clone())
    }

    /// Whether this process has exchanged the data directory for an upgraded one, or found it exchanged.
    pub fn has_upgraded(&self) -> bool {
        let current = self.current.borrow();
        let state = current.upgrade.as_ref().map(|reported| &reported.state);
        matches!(state, Some(UpgradeState::Switched(lineage)) if lineage.kept_by.is_some())
    }

    /// Resolves once this instance is reported as the primary.
    pub async fn leads(&self) {
        let mut current = self.current.subscribe();
        // The sender is this value's own.
        let _ = current.wait_for(|report| report.role == Some(Role::Primary)).await;
    }

    /// Sets or clears the trouble of one area.
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

    /// Clears the parts that only a leader reports.
    pub fn forget_leading(&self) {
        for area in [Area::Writes, Area::Credentials, Area::Ensure, Area::Settings] {
            self.trouble(area, None);
        }
        self.update(|report| (report.vault, report.maintenance) = (None, None));
    }

    /// Reports the result of an access to Vault.
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
    let mut restored: Option<Instant> = None;
    loop {
        let report = changes.borrow_and_update().clone();
        if written.as_ref().map(|(report, _)| report) != Some(&report) {
            match tokio::time::timeout(WRITE_TIMEOUT, write(&pods, &pod, &report)).await {
                Ok(Ok(now)) => {
                    written = Some((report, now));
                    backoff.reset();
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, pod, "the report cannot be written to the pod's annotation; retrying");
                    backoff.wait().await;
                    continue;
                }
                Err(_) => {
                    tracing::warn!(pod, "the write of the report timed out; retrying");
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
                let holds = own.borrow_and_update().as_ref().zip(written.as_ref()).is_none_or(|(pod, (_, written))| {
                    written.holds(pod)
                });
                if !holds {
                    tracing::warn!(pod, "somebody changed the report in the pod's annotation; restoring it");
                    written = None;
                    let soon = restored.replace(Instant::now()).is_some_and(|last| last.elapsed() < RESTORE_INTERVAL);
                    tokio::time::sleep(if soon { RESTORE_INTERVAL } else { DEBOUNCE }).await;
                }
            }
        }
    }
}

/// The last write.
#[derive(Debug, PartialEq)]
struct Written {
    text: String,
    version: Option<String>,
}

impl Written {
    /// Whether this metadata of the pod has it, or is older than the write.
    fn holds(&self, pod: &ObjectMeta) -> bool {
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
    fn a_changed_annotation_is_detected() {
        let written = Written { text: "{}".to_owned(), version: Some("100".to_owned()) };
        let pod = |text: Option<&str>, version: &str| ObjectMeta {
            annotations: text.map(|text| [(ANNOTATION_REPORT.to_owned(), text.to_owned())].into()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        assert!(written.holds(&pod(Some("{}"), "100")));
        assert!(written.holds(&pod(Some("before"), "99")), "an older version");
        assert!(!written.holds(&pod(None, "101")));
        assert!(!written.holds(&pod(Some("nonsense"), "1000")));
    }
}
