//! The report of this pod: its key of one ConfigMap, written when it changes.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::environment::Environment;
use crate::backoff::Backoff;
use crate::contract::pooler::{PodReport, VERSION};

/// How long the removal of the report may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a write of it may take: a connection that the network has dropped says nothing for minutes.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);

/// Changes the report; cheap to clone.
#[derive(Clone)]
pub struct Reporter {
    report: watch::Sender<PodReport>,
    place: Place,
}

#[derive(Clone)]
struct Place {
    config_maps: Api<ConfigMap>,
    config_map: String,
    pod: String,
}

impl Reporter {
    /// Changes the report; it is written in the background.
    pub fn update(&self, change: impl FnOnce(&mut PodReport)) {
        self.report.send_if_modified(|report| {
            let before = report.clone();
            change(report);
            *report != before
        });
    }

    /// Removes the report: the pod ends.
    pub async fn leave(&self) {
        if let Err(error) = self.place.write(Value::Null, PATIENCE).await {
            tracing::debug!(error, "the report is left behind");
        }
    }
}

impl Place {
    async fn write(&self, report: Value, patience: Duration) -> Result<(), String> {
        let patch = Patch::Merge(json!({"data": {&self.pod: report}}));
        let parameters = PatchParams::default();
        let written =
            tokio::time::timeout(patience, self.config_maps.patch(&self.config_map, &parameters, &patch)).await;
        let written = written.map_err(|_| "the API server does not answer".to_owned())?;
        written.map(drop).map_err(|error| error.to_string())
    }
}

/// Writes the report from now on.
pub fn start(environment: &Environment, client: kube::Client) -> Reporter {
    let report = PodReport { version: VERSION, uid: environment.uid.clone(), trouble: None, hold: None };
    let place = Place {
        config_maps: Api::namespaced(client, &environment.names.namespace),
        config_map: environment.names.pooler_reports(),
        pod: environment.pod.clone(),
    };
    let (sender, receiver) = (watch::Sender::new(report), place.clone());
    tokio::spawn(write(sender.subscribe(), receiver));
    Reporter { report: sender, place }
}

async fn write(mut report: watch::Receiver<PodReport>, place: Place) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        let text = json!(&*report.borrow_and_update()).to_string();
        match place.write(text.into(), WRITE_PATIENCE).await {
            Ok(()) => {
                backoff.reset();
                if report.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(error, "the report cannot be written; retrying");
                tokio::select! {
                    () = backoff.wait() => {}
                    _ = report.changed() => {}
                }
            }
        }
    }
}
