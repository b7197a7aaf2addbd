//! Metrics, with bounded labels, in the OpenMetrics text format.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::resources::Resources;
use crate::operator::apply::object::Change;
use crate::vault::client::Requests;

/// The operator's metrics.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    reconciles: Family<OutcomeLabel, Counter>,
    duration: Histogram,
    applied: Family<AppliedChange, Counter>,
    databases: Family<Readiness, Gauge>,
    migrations: Migrations,
    leader: Gauge,
    outdated: Gauge,
    ready: Arc<Mutex<HashMap<String, bool>>>,
    /// Of each resource.
    pub resources: Resources,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AppliedChange {
    change: ChangeLabel,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
enum ChangeLabel {
    Created,
    Updated,
    Unchanged,
    Deleted,
}

#[derive(Clone)]
struct Migrations {
    applied: Counter,
    rolled_back: Counter,
    failures: Family<Reason, Counter>,
    duration: Histogram,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Readiness {
    ready: &'static str,
}

impl Metrics {
    /// Metrics with zero counts, except for these counters of requests to Vault, which are shared.
    pub fn new(vault: &Requests) -> Self {
        let mut registry = Registry::with_prefix("servicedb");
        registry.register("vault_requests", "Requests to Vault, by operation and result", vault.0.clone());
        let reconciles = Family::default();
        registry.register("reconciles", "Reconciles, by outcome or class of error", reconciles.clone());
        let duration = Histogram::new([0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]);
        registry.register("reconcile_duration_seconds", "Duration of a reconcile", duration.clone());
        let applied = Family::default();
        registry.register("objects_applied", "Objects applied, by the resulting change", applied.clone());
        let databases = Family::default();
        registry.register("databases", "ServiceDatabases, by whether they are Ready", databases.clone());
        let leader = Gauge::default();
        registry.register("leader", "1 while this operator holds the Lease", leader.clone());
        let outdated = Gauge::default();
        let help = "1 while the CustomResourceDefinition is older than this operator";
        registry.register("definition_outdated", help, outdated.clone());
        let migrations = Migrations::in_registry(&mut registry);
        let resources = Resources::default();
        registry.register_collector(Box::new(resources.clone()));
        Self {
            registry: Arc::new(registry),
            reconciles,
            duration,
            applied,
            databases,
            migrations,
            leader,
            outdated,
            ready: Arc::default(),
            resources,
        }
    }

    /// Counts a reconcile.
    pub fn reconciled(&self, outcome: &'static str, took: Duration) {
        self.reconciles.get_or_create(&OutcomeLabel { outcome }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts an applied object.
    pub fn applied(&self, change: Change) {
        let change = match change {
            Change::Created => ChangeLabel::Created,
            Change::Updated => ChangeLabel::Updated,
            Change::Unchanged => ChangeLabel::Unchanged,
            Change::Deleted => ChangeLabel::Deleted,
        };
        self.applied.get_or_create(&AppliedChange { change }).inc();
    }

    /// Counts changes of the number of applied migrations, and the durations of new ones.
    pub fn migrated(&self, change: i64, took: impl IntoIterator<Item = Duration>) {
        let count = if change > 0 { &self.migrations.applied } else { &self.migrations.rolled_back };
        count.inc_by(change.unsigned_abs());
        for took in took {
            self.migrations.duration.observe(took.as_secs_f64());
        }
    }

    /// Counts migrations that failed or were refused; `reason` is one of `api::conditions::reason`.
    pub fn migrations_failed(&self, reason: &str) {
        self.migrations.failures.get_or_create(&Reason { reason: reason.to_owned() }).inc();
    }

    /// Records whether a resource is Ready.
    pub fn observed(&self, uid: &str, ready: bool) {
        self.change(|all| {
            all.insert(uid.to_owned(), ready);
        });
    }

    /// Removes a deleted resource.
    pub fn gone(&self, uid: &str) {
        self.resources.gone(uid);
        self.change(|all| {
            all.remove(uid);
        });
    }

    /// Records whether this operator leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Records whether the CustomResourceDefinition is older than this operator.
    pub fn definition_is_outdated(&self, outdated: bool) {
        self.outdated.set(i64::from(outdated));
    }

    /// All metrics as text.
    ///
    /// # Errors
    /// If the text cannot be written, which requires an invalid label.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<String, bool>)) {
        let mut all = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut all);
        for (label, wanted) in [("true", true), ("false", false)] {
            let count = all.values().filter(|ready| **ready == wanted).count();
            let gauge = self.databases.get_or_create(&Readiness { ready: label });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

impl Migrations {
    fn in_registry(registry: &mut Registry) -> Self {
        let (applied, rolled_back) = (Counter::default(), Counter::default());
        registry.register("migrations_applied", "Migrations that were applied", applied.clone());
        registry.register("migrations_rolled_back", "Migrations that were rolled back", rolled_back.clone());
        let failures = Family::default();
        let help = "Migrations that failed or were refused, by the reason of MigrationsApplied";
        registry.register("migration_failures", help, failures.clone());
        let duration = Histogram::new([0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0]);
        registry.register("migration_duration_seconds", "Duration of an applied migration", duration.clone());
        Self { applied, rolled_back, failures, duration }
    }
}
