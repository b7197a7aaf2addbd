//! The resource's `status`: only applied and observed state.

use std::fmt;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gateway::GatewayStatus;
use super::maintenance::MaintenanceStatus;
use super::nulls::null_as_default;
use super::pooler::PoolerStatus;
use super::version::SchemaVersion;

/// The last observed state.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceDatabaseStatus {
    /// Generation of the spec that this status describes; -1 before the operator's first status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready, Reconciling, Stalled, DatabaseAvailable, CredentialsReady, MigrationsApplied,
    /// CertificatesReady, VaultReachable, SynchronousReplication, RolloutPending; with a store for
    /// backups ContinuousArchiving, BackedUp and RestoreVerified; and, once they were found or checked, SchemaDrift,
    /// VolumeNearlyFull, CollationsChanged and CustomMetricsRead.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// Name of the database, fixed when it was first resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,

    /// Version that the PostgreSQL server reports, such as `17.5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres_version: Option<String>,

    /// Major version of the data. It changes by an upgrade alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres_major: Option<i32>,

    /// Pod of the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,

    /// Ready and declared instances, such as `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<String>,

    /// Version of the schema: the newest applied migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<String>,

    /// Addresses of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,

    /// State of the migrations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrations: Option<MigrationsStatus>,
    /// Result of the last check for schema drift.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<DriftStatus>,

    /// The credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialsStatus>,

    /// The clients that have a login of their own.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub clients: Vec<ClientStatus>,

    /// The backups; absent without a store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupStatus>,

    /// Sizes and growth, as the primary measured them within the last hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<CapacityStatus>,

    /// The maintenance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Box<MaintenanceStatus>>,

    /// The pooler; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooler: Option<PoolerStatus>,
    /// The data gateway; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayStatus>,

    /// The certificates and their authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<CertificatesStatus>,

    /// Secret with the credentials, once it has them (servicebinding.io's Provisioned Service).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<BindingStatus>,

    /// Size of the largest volume: `spec.storage.size` cannot be set below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "volume_size_schema")]
    pub volume_size: Option<Quantity>,

    /// With `spec.updatePolicy: Manual`: changes of the pods that wait for approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<PendingRollout>,

    /// The last requested switchover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switchover: Option<RequestStatus>,

    /// The last requested restart of PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RequestStatus>,

    /// Last requested restore in place, and its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<InPlaceRestore>,
    /// The last major upgrade, or the one that is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Box<UpgradeStatus>>,
    /// What `spec.bootstrap.restore` restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<String>,

    /// Reason why the deletion of the resource waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_waits_for: Option<String>,
}

/// Sizes and growth, in bytes. A growth is absent until the samples of its window are there.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CapacityStatus {
    /// When they were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_at: Option<Time>,
    /// Size of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_bytes: Option<i64>,
    /// Growth of the database in a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_day_bytes: Option<i64>,
    /// Growth of the database in a week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_week_bytes: Option<i64>,
    /// WAL that was written in a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal_day_bytes: Option<i64>,
    /// WAL that was written in a week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal_week_bytes: Option<i64>,
    /// Days until the primary's volume is full, as the database grew; absent if it does not grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_full_in_days: Option<i64>,
    /// The largest tables with their indexes, the largest first.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub tables: Vec<TableCapacity>,
}

/// Size and growth of a table with its indexes, in bytes.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TableCapacity {
    /// Schema and name.
    pub name: String,
    /// Size.
    pub bytes: i64,
    /// Growth in a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day_bytes: Option<i64>,
    /// Growth in a week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub week_bytes: Option<i64>,
}

