//! Metrics of each ServiceDatabase, from the status that was last computed. They are written at each scrape, so a
//! deleted resource leaves none, and a condition has one series: that of its present reason.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::api::{BackupStatus, ServiceDatabaseStatus};

/// The labels of a resource. A scrape must honour them: `namespace` is the resource's, not the operator's.
type Labels = Vec<(&'static str, String)>;

/// The metrics of all resources, by uid; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Resources(Arc<Mutex<BTreeMap<String, Resource>>>);

#[derive(Clone, Debug, Default)]
struct Resource {
    namespace: String,
    name: String,
    samples: Vec<Sample>,
    secret_ids: BTreeMap<&'static str, Timestamp>,
}

#[derive(Clone, Debug)]
struct Sample {
    metric: &'static str,
    labels: Labels,
    value: f64,
}

/// The metrics, without the prefix `servicedb_`, and their help.
const METRICS: [(&str, &str); 13] = [
    ("condition", "A condition of a ServiceDatabase: 1 True, 0 False, -1 Unknown"),
    ("instances", "Declared instances"),
    ("instances_ready", "Ready instances"),
    ("backup_newest_timestamp_seconds", "End of the newest backup in the store"),
    ("backup_newest_full_timestamp_seconds", "End of the newest full backup in the store"),
    ("backup_next_timestamp_seconds", "When the next scheduled backup starts"),
    ("backup_stored_bytes", "Size of the backups in the store, without WAL"),
    ("backup_count", "Number of backups in the store"),
    ("backup_recoverable_from_timestamp_seconds", "First moment to which the database can be recovered"),
    ("backup_verified_timestamp_seconds", "When a backup was last restored and checked"),
    ("backup_restore_seconds", "Duration of the last tested restore with its recovery"),
    ("schema_drift_differences", "Objects that differ from the migrations"),
    ("secret_id_expiry_timestamp_seconds", "When the secret_id of an AppRole expires"),
];

impl Resources {
    /// Records the status of a resource.
    pub fn observed(&self, uid: &str, namespace: &str, name: &str, status: &ServiceDatabaseStatus) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let resource = all.entry(uid.to_owned()).or_default();
        namespace.clone_into(&mut resource.namespace);
        name.clone_into(&mut resource.name);
        resource.samples = samples(status);
    }

    /// Records when the secret_id of an AppRole of a resource expires.
    pub fn secret_id(&self, uid: &str, of: &'static str, expires_at: Timestamp) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(uid.to_owned()).or_default().secret_ids.insert(of, expires_at);
    }

    /// Removes a deleted resource.
    pub fn gone(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

impl Collector for Resources {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One of which only a secret_id is known has no name yet.
        let named = || all.values().filter(|resource| !resource.name.is_empty());
        for (metric, help) in METRICS {
            let mut family = encoder.encode_descriptor(metric, help, None, MetricType::Gauge)?;
            for resource in named() {
                let mut write = |labels: &Labels, value: f64| {
                    let mut all: Labels =
                        vec![("namespace", resource.namespace.clone()), ("servicedb", resource.name.clone())];
                    all.extend(labels.iter().cloned());
                    ConstGauge::new(value).encode(family.encode_family(&all)?)
                };
                for sample in resource.samples.iter().filter(|sample| sample.metric == metric) {
                    write(&sample.labels, sample.value)?;
                }
                if metric == "secret_id_expiry_timestamp_seconds" {
                    for (of, expires_at) in &resource.secret_ids {
                        write(&vec![("approle", (*of).to_owned())], expires_at.as_second() as f64)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn samples(status: &ServiceDatabaseStatus) -> Vec<Sample> {
    let mut samples = Vec::new();
    for condition in &status.conditions {
        let value = match condition.status.as_str() {
            "True" => 1.0,
            "False" => 0.0,
            _ => -1.0,
        };
        let labels = vec![("condition", condition.type_.clone()), ("reason", condition.reason.clone())];
        samples.push(Sample { metric: "condition", labels, value });
    }
    let mut add = |metric, value: Option<f64>| {
        samples.extend(value.map(|value| Sample { metric, labels: Labels::new(), value }));
    };
    let (ready, declared) = status.instances.as_deref().and_then(|text| text.split_once('/')).unzip();
    add("instances", declared.and_then(|number| number.parse().ok()));
    add("instances_ready", ready.and_then(|number| number.parse().ok()));
    if let Some(backup) = &status.backup {
        add("backup_next_timestamp_seconds", backup.next_at.as_ref().map(at));
        add("backup_verified_timestamp_seconds", backup.verified.as_ref().map(|found| at(&found.at)));
        add("backup_restore_seconds", backup.verified.as_ref().map(|found| found.restore_seconds as f64));
    }
    add("schema_drift_differences", status.drift.as_ref().map(|drift| drift.count as f64));
    for store in status.backup.iter().flat_map(BackupStatus::stores) {
        let mut add = |metric, value: Option<f64>| {
            let labels = vec![("store", store.store.clone())];
            samples.extend(value.map(|value| Sample { metric, labels, value }));
        };
        add("backup_newest_timestamp_seconds", store.newest.as_ref().map(|found| at(&found.finished_at)));
        add("backup_newest_full_timestamp_seconds", store.newest_full.as_ref().map(|found| at(&found.finished_at)));
        add("backup_stored_bytes", store.stored_bytes.map(|bytes| bytes as f64));
        add("backup_count", store.count.map(f64::from));
        add("backup_recoverable_from_timestamp_seconds", store.recoverable_from.as_ref().map(at));
    }
    samples
}

fn at(time: &Time) -> f64 {
    time.0.as_second() as f64
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use serde_json::json;

    use super::*;

    fn page(resources: &Resources) -> String {
        let mut registry = Registry::with_prefix("servicedb");
        registry.register_collector(Box::new(resources.clone()));
        let mut page = String::new();
        encode(&mut page, &registry).expect("text");
        page
    }

    #[test]
    fn a_condition_has_one_series_that_of_its_reason_and_a_deleted_resource_none() {
        let resources = Resources::default();
        let status = |status: &str, reason: &str| -> ServiceDatabaseStatus {
            let condition = json!({"type": "Ready", "status": status, "reason": reason, "message": "a long message",
                                   "lastTransitionTime": "2026-01-01T00:00:00Z"});
            serde_json::from_value(json!({"conditions": [condition], "instances": "2/3"})).expect("a status")
        };
        resources.secret_id("u", "instance", Timestamp::from_second(1_800_000_000).expect("a time"));
        assert!(!page(&resources).contains("1800000000"), "it has no name yet");
        resources.observed("u", "messaging", "chat", &status("False", "NoPrimary"));
        resources.observed("u", "messaging", "chat", &status("True", "Running"));
        let text = page(&resources);
        let of = "namespace=\"messaging\",servicedb=\"chat\"";
        for line in [
            format!("servicedb_condition{{{of},condition=\"Ready\",reason=\"Running\"}} 1.0\n"),
            format!("servicedb_instances_ready{{{of}}} 2.0\n"),
            format!("servicedb_secret_id_expiry_timestamp_seconds{{{of},approle=\"instance\"}} 1800000000.0\n"),
        ] {
            assert!(text.contains(&line), "{line} in {text}");
        }
        assert!(!text.contains("NoPrimary") && !text.contains("a long message"), "{text}");
        resources.gone("u");
        assert!(!page(&resources).contains("messaging"));
    }
}
