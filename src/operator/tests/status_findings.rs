//! Findings for the tests of status: a database at rest, and ways to disturb it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::fixtures::{MINIMAL, options, resource};
use crate::api::names::{ANNOTATION_REPORT, LABEL_NAME, LABEL_ROLE, LABEL_SCOPE, ROLE_PRIMARY, ROLE_REPLICA};
use crate::api::{DriftStatus, ServiceDatabase, ServiceDatabaseStatus};
use crate::contract::report::{CredentialsReport, Phase, Report, Role, VaultHealth};
use crate::migrate::source::MigrationSet;
use crate::operator::context::options::Options;
use crate::operator::credentials::DesiredCredentials;
use crate::operator::credentials::binding::Bound;
use crate::operator::instances::Decision;
use crate::operator::maintenance;
use crate::operator::migrations::progress::{Declared, Progress};
use crate::operator::observe::Observation;
use crate::operator::observe::pods::DatabasePod;
use crate::operator::restores::in_place;
use crate::operator::status::condition::ConditionState;
use crate::operator::status::{Findings, InstancesFindings, compute};
use crate::operator::upgrades;
use crate::operator::validate::validate;

/// Everything that [`Findings`] borrows.
pub struct Scene {
    pub resource: ServiceDatabase,
    pub options: Options,
    pub observed: Observation,
    pub stalled: Option<ConditionState>,
    pub failed: Option<ConditionState>,
    pub vault: Option<ConditionState>,
    pub credentials: DesiredCredentials,
    pub progress: Option<Progress>,
    pub declared: Option<Declared>,
    pub drift: Option<DriftStatus>,
    /// The backups.
    pub backups: crate::operator::backups::State,
    pub volumes: Option<ConditionState>,
    /// The restore in place.
    pub in_place: in_place::State,
    /// The major upgrade.
    pub upgrade: upgrades::State,
    pub now: Timestamp,
}

impl Scene {
    /// A new database without objects.
    pub fn new() -> Self {
        Self {
            resource: resource(MINIMAL),
            options: options(),
            observed: Observation::default(),
            stalled: None,
            failed: None,
            vault: Some(ConditionState::yes("Available", "Vault answers")),
            credentials: DesiredCredentials::first(),
            progress: Some(Progress::NotDeclared),
            declared: None,
            drift: None,
            backups: Default::default(),
            volumes: None,
            in_place: in_place::State::default(),
            upgrade: upgrades::State::default(),
            now: time("2026-03-01T12:00:00.75Z"),
        }
    }

    /// A database in its declared state.
    pub fn serving(instances: i32) -> Self {
        let mut scene = Self::new();
        scene.resource.spec.instances = instances;
        scene.observed.leader = Some("chat-db-0".to_owned());
        scene.observed.pods = (0..instances).map(|ordinal| observed(&pod(ordinal, ordinal == 0))).collect();
        if instances > 1 {
            scene.report(|report| report.synchronous_standbys = vec!["chat-db-1".to_owned()]);
        }
        scene
    }

    /// The status now.
    pub fn status(&self) -> ServiceDatabaseStatus {
        let database = validate(&self.resource, &self.options).ok();
        compute(&Findings {
            resource: &self.resource,
            options: &self.options,
            database: database.as_ref(),
            observed: &self.observed,
            stalled: self.stalled.clone(),
            failed: self.failed.clone(),
            vault: self.vault.clone(),
            certificates: None,
            credentials: self.credentials.clone(),
            bound: Bound::default(),
            progress: self.progress.clone(),
            declared: self.declared.as_ref(),
            drift: self.drift.clone(),
            backups: self.backups.clone(),
            maintenance: Box::new(maintenance::State::recorded(&self.resource.status.clone().unwrap_or_default())),
            in_place: self.in_place.clone(),
            upgrade: Box::new(self.upgrade.clone()),
            pooler: None,
            gateway: None,
            instances: self.volumes.clone().map(|state| InstancesFindings {
                decision: Decision::default(),
                pending: None,
                volumes: Some(state),
            }),
            now: self.now,
        })
    }

    /// Declares these migrations.
    pub fn declare(&mut self, set: MigrationSet) {
        self.declared = Some(Declared::Set { set, parts: Vec::new() });
    }

    /// Writes the status, and lets a minute pass.
    pub fn remember(mut self) -> Self {
        self.resource.status = Some(self.status());
        self.now = self.now.checked_add(jiff::SignedDuration::from_secs(60)).expect("a minute later");
        self
    }

    /// Changes the primary's report.
    pub fn report(&mut self, change: impl FnOnce(&mut Report)) {
        change(self.observed.pods[0].report.as_mut().expect("a report"));
    }
}

/// The operator's observation of a pod.
pub fn observed(pod: &Pod) -> DatabasePod {
    DatabasePod::from(pod, time("2026-03-01T12:00:00Z"))
}

/// A ready pod of `chat` with its agent's report, as Kubernetes has it.
pub fn pod(ordinal: i32, primary: bool) -> Pod {
    let uid = format!("uid-of-pod-{ordinal}");
    let report = json!(report(&uid, primary)).to_string();
    let role = if primary { ROLE_PRIMARY } else { ROLE_REPLICA };
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("chat-db-{ordinal}"), "namespace": "messaging", "uid": uid,
            "labels": {LABEL_NAME: "chat", LABEL_SCOPE: "chat-db", LABEL_ROLE: role},
            "annotations": {ANNOTATION_REPORT: report},
        },
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "database", "ready": true, "restartCount": 0, "image": "i", "imageID": "i",
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            }],
        },
    }))
    .expect("a pod")
}

/// The report of an agent whose instance serves.
pub fn report(uid: &str, primary: bool) -> Report {
    let mut report = Report::starting(uid.to_owned(), time("2026-01-01T00:00:01Z"));
    report.phase = Phase::Running;
    report.role = Some(if primary { Role::Primary } else { Role::Replica });
    report.postgres_version = Some("17.5".to_owned());
    report.vault = Some(VaultHealth { ok: true, reason: None, message: None });
    report.credentials = primary.then(|| CredentialsReport {
        generation: 1,
        rotated_at: time("2026-01-01T00:00:30.25Z"),
        versions: None,
    });
    report
}

/// A time.
pub fn time(text: &str) -> Timestamp {
    text.parse().expect("a timestamp")
}