/// State of the backups.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// Name of the store.
    pub store: String,
    /// Folder of the database in the store.
    pub path: String,
    /// Time of the last archived WAL segment, updated at most every five minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived_at: Option<Time>,
    /// When WAL was last given up because it filled the volume, or found to be missing in the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up_at: Option<Time>,
    /// First moment to which the database can be recovered: the end of the oldest backup. The last
    /// one is that of the newest WAL in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recoverable_from: Option<Time>,
    /// Newest full backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_full: Option<StoredBackup>,
    /// Newest backup of any type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<StoredBackup>,
    /// Number of backups in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Size of the backups in the store, in bytes, without WAL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<i64>,
    /// Last backup Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<BackupRunStatus>,
    /// Time of the next scheduled backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Time>,
    /// The last 20 timelines that restores in place have left, the oldest first: each can be recovered
    /// until then.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub left_timelines: Vec<LeftTimeline>,
    /// The last 20 databases that major upgrades, and ways back, have left, the oldest first.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub left_databases: Vec<LeftDatabase>,
    /// After an upgrade: the spans to which it can be recovered.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 21), extend("x-kubernetes-list-type" = "atomic"))]
    pub windows: Vec<RecoveryWindow>,
    /// Last test of a backup: it was restored and checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<VerifiedBackup>,
    /// Last Job that tests a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verification: Option<JobRun>,
    /// The same of the second store; its tests are those of the first one.
    #[schemars(schema_with = "second_store_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<Box<BackupStatus>>,
}

impl BackupStatus {
    /// The state of each store.
    pub fn stores(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.second.as_deref())
    }
}

/// The part of [`BackupStatus`] that a second store has. Its objects are those of the first one, and are not written out
/// again: the definition has a limit, and the operator alone writes them.
fn second_store_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let time = || serde_json::json!({"type": "string", "format": "date-time"});
    let object = || serde_json::json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    schemars::json_schema!({
        "type": "object",
        "description": "The same of the second store; its tests are those of the first one.",
        "required": ["store", "path"],
        "properties": {
            "store": {"type": "string"},
            "path": {"type": "string"},
            "archivedAt": time(),
            "givenUpAt": time(),
            "recoverableFrom": time(),
            "newestFull": object(),
            "newest": object(),
            "count": {"type": "integer", "format": "uint32"},
            "storedBytes": {"type": "integer", "format": "int64"},
            "lastRun": object(),
            "windows": {"type": "array", "items": object()},
        },
    })
}

/// A timeline that a restore in place has left.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LeftTimeline {
    /// The timeline.
    pub timeline: i64,
    /// Its last moment.
    pub left_at: Time,
    /// The timeline with which the database continued.
    pub continued_as: i64,
    /// Of two stores: the one that has all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
}

/// A database that a major upgrade, or the way back, has left.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LeftDatabase {
    /// Its last moment.
    pub left_at: Time,
    /// Its major version; absent: unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<i32>,
    /// That of its successor.
    pub to: i32,
    /// Its system identifier.
    pub system_identifier: String,
    /// That of its successor.
    pub continued_as: String,
}

/// A span to which the database can be recovered.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryWindow {
    /// First moment.
    pub from: Time,
    /// Last moment; absent: until now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// Major version then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres_major: Option<i32>,
}

/// A restore in place.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct InPlaceRestore {
    /// The request, from an annotation.
    #[serde(flatten)]
    pub run: RequestStatus,
    /// The migrations that were applied before it. They are not applied again while the annotation
    /// exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrations_before: Option<String>,
    /// Result of the last one that succeeded before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_done: Option<String>,
}

/// A major upgrade.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeStatus {
    /// Major version before it.
    pub from: i32,
    /// Major version after it.
    pub to: i32,
    /// How far it is.
    pub phase: UpgradePhase,
    /// What happens, or what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What was requested last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<UpgradeAction>,
    /// The last request, from an annotation, and its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_request: Option<RequestStatus>,
    /// The last token of the annotation that was taken up: after an upgrade that began by itself it is no new request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_request: Option<String>,
    /// The announced outage: how long the last rehearsal took from the copy to the start of the new server, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal_seconds: Option<i64>,
    /// The backup that a Job restored for it; absent: it was made on a copy on the primary's volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsed_backup: Option<String>,
    /// How long that Job took, with the restore, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal_job_seconds: Option<i64>,
    /// When the data directories were exchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switched_at: Option<Time>,
    /// The pod that keeps the data directory from before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_by: Option<String>,
    /// PostgreSQL's system identifier of the data that was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_system_identifier: Option<String>,
    /// PostgreSQL's system identifier since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
}

impl UpgradeStatus {
    /// One that was not requested yet.
    pub fn pending(from: i32, to: i32) -> Self {
        Self {
            from,
            to,
            phase: UpgradePhase::Pending,
            message: None,
            action: None,
            last_request: None,
            answered_request: None,
            rehearsal_seconds: None,
            rehearsed_backup: None,
            rehearsal_job_seconds: None,
            switched_at: None,
            kept_by: None,
            left_system_identifier: None,
            system_identifier: None,
        }
    }
}

/// How far a major upgrade is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradePhase {
    /// None is declared and none was made: status has the answer to a request.
    None,
    /// The spec declares it, and it waits for a request.
    Pending,
    /// A copy is being upgraded; the database serves.
    Rehearsing,
    /// The other instances stop.
    Stopping,
    /// The primary exchanges its data directory.
    Switching,
    /// The database is of the new version, and the data from before is kept.
    Upgraded,
    /// Nothing of it is left: the data from before is removed.
    Finished,
    /// The database is that from before again.
    TakenBack,
    /// It failed, and nothing was changed.
    Failed,
}

/// What is requested of a major upgrade.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeAction {
    /// The rehearsal alone.
    Check,
    /// The upgrade, after a rehearsal.
    Start,
    /// The data from before it.
    Back,
    /// The removal of that data.
    Finish,
}

/// A backup that was restored and checked.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedBackup {
    /// Name of the backup in the store.
    pub label: String,
    /// The store, where there are two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// When the test ended.
    pub at: Time,
    /// Time of the last transaction in it, as PostgreSQL logged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_until: Option<String>,
    /// Duration of the restore with its recovery, in seconds: the measured recovery time.
    pub restore_seconds: i64,
    /// Duration of the checks, in seconds.
    pub check_seconds: i64,
}

/// A backup in the store.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StoredBackup {
    /// Name in the store.
    pub label: String,
    /// Type.
    #[serde(rename = "type")]
    pub kind: BackupType,
    /// When it started.
    pub started_at: Time,
    /// When it ended.
    pub finished_at: Time,
    /// Size of the database, in bytes.
    pub database_bytes: i64,
    /// What it takes in the store beside the backups that it stands on, in bytes.
    pub stored_bytes: i64,
}

/// The type of a backup.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupType {
    /// Everything.
    Full,
    /// What changed since the backup before.
    Incremental,
}

/// A backup Job.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BackupRunStatus {
    /// Type of the backup.
    #[serde(rename = "type")]
    pub kind: BackupType,
    /// The Job.
    #[serde(flatten)]
    pub run: JobRun,
}

/// A Job, and its result.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct JobRun {
    /// Name of the Job.
    pub job: String,
    /// State.
    pub state: RequestState,
    /// When it was created.
    pub started_at: Time,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Cause of the failure, or what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Number of Jobs that failed one after another, this one included.
    #[serde(default)]
    pub failures: u32,
    /// Token of the last annotation (`servicedb.dev/backup`, `servicedb.dev/verify-backup`) that was processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// Changes of the pods by another version of the operator or its images.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PendingRollout {
    /// Id that an approval names: it identifies these changes.
    pub id: String,
    /// The first 12 changes of the pod template, as `path: before -> after`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 12), extend("x-kubernetes-list-type" = "atomic"))]
    pub changes: Vec<String>,
}

/// A request by annotation, and its result.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RequestStatus {
    /// Token of the annotation.
    pub request: String,
    /// State of the request.
    pub state: RequestState,
    /// When processing started.
    pub started_at: Time,
    /// Result, or cause of the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The state of a request.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestState {
    /// In progress.
    Running,
    /// Completed.
    Done,
    /// Failed; it is not retried.
    Failed,
}

/// The result of the last check for schema drift.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DriftStatus {
    /// Time of the check.
    pub checked_at: Time,
    /// Revision and target that the schema was compared with.
    pub goal: String,
    /// Number of objects that differ.
    pub count: i64,
    /// The first 12 differences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 12), extend("x-kubernetes-list-type" = "atomic"))]
    pub differences: Vec<String>,
    /// Error, if the check failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Token of the last `servicedb.dev/check-drift` annotation that was processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// The Secret with the credentials.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BindingStatus {
    /// Its name.
    pub name: String,
}

/// Addresses of the database, as `host:port`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// Primary, for reads and writes.
    pub primary: String,
    /// Replicas, for reads; absent with one instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<String>,
    /// Pooler, for reads and writes; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooler: Option<String>,
    /// Read-only pooler; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooler_replicas: Option<String>,
}

/// State of the migrations; the complete list is the ledger in the database.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MigrationsStatus {
    /// Hash of the declared migrations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The tool whose files these are, as declared or as recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Files that are not migrations and were passed over: the first 12 names.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 12), extend("x-kubernetes-list-type" = "atomic"))]
    pub ignored: Vec<String>,
    /// How many there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignored_count: Option<i64>,
    /// Number of completed migrations.
    #[serde(default)]
    pub applied: i64,
    /// Number of declared migrations that are not completed.
    #[serde(default)]
    pub pending: i64,
    /// Number of failed migrations.
    #[serde(default)]
    pub failed: i64,
    /// The last 20, newest first.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub recent: Vec<MigrationRecord>,
    /// With `spec.migrations.dryRun`: the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<MigrationPlan>,
    /// With `spec.migrations.approval: Manual`: statements that wait for approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<PendingApproval>,
}

/// Statements that wait for approval.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PendingApproval {
    /// Id that an approval names: it identifies the files and the target.
    pub id: String,
    /// Number of statements.
    pub count: i64,
    /// The first 12, in execution order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 12), extend("x-kubernetes-list-type" = "atomic"))]
    pub statements: Vec<HeldStatement>,
}

/// One statement that waits for approval.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HeldStatement {
    /// File, or image of the team's own tool.
    pub file: String,
    /// Line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Effect of the statement, or why it is unknown.
    pub why: String,
}

impl fmt::Display for HeldStatement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line.map(|line| format!(", line {line}")).unwrap_or_default();
        write!(formatter, "{}{line}: {}", self.file, self.why)
    }
}

/// The plan of a run of the migrations.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MigrationPlan {
    /// Number of migrations to apply.
    pub apply: i64,
    /// Number of migrations to roll back.
    pub roll_back: i64,
    /// Number of migrations to record as applied (`spec.migrations.baselineVersion`).
    pub record: i64,
    /// The first 20, in execution order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub steps: Vec<PlannedMigration>,
}

/// One step of a plan.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PlannedMigration {
    /// Version of the migration.
    pub version: SchemaVersion,
    /// Name of the migration, at most 100 characters.
    pub name: String,
    /// Planned action.
    pub action: MigrationAction,
}

/// The planned action for a migration.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationAction {
    /// Run its up file.
    Apply,
    /// Run its down file.
    RollBack,
    /// Record it as applied, without running it.
    Record,
}

/// One migration.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MigrationRecord {
    /// Version: a number, or a text in the formats that have others.
    pub version: SchemaVersion,
    /// Name, from the file's name.
    pub name: String,
    /// State of the migration.
    pub state: MigrationState,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Duration, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
    /// Error: the file, the SQLSTATE and the server's message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The state of a migration.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum MigrationState {
    /// Declared, not started.
    Pending,
    /// Running.
    Executing,
    /// Committed.
    Completed,
    /// Rolled back with an error.
    Failed,
}

/// The application's credentials.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsStatus {
    /// Generation of Vault's `runtime` record, proved by a login; 0: none yet.
    #[serde(default)]
    pub generation: i64,
    /// When this generation was promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<Time>,
    /// Number of sessions, on all instances, that use the replaced login. At 0 the next rotation
    /// affects no session. Absent until every instance has counted since the last rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_sessions: Option<i64>,
    /// Number of sessions of the shared login, on all instances: at most five minutes old; the first
    /// session and the end of the last count within a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<i64>,
    /// Token of the last `servicedb.dev/rotate` annotation that was processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_request: Option<String>,
    /// Token of the last `servicedb.dev/reissue` annotation that was processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reissue_request: Option<String>,
    /// Value of the last `servicedb.dev/rotate-client` annotation that was processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_client_request: Option<String>,
    /// Path of the credentials for `vault kv get`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault_path: Option<String>,
    /// Role of Vault's Kubernetes auth method for `clients`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault_role: Option<String>,
}

/// A client that has a login of its own.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClientStatus {
    /// Its name.
    #[schemars(length(max = 20))]
    pub name: String,
    /// Its ServiceAccount.
    #[schemars(length(max = 253))]
    pub service_account_name: String,
    /// The namespace of its ServiceAccount, if it is another than the database's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub service_account_namespace: Option<String>,
    /// The mode of its access.
    #[schemars(length(max = 16))]
    pub access: String,
    /// Generation of its record in Vault, proved by a login; 0: none yet.
    #[serde(default)]
    pub generation: i64,
    /// Whether Vault makes logins for it; only with `access.dynamic`, and then there is no generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dynamic: Option<bool>,
    /// When this generation was promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<Time>,
    /// Number of its sessions, on all instances, as in `credentials.sessions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<i64>,
    /// Secret with its credentials, once it has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub secret: Option<String>,
    /// Path of its credentials for `vault kv get`; with `access.dynamic` for `vault read`.
    pub vault_path: String,
    /// Its role of Vault's Kubernetes auth method.
    pub vault_role: String,
    /// Its role in PostgreSQL, which has its rights.
    pub role: String,
    /// Whether its rights in the database are the declared ones: `Applied`; `GrantPending`: a
    /// declared table or column does not exist; `GrantDrift`: it has a right that is not declared;
    /// `GrantFailed`; `Unknown`: they were not compared yet; `NotAllowed`: the platform does not allow
    /// a client of its namespace, and it has no access.
    #[schemars(length(max = 32))]
    pub rights: String,
    /// What differs from the declaration, or why the login is not in Vault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The certificates of a database and their authority.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CertificatesStatus {
    /// Expiry of the certificates; they are renewed 60 days before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// Expiry of the authority; it is replaced 400 days before. Absent while its key is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_not_after: Option<Time>,
    /// Change of the authority in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<AuthorityChange>,
    /// Token of the last `servicedb.dev/renew-authority` annotation that was processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_request: Option<String>,
}

/// A change of the certificate authority.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityChange {
    /// Phase of the change.
    pub phase: AuthorityPhase,
    /// The token of the `servicedb.dev/renew-authority` annotation that requested it, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// When it started.
    pub started_at: Time,
    /// When the next step is due, if it depends only on time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_step_at: Option<Time>,
    /// Current step, and the condition for the next.
    pub message: String,
}

/// The phase of a change of the certificate authority.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityPhase {
    /// The new authority is published to the instances, the record in Vault and the Secret with the
    /// credentials, beside the present one.
    Publishing,
    /// Clients have time to read it; the present one still signs.
    Announced,
    /// The new one signs, and the former one is still trusted.
    Signing,
}

/// The schema of a quantity that CEL can read.
fn volume_size_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{ "type": "integer" }, { "type": "string" }],
        "maxLength": 32,
        "nullable": true,
        "description": "Size of the largest volume: `spec.storage.size` cannot be set below it.",
    })
}
